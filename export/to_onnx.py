"""The integer network as ONNX graphs of integer operators that give the same integers in every runtime.

A uint8 layer is a QLinearConv whose scales are powers of two, so that its requantisation is FORMAT 5.1; a head is a MatMulInteger and an Add
of the bias and gives the raw accumulator, whose shift the runtime applies (`backends.base`). The data flow is `remac_runtime.topology`'s, run
here with an `Ops` that emits nodes. Inputs and outputs are channels-last, as in `Backend.run` but always with four dimensions. onnx_checks.py
asserts the rules on the files.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from remac_runtime import topology
from remac_runtime.files import write_atomically
from remac_runtime.format import LATENT_OFFSET, PHASES
from remac_runtime.network import Layer, Network

OPSET = 17          # read by every runtime the boards have, TensorRT's parsers included
IR_VERSION = 8
HASH_PROPERTY = "codec_hash"
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
_REFERENCE_SIDE = 8
_ENDLESS = 1 << 30  # end of a Slice that goes to the last position


@dataclass(frozen=True)
class Value:
    """A tensor [n,h,w,c] of the graph."""

    name: str
    channels: int


class NodeOps(topology.Ops[Value]):
    """Emits nodes. Convolutions are channels-first in ONNX; a runtime cancels the transposes between them and picks its own layout."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}
        self.layers: dict[str, Value] = {}               # output of each layer
        self._channels_first: dict[str, str] = {}        # name of the tensor [n,c,h,w] that equals a tensor [n,h,w,c]

    def _emit(self, kind: str, inputs: Sequence[str], output: str = "", name: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name or f"{kind.lower()}_{len(self.nodes)}", **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.initialisers:
            self.initialisers[name] = numpy_helper.from_array(np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value), name)
        return name

    def _integers(self, *values: int) -> str:
        return self._constant("int64_" + "_".join(str(v).replace("-", "m") for v in values), np.array(values, np.int64))

    def _first(self, x: Value) -> str:
        if x.name not in self._channels_first:
            self._channels_first[x.name] = self._emit("Transpose", [x.name], perm=TO_CHANNELS_FIRST)
        return self._channels_first[x.name]

    def _last(self, channels_first: str, output: str, channels: int) -> Value:
        name = self._emit("Transpose", [channels_first], output, perm=TO_CHANNELS_LAST)
        self._channels_first[name] = channels_first
        return Value(name, channels)

    def layer(self, layer: Layer, *inputs: Value) -> Value:
        x = inputs[0] if len(inputs) == 1 else Value(self._emit("Concat", [x.name for x in inputs], axis=3), sum(x.channels for x in inputs))
        bias = self._constant(f"{layer.name}.bias", layer.bias)
        self.layers[layer.name] = value = self._head(layer, x, bias) if layer.head else self._convolution(layer, x, bias)
        return value

    def _head(self, layer: Layer, x: Value, bias: str) -> Value:
        weight = self._constant(f"{layer.name}.weight", layer.weight[:, 0, 0, :].T)
        product = self._emit("MatMulInteger", [x.name, weight], f"{layer.name}.product", layer.name)
        return Value(self._emit("Add", [product, bias], layer.name, f"{layer.name}.add"), len(layer.bias))

    def _convolution(self, layer: Layer, x: Value, bias: str) -> Value:
        outputs, kernel = layer.weight.shape[:2]
        weight = self._constant(f"{layer.name}.weight", layer.weight.transpose(0, 3, 1, 2))
        scale = self._constant(f"{layer.name}.scale", np.ldexp(np.float32(1), -layer.shift.astype(np.int32)))
        one, zero = self._constant("one", np.float32(1)), self._constant("zero", np.uint8(0))
        zeros = self._constant(f"zeros_{outputs}", np.zeros(outputs, np.int8))
        inputs = [self._first(x), one, zero, weight, scale, zeros, one, zero, bias]
        output = self._emit("QLinearConv", inputs, f"{layer.name}.channels_first", layer.name,
                            kernel_shape=[kernel] * 2, strides=[layer.stride] * 2, pads=[kernel // 2] * 4)
        return self._last(output, layer.name, outputs)

    def space_to_depth(self, x: Value, block: int) -> Value:
        # Two Reshapes in place of one: 0 copies the dimension at the same place and -1 infers one, so no shape is computed at run time.
        run = block * x.channels
        name = self._emit("Reshape", [x.name, self._integers(0, 0, 1, -1, run)])                 # [n, h, 1, w / block, run]
        name = self._emit("Reshape", [name, self._integers(0, -1, block, 0, run)])               # [n, h / block, block, w / block, run]
        name = self._emit("Transpose", [name], perm=[0, 1, 3, 2, 4])
        return Value(self._emit("Reshape", [name, self._integers(0, 0, 0, block * run)]), block * run)

    def repeat2x2(self, x: Value) -> Value:
        scales = self._constant("twice", np.array([1, 1, 2, 2], np.float32))
        name = self._emit("Resize", [self._first(x), "", scales], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        return self._last(name, "", x.channels)

    def neighbour(self, x: Value, rows: int, columns: int) -> Value:
        if not (rows or columns):
            return x
        pads = self._integers(0, max(-rows, 0), max(-columns, 0), 0, 0, max(rows, 0), max(columns, 0), 0)
        padded = self._emit("Pad", [x.name, pads, self._constant("latent_offset", np.uint8(LATENT_OFFSET))], mode="constant")
        starts, ends = ((max(d, 0) for d in (rows, columns)), (d if d < 0 else _ENDLESS for d in (rows, columns)))
        return Value(self._emit("Slice", [padded, self._integers(*starts), self._integers(*ends), self._integers(1, 2)]), x.channels)

    def join(self, x: Value) -> Value:
        channels = len(PHASES) * x.channels
        moved = self._emit("Transpose", [x.name], perm=[1, 2, 0, 3])
        return Value(self._emit("Reshape", [moved, self._integers(1, _REFERENCE_SIDE, _REFERENCE_SIDE, channels)]), channels)


_DIMENSIONS: dict[str, tuple[str | int, ...]] = {     # of inputs and layers; others are ("n", "rows", "columns")
    "planes": (len(PHASES), _REFERENCE_SIDE, _REFERENCE_SIDE), "reference": (1, _REFERENCE_SIDE, _REFERENCE_SIDE),
    "pixels": (1, "height", "width"), **dict.fromkeys(("stem", "body"), (1, "height_8", "width_8")),
    **dict.fromkeys(("reduce", "deep", "head"), (1, "height_16", "width_16")),
    "hyper_in": (1, "height_32", "width_32"), "hyper_out": (1, "height_64", "width_64"), "side_out": ("n", "rows_2", "columns_2"),
}


def _info(name: str, channels: int, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [*_DIMENSIONS.get(name, ("n", "rows", "columns")), channels])


def build(network: Network, graph: str, *, every_layer: bool = False, simplify: bool = True) -> onnx.ModelProto:
    """One of topology.GRAPHS. `every_layer` adds the outputs of all layers to those of the graph, to compare them with the reference."""
    ops = NodeOps()
    m = network.latents
    channels = {"pixels": 3, "z": network.hyper, "plane_a": network.context, "plane_b": network.context,
                "side": len(network.layers["side_out"].bias) + network.reference_features}
    inputs = [Value(name, channels.get(name, m)) for name in topology.INPUTS[graph]]
    outputs = list(topology.run(ops, network, graph, inputs))
    if every_layer:
        outputs += [value for value in ops.layers.values() if value not in outputs]
    kinds = {True: TensorProto.INT32, False: TensorProto.UINT8}
    proto = helper.make_graph(ops.nodes, graph, [_info(v.name, v.channels, TensorProto.UINT8) for v in inputs],
                              [_info(v.name, v.channels, kinds[network.layers[v.name].head]) for v in outputs], list(ops.initialisers.values()))
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="remac")
    if simplify:
        model = _simplified(model)
    helper.set_model_props(model, {"profile": network.profile, HASH_PROPERTY: network.hash.hex()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without dead nodes; names of the dimensions as they were. onnxsim compares nothing here: layer_checks.py compares the files that come of it."""
    import onnxsim
    simple, _ = onnxsim.simplify(model)
    del simple.graph.value_info[:]
    for kept, wanted in zip(simple.graph.output, model.graph.output, strict=True):
        kept.CopyFrom(wanted)
    return simple


def export_graphs(network: Network, folder: Path, *, simplify: bool = True) -> list[Path]:
    """Write the graphs of all of topology.GRAPHS into `folder`, each at once or not at all. Repeated exports give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for graph in topology.GRAPHS:
        path = folder / f"{graph}.onnx"
        write_atomically(path, build(network, graph, simplify=simplify).SerializeToString(deterministic=True))
        paths.append(path)
    return paths
