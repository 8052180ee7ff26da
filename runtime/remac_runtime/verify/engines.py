"""The engines that `remac verify` can run in a worker, by a text such as `onnxruntime:level=basic,threads=2`.

| engine | options |
|---|---|
| reference | none: the int64 codec of reference.py |
| numpy | |
| onnxruntime | level=disabled, basic, extended or all; threads=N; packaging=FOLDER of other graphs of the same layers in the model folder |
| torch | device=cpu, cuda, ...; threads=N; dtype=float32 or float64; layout=channels_first or channels_last; mkldnn=0 |
| c99 | threads=N |

All but the reference take native=0 (the entropy coder in NumPy) and strip_rows=N. A worker is also told `inject=LAYER.CHANNEL`, which changes one
weight: the check of the check.
"""
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from remac_runtime.backends import Backend, open_backend
from remac_runtime.backends.onnxruntime_backend import OPTIMISATION_LEVELS
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.format import WEIGHT_MAX
from remac_runtime.model import NETWORK_FILE, Model
from remac_runtime.network import Layer, Network, read_network
from remac_runtime.topology import GRAPHS
from remac_runtime.verify.layers import NumpyLayers, OnnxRuntimeLayers, TorchLayers

REFERENCE = "reference"
_COMMON = ("native", "strip_rows", "inject")
OPTIONS: dict[str, tuple[str, ...]] = {
    REFERENCE: (), "numpy": _COMMON, "onnxruntime": (*_COMMON, "level", "threads", "packaging"),
    "torch": (*_COMMON, "device", "threads", "dtype", "layout", "mkldnn"), "c99": (*_COMMON, "threads"),
}
PACKAGES = {"onnxruntime": "onnxruntime", "torch": "torch"}     # what an engine needs beside numpy


class UnsupportedHere(RemacError):
    """The engine cannot run on this machine: a package or a device is missing. The message is the reason."""


@dataclass(frozen=True)
class Engine:
    """An engine and its options, as text."""

    kind: str
    options: Mapping[str, str]

    def number(self, name: str, default: int) -> int:
        """An option that is a whole number. Raises BadInput."""
        text = self.options.get(name, str(default))
        if not text.isdigit():
            raise BadInput(f"{self.kind}: {name}={text} is not a whole number")
        return int(text)


def parse(text: str) -> Engine:
    """`kind:option=value,option=value`. Raises BadInput."""
    kind, _, rest = text.partition(":")
    if kind not in OPTIONS:
        raise BadInput(f"unknown engine {kind!r}: choose one of {', '.join(OPTIONS)}, or NAME=COMMAND with {{input}} and {{output}} in the command")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in OPTIONS[kind]:
            raise BadInput(f"{text}: {part!r} is no option of {kind}: choose from {', '.join(OPTIONS[kind]) or 'none'}, as option=value")
        options[name] = value
    return Engine(kind, options)


def open_engine(engine: Engine, model: Model, work: Path) -> Backend:
    """The backend of an engine; not of the reference, which is none. `work` is a folder for changed copies. Raises UnsupportedHere, or what the
    backend raises."""
    package = PACKAGES.get(engine.kind)
    if package and importlib.util.find_spec(package) is None:
        raise UnsupportedHere(f"{package} is not installed")
    inject = engine.options.get("inject")
    if inject:
        changed = changed_layer(model.network, inject)
        model = replace(model, network=replace(model.network, layers={**model.network.layers, changed.name: changed}))
    return _OPENERS[engine.kind](engine, model, work)


def _numpy(engine: Engine, model: Model, work: Path) -> Backend:
    return NumpyLayers(model.network)


