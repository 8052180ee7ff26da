"""The exporter, the count of multiply-accumulates, the comparison with the reference, the manifest and the build script."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export import command, layer_checks, manifest, measure, onnx_checks, onnx_memory, report, rover_encoder, to_onnx
from remac_runtime import topology
from remac_runtime.backends import BACKENDS, available_backend
from remac_runtime.bench import cost as bench_cost
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.images import Picture
from remac_runtime.model import Model, load_model
from remac_runtime.network import KERNEL_3, Network, read_network
from remac_runtime.terrain import terrain
from remac_runtime.topology import GRAPHS

Models = dict[str, onnx.ModelProto]


# ---- the exporter

def test_files_pass_every_check(model: Model) -> None:
    results = onnx_checks.check_folder(model.folder, model.network)
    assert len(results) == len(onnx_checks.CHECKS) + 2 and all(result.passed for result in results), results


def test_repeated_export_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    paths = to_onnx.export_graphs(model.network, tmp_path)
    assert [path.name for path in paths] == [f"{graph}.onnx" for graph in GRAPHS] and len(list(tmp_path.iterdir())) == len(paths)
    assert all(path.read_bytes() == (model.folder / path.name).read_bytes() for path in paths)


def test_graphs_have_no_dead_nodes(graphs: Models) -> None:
    for graph in graphs.values():
        used = {name for node in graph.graph.node for name in node.input} | {info.name for info in graph.graph.output}
        assert all(set(node.output) & used for node in graph.graph.node)


# ---- multiply-accumulates

def by_hand(network: Network, height: int, width: int) -> dict[str, float]:
    """MAC per pixel of each layer from FORMAT 4.2: positions times weights; sides are multiples of 64."""
    stride = {"stem": 8, "body": 8, "reduce": 16, "deep": 16, "head": 16, "hyper_in": 32, "hyper_out": 64, "side_in": 64, "side_mid": 64}
    counts = {}
    for name, layer in network.layers.items():
        outputs, kernel, _, inputs = layer.weight.shape
        assert kernel == (3 if name in KERNEL_3 else 1)
        positions = 64 if name == "reference" else height * width / stride.get(name, 32) ** 2
        counts[name] = positions * outputs * kernel * kernel * inputs / (height * width)
    return counts


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1152, 1600)])
def test_counts_are_those_of_the_format(model: Model, height: int, width: int) -> None:
    counts = onnx_checks.count_macs(model.folder, height, width)
    assert list(counts) == list(GRAPHS)
    assert {name: count for layers in counts.values() for name, count in layers.items()} == pytest.approx(by_hand(model.network, height, width))


def test_counts_include_the_padding(model: Model) -> None:
    whole, part = (onnx_checks.count_macs(model.folder, *size)["analysis"]["stem"] for size in ((128, 128), (65, 127)))
    assert part == pytest.approx(whole * 128 * 128 / (65 * 127))


@pytest.mark.filterwarnings("ignore")
def test_costs_counted_from_shapes_are_those_of_the_graphs(model: Model) -> None:
    """`remac bench` counts without any graph."""
    height, width = 100, 200
    counted = {layer: count for graph in onnx_checks.count_macs(model.folder, height, width).values() for layer, count in graph.items()}
    scale = bench_cost.padded_pixels(height, width) / (height * width)
    costs = bench_cost.layer_costs(bench_cost.shape_of(model.network, model.bank), height, width)
    assert {layer.name: pytest.approx(layer.mac * scale) for layer in costs} == counted
    assert sum(bench_cost.by_stage(costs).values()) == pytest.approx(sum(layer.mac for layer in costs))


def test_counts_equal_fvcore(model: Model) -> None:
    """fvcore counts the same data flow as torch runs it."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    from remac_runtime.backends.torch_backend import TorchOps

    class Graph(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.graph, self.ops = name, TorchOps()

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return topology.run(self.ops, model.network, self.graph, inputs)

    m, side = model.network.latents, len(model.network.layers["side_out"].bias) + model.network.reference_features
    shapes = {"pixels": (1, 3, 128, 192), "z": (1, model.network.hyper, 2, 3), "planes": (4, m, 8, 8), "side": (1, side, 4, 6)}
    for graph, layers in onnx_checks.count_macs(model.folder, 128, 192).items():
        inputs = tuple(torch.zeros(shapes.get(name, (1, model.network.context, 4, 6))) for name in topology.INPUTS[graph])
        counter = FlopCountAnalysis(Graph(graph), inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert counter.by_operator()["conv"] == round(sum(layers.values()) * 128 * 192), graph


# ---- memory

def test_peak_memory_by_hand() -> None:
    """x and a, then a and b, then b and its reshaped view and c, with x kept to the end as an input."""
    def of(kind: str, source: str, target: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, [source], [target], **attributes)
    nodes = [of("Relu", "x", "a"), of("Relu", "a", "b"), of("Reshape", "b", "v"), of("Transpose", "v", "t", perm=[0, 3, 1, 2]), of("Relu", "t", "c")]
    infos = [helper.make_tensor_value_info(name, TensorProto.UINT8, [None]) for name in "xc"]
    graph = onnx.helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:]))
    assert onnx_memory.peak_of(graph, {"x": 1, "a": 100, "b": 20, "v": 20, "t": 20, "c": 3}) == 1 + 100 + 20
    assert onnx_memory.peak_of(graph, {"x": 1, "a": 5, "b": 20, "v": 20, "t": 20, "c": 30}) == 1 + 20 + 30


