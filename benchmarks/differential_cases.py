"""Random pictures and how they are coded, for benchmarks/differential.py: every case is a pure function of (seed, number)."""
from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from remac_runtime.choices import PATTERNS
from remac_runtime.codec import EncodeOptions
from remac_runtime.format import BAND_UNIT, MOSAIC_SIDE_MIN, QUALITIES
from remac_runtime.images import Picture
from remac_runtime.terrain import terrain

SIDE = 300
EDGES = (1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 192, 255, 256, 257)
BAND_UNITS = (1, 1, 2, 2, 3, 4, 255)


@dataclass(frozen=True)
class Case:
    """A picture and how it is coded; `strip_rows` and `c_part` must make no difference."""

    number: int
    kind: str
    height: int
    width: int
    depth: int
    grey: bool
    quality: int
    band_rows: int
    references: bool
    image_id: int | None
    strip_rows: int
    c_part: bool
    mosaic: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def options(self, strip_rows: int | None) -> EncodeOptions:
        return EncodeOptions(quality=self.quality, band_rows=self.band_rows, references=self.references, image_id=self.image_id,
                             mosaic=self.mosaic, strip_rows=strip_rows)


def _side(rng: Generator) -> int:
    """Small ones more often, and a third of all at the edges of latents and bands."""
    return int(rng.choice(EDGES)) if rng.random() < 0.33 else int(np.exp(rng.uniform(0, np.log(SIDE + 1))))


def case_of(seed: int, number: int) -> Case:
    """The parameters of a case, the kinds of pictures in turn."""
    rng = np.random.default_rng([seed, number])
    grey = bool(rng.random() < 0.35)
    depth = int(rng.integers(9, 17)) if grey and rng.random() < 0.5 else 8
    case = Case(number, list(KINDS)[number % len(KINDS)], _side(rng), _side(rng), depth, grey, int(rng.integers(QUALITIES)),
                int(rng.choice(BAND_UNITS)) * BAND_UNIT, bool(rng.random() < 0.7), int(rng.integers(1 << 32)) if rng.random() < 0.2 else None,
                int(rng.integers(1, 200)), bool(rng.random() < 0.8), PATTERNS[0])
    may = not grey and min(case.height, case.width) >= MOSAIC_SIDE_MIN
    return replace(case, mosaic=PATTERNS[int(rng.integers(len(PATTERNS)))]) if may and rng.random() < 0.3 else case


# ---- pictures: 0..top, float or integer [H,W,C]

def _noise(rng: Generator, height: int, width: int, channels: int, top: int) -> NDArray[Any]:
    return rng.integers(0, top + 1, (height, width, channels))


def _flat(rng: Generator, height: int, width: int, channels: int, top: int) -> NDArray[Any]:
    values = rng.choice([0, 1, top // 2, top - 1, top, int(rng.integers(top + 1))], channels)
    return np.broadcast_to(values, (height, width, channels))


def _gradient(rng: Generator, height: int, width: int, channels: int, top: int) -> NDArray[Any]:
    slope = rng.uniform(-2, 2, (2, channels)) * top / max(height, width)
    ramp = np.arange(height)[:, None, None] * slope[0] + np.arange(width)[None, :, None] * slope[1] + rng.uniform(0, top, channels)
    folded = np.abs((ramp + top) % (2 * top) - top)
    return folded + rng.normal(0, rng.choice([0, top / 300, top / 30]), folded.shape)


def _terrain(rng: Generator, height: int, width: int, channels: int, top: int) -> NDArray[Any]:
    picture = terrain(height, width, int(rng.integers(1 << 16)), depth=top.bit_length(), grey=channels == 1)
    return picture.reshape(height, width, channels)


def _extremes(rng: Generator, height: int, width: int, channels: int, top: int) -> NDArray[Any]:
    """The smallest and the largest sample alone, in blocks of a random size: whatever saturates does so."""
    block = int(rng.choice([1, 1, 2, 3, 8, 16, 64]))
    coarse = rng.integers(0, 2, (-(-height // block), -(-width // block), channels)) * top
    return coarse.repeat(block, 0).repeat(block, 1)[:height, :width]


def _patches(rng: Generator, height: int, width: int, channels: int, top: int) -> NDArray[Any]:
    """Flat rectangles, one over the other."""
    picture = np.zeros((height, width, channels), np.int64)
    for _ in range(int(rng.integers(1, 20))):
        row, column = int(rng.integers(height)), int(rng.integers(width))
        picture[row:row + 1 + int(rng.integers(height)), column:column + 1 + int(rng.integers(width))] = rng.integers(0, top + 1, channels)
    return picture


KINDS = {"noise": _noise, "flat": _flat, "gradient": _gradient, "terrain": _terrain, "extremes": _extremes, "patches": _patches}


def picture_of(seed: int, case: Case) -> Picture:
    rng = np.random.default_rng([seed, case.number, 1])
    top = (1 << case.depth) - 1
    drawn = KINDS[case.kind](rng, case.height, case.width, 1 if case.grey else 3, top)
    samples = np.clip(np.rint(drawn), 0, top).astype(np.uint8 if case.depth == 8 else np.uint16)
    return Picture(np.ascontiguousarray(samples[..., 0] if case.grey else samples), case.depth)
