"""Mosaics (FORMAT 3.1): the filters against plain loops over pixels, what is found of pictures, and the way through a stream."""
from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_ground import write_small_decoder
from small_network import write_small_model

import remac_runtime
from benchmarks.mosaics import SIMULATED_PATTERN, simulated
from remac_runtime import mosaics, reference
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import BadInput, CorruptStream, RemacError
from remac_runtime.format import MOSAICS
from remac_runtime.images import Picture
from remac_runtime.model import Model, load_model
from remac_runtime.packets import scan
from remac_runtime.terrain import terrain

Pixels = NDArray[np.uint8]
BESIDE, DIAGONAL = ((0, -1), (0, 1), (-1, 0), (1, 0)), ((-1, -1), (-1, 1), (1, -1), (1, 1))


def colour(pattern: int, row: int, column: int) -> int:
    """Number of the channel that a pixel of the mosaic has, as the name of the pattern spells it."""
    return "rgb".index(PATTERNS[pattern][row % 2 * 2 + column % 2])


def plainly(pixels: Pixels, pattern: int, decoded: bool) -> Pixels:
    """FORMAT 3.1, pixel by pixel: each wanted colour is the rounded mean of the neighbours that have it, green of the pair that differs less, or
    where it was decoded of both pairs, by how they differ."""
    rows, columns = pixels.shape[:2]
    out = np.empty_like(pixels)
    for row, column, wanted in np.ndindex(out.shape):
        if wanted == colour(pattern, row, column):
            out[row, column, wanted] = pixels[row, column, wanted]
            continue
        near = [steps for steps in BESIDE if colour(pattern, row + steps[0], column + steps[1]) == wanted] or DIAGONAL
        at = [(abs(row + dy), abs(column + dx)) for dy, dx in near]
        values = [int(pixels[min(y, 2 * (rows - 1) - y), min(x, 2 * (columns - 1) - x), wanted]) for y, x in at]
        if wanted == 1 and decoded:
            weight = Fraction(16 + max(min(abs(values[2] - values[3]) - abs(values[0] - values[1]), 16), -16), 32)
            out[row, column, 1] = floor(weight * (values[0] + values[1]) / 2 + (1 - weight) * (values[2] + values[3]) / 2 + Fraction(1, 2))
            continue
        if wanted == 1:
            values = min(values[:2], values[2:], key=lambda pair: abs(pair[0] - pair[1]))
        out[row, column, wanted] = (sum(values) + len(values) // 2) // len(values)
    return out


@given(st.integers(1, 4), st.integers(4, 9), st.integers(4, 9), st.integers(0, 2 ** 32 - 1))
@settings(max_examples=30)
def test_all_interpolations_are_those_of_the_format(pattern: int, rows: int, columns: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    assert np.array_equal(mosaics.interpolated(pixels, pattern), plainly(pixels, pattern, False))
    assert np.array_equal(mosaics.restored(pixels, pattern), plainly(pixels, pattern, True))
    assert np.array_equal(mosaics.sharpened(pixels, pattern), reference.interpolate_anew(pixels.astype(np.int64), pattern))


@pytest.mark.parametrize("pattern", range(1, 5))
def test_what_is_coded_holds_the_mosaic_and_gives_the_picture_back(pattern: int) -> None:
    camera = mosaics.interpolated(terrain(60, 70, 5), pattern)
    coded = mosaics.sharpened(camera, pattern)
    assert not np.array_equal(coded, camera)
    assert np.array_equal(mosaics.interpolated(coded, pattern), camera)
    own = np.array([[colour(pattern, row, column) for column in range(70)] for row in range(60)])[..., None]
    assert np.array_equal(np.take_along_axis(coded, own, 2), np.take_along_axis(camera, own, 2))


def test_without_a_mosaic_pictures_stay_as_they_are() -> None:
    picture = terrain(20, 30, 1)
    assert len(PATTERNS) == MOSAICS and mosaics.sharpened(picture, 0) is mosaics.interpolated(picture, 0) is mosaics.restored(picture, 0) is picture


def test_errors_of_decoded_samples_do_not_turn_green_over() -> None:
    """Where both pairs differ by nearly as much, a level more or less moves the decoded green by little; a camera's own choice would jump."""
    pixels = np.full((8, 8, 3), 100, np.uint8)
    pixels[4, 3:6:2, 1], pixels[3:6:2, 4, 1] = (80, 100), (180, 200)         # about red at row 4, column 4
    moved = pixels.copy()
    moved[4, 3, 1] -= 1
    jump, step = (int(make(pixels, 1)[4, 4, 1]) - int(make(moved, 1)[4, 4, 1]) for make in (mosaics.interpolated, mosaics.restored))
    assert abs(jump) > 90 and abs(step) <= 4


def test_flat_pictures_stay_flat() -> None:
    for value in (0, 3, 255):
        flat = np.full((8, 9, 3), value, np.uint8)
        assert all(np.array_equal(make(flat, 2), flat) for make in (mosaics.sharpened, mosaics.interpolated, mosaics.restored))


# ---- what is found

@pytest.mark.parametrize("pattern", range(1, 5))
def test_the_pattern_of_a_camera_is_found(pattern: int) -> None:
    camera = mosaics.interpolated(terrain(400, 300, 7), pattern)
    noise = np.random.default_rng(1).normal(0, 1.0, camera.shape)       # what a mild JPEG leaves
    assert mosaics.found(camera) == mosaics.found(np.clip(np.rint(camera + noise), 0, 255).astype(np.uint8)) == pattern


def test_the_camera_of_the_benchmark_has_a_mosaic() -> None:
    assert mosaics.found(simulated(terrain(801, 650, 7))) == SIMULATED_PATTERN


@pytest.mark.parametrize("samples", [
    terrain(400, 300, 7), np.zeros((400, 300, 3), np.uint8), np.full((400, 300, 3), 255, np.uint8), terrain(400, 300, 7, grey=True),
    terrain(400, 300, 7, depth=12, grey=True), np.random.default_rng(2).integers(0, 256, (400, 300, 3), np.uint8),
    np.repeat(terrain(400, 300, 7, grey=True)[..., None], 3, 2), mosaics.interpolated(terrain(100, 100, 7), 1)])
def test_no_pattern_is_found_where_there_is_none_or_too_little_of_it(samples: NDArray[np.uint8]) -> None:
    assert mosaics.found(samples) == 0


# ---- through a stream

@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("mosaics")
    write_small_model(folder)
    write_small_decoder(folder)
    return load_model(folder)


def test_a_camera_picture_is_coded_as_its_mosaic(model: Model) -> None:
    camera = Picture(mosaics.interpolated(terrain(200, 180, 3), 3))
    with Encoder(model, "numpy") as encoder, Decoder(model, "numpy") as decoder:
        automatic, told, plain = (encoder.encode(camera, EncodeOptions(mosaic=wish, quality=50)) for wish in ("auto", "gbrg", "none"))
        assert automatic == told != plain and [scan(data).header.mosaic for data in (told, plain)] == [3, 0]
        assert told == reference.encode(camera.samples, 8, model.network, model.bank, 50, mosaic=3)
        decoded = decoder.decode(told)
        picture = decoded.picture.samples
        assert np.array_equal(picture, mosaics.restored(picture, 3)), "the decoded picture is an interpolation again"
        assert not np.array_equal(decoder.decode(plain).picture.samples, mosaics.restored(decoder.decode(plain).picture.samples, 3))


@pytest.mark.parametrize("pattern", range(1, 5))
def test_the_samples_of_a_mosaic_are_coded_as_they_are(model: Model, pattern: int) -> None:
    """One grey sample a pixel, as a sensor gives it: the stream is that of their plain interpolation, which is what it decodes to."""
    raw = terrain(200, 180, 3, grey=True)
    red_row, red_column = divmod(pattern - 1, 2)
    camera = mosaics.interpolated(np.repeat(raw[..., None], 3, 2), pattern)
    other_row, other_column = 1 - red_row, 1 - red_column
    for row, column, channel in ((red_row, red_column, 0), (other_row, other_column, 2), (red_row, other_column, 1), (other_row, red_column, 1)):
        assert np.array_equal(camera[row::2, column::2, channel], raw[row::2, column::2]), "each pixel keeps its own sample"
    name = PATTERNS[pattern]
    data = remac_runtime.encode(raw, 50, mosaic=name, backend="numpy", model=model.folder)
    assert data == remac_runtime.encode(camera, 50, mosaic=name, backend="numpy", model=model.folder)
    decoded = remac_runtime.decode(data, backend="numpy", model=model.folder)
    assert decoded.shape == camera.shape and np.array_equal(decoded, mosaics.restored(decoded, pattern))


def test_the_interface_takes_a_mosaic(model: Model) -> None:
    data = remac_runtime.encode(terrain(20, 20, 1), mosaic="bggr", backend="numpy", model=model.folder)
    assert scan(data).header.mosaic == 4


@pytest.mark.parametrize(("samples", "wish", "message"), [
    (terrain(20, 20, 1, grey=True).astype(np.uint16), "rggb", "more than 8 bits"), (terrain(3, 20, 1), "bggr", "20x3 has no mosaic bggr"),
    (terrain(20, 20, 1), "bayer", "none of auto, none, rggb")])
def test_mosaics_that_cannot_be_are_refused(model: Model, samples: Pixels, wish: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        remac_runtime.encode(samples, mosaic=wish, backend="numpy", model=model.folder)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"threads": 0}, "threads 0: name a whole number"), ({"threads": 1.5}, "threads 1.5"), ({"quality": 32.5}, "quality 32.5 is not a whole number"),
    ({"quality": "32"}, "quality '32'"), ({"quality": None}, "quality None"), ({"band_rows": 64.0}, "band_rows 64.0"),
    ({"target_bytes": 9.5}, "target_bytes 9.5"), ({"target_bytes": 900, "target_psnr": 30.0}, "exclude each other")])
