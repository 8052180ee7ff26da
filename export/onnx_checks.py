"""What must hold for the exported graphs, asserted on the files as read back, and the count of their multiply-accumulates (MAC).

The checks look at nodes and initialisers only and share no code with the exporter. Why each rule is there is in docs/decisions.md.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from export.report import CheckResult
from remac_runtime.errors import BadNetwork
from remac_runtime.format import ACCUMULATOR_LIMIT, ACTIVATION_MAX, LATENT_OFFSET, PAD_MULTIPLE, SHIFT_MAX, WEIGHT_MAX
from remac_runtime.network import HEADS, Network
from remac_runtime.topology import GRAPHS, OUTPUTS

# Seen to give the same integers in every runtime and on every processor that was tried.
OPERATORS = frozenset({"QLinearConv", "MatMulInteger", "Add", "Concat", "Resize", "Slice", "Reshape", "Transpose", "Pad"})
OPSETS, IR = range(13, 18), 8
_FIXED_SIZE = ("reference",)     # graphs whose inputs always have one size
_QLINEAR_SCALES, _QLINEAR_ZEROS = (1, 4, 6), (2, 5, 7)


@dataclass(frozen=True)
class Parsed:
    """A graph as read back: nodes, initialisers by name, element type of every tensor."""

    name: str
    model: onnx.ModelProto
    constants: dict[str, NDArray[Any]]
    types: dict[str, int]

    def nodes(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.model.graph.node if node.op_type in kinds)


def parse(name: str, model: onnx.ModelProto) -> Parsed:
    """Raises onnx's errors for a graph that does not fit together."""
    onnx.checker.check_model(model, full_check=True)
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    types = {info.name: info.type.tensor_type.elem_type for info in (*inferred.input, *inferred.value_info, *inferred.output)}
    return Parsed(name, model, constants, types)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _weight(parsed: Parsed, node: onnx.NodeProto) -> NDArray[Any] | None:
    """Constant weights of a QLinearConv or MatMulInteger as [out, ...]; None if they are not constant."""
    weight = parsed.constants.get(node.input[3 if node.op_type == "QLinearConv" else 1])
    return weight if weight is None or node.op_type == "QLinearConv" else weight.T


def _bias(parsed: Parsed, node: onnx.NodeProto) -> NDArray[Any] | None:
    """Constant bias of a QLinearConv, or of the one Add that takes a MatMulInteger's result; None if there is none."""
    if node.op_type == "QLinearConv":
        return parsed.constants.get(node.input[8]) if len(node.input) > 8 else None
    adds = [add for add in parsed.model.graph.node if node.output[0] in add.input]
    if len(adds) != 1 or adds[0].op_type != "Add":
        return None
    return parsed.constants.get(next((name for name in adds[0].input if name != node.output[0]), ""))


def _operators(p: Parsed) -> Iterator[str]:
    for node in p.model.graph.node:
        if node.domain or node.op_type not in OPERATORS:
            yield f"node {node.name} is {node.domain or 'onnx'}.{node.op_type}"
    if p.model.functions or p.model.graph.sparse_initializer:
        yield "it has functions or sparse initialisers"


def _versions(p: Parsed) -> Iterator[str]:
    opsets = {entry.domain: entry.version for entry in p.model.opset_import}
    if set(opsets) != {""} or opsets[""] not in OPSETS:
        yield f"opsets {opsets}, expected one of {OPSETS.start}..{OPSETS.stop - 1}"
    if p.model.ir_version != IR:
        yield f"IR {p.model.ir_version}, expected {IR}"


def _weights(p: Parsed) -> Iterator[str]:
    for node in p.nodes("QLinearConv", "MatMulInteger"):
        weight = _weight(p, node)
        if weight is None or weight.dtype != np.int8:
            yield f"{node.name}: weights are not constant int8"
        elif np.abs(weight.astype(np.int16)).max() > WEIGHT_MAX:
            yield f"{node.name}: weight {int(np.abs(weight.astype(np.int16)).max())} is beyond +-{WEIGHT_MAX}"


def _zero_points(p: Parsed) -> Iterator[str]:
    for node in p.nodes("QLinearConv", "MatMulInteger"):
        for place in _QLINEAR_ZEROS if node.op_type == "QLinearConv" else range(2, len(node.input)):
            zero = p.constants.get(node.input[place])
            if zero is None or zero.any():
                yield f"{node.name}: zero point {node.input[place]} is not constant 0"


def _scales(p: Parsed) -> Iterator[str]:
    for node in p.nodes("QLinearConv"):
        source, weight, target = (p.constants.get(node.input[place]) for place in _QLINEAR_SCALES)
        if source is None or target is None or source.shape != () or target.shape != () or source != 1 or target != 1:
            yield f"{node.name}: scales of input and output are not 1"
        mantissa, exponent = np.frexp(weight if weight is not None else np.zeros(1, np.float32))
        if not (np.all(mantissa == 0.5) and np.all((exponent - 1 <= 0) & (exponent - 1 >= -SHIFT_MAX))):      # 2^k is 0.5 * 2^(k + 1)
            yield f"{node.name}: a scale of the weights is not 2^-s with s in 0..{SHIFT_MAX}"


