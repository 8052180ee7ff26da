"""Every vector through every implementation: the same bytes from every encoder, the same latents from every decoder.

The sets of manifest.json belong to released networks and never change. One more set is made on the spot with a small random network, so that all of
this runs without trained weights.
"""
from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import make_vectors
import numpy as np
import pytest
from make_vectors import FOLDER, MANIFEST, ROOT, VECTORS, Vector, vector_of
from numpy.typing import NDArray

from remac_runtime import native, reference
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.images import Picture
from remac_runtime.model import Model
from remac_runtime.network import Bank, Network, read_bank, read_network

T = TypeVar("T")
SMALL = "small"
WEIGHTS = ROOT / "weights"
REWRITE = "REMAC_WRITE_VECTORS=1 python tests/make_vectors.py"


@dataclass(frozen=True)
class VectorSet:
    """A set of the manifest with its network and bank: entries by name, and the folder of the streams."""

    network: Network
    bank: Bank
    folder: Path
    entries: Mapping[str, Mapping[str, Any]]


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
                                band_rows=vector.band_rows, image_id=vector.image_id)

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
                                strip_rows=self.strip_rows)
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


IMPLEMENTATIONS = ("reference", "numpy", "numpy-without-c", "numpy-strips", "onnxruntime", "torch")


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
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if backend == "onnxruntime":
        folder = onnx_folder(vectors.network, temporary)
    model = Model(folder, vectors.network, vectors.bank)
    return Runtime(Encoder(model, backend), Decoder(model, backend), 64 if name.endswith("strips") else None, not name.endswith("without-c"))


# ---- sets

def manifest_sets() -> dict[str, dict[str, Any]]:
    return {chosen["folder"]: chosen for chosen in make_vectors.read_manifest()["sets"]}


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


@pytest.fixture(scope="session")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="session")
def small_set(small_model: Path, temporary: Path) -> VectorSet:
    network = read_network(small_model / "network.rmn")
    bank = read_bank(small_model / "bank.rmb", network)
    vectors = [v for v in VECTORS if (make_vectors.SAMPLES / f"{v.recipe.source}.png").exists() or v.recipe.source in ("terrain", "noise", "flat")]
    made = make_vectors.make_set(network, bank, temporary / SMALL, vectors)
    return VectorSet(network, bank, temporary / SMALL, {entry["name"]: entry for entry in made["vectors"]})


@pytest.fixture(scope="session")
def opened(small_set: VectorSet, temporary: Path) -> Iterator[Callable[[str, str], tuple[Implementation, VectorSet]]]:
    """(implementation, set) by their names, each opened once."""
    sets: dict[str, VectorSet] = {SMALL: small_set}
    implementations: dict[tuple[str, str], Implementation] = {}

    def get(implementation: str, name: str) -> tuple[Implementation, VectorSet]:
        if name not in sets:
            chosen = manifest_sets()[name]
            sets[name] = VectorSet(*weights_of(chosen), FOLDER / name, {entry["name"]: entry for entry in chosen["vectors"]})
        if (implementation, name) not in implementations:
            implementations[implementation, name] = open_implementation(implementation, sets[name], temporary)
        return implementations[implementation, name], sets[name]

    yield get
    for implementation in implementations.values():
        if isinstance(implementation, Runtime):
            implementation.encoder.close()
            implementation.decoder.close()


# ---- the one test body

def check(implementation: Implementation, vectors: VectorSet, name: str) -> None:
    """An implementation against one vector. Raises AssertionError; skips where a sample picture is not in the checkout."""
    entry = vectors.entries[name]
    vector = vector_of(entry)
    path = vectors.folder / f"{name}.rmc"
    assert path.exists(), f"{path} is missing: bring it back from history, or write new vectors with {REWRITE}"
    stream = path.read_bytes()
    assert hashlib.sha256(stream).hexdigest() == entry["stream_sha256"], f"{path} was changed"
    latents, lost = implementation.decode(stream)
    assert lost == (), f"{name}: bands {lost} are lost"
    assert latents.dtype == np.int32 and make_vectors.hash_of(latents) == entry["latents_sha256"], f"{name}: other latents"
    if vector.odd is None:
        try:
            samples = vector.recipe.samples()
        except make_vectors.SampleMissingError as error:
            pytest.skip(str(error))
        assert make_vectors.hash_of(samples) == entry["samples_sha256"], f"{name}: the recipe gives another picture here"
        written = implementation.encode(vector, samples)
        first = next((i for i, (a, b) in enumerate(zip(written, stream, strict=False)) if a != b), min(len(written), len(stream)))
        assert written == stream, f"{name}: {len(written)} bytes, expected {len(stream)}; the first difference is at byte {first}"


