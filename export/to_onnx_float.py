"""A float network of the ground segment from PyTorch to ONNX, opset 17, and the check that both compute the same.

The tracing exporter is used: it keeps opset 17, which the parsers of all TensorRT releases for Jetson read, where the other one may write a newer
opset without a word (`opset_import` is asserted all the same).
"""
from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from export.report import CheckResult
from remac_runtime.errors import BadNetwork
from remac_runtime.files import replacing

OPSET = 17
GREY_LEVELS = 1         # by which backends may differ after rounding to 8 bits: sums in another order fall on the other side of a half


@dataclass(frozen=True)
class Graph:
    """What an exported network is called and takes: names of inputs and outputs, and their dimensions that may vary, {tensor: {axis: name}}."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]


def export(module: torch.nn.Module, example: tuple[torch.Tensor, ...], graph: Graph, path: Path, properties: Mapping[str, str]) -> Path:
    """Write `path` at once or not at all, with `properties` in its metadata. Raises BadNetwork where the exporter did not keep the opset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, example, str(temporary), dynamo=False, opset_version=OPSET, input_names=list(graph.inputs),
                              output_names=list(graph.outputs), dynamic_axes={name: dict(axes) for name, axes in graph.dynamic.items()})
        model = onnx.load(str(temporary))
        found = {opset.domain: opset.version for opset in model.opset_import}
        if found != {"": OPSET}:
            raise BadNetwork(f"{path.name}: the exporter wrote opset {found}, not {OPSET}: use the torch version that pyproject.toml names")
        helper.set_model_props(model, dict(properties))
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return path


def run_torch(module: torch.nn.Module, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The first output for NumPy inputs."""
    with torch.inference_mode():
        result = module(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
    array: np.ndarray = (result[0] if isinstance(result, (tuple, list)) else result).numpy()
    return array


def run_onnx(path: Path, names: Sequence[str], inputs: Sequence[np.ndarray], level: str = "all") -> np.ndarray:
    """The first output by ONNX Runtime on the processor, in one thread; `level` is one of the backend's OPTIMISATION_LEVELS."""
    import onnxruntime

    from remac_runtime.backends.onnxruntime_backend import session_options
    session = onnxruntime.InferenceSession(str(path), session_options(onnxruntime, 1, level), providers=["CPUExecutionProvider"])
    taken = {entry.name for entry in session.get_inputs()}      # the exporter drops inputs that a variant does not use
    array: np.ndarray = session.run(None, {name: x for name, x in zip(names, inputs, strict=True) if name in taken})[0]
    return array


def largest_difference(a: Any, b: Any) -> float:
    """Largest absolute difference of two arrays; nan where one of them has a nan, inf where the shapes differ."""
    if np.shape(a) != np.shape(b):
        return float("inf")
    return float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0.0))


def check_against_torch(name: str, module: torch.nn.Module, path: Path, names: Sequence[str], cases: Sequence[Sequence[np.ndarray]],
                        bound: float = GREY_LEVELS) -> CheckResult:
    """ONNX Runtime with and without its optimisations against PyTorch: the largest difference over all cases is at most `bound`."""
    worst = 0.0
    for inputs in cases:
        expected = run_torch(module, inputs)
        for level in ("disabled", "all"):
            worst = max(worst, largest_difference(expected, run_onnx(path, names, inputs, level)))
    detail = f"largest difference {worst:g}, bound {bound:g}, {len(cases)} pictures"
    return CheckResult(f"{name} equals PyTorch", bool(cases) and worst <= bound, detail)
