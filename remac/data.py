"""Training pictures: splits by source folder, patches drawn by (seed, step, rank) so that a resumed run sees the same ones."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from remac.cameras import augmented, processed, sensed, to_tensor
from remac.hardware import with_hardware
from remac_runtime.mars import DataMissing

SUFFIXES = (".png", ".jpg", ".webp")
HARDWARE_SHARE = 0.15          # of the patches
SENSOR_SHARE = 0.35            # of the patches: as a sensor with colour filters shows them, from a window of ...
SENSOR_WINDOW = 2              # ... so many times the side
Crop = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class Patches(NamedTuple):
    """float[n,3,side,side] of 8-bit values, and the patterns int64[n] of those that are mosaics interpolated anew, 0 of the others."""

    pixels: Tensor
    patterns: Tensor


def picture_paths(folder: Path) -> list[Path]:
    """The pictures of one split, sorted by name. Raises DataMissing when there is none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not paths:
        raise DataMissing(f"no pictures in {folder}: docs/data.md tells which there must be")
    return paths


def load_picture(path: Path) -> NDArray[np.uint8]:
    """uint8[H,W,3]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


class PatchSampler:
    """Random augmented patches of a list of pictures, weighted by their area."""

    sensor_share = SENSOR_SHARE

    def __init__(self, paths: list[Path], patch: int, seed: int, augment: bool = True) -> None:
        self.least = SENSOR_WINDOW * patch if augment else patch          # sides of the pictures
        self.pictures = [self.at_least(load_picture(path), self.least) for path in paths]
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], dtype=np.float64)
        self.share = areas / areas.sum()
        self.patch, self.seed, self.augment = patch, seed, augment

    @staticmethod
    def at_least(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The picture, reflected at its edges where a side is shorter than `size`."""
        missing = [max(0, size - n) for n in picture.shape[:2]]
        return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), "reflect") if any(missing) else picture

    def batch(self, count: int, step: int, rank: int = 0) -> Patches:
        """A pure function of (seed, step, rank)."""
        rng = np.random.default_rng((self.seed, step, rank))
        pixels, patterns = zip(*(self._one(rng) for _ in range(count)), strict=True)
        return Patches(torch.stack(pixels), torch.tensor(patterns))

    def place(self, rng: np.random.Generator, grid: int = 1, enlarged: int = 1) -> tuple[int, Crop]:
        """Which picture, and how a patch of `enlarged` times the usual side is cut out of it: at multiples of `grid` pixels, perhaps mirrored."""
        chosen, side = int(rng.choice(len(self.pictures), p=self.share)), enlarged * self.patch
        top, left = self.corner(self.pictures[chosen], rng, grid, side)
        across, down = rng.random() < 0.5, rng.random() < 0.15

        def crop(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
            part = picture[top:top + side, left:left + side]
            return part[::-1 if down else 1, ::-1 if across else 1]
        return chosen, crop

    @staticmethod
    def corner(picture: NDArray[np.uint8], rng: np.random.Generator, grid: int, side: int) -> tuple[int, int]:
        """Where a patch of this side begins in a picture, row and column: at multiples of `grid` pixels."""
        top, left = (grid * int(rng.integers((n - side) // grid + 1)) for n in picture.shape[:2])
        return top, left

    def _one(self, rng: np.random.Generator) -> tuple[Tensor, int]:
        """A patch float[3+n,side,side], with the maps of its picture, and its pattern."""
        if not self.augment:
            return self._untouched(rng), 0
        sensor = rng.random() < self.sensor_share
        chosen, crop = self.place(rng, enlarged=SENSOR_WINDOW if sensor else 1)
        x = to_tensor(crop(self.pictures[chosen]))
        if rng.random() < HARDWARE_SHARE:
            x = torch.cat([with_hardware(x[:3], rng), x[3:]])
        if sensor:
            return sensed(augmented(x, rng), rng)
        return processed(augmented(x, rng), rng) if rng.random() < 0.5 else x, 0

    def _untouched(self, rng: np.random.Generator) -> Tensor:
        """A patch float[3+n,side,side] as the camera of its picture took it."""
        chosen, crop = self.place(rng)
        return to_tensor(crop(self.pictures[chosen]))
