"""What every backend has in common: the checks of its inputs and the shift of the heads."""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.arithmetic import requantise
from remac_runtime.errors import RemacError
from remac_runtime.format import PAD_MULTIPLE, PHASES
from remac_runtime.network import Layer, Network
from remac_runtime.topology import INPUTS, OUTPUTS

Array = NDArray[Any]
REFERENCE_SIDE = 8      # latents of a phase along a side of a bank entry (FORMAT 4.3)


class Backend(ABC):
    """An open engine. Use as a context manager, or call close()."""

    name: str
    shifts_heads = False    # whether compute() gives heads with their shift; if not, run() applies it

    def __init__(self, network: Network) -> None:
        self.network = network

    @abstractmethod
    def compute(self, graph: str, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """`topology.run` on checked inputs uint8[n,h,w,c]: fresh arrays [n,h,w,c], uint8, or int32 of the heads (see `shifts_heads`)."""

    def analyse(self, pixels: Array) -> tuple[Array, Array, Array, Array] | None:
        """FORMAT 5.3 of a picture uint8[H,W,3], padded or not, by engines that work strip by strip themselves, in memory that the width bounds.

        y int32[H'/16,W'/16,M], z uint8[H'/64,W'/64,Z] (H', W' are the padded sides), the sums of body and of deep over all positions, int64[C].
        None where the engine has none: then `run` does it.
        """
        return None

    def close(self) -> None:  # noqa: B027  (an engine need not hold anything)
        """Give back what the engine holds. The backend cannot run afterwards."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, graph: str, *inputs: Array) -> tuple[Array, ...]:
        """Run one graph; C-contiguous results, the same from every backend:

        - `analysis`: pixels uint8[H,W,3], H and W multiples of 64 -> y int32[H/16,W/16,M], z uint8[H/64,W/64,Z], body uint8[H/8,W/8,C],
          deep uint8[H/16,W/16,C] (FORMAT 5.3)
        - `side`: z uint8[n,h,w,Z] of n bands of equal height -> uint8[n,2h,2w,S] (FORMAT 5.5)
        - `reference`: planes uint8[4,8,8,M] -> uint8[8,8,R] (FORMAT 5.4)
        - `phase0`: side and reference features uint8[n,h,w,S+R] -> mu int32[n,h,w,M], scale int32[n,h,w,M] (FORMAT 5.5)
        - `phase1`: the same and the first C channels of plane A uint8[n,h,w,C]; `phase2`, `phase3`: the same and those of planes A and B

        Raises RemacError for inputs of another shape or type.
        """
        single = graph == "analysis"        # no batch: FORMAT 5.3 sees the whole picture
        arrays = tuple(np.ascontiguousarray(x[None] if single else x) for x in inputs)
        self._check(graph, arrays)
        layers = [self.network.layers[name] for name in OUTPUTS[graph]]
        outputs = tuple(_finished(layer, x, self.shifts_heads) for layer, x in zip(layers, self.compute(graph, arrays), strict=True))
        return tuple(x[0] for x in outputs) if single or graph == "reference" else outputs

    def _check(self, graph: str, arrays: tuple[Array, ...]) -> None:
        m = self.network.latents
        side = len(self.network.layers["side_out"].bias) + self.network.reference_features
        channels = {"pixels": 3, "z": self.network.hyper, "planes": m, "side": side, "plane_a": self.network.context, "plane_b": self.network.context}
        names = INPUTS.get(graph)
        if names is None or len(arrays) != len(names):
            raise RemacError(f"{graph}: got {len(arrays)} inputs, expected {names or 'one of the graphs ' + ', '.join(INPUTS)}")
        for name, x in zip(names, arrays, strict=True):
            if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != channels[name] or x.size == 0 or x.shape[:3] != arrays[0].shape[:3]:
                raise RemacError(f"{graph}: input {name} is {x.dtype}{list(x.shape)}, expected uint8[n,h,w,{channels[name]}] of one size")
        if graph == "analysis" and any(n % PAD_MULTIPLE for n in arrays[0].shape[1:3]):
            height, width = arrays[0].shape[1:3]
            raise RemacError(f"analysis: {width}x{height} pixels are not multiples of {PAD_MULTIPLE}: pad the picture")
        if graph == "reference" and arrays[0].shape[:3] != (len(PHASES), REFERENCE_SIDE, REFERENCE_SIDE):
            raise RemacError(f"reference: planes are {list(arrays[0].shape)}, expected [{len(PHASES)},{REFERENCE_SIDE},{REFERENCE_SIDE},{m}]")


def _finished(layer: Layer, x: Array, shifted: bool) -> Array:
    """The output of a layer, C-contiguous; heads get their shift (FORMAT 5.2) here, in place, unless the backend `shifted` them."""
    x = np.ascontiguousarray(x)
    if layer.head and not shifted and layer.shift.any():
        requantise(x, layer.shift)
    return x
