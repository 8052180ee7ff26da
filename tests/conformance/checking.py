"""One check for all implementations: encode and decode a vector, decode a bad stream, and compare with the manifest."""
from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pytest
from make_vectors import ROOT, read_manifest
from numpy.typing import NDArray

from conformance.manifest import hash_of, intact, vector_of
from conformance.pictures import SampleMissingError
from conformance.vectors import Vector
from remac_runtime import native, reference
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.images import Picture
from remac_runtime.model import Model
from remac_runtime.network import Bank, Network, read_bank, read_network

T = TypeVar("T")
WEIGHTS = ROOT / "weights"
REWRITE = "REMAC_WRITE_VECTORS=1 python tests/make_vectors.py"


@dataclass(frozen=True)
class VectorSet:
    """A set of the manifest with its network and bank: entries by name, and the folder of the streams."""

    network: Network
    bank: Bank
    folder: Path
    entries: Mapping[str, Mapping[str, Any]]
    bad: Mapping[str, Mapping[str, Any]]


def opened_set(network: Network, bank: Bank, folder: Path, content: Mapping[str, Any]) -> VectorSet:
    by_name = [{entry["name"]: entry for entry in content[kind]} for kind in ("vectors", "bad")]
    return VectorSet(network, bank, folder, *by_name)


class Implementation(Protocol):
    """What takes the test. `encode` is given the samples of a vector that is not odd."""

    def encode(self, vector: Vector, samples: NDArray[Any]) -> bytes: ...
    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]: ...


@dataclass(frozen=True)
class Reference:
    network: Network
    bank: Bank

    def encode(self, vector: Vector, samples: NDArray[Any]) -> bytes:
        return reference.encode(samples, vector.recipe.depth, self.network, self.bank if vector.references else None, vector.quality,
                                band_rows=vector.band_rows, image_id=vector.image_id, mosaic=PATTERNS.index(vector.mosaic))

    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        latents = reference.decode_latents(data, self.network, self.bank)
        return latents.y_hat, latents.lost


@dataclass(frozen=True)
class Runtime:
    """The shipped codec over a backend, with or without its C part, whole pictures or strips."""

    encoder: Encoder
    decoder: Decoder
    strip_rows: int | None = None
    c_part: bool = True

    def encode(self, vector: Vector, samples: NDArray[Any]) -> bytes:
        options = EncodeOptions(quality=vector.quality, band_rows=vector.band_rows, references=vector.references, image_id=vector.image_id,
                                mosaic=vector.mosaic, strip_rows=self.strip_rows)
        return self._with_or_without_c(lambda: self.encoder.encode(Picture(samples, vector.recipe.depth), options))

    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        decoded = self._with_or_without_c(lambda: self.decoder.decode(data))
        return decoded.y_hat, decoded.report.lost_bands

    def _with_or_without_c(self, work: Callable[[], T]) -> T:
        library = native.library
        try:
            native.library = library if self.c_part else None
            return work()
        finally:
            native.library = library


def onnx_folder(network: Network, temporary: Path) -> Path:
    """A folder with the graphs of a network: the built model where it is that network's, else an export on the spot."""
    built = ROOT / "build" / network.profile
    if (built / "network.rmn").exists() and (built / "analysis.onnx").exists() and read_network(built / "network.rmn").hash == network.hash:
        return built
    pytest.importorskip("onnx", reason="onnx is not installed and no built model has these weights")
    from export.to_onnx import export_graphs

    folder = temporary / f"onnx-{network.hash.hex()}"
    if not folder.exists():
        export_graphs(network, folder)
    return folder


def open_implementation(name: str, vectors: VectorSet, temporary: Path) -> Implementation:
    if name == "reference":
        return Reference(vectors.network, vectors.bank)
    backend = name.partition("-")[0]
    folder = vectors.folder
    if backend == "c99" and native.library is None:
        pytest.skip("the C extension is not built")
    if backend in ("onnxruntime", "torch") and importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if backend == "onnxruntime":
        folder = onnx_folder(vectors.network, temporary)
    model = Model(folder, vectors.network, vectors.bank)
    return Runtime(Encoder(model, backend), Decoder(model, backend), 64 if name.endswith("strips") else None, not name.endswith("without-c"))


# ---- sets of the manifest

def manifest_sets() -> dict[str, dict[str, Any]]:
    return {chosen["folder"]: chosen for chosen in read_manifest()["sets"]}


def weights_of(chosen: Mapping[str, Any]) -> tuple[Network, Bank]:
    """Network and bank of a set, wherever they lie under weights/."""
    for path in sorted(WEIGHTS.rglob("network.rmn")):
        network = read_network(path)
        if network.hash.hex() != chosen["codec_hash"]:
            continue
        for bank_path in sorted(WEIGHTS.rglob("bank*.rmb")):
            bank = read_bank(bank_path, network) if hashlib.sha256(bank_path.read_bytes()).hexdigest()[:16] == chosen["bank_hash"] else None
            if bank:
                return network, bank
    pytest.fail(f"weights/ has no network {chosen['codec_hash']} with bank {chosen['bank_hash']}: bring them back, old streams must decode for ever")


# ---- the checks

def stream_of(vectors: VectorSet, entry: Mapping[str, Any]) -> bytes:
    path = vectors.folder / entry["file"]
    assert path.exists(), f"{path} is missing: bring it back from history, or write new vectors with {REWRITE}"
    stream = path.read_bytes()
    assert hashlib.sha256(stream).hexdigest() == entry["stream_sha256"], f"{path} was changed"
    return stream


def check(implementation: Implementation, vectors: VectorSet, name: str) -> None:
    """An implementation against one vector. Raises AssertionError; skips where a sample picture is not in the checkout."""
    entry = vectors.entries[name]
    vector, stream = vector_of(entry), stream_of(vectors, entry)
    latents, lost = implementation.decode(stream)
    assert lost == (), f"{name}: bands {lost} are lost"
    assert latents.dtype == np.int32 and hash_of(latents) == entry["latents_sha256"], f"{name}: other latents"
    if vector.odd is None:
        try:
            samples = vector.recipe.samples()
        except SampleMissingError as error:
            pytest.skip(str(error))
        assert hash_of(samples) == entry["samples_sha256"], f"{name}: the recipe gives another picture here"
        written = implementation.encode(vector, samples)
        first = next((i for i, (a, b) in enumerate(zip(written, stream, strict=False)) if a != b), min(len(written), len(stream)))
        assert written == stream, f"{name}: {len(written)} bytes, expected {len(stream)}; the first difference is at byte {first}"


def check_bad(implementation: Implementation, vectors: VectorSet, name: str) -> None:
    """An implementation against one bad stream: the error of its class, or the lost bands and the latents of the others."""
    entry = vectors.bad[name]
    stream, latents = stream_of(vectors, entry), None
    lost: tuple[int, ...] = ()
    try:
        latents, lost = implementation.decode(stream)
        found = None
    except RemacError as error:
        found = type(error).__name__
    assert found == entry["error"], f"{name}: ends with {found}, expected {entry['error']}"
    assert lost == tuple(entry["lost"]), f"{name}: bands {lost} are lost, expected {entry['lost']}"
    if latents is not None:
        assert hash_of(intact(latents, lost, entry["band_rows"])) == entry["latents_sha256"], f"{name}: other latents"


def all_bad(implementation: Implementation, vectors: VectorSet) -> list[str]:
    """What an implementation makes wrong of the bad streams."""
    problems = []
    for name in vectors.bad:
        try:
            check_bad(implementation, vectors, name)
        except AssertionError as error:
            problems.append(str(error))
    return problems
