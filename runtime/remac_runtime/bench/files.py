"""Results of `remac bench` as files: sealed with a checksum to share them, checked when they come back, and added to the results."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remac_runtime.bench.harness import KIND, SCHEMA
from remac_runtime.bench.stats import Summary
from remac_runtime.boards import find_board
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.files import write_atomically

SEAL = "sha256"
FOLDER = Path("benchmarks", "results", "boards")
LARGEST_BYTES = 4 << 20
TOLERANCE_MS = 1e-3
# The keys of a result and what they hold; a tuple of names is a table with (at least) these keys.
REQUIRED: Mapping[str, Any] = {
    "schema": int, "kind": str, "valid": bool, "warnings": list,
    "codec": {"profile": str, "codec_hash": str, "artefacts": dict}, "picture": {"width": int, "height": int, "synthetic": bool, "sha256": str},
    "settings": {"backend": str, "threads": int, "quality": int, "rounds": int, "warmup": int},
    "verified": {"stream_bytes": int, "stream_sha256": str, "against": list},
    "timings": {"pixels_to_bytes": dict, "file_to_file": dict, "stages": dict}, "memory": {"available": bool, "predicted": dict},
    "cost": {"mac_per_pixel": float, "stages": dict}, "energy": {"available": bool}, "environment": {"processor": dict, "versions": dict},
}


class BadResult(RemacError):
    """A file that is no result of `remac bench`, was changed, or is of another version."""


def seal(result: Mapping[str, Any]) -> str:
    """SHA-256 over the result without its seal, written in one way."""
    content = {key: value for key, value in result.items() if key != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its seal."""
    return {**result, SEAL: seal(result)}


def title(result: Mapping[str, Any]) -> str:
    """Board, engine and threads in a few words."""
    settings = result["settings"]
    return f"{result['board'] or 'no board'}, {settings['backend']}, {settings['threads']} thread{'s' if settings['threads'] > 1 else ''}"


def load_result(path: Path) -> dict[str, Any]:
    """Read and check a result. Raises BadResult, which names file and key."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise BadResult(f"{path}: {path.stat().st_size} bytes are too many for a result of `remac bench`")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file: check the path") from None
    except OSError as error:
        raise BadInput(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError as error:
        raise BadResult(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        found = content.get("kind") if isinstance(content, dict) else type(content).__name__
        raise BadResult(f"{path}: kind is {found!r}, expected {KIND!r}: import what `remac bench --submit-file` wrote")
    if content.get("schema") != SCHEMA:
        raise BadResult(f"{path}: schema {content.get('schema')!r}, this version reads {SCHEMA}: "
                        "measure again with this version, or import with that one")
    _check(path, content, REQUIRED, "")
    if content.get(SEAL) != seal(content):
        raise BadResult(f"{path}: {SEAL}: the content was changed after it was measured: measure again")
    for name in ("pixels_to_bytes", "file_to_file"):
        _check_timing(path, f"timings.{name}", content["timings"][name], content["settings"]["rounds"])
    if content.get("board") is not None:
        find_board(content["board"])
    return content


def _check(path: Path, content: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str) -> None:
    for key, kind in wanted.items():
        if key not in content:
            raise BadResult(f"{path}: {prefix}{key}: missing")
        value = content[key]
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                raise BadResult(f"{path}: {prefix}{key}: expected a table, found {type(value).__name__}")
            _check(path, value, kind, f"{prefix}{key}.")
        elif not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
            raise BadResult(f"{path}: {prefix}{key}: expected {kind.__name__}, found {value!r}")


def _check_timing(path: Path, key: str, timing: Mapping[str, Any], rounds: int) -> None:
    """Percentiles are those of the samples, and no sample is missing."""
    samples = timing.get("samples_ms")
    if not isinstance(samples, list) or len(samples) != rounds or not all(isinstance(s, (int, float)) and 0 < s < 1e9 for s in samples):
        raise BadResult(f"{path}: {key}.samples_ms: expected {rounds} positive numbers")
    computed = Summary(tuple(sample / 1e3 for sample in samples)).to_json()
    for name in ("p50_ms", "p90_ms", "p99_ms", "min_ms"):
        if not isinstance(timing.get(name), (int, float)) or abs(timing[name] - computed[name]) > TOLERANCE_MS:
            raise BadResult(f"{path}: {key}.{name}: {timing.get(name)!r}, the samples give {computed[name]}")


def results_folder(folder: Path | None) -> Path:
    """The folder named, else that of the checkout in or above the working folder. Raises BadInput."""
    if folder is not None:
        return folder
    for root in (Path.cwd(), *Path.cwd().parents):
        if (root / FOLDER.parent).is_dir():
            return root / FOLDER
    raise BadInput(f"no {FOLDER.parent} here: run this in a checkout, or name a folder with --results")


def _seal_in(path: Path) -> str | None:
    """The seal of a result that is there already; None for a file that is none."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))[SEAL])
    except (ValueError, TypeError, KeyError):
        return None


def import_result(path: Path, folder: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Check a result and add it to those of the checkout; a result that is there already is not added again. Raises BadResult, BadInput."""
    result = load_result(path)
    if result.get("board") is None:
        raise BadResult(f"{path}: board: names none: measure with `remac bench --board NAME --submit-file FILE`")
    target, settings = results_folder(folder), result["settings"]
    target.mkdir(parents=True, exist_ok=True)
    for present in sorted(target.glob("*.json")):
        if _seal_in(present) == result[SEAL]:
            raise BadResult(f"{path}: is already there as {present}")
    stem = f"{result['board']}-{settings['backend']}-{settings['threads']}-{result[SEAL][:8]}"
    added = target / f"{stem}.json"
    write_atomically(added, path.read_bytes())
    return added, result
