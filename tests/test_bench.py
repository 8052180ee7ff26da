"""The benchmark of the encoder: its statistics by hand, what it warns of, that it times nothing but verified bytes, and what results it takes in."""
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remac_runtime import cli, native
from remac_runtime.bench import cost as bench_cost
from remac_runtime.bench import energy as bench_energy
from remac_runtime.bench import environment as bench_environment
from remac_runtime.bench import files as bench_files
from remac_runtime.bench import harness as bench
from remac_runtime.bench import memory as bench_memory
from remac_runtime.bench import stages as bench_stages
from remac_runtime.bench import stats as bench_stats
from remac_runtime.bench.stats import Caution, Summary
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.images import Picture
from remac_runtime.model import load_model
from remac_runtime.terrain import terrain

# ---- statistics


def test_percentiles_are_nearest_ranks() -> None:
    summary = Summary(tuple(range(100, 0, -1)))         # 1..100 in another order
    assert [summary.percentile(p) for p in (1, 50, 90, 99, 100)] == [1, 50, 90, 99, 100]
    assert summary.median == 50.5 and summary.spread == pytest.approx((75 - 25) / 50.5)
    assert Summary((0.002,)).to_json() == {"p50_ms": 2.0, "p90_ms": 2.0, "p99_ms": 2.0, "min_ms": 2.0, "spread": 0.0, "samples_ms": [2.0]}


def cautions(*samples: float) -> set[Caution]:
    return {found.caution for found in bench_stats.of_samples(Summary(samples))}


STEADY = (10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1, 9.9, 10.0, 10.0, 10.1)


def test_samples_that_give_something_away() -> None:
    assert cautions(*STEADY) == set()
    assert cautions(16.0, *STEADY) == {Caution.SLOW_FIRST, Caution.OUTLIERS}
    assert cautions(*STEADY, 14.0, *STEADY) == {Caution.OUTLIERS}
    assert cautions(*STEADY[:9]) == {Caution.FEW_SAMPLES}
    assert Caution.THROTTLING in cautions(*STEADY, *(1.2 * sample for sample in STEADY))
    assert bench_stats.outliers([1.0] * 20) == []


@pytest.mark.parametrize(("before", "after", "share", "emulated", "expected"), [
    ({}, {}, 1.0, None, set()), ({"load": 0.4, "clock_mhz": 1000, "celsius": 50}, {"clock_mhz": 1020, "celsius": 60}, 0.99, None, set()),
    ({"load": 0.9}, {}, None, None, {Caution.OTHER_LOAD}), ({}, {}, 0.8, None, {Caution.OTHER_LOAD}),
    ({"clock_mhz": 1000}, {"clock_mhz": 900}, None, None, {Caution.FREQUENCY}), ({}, {"celsius": 85.0}, None, None, {Caution.THROTTLING}),
    ({"throttle_count": 3}, {"throttle_count": 4}, None, None, {Caution.THROTTLING}), ({}, {}, None, "qemu-aarch64", {Caution.EMULATED}),
])
def test_a_machine_that_gives_something_away(before: dict[str, Any], after: dict[str, Any], share: float | None, emulated: str | None,
                                            expected: set[Caution]) -> None:
    assert {found.caution for found in bench_stats.of_machine(before, after, share, emulated)} == expected


def test_every_caution_has_a_remedy() -> None:
    assert all(caution.word and len(caution.remedy) > 10 for caution in Caution)
    assert len({caution.word for caution in Caution}) == len(Caution)


def test_tasks_run_in_turn_and_keep_every_sample() -> None:
    order: list[str] = []
    timings = bench_stats.timed_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, warmup=2)
    assert order == ["a", "a", "b", "b", *"ababab"] and all(len(timing.samples) == 3 for timing in timings.values())
    slow = bench_stats.timed_in_turn({"slow": lambda: time.sleep(0.002), "quick": lambda: None}, 6, budget_s=0.001)
    assert len(slow["slow"].samples) == 3 and len(slow["quick"].samples) == 6


# ---- stages

