"""Drawn test charts for training: colour chips, stripes, ramps, noise and plain colours.

Calibration targets and saturated skies look like these, and nothing else in pictures of terrain does: a network that never saw a flat patch of pure
colour may answer it with anything.
"""
from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRAIN = 3.0                    # largest standard deviation of a chart's noise, 8-bit units
NOISE = (5.0, 60.0)            # least and largest of the noise charts
PICTURES, PICTURE_CHARTS, PICTURE_SEED = 12, 4, 29     # pictures of charts: how many, charts along a side
PURE_SHARE = 0.3               # of the colours have every component at 0 or 255


def _colours(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Random colours, float[*shape,3] of 8-bit values."""
    free, pure = rng.uniform(0, 255, (*shape, 3)), 255.0 * rng.integers(0, 2, (*shape, 3))
    return np.where(rng.random((*shape, 1)) < PURE_SHARE, pure, free)


def _chips(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Squares of random colours, at a random place of their grid."""
    size = int(2 ** rng.uniform(1, 6))
    count = side // size + 2
    top, left = rng.integers(0, size, 2)
    return _colours(rng, (count, count)).repeat(size, 0).repeat(size, 1)[top:top + side, left:left + side]


def _phase(side: int, rng: np.random.Generator, length: float) -> NDArray[np.float64]:
    """How far each pixel lies along a random direction, in `length` pixels, float[side,side,1]."""
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    row, column = np.mgrid[:side, :side]
    return ((column * np.cos(angle) + row * np.sin(angle)) / length + rng.random())[..., None]


def _stripes(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Two colours in turn; in both directions at times: a chequerboard."""
    period = 2 ** rng.uniform(1, 6)
    first = np.floor(_phase(side, rng, period)) % 2
    if rng.random() < 0.4:
        first = (first + np.floor(_phase(side, rng, period))) % 2
    one, other = _colours(rng, (2,))
    return np.where(first, one, other)


def _ramp(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """From one colour to another, once or again and again."""
    share = _phase(side, rng, side * rng.uniform(0.3, 2)) % 1
    one, other = _colours(rng, (2,))
    return share * one + (1 - share) * other


def _noise(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise around a colour, grey or in all three planes."""
    return _colours(rng, (1, 1)) + rng.normal(0, rng.uniform(*NOISE), (side, side, int(rng.choice([1, 3]))))


def _plain(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.broadcast_to(_colours(rng, (1, 1)), (side, side, 3))


def chart(side: int, rng: np.random.Generator) -> Tensor:
    """A random chart, float[3,side,side] of 8-bit values; a third of them grey, half of them with grain."""
    drawn = (_chips, _stripes, _ramp, _noise, _plain)[int(rng.integers(5))](side, rng)
    if rng.random() < 0.5:
        drawn = drawn + rng.normal(0, rng.uniform(0, GRAIN), drawn.shape)
    if rng.random() < 1 / 3:
        drawn = drawn.mean(2, keepdims=True).repeat(3, 2)
    return torch.from_numpy(np.rint(np.clip(drawn, 0, 255))).permute(2, 0, 1).float()


def chart_pictures(side: int) -> list[NDArray[np.uint8]]:
    """Pictures full of charts of `side` pixels, uint8[H,W,3], always the same: for codecs of whole pictures."""
    pictures = []
    for number in range(PICTURES):
        rng = np.random.default_rng((PICTURE_SEED, number))
        rows = [torch.cat([chart(side, rng) for _ in range(PICTURE_CHARTS)], 2) for _ in range(PICTURE_CHARTS)]
        pictures.append(torch.cat(rows, 1).byte().permute(1, 2, 0).numpy())
    return pictures