def _onnxruntime(engine: Engine, model: Model, work: Path) -> Backend:
    packaging, level = engine.options.get("packaging"), engine.options.get("level", "all")
    if level not in OPTIMISATION_LEVELS:
        raise BadInput(f"level={level}: choose one of {', '.join(OPTIMISATION_LEVELS)}")
    folder = model.folder / packaging if packaging else model.folder
    if not (folder / f"{GRAPHS[0]}.onnx").exists():
        made = f"export/packaging.py --packaging {packaging}" if packaging else "export/rover_encoder.py"
        raise UnsupportedHere(f"{folder} holds no graphs: python {made} writes them")
    if "inject" in engine.options:
        changed_graphs(folder, read_network(model.folder / NETWORK_FILE), engine.options["inject"], work)
        folder = work
    return OnnxRuntimeLayers(folder, model.network, engine.number("threads", 1), level, packaging)


def _torch(engine: Engine, model: Model, work: Path) -> Backend:
    import torch
    device, dtype, layout = engine.options.get("device", "cpu"), engine.options.get("dtype"), engine.options.get("layout")
    if dtype not in (None, "float32", "float64") or layout not in (None, "channels_first", "channels_last"):
        raise BadInput(f"torch: dtype={dtype}, layout={layout}: dtype is float32 or float64, layout channels_first or channels_last")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UnsupportedHere("torch finds no CUDA device")
    if engine.options.get("mkldnn") == "0":
        torch.backends.mkldnn.set_flags(False)      # type: ignore[no-untyped-call]
    return TorchLayers(model.network, engine.number("threads", 1), device, dtype, layout)


def _c99(engine: Engine, model: Model, work: Path) -> Backend:
    try:
        return open_backend("c99", model.folder, model.network, engine.number("threads", 1))
    except RemacError as error:
        raise UnsupportedHere(str(error)) from None


_OPENERS: dict[str, Callable[[Engine, Model, Path], Backend]] = {"numpy": _numpy, "onnxruntime": _onnxruntime, "torch": _torch, "c99": _c99}


# ---- one changed weight, to see that the comparison notices

def _place(network: Network, text: str) -> tuple[Layer, int]:
    """LAYER.CHANNEL. Raises BadInput."""
    name, _, channel = text.partition(".")
    layer = network.layers.get(name)
    if layer is None or not channel.isdigit() or int(channel) >= len(layer.bias):
        raise BadInput(f"inject {text!r}: name LAYER.CHANNEL, a layer of {', '.join(network.layers)} and a channel it has")
    return layer, int(channel)


def changed_layer(network: Network, text: str) -> Layer:
    """The layer with one weight of the channel (middle tap, the input where it matters most) thrown to the other end of its range."""
    layer, channel = _place(network, text)
    weight = layer.weight.copy()
    middle = weight.shape[1] // 2
    taps = weight[channel, middle, middle]
    at = int(np.argmax(np.abs(taps.astype(np.int16))))
    taps[at] = -WEIGHT_MAX if taps[at] > 0 else WEIGHT_MAX
    return replace(layer, weight=weight)


def _encodings(layer: Layer) -> list[bytes]:
    """The weights as the packagings of export/ store them: int8 and scaled float32, channels-first; int8 of a matrix product."""
    first = np.ascontiguousarray(layer.weight.transpose(0, 3, 1, 2))
    scale = np.float32(1) if layer.head else np.ldexp(np.float32(1), -layer.shift.astype(np.int32)).reshape(-1, 1, 1, 1)
    matrix = np.ascontiguousarray(layer.weight.reshape(len(layer.bias), -1).T)
    return [first.tobytes(), matrix.tobytes(), (first * scale).astype("<f4").tobytes()]


def changed_graphs(folder: Path, network: Network, text: str, target: Path) -> None:
    """Copy the graphs, with the weights of `changed_layer` in the place of its own. Raises BadInput where no graph holds them."""
    layer, changed = _place(network, text)[0], changed_layer(network, text)
    pairs, found = list(zip(_encodings(layer), _encodings(changed), strict=True)), False
    for graph in GRAPHS:
        data = (folder / f"{graph}.onnx").read_bytes()
        for before, after in pairs:
            found |= before in data
            data = data.replace(before, after)
        (target / f"{graph}.onnx").write_bytes(data)
    if not found:
        raise BadInput(f"inject {text}: the graphs in {folder} do not hold the weights of {layer.name} as the network file does")