def test_stage_times_are_exclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = bench_stages.StageClock()

    def spend(seconds: float) -> None:
        now[0] += seconds
    with clock.stage(bench_stages.OTHER):
        spend(1)
        clock.wrapped(spend, bench_stages.CODING)(10)
        with clock.stage(bench_stages.QUANTISE):
            spend(100)
            clock.wrapped(spend, bench_stages.CODING)(1000)
        spend(2)
    spend(10_000)
    assert {name: seconds for name, seconds in clock.seconds.items() if seconds} == {
        bench_stages.OTHER: 3, bench_stages.CODING: 1010, bench_stages.QUANTISE: 100}


def test_the_codec_has_every_probed_function_and_gets_it_back(small_model: Path) -> None:
    import importlib
    picture = Picture(terrain(64, 128, 1))
    with Encoder(load_model(small_model), "numpy") as encoder:
        plain, clock = encoder.encode(picture), bench_stages.StageClock()
        with bench_stages.attached(clock, encoder), clock.stage(bench_stages.OTHER):
            assert encoder.encode(picture) == plain
        assert all(clock.seconds[name] > 0 for name in bench_stages.STAGES if name not in (bench_stages.LOAD, bench_stages.WRITE))
        assert not {"run", "analyse"} & set(encoder.backend.__dict__)
    for place, name, _ in bench_stages.PROBES:
        module, _, inner = place.partition(":")
        owner: Any = importlib.import_module(module)
        function = getattr(getattr(owner, inner) if inner else owner, name)
        assert function.__name__ != "timed"


@pytest.mark.skipif(native.library is None, reason="the C extension is not built")
def test_an_analysis_strip_by_strip_is_no_other_time(small_model: Path) -> None:
    """c99 analyses without a graph of that name."""
    with Encoder(load_model(small_model), "c99") as encoder:
        clock = bench_stages.StageClock()
        with bench_stages.attached(clock, encoder), clock.stage(bench_stages.OTHER):
            encoder.encode(Picture(terrain(64, 128, 1)))
    assert clock.seconds[bench_stages.ANALYSIS] > 0


# ---- cost and memory

def test_memory_grows_with_the_picture_and_shrinks_with_strips(small_model: Path) -> None:
    model = load_model(small_model)
    shape = bench_cost.shape_of(model.network, model.bank)
    whole, strips, double = (bench_cost.memory(shape, *size) for size in ((1024, 1024), (1024, 1024, 64), (2048, 1024)))
    assert strips.analysis_bytes < whole.analysis_bytes and strips.phase_bytes < whole.phase_bytes
    assert strips.added_bytes("numpy") < whole.added_bytes("numpy")
    assert whole.added_bytes("onnxruntime") >= whole.entropy_bytes + whole.analysis_bytes
    assert double.analysis_bytes == 2 * whole.analysis_bytes and double.entropy_bytes == pytest.approx(2 * whole.entropy_bytes, abs=2)
    assert whole.model_bytes == shape.model_bytes > sum(layer.weight.size for layer in model.network.layers.values())


def test_memory_of_a_fresh_process(small_model: Path) -> None:
    small, large = (bench_memory.fresh_process(small_model, f"noise:1024x{rows}", backend="numpy") for rows in (64, 1024))
    assert large.added_bytes > small.added_bytes and large.peak_bytes >= large.after_bytes and large.cold_start_s > 0
    with pytest.raises(RemacError, match="the process that measures memory failed"):
        bench_memory.fresh_process(small_model / "nothing", "noise:64x64")


# ---- energy and environment

def test_energy_from_rapl(tmp_path: Path) -> None:
    package = tmp_path / "rapl" / "intel-rapl:0"
    package.mkdir(parents=True)
    (package / "energy_uj").write_text("900000")
    (package / "max_energy_range_uj").write_text("1000000")
    sensor = bench_energy.Sensor(tmp_path / "rapl", tmp_path / "none")
    sensor.start()
    (package / "energy_uj").write_text("400000")            # the counter has wrapped: 0.1 J to the top, 0.4 J from there
    reading = sensor.stop()
    assert sensor.name == "RAPL" and reading is not None and reading.joules == pytest.approx(0.5)


