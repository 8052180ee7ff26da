"""Ground networks as TensorRT engines on an NVIDIA GPU. An engine runs with one GPU architecture and one version of its package only: both, and the
network it was built from, are in NAME.engine.json beside it, and one that does not fit is an error that says how to build another."""
from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadNetwork

PACKAGES = ("tensorrt", "tensorrt_rtx")
SIDECAR_SCHEMA = 1
_MEND = "build one here with `python export/ground_decoder.py --target this-gpu`, or leave --ground-engine tensorrt away"


@dataclass(frozen=True)
class Sidecar:
    """What an engine was built from, for and by. `properties` are the metadata of the ONNX file."""

    engine: str
    engine_sha256: str
    onnx: str
    onnx_sha256: str
    target: str
    package: str
    version: str
    precision: str
    properties: Mapping[str, str]
    fp32_layers: Sequence[str] = ()


def read_sidecar(path: Path) -> Sidecar:
    """Raises BadNetwork."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SIDECAR_SCHEMA:
            raise BadNetwork(f"{path}: schema {content['schema']}, this build reads {SIDECAR_SCHEMA}: {_MEND}")
        return Sidecar(**{field.name: content[field.name] for field in fields(Sidecar)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadNetwork(f"{path}: not the description of an engine ({type(error).__name__}: {error}): {_MEND}") from None


def this_gpu() -> str:
    """The architecture of the first GPU, such as sm86. Raises BadNetwork where there is none."""
    try:
        import torch
    except ImportError:
        raise BadNetwork("TensorRT engines need torch with CUDA beside them: install it, or use onnxruntime") from None
    if not torch.cuda.is_available():
        raise BadNetwork("there is no NVIDIA GPU here: leave --ground-engine tensorrt away")
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def installed_version(name: str) -> str | None:
    """The version of a TensorRT package, None where it is not installed."""
    return str(importlib.import_module(name).__version__) if importlib.util.find_spec(name) is not None else None


def fitting_engine(onnx: Path, gpu: str, versions: Mapping[str, str | None]) -> Sidecar:
    """The engine beside an ONNX file that this GPU and the installed packages, {package: version or None}, run. Raises BadNetwork."""
    sidecars = [read_sidecar(path) for path in sorted(onnx.parent.glob(f"{onnx.stem}.*.engine.json"))]
    if not sidecars:
        raise BadNetwork(f"{onnx}: no engine was built from it: {_MEND}")
    here = [sidecar for sidecar in sidecars if sidecar.target == gpu]
    if not here:
        raise BadNetwork(f"{onnx.stem}: built for {', '.join(sorted({s.target for s in sidecars}))}, this GPU is {gpu}: {_MEND}")
    able = [sidecar for sidecar in here if versions.get(sidecar.package) == sidecar.version]
    if not able:
        found = ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "neither"
        needs = " or ".join(sorted({f"{s.package} {s.version}" for s in here}))
        raise BadNetwork(f"{onnx.stem}: the engine needs {needs}, installed is {found}: {_MEND}")
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    current = [sidecar for sidecar in able if sidecar.onnx_sha256 == digest]
    if not current:
        raise BadNetwork(f"{onnx.with_name(able[0].engine)}: built from another {onnx.name} than the one there: {_MEND}")
    return current[0]


class EngineSession:
    """An engine on the first GPU; memory and streams are torch's."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise BadNetwork(f"{path}: cannot be read ({error.strerror}): {_MEND}") from None
        if hashlib.sha256(plan).hexdigest() != sidecar.engine_sha256:
            raise BadNetwork(f"{path}: not the engine that its .json describes: {_MEND}")
        self.properties = dict(sidecar.properties)
        self._trt: Any = importlib.import_module(sidecar.package)
        self._engine = self._trt.Runtime(self._trt.Logger(self._trt.Logger.WARNING)).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BadNetwork(f"{path}: {sidecar.package} {sidecar.version} does not load it on this GPU: {_MEND}")
        self._context = self._engine.create_execution_context()
        self.path = path

    @classmethod
    def beside(cls, onnx: Path) -> EngineSession:
        """The session of the engine that fits. Raises BadNetwork."""
        versions = {name: installed_version(name) for name in PACKAGES}
        if not any(versions.values()):
            raise BadNetwork("--ground-engine tensorrt needs tensorrt (part of JetPack) or tensorrt_rtx: pip install tensorrt_rtx, or use ONNX")
        sidecar = fitting_engine(onnx, this_gpu(), versions)
        return cls(onnx.with_name(sidecar.engine), sidecar)

    def run(self, inputs: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        import torch
        trt, engine, context = self._trt, self._engine, self._context
        types = trt.DataType
        kinds = {types.FLOAT: torch.float32, types.HALF: torch.float16, types.INT32: torch.int32, types.INT64: torch.int64}
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        held: dict[str, torch.Tensor] = {}
        outputs = []
        for name in names:
            kind = kinds[engine.get_tensor_dtype(name)]
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                held[name] = torch.from_numpy(np.ascontiguousarray(inputs[name])).to("cuda", kind)
                if not context.set_input_shape(name, tuple(held[name].shape)):
                    raise BadNetwork(f"{self.path}: input {name} of {list(held[name].shape)} is beyond what the engine was built for: run without it")
        for name in names:
            if name not in held:
                held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kinds[engine.get_tensor_dtype(name)], device="cuda")
                outputs.append(name)
            context.set_tensor_address(name, held[name].data_ptr())
        stream = torch.cuda.current_stream()
        if not context.execute_async_v3(stream.cuda_stream):
            raise BadNetwork(f"{self.path}: the engine failed on this GPU: use onnxruntime")
        stream.synchronize()
        return tuple(held[name].float().cpu().numpy() for name in outputs)
