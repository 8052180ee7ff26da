"""Engines: half precision with the overflowing layers in float32, building for GPUs that are not here, and refusing what does not fit."""
from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_ground import small_module

from benchmarks.engines import facts as engine_facts
from export import ground_decoder, marsqe, to_half, to_int8, to_tensorrt
from export.to_onnx_float import run_onnx
from remac_runtime import ground_tensorrt
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.ground import INPUTS
from remac_runtime.ground_tensorrt import Sidecar, fitting_engine, read_sidecar

ROOT = Path(__file__).resolve().parents[1]


# ---- half precision

def chain() -> onnx.ModelProto:
    """y = (x * 1000 + 1) * 0.001 - constant: the middle overflows float16 for x beyond 65; then a residual of two paths."""
    constants = {"thousand": 1000.0, "one": 1.0, "thousandth": 0.001, "half": 0.5}
    nodes = [helper.make_node("Mul", ["x", "thousand"], ["a"], name="grow"), helper.make_node("Add", ["a", "one"], ["b"], name="middle"),
             helper.make_node("Mul", ["b", "thousandth"], ["c"], name="shrink"), helper.make_node("Relu", ["c"], ["d"], name="relu"),
             helper.make_node("Sub", ["d", "half"], ["y"], name="last")]
    graph = helper.make_graph(nodes, "chain", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
                              [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = np.array([0.0, -3.0, 17.0, 200.0], np.float32)


def run(model: onnx.ModelProto, tmp_path: Path, x: np.ndarray) -> np.ndarray:
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    return run_onnx(tmp_path / "m.onnx", ("x",), (x,))


def test_layers_that_overflow_stay_in_float32(tmp_path: Path) -> None:
    model = chain()
    assert to_half.kept_layers(model, [{"x": X}]) == ["grow", "middle", "shrink"]
    assert to_half.kept_layers(model, [{"x": X / 100}]) == []
    kept = to_half.to_half(model, ["grow", "middle", "shrink"])
    by_hand = np.maximum((X * 1000 + 1) * np.float32(0.001), 0).astype(np.float16) - np.float16(0.5)
    assert np.array_equal(run(to_half.rounded(kept), tmp_path, X), by_hand)
    assert np.isinf(run(to_half.rounded(to_half.to_half(model, [])), tmp_path, X)).any(), "without them it does overflow"
    assert np.isinf(run(to_half.rounded(to_half.to_half(model, ["grow", "shrink"])), tmp_path, X)).any()


def test_layers_that_give_no_numbers_stay_in_float32(tmp_path: Path) -> None:
    """And a network whose outputs are none is not built: nothing could be told of what its rounding costs."""
    model = chain()
    model.graph.node[3].op_type = "Sqrt"
    negative = {"x": np.array([-3.0, 0.001], np.float32)}
    assert to_half.kept_layers(model, [negative]) == to_half.kept_layers(model, [negative, {"x": X[:1]}]) == ["relu", "last"]
    assert to_half.kept_layers(model, [{"x": np.array([1.0, np.nan], np.float32)}]) == [node.name for node in model.graph.node]
    onnx.save(model, str(tmp_path / "root@1.onnx"))
    for precision, mend in (("fp32", "export it again"), ("fp16", "build it with --precision fp32")):
        for feeds in ([negative], [{"x": X[:1]}, negative]):
            with pytest.raises(RemacError, match=rf"root@1\.onnx: in {precision} it gives values that are no numbers, .*: {mend}"):
                to_tensorrt.prepared(to_tensorrt.Work(tmp_path / "root@1.onnx", {}, feeds), precision)


def test_all_outputs_count_in_what_rounding_costs(tmp_path: Path) -> None:
    model = chain()
    model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n"]))
    onnx.save(model, str(tmp_path / "two@1.onnx"))
    _, kept, (of_y, of_a) = to_tensorrt.prepared(to_tensorrt.Work(tmp_path / "two@1.onnx", {}, [{"x": np.array([7.3331], np.float32)}]), "fp16")
    assert not kept and of_y < 0.01 and of_a > 0.5


def test_types_are_in_the_graph() -> None:
    half = to_half.to_half(chain(), ["grow", "middle", "shrink"])
    types = to_half.tensor_types(half)
    assert [types[name] for name in ("x", "a", "b", "c", "y")] == [TensorProto.FLOAT] * 5
    assert types["d"] == TensorProto.FLOAT16 and [node.op_type for node in half.graph.node].count("Cast") == 2
    assert {t.name: t.data_type for t in half.graph.initializer}["half.half"] == TensorProto.FLOAT16


def test_an_output_that_other_nodes_read(tmp_path: Path) -> None:
    model = chain()
    model.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["n"]))
    half = to_half.to_half(model, [])
    assert [to_half.tensor_types(half)[name] for name in ("d", "y")] == [TensorProto.FLOAT] * 2
    assert np.abs(run(half, tmp_path, X / 100) - run(model, tmp_path, X / 100)).max() < 0.01