def test_energy_from_a_jetson(tmp_path: Path) -> None:
    chip = tmp_path / "hwmon3"
    chip.mkdir()
    for name, text in {"name": "ina3221", "in1_label": "VDD_CPU", "in2_label": "VDD_IN", "in2_input": "5000", "curr2_input": "2000"}.items():
        (chip / name).write_text(text + "\n")
    sensor = bench_energy.Sensor(tmp_path / "none", tmp_path)
    result = bench_energy.measure(lambda: time.sleep(0.05), 2, idle_s=0.05, sensor=sensor)
    assert result["sensor"] == "INA3221" and result["watts"] == pytest.approx(10) and result["idle_watts"] == pytest.approx(10)


def test_no_sensor_is_an_answer(tmp_path: Path) -> None:
    result = bench_energy.measure(lambda: None, 2, sensor=bench_energy.Sensor(tmp_path, tmp_path))
    assert result["available"] is False and "no readable sensor" in result["reason"]


@pytest.mark.parametrize(("name", "expected"), [("qemu-aarch64-st", "qemu-aarch64-st"), ("python3", None), (None, None)])
def test_emulators_are_recognised(monkeypatch: pytest.MonkeyPatch, name: str | None, expected: str | None) -> None:
    monkeypatch.setattr(bench_environment, "read", lambda path: name)
    assert bench_environment.emulation() == expected


def test_the_environment_is_whole_and_serialisable() -> None:
    found = bench_environment.environment() | bench_environment.state()
    json.dumps(found, allow_nan=False)
    assert found["processor"]["model"] and found["versions"]["numpy"] == np.__version__ and found["emulated"] is None


# ---- a run

@pytest.fixture(scope="module")
def result(small_model: Path) -> dict[str, Any]:
    return bench.run(bench.BenchOptions(small_model, "rpi5", "numpy", size=(128, 64), rounds=2, warmup=1))


def test_a_run_measures_everything(result: dict[str, Any]) -> None:
    assert result["verified"]["against"] == ["strips of 64 rows", "reference codec, 128x64"] and result["verified"]["stream_bytes"] > 100
    assert set(result["timings"]["stages"]) == set(bench_stages.STAGES)
    assert all(len(result["timings"][name]["samples_ms"]) == 2 for name in ("pixels_to_bytes", "file_to_file"))
    assert result["memory"]["available"] and result["cost"]["mac_per_pixel"] > 0 and result["picture"]["synthetic"]
    assert "few samples" in {warning["warning"] for warning in result["warnings"]}
    from remac_runtime.bench.command import lines
    text = "\n".join(lines(result))
    assert "range coding" in text and "board rpi5" in text and "not available" in text


def test_two_runs_give_the_same_bytes(result: dict[str, Any], small_model: Path) -> None:
    with Encoder(load_model(small_model), "numpy") as encoder:
        stream = encoder.encode(Picture(terrain(64, 128, bench.SEED)), EncodeOptions(quality=bench.QUALITY))
    import hashlib
    assert result["verified"]["stream_sha256"] == hashlib.sha256(stream).hexdigest()


