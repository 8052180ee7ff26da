"""What a ground decoder adds to the samples of a mosaic before the plain interpolation of FORMAT 3.1. Not normative: it comes with the decoder.

Of a mosaic, pixels of three colours are coded that are all made of its samples, one a pixel. So each sample is decoded several times over: as
itself, and in the colours that were guessed from it around it, whose errors are others. Filters read by how much the decoded colours differ from
those that the decoded samples would have been coded as, and take the samples nearer to what they were: linear ones, for some qualities, that are
best in the mean square on training pictures (`python -m calibration.mosaics`). A decoder has them in the metadata of its file.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac_runtime import mosaics
from remac_runtime.errors import BadNetwork

PROPERTY = "mosaic_filters"         # of the metadata of a ground decoder
FILE = "mosaic_filters.json"        # of a weights folder
REACH = 2                           # pixels on each side of the one whose sample is filtered
SIDE = 2 * REACH + 1
SHAPE = (2, 2, SIDE, SIDE, 3)       # place in the mosaic, counted from red's row and column; window; colour
CHANNELS = {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}         # the colour of a sample, by its place
ONE = 1 << 12                       # a weight of 1
WEIGHT_MAX = 8 * ONE
MEND = "find them anew with `python -m calibration.mosaics` and export the decoder, or copy its file again"


@dataclass(frozen=True)
class MosaicFilters:
    """Of a codec (hash in hex), for rising `qualities`, between which they are interpolated: weights float32[qualities,2,2,5,5,3], what is added to a
    sample."""

    codec: str
    qualities: tuple[int, ...]
    weights: NDArray[np.float32]

    @classmethod
    def parsed(cls, text: str, source: str) -> MosaicFilters:
        """Of a text that `text` made, found in `source`. Raises BadNetwork."""
        try:
            content = json.loads(text)
            codec, qualities, weights = content["codec"], content["qualities"], np.array(content["weights"], np.int64)
            fitting = bool(qualities) and sorted(set(qualities)) == qualities and all(type(quality) is int for quality in qualities)
            fitting &= weights.shape == (len(qualities), *SHAPE) and bool((np.abs(weights) <= WEIGHT_MAX).all())
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BadNetwork(f"{source}: not filters for mosaics ({type(error).__name__}: {error}): {MEND}") from None
        if not fitting:
            raise BadNetwork(f"{source}: filters for mosaics of other qualities or sizes than this build knows: {MEND}")
        return cls(str(codec), tuple(qualities), (weights / ONE).astype(np.float32))

    def text(self) -> str:
        """One line of JSON, with weights as integers in units of 1 / ONE."""
        weights = np.rint(self.weights.astype(np.float64) * ONE).astype(int).tolist()
        return json.dumps({"codec": self.codec, "qualities": self.qualities, "weights": weights}, separators=(",", ":"))

    def refined(self, pixels: NDArray[np.uint8], pattern: int, quality: int) -> NDArray[np.uint8]:
        """Decoded pixels uint8[H,W,3] of a picture with one of choices.PATTERNS, with better samples of its mosaic, if it has one. Then its sides are
        MOSAIC_SIDE_MIN or more."""
        if not pattern:
            return pixels
        red_row, red_column = divmod(pattern - 1, 2)
        around = differences(pixels, pattern)
        result, kernels = pixels.copy(), self._at(quality)
        for row, column in np.ndindex(2, 2):
            place = (row ^ red_row, column ^ red_column)
            samples = result[row::2, column::2, CHANNELS[place]]
            total = samples.astype(np.float32)
            for y, x, colour in np.ndindex(SHAPE[2:]):
                total += kernels[*place, y, x, colour] * around[row + y::2, column + x::2, colour][:len(samples), :samples.shape[1]]
            samples[...] = np.rint(total).clip(0, 255)
        return result

    def _at(self, quality: int) -> NDArray[np.float32]:
        """The filters for one quality, float32[2,2,5,5,3]."""
        at = float(np.interp(quality, self.qualities, range(len(self.qualities))))
        low = int(at)
        high = min(low + 1, len(self.qualities) - 1)
        kernels: NDArray[np.float32] = self.weights[low] + np.float32(at - low) * (self.weights[high] - self.weights[low])
        return kernels


def shown(pixels: NDArray[np.uint8], pattern: int, quality: int, filters: MosaicFilters | None) -> NDArray[np.uint8]:
    """What is shown of decoded pixels uint8[H,W,3] with one of choices.PATTERNS: the interpolation of their mosaic, if they have one, bettered by the
    filters, if there are any."""
    return mosaics.restored(filters.refined(pixels, pattern, quality) if filters else pixels, pattern)


def differences(pixels: NDArray[np.uint8], pattern: int) -> NDArray[np.int16]:
    """What filters read of decoded pixels uint8[H,W,3] with one of choices.PATTERNS: these, less what their mosaic would be coded as, with REACH more
    on each side, int16[H+4,W+4,3]."""
    difference = pixels.astype(np.int16) - mosaics.sharpened(pixels, pattern)
    return np.pad(difference, ((REACH, REACH), (REACH, REACH), (0, 0)), "reflect")       # keeps the colours where they are


def read(weights: Path, codec: str) -> MosaicFilters | None:
    """The filters of a weights folder, if it has some, which must be of this codec (hash in hex). Raises BadNetwork."""
    path = weights / FILE
    if not path.exists():
        return None
    filters = MosaicFilters.parsed(path.read_text(encoding="utf-8"), str(path))
    if filters.codec != codec:
        raise BadNetwork(f"{path}: made for codec {filters.codec}, the network is {codec}: find them anew with `python -m calibration.mosaics`")
    return filters