@pytest.mark.parametrize("name", [vector.name for vector in VECTORS])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
def test_small_network(opened: Callable[[str, str], tuple[Implementation, VectorSet]], implementation: str, name: str) -> None:
    tested, vectors = opened(implementation, SMALL)
    if name not in vectors.entries:
        pytest.skip("its sample picture is not in this checkout")
    check(tested, vectors, name)


@pytest.mark.parametrize(("chosen", "name"), [(folder, entry["name"]) for folder, chosen in manifest_sets().items() for entry in chosen["vectors"]])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_released_networks(opened: Callable[[str, str], tuple[Implementation, VectorSet]], implementation: str, chosen: str, name: str) -> None:
    check(*opened(implementation, chosen), name)


# ---- the vectors themselves

def test_every_network_of_the_checkout_has_all_vectors() -> None:
    networks = [read_network(path) for path in sorted(WEIGHTS.rglob("network.rmn"))]
    if not networks:
        pytest.skip("weights/ has no trained network")
    sets = manifest_sets().values()
    for network in networks:
        names = {entry["name"] for chosen in sets if chosen["codec_hash"] == network.hash.hex() for entry in chosen["vectors"]}
        missing = {vector.name for vector in VECTORS} - names
        assert not missing, f"network {network.hash.hex()} has no vectors {sorted(missing)}: {REWRITE} weights/{network.profile}"


def test_manifest_files_and_table_belong_together() -> None:
    if not MANIFEST.exists():
        pytest.skip("no vectors were written yet")
    manifest = json.loads(MANIFEST.read_text())
    written = {(chosen["folder"], f"{entry['name']}.rmc") for chosen in manifest["sets"] for entry in chosen["vectors"]}
    assert {(path.parent.name, path.name) for path in FOLDER.glob("*/*")} == written
    assert (FOLDER / "README.md").read_text() == make_vectors.table_of(manifest), f"tests/vectors/README.md is stale: {REWRITE}"


@pytest.mark.parametrize("folder", [SMALL, *manifest_sets()])
def test_vectors_cover_what_they_are_for(small_set: VectorSet, folder: str) -> None:
    entries = [dict(e) for e in (small_set.entries.values() if folder == SMALL else manifest_sets()[folder]["vectors"])]
    recipes = [e["recipe"] for e in entries]
    sides = {side for recipe in recipes for side in (recipe["height"], recipe["width"])}
    assert sides >= {1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 97, 131}
    assert {(recipe["depth"], recipe["grey"]) for recipe in recipes} >= {(8, False), (8, True), (9, True), (12, True), (16, True)}
    assert {e["quality"] for e in entries} >= {0, 13, 32, 50, 63} and {e["band_rows"] for e in entries} >= {64, 128, 256}
    assert {e["references"] for e in entries} == {True, False} and {e["odd"] for e in entries} == {None, *make_vectors.ODDITIES}
    assert max(e["bands"] for e in entries) >= 3 and {n for e in entries for n in e["lanes_log2"]} >= {0, 8}
    if folder != SMALL:                                        # the small network has too few latents for these
        assert max(e["fragments"] for e in entries) >= 2 and {n for e in entries for n in e["lanes_log2"]} & {1, 2, 3, 4, 5, 6}


def test_the_check_can_fail(small_set: VectorSet, tmp_path: Path) -> None:
    """Each assertion of check() with an implementation or a set that is wrong in one thing."""
    good = Reference(small_set.network, small_set.bank)
    name = "edge_64x65"
    check(good, small_set, name)

    class OffByOne(Reference):
        def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
            latents, lost = super().decode(data)
            latents[-1, -1, -1] += 1
            return latents, lost

    class Lossy(Reference):
        def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
            return super().decode(data)[0], (0,)

    class OtherLanes(Reference):
        def encode(self, vector: Vector, samples: NDArray[Any]) -> bytes:
            return super().encode(replace(vector, quality=vector.quality - 1), samples)

    for wrong, message in ((OffByOne, "other latents"), (Lossy, "lost"), (OtherLanes, "first difference")):
        with pytest.raises(AssertionError, match=message):
            check(wrong(small_set.network, small_set.bank), small_set, name)
    changed = replace(small_set, folder=tmp_path)
    with pytest.raises(AssertionError, match="missing"):
        check(good, changed, name)
    stream = (small_set.folder / f"{name}.rmc").read_bytes()
    (tmp_path / f"{name}.rmc").write_bytes(stream[:-1] + bytes([stream[-1] ^ 1]))
    with pytest.raises(AssertionError, match="was changed"):
        check(good, changed, name)
    other_picture = {**small_set.entries[name], "samples_sha256": "0" * 64}
    with pytest.raises(AssertionError, match="another picture"):
        check(good, replace(small_set, entries={name: other_picture}), name)


def test_vectors_are_written_only_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.delenv(make_vectors.WRITE_VARIABLE, raising=False)
    with pytest.raises(SystemExit):
        make_vectors.main([str(tmp_path)])
    assert make_vectors.WRITE_VARIABLE in capsys.readouterr().err
