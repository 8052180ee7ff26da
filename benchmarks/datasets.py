"""The evaluation pictures: `test` (18 crops, Curiosity), `frames` (12, Perseverance) and `val` (10 crops, Curiosity).

They belong to NASA and are not part of this checkout; docs/data.md says where they come from.
"""
from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from remac_runtime.mars import DATA_VARIABLE, DataMissing, data_folder

FOLDERS = {"test": "test", "frames": "frames/test", "val": "val"}
EVALUATION_SETS = ("test", "frames")


@dataclass(frozen=True)
class EvalImage:
    """A picture of an evaluation set; `key` names it in the results."""

    set_name: str
    path: Path

    @property
    def key(self) -> str:
        """`set/name`."""
        return f"{self.set_name}/{self.path.stem}"

    def load(self) -> NDArray[np.uint8]:
        """The pixels, uint8[H,W,3]; grey pictures have three equal planes."""
        with Image.open(self.path) as picture:
            return np.asarray(picture.convert("RGB"))


def evaluation_images(option: str | os.PathLike[str] | None = None, sets: tuple[str, ...] = EVALUATION_SETS) -> tuple[EvalImage, ...]:
    """All pictures of the sets, sorted by name within each. Raises DataMissing where a set has none."""
    root = data_folder(option)
    images: list[EvalImage] = []
    for set_name in sets:
        folder = root / FOLDERS[set_name]
        found = sorted(folder.glob("*.png"))
        if not found:
            raise DataMissing(f"no pictures in {folder}: set {DATA_VARIABLE} or --data to the folder that holds {FOLDERS[set_name]}/")
        images += [EvalImage(set_name, path) for path in found]
    return tuple(images)


def pixel_hash(image: NDArray[np.uint8]) -> str:
    """The first 16 hex digits of the SHA-256 of the samples: results of different pictures of one name are not mixed."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]
