"""Training pictures: splits by source folder, patches drawn by (seed, step, rank) so that a resumed run sees the same ones."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from remac.hardware import with_hardware
from remac_runtime.mars import DataMissing

SUFFIXES = (".png", ".jpg", ".webp")
HARDWARE_SHARE = 0.15          # of the patches
OTHER_CAMERA_SEED = 23
Crop = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


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

    def __init__(self, paths: list[Path], patch: int, seed: int, augment: bool = True) -> None:
        self.pictures = [self.at_least(load_picture(path), patch) for path in paths]
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], dtype=np.float64)
        self.share = areas / areas.sum()
        self.patch, self.seed, self.augment = patch, seed, augment

    @staticmethod
    def at_least(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The picture, reflected at its edges where a side is shorter than `size`."""
        missing = [max(0, size - n) for n in picture.shape[:2]]
        return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), "reflect") if any(missing) else picture

    def batch(self, count: int, step: int, rank: int = 0) -> Tensor:
        """float[count,3,patch,patch] of 8-bit values, a pure function of (seed, step, rank)."""
        rng = np.random.default_rng((self.seed, step, rank))
        return torch.stack([self._one(rng) for _ in range(count)])

    def place(self, rng: np.random.Generator, grid: int = 1) -> tuple[int, Crop]:
        """Which picture, and how a patch is cut out of it: at multiples of `grid` pixels, perhaps mirrored."""
        chosen = int(rng.choice(len(self.pictures), p=self.share))
        top, left = self.corner(self.pictures[chosen], rng, grid)
        across, down = rng.random() < 0.5, rng.random() < 0.15

        def crop(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
            part = picture[top:top + self.patch, left:left + self.patch]
            return part[::-1 if down else 1, ::-1 if across else 1]
        return chosen, crop

    def corner(self, picture: NDArray[np.uint8], rng: np.random.Generator, grid: int = 1) -> tuple[int, int]:
        """Where a patch begins in a picture, row and column: at multiples of `grid` pixels."""
        top, left = (grid * int(rng.integers((n - self.patch) // grid + 1)) for n in picture.shape[:2])
        return top, left

    def _one(self, rng: np.random.Generator) -> Tensor:
        chosen, crop = self.place(rng)
        x = torch.from_numpy(crop(self.pictures[chosen]).copy()).permute(2, 0, 1).float()
        if self.augment and rng.random() < HARDWARE_SHARE:
            x = torch.cat([with_hardware(x[:3], rng), x[3:]])
        return processed(augmented(x, rng), rng) if self.augment and rng.random() < 0.5 else x


def augmented(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """What other cameras do to a picture: softness, grey or another white balance, gamma, exposure, offset.

    float[3+n,H,W]: colours in 8-bit units, and maps that only move with them (the classes of the terrain)."""
    x, maps = picture[:3] / 255.0, picture[3:]
    size = x.shape[1:]
    if rng.random() < 0.4:
        factor = rng.uniform(1.3, 2.4)
        h, w = (int(side / factor) // 2 * 2 for side in size)
        x = F.interpolate(x[None, :, :h, :w], size=size, mode="bicubic", align_corners=False)[0]
        maps = F.interpolate(maps[None, :, :h, :w], size=size, mode="nearest")[0] if len(maps) else maps
    balance = rng.uniform(0.65, 1.35, (3, 1, 1))
    x = x.mean(0, keepdim=True).expand(3, -1, -1) if rng.random() < 0.3 else x * torch.from_numpy(balance).float()
    x = x.clamp(0, 1) ** rng.uniform(0.6, 1.6)
    x = x * rng.uniform(0.5, 1.1) + rng.uniform(-0.03, 0.12)
    return torch.cat([(x.clamp(0, 1) * 255).round(), maps])


def processed(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """What a camera's own processing leaves, float[3+n,H,W] as above: colours of half the resolution (Bayer filters, 4:2:0), sharpening, noise."""
    x = picture[:3]
    if rng.random() < 0.35:
        luma = x.mean(0, keepdim=True)
        halved = F.interpolate((x - luma)[None], scale_factor=0.5, mode="area")
        x = luma + F.interpolate(halved, size=x.shape[1:], mode="bilinear")[0]
    if rng.random() < 0.2:
        x = x + float(rng.uniform(0.2, 0.8)) * (x - F.avg_pool2d(x[None], 3, 1, 1, count_include_pad=False)[0])
    if rng.random() < 0.25:
        x = x + float(rng.uniform(0.3, 2.5)) * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    return torch.cat([x.clamp(0, 255).round(), picture[3:]])


def other_camera(picture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A whole picture uint8[H,W,3+n] as another camera might show it: `augmented`, a pure function of picture and number."""
    x = augmented(torch.from_numpy(picture.copy()).permute(2, 0, 1).float(), np.random.default_rng((OTHER_CAMERA_SEED, number)))
    return x.permute(1, 2, 0).numpy().astype(np.uint8)
