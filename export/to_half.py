"""A float32 ONNX graph in half precision, but for the layers that would overflow: the types are in the graph (strong typing), no engine chooses them.

onnxruntime's own converter casts every layer it keeps back to half precision, so a value that only overflows between two kept layers still does; here
tensors between kept layers stay float32. Which layers are kept is measured on inputs, with a margin.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF_MAX = 65504.0
MARGIN = 8.0            # a tensor counts as overflowing from HALF_MAX / MARGIN on: other pictures may have larger values
# Sums of squares overflow inside the layer, where no output shows it.
ALWAYS_KEPT = frozenset({"ReduceL2", "ReduceSumSquare", "LpNormalization", "LayerNormalization", "Pow"})
_FLOAT_ALWAYS = {"Resize": (1, 2)}      # inputs that ONNX wants in float32, whatever the data are in

Feeds = Mapping[str, np.ndarray]


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor of the graph."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.input, *graph.output)}
    types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    return types


def magnitudes(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> dict[str, float]:
    """Largest absolute value of every float tensor over all inputs, by ONNX Runtime without optimisations."""
    import onnxruntime

    from remac_runtime.backends.onnxruntime_backend import session_options
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    types = tensor_types(model)
    names = [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    present = {info.name for info in probe.graph.output}
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), session_options(onnxruntime, 1, "disabled"), providers=["CPUExecutionProvider"])
    inputs = {entry.name for entry in session.get_inputs()}
    largest = dict.fromkeys(names, 0.0)
    for feed in feeds:
        for name, value in zip(names, session.run(names, {key: x for key, x in feed.items() if key in inputs}), strict=True):
            largest[name] = _larger(largest[name], value)
        for name in inputs & feed.keys():
            largest[name] = _larger(largest.get(name, 0.0), feed[name])
    return largest


def _larger(before: float, value: np.ndarray) -> float:
    """The larger of `before` and the largest absolute value; nan where there is one, which max() would pass over."""
    return float(np.maximum(before, np.abs(value).max(initial=0.0)))


def kept_layers(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[str]:
    """Names of the nodes that stay float32: those with an input or output beyond HALF_MAX / MARGIN, and sums of squares. Constants do not count."""
    largest, types = magnitudes(model, feeds), tensor_types(model)
    constants = {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    kept = []
    for node in model.graph.node:
        floats = [name for name in (*node.input, *node.output) if types.get(name) == TensorProto.FLOAT and name not in constants]
        if floats and (node.op_type in ALWAYS_KEPT or any(not largest.get(name, 0.0) <= HALF_MAX / MARGIN for name in floats)):
            kept.append(node.name)
    return kept


def to_half(model: onnx.ModelProto, kept: Sequence[str]) -> onnx.ModelProto:
    """The graph with float16 in all nodes but `kept`; inputs and outputs keep their types. Nodes need names."""
    return _Conversion(model, frozenset(kept)).run()


def rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """What `to_half` gave, computed in float32 with every float16 tensor rounded: half precision with float32 sums, as tensor cores have it.

    ONNX Runtime has few kernels for float16 and runs the others in float32 without rounding in between, which hides overflows.
    """
    types = tensor_types(half)
    result = onnx.ModelProto()
    result.CopyFrom(half)
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        for place, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16:
                node.output[place] = f"{name}.exact"
                nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], name=f"{name}.down", to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}.rounded"], [name], name=f"{name}.up", to=TensorProto.FLOAT))
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(copies)
    onnx.checker.check_model(result, full_check=True)
    return result


class _Conversion:
    """State of one conversion: what each tensor is now, and the casts and constants made so far."""

    def __init__(self, model: onnx.ModelProto, kept: frozenset[str]) -> None:
        self.kept = kept
        self.types = tensor_types(model)
        self.result = onnx.ModelProto()
        self.result.CopyFrom(model)
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[tuple[str, int], str] = {}

    def run(self) -> onnx.ModelProto:
        graph = self.result.graph
        self._take_constants()
        outputs = {info.name for info in graph.output}
        old = list(graph.node)
        for node in old:
            self._convert(node, outputs)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(numpy_helper.from_array(self._constant(name, kind), made) for (name, kind), made in self.made.items()
                                 if name in self.constants)
        onnx.checker.check_model(self.result, full_check=True)
        return self.result

    def _take_constants(self) -> None:
        """Float initialisers and Constant nodes, which get a copy in each precision that reads them."""
        graph = self.result.graph
        for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]:
            self.constants[tensor.name] = numpy_helper.to_array(tensor)
            graph.initializer.remove(tensor)
        for node in [n for n in graph.node if n.op_type == "Constant" and self.types[n.output[0]] == TensorProto.FLOAT]:
            self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            graph.node.remove(node)

    def _constant(self, name: str, kind: int) -> np.ndarray:
        value = self.constants[name]
        return np.clip(value, -HALF_MAX, HALF_MAX).astype(np.float16) if kind == TensorProto.FLOAT16 else value

    def _as(self, name: str, kind: int) -> str:
        """The tensor in a precision: itself, a constant, or a cast that all its readers share."""
        if name not in self.constants and self.types[name] == kind:
            return name
        key = (name, kind)
        if key not in self.made:
            self.made[key] = f"{name}.{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            if name not in self.constants:
                self.nodes.append(helper.make_node("Cast", [name], [self.made[key]], name=f"{self.made[key]}.cast", to=kind))
        return self.made[key]

    def _convert(self, node: onnx.NodeProto, outputs: set[str]) -> None:
        kind = TensorProto.FLOAT if node.name in self.kept else TensorProto.FLOAT16
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        for place, name in enumerate(node.input):
            if name and self.types[name] in floats:
                wanted = TensorProto.FLOAT if place in _FLOAT_ALWAYS.get(node.op_type, ()) else kind
                if node.op_type != "Cast":          # a Cast reads either
                    node.input[place] = self._as(name, wanted)
        if node.op_type == "Cast":
            self._cast(node, kind)
        final = []
        for place, name in enumerate(node.output):
            if name and self.types[name] == TensorProto.FLOAT and kind == TensorProto.FLOAT16:
                if name in outputs:                  # of the graph: they stay float32
                    node.output[place] = self.made[name, TensorProto.FLOAT16] = f"{name}.half"     # which other nodes read, too
                    final.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
                else:
                    self.types[name] = TensorProto.FLOAT16
        self.nodes += [node, *final]

    def _cast(self, node: onnx.NodeProto, kind: int) -> None:
        to: Any = next(attribute for attribute in node.attribute if attribute.name == "to")
        if node.input[0] in self.constants:
            node.input[0] = self._as(node.input[0], TensorProto.FLOAT)
        if to.i == TensorProto.FLOAT:
            to.i = kind
