"""Damaged streams: 200 seeded cases for the shipped decoder and for the reference, and proof that the judge notices a decoder that misbehaves."""
from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import corruption
from benchmarks.corruption import FORGED, HEADER_BYTES, KINDS, Case, Decode, DecodedLatents, Source
from remac_runtime import packets, reference
from remac_runtime.codec import Decoder
from remac_runtime.errors import CorruptStream, UnsupportedStream, WrongModel
from remac_runtime.model import Model, load_model
from remac_runtime.terrain import terrain

# What a kind cannot do to a stream, whatever the seed.
HARMLESS = {"packets_duplicated", "packets_reordered"}


@pytest.fixture(scope="module")
def model(small_model: Path) -> Model:
    return load_model(small_model)


@pytest.fixture(scope="module")
def runtime(model: Model) -> Iterator[Decode]:
    with Decoder(model, "numpy") as decoder:
        yield corruption.runtime_decode(decoder)


@pytest.fixture(scope="module")
def by_reference(model: Model) -> Decode:
    def decode(data: bytes) -> DecodedLatents:
        latents = reference.decode_latents(data, model.network, model.bank)
        return DecodedLatents(latents.header.image_id, latents.y_hat, latents.lost)
    return decode


@pytest.fixture(scope="module")
def source(model: Model, by_reference: Decode) -> Source:
    """Four bands of 64 rows with references, one of them of several escapes."""
    streams = [reference.encode(terrain(200, 70, seed), 8, model.network, model.bank, 24, band_rows=64) for seed in (1, 2)]
    return corruption.open_source(streams[0], streams[1], by_reference)


def failures(verdicts: list[corruption.Verdict]) -> list[str]:
    return [f"{number} {v.kind}: {v.detail}" for number, v in enumerate(verdicts) if v.outcome == "FAILED"]


def test_decoder_survives_200_corruptions(source: Source, runtime: Decode) -> None:
    verdicts = corruption.judge_all(source, runtime)
    assert len(verdicts) == 200 and not failures(verdicts), failures(verdicts)
    counts = corruption.tally(verdicts)
    assert set(counts) == set(KINDS)
    assert {kind for kind, outcomes in counts.items() if set(outcomes) == {"complete"}} <= HARMLESS | {"noise_inserted", "marker_flood"}
    total = {verdict.outcome for verdict in verdicts}
    assert {"complete", "losses", "accepted", "CorruptStream", "WrongModel", "UnsupportedStream"} <= total


def test_reference_survives_corruptions(source: Source, by_reference: Decode) -> None:
    """Fewer cases: it takes its time over checksums, and test_decoder_and_reference_judge_damage_alike gives it 200 more."""
    verdicts = corruption.judge_all(source, bounded(by_reference), 3 * len(KINDS), seed=3)
    assert not failures(verdicts), failures(verdicts)


def bounded(decode: Decode) -> Decode:
    """A decoder without a limit on the size, given one."""
    def decode_bounded(data: bytes) -> DecodedLatents:
        if any(p.header.width * p.header.height > corruption.MAX_PIXELS for p in packets.find_packets(data)):
            raise UnsupportedStream("too large")
        return decode(data)
    return decode_bounded


def test_decoder_and_reference_judge_damage_alike(source: Source, runtime: Decode, by_reference: Decode) -> None:
    """The same error or the same lost bands and latents. Where damage is forged, this is what makes two decoders one format."""
    def outcome(decode: Decode, data: bytes) -> tuple[object, ...]:
        try:
            decoded = decode(data)
        except corruption.RemacError as error:
            return (type(error).__name__,)
        rows = np.arange(len(decoded.y_hat)) // (4 * packet_units(data))
        return (decoded.image_id, decoded.lost, decoded.y_hat[~np.isin(rows, decoded.lost)].tobytes())

    def packet_units(data: bytes) -> int:
        return next(packets.find_packets(data)).header.band_rows // 64

    different = []
    for number, case in enumerate(corruption.cases(source, seed=2)):
        if case.kind == "marker_flood":                         # may make a reader give up, to bound its work
            continue
        one, other = outcome(runtime, case.data), outcome(bounded(by_reference), case.data)
        if one != other:
            different.append((number, case.kind, one[:2], other[:2]))
    assert not different


@pytest.mark.parametrize(("change", "error"), [
    ({32: 2}, UnsupportedStream), ({32: 2, 16: 0}, UnsupportedStream), ({16: 0}, WrongModel), ({28: 11, 16: 0}, UnsupportedStream)])
def test_headers_are_refused_alike(source: Source, runtime: Decode, by_reference: Decode, change: dict[int, int], error: type[Exception]) -> None:
    """{byte of every header: value}: reference kind 2, another network, 12-bit colour. What no model helps against comes first."""
    packets_of = []
    for packet in source.packets:
        forged = bytearray(packet)
        for offset, value in change.items():
            forged[offset] = value if forged[offset] != value else value + 1
        packets_of.append(corruption.forge(bytes(forged)))
    for decode in (runtime, by_reference):
        with pytest.raises(error):
            decode(b"".join(packets_of))


