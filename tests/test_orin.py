"""The script that builds, checks and describes an engine on an Orin, with TensorRT and the GPU in name only."""
from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export import to_tensorrt
from remac_runtime.ground_tensorrt import fitting_engine, read_sidecar


class FakeEngine:
    """An engine, and its context, whose plan is the ONNX file and whose memory is that of the processor."""

    def __init__(self, plan: bytes) -> None:
        import onnxruntime
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = ([entry.name for entry in entries] for entries in (self.session.get_inputs(), self.session.get_outputs()))
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def create_execution_context(self) -> FakeEngine:
        return self

    def get_tensor_name(self, number: int) -> str:
        return [*self.inputs, *self.outputs][number]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "FLOAT"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def results(self) -> dict[str, np.ndarray]:
        held = {name: ctypes.string_at(self.addresses[name], 4 * math.prod(self.shapes[name])) for name in self.inputs}
        found = self.session.run(None, {name: np.frombuffer(content, np.float32).reshape(self.shapes[name]) for name, content in held.items()})
        return dict(zip(self.outputs, found, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.results()[name].shape

    def execute_async_v3(self, stream: int) -> None:
        for name, x in self.results().items():
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(x).ctypes.data, x.nbytes)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[..., None]]:
    """What an Orin gets of a network with outputs of three shapes, and its script, whose building is only a copy."""
    import torch
    nodes = [helper.make_node("Relu", ["x"], ["first"]), helper.make_node("Transpose", ["x"], ["second"]),
             helper.make_node("ReduceMean", ["x"], ["third"])]
    shapes: dict[str, list[str | int | None]] = {"first": ["n", 3], "second": [3, "n"], "third": [1, 1]}
    graph = helper.make_graph(nodes, "three", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
                              [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()])
    path = tmp_path / "tiny@1.references.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    feed = {"x": np.arange(-3, 3, dtype=np.float32).reshape(2, 3)}
    folder = to_tensorrt.build(to_tensorrt.Work(path, {"x": [(1, 3), (2, 3), (4, 3)]}, [feed]), "orin", "fp32")

    trt = ModuleType("tensorrt")
    logger, empty = type("Logger", (), {"WARNING": 0, "__init__": lambda self, level: None}), torch.empty
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: FakeEngine(plan) if plan != b"of another version" else None)
    trt.__dict__.update(__version__="10.3", Logger=logger, Runtime=lambda log: runtime, TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"))
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, device: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(cuda_stream=0, synchronize=lambda: None))
    spec = importlib.util.spec_from_file_location("build_engine", folder / "build_engine.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def build(trt: Any, request: dict[str, Any]) -> bytes:
        return (folder / request["onnx"]).read_bytes()
    monkeypatch.setattr(script, "build", build)

    def called(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["build_engine.py", *arguments])
        script.main()
    return folder, called


def test_the_board_checks_all_outputs(board: tuple[Path, Callable[..., None]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, script = board
    script()
    printed = capsys.readouterr().out
    assert all(f"{name}: largest difference from ONNX Runtime 0, bound " in printed for name in ("first", "second", "third"))
    for name in ("tiny@1.references.sm87.fp32.engine", "tiny@1.references.sm87.fp32.engine.json"):
        (folder / name).rename(folder.parent / name)
    sidecar = fitting_engine(folder.parent / "tiny@1.references.onnx", "sm87", {"tensorrt": "10.3"})
    assert sidecar.engine_sha256 == hashlib.sha256((folder.parent / sidecar.engine).read_bytes()).hexdigest()
    assert not list(folder.glob("*.unchecked"))


def test_a_plan_built_before_is_checked_and_described(board: tuple[Path, Callable[..., None]], tmp_path: Path) -> None:
    """As trtexec writes it, in place or elsewhere; one that is wrong gets no description."""
    folder, script = board
    plan = folder / "tiny@1.references.sm87.fp32.engine"
    content = (folder / "tiny@1.references.fp32.onnx").read_bytes()
    wrong = onnx.load_from_string(content)
    wrong.graph.node[0].op_type = "Exp"
    last = onnx.load_from_string(content)
    last.graph.node[2].op_type = "ReduceMax"
    other = onnx.load_from_string(content)
    del other.graph.output[0]
    for bad, message in ((wrong.SerializeToString(), r"the engine is wrong here \(first\)"),
                         (last.SerializeToString(), r"the engine is wrong here \(third\)"), (other.SerializeToString(), "built from another network"),
                         (b"of another version", "TensorRT 10.3 does not load the engine")):
        plan.write_bytes(bad)
        with pytest.raises(SystemExit, match=message):
            script("--plan", str(plan))
    with pytest.raises(SystemExit, match="cannot be read"):
        script("--plan", str(tmp_path / "absent"))
    assert not plan.with_name(plan.name + ".json").exists()
    for path in (plan, tmp_path / "elsewhere.plan"):
        path.write_bytes(content)
        script("--plan", str(path))
        assert plan.read_bytes() == content and read_sidecar(plan.with_name(plan.name + ".json")).version == "10.3"
        plan.with_name(plan.name + ".json").unlink()
        plan.unlink()


def test_a_check_that_fails_keeps_what_took_long_to_build(board: tuple[Path, Callable[..., None]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, script = board
    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "execute_async_v3", lambda self, stream: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            script()
    unchecked = folder / "tiny@1.references.sm87.fp32.engine.unchecked"
    assert unchecked.is_file() and not list(folder.glob("*.engine"))
    script("--plan", str(unchecked))
    assert not unchecked.exists() and list(folder.glob("*.engine.json"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="torch is missing"):       # before the build
        script()
