"""The network in the C extension (csrc/kernels.h): integers throughout, no further package.

The kernels are chosen at run time among those compiled in: the fastest that the processor has, or the one that REMAC_KERNEL names.
"""
from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from remac_runtime import native, topology
from remac_runtime.backends.base import Array, Backend
from remac_runtime.errors import RemacError
from remac_runtime.format import LATENT_STRIDE, PAD_MULTIPLE
from remac_runtime.network import Layer, Network
from remac_runtime.packing import INPUT_QUAD, packed_weight

KERNEL_VARIABLE = "REMAC_KERNEL"
KERNELS = ("best", "portable", "sse41", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod")      # REMAC_PATH_... of csrc/kernels.h, by number
FAST_KERNELS = ("avx512vnni",)      # measured faster than ONNX Runtime with the same instructions
RUN_POSITIONS = 128                 # REMAC_RUN_POSITIONS of csrc/layers.h
ANALYSIS_LAYERS = ("stem", "body", "reduce", "deep", "head", "hyper_in", "hyper_out")       # in the order of csrc/analysis.h


@dataclass(frozen=True)
class View:
    """A tensor uint8[n,h,w,c], or int32 of a head, as the next layer looks at it: after space-to-depth `block`, or at (row + rows, column + columns)
    with LATENT_OFFSET outside. At most one of the two; the kernels read through either, nothing is copied."""

    data: Array
    block: int = 1
    rows: int = 0
    columns: int = 0

    def size(self) -> tuple[int, int, int]:
        """(items, rows, columns) of the view."""
        n, h, w = self.data.shape[:3]
        return n, h // self.block, w // self.block

    def numbers(self) -> tuple[int, int, int, int]:
        """As csrc/module_layers.c wants them."""
        return self.data.shape[3], self.block, self.rows + 1, self.columns + 1


@dataclass(frozen=True)
class _Prepared:
    """A layer in the order of the kernels: weight int8[blocks,inputs/4,16,4], bias int32[out], shift int8[out]."""

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.int8]

    def parts(self) -> tuple[Array, Array, Array]:
        return self.weight, self.bias, self.shift


def _prepared(layer: Layer) -> _Prepared:
    return _Prepared(packed_weight(layer), np.ascontiguousarray(layer.bias, np.int32), np.ascontiguousarray(layer.shift, np.int8))


class _Loan:
    """What an array of a `Memory` rests on: with the last view of it gone, the bytes go back."""

    def __init__(self, free: deque[Array], data: Array) -> None:
        self._free, self._data = free, data
        self.__array_interface__ = data.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._data)


class Memory:
    """Fresh arrays in memory that earlier ones have left. The system zeroes what it gives anew, which would take a tenth of an encoder's time.

    Threads may share it. At most KEPT blocks wait for their next use.
    """

    KEPT = 16
    SMALL_BYTES = 1 << 17       # arrays below it need no pages from the system

    def __init__(self) -> None:
        self._free: deque[Array] = deque(maxlen=self.KEPT)

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        if wanted < self.SMALL_BYTES:
            return np.empty(shape, dtype)
        return np.asarray(_Loan(self._free, self._block(wanted)))[:wanted].view(dtype).reshape(shape)

    def _block(self, wanted: int) -> Array:
        """At least `wanted` bytes."""
        for _ in range(len(self._free)):
            try:
                data = self._free.popleft()
            except IndexError:      # another thread was faster
                break
            if wanted <= data.nbytes <= 2 * wanted:
                return data
            self._free.append(data)
        return np.empty(wanted, np.uint8)


