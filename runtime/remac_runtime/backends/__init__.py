"""Engines that run the integer network. All give the same integers; they differ in speed and in what they need installed."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from remac_runtime.backends.base import Backend
from remac_runtime.choices import BACKENDS
from remac_runtime.errors import RemacError
from remac_runtime.network import Network
from remac_runtime.topology import GRAPHS

__all__ = ["BACKENDS", "Backend", "available_backend", "open_backend"]


def available_backend(folder: Path, network: Network) -> str:
    """The fastest backend that works here.

    That is c99 where its best kernel was measured faster than ONNX Runtime; then onnxruntime, if it is installed and `folder` has the graphs;
    then c99 on any vector kernel; then numpy, which always works and whose float32 products beat portable C.
    """
    from remac_runtime.backends.c99_backend import FAST_KERNELS, best_kernel
    kernel = best_kernel(network)
    if kernel in FAST_KERNELS:
        return "c99"
    if find_spec("onnxruntime") is not None and all((folder / f"{graph}.onnx").exists() for graph in GRAPHS):
        return "onnxruntime"
    return "numpy" if kernel in (None, "portable") else "c99"


def open_backend(name: str | None, folder: Path, network: Network, threads: int = 1) -> Backend:
    """Open one of BACKENDS, or the fastest available for None. `torch:cuda` names a device.

    `threads`: 1 or more. Raises RemacError if the name is unknown or its engine not installed. Missing or damaged graphs show when they are first
    run (BadNetwork).
    """
    if not isinstance(threads, int) or threads < 1:
        raise RemacError(f"threads {threads!r}: name a whole number from 1 on")
    kind, _, device = (name or available_backend(folder, network)).partition(":")
    if kind == "onnxruntime" and not device:
        from remac_runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
        return OnnxRuntimeBackend(folder, network, threads)
    if kind == "c99" and not device:
        from remac_runtime.backends.c99_backend import C99Backend
        return C99Backend(network, threads)
    if kind == "numpy" and not device:
        from remac_runtime.backends.numpy_backend import NumpyBackend
        return NumpyBackend(network)
    if kind == "torch":
        from remac_runtime.backends.torch_backend import TorchBackend
        return TorchBackend(network, threads, device or "cpu")
    raise RemacError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