def test_predicted_memory_grows_with_the_picture(model: Model) -> None:
    small, large = (onnx_memory.peak_bytes(model.folder, rows, 512) for rows in (512, 1024))
    assert large == 2 * small > 2 * 512 * 512 * 3


# ---- layers against the reference

@pytest.fixture(scope="module")
def cases(model: Model) -> list[tuple[str, layer_checks.Expected]]:
    return [("terrain", layer_checks.expected(model, terrain(64, 128, 3)))]


def test_layers_equal_the_reference(model: Model, cases: list[tuple[str, layer_checks.Expected]]) -> None:
    result = layer_checks.check_every_layer(model, cases)
    assert result.passed and result.detail.startswith(f"{len(model.network.layers)} layers"), result
    assert layer_checks.check_backend(model, "onnxruntime", cases).passed
    assert layer_checks.check_stream(model, terrain(64, 128, 3)).passed
    assert not layer_checks.check_every_layer(model, []).passed


def test_layer_check_names_the_layer_that_differs(model: Model, cases: list[tuple[str, layer_checks.Expected]]) -> None:
    for name in ("deep", "hidden2", "scale3", "reference"):
        wrong = {**cases[0][1].layers, name: cases[0][1].layers[name].copy()}
        wrong[name][0, 1, 2] += 1
        result = layer_checks.check_every_layer(model, [("terrain", replace(cases[0][1], layers=wrong))])
        assert not result.passed and f"terrain, {name}: 1 of" in result.detail and "[0, 1, 2]" in result.detail
        outputs = [layer for layers in topology.OUTPUTS.values() for layer in layers]
        shipped = layer_checks.check_backend(model, "onnxruntime", [("terrain", replace(cases[0][1], layers=wrong))])
        assert shipped.passed == (name not in outputs)


def test_stream_check_sees_other_graphs(model: Model, tmp_path: Path) -> None:
    """A graph of another network of the same shape, which claims to be of this one."""
    from small_network import write_small_model
    for name in ("network.rmn", "bank.rmb"):
        (tmp_path / name).write_bytes((model.folder / name).read_bytes())
    (tmp_path / "other").mkdir()
    write_small_model(tmp_path / "other", seed=2)
    other = replace(read_network(tmp_path / "other" / "network.rmn"), hash=model.network.hash)
    to_onnx.export_graphs(other, tmp_path)
    assert not layer_checks.check_stream(load_model(tmp_path), terrain(64, 128, 3)).passed


# ---- manifest

@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    for path in model.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest.write_manifest(tmp_path, manifest.describe(tmp_path, model.network, model.bank, 17, {"side": {"side_in": 1.23456}}))
    return tmp_path


def test_manifest_describes_the_folder(folder: Path, model: Model) -> None:
    found = manifest.read_manifest(folder)
    assert model.bank is not None
    assert (found["schema"], found["profile"]) == (1, "small")
    assert (found["codec_hash"], found["bank_hash"]) == (model.network.hash.hex(), model.bank.hash.hex())
    assert set(found["files"]) == {"network.rmn", "bank.rmb", *(f"{graph}.onnx" for graph in GRAPHS)}
    assert found["files"]["network.rmn"]["sha256"].startswith(model.network.hash.hex())       # the codec hash is the start of the file's
    assert found["mac_per_pixel"] == {"side": {"side_in": 1.235}} and {"python", "numpy", "onnx"} <= set(found["tools"])
    assert not list(manifest.differences(folder)) and not list(folder.glob("*.tmp"))