class NativeOps(topology.Ops[View]):
    """`path` is the number of a kernel. Rows are shared out over `threads`. Heads give their output, shift included."""

    def __init__(self, network: Network, library: native.Native, path: int, threads: int) -> None:
        self._library, self._path, self._threads, self._memory = library, path, threads, Memory()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._prepared = {name: _prepared(layer) for name, layer in network.layers.items()}

    def analysis(self, network: Network, pixels: Array) -> tuple[Array, Array, Array, Array]:
        """`Backend.analyse` in the strip pipeline of csrc/analysis.h."""
        height, width = pixels.shape[:2]
        layers, rows, columns = network.layers, -(-height // PAD_MULTIPLE), -(-width // PAD_MULTIPLE)
        channels = {name: len(layers[name].bias) for name in ANALYSIS_LAYERS}
        y = self._memory.empty((4 * rows, 4 * columns, channels["head"]), np.int32)
        z = np.empty((rows, columns, channels["hyper_out"]), np.uint8)
        texture, semantic = np.empty(channels["body"], np.uint32), np.empty(channels["deep"], np.uint32)
        rings = self._memory.empty((_analysis_bytes(channels, PAD_MULTIPLE * columns),), np.uint8)
        prepared = [part for name in ANALYSIS_LAYERS for part in self._prepared[name].parts()]
        self._library.analyse(rings, pixels, y, z, texture, semantic, *prepared, height, width, self._path)
        return y, z, texture.astype(np.int64), semantic.astype(np.int64)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def layer(self, layer: Layer, *inputs: View) -> View:
        n, h, w = inputs[0].size()
        rows, columns, kernel = h // layer.stride, w // layer.stride, layer.weight.shape[1]
        out = self._memory.empty((n, rows, columns, len(layer.bias)), np.int32 if layer.head else np.uint8)
        prepared = self._prepared[layer.name]
        parts = min(self._threads, n * rows)

        def run(part: int) -> None:
            first, last = part * n * rows // parts, (part + 1) * n * rows // parts
            numbers = [self._path, layer.head, kernel, layer.stride, n, rows, columns, first, last]
            for view in inputs:
                numbers += view.numbers()
            scratch = np.empty(_scratch_bytes(inputs, kernel), np.uint8)
            self._library.layer(*prepared.parts(), np.array(numbers, np.uint32), scratch, out, *(v.data for v in inputs))

        if self._pool is None:
            run(0)
        else:
            list(self._pool.map(run, range(parts)))
        return View(out)

    def space_to_depth(self, x: View, block: int) -> View:
        return replace(x, block=block)

    def repeat2x2(self, x: View) -> View:
        return View(x.data.repeat(2, axis=1).repeat(2, axis=2))

    def neighbour(self, x: View, rows: int, columns: int) -> View:
        return replace(x, rows=rows, columns=columns)

    def join(self, x: View) -> View:
        return View(np.concatenate(list(x.data), axis=-1)[None])


def _scratch_bytes(inputs: Sequence[View], kernel: int) -> int:
    """At least remac_layer_scratch of csrc/layers.h: three input rows with margins, or rows of every neighbour."""
    columns = inputs[0].size()[2]
    channels: list[int] = [view.data.shape[3] for view in inputs]
    if kernel == 3:
        return 3 * (columns + 2) * channels[0]
    return max(RUN_POSITIONS, columns) * sum(count for view, count in zip(inputs, channels, strict=True) if view.rows or view.columns)


def _analysis_bytes(channels: Mapping[str, int], width: int) -> int:
    """remac_analysis_bytes of csrc/analysis.h: rings of pixels, stem, body, reduce, deep and hyper_in, and a row of zeros."""
    stem, body, reduce = ((width // stride + 2) * channels[name] for name, stride in (("stem", 8), ("body", 8), ("reduce", 16)))
    flat = 3 * LATENT_STRIDE * 3 * width + width // 16 * channels["deep"] * 2 + width // 32 * channels["hyper_in"] * 2
    return flat + 4 * (stem + body + reduce) + max(stem, body, reduce)


def kernel_number(library: native.Native, wanted: str) -> int:
    """The number of one of KERNELS. Raises RemacError where it is unknown or does not work here."""
    usable = [name for number, name in enumerate(KERNELS) if name == "best" or library.path_usable(number)]
    if wanted not in usable:
        raise RemacError(f"the c99 backend has no kernel {wanted!r} here: set {KERNEL_VARIABLE} to one of {', '.join(usable)}, or unset it")
    return library.path_best() if wanted == "best" else KERNELS.index(wanted)


def best_kernel(network: Network) -> str | None:
    """The kernel that this processor would run `network` with; None without the extension or where the kernels cannot take the network."""
    if native.library is None or any(layer.weight.shape[3] % INPUT_QUAD for layer in network.layers.values()):
        return None
    return os.environ.get(KERNEL_VARIABLE) or KERNELS[native.library.path_best()]


class C99Backend(Backend):
    """`kernel` is one of KERNELS; None asks REMAC_KERNEL. Raises RemacError without the extension, or for a network that the kernels cannot take."""

    name = "c99"
    shifts_heads = True

    def __init__(self, network: Network, threads: int = 1, kernel: str | None = None) -> None:
        super().__init__(network)
        if native.library is None:
            raise RemacError("the c99 backend needs the C extension: install a C compiler, then remac-runtime again (and leave REMAC_NATIVE unset), "
                             "or choose the onnxruntime or numpy backend")
        path = kernel_number(native.library, kernel or os.environ.get(KERNEL_VARIABLE) or "best")
        self.kernel, self._threads = KERNELS[path], threads
        self._ops = NativeOps(network, native.library, path, threads)

    def compute(self, graph: str, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(view.data for view in topology.run(self._ops, self.network, graph, [View(x) for x in inputs]))

    def analyse(self, pixels: Array) -> tuple[Array, Array, Array, Array] | None:
        """One thread works strip by strip; several share the rows of a layer out, in `run`."""
        return self._ops.analysis(self.network, np.ascontiguousarray(pixels)) if self._threads == 1 else None

    def close(self) -> None:
        self._ops.close()
