"""Every case of the suite through every implementation: the same bytes from every encoder, the same latents from every decoder, and bad streams
judged alike.

The sets of manifest.json belong to released networks and never change. One more set is made on the spot with a small random network, so that all of
this runs without trained weights.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_vectors
import numpy as np
import pytest
from conformance import rules
from conformance.bad import BAD
from conformance.checking import (
    REWRITE,
    WEIGHTS,
    Implementation,
    Reference,
    Runtime,
    VectorSet,
    all_bad,
    check,
    check_bad,
    manifest_sets,
    open_implementation,
    opened_set,
    weights_of,
)
from conformance.manifest import hash_of, vector_of, write_set
from conformance.odd import ODDITIES
from conformance.pictures import GENERATED, SAMPLES, SampleMissingError, netpbm
from conformance.vectors import VECTORS, Vector
from make_vectors import FOLDER, MANIFEST, PICTURES
from numpy.typing import NDArray

from remac_runtime.errors import RemacError
from remac_runtime.network import read_bank, read_network

SMALL = "small"
SLOW = ("reference", "numpy-without-c")     # take the smaller of the released vectors in every run, and all of them in `make slow`
SMALLER = 32                               # latent positions


IMPLEMENTATIONS = ("reference", "numpy", "numpy-without-c", "numpy-strips", "onnxruntime", "c99", "torch")


# ---- sets

@pytest.fixture(scope="session")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="session")
def small_set(small_model: Path, temporary: Path) -> VectorSet:
    network = read_network(small_model / "network.rmn")
    bank = read_bank(small_model / "bank.rmb", network)
    vectors = [v for v in VECTORS if v.recipe.source in GENERATED or (SAMPLES / f"{v.recipe.source}.png").exists()]
    return opened_set(network, bank, temporary / SMALL, write_set(network, bank, temporary / SMALL, vectors))


@pytest.fixture(scope="session")
def opened(small_set: VectorSet, temporary: Path) -> Iterator[Callable[[str, str], tuple[Implementation, VectorSet]]]:
    """(implementation, set) by their names, each opened once."""
    sets: dict[str, VectorSet] = {SMALL: small_set}
    implementations: dict[tuple[str, str], Implementation] = {}

    def get(implementation: str, name: str) -> tuple[Implementation, VectorSet]:
        if name not in sets:
            chosen = manifest_sets()[name]
            sets[name] = opened_set(*weights_of(chosen), FOLDER / name, chosen)
        if (implementation, name) not in implementations:
            implementations[implementation, name] = open_implementation(implementation, sets[name], temporary)
        return implementations[implementation, name], sets[name]

    yield get
    for implementation in implementations.values():
        if isinstance(implementation, Runtime):
            implementation.encoder.close()
            implementation.decoder.close()


# ---- every case

def takes_part(implementation: str, odd: bool) -> bool:
    """Strips are the encoder's: streams for decoders alone would test the same twice."""
    return not (odd and implementation == "numpy-strips")


@pytest.mark.parametrize(("implementation", "name"), [(implementation, v.name) for implementation in IMPLEMENTATIONS[1:] for v in VECTORS
                                                      if takes_part(implementation, v.odd is not None)])
def test_small_network(opened: Callable[[str, str], tuple[Implementation, VectorSet]], implementation: str, name: str) -> None:
    tested, vectors = opened(implementation, SMALL)
    if name not in vectors.entries:
        pytest.skip("its sample picture is not in this checkout")
    check(tested, vectors, name)


def released_cases() -> list[Any]:
    """Every vector of every set by every implementation."""
    cases = []
    for implementation in IMPLEMENTATIONS:
        for folder, chosen in manifest_sets().items():
            for entry in chosen["vectors"]:
                rows, columns, _ = entry["latents_shape"]
                slow = implementation in SLOW and rows * columns > SMALLER
                if takes_part(implementation, entry["odd"] is not None):
                    cases.append(pytest.param(implementation, folder, entry["name"], marks=[pytest.mark.slow] if slow else []))
    return cases