def test_wrong_arguments_of_the_interface(model: Model, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RemacError, match=message):
        remac_runtime.encode(terrain(20, 20, 1), **{"backend": "numpy", "model": model.folder, **wrong})


def test_the_interface_takes_any_bytes(model: Model) -> None:
    data = remac_runtime.encode(terrain(20, 20, 1), np.int64(9), backend="numpy", model=model.folder)  # type: ignore[arg-type]
    expected = remac_runtime.decode(data, backend="numpy", model=model.folder)
    for same in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert np.array_equal(remac_runtime.decode(same, backend="numpy", model=model.folder), expected)  # type: ignore[arg-type]
    with pytest.raises(CorruptStream):
        remac_runtime.decode(bytearray(b"xyz"), backend="numpy", model=model.folder)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="a stream is bytes, not str"):
        remac_runtime.decode("a.rmc", backend="numpy", model=model.folder)  # type: ignore[arg-type]


def test_a_mosaic_in_a_target_of_decibels(model: Model) -> None:
    """The search decodes what it has coded, plain interpolation included."""
    camera = mosaics.interpolated(terrain(200, 180, 3), 1)
    with pytest.raises(BadInput, match="cannot be reached"):
        remac_runtime.encode(camera, target_psnr=90, backend="numpy", model=model.folder)
    assert scan(remac_runtime.encode(camera, target_psnr=4, backend="numpy", model=model.folder)).header.mosaic == 1
