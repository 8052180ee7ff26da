"""What the enhancement gets to see of a picture: pixels on the grid of its blocks, and how coarsely they were quantised."""
from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadInput
from remac_runtime.format import SIDE_MAX
from remac_runtime.images import EXIF_ORIENTATION, PILLOW_UNLIMITED, Picture, grey_mean

FREQUENCIES = 64
# Tables K.1 and K.2 of ITU-T T.81, natural order (row * 8 + column): what quality 50 means.
STANDARD_LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99])
STANDARD_CHROMA = np.array([
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *[99] * 32])
# Pillow's transpositions that undo EXIF orientations 2..8, as (transpose, flip rows, flip columns) of the samples.
_UPRIGHT = {2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
            7: (True, True, True), 8: (True, True, False)}


@dataclass(frozen=True)
class Compressed:
    """A picture with the traces of its compression: pixels uint8[H,W,3] (grey repeated), tables float32[2,64] (luma, chroma; row by row).

    `bound`: whether the tables are those of the pixels' luma, so that the JPEG's coefficients bind the result. `orientation`: EXIF, applied last.
    """

    pixels: NDArray[np.uint8]
    tables: NDArray[np.float32]
    grey: bool
    bound: bool
    orientation: int = 1

    def trust(self) -> NDArray[np.float32]:
        """float32[H,W]: 1 where the tables bind, 0 elsewhere and in blocks that the right or lower edge cuts, whose hidden part nobody knows."""
        rows, columns = self.pixels.shape[:2]
        trust = np.zeros((rows, columns), np.float32)
        if self.bound:
            trust[:rows - rows % 8, :columns - columns % 8] = 1
        return trust

    def finished(self, pixels: NDArray[np.uint8]) -> Picture:
        """The picture of enhanced pixels uint8[H,W,3]."""
        samples = grey_mean(pixels) if self.grey else pixels
        return Picture(np.ascontiguousarray(upright(samples, self.orientation)))


def upright(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Samples [H,W] or [H,W,3] turned as an EXIF orientation asks for."""
    transpose, rows, columns = _UPRIGHT.get(orientation, (False, False, False))
    turned = samples.swapaxes(0, 1) if transpose else samples
    return turned[::-1 if rows else 1, ::-1 if columns else 1]


def read_jpeg(data: bytes, max_pixels: int = SIDE_MAX ** 2) -> Compressed:
    """A JPEG file as Pillow decodes it, in the orientation in which it is coded, so that its blocks start in the upper left corner. BadInput.

    One whose header claims more than `max_pixels` is refused before anything is decoded: a few bytes can ask for gigabytes.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise BadInput("reading JPEG needs Pillow: pip install pillow") from None
    if not data:
        raise BadInput("is empty (0 bytes): copy or receive it again")
    try:
        with PILLOW_UNLIMITED, Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if max(image.size) > SIDE_MAX:
                raise BadInput(f"is {image.width}x{image.height} pixels, remac works on up to {SIDE_MAX} a side: cut it into tiles")
            if image.width * image.height > max_pixels:
                raise BadInput(f"is {image.width}x{image.height}, beyond the limit of {max_pixels} pixels: "
                               "raise the limit (max_pixels, --max-pixels) if you trust the picture")
            image.load()
            return _compressed(image)
    except UnidentifiedImageError:
        raise BadInput("is not a JPEG, or its header is damaged: `remac enhance` mends JPEG pictures; streams (.rmc) go through "
                       "`remac decode --enhance`") from None
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise BadInput(f"is truncated or damaged ({(str(error).splitlines() or ['no message'])[0]}): copy or receive it again") from None


def _compressed(image: Any) -> Compressed:
    if image.mode not in {"L", "RGB"}:
        raise BadInput(f"has {image.mode} colours, MarsQE mends RGB and grey pictures: convert it to RGB")
    grey = image.mode == "L"
    used = [layer[3] for layer in image.layer]           # the table of each component
    luma = np.array(image.quantization[used[0]], np.float32)
    chroma = grey_chroma(luma) if grey else np.array(image.quantization[used[1]], np.float32)
    # Adobe's marker with transform 0: the components are red, green and blue, and no table is that of the luma.
    stored_rgb = not grey and (image.info.get("adobe_transform") == 0 or bytes(layer[0] for layer in image.layer) == b"RGB")
    orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
    pixels = np.asarray(image.convert("RGB"))
    return Compressed(pixels, np.stack([luma, chroma]), grey, not stored_rgb, orientation)


def grey_chroma(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """The chroma table that a grey JPEG would have: the standard one, as coarse as its luma table is beside the standard one."""
    table: NDArray[np.float32] = np.clip(np.rint(STANDARD_CHROMA * (luma.sum() / STANDARD_LUMA.sum())), 1, 255).astype(np.float32)
    return table


def nearest_quality(luma: NDArray[np.float32]) -> int:
    """The quality 1..100 of libjpeg's scale whose luma table is nearest to this one, by the mean of the absolute ratios' logarithms."""
    tables = [np.clip((STANDARD_LUMA * scale + 50) // 100, 1, 255) for scale in ((5000 // q if q < 50 else 200 - 2 * q) for q in range(1, 101))]
    distance = [float(np.abs(np.log(np.maximum(luma, 1) / table)).mean()) for table in tables]
    return 1 + int(np.argmin(distance))


def hevc_tables(qp: int) -> NDArray[np.float32]:
    """What stands for tables in HEVC: its step at a QP, the same for all frequencies (ITU-T H.265, 8.6.4), float32[2,64]."""
    return np.full((2, FREQUENCIES), 2.0 ** ((qp - 4) / 6), np.float32)


def stream_tables(quality: int) -> NDArray[np.float32]:
    """What stands for tables in a stream, float32[2,64]: flat, 256 at quality 0 down to 4 at 63; four times that for chroma tells it from HEVC."""
    luma = np.full(FREQUENCIES, 2.0 ** (8 - quality / 10.5), np.float32)
    return np.stack([luma, 4 * luma])


def of_decoded(pixels: NDArray[np.uint8], tables: NDArray[np.float32], grey: bool) -> Compressed:
    """A decoded picture with what stands for its tables; nothing binds the pixels."""
    return Compressed(pixels, tables, grey, False)