def _floats(p: Parsed) -> Iterator[str]:
    allowed = {node.input[place] for node in p.nodes("QLinearConv") for place in _QLINEAR_SCALES} | {node.input[2] for node in p.nodes("Resize")}
    for name, value in p.constants.items():
        if value.dtype.kind not in "iu" and (name not in allowed or value.dtype != np.float32 or not np.all(np.frexp(value)[0] == 0.5)):
            yield f"initialiser {name} is {value.dtype} and no scale that is a power of two"


def _types(p: Parsed) -> Iterator[str]:
    for node in p.model.graph.node:
        kinds = {p.types.get(name) for name in node.output}
        wanted = {TensorProto.INT32} if node.op_type in ("MatMulInteger", "Add") else {TensorProto.UINT8}
        if kinds != wanted:
            yield f"node {node.name} ({node.op_type}) gives {[TensorProto.DataType.Name(k or 0) for k in kinds]}"
        if node.op_type == "Add" and not any(name in p.constants for name in node.input):
            yield f"{node.name}: adds two tensors"
    inputs = {info.type.tensor_type.elem_type for info in p.model.graph.input}
    if inputs != {TensorProto.UINT8}:
        yield "an input is not uint8"


def _attribute_values(p: Parsed) -> Iterator[str]:
    for node in p.nodes("QLinearConv"):
        a = _attributes(node)
        kernel = a.get("kernel_shape")
        if kernel not in ([1, 1], [3, 3]) or a.get("pads") != [kernel[0] // 2] * 4 or a.get("strides", [1, 1]) not in ([1, 1], [2, 2]) or (
                a.get("group", 1) != 1 or a.get("dilations", [1, 1]) != [1, 1] or a.get("auto_pad", b"NOTSET") != b"NOTSET"):
            yield f"{node.name}: not a plain 1x1 or 3x3 convolution ({a})"
    for node in p.nodes("Resize"):
        a = _attributes(node)
        modes = (a.get("mode"), a.get("coordinate_transformation_mode"), a.get("nearest_mode"))
        if modes != (b"nearest", b"asymmetric", b"floor") or len(node.input) != 3 or p.constants[node.input[2]].tolist() != [1, 1, 2, 2]:
            yield f"{node.name}: does not repeat each position 2x2"
    for node in p.nodes("Pad"):
        fill = p.constants.get(node.input[2]) if len(node.input) > 2 else None
        if _attributes(node).get("mode", b"constant") != b"constant" or fill is None or fill != LATENT_OFFSET:
            yield f"{node.name}: does not fill with {LATENT_OFFSET}"


def _dynamic(p: Parsed) -> Iterator[str]:
    if p.name in _FIXED_SIZE:
        return
    for info in (*p.model.graph.input, *p.model.graph.output):
        batch, rows, columns, channels = (dim.dim_value for dim in info.type.tensor_type.shape.dim)
        wanted = 1 if p.name == "analysis" else 0
        if rows or columns or not channels or batch != wanted:
            yield f"{info.name} is [{batch},{rows},{columns},{channels}], expected [{wanted},0,0,c], where 0 is free"


def _bounds(p: Parsed) -> Iterator[str]:
    for node in p.nodes("QLinearConv", "MatMulInteger"):
        weight, bias = _weight(p, node), _bias(p, node)
        if weight is None or bias is None or bias.dtype != np.int32 or bias.shape != (len(weight),):
            yield f"{node.name}: no constant int32 bias per channel"
            continue
        bound = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1) * ACTIVATION_MAX + np.abs(bias.astype(np.int64))
        if bound.max() >= ACCUMULATOR_LIMIT:
            yield f"{node.name}: channel {int(bound.argmax())} may reach {int(bound.max())}, the limit is {ACCUMULATOR_LIMIT}"


CHECKS: dict[str, Callable[[Parsed], Iterator[str]]] = {
    "only operators that are exact everywhere": _operators,
    f"opset {OPSETS.start}..{OPSETS.stop - 1}, IR {IR}": _versions,
    f"weights int8, within +-{WEIGHT_MAX}": _weights,
    "zero points 0": _zero_points,
    f"scales 2^-s, s in 0..{SHIFT_MAX}": _scales,
    "no other float initialiser": _floats,
    "tensors uint8, heads int32": _types,
    "plain convolutions, Resize and Pad": _attribute_values,
    "free height, width and batch": _dynamic,
    "accumulators below 2^24 for every input": _bounds,
}


