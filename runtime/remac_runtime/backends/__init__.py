"""Engines that run the integer network. All give the same integers; they differ in speed and in what they need installed."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from remac_runtime.backends.base import Backend
from remac_runtime.errors import RemacError
from remac_runtime.network import Network
from remac_runtime.topology import GRAPHS

__all__ = ["BACKENDS", "Backend", "available_backend", "open_backend"]

BACKENDS = ("onnxruntime", "numpy", "torch")


def available_backend(folder: Path) -> str:
    """The fastest backend that works here: onnxruntime if it is installed and `folder` has the graphs, else numpy, which always works."""
    if find_spec("onnxruntime") is not None and all((folder / f"{graph}.onnx").exists() for graph in GRAPHS):
        return "onnxruntime"
    return "numpy"


def open_backend(name: str | None, folder: Path, network: Network, threads: int = 1) -> Backend:
    """Open one of BACKENDS, or the fastest available for None. `torch:cuda` names a device.

    Raises RemacError if the name is unknown or its engine not installed. Missing or damaged graphs show when they are first run (BadNetwork).
    """
    kind, _, device = (name or available_backend(folder)).partition(":")
    if kind == "onnxruntime" and not device:
        from remac_runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
        return OnnxRuntimeBackend(folder, network, threads)
    if kind == "numpy" and not device:
        from remac_runtime.backends.numpy_backend import NumpyBackend
        return NumpyBackend(network)
    if kind == "torch":
        from remac_runtime.backends.torch_backend import TorchBackend
        return TorchBackend(network, threads, device or "cpu")
    raise RemacError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