def test_nothing_is_timed_when_the_bytes_are_wrong(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from remac_runtime.backends.numpy_backend import NumpyBackend
    compute = NumpyBackend.compute

    def wrong(self: NumpyBackend, graph: str, inputs: Any) -> Any:
        outputs = compute(self, graph, inputs)
        return (outputs[0] + 4096, *outputs[1:]) if graph == "analysis" else outputs
    monkeypatch.setattr(NumpyBackend, "compute", wrong)
    monkeypatch.setattr(bench, "_timings", lambda *arguments: pytest.fail("something was timed"))
    with pytest.raises(bench.BenchFailed, match="reference codec differ from byte"):
        bench.run(bench.BenchOptions(small_model, None, "numpy", size=(128, 64), rounds=2))


# ---- results as files

@pytest.fixture
def shared(result: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "rpi5.json"
    path.write_text(json.dumps(bench_files.sealed(result)))
    return path


def test_a_result_is_imported_once(shared: Path, tmp_path: Path) -> None:
    added, result = bench_files.import_result(shared, tmp_path / "results")
    assert added.parent == tmp_path / "results" and added.name.startswith("rpi5-numpy-1-") and result["board"] == "rpi5"
    assert bench_files.load_result(added) == result
    (tmp_path / "results" / "0.json").write_text("{")
    (tmp_path / "results" / "1.json").write_text("[]")
    with pytest.raises(bench_files.BadResult, match="is already there"):
        bench_files.import_result(shared, tmp_path / "results")


def changed(path: Path, change: Any, seal: bool = True) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(bench_files.sealed(content) if seal else content))


def drop(key: str) -> Any:
    return lambda content: content.pop(key)


def put(keys: str, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        *path, last = keys.split(".")
        for key in path:
            content = content[key]
        content[last] = value
    return change


@pytest.mark.parametrize(("change", "message"), [
    (drop("verified"), "verified: missing"), (put("settings.rounds", "2"), "settings.rounds: expected int"),
    (put("codec", []), "codec: expected a table"), (put("schema", 0), "schema 0, this version reads 1"),
    (put("kind", "hyperfine"), "kind is 'hyperfine'"),
    (put("valid", 1), "valid: expected bool"), (put("board", "rpi55"), "no board named 'rpi55': did you mean rpi5"),
    (put("timings.pixels_to_bytes.p50_ms", 0.001), "timings.pixels_to_bytes.p50_ms: 0.001, the samples give"),
    (put("timings.file_to_file.samples_ms", [1.0]), "timings.file_to_file.samples_ms: expected 2 positive numbers"),
    (put("timings.file_to_file.samples_ms", [1.0, -1.0]), "timings.file_to_file.samples_ms: expected 2"),
])
def test_a_wrong_result_names_file_and_key(shared: Path, change: Any, message: str) -> None:
    changed(shared, change)
    with pytest.raises(RemacError) as caught:
        bench_files.load_result(shared)
    assert message in str(caught.value), caught.value


def test_a_result_that_was_changed_is_refused(shared: Path) -> None:
    changed(shared, put("cost.mac_per_pixel", 1.0), seal=False)
    with pytest.raises(bench_files.BadResult, match="was changed after it was measured"):
        bench_files.load_result(shared)


def test_files_that_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, message in (("[]", "kind is 'list'"), ("{", "not JSON"), ("x" * (bench_files.LARGEST_BYTES + 1), "too many")):
        path.write_text(content)
        with pytest.raises(bench_files.BadResult, match=message):
            bench_files.load_result(path)
    with pytest.raises(BadInput, match="no such file"):
        bench_files.load_result(tmp_path / "nothing.json")


def test_a_result_needs_a_board_and_a_folder(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="name a folder with --results"):
        bench_files.import_result(shared)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    assert bench_files.import_result(shared)[0].parent == tmp_path / "benchmarks" / "results" / "boards"
    changed(shared, put("board", None))
    with pytest.raises(bench_files.BadResult, match="board: names none"):
        bench_files.import_result(shared)


# ---- the command

def test_the_command_writes_and_imports(small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    arguments = ["bench", "--model", str(small_model), "--backend", "numpy", "--size", "64x64", "--rounds", "1", "--board", "rpi4b"]
    assert cli.main([*arguments, "--submit-file", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(file.read_text()) and printed["board"] == "rpi4b"
    assert cli.main(["bench", "--import", str(file), "--results", str(tmp_path / "r")]) == 0
    assert "rpi4b, numpy, 1 thread: added as" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("--submit-file", "x.json"), 2, "needs --board"), (("--image", "a.png", "--size", "64x64"), 2, "leave one away"),
    (("--board", "rpi44"), 1, "did you mean rpi4b"), (("--import", "nothing.json"), 1, "no such file"),
    (("--image", "nothing.ppm"), 1, "nothing.ppm"), (("--json", "no/x.json", "--image", "nothing.ppm"), 1, "no: no such folder: make it"),
])
def test_what_a_user_gets_wrong(small_model: Path, arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--model", str(small_model), *arguments]) == code
    assert message in capsys.readouterr().err


def test_documents_share_results_of_named_boards() -> None:
    root = Path(__file__).resolve().parents[1]
    lines = [line for name in ("README.md", "boards/README.md") for line in (root / name).read_text().splitlines()]
    shared = [line for line in lines if line.startswith("    remac bench") and "--submit-file" in line]
    assert shared and all("--board" in line for line in shared)


def test_a_stage_that_takes_no_time_has_no_spread() -> None:
    assert Summary((0.0, 0.0, 0.0)).to_json()["spread"] == 0.0
