"""Pictures that were interpolated from a Bayer mosaic (FORMAT 3.1): what is coded of them, and how they come back.

A camera with colour filters has one sample a pixel; the two others of a picture are guessed from the neighbours. The plain guess is their mean, for
green that of the two which differ less, as OpenCV's edge-aware conversion takes it. It leaves coloured fringes at the finest scale, which cost a
codec of pictures dearly though they say nothing. So the samples of the mosaic are guessed anew, by linear filters that heed the slope of the other
colours (those of Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned color images", ICASSP 2004, with three
quarters of their correction). What they make is coded, and after decoding the plain guess gives the camera's picture back, but for the choice of the
two for green: decoded samples have errors, so that it is a mean of both pairs where they differ by nearly as much. Integers only, and in the encoder
no multiplication that shifts and additions cannot do.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from remac_runtime.choices import AUTOMATIC, MOSAIC_CHOICES, PATTERNS
from remac_runtime.errors import BadInput
from remac_runtime.format import MOSAIC_SIDE_MIN
from remac_runtime.images import Picture, to_pixels

_TILES, _TILE, _MARGIN = 8, 20, 2       # tiles a side that are looked at, pixels a side of each, and what of it the filters do not reach
_ERROR_MAX = 2.0                        # mean squared error (45 dB) up to which an interpolation counts as the one that made the picture
_TIMES, _BEYOND = 3, 0.5                # ... if that of all others is three times as large, and by half a squared level more
_GREEN_TIMES = 1.5                      # looked at more closely: so much more of an error where green is a camera's own than where it is a mean
LEAN = 16                               # levels; chosen on validation pictures: 12 to 24 are as good

Pixels = NDArray[np.uint8]
Plane = NDArray[np.int32]


class _Sums(NamedTuple):
    """Of some pixels of a mosaic: themselves, the sums of their neighbours at one step, on the diagonals, and at two steps, and by how much the
    neighbours at one step differ."""

    centre: Plane
    left_right: Plane
    up_down: Plane
    diagonal: Plane
    far_left_right: Plane
    far_up_down: Plane
    across: Plane
    along: Plane

    def turned(self) -> _Sums:
        """With rows for columns."""
        return _Sums(self.centre, self.up_down, self.left_right, self.diagonal, self.far_up_down, self.far_left_right, self.along, self.across)


class _Guess(NamedTuple):
    """What the other colours of a pixel are taken for: green at red and blue; the colour left and right of green; blue at red, red at blue."""

    green: Callable[[_Sums], Plane]
    beside: Callable[[_Sums], Plane]
    opposite: Callable[[_Sums], Plane]


def _rounded(sixty_fourths: Plane) -> Plane:
    clipped: Plane = np.clip(sixty_fourths + 32 >> 6, 0, 255)
    return clipped


def _nearer(left_right: Plane, up_down: Plane, across: Plane, along: Plane) -> Plane:
    """The mean of the pair that differs less, of the sums and differences of both."""
    mean: Plane = np.where(across <= along, left_right, up_down) + 1 >> 1
    return mean


def _weighed_green(s: _Sums) -> Plane:
    """LEAN levels more between the one pair than between the other leave the former out."""
    lean = np.clip(s.along - s.across, -LEAN, LEAN)
    weighed: Plane = ((LEAN + lean) * s.left_right + (LEAN - lean) * s.up_down + 2 * LEAN) // (4 * LEAN)
    return weighed


_PLAIN = _Guess(
    green=lambda s: _nearer(s.left_right, s.up_down, s.across, s.along),
    beside=lambda s: s.left_right + 1 >> 1,
    opposite=lambda s: s.diagonal + 2 >> 2)
_RESTORED = _PLAIN._replace(green=_weighed_green)
_SHARP = _Guess(
    green=lambda s: _rounded(24 * s.centre + 16 * (s.left_right + s.up_down) - 6 * (s.far_left_right + s.far_up_down)),
    beside=lambda s: _rounded(30 * s.centre + 32 * s.left_right - 6 * (s.diagonal + s.far_left_right) + 3 * s.far_up_down),
    opposite=lambda s: _rounded(36 * s.centre + 16 * s.diagonal - 9 * (s.far_left_right + s.far_up_down)))


def _mosaic(pixels: Pixels, row: int, column: int) -> Plane:
    """The mosaic of a picture, with red at that row and column of each two."""
    plane: Plane = pixels[..., 1].astype(np.int32)
    plane[row::2, column::2] = pixels[row::2, column::2, 0]
    plane[1 - row::2, 1 - column::2] = pixels[1 - row::2, 1 - column::2, 2]
    return plane


def _guessed(pixels: Pixels, pattern: int, guess: _Guess) -> Pixels:
    """The mosaic of a picture with the other colours as guessed; without a mosaic the picture. Beyond its sides a mosaic is mirrored about its first
    and last pixels, which keeps the colours where they are."""
    if not pattern:
        return pixels
    red_row, red_column = divmod(pattern - 1, 2)
    around, result = np.pad(_mosaic(pixels, red_row, red_column), 2, "reflect"), np.empty_like(pixels)
    rows, columns = pixels.shape[:2]
    for row, column in np.ndindex(2, 2):
        def at(down: int, right: int, row: int = row, column: int = column) -> Plane:
            return around[2 + row + down:2 + rows + down:2, 2 + column + right:2 + columns + right:2]

        s = _Sums(at(0, 0), at(0, -1) + at(0, 1), at(-1, 0) + at(1, 0), at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1), at(0, -2) + at(0, 2),
                  at(-2, 0) + at(2, 0), np.abs(at(0, -1) - at(0, 1)), np.abs(at(-1, 0) - at(1, 0)))
        in_red_row, in_red_column = row == red_row, column == red_column
        if in_red_row == in_red_column:     # a pixel of red or blue
            own, other = (0, 2) if in_red_row else (2, 0)
            planes = {own: s.centre, 1: guess.green(s), other: guess.opposite(s)}
        else:
            along_row, along_column = (0, 2) if in_red_row else (2, 0)
            planes = {along_row: guess.beside(s), 1: s.centre, along_column: guess.beside(s.turned())}
        for channel, plane in planes.items():
            result[row::2, column::2, channel] = plane
    return result


def sharpened(pixels: Pixels, pattern: int) -> Pixels:
    """What is coded of a picture uint8[H,W,3] with one of the PATTERNS: its mosaic, if it has one, interpolated anew. Then its sides are
    MOSAIC_SIDE_MIN or more."""
    return _guessed(pixels, pattern, _SHARP)


def interpolated(pixels: Pixels, pattern: int) -> Pixels:
    """The plain interpolation of the mosaic of uint8[H,W,3], if it has one: what a camera made."""
    return _guessed(pixels, pattern, _PLAIN)


def restored(pixels: Pixels, pattern: int) -> Pixels:
    """What is shown of decoded pixels uint8[H,W,3]: the interpolation of their mosaic, if they have one."""
    return _guessed(pixels, pattern, _RESTORED)


def chosen(samples: NDArray[Any], wish: str) -> int:
    """The pattern of a picture's samples by what an operator wishes for, one of MOSAIC_CHOICES; grey ones of a named pattern are the mosaic itself.
    Raises BadInput."""
    if wish not in MOSAIC_CHOICES:
        raise BadInput(f"mosaic {wish!r} is none of {', '.join(MOSAIC_CHOICES)}")
    if wish == AUTOMATIC:
        return found(samples)
    pattern = PATTERNS.index(wish)
    if pattern and min(samples.shape[:2]) < MOSAIC_SIDE_MIN:
        raise BadInput(f"a picture of {samples.shape[1]}x{samples.shape[0]} has no mosaic {wish}: it takes sides of {MOSAIC_SIDE_MIN} or more")
    if pattern and samples.dtype != np.uint8:
        raise BadInput(f"the samples of a mosaic {wish} have more than 8 bits, remac codes mosaics of 8: compand them as the camera does")
    return pattern


def coloured(picture: Picture, pattern: int) -> Picture:
    """The picture; of the samples of a mosaic, which are grey, their plain interpolation: what a camera would make of them."""
    return Picture(interpolated(to_pixels(picture), pattern)) if pattern and picture.grey else picture


def found(samples: NDArray[Any]) -> int:
    """The pattern that a picture was plainly interpolated from, 0 where it was not, or where that cannot be told. Looks at some tiles only."""
    if samples.ndim != 3 or samples.dtype != np.uint8 or min(samples.shape[:2]) < _TILES * _TILE:
        return 0
    tops, lefts = (np.linspace(0, side - _TILE, _TILES).astype(int) // 2 * 2 for side in samples.shape[:2])
    tiles = np.stack([samples[top:top + _TILE, left:left + _TILE] for top in tops for left in lefts])
    less, more = sorted(_green_errors(tiles[..., 1].astype(np.int32)))
    if more < _GREEN_TIMES * less:       # nearly all pictures end here
        return 0
    column = tiles.reshape(-1, _TILE, 3)
    errors = []
    for pattern in range(1, len(PATTERNS)):
        difference = interpolated(column, pattern).astype(np.int32).reshape(tiles.shape) - tiles
        errors.append(float(np.mean(np.square(difference[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]))))
    best, second = sorted(errors)[:2]
    return errors.index(best) + 1 if best <= _ERROR_MAX and _TIMES * best + _BEYOND <= second else 0


def _green_errors(green: Plane) -> list[float]:
    """How far the green of tiles is from the plain guess, in the mean square: where row and column are both odd or both even, and elsewhere."""
    up, down, left, right = green[:, :-2, 1:-1], green[:, 2:, 1:-1], green[:, 1:-1, :-2], green[:, 1:-1, 2:]
    error = np.square(green[:, 1:-1, 1:-1] - _nearer(left + right, up + down, np.abs(left - right), np.abs(up - down)))
    return [float(np.mean(error[:, 0::2, at::2]) + np.mean(error[:, 1::2, 1 - at::2])) / 2 for at in (0, 1)]
