"""Kinds of compression that MarsQE mends, and pictures coded beforehand: HEVC and REMAC code whole pictures, not patches.

`python -m benchmarks.enhance_settings --out runs/coded` codes the training pictures; a folder of one kind holds, for each setting,
NUMBER/NAME.png for every picture, NUMBER/NAME.other.png for what `other_camera` makes of it, NUMBER/chart-N.png for drawn charts, and
NUMBER/dictionary.png, the references as they look in it (24 patches, a row per class).
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac.cameras import other_camera
from remac.charts import PICTURES
from remac.config import DEEP
from remac.data import PatchSampler, load_picture
from remac_runtime.enhance.input import hevc_tables, stream_tables
from remac_runtime.enhance.matching import cut_dictionary
from remac_runtime.mars import DataMissing

JPEG, HEVC, REMAC = "jpeg", "hevc", "remac"
SETTINGS = {JPEG: (20, 30, 40, 50), HEVC: (27, 32, 37, 42), REMAC: (4, 12, 20, 28)}     # JPEG quality, HEVC QP, REMAC quality
DECODER = f"{DEEP.name}@{DEEP.version}"        # ground decoder behind which MarsQE learns to mend streams
GRID = 16                       # pixels: patches of coded pictures start where blocks do
DICTIONARY_PICTURE = "dictionary.png"
MADE_BY_FILE = "made_by.json"   # in the folder of a kind: the codec and the ground decoder that made its pictures
Pictures = tuple[NDArray[np.uint8], ...]


def flat_tables(kind: str, number: int) -> NDArray[np.float32]:
    """What stands for the quantisation tables of a codec that has none, float32[2,64]."""
    return {HEVC: hevc_tables, REMAC: stream_tables}[kind](number)


def coded_names(path: Path) -> tuple[str, str]:
    """Files of a training picture as it is, and as another camera might show it."""
    return f"{path.stem}.png", f"{path.stem}.other.png"


def chart_name(number: int) -> str:
    """File of one of the `chart_pictures`."""
    return f"chart-{number}.png"


@dataclass(frozen=True)
class CodedPictures:
    """The training pictures in one setting, as they are and as of another camera: uint8[H,W,3] each; their mean squared error; the charts
    likewise; and the coded references uint8[24,128,128,3]."""

    tables: NDArray[np.float32]
    cameras: tuple[Pictures, Pictures]
    error: float
    charts: Pictures
    dictionary: NDArray[np.uint8]


def of_other_camera(raw: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The training pictures uint8[H,W,3+n] as of another camera, in the order of their paths."""
    return [other_camera(picture, i) for i, picture in enumerate(raw)]


def load_coded(folder: Path, numbers: tuple[int, ...], paths: list[Path], raw: tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]],
               least: int) -> list[CodedPictures]:
    """Settings of a kind for the pictures at `paths`, whose raw pixels uint8[H,W,3+], as they are and of the other camera, are given
    (sides at least `least`). Raises DataMissing."""
    kind = folder.name
    if kind not in (HEVC, REMAC) or not folder.is_dir():
        raise DataMissing(f"no pictures coded by {' or '.join((HEVC, REMAC))} at {folder}: `python -m benchmarks.enhance_settings` makes them")
    found = []
    for number in numbers:
        files = [[folder / str(number) / name for name in names] for names in zip(*map(coded_names, paths), strict=True)]
        files.append([folder / str(number) / chart_name(n) for n in range(PICTURES)])
        missing = [file for camera in files for file in camera if not file.exists()]
        if missing:
            raise DataMissing(f"{folder / str(number)} lacks {missing[0].name} and {len(missing) - 1} more: run benchmarks.enhance_settings again")
        own, other, charts = (tuple(PatchSampler.at_least(load_picture(file), least) for file in camera) for camera in files)
        squares = [np.square(a[..., :3].astype(np.float32) - b).sum(dtype=np.float64) for a, b in zip(raw[0], own, strict=True)]
        dictionary = cut_dictionary(load_picture(folder / str(number) / DICTIONARY_PICTURE)).patches
        found.append(CodedPictures(flat_tables(kind, number), (own, other), float(sum(squares)) / sum(p.size for p in own), charts, dictionary))
    return found
