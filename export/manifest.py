"""manifest.json: what is in a model folder, of which codec it is, and what made it."""
from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from remac_runtime.enhance.enhancer import DICTIONARY_FILE, SEGMENTER_FILE
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.files import write_json
from remac_runtime.model import BANK_FILE, ENHANCE_FOLDER, GROUND_FOLDER, NETWORK_FILE
from remac_runtime.network import Bank, Network
from remac_runtime.packets import scan
from remac_runtime.topology import GRAPHS

SCHEMA = 1
MANIFEST_FILE = "manifest.json"
ROVER_FILES = (Path(NETWORK_FILE), Path(BANK_FILE), *(Path(f"{graph}.onnx") for graph in GRAPHS))
DICTIONARY, SEGMENTER = ENHANCE_FOLDER / DICTIONARY_FILE, ENHANCE_FOLDER / SEGMENTER_FILE       # which every network of MarsQE needs
UNKNOWN = "an unknown one"
TOOLS = ("numpy", "onnx", "onnxruntime", "onnxsim", "torch", "remac-runtime")


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that exist, relative to it: network, bank, graphs, networks of the ground segment and MarsQE's dictionary."""
    found = (path.relative_to(folder) for path in (folder / GROUND_FOLDER).rglob("*.onnx"))
    ground = sorted(path for path in found if path.parent.suffix != ".orin")       # what is copied to a board to build an engine there
    return [*(name for name in ROVER_FILES if (folder / name).is_file()), *ground, *(name for name in [DICTIONARY] if (folder / name).is_file())]


def tool_versions() -> dict[str, str]:
    """Versions of Python and of those of TOOLS that are installed."""
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return versions


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def describe(folder: Path, network: Network, bank: Bank | None, opset: int, macs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The manifest of a folder. `macs`: multiply-accumulates per pixel, {graph: {layer: MAC / pixel}}."""
    return {
        "schema": SCHEMA, "profile": network.profile, "codec_hash": network.hash.hex(), "bank_hash": bank.hash.hex() if bank else None,
        "opset": opset, "mac_per_pixel": {graph: {layer: round(count, 3) for layer, count in layers.items()} for graph, layers in macs.items()},
        "files": {name.as_posix(): _entry(folder / name) for name in model_files(folder)}, "tools": tool_versions(),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> Path:
    """Write manifest.json, at once or not at all."""
    path = folder / MANIFEST_FILE
    write_json(path, manifest)
    return path


def refresh_manifest(folder: Path) -> None:
    """Describe the files anew where the folder has a manifest, as after an export of the ground segment's networks."""
    if (folder / MANIFEST_FILE).is_file():
        files = {name.as_posix(): _entry(folder / name) for name in model_files(folder)}
        write_manifest(folder, {**read_manifest(folder), "files": files, "tools": tool_versions()})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises BadNetwork if it is missing, damaged or of another schema."""
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema, files = manifest["schema"], manifest["files"]
        if not all(isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in files.values()):
            raise TypeError("files")
    except OSError as error:
        raise BadNetwork(f"{path}: cannot be read ({error.strerror}): build the model with `make encoder`") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadNetwork(f"{path}: damaged manifest ({error}): build the model again with `make encoder`") from None
    if schema != SCHEMA:
        raise BadNetwork(f"{path}: schema {schema}, this build reads {SCHEMA}")
    return dict(manifest)


def differences(folder: Path, manifest: Mapping[str, Any] | None = None) -> Iterator[str]:
    """What in the folder is not as this manifest says, by default its own. Raises BadNetwork if that is none that is valid."""
    files = (read_manifest(folder) if manifest is None else manifest)["files"]
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name}: missing"
        elif _entry(path) != entry:
            yield f"{name}: {path.stat().st_size} bytes, not the {entry['bytes']} bytes with SHA-256 {entry['sha256'][:16]}... of the manifest"
    for path in model_files(folder):
        if path.as_posix() not in files:
            yield f"{path.as_posix()}: not in the manifest"


def offences(manifest: Mapping[str, Any], folder: Path, network: Network, bank: Bank | None, decoders: Iterable[str]) -> Iterator[str]:
    """What a manifest lists that is not of this network and bank, as they were loaded and checked, and what it ought to list but does not.

    `decoders`: the files of the ground decoders that were exported, relative to the folder. Others may lie beside them, if they are of this codec.
    """
    files, codec = manifest["files"], network.hash.hex()
    for name, wanted in ((NETWORK_FILE, codec), (BANK_FILE, bank.hash.hex() if bank else "missing")):
        listed = files[name]["sha256"][:len(codec)] if name in files else "missing"
        if listed != wanted:                # the hash is the start of the file's
            yield f"{name}: {listed}, what was loaded and checked is {wanted}"
    enhancing = [name for name in files if Path(name).parent == ENHANCE_FOLDER]
    for name in (*(path.as_posix() for path in ROVER_FILES), *decoders, *([DICTIONARY.as_posix(), SEGMENTER.as_posix()] if enhancing else [])):
        if name not in files:
            yield f"{name}: not listed"
    for name in files:
        if Path(name).parent == GROUND_FOLDER and (made_for := properties(folder / name).get("codec_hash", UNKNOWN)) != codec:
            yield f"{name}: made for codec {made_for}, the network is {codec}"
    if DICTIONARY.as_posix() in files and (made_with := coded_with(folder / DICTIONARY)) != codec:
        yield f"{DICTIONARY.as_posix()}: made with codec {made_with}, the network is {codec}: run python export/marsqe.py, then this again"


def coded_with(path: Path) -> str:
    """The hash of the codec that made a stream, in hex, or words where it is none, or none that can be read."""
    try:
        return scan(path.read_bytes()).header.codec_hash.hex()
    except (OSError, RemacError):
        return UNKNOWN


def properties(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file; none of what is no such file."""
    import onnx
    try:
        return {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
    except Exception:       # protobuf's errors share no public base class
        return {}
