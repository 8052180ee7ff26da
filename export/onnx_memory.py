"""Peak memory of a graph, predicted from the sizes and life times of its tensors."""
from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto

from export.onnx_checks import infer_sizes, read_graphs
from remac_runtime.format import PAD_MULTIPLE

_BYTES: dict[int, int] = {TensorProto.UINT8: 1, TensorProto.INT8: 1, TensorProto.INT32: 4}
_LAYOUT_ONLY = ([0, 3, 1, 2], [0, 2, 3, 1])     # transposes that a runtime cancels between its channels-last kernels


def peak_bytes(folder: Path, height: int, width: int) -> int:
    """The most bytes that inputs, outputs and intermediates of `analysis`, the largest graph, take at one time. Raises BadNetwork."""
    model = read_graphs(folder)["analysis"]
    shapes, kinds = infer_sizes(model, "analysis", -(-height // PAD_MULTIPLE) * PAD_MULTIPLE, -(-width // PAD_MULTIPLE) * PAD_MULTIPLE)
    return peak_of(model, {name: math.prod(shapes[name]) * _BYTES[kind] for name, kind in kinds.items() if kind in _BYTES})


def peak_of(model: onnx.ModelProto, sizes: dict[str, int]) -> int:
    """The same for tensors of known bytes. Reshapes and changes of the layout share the memory of their input."""
    owner: dict[str, str] = {}
    last_use: dict[str, int] = {}
    nodes = list(model.graph.node)
    for i, node in enumerate(nodes):
        shares = node.op_type == "Reshape" or (node.op_type == "Transpose" and list(node.attribute[0].ints) in _LAYOUT_ONLY)
        source = owner.get(node.input[0], node.input[0])
        owner.update(dict.fromkeys(node.output, source) if shares else {name: name for name in node.output})
        last_use.update({owner.get(name, name): i for name in node.input if name in sizes})
    kept = {owner[info.name] for info in model.graph.output}
    last_use.update(dict.fromkeys((*kept, *(info.name for info in model.graph.input)), len(nodes)))
    live = {info.name for info in model.graph.input}
    peak = 0
    for i, node in enumerate(nodes):
        live |= {owner[name] for name in node.output}
        peak = max(peak, sum(sizes[name] for name in live))
        live = {name for name in live if last_use.get(name, i) > i}
    return peak