def test_a_decoder_in_half_precision_is_within_two_grey_levels(exported: Path) -> None:
    """The latents overflow (2^18 and more); what comes after them is in half precision."""
    work = work_of(exported)
    model, kept, (difference,) = to_tensorrt.prepared(work, "fp16")
    assert 0 < len(kept) < 8 and difference <= 2
    types = to_half.tensor_types(model)
    convolutions = [types[node.output[0]] for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10 and set(convolutions) == {TensorProto.FLOAT16}
    assert TensorProto.UINT8 not in types.values(), "TensorRT has no kernels for bytes"
    assert not list(exported.parent.glob("*.tmp"))
    same, none, nothing = to_tensorrt.prepared(work, "fp32")
    assert (none, nothing) == ([], [0.0]) and TensorProto.FLOAT16 not in to_half.tensor_types(same).values()


def work_of(path: Path) -> to_tensorrt.Work:
    feeds = [dict(zip(INPUTS, ground_decoder.example_inputs(16, 4, 6, seed), strict=True)) for seed in range(2)]
    return to_tensorrt.Work(path, {"y_hat": [(2, 2, 16), (8, 8, 16), (16, 16, 16)]}, feeds)


# ---- int8

def test_convolutions_in_int8(exported: Path) -> None:
    """Weights become bytes and sums float32; the layers named are left alone, and a network without real inputs is refused."""
    inputs = [dict(zip(INPUTS, ground_decoder.example_inputs(16, 8, 8, seed), strict=True)) for seed in range(2)]
    work = replace(work_of(exported), calibration=inputs, float_weights=ground_decoder.FLOAT_WEIGHTS)
    model, _, (difference,) = to_tensorrt.prepared(work, "int8")
    types = to_half.tensor_types(model)
    convolutions = {node.input[1]: types[node.output[0]] for node in model.graph.node if node.op_type == "Conv"}
    quantised = {name for name in convolutions if name.endswith(".restored")}
    assert quantised and all(types[name.replace(".restored", ".int8")] == TensorProto.INT8 for name in quantised)
    assert not any(name.startswith(ground_decoder.FLOAT_WEIGHTS) for name in quantised) and len(convolutions) > len(quantised)
    assert {convolutions[name] for name in quantised} == {TensorProto.FLOAT} and difference > 0
    with pytest.raises(RemacError, match="no int8 of this network"):
        to_tensorrt.prepared(work_of(exported), "int8")


def test_the_same_network_gives_the_same_int8_file(exported: Path) -> None:
    """Names come out of a set, whose order changes from process to process."""
    inputs = [dict(zip(INPUTS, ground_decoder.example_inputs(16, 8, 8), strict=True))]
    model, _ = to_int8.to_int8(onnx.load(str(exported)), ground_decoder.FLOAT_WEIGHTS, inputs)
    quantised = [tensor.name for tensor in model.graph.initializer if tensor.name.endswith(".int8") and tensor.data_type == TensorProto.INT8]
    assert len(quantised) > 10 and quantised == sorted(quantised)


def test_coarser_steps_of_int8_show(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [dict(zip(INPUTS, ground_decoder.example_inputs(16, 8, 8, seed), strict=True)) for seed in range(2)]
    work = replace(work_of(exported), calibration=inputs, float_weights=ground_decoder.FLOAT_WEIGHTS)
    fine = to_tensorrt.prepared(work, "int8")[2]
    monkeypatch.setattr(to_int8, "LARGEST", 7)
    assert to_tensorrt.prepared(work, "int8")[2] > fine


def test_int8_is_calibrated_on_the_samples() -> None:
    found = ground_decoder.calibration_inputs(ROOT / "weights" / "rover-m")
    assert {float(feed["quality"][0]) for feed in found} == set(ground_decoder.CALIBRATED_QUALITIES) and len(found) > 8
    assert {feed["y_hat"].shape[:2] for feed in found} == {(ground_decoder.CALIBRATED_WINDOW,) * 2}


def test_int8_engines_are_built_without_a_gpu(exported: Path) -> None:
    builder()
    inputs = [dict(zip(INPUTS, ground_decoder.example_inputs(16, 8, 8), strict=True))]
    engine = to_tensorrt.build(replace(work_of(exported), calibration=inputs, float_weights=ground_decoder.FLOAT_WEIGHTS), "sm89", "int8")
    described = engine_facts(engine.with_name(engine.name + ".json"))
    assert described["precision"] == "int8" and described["convolutions"]["INT8"] > described["convolutions"]["HALF"] > 0


# ---- building

@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground_decoder.export_module(small_module(), tmp_path_factory.mktemp("engines"), "0123456789abcdef")[0].path


def builder() -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: pip install -e '.[engines]'")


@pytest.mark.parametrize("target", ["sm86", "sm89"])
def test_engines_are_built_without_a_gpu(exported: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    builder()
    engine = to_tensorrt.build(work_of(exported), target, "fp16")
    printed = capsys.readouterr().out
    assert engine.name == f"tiny@1.{target}.fp16.engine" and engine.stat().st_size > 100_000
    assert f"{engine.stat().st_size:,} bytes for {target}, tensorrt_rtx" in printed
    assert "CONVOLUTION HALF" in printed and "kept in fp32, as they overflow or sum squares: /Cast" in printed
    sidecar = read_sidecar(engine.with_name(engine.name + ".json"))
    assert sidecar.engine_sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert sidecar.onnx_sha256 == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert (sidecar.target, sidecar.package, sidecar.properties["ground"]) == (target, "tensorrt_rtx", "tiny@1")
    assert fitting_engine(exported, target, {"tensorrt_rtx": sidecar.version}) == sidecar
    layers = json.loads(engine.with_name(engine.name + ".json").read_text())["layers"]
    assert sum(kind == "CONVOLUTION" for _, kind, _ in layers) > 10
    assert not list(engine.parent.glob("*.tmp"))


def test_the_deep_decoder_builds_without_a_gpu(tmp_path: Path) -> None:
    """Its real graph; only the weights are random, so that rounding costs more than it does after training."""
    builder()
    path = ground_decoder.export_module(small_module(name="deep"), tmp_path, "0123456789abcdef")[0].path
    for target in ("sm86", "sm89"):
        engine = to_tensorrt.build(work_of(path), target, "fp16")
        described = engine_facts(engine.with_name(engine.name + ".json"))
        assert (described["network"], described["target"], described["bytes"]) == (path.stem, target, engine.stat().st_size)
        assert described["convolutions"]["HALF"] > 50 and 0 < len(described["kept_in_fp32"]) < 8 and described["largest_difference"] < 255


def test_a_graph_that_does_not_build_is_one_line(tmp_path: Path) -> None:
    builder()
    node, x = helper.make_node("NonZero", ["x"], ["y"], name="n"), helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    graph = helper.make_graph([node], "g", [x], [helper.make_tensor_value_info("y", TensorProto.INT64, [1, "n"])])
    path = tmp_path / "bad@1.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    with pytest.raises(RemacError, match=r"tensorrt_rtx failed|died of signal") as error:
        to_tensorrt.build(to_tensorrt.Work(path, {}, [{"x": np.ones(3, np.float32)}]), "sm86", "fp32")
    assert "\n" not in str(error.value) and [p.name for p in tmp_path.iterdir()] == ["bad@1.onnx"]


def test_a_builder_that_crashes_is_survived(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(to_tensorrt, "package", lambda: "tensorrt_rtx")
    with pytest.raises(RemacError, match="died of signal 11"):
        to_tensorrt.build(work_of(exported), "sm120", "fp32")
    assert not list(exported.parent.glob("*sm120*")) and not list(exported.parent.glob("*.tmp"))


def test_targets_that_cannot_be_built(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(to_tensorrt, "package", lambda: "tensorrt_rtx")
    monkeypatch.setattr(to_tensorrt, "this_gpu", lambda: "sm87")
    with pytest.raises(RemacError, match="tensorrt_rtx cannot build for sm87"):
        to_tensorrt.build(work_of(exported), "this-gpu", "fp32")
    monkeypatch.setattr(to_tensorrt, "package", lambda: "tensorrt")
    with pytest.raises(RemacError, match="builds for the GPU it runs on, sm87, not for sm86"):
        to_tensorrt.build(work_of(exported), "sm86", "fp32")

    def no_gpu() -> str:
        raise BadNetwork("there is no NVIDIA GPU here: leave it away")
    monkeypatch.setattr(to_tensorrt, "this_gpu", no_gpu)
    for command in (ground_decoder, marsqe):        # nothing is exported before the target is known
        assert command.main(["--out", str(tmp_path / "out"), "--target", "this-gpu"]) == 1
        assert capsys.readouterr().err.endswith("(there is no NVIDIA GPU here): name the architecture, one of sm75, sm80, sm86, sm89, sm120, sm121\n")
    assert not (tmp_path / "out").exists()
    assert f"`--target {'|'.join(to_tensorrt.TARGETS)}`" in (ROOT / "CHANGELOG.md").read_text()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RemacError, match="pip install"):
        to_tensorrt.package()


def test_what_an_orin_gets(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = to_tensorrt.build(work_of(exported), "orin", "fp16")
    assert sorted(path.name for path in folder.iterdir()) == ["build_engine.py", "check.npz", "request.json", "tiny@1.fp16.onnx", "trtexec.txt"]
    printed, lines = capsys.readouterr().out, (folder / "trtexec.txt").read_text().splitlines()
    assert all(f"\n  {line}\n" in printed for line in lines) and lines == [
        "/usr/src/tensorrt/bin/trtexec --onnx=tiny@1.fp16.onnx --saveEngine=tiny@1.sm87.fp16.engine --stronglyTyped "
        "--minShapes=y_hat:2x2x16 --optShapes=y_hat:8x8x16 --maxShapes=y_hat:16x16x16",
        "python3 build_engine.py --plan tiny@1.sm87.fp16.engine"]
    ast.parse((folder / "build_engine.py").read_text(), feature_version=(3, 8))
    check = np.load(folder / "check.npz")
    feed = {name[3:]: check[name] for name in check.files if name.startswith("in_")}
    found = run_onnx(folder / "tiny@1.fp16.onnx", list(feed), list(feed.values()))
    request = json.loads((folder / "request.json").read_text())
    (output, bound), = request["bounds"].items()
    assert bound < 4 and np.abs(found - check[f"out_{output}"]).max() <= bound
    assert request["source_sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["build_engine.py", "check.npz", "request.json", "tiny@1.fp16.onnx", "trtexec.txt"])
def test_what_an_orin_gets_is_whole_or_as_it_was(name: str, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power goes, or the disk is full, when one of the files is written again."""
    folder = to_tensorrt.build(work_of(exported), "orin", "fp16")
    before, replace_file = {path.name: path.read_bytes() for path in folder.iterdir()}, Path.replace

    def fails(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(28, "No space left on device", str(target))
        return replace_file(self, target)
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        to_tensorrt.build(work_of(exported), "orin", "fp16")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# ---- engines that do not fit

@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """deep@1.onnx with engines for sm86 and sm89 by tensorrt_rtx 1.7."""
    path = tmp_path / "deep@1.onnx"
    path.write_bytes(b"network")
    for target in ("sm86", "sm89"):
        engine = tmp_path / f"deep@1.{target}.fp16.engine"
        engine.write_bytes(target.encode())
        sidecar = Sidecar(engine.name, hashlib.sha256(target.encode()).hexdigest(), path.name, hashlib.sha256(b"network").hexdigest(), target,
                          "tensorrt_rtx", "1.7", "fp16", {})
        write(sidecar, engine.with_name(engine.name + ".json"))
    return path


def write(sidecar: Sidecar, path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**asdict(sidecar), "schema": 1, **changes}))


HERE = {"tensorrt": None, "tensorrt_rtx": "1.7"}


def test_the_engine_of_this_gpu_is_taken(engines: Path) -> None:
    assert fitting_engine(engines, "sm89", HERE).engine == "deep@1.sm89.fp16.engine"


def test_engines_that_do_not_fit_tell_the_mend(engines: Path) -> None:
    mend = "build one here with `python export/ground_decoder.py --target this-gpu`"
    with pytest.raises(BadNetwork, match=f"built for sm86, sm89, this GPU is sm120: {mend}"):
        fitting_engine(engines, "sm120", HERE)
    with pytest.raises(BadNetwork, match=f"the engine needs tensorrt_rtx 1.7, installed is tensorrt 10.3, tensorrt_rtx 1.8: {mend}"):
        fitting_engine(engines, "sm86", {"tensorrt": "10.3", "tensorrt_rtx": "1.8"})
    engines.write_bytes(b"exported again")
    with pytest.raises(BadNetwork, match=f"built from another deep@1.onnx than the one there: {mend}"):
        fitting_engine(engines, "sm86", HERE)
    with pytest.raises(BadNetwork, match=f"no engine was built from it: {mend}"):
        fitting_engine(engines.with_name("moderate@1.onnx"), "sm86", HERE)


@pytest.mark.parametrize("change", [{"schema": 2}, {"schema": None}, {"target": ...}])
def test_damaged_descriptions(engines: Path, change: dict[str, Any]) -> None:
    path = engines.with_name("deep@1.sm86.fp16.engine.json")
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(BadNetwork, match="build one here"):
        fitting_engine(engines, "sm86", HERE)
    path.write_text("{")
    with pytest.raises(BadNetwork, match="not the description of an engine"):
        fitting_engine(engines, "sm86", HERE)


def test_a_changed_engine_file_is_refused(engines: Path) -> None:
    sidecar = fitting_engine(engines, "sm86", HERE)
    with pytest.raises(BadNetwork, match=r"not the engine that its \.json describes"):
        ground_tensorrt.EngineSession(engines, sidecar)
    with pytest.raises(BadNetwork, match="cannot be read"):
        ground_tensorrt.EngineSession(engines.with_name("absent.engine"), replace(sidecar, engine="absent.engine"))


def test_without_gpu_or_package(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_tensorrt, "installed_version", lambda name: None)
    with pytest.raises(BadNetwork, match="pip install tensorrt_rtx"):
        ground_tensorrt.EngineSession.beside(engines)
    import torch
    if not torch.cuda.is_available():
        with pytest.raises(BadNetwork, match="no NVIDIA GPU here"):
            ground_tensorrt.this_gpu()
