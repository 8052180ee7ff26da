"""What damage does to the decoder: `python -m benchmarks.corruption` writes results/corruption.json.

Every case is a pure function of (stream, kind, seed, number). A decoder passes a case with a RemacError or with a decode that reports its losses:
never another exception, a hang, or memory beyond what the header's size allows. Of kinds that leave the CRCs alone more is asked: exactly the bands
whose packets are hurt are lost, and the latents of all others are those of the undamaged stream. Kinds that forge the CRCs (`FORGED`) reach the
checks of the fields and of the entropy decoder, which a CRC would otherwise shield.
"""
from __future__ import annotations

import argparse
import signal
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.store import RESULTS, write_json
from remac_runtime.crc import crc32c
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.packets import DETAILS_BYTES, HEADER_BYTES, Packet, find_packets

COUNT, SEED = 200, 1
TIME_LIMIT_S = 60.0
MAX_PIXELS = 1 << 22             # limit given to the decoder; headers that claim more must be refused
CRC_AT, SIDES_AT, BAND_UNITS_AT = HEADER_BYTES - 4, 24, 29
MEMORY_SLACK = 4                 # times what the undamaged stream takes


@dataclass(frozen=True)
class DecodedLatents:
    """What a decoder gives: y_hat int32[H/16,W/16,M] with anything in the rows of lost bands."""

    image_id: int
    y_hat: NDArray[np.int32]
    lost: tuple[int, ...]


Decode = Callable[[bytes], DecodedLatents]


@dataclass(frozen=True)
class Source:
    """An undamaged stream, the packets of it and of another picture by the same encoder, and the latents of both by image id."""

    stream: bytes
    packets: tuple[bytes, ...]
    foreign: tuple[bytes, ...]
    parsed: tuple[Packet, ...]
    latents: Mapping[int, NDArray[np.int32]]

    @property
    def image_id(self) -> int:
        return int.from_bytes(self.stream[4:8], "little")

    @property
    def band_rows(self) -> int:
        """Rows of a band in the latents."""
        return self.stream[BAND_UNITS_AT] * 4

    def hurt_bands(self, data: bytes) -> set[int]:
        """Bands of which a packet is no longer in the data."""
        return {packet.band for packet, whole in zip(self.parsed, self.packets, strict=True) if whole not in data}


def open_source(stream: bytes, foreign: bytes, decode: Decode) -> Source:
    """Decodes both streams once to know what is right."""
    parsed = tuple(find_packets(stream))
    latents = {decoded.image_id: decoded.y_hat for decoded in (decode(stream), decode(foreign))}
    assert len(latents) == 2, "the other stream must be of another picture"
    own, other = (tuple(data[p.offset:p.end] for p in find_packets(data)) for data in (stream, foreign))
    return Source(stream, own, other, parsed, latents)


# ---- kinds of damage: functions of a generator and a source

def forge(packet: bytes) -> bytes:
    """The packet with the length and CRC that its bytes ask for."""
    fields = packet[:10] + (len(packet) - HEADER_BYTES).to_bytes(2, "little") + packet[12:CRC_AT]
    return fields + crc32c(packet[HEADER_BYTES:], crc32c(fields)).to_bytes(4, "little") + packet[HEADER_BYTES:]


def _replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new):]


def _place(rng: Generator, size: int) -> int:
    return int(rng.integers(size))


def _noise(rng: Generator, size: int) -> bytes:
    return rng.integers(0, 256, size, np.uint8).tobytes()


def _lie(rng: Generator, packet: bytes, at: int) -> bytes:
    """The packet with another byte at `at`, often one that a careless reader stumbles over."""
    values = [0, 1, 2, 128, 255, packet[at] ^ 1, packet[at] ^ 1 << _place(rng, 8), packet[at] + 1 & 255, _place(rng, 256)]
    return _replaced(packet, at, bytes([values[_place(rng, len(values))]]))


def bits_flipped(rng: Generator, source: Source) -> bytes:
    data = bytearray(source.stream)
    for _ in range(1 + _place(rng, 8)):
        data[_place(rng, len(data))] ^= 1 << _place(rng, 8)
    return bytes(data)


