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


def torch_outputs(module: torch.nn.Module, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All outputs for NumPy inputs."""
    with torch.inference_mode():
        result = module(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
    return [output.numpy() for output in (result if isinstance(result, (tuple, list)) else (result,))]


def run_torch(module: torch.nn.Module, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The first output for NumPy inputs."""
    return torch_outputs(module, inputs)[0]


def onnx_outputs(path: Path, names: Sequence[str], inputs: Sequence[np.ndarray], level: str = "all") -> list[np.ndarray]:
    """All outputs by ONNX Runtime on the processor, in one thread; `level` is one of the backend's OPTIMISATION_LEVELS."""
    import onnxruntime

    from remac_runtime.backends.onnxruntime_backend import session_options
    session = onnxruntime.InferenceSession(str(path), session_options(onnxruntime, 1, level), providers=["CPUExecutionProvider"])
    taken = {entry.name for entry in session.get_inputs()}      # the exporter drops inputs that a variant does not use
    arrays: list[np.ndarray] = session.run(None, {name: x for name, x in zip(names, inputs, strict=True) if name in taken})
    return arrays


def run_onnx(path: Path, names: Sequence[str], inputs: Sequence[np.ndarray], level: str = "all") -> np.ndarray:
    """The first output by ONNX Runtime, see `onnx_outputs`."""
    return onnx_outputs(path, names, inputs, level)[0]


def largest_difference(a: Any, b: Any) -> float:
    """Largest absolute difference of two arrays; nan where one of them has a nan, inf where the shapes differ."""
    if np.shape(a) != np.shape(b):
        return float("inf")
    return float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0.0))


def largest_differences(a: Sequence[Any], b: Sequence[Any]) -> list[float]:
    """`largest_difference` of each output of two networks; inf for all where these do not have as many."""
    return [largest_difference(x, y) for x, y in zip(a, b, strict=True)] if len(a) == len(b) else [float("inf")] * len(a)


def check_against_torch(name: str, module: torch.nn.Module, path: Path, names: Sequence[str], cases: Sequence[Sequence[np.ndarray]],
                        bounds: Sequence[float] = (GREY_LEVELS,)) -> CheckResult:
    """ONNX Runtime with and without its optimisations against PyTorch: the largest difference of each output over all cases is at most its bound."""
    found = []
    for inputs in cases:
        expected = torch_outputs(module, inputs)
        found += [largest_differences(expected, onnx_outputs(path, names, inputs, level)) for level in ("disabled", "all")]
    worst = np.max(found, axis=0) if found else np.zeros(len(bounds))       # not max(), which passes over nan
    passed = bool(cases) and len(worst) == len(bounds) and bool(np.all(worst <= np.asarray(bounds)))
    listed = [", ".join(f"{value:g}" for value in values) for values in (worst, bounds)]
    return CheckResult(f"{name} equals PyTorch", passed, f"largest difference {listed[0]}, bound {listed[1]}, {len(cases)} pictures")
