"""Semantic matching (MarsQE paper, section IV-A): terrain classes, local binary patterns, the reference nearest by Kullback-Leibler divergence."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL = 128              # S: sides of a patch, pixels
CLASS_PIXELS = 8        # pixels per entry of a class map
CLASS_NAMES = ("sand", "soil", "rock", "sky")
REFERENCES = 6          # N of each class
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))     # bits 0..7 of a pattern
_PATTERNS = 256


@dataclass(frozen=True)
class Dictionary:
    """The raw references of all classes: uint8[4*6,128,128,3], class by class."""

    patches: NDArray[np.uint8]


def cut_dictionary(picture: NDArray[np.uint8]) -> Dictionary:
    """A picture uint8[4*128,6*128,3], a row for each class."""
    cells = picture.reshape(len(CLASS_NAMES), CELL, REFERENCES, CELL, 3).swapaxes(1, 2)
    return Dictionary(np.ascontiguousarray(cells.reshape(-1, CELL, CELL, 3)))


def join_dictionary(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of `cut_dictionary`."""
    cells = patches.reshape(len(CLASS_NAMES), REFERENCES, CELL, CELL, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(len(CLASS_NAMES) * CELL, REFERENCES * CELL, 3))


def texture(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """LBP(P): shares float64[256] of the patterns of a patch uint8[h,w,3] at positions with all neighbours, none of them zero."""
    luma = (patch.astype(np.int32) @ np.array([77, 150, 29], np.int32) + 128) >> 8
    (height, width), centre = luma.shape, luma[1:-1, 1:-1]
    pattern = np.zeros(centre.shape, np.int64)
    for bit, (row, column) in enumerate(_NEIGHBOURS):
        neighbour = luma[1 + row:height - 1 + row, 1 + column:width - 1 + column]
        pattern |= (neighbour >= centre).astype(np.int64) << bit
    counts = np.bincount(pattern.reshape(-1), minlength=_PATTERNS)
    shares: NDArray[np.float64] = (counts + 1) / (centre.size + _PATTERNS)
    return shares


def nearest_reference(references: NDArray[np.float64], patch: NDArray[np.float64]) -> int:
    """Equation (1): the row of float64[N,256] with the least D_KL(reference || patch), the first on a tie."""
    return int(np.argmin((references * np.log(references / patch)).sum(1)))


def cell_classes(classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The most frequent class of each cell, the smallest on a tie: uint8[H/8,W/8] -> int64[H/128,W/128]."""
    side = CELL // CLASS_PIXELS
    rows, columns = classes.shape[0] // side, classes.shape[1] // side
    cells = classes.reshape(rows, side, columns, side)
    counts = np.stack([(cells == kind).sum((1, 3)) for kind in range(len(CLASS_NAMES))])
    common: NDArray[np.int64] = counts.argmax(0)
    return common


def match(pixels: NDArray[np.uint8], classes: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The reference of each cell, int64[H/128,W/128], among the compressed ones uint8[24,128,128,3] of its class."""
    described = np.stack([texture(patch) for patch in references])
    kinds = cell_classes(classes)
    index = np.empty(kinds.shape, np.int64)
    for (row, column), kind in np.ndenumerate(kinds):
        patch = pixels[row * CELL:(row + 1) * CELL, column * CELL:(column + 1) * CELL]
        of_class = described[REFERENCES * kind:REFERENCES * (kind + 1)]
        index[row, column] = REFERENCES * kind + nearest_reference(of_class, texture(patch))
    return index
