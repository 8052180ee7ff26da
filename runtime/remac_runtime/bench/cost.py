"""What an encode costs, counted from the shapes of the layers alone: multiply-accumulates, bytes moved, memory. No graph is run, no engine needed."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from remac_runtime.analysis import HALO_ROWS
from remac_runtime.format import BAND_ROWS, PAD_MULTIPLE, PHASES
from remac_runtime.network import HEADS, LAYERS, STRIDE_2, Bank, Network
from remac_runtime.topology import GRAPHS, OUTPUTS

PIXELS_PER_POSITION = {                 # of a layer's outputs (FORMAT 5.3 to 5.5)
    "stem": 64, "body": 64, "reduce": 256, "deep": 256, "head": 256, "hyper_in": 1024, "hyper_out": 4096,
    "side_in": 4096, "side_mid": 4096, "side_out": 1024, **{f"{kind}{p}": 1024 for kind in ("hidden", "mean", "scale") for p in range(len(PHASES))},
}
REFERENCE_POSITIONS = 64                # of the layer `reference`, once a picture (FORMAT 5.4)
STAGES: Mapping[str, tuple[str, ...]] = {
    "analysis g_a": ("stem", "body", "reduce", "deep", "head"), "hyper-analysis h_a": ("hyper_in", "hyper_out"),
    "hyper-synthesis h_s": ("side_in", "side_mid", "side_out"), "reference features": ("reference",),
    **{f"entropy parameters, phase {p}": (f"hidden{p}", f"mean{p}", f"scale{p}") for p in range(len(PHASES))},
}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Shape:
    """A profile without its weights. `layers`: [outputs, kernel, inputs] of each layer of FORMAT 4.2; `table_bytes`: gains, CDF tables and bank."""

    layers: Mapping[str, tuple[int, int, int]]
    table_bytes: int

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(outputs * (kernel ** 2 * inputs + 1) for outputs, kernel, inputs in self.layers.values())

    @property
    def model_bytes(self) -> int:
        """int8 weights and tables."""
        return sum(outputs * kernel ** 2 * inputs for outputs, kernel, inputs in self.layers.values()) + self.table_bytes

    def outputs(self, layer: str) -> int:
        return self.layers[layer][0]


@dataclass(frozen=True)
class LayerCost:
    """Of one layer, per padded pixel: multiply-accumulates, and bytes of its input and output."""

    name: str
    graph: str
    mac: float
    traffic_bytes: float


@dataclass(frozen=True)
class MemoryNeed:
    """Predicted bytes: what the codec keeps loaded, tensors of the graph `analysis` on one strip, of one phase on the bands that are coded together,
    and what the entropy path holds of the whole picture."""

    model_bytes: int
    analysis_bytes: int
    phase_bytes: int
    entropy_bytes: int

    @property
    def arena_bytes(self) -> int:
        """What the allocators keep that ONNX Runtime gives each graph: powers of two."""
        return _grown(self.analysis_bytes) + len(PHASES) * _grown(self.phase_bytes)

    def added_bytes(self, runtime: str) -> int:
        """What a picture adds to a loaded codec: ONNX Runtime keeps arenas, the others give tensors back."""
        return self.entropy_bytes + (self.arena_bytes if runtime == "onnxruntime" else max(self.analysis_bytes, self.phase_bytes))


def _grown(size: int) -> int:
    return 1 << max(size - 1, _BLOCK - 1).bit_length()


def shape_of(network: Network, bank: Bank | None) -> Shape:
    """The shape of a network."""
    arrays: list[NDArray[Any]] = [network.gain, network.inverse_gain, network.scale_offset, network.score]
    arrays += [network.z_tables.cdf, network.y_tables.cdf]
    if bank is not None:
        arrays += [bank.z, bank.planes, bank.texture, bank.semantic]
    sizes = {name: network.layers[name].weight.shape for name in LAYERS}
    return Shape({name: (size[0], size[1], size[3]) for name, size in sizes.items()}, sum(array.nbytes for array in arrays))


def padded_pixels(height: int, width: int) -> int:
    """Pixels of the picture as the network sees it (FORMAT 3)."""
    return math.ceil(height / PAD_MULTIPLE) * math.ceil(width / PAD_MULTIPLE) * PAD_MULTIPLE ** 2


def _graph_of(layer: str) -> str:
    outputs = {name: graph for graph in GRAPHS for name in OUTPUTS[graph]}
    if layer in outputs:
        return outputs[layer]
    if layer.startswith("hidden"):
        return f"phase{layer[-1]}"
    return "side" if layer.startswith("side") else "analysis"


def layer_costs(shape: Shape, height: int, width: int) -> tuple[LayerCost, ...]:
    """Cost of each layer, for a picture of that size."""
    costs = []
    for name, (outputs, kernel, inputs) in shape.layers.items():
        positions = REFERENCE_POSITIONS / padded_pixels(height, width) if name == "reference" else 1 / PIXELS_PER_POSITION[name]
        read, written = inputs * (4 if name in STRIDE_2 else 1) * positions, outputs * (4 if name in HEADS else 1) * positions
        costs.append(LayerCost(name, _graph_of(name), outputs * kernel ** 2 * inputs * positions, read + written))
    return tuple(costs)


def by_stage(costs: tuple[LayerCost, ...]) -> dict[str, float]:
    """Multiply-accumulates per padded pixel of the stages of the README."""
    return {stage: sum(layer.mac for layer in costs if layer.name in members) for stage, members in STAGES.items()}


def memory(shape: Shape, height: int, width: int, strip_rows: int | None = None) -> MemoryNeed:
    """Memory that an encode needs, from the sizes and life times of its tensors. Interpreter and libraries are not in it.

    Analysis, per pixel of the strip: pixels and their space-to-depth, body, deep, the joined input of the head, y as int32. A phase, per pixel of its
    bands: its joined inputs, the hidden layer, mu and scale as int32. Entropy path, per pixel of the picture: y and the copy of it that is cut into
    bands, symbols, indices and planes of four phases; per pixel of the bands: mu, scale and what `quantise` gives.
    """
    m, columns = shape.outputs("head"), math.ceil(width / PAD_MULTIPLE) * PAD_MULTIPLE
    rows = math.ceil(height / PAD_MULTIPLE) * PAD_MULTIPLE
    strip = rows if strip_rows is None else min(rows, math.ceil(strip_rows / PAD_MULTIPLE) * PAD_MULTIPLE + 2 * HALO_ROWS)
    bands = rows if strip_rows is None else min(rows, max(strip_rows // BAND_ROWS, 1) * BAND_ROWS)
    analysis = 3 + shape.outputs("body") / 64 + (shape.outputs("deep") + shape.layers["head"][2] + 4 * m) / 256
    phase, quantised = (shape.layers["hidden1"][2] + shape.outputs("hidden1") + 2 * 4 * m) / 1024, (2 * 4 + 4 + 4) * m / 1024
    kept = 3 + (4 + 4 + 4 + 1 + 1) * m / 256
    return MemoryNeed(shape.model_bytes, int(strip * columns * analysis), int(bands * columns * phase),
                      int(columns * (rows * kept + bands * quantised)))