@pytest.mark.parametrize(("implementation", "chosen", "name"), released_cases())
def test_released_networks(opened: Callable[[str, str], tuple[Implementation, VectorSet]], implementation: str, chosen: str, name: str) -> None:
    check(*opened(implementation, chosen), name)


@pytest.mark.parametrize("chosen", [SMALL, *(pytest.param(folder, marks=pytest.mark.slow) for folder in manifest_sets())])
@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS[1:] if takes_part(name, True)])
def test_bad_streams(opened: Callable[[str, str], tuple[Implementation, VectorSet]], implementation: str, chosen: str) -> None:
    """The reference's own outcomes were checked when the streams were written."""
    tested, vectors = opened(implementation, chosen)
    assert set(vectors.bad) == {f"bad_{name}" for name in BAD}
    assert not all_bad(tested, vectors)


@pytest.mark.parametrize("chosen", manifest_sets())
def test_bad_streams_of_released_networks(opened: Callable[[str, str], tuple[Implementation, VectorSet]], chosen: str) -> None:
    """By one implementation in every run, by all of them in `make slow`."""
    assert not all_bad(*opened("numpy", chosen))


# ---- the vectors themselves

def test_every_network_of_the_checkout_has_all_vectors() -> None:
    networks = [read_network(path) for path in sorted(WEIGHTS.rglob("network.rmn"))]
    if not networks:
        pytest.skip("weights/ has no trained network")
    sets = manifest_sets().values()
    for network in networks:
        names = {entry["name"] for chosen in sets if chosen["codec_hash"] == network.hash.hex() for entry in (*chosen["vectors"], *chosen["bad"])}
        missing = {*(vector.name for vector in VECTORS), *(f"bad_{name}" for name in BAD)} - names
        assert not missing, f"network {network.hash.hex()} has no vectors {sorted(missing)}: {REWRITE} weights/{network.profile}"


def test_manifest_files_and_table_belong_together() -> None:
    if not MANIFEST.exists():
        pytest.skip("no vectors were written yet")
    manifest = json.loads(MANIFEST.read_text())
    written = set()
    for chosen in manifest["sets"]:
        for entry in (*chosen["vectors"], *chosen["bad"]):
            files = filter(None, [entry["file"], entry.get("latents_file")])
            written |= {f"{chosen['folder']}/{name}" for name in files} | set(filter(None, [entry.get("picture")]))
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*")} == written
    assert (FOLDER / "README.md").read_text() == make_vectors.table_of(manifest), f"tests/vectors/README.md is stale: {REWRITE}"
    explained = {name.strip() for key in manifest["fields"] for name in key.removeprefix("bad: ").split(",")}
    assert explained <= {key for chosen in manifest["sets"] for entry in (*chosen["vectors"], *chosen["bad"]) for key in entry}


def test_files_hold_what_the_manifest_says() -> None:
    """Pictures against their recipes, latents against their checksums, both read as a foreign program would."""
    for chosen in manifest_sets().values():
        for entry in chosen["vectors"]:
            vector = vector_of(entry)
            if entry["latents_file"]:
                latents = np.frombuffer((FOLDER / chosen["folder"] / entry["latents_file"]).read_bytes(), "<i4").reshape(entry["latents_shape"])
                assert hash_of(latents.astype(np.int32)) == entry["latents_sha256"], entry["name"]
            try:
                samples = vector.recipe.samples() if entry["picture"] else None
            except SampleMissingError:
                continue
            assert samples is None or (FOLDER / entry["picture"]).read_bytes() == netpbm(samples, vector.recipe.depth), entry["picture"]
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < (2 << 20) * max(len(manifest_sets()), 1)
    assert len({vector.recipe.file_name for vector in VECTORS}) == len({vector.recipe for vector in VECTORS}) and PICTURES.is_dir()