def bytes_changed(rng: Generator, source: Source) -> bytes:
    data = bytearray(source.stream)
    for _ in range(1 + _place(rng, 16)):
        data[_place(rng, len(data))] = _place(rng, 256)
    return bytes(data)


def run_zeroed(rng: Generator, source: Source) -> bytes:
    at, size = _place(rng, len(source.stream)), 1 + _place(rng, len(source.stream) // 4)
    return source.stream[:at] + bytes(min(size, len(source.stream) - at)) + source.stream[at + size:]


def truncated(rng: Generator, source: Source) -> bytes:
    return source.stream[:_place(rng, len(source.stream))]


def beginning_lost(rng: Generator, source: Source) -> bytes:
    return source.stream[1 + _place(rng, len(source.stream)):]


def run_cut_out(rng: Generator, source: Source) -> bytes:
    at = _place(rng, len(source.stream))
    return source.stream[:at] + source.stream[at + 1 + _place(rng, len(source.stream) // 2):]


def noise_inserted(rng: Generator, source: Source) -> bytes:
    at = _place(rng, len(source.stream))
    return source.stream[:at] + _noise(rng, 1 + _place(rng, 500)) + source.stream[at:]


def spliced(rng: Generator, source: Source) -> bytes:
    other = b"".join(source.foreign)
    return source.stream[:_place(rng, len(source.stream))] + other[_place(rng, len(other)):]


def packets_dropped(rng: Generator, source: Source) -> bytes:
    return b"".join(packet for packet in source.packets if rng.random() < 0.6)


def packets_duplicated(rng: Generator, source: Source) -> bytes:
    return b"".join(packet * (1 + _place(rng, 3)) for packet in source.packets)


def packets_reordered(rng: Generator, source: Source) -> bytes:
    return b"".join(source.packets[i] for i in rng.permutation(len(source.packets)))


def foreign_packets(rng: Generator, source: Source) -> bytes:
    mixed = [*source.packets, *(packet for packet in source.foreign if rng.random() < 0.7)]
    return b"".join(mixed[i] for i in rng.permutation(len(mixed)))


def only_noise(rng: Generator, source: Source) -> bytes:
    return _noise(rng, _place(rng, len(source.stream)))


def marker_flood(rng: Generator, source: Source) -> bytes:
    """Many headers that look right and claim long payloads, in front of the stream."""
    header = _replaced(source.packets[-1][:HEADER_BYTES], 10, _place(rng, len(source.stream)).to_bytes(2, "little"))
    return header * (50 + _place(rng, 100)) + source.stream


def field_of_one(rng: Generator, source: Source) -> bytes:
    chosen = _place(rng, len(source.packets))
    lied = forge(_lie(rng, source.packets[chosen], _place(rng, CRC_AT)))
    return b"".join(lied if i == chosen else packet for i, packet in enumerate(source.packets))


def field_of_all(rng: Generator, source: Source) -> bytes:
    at = int(rng.choice([*range(4, 8), *range(16, CRC_AT)]))
    value = _lie(rng, source.stream, at)[at:at + 1]
    return b"".join(forge(_replaced(packet, at, value)) for packet in source.packets)


def size_of_all(rng: Generator, source: Source) -> bytes:
    """Every packet claims another size of the picture, up to the largest that the format has."""
    width, height = (int(v) for v in rng.choice([1, 64, 65, 1000, 8000, 16384], 2))
    units = int(rng.choice([source.stream[BAND_UNITS_AT], 1, 2, 255]))
    new = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"".join(forge(_replaced(_replaced(packet, SIDES_AT, new), BAND_UNITS_AT, bytes([units]))) for packet in source.packets)


def payload_changed(rng: Generator, source: Source) -> bytes:
    chosen = _place(rng, len(source.packets))
    packet = source.packets[chosen]
    for _ in range(1 + _place(rng, 4)):
        packet = _lie(rng, packet, HEADER_BYTES + _place(rng, len(packet) - HEADER_BYTES))
    return b"".join(forge(packet) if i == chosen else other for i, other in enumerate(source.packets))


def payload_resized(rng: Generator, source: Source) -> bytes:
    chosen = _place(rng, len(source.packets))
    packet = source.packets[chosen]
    size = _place(rng, len(packet) - HEADER_BYTES)
    resized = packet[:HEADER_BYTES + size] if rng.random() < 0.5 else packet + _noise(rng, 1 + size)
    return b"".join(forge(resized) if i == chosen else other for i, other in enumerate(source.packets))


def payload_of_noise(rng: Generator, source: Source) -> bytes:
    return b"".join([source.packets[0], *(forge(packet[:HEADER_BYTES] + _noise(rng, len(packet) - HEADER_BYTES)) for packet in source.packets[1:])])


def details_changed(rng: Generator, source: Source) -> bytes:
    packet = source.packets[0]
    at = HEADER_BYTES + (0 if rng.random() < 0.3 else _place(rng, DETAILS_BYTES))      # their size more often than the rest
    return forge(_lie(rng, packet, at)) + b"".join(source.packets[1:])


def bands_exchanged(rng: Generator, source: Source) -> bytes:
    bands = source.packets[1:]
    order = rng.permutation(len(bands))
    return source.packets[0] + b"".join(forge(packet[:HEADER_BYTES] + bands[i][HEADER_BYTES:]) for packet, i in zip(bands, order, strict=True))


PLAIN = (bits_flipped, bytes_changed, run_zeroed, truncated, beginning_lost, run_cut_out, noise_inserted, spliced, packets_dropped,
         packets_duplicated, packets_reordered, foreign_packets, only_noise, marker_flood)
FORGED = (field_of_one, field_of_all, size_of_all, payload_changed, payload_resized, payload_of_noise, details_changed, bands_exchanged)
KINDS = {kind.__name__: kind for kind in (*PLAIN, *FORGED)}


@dataclass(frozen=True)
class Case:
    """Damaged bytes; `forged` where CRCs were made to fit."""

    kind: str
    data: bytes
    forged: bool


def cases(source: Source, count: int = COUNT, seed: int = SEED) -> Iterator[Case]:
    """`count` cases, the kinds in turn."""
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        yield Case(kind, KINDS[kind](np.random.default_rng([seed, number]), source), KINDS[kind] in FORGED)


# ---- judging a decoder

class Hang(BaseException):
    """The time limit of a case; no `except Exception` swallows it."""


class FailedError(Exception):
    """A decoder broke the promise of this module's docstring."""


@dataclass(frozen=True)
class Verdict:
    """How one case went: `outcome` is complete, accepted (forged), losses, the name of a RemacError, or FAILED with the reason in `detail`."""

    kind: str
    outcome: str
    detail: str
    seconds: float
    peak_bytes: int


def claimed_pixels(data: bytes) -> int:
    """The largest padded picture that a valid packet claims, of those within MAX_PIXELS."""
    sizes = ((p.header.padded_width * p.header.padded_height, p.header.width * p.header.height) for p in find_packets(data))
    return max((padded for padded, pixels in sizes if pixels <= MAX_PIXELS), default=0)


def _examine(case: Case, source: Source, decoded: DecodedLatents) -> str:
    """The outcome of a decode; FailedError where it is wrong."""
    if case.forged:
        return "losses" if decoded.lost else "accepted"
    right = source.latents.get(decoded.image_id)
    if right is None or right.shape != decoded.y_hat.shape:
        raise FailedError("a picture that is in neither stream")
    rows = np.arange(len(right)) // source.band_rows
    intact = ~np.isin(rows, decoded.lost)
    if not np.array_equal(decoded.y_hat[intact], right[intact]):
        raise FailedError("wrong latents in a band that is not reported as lost")
    hurt = source.hurt_bands(case.data)
    if decoded.image_id == source.image_id and case.kind != marker_flood.__name__ and set(decoded.lost) != hurt:
        raise FailedError(f"bands {sorted(decoded.lost)} are reported as lost, {sorted(hurt)} are hurt")
    return "losses" if decoded.lost else "complete"


def judge(case: Case, source: Source, decode: Decode, allowed_bytes: int, time_limit_s: float = TIME_LIMIT_S) -> Verdict:
    """Run one case in the main thread under a time limit, watching the memory that Python and NumPy allocate."""

    def alarm(signum: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, alarm)
    tracemalloc.reset_peak()
    base, start = tracemalloc.get_traced_memory()[0], time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, time_limit_s)
    detail = ""
    try:
        outcome = _examine(case, source, decode(case.data))
    except RemacError as error:
        outcome, detail = type(error).__name__, str(error)
        if not detail or "\n" in detail:
            outcome, detail = "FAILED", f"an error message of {len(detail.splitlines())} lines"
    except FailedError as failure:
        outcome, detail = "FAILED", str(failure)
    except Hang:
        outcome, detail = "FAILED", f"not done after {time_limit_s} s"
    except Exception as error:
        outcome, detail = "FAILED", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1] - base
    if outcome != "FAILED" and peak > allowed_bytes:
        outcome, detail = "FAILED", f"{peak} bytes allocated, {allowed_bytes} allowed"
    return Verdict(case.kind, outcome, detail, seconds, peak)


def judge_all(source: Source, decode: Decode, count: int = COUNT, seed: int = SEED, time_limit_s: float = TIME_LIMIT_S) -> list[Verdict]:
    """All cases. Memory may grow with the size that a case's packets claim, as it does for the undamaged stream, with some slack."""
    tracemalloc.start()
    try:
        whole = judge(Case("undamaged", source.stream, False), source, decode, sys.maxsize, time_limit_s)
        assert whole.outcome == "complete", f"the undamaged stream: {whole.outcome} {whole.detail}"
        a_pixel = whole.peak_bytes / claimed_pixels(source.stream)
        return [judge(case, source, decode, int(MEMORY_SLACK * (whole.peak_bytes + a_pixel * claimed_pixels(case.data))), time_limit_s)
                for case in cases(source, count, seed)]
    finally:
        tracemalloc.stop()


# ---- the benchmark

def tally(verdicts: Sequence[Verdict]) -> dict[str, Counter[str]]:
    """Counts of the outcomes of every kind."""
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.kind, Counter())[verdict.outcome] += 1
    return counts


