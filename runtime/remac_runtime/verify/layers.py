"""Backends that show the output of every layer, for `remac verify` to name the first that differs."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from remac_runtime import topology
from remac_runtime.backends.base import Array
from remac_runtime.backends.numpy_backend import NumpyBackend
from remac_runtime.backends.onnxruntime_backend import OnnxRuntimeBackend, session_options
from remac_runtime.backends.torch_backend import TorchBackend, TorchOps, exact
from remac_runtime.network import Layer, Network

T = TypeVar("T")
_ELEMENT = {None: 2, "float": 1}      # ONNX's number of the type that carries the activations: uint8, float; not known of other packagings
_VARINT_LIMIT = 1 << 7


@runtime_checkable
class ShowsLayers(Protocol):
    """A backend with this method shows all layers; of others only the outputs of the graphs are seen."""

    def layers(self, graph: str, inputs: tuple[Array, ...]) -> dict[str, Array]:
        """Inputs as of `Backend.compute` -> outputs [n,h,w,c] of the layers by name, heads not yet shifted. May run other kernels than `compute`."""
        ...


class _Tracing(topology.Ops[T]):
    """An `Ops` that keeps what each layer gave."""

    def __init__(self, ops: topology.Ops[T]) -> None:
        self.ops, self.found = ops, dict[str, T]()

    def layer(self, layer: Layer, *inputs: T) -> T:
        self.found[layer.name] = out = self.ops.layer(layer, *inputs)
        return out

    def space_to_depth(self, x: T, block: int) -> T:
        return self.ops.space_to_depth(x, block)

    def repeat2x2(self, x: T) -> T:
        return self.ops.repeat2x2(x)

    def neighbour(self, x: T, rows: int, columns: int) -> T:
        return self.ops.neighbour(x, rows, columns)

    def join(self, x: T) -> T:
        return self.ops.join(x)


class NumpyLayers(NumpyBackend):
    """numpy_backend, layer by layer."""

    def layers(self, graph: str, inputs: tuple[Array, ...]) -> dict[str, Array]:
        tracing = _Tracing(self._ops)
        topology.run(tracing, self.network, graph, inputs)
        return tracing.found


class TorchVariant(TorchOps):
    """Another element type or memory layout, which chooses other kernels."""

    def __init__(self, device: str, dtype: str | None, layout: str | None) -> None:
        super().__init__(device)
        self.dtype = getattr(self.torch, dtype) if dtype else self.dtype
        self.format = {"channels_first": self.torch.contiguous_format, "channels_last": self.torch.channels_last, None: None}[layout]

    def layer(self, layer: Layer, *inputs: Any) -> Any:
        return super().layer(layer, *([x.contiguous(memory_format=self.format) for x in inputs] if self.format else inputs))


class TorchLayers(TorchBackend):
    """torch_backend with other `ops`, layer by layer."""

    def __init__(self, network: Network, threads: int, device: str, dtype: str | None, layout: str | None) -> None:
        super().__init__(network, threads, device)
        self._ops = TorchVariant(device, dtype, layout)

    def layers(self, graph: str, inputs: tuple[Array, ...]) -> dict[str, Array]:
        tracing = _Tracing(self._ops)
        with exact(self._torch, self._threads):
            topology.run(tracing, self.network, graph, [self._ops.load(x) for x in inputs])
            return {name: self._ops.store(x, self.network.layers[name].head) for name, x in tracing.found.items()}


class OnnxRuntimeLayers(OnnxRuntimeBackend):
    """onnxruntime_backend on graphs of any packaging; `layers` runs them with the tensors of all layers as further outputs, which may switch some
    fusions off."""

    def __init__(self, folder: Path, network: Network, threads: int, level: str, packaging: str | None) -> None:
        super().__init__(folder, network, threads, level=level)
        self._graphs, self._session_options, self._packaging = folder, (threads, level), packaging
        self._shown: dict[str, tuple[Any, dict[str, str]]] = {}

    def layers(self, graph: str, inputs: tuple[Array, ...]) -> dict[str, Array]:
        if graph not in self._shown:
            self._shown[graph] = self._show(graph)
        session, names = self._shown[graph]
        values = session.run(list(names.values()), dict(zip(topology.INPUTS[graph], inputs, strict=True)))
        return {name: x if names[name] == name else _integers(x.transpose(0, 2, 3, 1)) for name, x in zip(names, values, strict=True)}

    def _show(self, graph: str) -> tuple[Any, dict[str, str]]:
        """(session, tensor of each layer). A convolution's tensor is NAME.channels_first, a head's is an output of the graph."""
        data = (self._graphs / f"{graph}.onnx").read_bytes()
        names, added = {name: name for name in topology.OUTPUTS[graph]}, []
        for layer in self.network.layers.values():
            tensor = f"{layer.name}.channels_first"
            if self._packaging in _ELEMENT and layer.name not in names and _field(2, tensor.encode()) in data:      # NodeProto.output
                names[layer.name] = tensor
                added.append(tensor)
        shown = with_outputs(data, added, _ELEMENT.get(self._packaging, 0))
        options = session_options(self._engine, *self._session_options)
        return self._engine.InferenceSession(shown, options, providers=["CPUExecutionProvider"]), names


def with_outputs(model: bytes, tensors: Sequence[str], element: int) -> bytes:
    """An ONNX file with further outputs of that element type, without the onnx package: protobuf joins a message and what is appended to it, so
    `graph.output` (fields 7 and 12 of ModelProto and GraphProto) grows."""
    outputs = b""
    for name in tensors:
        tensor_type = _field(1, _varint(1 << 3) + _varint(element))                         # TypeProto.tensor_type.elem_type
        outputs += _field(12, _field(1, name.encode()) + _field(2, tensor_type))            # ValueInfoProto.name, .type
    return model + _field(7, outputs) if outputs else model


def _varint(value: int) -> bytes:
    return bytes([value]) if value < _VARINT_LIMIT else bytes([value & 127 | 128]) + _varint(value >> 7)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _integers(x: Array) -> Array:
    """Tensors of packagings that carry integers in floats."""
    return x.astype(np.int64) if x.dtype.kind == "f" else x
