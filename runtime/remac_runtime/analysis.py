"""g_a and h_a over a backend, whole or in strips with a halo: the same integers either way (FORMAT 5.3)."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remac_runtime.backends import Backend
from remac_runtime.format import HYPER_STRIDE, LATENT_STRIDE, PAD_MULTIPLE

# g_a sees 32 rows beyond a latent's block (3x3 at 1/8 twice, 3x3 at 1/16 once: 8 + 8 + 16); strips stay aligned with the hyper-latents.
HALO_ROWS = 64
STRIP_PIXELS = 4_000_000      # pictures above it are analysed in strips of about that size unless the caller says otherwise

Parts = tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]     # y, z, sums of body and of deep over the positions


@dataclass(frozen=True)
class Analysed:
    """y int32[H/16,W/16,M], z uint8[H/64,W/64,Z], descriptors int64[C]."""

    y: NDArray[np.int32]
    z: NDArray[np.uint8]
    texture: NDArray[np.int64]
    semantic: NDArray[np.int64]


def padded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row and column up to multiples of PAD_MULTIPLE (FORMAT 3)."""
    rows, columns = (-n % PAD_MULTIPLE for n in pixels.shape[:2])
    return np.pad(pixels, ((0, rows), (0, columns), (0, 0)), "edge") if rows or columns else pixels


def strip_height(strip_rows: int | None, height: int, width: int) -> int:
    """Rows to work on at a time: what the caller wants, else the whole picture, or strips where it is large."""
    if strip_rows is not None:
        return strip_rows
    return height if height * width <= STRIP_PIXELS else max(STRIP_PIXELS // width, 4 * HALO_ROWS)


def analyse(backend: Backend, pixels: NDArray[np.uint8], strip_rows: int | None = None) -> Analysed:
    """Analyse uint8[H,W,3], `strip_rows` (rounded up to whole hyper-latents) at a time, see `strip_height`, or as the backend does it by itself."""
    height, width = (-(-n // PAD_MULTIPLE) * PAD_MULTIPLE for n in pixels.shape[:2])
    y, z, texture, semantic = backend.analyse(pixels) or _in_strips(backend, pixels, strip_height(strip_rows, *pixels.shape[:2]), height)
    return Analysed(y, z, texture // (height * width // 64), semantic // (height * width // LATENT_STRIDE ** 2))


def _in_strips(backend: Backend, pixels: NDArray[np.uint8], strip_rows: int, total: int) -> Parts:
    """The whole picture, `total` rows with the padding."""
    step = -(-strip_rows // HYPER_STRIDE) * HYPER_STRIDE
    y, z, texture, semantic = zip(*(_strip(backend, pixels, top, min(top + step, total), total) for top in range(0, total, step)), strict=True)
    return y[0] if len(y) == 1 else np.concatenate(y), z[0] if len(z) == 1 else np.concatenate(z), sum(texture), sum(semantic)


def _strip(backend: Backend, pixels: NDArray[np.uint8], top: int, bottom: int, total: int) -> Parts:
    """Rows top..bottom of the padded picture, computed with a halo that is cut off again."""
    first, last = max(top - HALO_ROWS, 0), min(bottom + HALO_ROWS, total)
    window = pixels[first:min(last, len(pixels))]
    if last > len(pixels):      # rows of the padding repeat the last row of the picture
        window = np.concatenate([window, np.repeat(pixels[-1:], last - max(first, len(pixels)), 0)])
    y, z, body, deep = backend.run("analysis", padded(window))

    def rows(stride: int) -> slice:
        return slice((top - first) // stride, (bottom - first) // stride)

    return y[rows(LATENT_STRIDE)], z[rows(HYPER_STRIDE)], _channel_sums(body[rows(8)]), _channel_sums(deep[rows(LATENT_STRIDE)])


def _channel_sums(t: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sum over positions of uint8[h,w,C]. Rows of 256 at a time fit uint16, which is several times faster than int64 throughout."""
    flat = t.reshape(-1, t.shape[-1])
    whole = len(flat) // 256 * 256
    sums: NDArray[np.int64] = flat[:whole].reshape(-1, 256, flat.shape[1]).sum(1, dtype=np.uint16).sum(0, dtype=np.int64)
    sums += flat[whole:].sum(0, dtype=np.int64)
    return sums