def _same_numbers(parsed: Sequence[Parsed], network: Network) -> Iterator[str]:
    """Every layer of the network file is in the graphs once, with its numbers, and the graphs name the network."""
    found = [(p, node) for p in parsed for node in p.nodes("QLinearConv", "MatMulInteger")]
    if sorted(node.name for _, node in found) != sorted(network.layers):
        yield "the graphs do not have each layer of the network file once"
        return
    for p, node in found:
        layer = network.layers[node.name]
        weight, bias = _weight(p, node), _bias(p, node)
        wanted = layer.weight.transpose(0, 3, 1, 2) if node.op_type == "QLinearConv" else layer.weight[:, 0, 0, :]
        same = weight is not None and bias is not None and np.array_equal(weight, wanted) and np.array_equal(bias, layer.bias)
        if node.op_type == "QLinearConv":
            same = same and np.array_equal(p.constants[node.input[4]], 2.0 ** -layer.shift.astype(np.float64))
            same = same and _attributes(node).get("strides", [1, 1]) == [layer.stride] * 2
        if not same or (node.op_type == "MatMulInteger") != (node.name in HEADS):
            yield f"{p.name}: layer {node.name} is not that of the network file"
    for p in parsed:
        properties = {entry.key: entry.value for entry in p.model.metadata_props}
        if properties.get("codec_hash") != network.hash.hex():
            yield f"{p.name}: made for codec {properties.get('codec_hash')}, the network is {network.hash.hex()}"
        if len(p.model.graph.output) != len(OUTPUTS[p.name]):
            yield f"{p.name}: {len(p.model.graph.output)} outputs, expected {len(OUTPUTS[p.name])}"


def _result(name: str, offences: Iterator[str]) -> CheckResult:
    try:
        first = next(offences, "")
    except Exception as error:      # a check that cannot read the graph has failed
        first = f"{type(error).__name__}: {error}"
    return CheckResult(name, not first, first)


def check_models(models: dict[str, onnx.ModelProto], network: Network) -> list[CheckResult]:
    """All checks on graphs in memory, by name."""
    try:
        parsed = [parse(name, model) for name, model in models.items()]
    except Exception as error:      # onnx raises many kinds
        return [CheckResult("graphs are well formed", False, str(error).splitlines()[0])]
    results = [_result(name, (f"{p.name}: {offence}" for p in parsed for offence in check(p))) for name, check in CHECKS.items()]
    return [CheckResult("graphs are well formed", True), *results, _result("same numbers as the network file", _same_numbers(parsed, network))]


def read_graphs(folder: Path) -> dict[str, onnx.ModelProto]:
    """The files of all graphs. Raises BadNetwork."""
    try:
        return {graph: onnx.load(str(folder / f"{graph}.onnx")) for graph in GRAPHS}
    except Exception as error:      # a missing file, or protobuf's DecodeError
        raise BadNetwork(f"{folder}: the graphs cannot be read ({str(error).splitlines()[0]}): run `make encoder`") from None


def check_folder(folder: Path, network: Network) -> list[CheckResult]:
    """All checks on the files of a model folder. Raises BadNetwork where one cannot be read."""
    return check_models(read_graphs(folder), network)


def _input_size(graph: str, height: int, width: int) -> tuple[int, int, int]:
    """(batch, rows, columns) of a graph's inputs for a picture; its bands are counted as one, which has as many positions."""
    if graph in _FIXED_SIZE:
        return 4, 8, 8
    stride = {"analysis": 1, "side": 64}.get(graph, 32)
    return 1, height // stride, width // stride


def count_macs(folder: Path, height: int, width: int) -> dict[str, dict[str, float]]:
    """Multiply-accumulates per pixel of a picture of that size: {graph: {layer: MAC / pixel}}, counted over the nodes of the files.

    Padding to multiples of 64 is counted, and the one run of `reference` a picture. Raises BadNetwork where a file cannot be read.
    """
    padded = (-(-height // PAD_MULTIPLE) * PAD_MULTIPLE, -(-width // PAD_MULTIPLE) * PAD_MULTIPLE)
    counts: dict[str, dict[str, float]] = {}
    for graph, model in read_graphs(folder).items():
        shapes, _ = infer_sizes(model, graph, *padded)
        counts[graph] = {node.name: _node_macs(node, shapes) / (height * width) for node in model.graph.node
                         if node.op_type in ("QLinearConv", "MatMulInteger")}
    return counts


def infer_sizes(model: onnx.ModelProto, graph: str, height: int, width: int) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Shape and element type of each tensor for a padded picture of that size. Changes the sizes of the model's inputs and outputs."""
    for info in model.graph.input:
        for dim, value in zip(info.type.tensor_type.shape.dim, _input_size(graph, height, width), strict=False):
            dim.dim_value = value
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    infos = (*inferred.input, *inferred.value_info, *inferred.output)
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}
    shapes.update({tensor.name: list(tensor.dims) for tensor in model.graph.initializer})
    return shapes, {info.name: info.type.tensor_type.elem_type for info in infos}


def _node_macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    outputs = shapes[node.output[0]]
    if not outputs or 0 in outputs:
        raise BadNetwork(f"{node.name}: its size {outputs} cannot be inferred")
    if node.op_type == "QLinearConv":
        return math.prod(outputs) * math.prod(shapes[node.input[3]][1:])      # weights [out, in, k, k]
    return math.prod(outputs) * shapes[node.input[1]][0]                      # weights [in, out]
