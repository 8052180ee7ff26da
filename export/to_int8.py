"""Explicit INT8 in a float32 ONNX graph: Q/DQ nodes around convolutions, by which TensorRT and ONNX Runtime compute them with integers.

Activations have one symmetric scale a tensor, measured on real inputs, weights one an output channel. The scales of activations leave out the few
largest values, which are clipped: that costs less than coarser steps for all others.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KEPT_SHARE = 0.9999         # of the values of an activation that its range holds
SAMPLED = 20_000            # values of an activation taken from each input
LARGEST = 127
_SEED = 3

Feeds = Mapping[str, np.ndarray]


def convolutions(model: onnx.ModelProto, left: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The convolutions to be quantised: all with constant weights whose names do not begin with one of `left`."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants and not node.input[1].startswith(left)]


def ranges(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, float]:
    """The magnitude that KEPT_SHARE of the values of each tensor stay below, over all inputs, by ONNX Runtime."""
    import onnxruntime

    from remac_runtime.backends.onnxruntime_backend import session_options
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    present = {info.name for info in probe.graph.output}
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), session_options(onnxruntime, 1, "disabled"), providers=["CPUExecutionProvider"])
    taken, rng = {entry.name for entry in session.get_inputs()}, np.random.default_rng(_SEED)
    samples: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for feed in feeds:
        for name, value in zip(names, session.run(list(names), {key: x for key, x in feed.items() if key in taken}), strict=True):
            flat = np.abs(value).reshape(-1)
            samples[name].append(flat[rng.integers(0, len(flat), min(SAMPLED, len(flat)))])
    return {name: float(np.quantile(np.concatenate(values), KEPT_SHARE)) for name, values in samples.items()}


def to_int8(model: onnx.ModelProto, left: tuple[str, ...], feeds: Sequence[Feeds]) -> tuple[onnx.ModelProto, list[str]]:
    """The graph with quantised convolutions, and the names of the nodes that must stay as they are then: the new ones and these convolutions."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    chosen = convolutions(result, left)
    reach = ranges(model, sorted({node.input[0] for node in chosen}), feeds)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    constants: dict[str, np.ndarray] = {"int8.zero": np.zeros((), np.int8)}
    made: dict[str, list[onnx.NodeProto]] = {}          # by the tensor that they quantise, to go before its first reader
    for name, magnitude in reach.items():
        constants[f"{name}.scale"] = np.array(max(magnitude, 1e-9) / LARGEST, np.float32)
        made[name] = [helper.make_node("QuantizeLinear", [name, f"{name}.scale", "int8.zero"], [f"{name}.int8"], name=f"{name}.quantise"),
                      helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale", "int8.zero"], [f"{name}.restored"],
                                       name=f"{name}.restore")]
    for name in sorted({node.input[1] for node in chosen}):         # a set has another order in each process
        scale = np.maximum(np.abs(weights[name]).max((1, 2, 3)), 1e-9) / LARGEST
        constants[f"{name}.scale"] = scale.astype(np.float32)
        constants[f"{name}.zero"] = np.zeros(len(scale), np.int8)
        constants[f"{name}.int8"] = np.rint(weights[name] / scale[:, None, None, None]).clip(-LARGEST, LARGEST).astype(np.int8)
        made[name] = [helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale", f"{name}.zero"], [f"{name}.restored"],
                                       name=f"{name}.restore", axis=0)]
    names = {node.name for node in chosen} | {node.name for nodes in made.values() for node in nodes}
    ordered: list[onnx.NodeProto] = []
    for node in list(result.graph.node):
        if node.name in names:
            for place in (0, 1):
                ordered += made.pop(node.input[place], [])
                node.input[place] += ".restored"
        ordered.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(copies)
    read = {name for node in copies for name in node.input}
    left_over = [tensor for tensor in result.graph.initializer if tensor.name not in read]
    for tensor in left_over:
        result.graph.initializer.remove(tensor)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(result, full_check=True)
    return result, sorted(names)
