"""Weights in the order in which the C kernels read them (csrc/kernels.h), for the c99 backend and the flight encoder alike."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import RemacError
from remac_runtime.network import Layer

OUT_BLOCK = 16      # REMAC_OUT_BLOCK of csrc/kernels.h
INPUT_QUAD = 4      # REMAC_INPUT_QUAD


def packed_weight(layer: Layer) -> NDArray[np.int8]:
    """weight int8[out,kernel,kernel,in] -> int8[ceil(out / 16), inputs / 4, 16, 4], inputs = kernel * kernel * in in the order (dy, dx, in).

    Zeros beyond `out`. Raises RemacError where `in` is not a multiple of 4.
    """
    outputs, kernel, _, channels = layer.weight.shape
    if channels % INPUT_QUAD:
        raise RemacError(f"{layer.name}: takes {channels} channels, the C kernels need a multiple of {INPUT_QUAD}: "
                         "choose the onnxruntime or numpy backend")
    blocks, inputs = -(-outputs // OUT_BLOCK), kernel * kernel * channels
    weight = np.zeros((blocks * OUT_BLOCK, inputs), np.int8)
    weight[:outputs] = layer.weight.reshape(outputs, inputs)
    return np.ascontiguousarray(weight.reshape(blocks, OUT_BLOCK, inputs // INPUT_QUAD, INPUT_QUAD).swapaxes(1, 2))