@pytest.mark.parametrize("folder", [SMALL, *manifest_sets()])
def test_vectors_cover_what_they_are_for(small_set: VectorSet, folder: str) -> None:
    entries = [dict(e) for e in (small_set.entries.values() if folder == SMALL else manifest_sets()[folder]["vectors"])]
    recipes = [e["recipe"] for e in entries]
    sides = {side for recipe in recipes for side in (recipe["height"], recipe["width"])}
    assert sides >= {1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 97, 131}
    assert {(recipe["depth"], recipe["grey"]) for recipe in recipes} >= {(8, False), (8, True), (9, True), (12, True), (16, True)}
    assert {e["quality"] for e in entries} >= {0, 13, 32, 50, 63} and {e["band_rows"] for e in entries} >= {64, 128, 256}
    assert {e["references"] for e in entries} == {True, False} and {e["odd"] for e in entries} == {None, *ODDITIES}
    assert max(e["bands"] for e in entries) >= 3 and {n for e in entries for n in e["lanes_log2"]} >= {0, 8}
    if folder.startswith("rover-m"):                           # networks of fewer latents have too few symbols in these pictures
        assert max(e["fragments"] for e in entries) >= 2 and {n for e in entries for n in e["lanes_log2"] if e["odd"] is None} & {1, 2, 3, 4, 5, 6}


# ---- the rules of FORMAT.md

def test_every_rule_has_a_case_or_a_reason() -> None:
    covered = {rule for vector in VECTORS for rule in vector.rules} | {rule for case in BAD.values() for rule in case.rules}
    assert not rules.uncovered(covered)
    assert rules.uncovered(covered - {"2 width"}) == ["2 width: no case and no reason"]
    assert rules.uncovered(covered | {"2 colour"}) == ["2 colour: not a rule of FORMAT.md"]


def test_every_sentence_of_the_format_is_a_rule() -> None:
    text = rules.DOCUMENT.read_text()
    assert not rules.unnamed(text)
    new_rule = text.replace("### 6.3 Escapes\n", "### 6.3 Escapes\n\nEvery third bit is inverted.\n")
    assert rules.unnamed(new_rule) == ["6.3: no rule for: Every third bit is inverted."]
    new_field = text.replace("| 35 | 1 | mosaic |", "| 35 | 1 | colour |")
    assert "2 colour: no case and no reason" in rules.uncovered({"2 mosaic"}, new_field)


# ---- the checks can fail

class OffByOne(Reference):
    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        latents, lost = super().decode(data)
        latents[-1, -1, -1] += 1
        return latents, lost


class Lossy(Reference):
    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        return super().decode(data)[0], (0,)


class OtherQuality(Reference):
    def encode(self, vector: Vector, samples: NDArray[Any]) -> bytes:
        return super().encode(replace(vector, quality=vector.quality - 1), samples)


class Trusting(Reference):
    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        try:
            return super().decode(data)
        except RemacError:
            return np.zeros((4, 4, 32), np.int32), ()


def test_the_check_can_fail(small_set: VectorSet, tmp_path: Path) -> None:
    """Each assertion of check() with an implementation or a set that is wrong in one thing."""
    good = Reference(small_set.network, small_set.bank)
    name = "edge_64x65"
    check(good, small_set, name)
    for wrong, message in ((OffByOne, "other latents"), (Lossy, "lost"), (OtherQuality, "first difference")):
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


@pytest.mark.parametrize(("wrong", "name", "message"), [(OffByOne, "bad_quality_64", "other latents"), (Lossy, "bad_quality_64", "are lost"),
                                                        (Trusting, "bad_empty", "ends with None")])
def test_the_check_of_bad_streams_can_fail(small_set: VectorSet, wrong: type[Reference], name: str, message: str) -> None:
    check_bad(Reference(small_set.network, small_set.bank), small_set, name)
    with pytest.raises(AssertionError, match=message):
        check_bad(wrong(small_set.network, small_set.bank), small_set, name)


def test_vectors_are_written_only_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.delenv(make_vectors.WRITE_VARIABLE, raising=False)
    with pytest.raises(SystemExit):
        make_vectors.main([str(tmp_path)])
    assert make_vectors.WRITE_VARIABLE in capsys.readouterr().err
