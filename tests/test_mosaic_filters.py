"""Filters of ground decoders for mosaics: their arithmetic against plain loops, how they are found, and the way from weights to a picture."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_ground import small_module, write_small_decoder
from small_network import write_small_model

from benchmarks.mosaics import Unfiltered
from remac_runtime import mosaic_filters, mosaics
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import BadNetwork
from remac_runtime.format import QUALITIES
from remac_runtime.images import Picture
from remac_runtime.model import load_model
from remac_runtime.mosaic_filters import ONE, PROPERTY, SHAPE, WEIGHT_MAX, MosaicFilters
from remac_runtime.terrain import terrain

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[1]
CODEC = "0123456789abcdef"


def drawn(seed: int, qualities: tuple[int, ...] = (0, 20, 63), scale: float = 0.1) -> MosaicFilters:
    """Random filters whose weights are whole units."""
    units = np.random.default_rng(seed).integers(-round(scale * ONE), round(scale * ONE), (len(qualities), *SHAPE), endpoint=True)
    return MosaicFilters(CODEC, qualities, (units / ONE).astype(np.float32))


def plainly(pixels: Pixels, pattern: int, kernels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The samples of the mosaic, filtered pixel by pixel; what is no sample stays."""
    out = pixels.astype(np.float64)
    seen = out - mosaics.sharpened(pixels, pattern)
    rows, columns = pixels.shape[:2]
    red = PATTERNS[pattern].index("r")
    for row, column in np.ndindex(rows, columns):
        channel = "rgb".index(PATTERNS[pattern][row % 2 * 2 + column % 2])
        kernel = kernels[(row - red // 2) % 2, (column - red % 2) % 2]
        for y, x, colour in np.ndindex(*kernel.shape):
            at = abs(row + y - 2), abs(column + x - 2)
            out[row, column, channel] += kernel[y, x, colour] * seen[min(at[0], 2 * rows - 2 - at[0]), min(at[1], 2 * columns - 2 - at[1]), colour]
    return out.clip(0, 255)


# ---- the arithmetic

@given(st.integers(1, 4), st.integers(4, 8), st.integers(4, 8), st.sampled_from([0, 5, 20, 40, 63]), st.integers(0, 2 ** 32 - 1))
@settings(max_examples=25)
def test_samples_are_filtered_and_nothing_else(pattern: int, rows: int, columns: int, quality: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    filters = drawn(seed)
    share = quality / 20 if quality < 20 else (quality - 20) / 43
    low, high = filters.weights.astype(np.float64)[:2] if quality < 20 else filters.weights.astype(np.float64)[1:]
    expected = plainly(pixels, pattern, low + share * (high - low))
    assert np.abs(filters.refined(pixels, pattern, quality) - expected).max() <= 0.5 + 1e-3      # sums in float32


def test_what_its_own_mosaic_would_be_coded_as_stays_as_it_is() -> None:
    pixels = mosaics.sharpened(terrain(40, 50, 1), 3)
    assert np.array_equal(drawn(1).refined(pixels, 3, 40), pixels)
    assert not np.array_equal(drawn(1).refined(pixels, 2, 40), pixels)


def test_a_quality_beyond_all_has_the_nearest_filters() -> None:
    pixels, filters = terrain(8, 9, 1), drawn(1, (10, 20))
    assert np.array_equal(filters.refined(pixels, 2, 3), filters.refined(pixels, 2, 10))
    assert np.array_equal(filters.refined(pixels, 2, 50), filters.refined(pixels, 2, 20))


def test_what_has_no_mosaic_stays_as_it_is() -> None:
    pixels = terrain(8, 9, 1)
    assert drawn(1).refined(pixels, 0, 9) is pixels
    assert np.array_equal(MosaicFilters(CODEC, (0,), np.zeros((1, *SHAPE), np.float32)).refined(pixels, 1, 9), pixels)


# ---- their text

def test_the_text_gives_the_same_filters() -> None:
    filters = drawn(3)
    again = MosaicFilters.parsed(filters.text(), "here")
    assert (again.codec, again.qualities) == (CODEC, filters.qualities) and np.array_equal(again.weights, filters.weights)


@pytest.mark.parametrize("change", [
    {"qualities": []}, {"qualities": [0, 20]}, {"qualities": [20, 0, 63]}, {"qualities": [0, 0, 63]}, {"qualities": [0, 20.5, 63]},
    {"qualities": [False, 20, 63]}, {"qualities": "abc"}, {"qualities": None}, {"weights": [1, 2]}, {"weights": [[1], [2, 3]]}, {"weights": "abc"},
    {"weights": [[[[[[WEIGHT_MAX + 1] * 3] * 5] * 5] * 2] * 2] * 3}, {"weights": [[[[[[1 << 70] * 3] * 5] * 5] * 2] * 2] * 3}])
def test_wrong_text_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadNetwork, match=r"here: .*calibration\.mosaics"):
        MosaicFilters.parsed(json.dumps({**json.loads(drawn(3).text()), **change}), "here")


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", "[" * 100_000])
def test_no_filters_at_all_are_refused(text: str) -> None:
    with pytest.raises(BadNetwork, match="here: not filters"):
        MosaicFilters.parsed(text, "here")


def test_a_weights_folder_may_have_filters_of_its_own_codec(tmp_path: Path) -> None:
    assert mosaic_filters.read(tmp_path, CODEC) is None
    (tmp_path / mosaic_filters.FILE).write_text(drawn(3).text())
    found = mosaic_filters.read(tmp_path, CODEC)
    assert found is not None and np.array_equal(found.weights, drawn(3).weights)
    with pytest.raises(BadNetwork, match=f"made for codec {CODEC}, the network is fedcba9876543210"):
        mosaic_filters.read(tmp_path, "fedcba9876543210")


# ---- through a decoder

def test_a_decoder_shows_mosaics_by_the_filters_of_its_file(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    path = write_small_decoder(tmp_path)
    model, filters = load_model(tmp_path), drawn(5)
    with Encoder(model, "numpy") as encoder:
        camera = Picture(mosaics.interpolated(terrain(70, 90, 3), 3))
        mosaic, whole = (encoder.encode(camera, EncodeOptions(40, mosaic=wish)) for wish in ("gbrg", "none"))
    with Decoder(model, "numpy") as decoder:
        before = [decoder.decode(data) for data in (mosaic, whole)]
        assert decoder.ground.filters is None
        raw = decoder.ground.decode(before[0].y_hat, 40, before[0].texture)[:70, :90]
        pictures = [decoded.picture.samples for decoded in before]
    network = onnx.load(str(path))
    network.metadata_props.add(key=PROPERTY, value=filters.text())
    path.write_bytes(network.SerializeToString())
    with Decoder(model, "numpy") as decoder:
        shown, same = (decoder.decode(data).picture.samples for data in (mosaic, whole))
    assert np.array_equal(shown, mosaics.restored(filters.refined(raw, 3, 40), 3)) and not np.array_equal(shown, pictures[0])
    assert np.array_equal(same, pictures[1]), "a picture without a mosaic"
    with Decoder(model, "numpy", ground=Unfiltered(model)) as decoder:
        assert np.array_equal(decoder.decode(mosaic).picture.samples, pictures[0])


def test_damaged_filters_are_an_error_of_the_decoder(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    path = write_small_decoder(tmp_path)
    network = onnx.load(str(path))
    network.metadata_props.add(key=PROPERTY, value="{}")
    path.write_bytes(network.SerializeToString())
    model = load_model(tmp_path)
    with Encoder(model, "numpy") as encoder, Decoder(model, "numpy") as decoder:
        data = encoder.encode(Picture(terrain(70, 90, 3)), EncodeOptions(40, mosaic="bggr"))
        with pytest.raises(BadNetwork, match=r"moderate@1\.onnx: not filters for mosaics"):
            _ = decoder.decode(data).picture


def test_an_exported_decoder_brings_its_filters(tmp_path: Path) -> None:
    from export import ground_decoder
    from export.manifest import properties
    file, check = ground_decoder.export_module(small_module(), tmp_path, CODEC, drawn(5))
    assert check.passed and properties(file.path)[PROPERTY] == drawn(5).text()


# ---- how they are found

def test_filters_take_decoded_samples_nearer_to_what_they_were() -> None:
    """Errors that are independent from pixel to pixel and colour to colour: what the colours around a sample were made of it says what it was."""
    from calibration.mosaics import Equations
    rng, equations = np.random.default_rng(4), Equations()
    pairs = []
    for seed in range(5):
        pattern = 1 + seed % 4
        camera = mosaics.interpolated(terrain(96, 90, seed), pattern)
        noisy = mosaics.sharpened(camera, pattern) + rng.normal(0, 6, camera.shape)
        pairs.append((np.clip(np.rint(noisy), 0, 255).astype(np.uint8), camera, pattern))
    for pair in pairs[:-1]:
        equations.add(*pair)
    solved = equations.solved().astype(np.float32)
    decoded, camera, pattern = pairs[-1]

    def error(weights: NDArray[np.float32]) -> float:
        refined = MosaicFilters(CODEC, (0,), weights[None]).refined(decoded, pattern, 0)
        return float(np.mean(np.square(mosaics.restored(refined, pattern).astype(float) - camera)))

    unfiltered = error(np.zeros_like(solved))
    assert error(solved) < 0.8 * unfiltered < unfiltered < error(-solved)
    for turned in (solved[:, :, ::-1], solved[:, :, :, ::-1], solved.transpose(1, 0, 3, 2, 4)):
        assert np.array_equal(turned, solved), "a camera that is mirrored or turned has the same filters"


def test_shipped_filters_are_of_the_networks_beside_them() -> None:
    from remac_runtime.network import read_network
    for profile in ("rover-m", "rover-s"):
        folder = ROOT / "weights" / profile
        filters = mosaic_filters.read(folder, read_network(folder / "network.rmn").hash.hex())
        assert filters is not None and filters.qualities[-1] == QUALITIES - 1
