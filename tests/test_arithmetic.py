"""The element-wise arithmetic (FORMAT 5.1, 5.5): both bodies against exact fractions and plain integers, at the edges of every type."""
from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from coder_cases import INT32, available, random_latents, random_params
from coder_cases import body as coder_body
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from remac_runtime import arithmetic, native
from remac_runtime.arithmetic import QualityParams
from remac_runtime.format import HEAD_LIMIT, ROUNDING
from remac_runtime.network import read_network

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["c", "numpy"])
def body(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "c" and native.library is None:
        pytest.skip("the C extension is not built")
    if request.param == "numpy":
        monkeypatch.setattr(native, "library", None)
    yield request.param


# ---- what FORMAT says, one number at a time -------------------------------------------------------------------------------------------------------

def rne(a: int, s: int) -> int:
    """Python rounds fractions half to even."""
    return round(Fraction(a) / Fraction(2) ** s)


def clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def scalar(y: int, mu: int, scale: int, params: QualityParams, c: int) -> tuple[int, int, int, int]:
    """(k, level, plane, y_hat)"""
    level = clamp(scale + int(params.scale_offset[c]) + 8, 0, 1023)
    index = level // 16
    v = (y - mu) * int(params.gain[c])
    magnitude = min((abs(v) + int(params.rounding[index])) // 2 ** 30, 2 ** 20 - 1)
    k = 0 if index < params.coded_from else magnitude if v > 0 else -magnitude
    y_hat = clamp(mu + k * int(params.inverse_gain[c]), *INT32)
    return k, level, clamp(rne(y_hat, int(params.context_shift[c])) + 128, 0, 255), y_hat


# ---- 5.1 ----------------------------------------------------------------------------------------------------------------------------------------

ACCUMULATORS = np.array([*range(-70, 71), *(sign * ((n << 16) + d) for n in (1, 2, 3, 254, 255) for d in (-32769, -32768, -32767, -1, 0, 1)
                                            for sign in (-1, 1)), 2 ** 24 - 1, 1 - 2 ** 24], np.int64)


def requantised(acc: NDArray[np.int64], shift: NDArray[np.integer]) -> list[Any]:
    """`arithmetic.requantise` of a copy."""
    result = acc.astype(np.int32)
    arithmetic.requantise(result, shift)
    return cast(list[Any], result.tolist())


@pytest.mark.parametrize("shift", range(-8, 17))
def test_requantise_rounds_half_to_even(body: str, shift: int) -> None:
    acc = ACCUMULATORS[np.abs(ACCUMULATORS) < HEAD_LIMIT * 2.0 ** shift]
    assert len(acc) > 141
    assert requantised(acc[:, None], np.array([shift], np.int8)) == [[rne(a, shift)] for a in acc.tolist()]


def test_accumulators_tell_roundings_apart() -> None:
    """Half up, half away from zero and truncation would each fail the test above."""
    for shift in (1, 5, 16):
        half = 1 << shift - 1
        up = ACCUMULATORS + half >> shift
        away = np.sign(ACCUMULATORS) * (np.abs(ACCUMULATORS) + half >> shift)
        for wrong in (up, away, ACCUMULATORS >> shift):
            assert wrong.tolist() != [rne(a, shift) for a in ACCUMULATORS.tolist()]


def test_requantise_with_a_shift_for_each_channel(body: str) -> None:
    acc = np.random.default_rng(0).integers(-2 ** 18, 2 ** 18, (3, 4, 25))
    shifts = np.arange(-8, 17, dtype=np.int8)
    expected = [[[rne(int(a), int(s)) for a, s in zip(row, shifts, strict=True)] for row in plane] for plane in acc]
    assert requantised(acc, shifts) == expected
    assert requantised(acc[:0], shifts) == []
    for wrong, steps in ((acc, shifts), (acc.astype(np.int32), shifts[:7]), (acc.astype(np.int32).transpose(1, 0, 2), shifts)):
        with pytest.raises(ValueError):
            arithmetic.requantise(cast(Any, wrong), steps)


# ---- 5.5 ----------------------------------------------------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(st.integers(0, 2 ** 32 - 1), st.sampled_from([1, 3, 8, 31, 32, 257]))
def test_quantise_and_dequantise_are_those_of_the_format(seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    params, shape = random_params(rng, channels), (2, 2, channels)
    y, mu, scale = (random_latents(rng, shape) for _ in range(3))
    near = rng.random(shape) < 0.7          # most latents near their means and on scales that matter
    y = np.where(near, (mu.astype(np.int64) + rng.integers(-2 ** 12, 2 ** 12, shape)).clip(*INT32), y).astype(np.int32)
    scale = np.where(near, rng.integers(-200, 1200, shape) - params.scale_offset, scale).astype(np.int32)
    expected = [scalar(int(y[p]), int(mu[p]), int(scale[p]), params, p[-1]) for p in np.ndindex(shape)]
    for name in [name for name in available() if name != "rounds"]:
        with coder_body(name):
            result = arithmetic.quantise(y, mu, scale, params)
            assert [a.dtype for a in (result.symbols, result.level, result.plane, result.y_hat)] == [np.int32, np.uint16, np.uint8, np.int32]
            arrays = (a.ravel().tolist() for a in (result.symbols, result.level, result.plane, result.y_hat))
            assert list(zip(*arrays, strict=True)) == expected
            assert np.array_equal(arithmetic.scale_level(scale, params), result.level)
            y_hat, plane = arithmetic.dequantise(mu, result.symbols, params)
            assert np.array_equal(y_hat, result.y_hat) and np.array_equal(plane, result.plane)
            assert y_hat.dtype == np.int32 and plane.dtype == np.uint8


def test_thresholds_of_the_level_and_of_rounding(body: str) -> None:
    """One step on either side of every border, worked out by hand."""
    rounding = np.full(64, 2 ** 29, np.int32)
    rounding[40] = 2 ** 28
    params = QualityParams(np.array([2 ** 20] * 4, np.int32), np.array([1024] * 4, np.int32), np.array([0, 0, -5, 5], np.int32),
                           np.array([8] * 4, np.int32), rounding, 2)
    scale = np.array([[-9, -8, 12, 2], [7, 8, 13, 3], [1015, 1016, 1004, 2 ** 31 - 1]], np.int32)
    level = arithmetic.scale_level(scale, params)
    assert level.tolist() == [[0, 0, 15, 15], [15, 16, 16, 16], [1023, 1023, 1007, 1023]]
    assert (level >> 4).tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [63, 63, 62, 63]]
    # gain 2^-10: rounded at halves with index 39, at three quarters with 40; nothing below index 2
    y = np.array([[511, 512, -511, -512], [767, 768, -767, -768], [5000, -5000, 1536, -1536]], np.int32)
    scale = np.array([[624] * 4, [640] * 4, [16, 16, 37, 27]], np.int32)
    result = arithmetic.quantise(y, np.zeros_like(y), scale, params)
    assert result.level.tolist() == [[632, 632, 627, 637], [648, 648, 643, 653], [24, 24, 40, 40]]
    assert (result.level >> 4).tolist() == [[39] * 4, [40] * 4, [1, 1, 2, 2]]
    assert result.symbols.tolist() == [[0, 1, 0, -1], [0, 1, 0, -1], [0, 0, 2, -2]]
    assert result.y_hat.tolist() == [[0, 1024, 0, -1024], [0, 1024, 0, -1024], [0, 0, 2048, -2048]]
    assert result.plane.tolist() == [[128, 132, 128, 124], [128, 132, 128, 124], [128, 128, 136, 120]]


def test_saturation(body: str) -> None:
    """Symbols stop at 2^20 - 1, latents at the ends of int32, planes at 0 and 255."""
    params = QualityParams(np.array([2 ** 24 - 1] * 2, np.int32), np.array([2 ** 26 - 1] * 2, np.int32), np.zeros(2, np.int32),
                           np.array([0, 16], np.int32), np.full(64, 2 ** 29, np.int32), 0)
    y, mu = np.array([[INT32[1], INT32[0]]], np.int32), np.array([[INT32[0], INT32[1]]], np.int32)
    result = arithmetic.quantise(y, mu, np.zeros_like(y), params)
    assert result.symbols.tolist() == [[2 ** 20 - 1, 1 - 2 ** 20]]
    assert result.y_hat.tolist() == [[INT32[1], INT32[0]]]
    assert result.plane.tolist() == [[255, 0]]


@pytest.mark.parametrize("rows", [1, 1025])     # more than one slab of the NumPy body
def test_input_that_is_not_plain(body: str, rows: int) -> None:
    """Strided, unaligned and big-endian arrays give what their plain copies give."""
    rng = np.random.default_rng(rows)
    params, shape = random_params(rng, 32), (rows, 32)
    plain = random_latents(rng, shape), random_latents(rng, shape), random_latents(rng, shape)
    strided = np.zeros((rows, 2, 32), np.int32)
    strided[:, 1] = plain[0]
    unaligned = np.frombuffer(b"\0" + plain[1].tobytes(), np.dtype(np.int32), offset=1).reshape(shape)
    odd = strided[:, 1], unaligned, plain[2].astype(">i4")
    assert not odd[0].flags.c_contiguous or rows == 1
    assert not odd[1].flags.aligned
    expected, result = arithmetic.quantise(plain[0], plain[1], plain[2], params), arithmetic.quantise(odd[0], odd[1], odd[2], params)
    for name in ("symbols", "level", "plane", "y_hat"):
        assert np.array_equal(getattr(result, name), getattr(expected, name))
    assert np.array_equal(arithmetic.dequantise(odd[1], odd[0], params)[0], arithmetic.dequantise(plain[1], plain[0], params)[0])
    assert np.array_equal(arithmetic.scale_level(odd[2], params), expected.level)


def test_shapes_must_agree(body: str) -> None:
    params = random_params(np.random.default_rng(0), 4)
    a, b = np.zeros((2, 4), np.int32), np.zeros((3, 4), np.int32)
    with pytest.raises(ValueError, match="shape"):
        arithmetic.quantise(a, b, a, params)
    with pytest.raises(ValueError, match="shape"):
        arithmetic.dequantise(a, b, params)
    with pytest.raises(ValueError):
        arithmetic.scale_level(np.zeros((2, 3), np.int32), params)


def test_quality_params_are_rows_of_the_network(small_model: Path) -> None:
    network = read_network(small_model / "network.rmn")
    for quality in (0, 63):
        params = arithmetic.quality_params(network, quality)
        for name in ("gain", "inverse_gain", "scale_offset"):
            assert np.array_equal(getattr(params, name), getattr(network, name)[quality])
        assert np.array_equal(params.context_shift, network.context_shift) and tuple(params.rounding) == ROUNDING
        assert params.coded_from == network.coded_from
        assert all(getattr(params, name).dtype == np.dtype(np.int32) and getattr(params, name).flags.aligned
                   for name in ("gain", "inverse_gain", "scale_offset", "context_shift", "rounding"))