@pytest.mark.parametrize(("start", "error"), [
    (b"RMH2", UnsupportedStream), (b"RMP7", UnsupportedStream), (b"RMH0", UnsupportedStream), (b"RMH1", CorruptStream), (b"RMP1", CorruptStream),
    (b"RMHx", CorruptStream), (b"RMH", CorruptStream), (b"XRMH2", CorruptStream)])
def test_files_without_a_packet_are_refused_alike(runtime: Decode, by_reference: Decode, start: bytes, error: type[Exception]) -> None:
    """FORMAT 2.3: the fourth byte says the major version."""
    for decode in (runtime, by_reference):
        with pytest.raises(error):
            decode(start + bytes(80))


def test_cases_depend_on_the_seed_alone(source: Source) -> None:
    first, again, other = (list(corruption.cases(source, 66, seed)) for seed in (1, 1, 5))
    assert first == again
    assert sum(a.data != b.data for a, b in zip(first, other, strict=True)) > 50
    harmless = {case.kind for case in first if case.data == source.stream}
    assert not harmless - HARMLESS - {"field_of_one", "field_of_all", "size_of_all", "details_changed", "payload_changed", "bands_exchanged"}


def test_forged_packets_have_fitting_crcs(source: Source) -> None:
    """Else the fields behind them would never be looked at: cut at the length fields, every packet keeps its CRC."""
    for case in corruption.cases(source, 4 * len(KINDS)):
        if not case.forged:
            continue
        data, found = case.data, 0
        while data:
            size = HEADER_BYTES + int.from_bytes(data[10:12], "little")
            assert corruption.forge(data[:size]) == data[:size], case.kind
            data, found = data[size:], found + 1
        assert found == len(source.packets)


@pytest.mark.parametrize("kind", [kind.__name__ for kind in FORGED])
def test_forged_damage_reaches_the_decoder(source: Source, kind: str) -> None:
    chosen = [case for case in corruption.cases(source) if case.kind == kind]
    assert any(case.data != source.stream and list(packets.find_packets(case.data)) for case in chosen)


# ---- the judge can fail

def judged(source: Source, decode: Decode, data: bytes | None = None, allowed_bytes: int = 1 << 40, forged: bool = False,
           limit_s: float = 5.0) -> corruption.Verdict:
    corruption.tracemalloc.start()
    try:
        return corruption.judge(Case("test", source.stream if data is None else data, forged), source, decode, allowed_bytes, limit_s)
    finally:
        corruption.tracemalloc.stop()


def test_judge_accepts_the_right_answer(source: Source, by_reference: Decode) -> None:
    assert judged(source, by_reference).outcome == "complete"
    assert judged(source, by_reference, source.stream.replace(source.packets[2], b"")).outcome == "losses"
    assert judged(source, by_reference, b"").outcome == "CorruptStream"
    assert judged(source, by_reference, forged=True).outcome == "accepted"


def test_judge_notices_other_exceptions(source: Source) -> None:
    def broken(data: bytes) -> DecodedLatents:
        raise KeyError("x")

    def wordy(data: bytes) -> DecodedLatents:
        raise CorruptStream("two\nlines")

    assert judged(source, broken).detail == "KeyError: 'x'"
    assert "2 lines" in judged(source, wordy).detail


def test_judge_notices_a_hang(source: Source) -> None:
    def endless(data: bytes) -> DecodedLatents:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    assert "not done" in judged(source, endless).detail


def test_judge_notices_memory(source: Source, by_reference: Decode) -> None:
    def greedy(data: bytes) -> DecodedLatents:
        np.zeros(10 ** 8, np.uint8)
        return by_reference(data)

    assert judged(source, by_reference, allowed_bytes=5 * 10 ** 7).outcome == "complete"
    assert "allocated" in judged(source, greedy, allowed_bytes=5 * 10 ** 7).detail


@pytest.mark.parametrize(("change", "reason"), [
    ({"lost": (1,)}, "reported as lost"), ({"image_id": 7}, "neither"), ({"y_hat": np.zeros((1, 1, 1), np.int32)}, "neither")])
def test_judge_notices_wrong_reports(source: Source, by_reference: Decode, change: dict[str, Any], reason: str) -> None:
    assert reason in judged(source, lambda data: replace(by_reference(data), **change)).detail


def test_judge_notices_wrong_latents_and_silent_losses(source: Source, by_reference: Decode) -> None:
    def off_by_one(data: bytes) -> DecodedLatents:
        decoded = by_reference(data)
        decoded.y_hat[0, 0, 0] += 1
        return decoded

    def silent(data: bytes) -> DecodedLatents:
        return replace(by_reference(data), lost=())

    assert "wrong latents" in judged(source, off_by_one).detail
    assert "wrong latents" in judged(source, silent, source.stream.replace(source.packets[2], b"")).detail


def test_benchmark_writes_its_counts(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from remac_runtime.images import Picture, save_picture

    save_picture(Picture(terrain(130, 70, 3)), tmp_path / "picture.ppm")
    assert corruption.main(["--model", str(model.folder), "--picture", str(tmp_path / "picture.ppm"), "--count", "22",
                            "--output", str(tmp_path / "out.json")]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert sum(sum(kind["outcomes"].values()) for kind in written["kinds"].values()) == 22 and written["failures"] == []
    assert "22 cases" in capsys.readouterr().out
