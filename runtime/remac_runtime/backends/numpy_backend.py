"""The network in NumPy: exact everywhere, no further package.

Matrix products are float32 on integers: every partial sum is below ACCUMULATOR_LIMIT = 2^24 (checked when the network is read), so float32
holds it exactly, in any order of summation.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remac_runtime import topology
from remac_runtime.backends.base import Array, Backend
from remac_runtime.format import ACTIVATION_MAX, LATENT_OFFSET
from remac_runtime.network import Layer, Network

Floats = NDArray[np.float32]
_BLOCK_VALUES = 1 << 19      # values of the largest float32 temporary: 2 MiB, which stays in a cache


@dataclass(frozen=True)
class _Prepared:
    """A layer as float32: weight [k*k*in, out] in the order (dy, dx, in), bias [out], scale 2^-shift [out]."""

    weight: Floats
    bias: Floats
    scale: Floats


class NumpyOps(topology.Ops[Array]):
    """Tensors are uint8[n,h,w,c], accumulators int32."""

    def __init__(self) -> None:
        self._prepared: dict[str, _Prepared] = {}

    def _prepare(self, layer: Layer) -> _Prepared:
        if layer.name not in self._prepared:
            weight = layer.weight.reshape(len(layer.bias), -1).T.astype(np.float32)
            scale = np.ldexp(np.float32(1), -layer.shift.astype(np.int32))
            self._prepared[layer.name] = _Prepared(np.ascontiguousarray(weight), layer.bias.astype(np.float32), scale)
        return self._prepared[layer.name]

    def layer(self, layer: Layer, *inputs: Array) -> Array:
        n, rows, columns = inputs[0].shape[0], inputs[0].shape[1] // layer.stride, inputs[0].shape[2] // layer.stride
        prepared = self._prepare(layer)
        out = np.empty((n, rows, columns, len(layer.bias)), np.int32 if layer.head else np.uint8)
        flat = out.reshape(-1, len(layer.bias))
        blocks = _points(inputs, len(layer.bias)) if layer.weight.shape[1] == 1 else _windows(layer, inputs[0])
        at = 0
        for block in blocks:
            acc = block @ prepared.weight
            acc += prepared.bias
            if not layer.head:
                acc *= prepared.scale           # exact: a power of two
                np.rint(acc, out=acc)           # half to even (FORMAT 5.1)
                np.clip(acc, 0, ACTIVATION_MAX, out=acc)
            flat[at:at + len(acc)] = acc
            at += len(acc)
        return out

    def space_to_depth(self, x: Array, block: int) -> Array:
        n, h, w, c = x.shape
        return x.reshape(n, h // block, block, w // block, block * c).swapaxes(2, 3).reshape(n, h // block, w // block, -1)

    def repeat2x2(self, x: Array) -> Array:
        return x.repeat(2, axis=1).repeat(2, axis=2)

    def neighbour(self, x: Array, rows: int, columns: int) -> Array:
        h, w = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=LATENT_OFFSET)
        return padded[:, 1 + rows:1 + rows + h, 1 + columns:1 + columns + w]

    def join(self, x: Array) -> Array:
        return np.concatenate(list(x), axis=-1)[None]


def _points(inputs: tuple[Array, ...], outputs: int) -> Iterator[Floats]:
    """Inputs of a 1x1 layer, joined along the channels, in blocks float32[positions, in]."""
    flat = [x.reshape(-1, x.shape[3]) for x in inputs]
    step = max(1, _BLOCK_VALUES // max(outputs, sum(x.shape[1] for x in flat)))
    for at in range(0, len(flat[0]), step):
        yield np.concatenate([x[at:at + step] for x in flat], axis=1, dtype=np.float32, casting="unsafe")


def _windows(layer: Layer, x: Array) -> Iterator[Floats]:
    """Windows of a 3x3 layer, zeros outside the tensor (FORMAT 5.2), in blocks float32[positions, (dy, dx, in)] of whole output rows."""
    (n, h, w, c), s = x.shape, layer.stride
    rows, columns, kernel = h // s, w // s, layer.weight.shape[1]
    margin = kernel // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    step = max(1, _BLOCK_VALUES // (columns * kernel * kernel * c))
    for item in range(n):
        for top in range(0, rows, step):
            count = min(step, rows - top)
            block = np.empty((count, columns, kernel, kernel, c), np.float32)
            for dy in range(kernel):
                for dx in range(kernel):
                    block[:, :, dy, dx] = padded[item, s * top + dy:s * (top + count - 1) + dy + 1:s, dx:s * (columns - 1) + dx + 1:s]
            yield block.reshape(count * columns, -1)


class NumpyBackend(Backend):
    """Threads are the business of NumPy's matrix library: OMP_NUM_THREADS, OPENBLAS_NUM_THREADS."""

    name = "numpy"

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._ops = NumpyOps()

    def compute(self, graph: str, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return topology.run(self._ops, self.network, graph, inputs)
