"""Synthetic Martian pictures: fractal ground in perspective, rocks with shadows, sky, and the grey deck of a rover. Pure functions of size and seed.

Everything is integer arithmetic (hashed lattices, fixed-point interpolation), so the samples are the same on every platform and NumPy version; their
hashes may be stored. Positions are pixels, fixed point has FRACTION bits, intensities are 0..INTENSITY_TOP until the last step.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FRACTION = 8
ONE = 1 << FRACTION
INTENSITY_BITS = 12
INTENSITY_TOP = (1 << INTENSITY_BITS) - 1
SKY_HIGH, SKY_LOW = (2300, 1950, 1500), (3100, 2720, 2180)
SOIL_DARK, SOIL_BRIGHT = (820, 520, 330), (3050, 2080, 1330)
ROCK_DARK, ROCK_BRIGHT = (420, 360, 330), (2450, 1950, 1600)
DECK_GREY = (1900, 1920, 1960)
SWATCHES = ((3300, 700, 620), (700, 2500, 800), (620, 800, 2900), (3400, 3000, 700))


def hashed(x: NDArray[Any] | int, y: NDArray[Any] | int, seed: int) -> Ints:
    """A well mixed 32-bit number of every lattice point: int64, 0..2^32-1."""
    mask = np.uint64(0xFFFFFFFF)
    a = (np.asarray(x, np.int64) & 0xFFFFFFFF).astype(np.uint64) * np.uint64(0x9E3779B1) & mask
    b = (np.asarray(y, np.int64) & 0xFFFFFFFF).astype(np.uint64) * np.uint64(0x85EBCA77) & mask
    h = a ^ b ^ np.uint64(seed * 0xC2B2AE3D & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h = (h ^ h >> np.uint64(shift)) * np.uint64(factor) & mask
    mixed: Ints = (h ^ h >> np.uint64(16)).astype(np.int64)
    return mixed


def value_noise(x: Ints, y: Ints, seed: int) -> Ints:
    """Smooth noise 0..65535 of fixed-point positions; the lattice has a point at every whole position."""
    column, row = x >> FRACTION, y >> FRACTION
    tx, ty = (t * t * (3 * ONE - 2 * t) >> 2 * FRACTION for t in (x & ONE - 1, y & ONE - 1))
    corner = [[hashed(column + j, row + i, seed) >> 16 for j in (0, 1)] for i in (0, 1)]
    upper, lower = (a * (ONE - tx) + b * tx for a, b in corner)
    noise: Ints = upper * (ONE - ty) + lower * ty >> 2 * FRACTION
    return noise


def fractal(x: Ints, y: Ints, seed: int, octaves: int) -> Ints:
    """Sum of octaves of value noise, each twice as fine and half as strong: 0..65535."""
    total, weight = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.int64), 0
    for octave in range(octaves):
        strength = 1 << octaves - octave
        total += value_noise(x << octave, y << octave, seed + octave) * strength
        weight += strength
    result: Ints = total // weight
    return result


def mix(a: tuple[int, ...], b: tuple[int, ...], t: Ints) -> Ints:
    """Colours between a (t = 0) and b (t = ONE): int64[...,3]."""
    first, second = np.array(a, np.int64), np.array(b, np.int64)
    result: Ints = first + ((second - first) * np.clip(t, 0, ONE)[..., None] >> FRACTION)
    return result


@dataclass(frozen=True)
class Rock:
    """An ellipse in the picture, in pixels."""

    row: int
    column: int
    half_height: int
    half_width: int


def _ground(height: int, width: int, horizon: Ints, seed: int) -> Ints:
    """Soil seen at a slant, lit from the left: int64[H,W,3]. `horizon` is its row in every column."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    below = np.maximum(rows - horizon[None, :], 0) + 12
    distance = (height + 24) * 4 * ONE // below
    across = (columns - width // 2) * ONE // below * 3
    relief, before = (fractal(across + offset + (1 << 20), distance + (1 << 20), seed, 7) for offset in (0, -24))
    tone = fractal((across >> 3) + (1 << 20), (distance >> 3) + (1 << 20), seed + 50, 3)
    light = ONE // 2 + (relief - before) * ONE // 20000 + (relief - 32768) * ONE // 130000 + (tone - 32768) * ONE // 100000
    haze = np.clip((height - below * 3) * ONE // (height * 2), 0, ONE // 2)
    soil = mix(SOIL_DARK, SOIL_BRIGHT, light)
    hazy: Ints = soil + ((np.array(SKY_LOW) - soil) * haze[..., None] >> FRACTION)
    return hazy


def _rocks(height: int, width: int, horizon: int, seed: int) -> list[Rock]:
    """Rocks from far to near, larger when nearer."""
    rocks = []
    for i in range(6 + height * width // 6000):
        a, b, c = (int(hashed(i, j, seed + 99)) for j in range(3))
        row = horizon + 2 + a % max(height - horizon, 1)
        size = 1 + (row - horizon) * (40 + c % 200) // 2600 * (3 if c % 17 == 0 else 1)
        rocks.append(Rock(row, b % max(width, 1), max(size * 2 // 3, 1), size + c // 1000 % (size + 1) // 2))
    return sorted(rocks, key=lambda rock: (rock.row, rock.column))


def _draw_rock(picture: Ints, rock: Rock, seed: int) -> None:
    """Shadow to the right, then a dome lit from the left, both clipped to the picture."""
    reach = 3 * rock.half_width + 2
    top, left = max(rock.row - 2 * rock.half_height - 1, 0), max(rock.column - reach, 0)
    window = picture[top:rock.row + rock.half_height + 2, left:rock.column + reach + 1]
    dy = np.arange(top, top + window.shape[0])[:, None] - rock.row
    dx = np.arange(left, left + window.shape[1])[None, :] - rock.column
    hh, hw = rock.half_height ** 2, rock.half_width ** 2
    shade = dy ** 2 * 4 * hw + (dx - rock.half_width) ** 2 * hh // 2 < hw * hh
    window[shade] = window[shade] * 5 // 12
    dome = (dy + rock.half_height // 2) ** 2 * hw + dx ** 2 * hh
    inside = dome < hw * hh
    grain = fractal((dx + left + (1 << 12)) * ONE // 3, (dy + top + (1 << 12)) * ONE // 3, seed + rock.column, 3)
    slope = dx * ONE // (3 * rock.half_width) + (dy + rock.half_height // 2) * ONE // (4 * rock.half_height)
    light = ONE // 2 - slope + (grain - 32768) * ONE // 90000
    window[inside] = mix(ROCK_DARK, ROCK_BRIGHT, light)[inside]


def _draw_deck(picture: Ints, seed: int) -> None:
    """The rover's deck in the lower right corner: a slanted grey plate with seams, bolts and colour swatches."""
    height, width = picture.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    plate = (rows * 3 + columns * 2 - height * 3 - width) * ONE // max(height + width, 1)
    on_deck = plate > ONE // 8
    light = (fractal(columns * ONE // 40 + rows * 0, rows * ONE // 40 + columns * 0, seed + 7, 2) - 32768) // 200
    grey = np.array(DECK_GREY) + light[..., None]
    seam = ((rows * 2 + columns) % 61 < 2) | ((columns * 2 - rows) % 97 < 2)
    bolt = (rows % 31 - 15) ** 2 + (columns % 31 - 15) ** 2 < 7
    grey = np.where(seam[..., None], grey * 2 // 5, np.where(bolt[..., None], grey * 8 // 5, grey))
    picture[on_deck] = grey[on_deck]
    side = max(min(height, width) // 24, 1)
    for i, colour in enumerate(SWATCHES):
        top, left = height - 2 * side, width - (2 * i + 3) * side
        if top >= 0 and left >= 0:
            picture[top:top + side, left:left + side] = colour


def intensities(height: int, width: int, seed: int) -> Ints:
    """The scene before the sensor: int64[H,W,3] in 0..INTENSITY_TOP."""
    base = height // 5 + int(hashed(0, 0, seed)) % (height // 8 + 1)
    ridge = value_noise(np.arange(width)[None, :] * ONE * 6 // max(width, 1), np.zeros((1, 1), np.int64), seed + 31)[0]
    horizon = base - ridge * (height // 12) // 65536
    sky = mix(SKY_HIGH, SKY_LOW, np.arange(height)[:, None] * ONE // max(base, 1) + np.zeros((1, width), np.int64))
    rows = np.arange(height)[:, None]
    picture = np.where((rows < horizon[None, :])[..., None], sky, _ground(height, width, horizon, seed))
    for rock in _rocks(height, width, base, seed):
        _draw_rock(picture, rock, seed)
    if hashed(1, 1, seed) % 2:
        _draw_deck(picture, seed)
    return np.clip(picture, 0, INTENSITY_TOP)


def terrain(height: int, width: int, seed: int, *, depth: int = 8, grey: bool = False) -> NDArray[Any]:
    """A picture: uint8[H,W,3], or with `grey` uint8[H,W] (depth 8) or uint16[H,W] (depth 9..16). Sensor noise is part of it."""
    scene = intensities(height, width, seed)
    if grey:
        scene = (scene * np.array([77, 150, 29]) >> 8).sum(2, keepdims=True)
    rows, columns, channels = (np.arange(n).reshape(shape) for n, shape in zip(scene.shape, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True))
    noise = hashed(columns * 4 + channels, rows, seed + 1234)
    scene = scene + ((noise & 31) + (noise >> 8 & 31) - 31)                  # triangular, about 13 of 4095
    extra = max(depth - INTENSITY_BITS, 0)
    samples = np.clip(scene, 0, INTENSITY_TOP) << extra | noise >> 20 & (1 << extra) - 1
    samples = (samples >> max(INTENSITY_BITS - depth, 0)).astype(np.uint8 if depth == 8 else np.uint16)
    result: NDArray[Any] = samples[..., 0] if grey else samples
    return result
