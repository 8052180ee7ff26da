"""Patches for MarsQE and its baselines: raw and JPEG-compressed, with class map and matched reference, drawn by (seed, step) as in `remac.data`."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remac.cameras import to_tensor
from remac.charts import chart, chart_pictures
from remac.coded import GRID, JPEG, SETTINGS, load_coded, of_other_camera
from remac.data import PatchSampler
from remac.matching import jpeg, jpeg_with_tables, match
from remac.segmenter import Segmenter, cell_classes, class_map
from remac_runtime.enhance.matching import CELL, CLASS_PIXELS, texture

CODED_SHARE = 0.5                  # of the patches are of pictures coded beforehand, where there are any
CHART_SHARE = 0.06                 # of the patches are drawn charts
OTHER_SHARE = 0.1                  # of the patches are coded at any quality of OTHER_RANGE instead
OTHER_RANGE = (10, 70)
TYPICAL_MSE = {20: 79.0, 30: 60.0, 40: 50.0, 50: 43.0}       # of JPEG on the training patches
OWN_SHARE = 0.75                   # of a patch's own error in what its loss is divided by, the rest is what its setting's patches typically have


@dataclass(frozen=True)
class Batch:
    """float[B,3,128,128] raw and compressed in 8-bit units, tables float[B,2,64], classes int64[B,16,16], loss weights float[B],
    the matched raw and compressed references float[B,3,128,128] (None where they were not asked for)."""

    raw: Tensor
    compressed: Tensor
    tables: Tensor
    classes: Tensor
    weight: Tensor
    references: tuple[Tensor, Tensor] | None

    def to(self, device: str) -> Batch:
        moved = [t.to(device) for t in (self.raw, self.compressed, self.tables, self.classes, self.weight)]
        pair = None if self.references is None else (self.references[0].to(device), self.references[1].to(device))
        return Batch(moved[0], moved[1], moved[2], moved[3], moved[4], pair)


class Dictionary:
    """The raw references, and for every set of tables the compressed ones with their descriptors."""

    def __init__(self, patches: NDArray[np.uint8]) -> None:
        self.patches = patches
        self._coded: dict[bytes, tuple[NDArray[np.uint8], NDArray[np.float64]]] = {}

    def compressed(self, tables: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """uint8[24,128,128,3] and LBP histograms float[24,256]."""
        key = tables.tobytes()
        if key not in self._coded:
            self.add(tables, np.stack([jpeg_with_tables(patch, tables) for patch in self.patches]))
        return self._coded[key]

    def add(self, tables: NDArray[np.float32], coded: NDArray[np.uint8]) -> None:
        """Keep the references uint8[24,128,128,3] as another codec shows them; `tables` stand for its setting."""
        self._coded[tables.tobytes()] = coded, np.stack([texture(patch) for patch in coded])

    def matched(self, compressed: NDArray[np.uint8], tables: NDArray[np.float32], kind: int) -> tuple[Tensor, Tensor]:
        """Equation (1): the raw and the compressed reference of a patch, float[3,128,128] each."""
        coded, descriptors = self.compressed(tables)
        n = match(descriptors, texture(compressed), kind)
        return to_tensor(self.patches[n]), to_tensor(coded[n])


def with_classes(picture: NDArray[np.uint8], model: Segmenter) -> NDArray[np.uint8]:
    """The class of every pixel as a fourth plane, uint8[H,W,4]."""
    classes = class_map(model, to_tensor(picture)).numpy().astype(np.uint8)
    full = classes.repeat(CLASS_PIXELS, 0).repeat(CLASS_PIXELS, 1)[:picture.shape[0], :picture.shape[1]]
    return np.dstack([picture, full])


@dataclass(frozen=True)
class Narrowed:
    """What training can be narrowed to: JPEG `qualities` (none: all of the settings, and others), and the pictures as their own camera took them
    for the share `own_camera` of the patches (the others may be of any camera)."""

    qualities: tuple[int, ...] = ()
    own_camera: float = 0.0


EVERYTHING = Narrowed()


class CompressedPatches(PatchSampler):
    """Patches of the training pictures with everything that MarsQE needs of them; half of them as of another camera, or the colours of cameras
    never seen would be drawn to those of the training pictures."""

    sensor_share = 0.1

    def __init__(self, paths: list[Path], seed: int, dictionary: Dictionary | None = None, segmenter: Segmenter | None = None,
                 coded: tuple[Path, ...] = (), coded_share: float = CODED_SHARE, only: Narrowed = EVERYTHING) -> None:
        super().__init__(paths, CELL, seed)
        self.only = only
        if segmenter is not None:
            self.pictures = [with_classes(picture, segmenter) for picture in self.pictures]
        self.dictionary, self.coded_share = dictionary, coded_share if coded else 0.0
        self.cameras = (self.pictures, of_other_camera(self.pictures) if coded else [])
        self.charts = chart_pictures(CELL) if coded else []
        self.coded = [setting for folder in coded for setting in load_coded(folder, SETTINGS.get(folder.name, ()), paths, self.cameras, self.least)]
        for setting in self.coded:
            if dictionary is not None:
                dictionary.add(setting.tables, setting.dictionary)

    def compressed_batch(self, count: int, step: int, references: bool, rank: int = 0) -> Batch:
        """A pure function of (seed, step, rank)."""
        rng = np.random.default_rng((self.seed, step, rank))
        items, pairs = zip(*(self._compressed(rng, references and self.dictionary is not None) for _ in range(count)), strict=True)
        raw, compressed, tables, classes, weight = (torch.stack(parts) for parts in zip(*items, strict=True))
        chosen = (torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])) if pairs[0] else None
        return Batch(raw, compressed, tables, classes, weight, chosen)

    def _compressed(self, rng: np.random.Generator, references: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor] | None]:
        of_own_camera = rng.random() < self.only.own_camera
        patch_of = self._beforehand if rng.random() < self.coded_share else self._jpeg
        crop, coded, tables, typical = patch_of(rng, of_own_camera)
        half = CLASS_PIXELS // 2
        classes = torch.from_numpy(crop[half::CLASS_PIXELS, half::CLASS_PIXELS, -1].astype(np.int64)) if crop.shape[2] == 4 else \
            torch.zeros(CELL // CLASS_PIXELS, CELL // CLASS_PIXELS, dtype=torch.int64)
        pair = None
        if references:
            assert self.dictionary is not None
            pair = self.dictionary.matched(coded, tables, int(cell_classes(classes[None])))
        raw, compressed = to_tensor(crop[..., :3]), to_tensor(coded)
        own = float((compressed - raw).square().mean())
        weight = torch.tensor(1.0 / (OWN_SHARE * own + (1 - OWN_SHARE) * typical))      # gains in PSNR are averaged: calm patches count as busy ones
        return (raw, compressed, torch.from_numpy(tables), classes, weight), pair

    def _jpeg(self, rng: np.random.Generator, own: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], float]:
        """A raw patch with its classes, the patch in JPEG, its tables, and a typical error."""
        crop = self._untouched(rng) if own else self._one(rng)[0]
        if not own and rng.random() < CHART_SHARE:
            crop = torch.cat([chart(CELL, rng), crop[3:]])
        pixels = crop.permute(1, 2, 0).numpy().astype(np.uint8)
        other = not self.only.qualities and rng.random() < OTHER_SHARE
        quality = int(rng.integers(*OTHER_RANGE)) if other else int(rng.choice(self.only.qualities or SETTINGS[JPEG]))
        coded, tables = jpeg(np.ascontiguousarray(pixels[..., :3]), quality)
        return pixels, coded, tables, TYPICAL_MSE[min(TYPICAL_MSE, key=lambda q: abs(q - quality))]

    def _beforehand(self, rng: np.random.Generator, own: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], float]:
        """The same of a picture coded beforehand."""
        setting, camera = self.coded[rng.integers(len(self.coded))], 0 if own else int(rng.integers(2))
        chosen, crop = self.place(rng, GRID)
        if own or rng.random() >= CHART_SHARE:
            return crop(self.cameras[camera][chosen]), crop(setting.cameras[camera][chosen]), setting.tables, setting.error
        number = int(rng.integers(len(self.charts)))
        top, left = self.corner(self.charts[number], rng, GRID, CELL)
        raw, coded = (picture[number][top:top + CELL, left:left + CELL] for picture in (self.charts, setting.charts))
        pixels = np.dstack([raw, crop(self.pictures[chosen])[..., 3:]])
        return pixels, coded, setting.tables, setting.error
