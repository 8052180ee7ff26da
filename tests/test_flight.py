"""The C99 flight encoder against the runtime's encoder: the same bytes, and an error code for whatever goes wrong."""
from __future__ import annotations

import ctypes
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_library import WRITE, Buffer, FlightLibrary, Guarded, Result, Sink, Status, build

from export import flight_c
from remac_runtime import packets, references
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import BadInput
from remac_runtime.images import Picture
from remac_runtime.model import load_model
from remac_runtime.packets import scan

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
ROOT = Path(__file__).resolve().parents[1]
NONE, FIXED, CHOSEN = 0, 1, 2


@pytest.fixture(scope="module")
def flight(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FlightLibrary:
    return build(small_model, tmp_path_factory.mktemp("flight"))


@pytest.fixture(scope="module")
def encoder(small_model: Path) -> Iterator[Encoder]:
    with Encoder(load_model(small_model), "numpy") as opened:
        yield opened


def picture(height: int, width: int, grey: bool = False, depth: int = 8, seed: int = 0) -> Picture:
    """Blocks of 8x8 with noise, full range."""
    rng, top = np.random.default_rng(seed), 2 ** depth - 1
    shape = (height, width) if grey else (height, width, 3)
    blocks = rng.integers(0, top + 1, (height // 8 + 1, width // 8 + 1, *shape[2:])).repeat(8, 0).repeat(8, 1)[:height, :width]
    samples = np.clip(blocks + rng.normal(0, top / 40, shape), 0, top)
    return Picture(samples.astype(np.uint8 if depth == 8 else np.uint16), depth)


# height, width, grey, depth, options of the runtime's encoder
CASES: list[tuple[int, int, bool, int, dict[str, Any]]] = [
    (64, 64, False, 8, {}), (130, 200, False, 8, {"quality": 63}), (200, 70, True, 8, {"band_rows": 64, "quality": 0}), (1, 1, False, 8, {}),
    (17, 129, True, 12, {"quality": 50}), (65, 63, True, 9, {"image_id": 0}), (30, 40, True, 16, {"band_rows": 16320}),
    (193, 65, False, 8, {"image_id": 0xFFFFFFFE, "band_rows": 64, "quality": 45}),
]


def wanted(options: dict[str, Any]) -> dict[str, int]:
    """Options of the runtime's encoder as fields of the flight encoder's configuration."""
    return {**options, "has_image_id": 1} if "image_id" in options else options


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}x{case[0]}x{case[3]}")
def test_bytes_equal_the_runtime(flight: FlightLibrary, encoder: Encoder, case: Any, chosen: bool, keep: int) -> None:
    height, width, grey, depth, options = case
    source = picture(height, width, grey, depth)
    encoded = flight.encode(source.samples, depth, references=CHOSEN if chosen else NONE, keep=keep, **wanted(options))
    assert encoded.status is Status.OK
    assert encoded.stream == encoder.encode(source, EncodeOptions(references=chosen, **options))
    assert encoded.pushes == (2 if chosen and not keep else 1)
    found = scan(encoded.stream).header
    assert (encoded.result.semantic, encoded.result.texture, encoded.result.image_id) == (found.semantic, found.texture, found.image_id)


@pytest.mark.parametrize("strip_rows", [16, 48, 64, 1600])
def test_strips_of_any_height(flight: FlightLibrary, encoder: Encoder, strip_rows: int) -> None:
    source = picture(150, 80)
    assert flight.encode(source.samples, strip_rows=strip_rows).stream == encoder.encode(source, EncodeOptions(references=False))


def test_rows_may_lie_apart(flight: FlightLibrary, encoder: Encoder) -> None:
    wide = picture(70, 160)
    part = Picture(np.ascontiguousarray(wide.samples[:, 20:100]))
    assert flight.encode(wide.samples[:, 20:100]).stream == encoder.encode(part, EncodeOptions(references=False))


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("chosen", [False, True])
def test_target_bytes(flight: FlightLibrary, encoder: Encoder, keep: int, chosen: bool) -> None:
    source = picture(130, 100)
    smallest = len(encoder.encode(source, EncodeOptions(quality=0, references=chosen)))
    for target in (smallest, smallest + 1, 4000, 10 ** 6):
        encoded = flight.encode(source.samples, target_bytes=target, references=CHOSEN if chosen else NONE, keep=keep)
        assert encoded.stream == encoder.encode(source, EncodeOptions(target_bytes=target, references=chosen))
        assert encoded.pushes == 1 if keep else encoded.pushes in range(7, 10)
    refused = flight.encode(source.samples, target_bytes=smallest - 1, references=CHOSEN if chosen else NONE, keep=keep)
    assert (refused.status, refused.result.bytes) == (Status.TARGET_TOO_SMALL, smallest)
    with pytest.raises(BadInput, match=str(smallest)):
        encoder.encode(source, EncodeOptions(target_bytes=smallest - 1, references=chosen))


@pytest.mark.parametrize("keep", [0, 1])
def test_a_quality_whose_band_is_too_long_does_not_fit(small_model: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch,
                                                        keep: int) -> None:
    """Of the 255 packets of a band one is left here, else it took a picture of 16384x16320."""
    flight_c.generate(small_model, tmp_path)
    header = tmp_path / "remac_flight.h"
    header.write_text(header.read_text().replace("FRAGMENTS_MAX 255u", "FRAGMENTS_MAX 1u").replace("PAYLOAD_MAX 65495u", "PAYLOAD_MAX 3000u"))
    flight, source = FlightLibrary(tmp_path, ("-O1",)), picture(130, 100)
    monkeypatch.setattr(packets, "FRAGMENTS_MAX", 1)
    monkeypatch.setattr(packets, "PAYLOAD_MAX", 3000)
    encoded = flight.encode(source.samples, target_bytes=2 ** 32 - 1, keep=keep)
    assert encoded.stream == encoder.encode(source, EncodeOptions(target_bytes=2 ** 32 - 1, references=False))
    assert encoded.stream is not None and 0 < encoded.result.quality < 63 and 2000 < len(encoded.stream) <= 3040
    wide = picture(130, 2000)
    assert flight.encode(wide.samples, target_bytes=10 ** 6, keep=keep).status is Status.BAND_TOO_LONG
    with pytest.raises(BadInput, match=r"band 0 takes .* choose a lower quality or fewer rows a band"):
        encoder.encode(wide, EncodeOptions(target_bytes=10 ** 6, references=False))


@pytest.mark.parametrize(("mosaic", "height", "width"), [(1, 45, 70), (2, 70, 45), (3, 4, 64), (4, 64, 4), (1, 5, 5)])
def test_a_mosaic(flight: FlightLibrary, encoder: Encoder, mosaic: int, height: int, width: int) -> None:
    source = Picture(np.random.default_rng(mosaic).integers(0, 256, (height, width, 3), np.uint8))
    encoded = flight.encode(flight.sharpened(source.samples, mosaic), mosaic=mosaic, quality=45)
    assert encoded.stream == encoder.encode(source, EncodeOptions(quality=45, references=False, mosaic=PATTERNS[mosaic]))


def test_a_band_of_several_packets(flight: FlightLibrary, encoder: Encoder) -> None:
    rng = np.random.default_rng(3)
    source = Picture(rng.integers(0, 256, (384, 1280, 3), dtype=np.uint8))
    stream = flight.encode(source.samples, band_rows=320, quality=63).stream
    assert stream == encoder.encode(source, EncodeOptions(band_rows=320, quality=63, references=False))
    assert scan(stream).packets > 2


@pytest.mark.parametrize("entries", [(2, 0), (0, 1)])
def test_references_of_the_operator(flight: FlightLibrary, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, entries: tuple[int, int]) -> None:
    source = picture(70, 130)
    monkeypatch.setattr(references, "choose", lambda *_: entries)
    encoded = flight.encode(source.samples, references=FIXED, semantic=entries[0], texture=entries[1])
    assert encoded.stream == encoder.encode(source, EncodeOptions())
    assert encoded.pushes == 1


def test_texture_reference_alone(flight: FlightLibrary, encoder: Encoder) -> None:
    """The runtime's encoder never leaves the semantic entry out: the bands are then those of a stream without references."""
    source = picture(70, 130)
    stream = flight.encode(source.samples, references=FIXED, semantic=255, texture=1).stream
    assert stream is not None
    found, plain = scan(stream), scan(encoder.encode(source, EncodeOptions(references=False)))
    assert (found.header.reference_kind, found.header.semantic, found.header.texture) == (1, 255, 1)
    assert [found.bands[n].payload for n in range(1)] == [plain.bands[n].payload for n in range(1)]


# fields of the configuration and the status they must give; the bank of the small model has three entries
WRONG: list[tuple[dict[str, int], Status]] = [
    ({"width": 0}, Status.BAD_SIZE), ({"width": 16385}, Status.BAD_SIZE), ({"height": 0}, Status.BAD_SIZE), ({"height": 16385}, Status.BAD_SIZE),
    ({"depth": 7}, Status.BAD_FORMAT), ({"depth": 17}, Status.BAD_FORMAT), ({"depth": 12}, Status.BAD_FORMAT),
    ({"depth": 7, "grey": 1}, Status.BAD_FORMAT), ({"mosaic": 5}, Status.BAD_FORMAT), ({"mosaic": 1, "grey": 1}, Status.BAD_FORMAT),
    ({"mosaic": 1, "width": 3}, Status.BAD_FORMAT), ({"mosaic": 1, "height": 3}, Status.BAD_FORMAT),
    ({"quality": 64}, Status.BAD_QUALITY), ({"band_rows": 0}, Status.BAD_BAND_ROWS),
    ({"band_rows": 96}, Status.BAD_BAND_ROWS), ({"band_rows": 64 * 256}, Status.BAD_BAND_ROWS), ({"references": 3}, Status.BAD_REFERENCE),
    ({"references": FIXED, "semantic": 3, "texture": 0}, Status.BAD_REFERENCE),
    ({"references": FIXED, "semantic": 0, "texture": 3}, Status.BAD_REFERENCE),
]


@pytest.mark.parametrize(("fields", "status"), WRONG)
def test_errors(flight: FlightLibrary, fields: dict[str, int], status: Status) -> None:
    config = flight.config(picture(64, 64).samples, **fields)
    work, buffer = Guarded(1 << 20), Buffer(None, 0)
    assert flight.begin(config, work, flight.buffer_sink(buffer))[0] is status
    assert flight.work_bytes(config) == 0
    assert set(work.content) == {0xFF}      # nothing was written before everything was checked


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("chosen", [NONE, CHOSEN])
def test_a_target_does_without_a_quality(flight: FlightLibrary, chosen: int, keep: int) -> None:
    samples = picture(130, 100).samples
    expected = flight.encode(samples, target_bytes=4000, references=chosen, keep=keep)
    for quality in (64, 2 ** 32 - 1):
        encoded = flight.encode(samples, target_bytes=4000, references=chosen, keep=keep, quality=quality)
        assert encoded.status is Status.OK and (encoded.stream, encoded.pushes) == (expected.stream, expected.pushes)


def test_wrong_rows_of_a_mosaic(flight: FlightLibrary) -> None:
    plane, out = np.zeros((5, 64), np.uint8), Guarded(3 * 64)
    complete = [row.ctypes.data for row in plane]
    rows = (ctypes.c_void_p * 5)(*complete)
    for mosaic, width, status in ((0, 64, Status.BAD_FORMAT), (5, 64, Status.BAD_FORMAT), (2 ** 32 - 1, 64, Status.BAD_FORMAT),
                                  (1, 0, Status.BAD_SIZE), (1, 16385, Status.BAD_SIZE), *((1, width, Status.BAD_FORMAT) for width in (1, 2, 3))):
        assert flight.mosaic_row(mosaic, width, 0, rows, out.address) is status
    for missing in range(5):
        some = (ctypes.c_void_p * 5)(*complete[:missing], None, *complete[missing + 1:])
        assert flight.mosaic_row(1, 64, 0, some, out.address) is Status.NULL_POINTER
    assert flight.mosaic_row(1, 64, 0, None, out.address) is Status.NULL_POINTER
    assert flight.mosaic_row(1, 64, 0, rows, None) is Status.NULL_POINTER
    assert out.intact() and set(out.content) == {0xFF}      # nothing was written
    assert flight.mosaic_row(1, 64, 0, rows, out.address) is Status.OK and set(out.content) == {0}


def test_missing_pointers(flight: FlightLibrary) -> None:
    samples = picture(64, 64).samples
    config, buffer, encoder, library = flight.config(samples), Buffer(None, 0), ctypes.c_void_p(), flight.library
    work, sink = Guarded(flight.work_bytes(config)), flight.buffer_sink(buffer)
    complete = [ctypes.byref(encoder), work.address, work.size, ctypes.byref(config), ctypes.byref(sink)]
    for place in (0, 1, 3, 4):
        assert library.remac_flight_begin(*complete[:place], None, *complete[place + 1:]) == Status.NULL_POINTER
    assert flight.begin(config, work, Sink(None, None))[0] is Status.NULL_POINTER
    assert library.remac_flight_begin(*complete) == Status.OK
    assert library.remac_flight_push(None, samples.ctypes.data, 192, 16) == Status.NULL_POINTER
    assert library.remac_flight_push(encoder, None, 192, 16) == Status.NULL_POINTER
    assert library.remac_flight_end(None, None) == Status.NULL_POINTER
    assert flight.push(encoder, samples, 0, 48) is Status.OK      # it is still of use


def test_wrong_pushes(flight: FlightLibrary) -> None:
    source = picture(70, 64, grey=True, depth=10)
    too_large = source.samples.copy()
    too_large[20, 63] = 1024
    for rows, samples, row_bytes, status in ((0, source.samples, 128, Status.BAD_ROWS), (15, source.samples, 128, Status.BAD_ROWS),
                                             (71, source.samples, 128, Status.BAD_ROWS), (80, source.samples, 128, Status.BAD_ROWS),
                                             (16, source.samples, 127, Status.BAD_ROW_BYTES), (32, too_large, 128, Status.BAD_SAMPLE)):
        config, buffer = flight.config(source.samples, 10), Buffer(None, 0)
        work = Guarded(flight.work_bytes(config))
        _, encoder = flight.begin(config, work, flight.buffer_sink(buffer))
        assert flight.library.remac_flight_push(encoder, samples.ctypes.data, row_bytes, rows) == status
        assert flight.push(encoder, source.samples, 0, 16) is Status.BAD_STATE
        assert flight.end(encoder, Result()) is Status.BAD_STATE


def test_end_too_early_and_twice(flight: FlightLibrary) -> None:
    samples = picture(80, 64).samples
    out, config, result = Guarded(1 << 16), flight.config(samples), Result()
    buffer, work = Buffer(out.address, out.size), Guarded(flight.work_bytes(config))
    sink = flight.buffer_sink(buffer)
    _, encoder = flight.begin(config, work, sink)
    assert flight.push(encoder, samples, 0, 64) is Status.OK
    assert flight.end(encoder, result) is Status.INCOMPLETE
    _, encoder = flight.begin(config, work, sink)
    assert flight.push(encoder, samples, 0, 80) is Status.OK
    assert flight.end(encoder, result) is Status.OK
    assert flight.end(encoder, result) is Status.BAD_STATE


def test_memory_is_kept_to(flight: FlightLibrary) -> None:
    samples = picture(130, 70).samples
    config, buffer = flight.config(samples), Buffer(None, 0)
    small, aside = Guarded(flight.work_bytes(config) - 1), Guarded(flight.work_bytes(config) + 16)
    assert flight.begin(config, small, flight.buffer_sink(buffer))[0] is Status.WORK_TOO_SMALL
    assert flight.begin(config, aside, flight.buffer_sink(buffer), offset=1)[0] is Status.WORK_UNALIGNED
    assert small.intact() and aside.intact() and set(small.content) == {0xFF}
    whole = flight.encode(samples)
    assert whole.stream is not None
    assert flight.encode(samples, room=len(whole.stream)).stream == whole.stream      # guards are checked in there
    for room in (0, 67, len(whole.stream) - 1):
        assert flight.encode(samples, room=room).status is Status.OUTPUT_REFUSED


def test_a_sink_that_refuses(flight: FlightLibrary) -> None:
    samples = picture(200, 64).samples
    config = flight.config(samples, band_rows=64)
    calls = itertools.count()
    count = WRITE(lambda *_: 0 * next(calls))
    assert flight.run(samples, config, Sink(ctypes.cast(count, ctypes.c_void_p).value, None))[0] is Status.OK
    total = next(calls)
    assert total == 4 * 2 + 4      # header and payload of each band, headers with the image id
    for last in range(total):
        at = itertools.count()
        refuse = WRITE(lambda *_, at=at, last=last: 1 if next(at) == last else 0)
        assert flight.run(samples, config, Sink(ctypes.cast(refuse, ctypes.c_void_p).value, None))[0] is Status.OUTPUT_REFUSED
        assert next(at) == last + 1    # and it is not asked again


def test_what_a_refusing_sink_has_is_the_beginning_of_the_stream(flight: FlightLibrary) -> None:
    """With image id 0 unless one was given, as the README says; its last packet may be cut off."""
    samples = picture(200, 64).samples
    whole = flight.encode(samples, band_rows=64, has_image_id=1, image_id=0).stream
    signed = flight.encode(samples, band_rows=64).stream
    assert whole is not None and signed is not None
    packets_at = [at for at in range(len(whole)) if whole[at:at + 4] in (b"RMH1", b"RMP1")]
    assert len(packets_at) == 4
    ends = [end for at, details in zip(packets_at, (18, 0, 0, 0), strict=True) for end in (at, at + 40 + details)]     # of what was taken before
    for last in range(4 * 2 + 4):
        taken, at = bytearray(), itertools.count()

        def take(_: int, offset: int, data: Any, size: int, taken: bytearray = taken, at: Any = at, last: int = last) -> int:
            if next(at) == last:
                return 1
            taken[offset:offset + size] = ctypes.string_at(data, size)
            return 0

        write = WRITE(take)
        assert flight.run(samples, flight.config(samples, band_rows=64), Sink(ctypes.cast(write, ctypes.c_void_p).value, None))[0] \
            is Status.OUTPUT_REFUSED
        if last < 4 * 2:
            assert taken == whole[:ends[last]]
        else:       # headers come a second time
            with_id = packets_at[last - 4 * 2]
            assert taken == signed[:with_id] + whole[with_id:]


def test_with_an_id_every_byte_is_written_once(flight: FlightLibrary) -> None:
    samples, written = picture(200, 64).samples, list[tuple[int, int]]()

    def note(_: int, offset: int, __: Any, size: int) -> int:
        written.append((offset, size))
        return 0

    config = flight.config(samples, band_rows=64, has_image_id=1, image_id=5)
    write = WRITE(note)         # held: a callback lives as long as its object
    status, result, _ = flight.run(samples, config, Sink(ctypes.cast(write, ctypes.c_void_p).value, None))
    assert status is Status.OK
    assert sum(size for _, size in written) == result.bytes
    assert written[0] == (0, 40 + 18)
    assert all(offset + size == following for (offset, size), (following, _) in itertools.pairwise(written))


def test_real_weights(tmp_path: Path) -> None:
    weights = ROOT / "weights" / "rover-m"
    flight, source = build(weights, tmp_path, ("-O0",)), picture(50, 100, seed=4)
    with Encoder(load_model(weights), "numpy") as encoder:
        assert flight.encode(source.samples, references=CHOSEN, quality=40).stream == encoder.encode(source, EncodeOptions(quality=40))
