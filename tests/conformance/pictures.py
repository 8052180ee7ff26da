"""The pictures of the suite: recipes whose samples are the same on every platform, and their files as binary PGM and PPM."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.terrain import hashed, terrain

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
GENERATED = ("terrain", "noise", "flat")


class SampleMissingError(Exception):
    """A picture of samples/ is not in this checkout."""


@dataclass(frozen=True)
class Recipe:
    """A picture: `source` is terrain, noise, flat, or the name of a PNG in samples/ of which (top, left, height, width) is cut."""

    source: str
    height: int
    width: int
    seed: int = 1
    depth: int = 8
    grey: bool = False
    top: int = 0
    left: int = 0

    def samples(self) -> NDArray[Any]:
        """uint8[H,W,3], uint8[H,W] or uint16[H,W]. Raises SampleMissingError."""
        if self.source == "terrain":
            return terrain(self.height, self.width, self.seed, depth=self.depth, grey=self.grey)
        shape = (self.height, self.width) if self.grey else (self.height, self.width, 3)
        if self.source == "noise":
            values = hashed(np.arange(int(np.prod(shape))), 0, self.seed).reshape(shape) >> 32 - self.depth
            return values.astype(np.uint8 if self.depth == 8 else np.uint16)
        if self.source == "flat":
            return np.full(shape, self.seed, np.uint8 if self.depth == 8 else np.uint16)
        path = SAMPLES / f"{self.source}.png"
        if not path.exists():
            raise SampleMissingError(f"{path} is not in this checkout")
        from PIL import Image

        with Image.open(path) as picture:
            window = np.asarray(picture.convert("RGB"))[self.top:self.top + self.height, self.left:self.left + self.width]
        assert window.shape == shape, f"{self} is not inside {path}"
        return window[..., 1].copy() if self.grey else window.copy()

    @property
    def file_name(self) -> str:
        """Of its PGM or PPM; another recipe has another name."""
        kind = f"grey{self.depth}" if self.grey else "rgb"
        place = f"{self.seed}" if self.source in GENERATED else f"{self.top}_{self.left}"
        return f"{self.source}_{self.width}x{self.height}_{kind}_{place}.{'pgm' if self.grey else 'ppm'}"


def netpbm(samples: NDArray[Any], depth: int) -> bytes:
    """Binary PGM (uint8|uint16[H,W]) or PPM (uint8[H,W,3]); samples of more than 8 bits are two bytes, the high one first, as that format has it."""
    head = f"{'P5' if samples.ndim == 2 else 'P6'}\n{samples.shape[1]} {samples.shape[0]}\n{2 ** depth - 1}\n".encode()
    return head + samples.astype(samples.dtype.newbyteorder(">")).tobytes()