def test_manifest_shows_every_change(folder: Path) -> None:
    content = (folder / "side.onnx").read_bytes()
    (folder / "side.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / "bank.rmb").unlink()
    (folder / "ground").mkdir()
    (folder / "ground" / "moderate@1.onnx").write_bytes(b"new")
    (folder / "ground" / "enhance").mkdir()
    (folder / "ground" / "enhance" / "dictionary.rmc").write_bytes(b"new")
    assert [line.split(":")[0] for line in manifest.differences(folder)] == [
        "bank.rmb", "side.onnx", "ground/moderate@1.onnx", "ground/enhance/dictionary.rmc"]


@pytest.mark.parametrize("there", [True, False])
def test_references_of_another_codec_are_not_exported(there: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from export import marsqe
    weights = tmp_path / "marsqe"
    weights.mkdir()
    (weights / "marsqe.json").write_text(json.dumps({"model": {"kinds": {}}, "dictionary": {"file": "dictionary.rmc"}}))
    if there:
        (weights / "dictionary.rmc").write_bytes(b"no stream")
    before = sorted(folder.rglob("*"))
    assert marsqe.main(["--weights", str(weights), "--out", str(folder)]) == 1
    error = capsys.readouterr().err
    assert f"dictionary.rmc: made with codec an unknown one, {folder} holds {read_network(folder / 'network.rmn').hash.hex()}" in error
    assert error.count("\n") == 1 and "run python -m remac.matching" in error and sorted(folder.rglob("*")) == before


def test_manifest_is_of_what_was_loaded(folder: Path, model: Model) -> None:
    """Each way in which a whole list of the files that are there may still be that of another model."""
    from small_ground import write_small_decoder

    def found(*decoders: str, of: Model = model) -> list[str]:
        described = manifest.describe(folder, of.network, of.bank, 17, {})
        assert not list(manifest.differences(folder, described))
        return list(manifest.offences(described, folder, of.network, of.bank, decoders))
    label, codec = "ground/moderate@1.onnx", model.network.hash.hex()
    assert model.bank is not None and found() == []
    assert found(label) == [f"{label}: not listed"]
    write_small_decoder(folder)
    assert found(label) == found() == [], "a decoder of this codec may lie there from before"
    other = replace(model, network=replace(model.network, hash=b"another1"), bank=replace(model.bank, hash=b"another2"))
    assert [line.split(":")[0] for line in found(label, of=other)] == ["network.rmn", "bank.rmb", label]
    assert found(of=replace(model, bank=None)) == [f"bank.rmb: {model.bank.hash.hex()}, what was loaded and checked is missing"]
    written = onnx.load(str(folder / label))
    helper.set_model_props(written, {"codec_hash": "00" * 8})
    onnx.save(written, str(folder / label))
    assert found(label) == [f"{label}: made for codec {'00' * 8}, the network is {codec}"]
    (folder / label).write_bytes(b"no network")
    assert found() == [f"{label}: made for codec an unknown one, the network is {codec}"]
    (folder / label).unlink()
    (folder / "ground" / "enhance").mkdir()
    references = folder / "ground" / "enhance" / "dictionary.rmc"
    with Encoder(model, "numpy") as encoder:
        references.write_bytes(encoder.encode(Picture(terrain(64, 64, 1)), EncodeOptions(60)))
    assert found() == ["ground/enhance/segmenter.onnx: not listed"]
    references.write_bytes(b"no stream")
    assert found()[1:] == [f"ground/enhance/dictionary.rmc: made with codec an unknown one, the network is {codec}: run python export/marsqe.py, "
                           "then this again"]
    references.rename(folder / "ground" / "enhance" / "segmenter.onnx")
    assert found() == ["ground/enhance/dictionary.rmc: not listed"]
    (folder / "phase2.onnx").unlink()
    assert "phase2.onnx: not listed" in found()


@pytest.mark.parametrize(("content", "message"), [
    ("{", "damaged"), ("[]", "damaged"), ("{}", "damaged"), ('{"schema": 1, "files": {"a": {}}}', "damaged"),
    ('{"schema": 2, "files": {}}', "schema 2, this build reads 1")])
def test_bad_manifests(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / manifest.MANIFEST_FILE).write_text(content)
    with pytest.raises(BadNetwork, match=message):
        list(manifest.differences(tmp_path))


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BadNetwork, match="make encoder"):
        manifest.read_manifest(tmp_path)


# ---- measurement and report

def test_frame_continues_by_mirror_images() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    larger = measure.frame(pixels, 5, 7)
    assert np.array_equal(larger[:, :, 0], pixels[[0, 1, 1, 0, 0]][:, [0, 1, 2, 2, 1, 0, 0], 0])
    assert np.array_equal(measure.frame(pixels, 1, 2), pixels[:1, :2])


def test_jpeg_is_the_largest_that_fits() -> None:
    from PIL import Image

    from remac_runtime.images import Picture
    picture = Picture(terrain(64, 96, 2))
    best = measure.jpeg_within(picture, 3000)
    assert best is not None and best.num_bytes <= 3000 and 20 < best.psnr_db < 60
    larger = measure.jpeg_within(picture, 10 ** 6)
    assert larger is not None and larger.quality == 95 and larger.psnr_db > best.psnr_db
    assert measure.jpeg_within(picture, 50) is None
    assert Image.MAX_IMAGE_PIXELS is not None       # the check against huge pictures stays on


def test_memory_is_that_of_the_encoding_process(model: Model) -> None:
    ballast = np.ones(400 << 20, np.uint8)      # of this process: a child must not be charged with it
    small, large = (measure.memory(model.folder, rows, 1024) for rows in (64, 1024))
    assert large.added_bytes > small.added_bytes and 1024 * 1024 * 3 < large.added_bytes < large.peak_bytes < len(ballast)


def test_failed_measurement_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(RemacError, match="the process that measures memory failed"):
        measure.memory(tmp_path, 64, 64)


def test_table_is_aligned_and_json_is_plain() -> None:
    text = report.render([report.Section("one", [("a", "1"), ("bcd", "234", "words and words")]), report.Section("two", [])])
    assert text.splitlines() == ["one", "---", "  a      1", "  bcd  234  words and words", "", "two", "---"]
    assert report.plain({"a": (math.nan, 1.5, [math.inf])}) == {"a": [None, 1.5, [None]]}


# ---- the build script

def arguments(source: Path, out: Path, sample: Path, *further: str) -> list[str]:
    return ["--network", str(source / "network.rmn"), "--bank", str(source / "bank.rmb"), "--out", str(out), "--sample", str(sample),
            "--data", str(out / "none"), "--runs", "1", *further]


def test_build_without_ground_decoder_fails_and_leaves_no_manifest(
        model: Model, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = rover_encoder.main(arguments(model.folder, tmp_path / "built", samples / "spirit_husband_hill_terrain.png", "--json"))
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert code == 1 and [check["name"] for check in found["checks"] if not check["passed"]] == ["ground decoders built"]
    assert "check failed: ground decoders built" in printed.err and "Traceback" not in printed.err
    assert not found["passed"] and found["points"][0]["psnr_db"] is None and found["points"][0]["num_bytes"] < found["points"][1]["num_bytes"]
    assert f"remac: {tmp_path / 'built'}: gets no manifest.json, as a check failed: mend what is named below and build again\n" in printed.err
    graphs = {f"{graph}.onnx" for graph in GRAPHS}
    assert {path.name for path in (tmp_path / "built").iterdir()} == {"network.rmn", "bank.rmb", *graphs}, "graphs that compute what they should stay"
    assert found["latency"]["engine"] in BACKENDS and found["memory"]["engine"] == "onnxruntime"


def test_a_build_that_computes_otherwise_leaves_no_graphs(
        model: Model, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the manifest of the build before, of which nothing is left."""
    built = tmp_path / "built"
    built.mkdir()
    (built / "manifest.json").write_text("{}")
    monkeypatch.setattr(rover_encoder, "build_ground", lambda weights, folder: (report.CheckResult("ground decoders built", True), []))
    monkeypatch.setattr(rover_encoder, "arithmetic_checks", lambda *_: [report.CheckResult("every layer", False, "stem: 1 of 2")])
    assert rover_encoder.main(arguments(model.folder, built, samples / "spirit_husband_hill_terrain.png")) == 1
    assert "gets no manifest.json, as a check failed; its graphs are removed: mend what is named below" in capsys.readouterr().err
    assert {path.name for path in built.iterdir()} == {"network.rmn", "bank.rmb"}


def test_a_build_whose_files_change_under_it_fails(
        model: Model, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the files that were checked, one is another at the end."""
    def meddles(model: Model, *_: object) -> list[report.CheckResult]:
        (model.folder / "bank.rmb").write_bytes((model.folder / "bank.rmb").read_bytes() + b"x")
        return []
    monkeypatch.setattr(rover_encoder, "build_ground", lambda weights, folder: (report.CheckResult("ground decoders built", True), []))
    monkeypatch.setattr(rover_encoder, "arithmetic_checks", meddles)
    monkeypatch.setattr(measure, "memory", lambda *_: measure.Memory(1, 1, "onnxruntime"))
    assert rover_encoder.main(arguments(model.folder, tmp_path / "built", samples / "spirit_husband_hill_terrain.png")) == 1
    assert "remac: check failed: manifest matches the files: bank.rmb: " in capsys.readouterr().err
    assert not (tmp_path / "built" / "manifest.json").exists()


def test_build_passes_and_prints_one_table(
        model: Model, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rover_encoder, "build_ground", lambda weights, folder: (report.CheckResult("ground decoders built", True), []))
    assert rover_encoder.main(arguments(model.folder, tmp_path / "built", samples / "spirit_husband_hill_terrain.png")) == 0
    printed = capsys.readouterr().out
    assert "total" in printed and "100.0 %" in printed and "FAIL" not in printed
    engine = available_backend(model.folder, model.network)
    assert f"latency, {engine}  " in printed and f"speed, {engine}  " in printed and "memory, onnxruntime, added by the picture  " in printed
    assert not list(manifest.differences(tmp_path / "built")) and not list((tmp_path / "built").rglob("*.tmp"))
    rebuilt = rover_encoder.main(arguments(tmp_path / "built", tmp_path / "built", samples / "spirit_husband_hill_terrain.png"))     # onto itself
    assert rebuilt == 0


def test_budget_is_asserted() -> None:
    assert rover_encoder.count_check("rover-m", {"analysis": {"body": 7000.0}, "side": {"side_in": 1000.0}}).passed
    assert not rover_encoder.count_check("rover-m", {"analysis": {"body": 7000.0}, "side": {"side_in": 1001.0}}).passed
    assert not rover_encoder.count_check("rover-s", {"analysis": {"body": 2001.0}}).passed


def test_stages_are_all_layers(model: Model) -> None:
    assert sorted(layer for layers in rover_encoder.STAGES.values() for layer in layers) == sorted(model.network.layers)


def test_missing_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rover_encoder.main(["--network", str(tmp_path / "none.rmn"), "--out", str(tmp_path / "built")]) == 1
    assert "none.rmn: no such file: name the weights with --network" in capsys.readouterr().err and not (tmp_path / "built").exists()


@pytest.mark.parametrize("runs", ["0", "-1", "two", "1.5", ""])
def test_runs_that_time_nothing_are_refused(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        rover_encoder.parser().parse_args(["--runs", runs])
    assert ended.value.code == 2 and f"argument --runs: '{runs}' is not a whole number from 1 on" in capsys.readouterr().err


def test_samples_that_jpeg_does_not_hold_are_refused_at_the_start(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = tmp_path / "deep_grey.pgm"
    sample.write_bytes(b"P5 256 256 4095\n" + bytes(2 * 256 * 256))
    assert rover_encoder.main(arguments(model.folder, tmp_path / "built", sample)) == 1
    printed = capsys.readouterr().err
    assert "deep_grey.pgm: has samples of 12 bits, JPEG holds 8: convert it to 8 bits a sample" in printed
    assert printed.count("\n") == 1 and not (tmp_path / "built").exists()


@pytest.mark.parametrize(("error", "message"), [
    (BadNetwork("network.rmn: damaged"), "remac: network.rmn: damaged"),
    (ModuleNotFoundError(name="onnxsim"), "remac: onnxsim is not installed: pip install -e '.[export]', or run `make encoder`")])
def test_commands_end_with_one_line(error: Exception, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    @command.reported
    def main(arguments: Sequence[str] | None = None) -> int:
        if arguments:
            return len(arguments)
        raise error
    assert main(["a", "b"]) == 2
    assert main() == 1 and capsys.readouterr().err.splitlines() == [message]
