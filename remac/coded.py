"""Kinds of compression that MarsQE mends, and pictures coded beforehand: HEVC and REMAC code whole pictures, not patches.

`python -m benchmarks.enhance_settings --out runs/coded` codes the training pictures; a folder of one kind holds, for each setting,
NUMBER/NAME.png for every picture and NUMBER/dictionary.png, the references as they look in it (24 patches, a row per class).
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac.data import DataMissing, PatchSampler, load_picture
from remac_runtime.enhance.input import hevc_tables, stream_tables
from remac_runtime.enhance.matching import cut_dictionary

JPEG, HEVC, REMAC = "jpeg", "hevc", "remac"
SETTINGS = {JPEG: (20, 30, 40, 50), HEVC: (27, 32, 37, 42), REMAC: (4, 12, 20, 28)}     # JPEG quality, HEVC QP, REMAC quality
GRID = 16                       # pixels: patches of coded pictures start where blocks do
DICTIONARY_PICTURE = "dictionary.png"


def flat_tables(kind: str, number: int) -> NDArray[np.float32]:
    """What stands for the quantisation tables of a codec that has none, float32[2,64]."""
    return {HEVC: hevc_tables, REMAC: stream_tables}[kind](number)


@dataclass(frozen=True)
class CodedPictures:
    """The training pictures in one setting: uint8[H,W,3] each, the mean squared error over them, and the coded references uint8[24,128,128,3]."""

    tables: NDArray[np.float32]
    pictures: tuple[NDArray[np.uint8], ...]
    error: float
    dictionary: NDArray[np.uint8]


def load_coded(folder: Path, paths: list[Path], raw: list[NDArray[np.uint8]], least: int) -> list[CodedPictures]:
    """All settings of a kind for the pictures at `paths`, whose raw pixels uint8[H,W,3+] are given (sides at least `least`). Raises DataMissing."""
    kind = folder.name
    if kind not in (HEVC, REMAC) or not folder.is_dir():
        raise DataMissing(f"no pictures coded by {' or '.join((HEVC, REMAC))} at {folder}: `python -m benchmarks.enhance_settings` makes them")
    found = []
    for number in SETTINGS[kind]:
        missing = [path.stem for path in paths if not (folder / str(number) / f"{path.stem}.png").exists()]
        if missing:
            raise DataMissing(f"{folder / str(number)} lacks {len(missing)} pictures, such as {missing[0]}: run benchmarks.enhance_settings again")
        pictures = tuple(PatchSampler.at_least(load_picture(folder / str(number) / f"{path.stem}.png"), least) for path in paths)
        squares = [np.square(a[..., :3].astype(np.float32) - b).sum(dtype=np.float64) for a, b in zip(raw, pictures, strict=True)]
        dictionary = cut_dictionary(load_picture(folder / str(number) / DICTIONARY_PICTURE)).patches
        found.append(CodedPictures(flat_tables(kind, number), pictures, float(sum(squares)) / sum(p.size for p in pictures), dictionary))
    return found
