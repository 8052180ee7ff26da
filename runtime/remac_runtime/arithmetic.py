"""Integer arithmetic between the networks and the entropy coder (FORMAT 5.1, 5.5). Each function has a C body (csrc/remac.c) and a NumPy one."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime import native
from remac_runtime.format import GAIN_BITS, LATENT_OFFSET, LEVEL_MAX, ROUNDING, SCALE_FRACTION_BITS, SYMBOL_LIMIT
from remac_runtime.network import Network

_SLAB = 1 << 15   # elements the NumPy bodies handle at a time: their int64 temporaries stay in the cache


@dataclass(frozen=True, eq=False)
class QualityParams:
    """What FORMAT 5.5 needs at one quality: a network's gain, inverse_gain, scale_offset, context_shift int32[M], and rounding int32[64]."""

    gain: NDArray[np.int32]
    inverse_gain: NDArray[np.int32]
    scale_offset: NDArray[np.int32]
    context_shift: NDArray[np.int32]
    rounding: NDArray[np.int32]
    coded_from: int


@dataclass(frozen=True, eq=False)
class Quantised:
    """Result of `quantise`: symbols k and decoded latents y_hat int32[...,M], levels of the scale uint16[...,M], context plane uint8[...,M]."""

    symbols: NDArray[np.int32]
    level: NDArray[np.uint16]
    plane: NDArray[np.uint8]
    y_hat: NDArray[np.int32]


def quality_params(network: Network, quality: int) -> QualityParams:
    """The rows of a network for a quality 0..63, and the rounding, which is the same for all."""
    gain, inverse_gain, scale_offset, context_shift, rounding = (np.array(row, np.int32) for row in (
        network.gain[quality], network.inverse_gain[quality], network.scale_offset[quality], network.context_shift, ROUNDING))
    return QualityParams(gain, inverse_gain, scale_offset, context_shift, rounding, network.coded_from)


def requantise(acc: NDArray[np.int32], shift: NDArray[np.integer]) -> None:
    """rne(acc, shift) of FORMAT 5.1 in place, of a head's accumulators int32[...,C], C-contiguous, and its shifts [C].

    |acc| < ACCUMULATOR_LIMIT; shift is -8..16, and where it is negative, which is to the left, the result is below HEAD_LIMIT.
    """
    if acc.dtype != np.int32 or not acc.flags.c_contiguous or shift.shape != acc.shape[-1:]:
        raise ValueError(f"shifts {shift.shape} for {acc.dtype}{list(acc.shape)}, which must be int32 and C-contiguous")
    if native.library is not None and acc.size:
        native.library.requantise(native.plain(shift, np.int32), acc)
        return
    shifts = shift.astype(np.int64)
    for (rows,) in _slabs(acc):
        rows[...] = _requantise(rows.astype(np.int64), shifts)


def _requantise(acc: NDArray[np.int64], shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    right, left = np.maximum(shifts, 0), np.maximum(-shifts, 0)
    odd = (right > 0).astype(np.int64)
    half = (np.int64(1) << right >> 1) - odd
    out: NDArray[np.int64] = (acc + half + (acc >> right & odd) >> right) << left
    return out


def scale_level(scale: NDArray[np.int32], params: QualityParams) -> NDArray[np.uint16]:
    """Levels 0..LEVEL_MAX uint16[...,M] of log scales int32[...,M] (FORMAT 5.5)."""
    level = np.empty(scale.shape, np.uint16)
    if native.library is not None:
        native.library.scale_level(native.plain(scale, np.int32), params.scale_offset, level)
        return level
    for source, target in _slabs(scale, level):
        target[...] = _scale_level(source, params)
    return level


def quantise(y: NDArray[np.int32], mu: NDArray[np.int32], scale: NDArray[np.int32], params: QualityParams) -> Quantised:
    """Quantise latents y with means mu and log scales, all int32[...,M] (FORMAT 5.5). Exact for all int32 values."""
    if not y.shape == mu.shape == scale.shape:
        raise ValueError(f"y {y.shape}, mu {mu.shape} and scale {scale.shape} differ in shape")
    result = Quantised(np.empty(y.shape, np.int32), np.empty(y.shape, np.uint16), np.empty(y.shape, np.uint8), np.empty(y.shape, np.int32))
    if native.library is not None:
        native.library.quantise(params.gain, params.inverse_gain, params.scale_offset, params.context_shift, params.rounding,
                                native.plain(y, np.int32), native.plain(mu, np.int32), native.plain(scale, np.int32),
                                result.symbols, result.level, result.plane, result.y_hat, params.coded_from)
        return result
    for y_, mu_, scale_, symbols, level, plane, y_hat in _slabs(y, mu, scale, result.symbols, result.level, result.plane, result.y_hat):
        level[...] = _scale_level(scale_, params)
        index = level >> SCALE_FRACTION_BITS
        distance = y_.astype(np.int64) - mu_
        k = np.abs(distance) * params.gain + params.rounding[index] >> GAIN_BITS          # < 2^32 * 2^24 + 2^30 before the shift
        k = np.where(index < params.coded_from, 0, np.minimum(k, SYMBOL_LIMIT - 1))
        symbols[...] = np.where(distance < 0, -k, k)
        y_hat[...] = _y_hat(mu_, symbols, params)
        plane[...] = _plane(y_hat, params)
    return result


def dequantise(mu: NDArray[np.int32], symbols: NDArray[np.int32], params: QualityParams) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """(y_hat int32[...,M], plane uint8[...,M]) of decoded symbols int32[...,M] (FORMAT 5.5). Exact for all int32 values."""
    if mu.shape != symbols.shape:
        raise ValueError(f"mu {mu.shape} and symbols {symbols.shape} differ in shape")
    y_hat, plane = np.empty(mu.shape, np.int32), np.empty(mu.shape, np.uint8)
    if native.library is not None:
        native.library.dequantise(params.inverse_gain, params.context_shift, native.plain(mu, np.int32), native.plain(symbols, np.int32),
                                  y_hat, plane)
        return y_hat, plane
    for mu_, symbols_, y_hat_, plane_ in _slabs(mu, symbols, y_hat, plane):
        y_hat_[...] = _y_hat(mu_, symbols_, params)
        plane_[...] = _plane(y_hat_, params)
    return y_hat, plane


def _slabs(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Arrays [...,M] of one shape as rows [n,M], some rows at a time; views wherever an array is contiguous, as outputs are."""
    channels = arrays[0].shape[-1]
    flat = [array.reshape(-1, channels) for array in arrays]
    step = max(_SLAB // max(channels, 1), 1)
    for top in range(0, len(flat[0]), step):
        yield tuple(array[top:top + step] for array in flat)


def _scale_level(scale: NDArray[np.int32], params: QualityParams) -> NDArray[np.int64]:
    level: NDArray[np.int64] = np.clip(scale.astype(np.int64) + params.scale_offset + (1 << SCALE_FRACTION_BITS - 1), 0, LEVEL_MAX)
    return level


def _y_hat(mu: NDArray[np.int32], symbols: NDArray[np.int32], params: QualityParams) -> NDArray[np.int64]:
    y_hat: NDArray[np.int64] = np.clip(mu + symbols.astype(np.int64) * params.inverse_gain, -(1 << 31), (1 << 31) - 1)   # < 2^58 before the clip
    return y_hat


def _plane(y_hat: NDArray[np.int32], params: QualityParams) -> NDArray[np.int64]:
    return np.clip(_requantise(y_hat.astype(np.int64), params.context_shift.astype(np.int64)) + LATENT_OFFSET, 0, 255)