def runtime_decode(decoder: Any) -> Decode:
    """The shipped decoder, latents only."""

    def decode(data: bytes) -> DecodedLatents:
        decoded = decoder.decode(data, max_pixels=MAX_PIXELS)
        return DecodedLatents(decoded.header.image_id, decoded.y_hat, decoded.report.lost_bands)

    return decode


@reported
def main(arguments: list[str]) -> int:
    from remac_runtime.codec import Decoder, EncodeOptions, Encoder
    from remac_runtime.images import Picture, load_picture
    from remac_runtime.model import load_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="model folder (default: as `remac` finds it)")
    parser.add_argument("--picture", type=Path, default=Path(__file__).resolve().parents[1] / "samples" / "spirit_husband_hill_terrain.png")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=RESULTS / "corruption.json")
    options = parser.parse_args(arguments)
    model, picture = load_model(options.model), load_picture(options.picture)
    with Encoder(model, "numpy") as encoder:
        coded = [encoder.encode(each, EncodeOptions(band_rows=64)) for each in (picture, Picture(picture.samples[::-1].copy(), picture.depth))]
    with Decoder(model, "numpy") as decoder:
        decode = runtime_decode(decoder)
        source = open_source(coded[0], coded[1], decode)
        verdicts = judge_all(source, decode, options.count, options.seed)
    failures = [f"{verdict.kind}: {verdict.detail}" for verdict in verdicts if verdict.outcome == "FAILED"]
    write_json(options.output, {
        "schema": 1, "environment": {"versions": {"numpy": np.__version__}}, "codec_hash": model.network.hash.hex(), "picture": options.picture.name,
        "pixels": picture.samples.shape[0] * picture.samples.shape[1], "stream_bytes": len(source.stream), "packets": len(source.packets),
        "seed": options.seed, "count": options.count, "slowest_s": round(max(verdict.seconds for verdict in verdicts), 3),
        "largest_peak_bytes": max(verdict.peak_bytes for verdict in verdicts),
        "kinds": {kind: {"forged": KINDS[kind] in FORGED, "outcomes": dict(sorted(counts.items()))} for kind, counts in tally(verdicts).items()},
        "failures": failures})
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    print(f"{options.count} cases: " + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common()))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
