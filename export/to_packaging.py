"""The integer network as float graphs that carry integers, for providers without QLinearConv: the same integers in other packagings.

`float`: every layer is a Conv in float32 on integers, then Round (half to even) and Clip. Every partial sum is an integer below 2^24 times a power of
two (FORMAT 1), so float32 holds it in any order of summation. A provider must not use Winograd kernels, nor TF32 or half precision.

`qdq`: QuantizeLinear and DequantizeLinear around Conv, as TensorRT wants explicit quantisation: int8 with zero point 0, so activations are carried as
x - 128, whose saturation to -128..127 is the clamp of FORMAT 5.2, and biases make up for it: with b' = b + 128 sum(w) - 128 * 2^s the layer gives
rne(acc, s) - 128. A runtime that fuses the three into an int8 convolution sums in int32; one that does not sums floats, exact by the same bound,
which is checked here with b' in the place of b.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export import to_onnx
from export.to_onnx import HASH_PROPERTY, IR_VERSION, OPSET, NodeOps, Value
from remac_runtime import topology
from remac_runtime.errors import BadNetwork
from remac_runtime.files import write_atomically
from remac_runtime.format import ACCUMULATOR_LIMIT, ACTIVATION_MAX, LATENT_OFFSET
from remac_runtime.network import Layer, Network

_HALF = 128         # what is taken off activations to fit int8


class FloatOps(NodeOps):
    """Activations are float32 that hold 0..255; NAME.channels_first is the output of layer NAME, as in the integer packaging."""

    fill = float(LATENT_OFFSET)     # of latents outside the band

    def load(self, name: str, channels: int) -> Value:
        """An input uint8 of the graph as the type that carries activations."""
        return Value(self._emit("Cast", [name], f"{name}.float", to=TensorProto.FLOAT), channels)

    def store(self, x: Value, name: str) -> None:
        """An activation as the output `name` of the graph, uint8."""
        self._emit("Cast", [x.name], name, to=TensorProto.UINT8)

    def _constant(self, name: str, value: Any) -> str:
        return super()._constant(name, np.float32(self.fill) if name == "latent_offset" else value)

    def _convolution(self, layer: Layer, x: Value, bias: str) -> Value:
        kernel = layer.weight.shape[1]
        scale = np.ldexp(np.float32(1), -layer.shift.astype(np.int32))
        weight = self._constant(f"{layer.name}.weight", layer.weight.transpose(0, 3, 1, 2) * scale[:, None, None, None])
        scaled = self._constant(f"{layer.name}.scaled_bias", layer.bias.astype(np.float32) * scale)
        sums = self._emit("Conv", [self._first(x), weight, scaled], "", layer.name, kernel_shape=[kernel] * 2, strides=[layer.stride] * 2,
                          pads=[kernel // 2] * 4)
        bounds = [self._constant("least", np.float32(0)), self._constant("most", np.float32(ACTIVATION_MAX))]
        rounded = self._emit("Round", [sums])
        return self._last(self._emit("Clip", [rounded, *bounds], f"{layer.name}.channels_first"), f"{layer.name}.float", len(layer.bias))

    def _head(self, layer: Layer, x: Value, bias: str) -> Value:
        weight = self._constant(f"{layer.name}.weight", layer.weight.transpose(0, 3, 1, 2).astype(np.float32))
        return self._sums(layer, x, weight, layer.bias.astype(np.float32))

    def _sums(self, layer: Layer, x: Value, weight: str, bias: NDArray[np.float32]) -> Value:
        """The accumulators of a head, int32."""
        sums = self._emit("Conv", [self._first(x), weight, self._constant(f"{layer.name}.float_bias", bias)], "", layer.name, kernel_shape=[1, 1])
        last = self._emit("Transpose", [sums], perm=to_onnx.TO_CHANNELS_LAST)
        return Value(self._emit("Cast", [last], layer.name, to=TensorProto.INT32), len(layer.bias))


class QdqOps(FloatOps):
    """Activations are float32 that hold x - 128 and have just been dequantised from int8."""

    fill = float(LATENT_OFFSET - _HALF)

    def _quantised(self, tensor: str, output: str = "") -> str:
        scale, zero = self._constant("one", np.float32(1)), self._constant("int8_zero", np.int8(0))
        quantised = self._emit("QuantizeLinear", [tensor, scale, zero])
        return self._emit("DequantizeLinear", [quantised, scale, zero], output)

    def load(self, name: str, channels: int) -> Value:
        centred = self._emit("Add", [super().load(name, channels).name, self._constant("minus_half", np.float32(-_HALF))])
        return Value(self._quantised(centred), channels)

    def store(self, x: Value, name: str) -> None:
        super().store(Value(self._emit("Add", [x.name, self._constant("plus_half", np.float32(_HALF))]), x.channels), name)

    def _weights(self, layer: Layer, scale: NDArray[np.float32]) -> str:
        outputs = len(layer.bias)
        inputs = [self._constant(f"{layer.name}.weight", layer.weight.transpose(0, 3, 1, 2)), self._constant(f"{layer.name}.scale", scale),
                  self._constant(f"zeros_{outputs}", np.zeros(outputs, np.int8))]
        return self._emit("DequantizeLinear", inputs, axis=0)

    def _convolution(self, layer: Layer, x: Value, bias: str) -> Value:
        kernel = layer.weight.shape[1]
        scale = np.ldexp(np.float32(1), -layer.shift.astype(np.int32))
        centred = _centred_bias(layer, _HALF * 2 ** layer.shift.astype(np.int64)).astype(np.float32) * scale
        source = self._first(x)
        if kernel > 1:      # zeros outside the tensor (FORMAT 5.2) are -128 here, which the padding of Conv cannot give
            margin = kernel // 2
            pads = self._integers(0, 0, margin, margin, 0, 0, margin, margin)
            source = self._emit("Pad", [source, pads, self._constant("minus_half", np.float32(-_HALF))], mode="constant")
        inputs = [source, self._weights(layer, scale), self._constant(f"{layer.name}.centred_bias", centred)]
        sums = self._emit("Conv", inputs, "", layer.name, kernel_shape=[kernel] * 2, strides=[layer.stride] * 2)
        return self._last(self._quantised(sums, f"{layer.name}.centred"), f"{layer.name}.float", len(layer.bias))

    def _head(self, layer: Layer, x: Value, bias: str) -> Value:
        ones = np.ones(len(layer.bias), np.float32)
        return self._sums(layer, x, self._weights(layer, ones), _centred_bias(layer, np.zeros(1, np.int64)).astype(np.float32))


def _centred_bias(layer: Layer, taken_off: NDArray[np.int64]) -> NDArray[np.int64]:
    """b' int64[out]; BadNetwork where the layer's sums could leave what float32 holds."""
    weight = layer.weight.astype(np.int64).reshape(len(layer.bias), -1)
    bias = layer.bias.astype(np.int64) + _HALF * weight.sum(1) - taken_off
    bound = _HALF * np.abs(weight).sum(1) + np.abs(bias)
    if bound.max() > ACCUMULATOR_LIMIT:
        channel = int(bound.argmax())
        raise BadNetwork(f"{layer.name}, channel {channel}: sums may reach {int(bound[channel])} when activations are centred, the limit is "
                         f"{ACCUMULATOR_LIMIT}: this network has no qdq packaging")
    return bias


PACKAGINGS: dict[str, type[FloatOps]] = {"float": FloatOps, "qdq": QdqOps}


def build(network: Network, graph: str, packaging: str) -> onnx.ModelProto:
    """One of topology.GRAPHS in one of PACKAGINGS; inputs and outputs as those of the integer packaging. Raises BadNetwork."""
    model, ops = to_onnx.build(network, graph, simplify=False), PACKAGINGS[packaging]()
    sizes = {info.name: info.type.tensor_type.shape.dim[3].dim_value for info in model.graph.input}
    outputs = topology.run(ops, network, graph, [ops.load(name, sizes[name]) for name in topology.INPUTS[graph]])
    for name, value in zip(topology.OUTPUTS[graph], outputs, strict=True):
        if not network.layers[name].head:
            ops.store(value, name)
    used = {name for node in ops.nodes for name in node.input}
    constants = [tensor for name, tensor in ops.initialisers.items() if name in used]
    proto = helper.make_graph(ops.nodes, graph, list(model.graph.input), list(model.graph.output), constants)
    built = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="remac")
    helper.set_model_props(built, {"profile": network.profile, HASH_PROPERTY: network.hash.hex(), "packaging": packaging})
    onnx.checker.check_model(built, full_check=True)
    return built


def export_packaging(network: Network, packaging: str, folder: Path) -> list[Path]:
    """Write all graphs into `folder`, each at once or not at all. Raises BadNetwork."""
    built = {graph: build(network, graph, packaging) for graph in topology.GRAPHS}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for graph, model in built.items():
        path = folder / f"{graph}.onnx"
        write_atomically(path, model.SerializeToString(deterministic=True))
        paths.append(path)
    return paths
