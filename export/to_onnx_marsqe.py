"""MarsQE as ONNX graphs: segmenter, encoder of the references, and the enhancement itself with the projection onto the JPEG's quantisation set.

    segmenter   picture float[1,3,H,W] -> logits float[1,4,H/8,W/8]                       H, W multiples of 64
    references  patches float[R,3,128,128], tables float[1,2,64] -> features l1, l2, l3
    enhance     picture float[1,3,H,W], tables float[1,2,64], trust float[1,1,H,W], classes int64[1,H/8,W/8], features of the compressed (c1..c3) and
                raw (r1..r3) references, index int64[P], share float[P] -> pixels float[1,3,H,W]              H, W multiples of 128

Pixels are in 8-bit units and not rounded. `trust` is 1 where the JPEG's tables bind the pixel, and 0 in blocks that the picture's edge cuts.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from export.to_onnx_float import Graph
from remac.marsqe import FEATURES, LEVELS, Enhance, MarsQE
from remac.segmenter import CLASSES
from remac_runtime.enhance.matching import CELL, CLASS_PIXELS

SEGMENTER = Graph(("picture",), ("logits",), {"picture": {2: "height", 3: "width"}, "logits": {2: "height_8", 3: "width_8"}})
REFERENCES = Graph(("patches", "tables"), tuple(f"l{level}" for level in range(1, len(LEVELS) + 1)),
                   {"patches": {0: "references"}, **{f"l{level}": {0: "references"} for level in range(1, len(LEVELS) + 1)}})
ENHANCE = Graph(Enhance.INPUTS, ("pixels",), {
    **{name: {2: "height", 3: "width"} for name in ("picture", "trust", "pixels")}, "classes": {1: "height_8", 2: "width_8"},
    **{name: {0: "references"} for name in FEATURES}, "index": {0: "cells"}, "share": {0: "cells"}})


def example(model: MarsQE, height: int, width: int, references: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of the `enhance` graph of random content: a smooth picture with noise, mixed classes, unequal shares."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)
    smooth = nn.functional.interpolate(uniform(1, 3, height // 16, width // 16) * 200 + 20, scale_factor=16.0, mode="bilinear")
    picture = smooth + 20 * uniform(1, 3, height, width)
    tables = (1 + 40 * uniform(1, 2, 64)).round()
    patches = 255 * uniform(2 * references, 3, CELL, CELL)
    with torch.inference_mode():
        features = model.encode_references(patches, tables.expand(len(patches), -1, -1))
    banks = [f[:references].clone() for f in features] + [f[references:].clone() for f in features]
    classes = (uniform(1, height // CLASS_PIXELS, width // CLASS_PIXELS) * CLASSES).long()
    cells = height // CELL * (width // CELL)
    trust = torch.ones(1, 1, height, width)
    trust[:, :, -8:] = 0
    return picture.round(), tables, trust, classes, *banks, (uniform(cells) * references).long(), (uniform(cells) > 0.3).float()
