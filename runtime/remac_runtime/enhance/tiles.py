"""A picture of any size through a network that sees tiles: overlapping tiles on the grid of cells, joined in the middle of their overlap.

The network's global parts stay inside cells of 128 pixels, which no tile cuts, so only its convolutions look across a tile's edge. What is kept of a
tile is at least OVERLAP / 2 - RAMP pixels away from an edge that is not the picture's, and neighbours fade into each other over 2 * RAMP pixels.
Memory: one tile in the network, and a strip of tiles' height of results.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remac_runtime.enhance.matching import CELL

OVERLAP = 2 * CELL      # of neighbouring tiles, at least
RAMP = 16               # half of the length over which two tiles fade into each other
TILE = 1664             # sides of a tile, at most: 1600x1152 and 1648x1200 are one
LEAST_TILE = 2 * OVERLAP + CELL

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """A tile along one axis: pixels start..stop, and how much it counts at each of them, float32[stop - start]."""

    start: int
    stop: int
    weight: Floats


def spans(length: int, tile: int = TILE) -> list[Span]:
    """Spans of at most `tile` pixels that cover `length`, both multiples of CELL; their weights add up to 1 everywhere."""
    cells, most, overlap = length // CELL, tile // CELL, OVERLAP // CELL
    count = 1 if cells <= most else -(-(cells - overlap) // (most - overlap))
    size = -(-(cells + (count - 1) * overlap) // count)
    starts = [CELL * (i * (cells - size) // max(1, count - 1)) for i in range(count)]
    stops = [start + CELL * size for start in starts]
    cuts = [(start + stop) / 2 for start, stop in zip(starts[1:], stops, strict=False)]
    rises = [np.ones(length, np.float32), *(_rise(length, cut) for cut in cuts), np.zeros(length, np.float32)]
    return [Span(a, b, (rises[i] - rises[i + 1])[a:b]) for i, (a, b) in enumerate(zip(starts, stops, strict=True))]


def _rise(length: int, cut: float) -> Floats:
    """From 0 to 1 over 2 * RAMP pixels around a cut."""
    return np.clip((np.arange(length, dtype=np.float32) + 0.5 - cut + RAMP) / (2 * RAMP), 0, 1)


def tiled(height: int, width: int, run: Callable[[slice, slice], Floats], tile: int = TILE) -> Iterator[tuple[int, Floats]]:
    """Finished rows from top to bottom: (first row, float32[rows,width,channels]). `run` gives float32[h,w,channels] of a tile's rows and columns."""
    rows, columns = spans(height, tile), spans(width, tile)
    carried: Floats | None = None
    for number, row in enumerate(rows):
        strip = np.zeros((row.stop - row.start, width, 3), np.float32)
        for column in columns:
            part = run(slice(row.start, row.stop), slice(column.start, column.stop))
            strip[:, column.start:column.stop] += part * (row.weight[:, None, None] * column.weight[None, :, None])
        if carried is not None:
            strip[:len(carried)] += carried
        done = (rows[number + 1].start if number + 1 < len(rows) else height) - row.start
        yield row.start, strip[:done]
        carried = strip[done:]


def tile_count(height: int, width: int, tile: int = TILE) -> int:
    return len(spans(height, tile)) * len(spans(width, tile))
