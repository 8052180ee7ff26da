"""Board files and their schema, and the predictions: by hand on small cases, and what a user types wrongly."""
from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import board_figures, speed_blocks
from benchmarks.rd_remac import probe_streams
from benchmarks.sources import Sources
from remac_runtime import boards, boards_command, cli, fit
from remac_runtime.bench import cost as bench_cost
from remac_runtime.boards import BadBoard, find_board, load_board, load_boards
from remac_runtime.codec import Encoder
from remac_runtime.errors import BadInput
from remac_runtime.model import load_model

ROOT = Path(__file__).resolve().parents[1]
FACTS = (
    "rad750_133", "rad750_200", "rad5545", "gr740", "gr712rc", "pic64_hpsc", "snapdragon801_ingenuity", "zcu102", "pynq_z2", "jetson_nano",
    "jetson_tx2", "jetson_xavier_nx", "jetson_orin_nano", "jetson_orin_nx_16", "jetson_agx_orin_64", "jetson_thor_t5000", "rpi3b_plus",
    "rpi_zero2w", "rpi4b", "rpi5", "rk3588", "coral_dev", "beaglebone_ai64", "visionfive2", "allwinner_d1", "spacemit_k1", "hifive_p550",
    "intel_n100", "intel_265k",
)


# ---- the files

def test_all_boards_of_the_facts_are_there() -> None:
    found = {board.id: board for board in load_boards()}
    assert set(FACTS) <= set(found) and len(FACTS) == 29
    assert (found["rpi5"].cpu.clock_mhz, found["rpi5"].memory.bandwidth_gb_s, found["rpi5"].measured.memcpy_gb_s) == (2400, 17.1, 5.27)
    assert (found["rad750_133"].cpu.clock_mhz, found["rad750_133"].cpu.endian, found["rad750_133"].runtimes) == (133, "big", ("c99",))
    assert [mode.watts for mode in found["jetson_orin_nano"].power_modes] == [7, 15, 25, 25]
    assert found["pic64_hpsc"].watts is None and found["rpi5"].watts == boards.PowerMode("4-core stress", 9.7)


def test_the_package_carries_the_files_of_the_checkout() -> None:
    assert boards.FOLDER.resolve() == ROOT / "boards"
    assert '"data/*.toml", "data/*.json"' in (ROOT / "runtime" / "pyproject.toml").read_text()


def test_every_figure_has_a_source_and_its_confirmation() -> None:
    board = find_board("rpi5")
    assert board.confirmed("cpu.clock_mhz") and board.confirmed("power_modes") and not board.confirmed("cpu.l1d_kib")
    assert "software.python" in set(boards.figures(board)) and "software.os" not in set(boards.figures(board))


def test_each_board_has_a_family_and_a_note_only_in_words() -> None:
    families = {board.id: board.family for board in load_boards()}
    assert families["rad5545"] == families["rad750_200"] == "power" and families["gr740"] == "sparc" and families["intel_n100"] == "x86"
    assert families["pynq_z2"] == "arm32" and families["jetson_thor_t5000"] == "arm64" and families["visionfive2"] == "riscv"


@pytest.mark.parametrize(("before", "after", "key"), [
    ('vendor = "Raspberry Pi"\n', "", "vendor: missing"), ('class = "sbc"\n', "", "class: missing"),
    ('class = "sbc"', 'class = "toy"', "class: expected"),
    ("cores = 4", 'cores = "4"', "cpu.cores: expected int"), ("cores = 4", "cores = 0", "cpu.cores: expected a positive"),
    ("cores = 4", "cores = true", "cpu.cores: expected int"), ("clock_mhz = 2400", "clock_mhz = 2400000", "cpu.clock_mhz: expected at most"),
    ("clock_mhz = 2400", "clock_hz = 2400", "cpu.clock_hz: no key named 'clock_hz': did you mean clock_mhz"),
    ('endian = "little"', 'endian = "middle"', "cpu.endian: expected one of little, big"), ('isa = "ARMv8.2-A"', 'isa = "Z80"', "cpu.isa: expected"),
    ("bandwidth_gb_s = 17.1", "bandwidth_gb_s = -1.0", "memory.bandwidth_gb_s: expected a positive"),
    ("ecc = false", "ecc = 0", "memory.ecc: expected bool"), ('"numpy", "onnxruntime"', '"numpy", "tflite"', "runtimes: expected one of"),
    ('"numpy", "onnxruntime"', '"numpy", "numpy"', "runtimes: a name stands there twice"), ("year = 2023", "year = 23", "year: expected 1990"),
    ('figures = ["cpu.clock_mhz"]', "figures = []", "cpu.clock_mhz: has no source"),
    ('figures = ["cpu.clock_mhz"]', 'figures = ["cpu.clock_mhz", "gpu"]', "'gpu' is no figure of this file"),
    ("confirmed = true", 'confirmed = "yes"', "sources[0].confirmed: expected bool"),
    ("watts = 2.8", "watt = 2.8", "power_modes[0].watt: no key named"),
    ('os = "Raspberry Pi OS 64-bit"', 'os = " "', "software.os: is empty"), ("[memory]", "[memories]", "memories: no key named"),
    ("[cpu]", "[cpu", "not TOML"), ('name = "Raspberry', 'kind = "sbc"\nname = "Raspberry', "kind: no such key"),
])
def test_a_wrong_field_names_file_and_key(tmp_path: Path, before: str, after: str, key: str) -> None:
    text = (ROOT / "boards" / "rpi5.toml").read_text()
    assert before in text
    path = tmp_path / "pie.toml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(BadBoard) as caught:
        load_board(path)
    assert str(path) in str(caught.value) and key in str(caught.value), caught.value


def test_an_unknown_board_gets_the_nearest_names() -> None:
    with pytest.raises(BadBoard, match=r"no board named 'jetson-orin-nano': did you mean jetson_orin_nano"):
        find_board("jetson-orin-nano")
    with pytest.raises(BadBoard, match="choose one of allwinner_d1, beaglebone_ai64"):
        find_board("##########")


def test_a_folder_without_boards(tmp_path: Path) -> None:
    with pytest.raises(BadBoard, match="no board files"):
        boards.board_names(tmp_path)


# ---- predictions by hand

SMALL = ("stem", "body", "reduce", "deep", "hyper_in", "hyper_out", "side_in", "side_mid", "side_out", "reference",
         *(f"{kind}{p}" for p in range(4) for kind in ("hidden", "mean", "scale")))
SHAPE = bench_cost.Shape({**dict.fromkeys(SMALL, (16, 1, 32)), "head": (64, 1, 800)}, 1000)


def figures(**changes: Any) -> fit.Figures:
    calibrations = tuple(fit.Calibration(name, "any", "any", 0.0, "assumed", "", share=0.5) for name in fit.ENCODERS)
    made = fit.Figures({"p": SHAPE}, dict.fromkeys(fit.ENCODERS, 1 << 20), None, 1.0, calibrations, {"p": fit.Rate(2.0, 0.5, 3)}, ())
    return dataclasses.replace(made, **changes)


def mac_per_pixel() -> float:
    """By hand from SHAPE: 16 * 32 of each layer at its grid, 64 * 800 of the head at 1/256."""
    return 512 * (2 / 64 + 2 / 256 + 1 / 1024 + 1 / 4096 + 2 / 4096 + 1 / 1024 + 12 / 1024) + 51200 / 256


def board(**cpu: Any) -> boards.Board:
    plain = find_board("rpi5")
    return dataclasses.replace(plain, cpu=dataclasses.replace(plain.cpu, **cpu))


def test_the_roofline_by_compute() -> None:
    """rpi5: 76.8 GMAC/s a core in theory, half of it reached; 1024x1024 pixels; `reference` runs on 64 positions."""
    (found,) = fit.predict(board(), "p", 1024, 1024, 1, "onnxruntime", figures())
    expected = (mac_per_pixel() * 1024 ** 2 + 64 * 512) / (0.5 * 76.8e9)
    assert found.seconds == pytest.approx(expected, rel=1e-9) and found.bound == "compute" and found.joules == pytest.approx(9.7 * expected)
    fast = dataclasses.replace(board(), measured=boards.Measured(memcpy_gb_s=1000.0))
    (double,) = fit.predict(fast, "p", 1024, 1024, 2, "onnxruntime", figures())
    (limited,) = fit.predict(fast, "p", 1024, 1024, 64, "onnxruntime", figures())
    assert double.seconds == pytest.approx(expected / 2) and limited.threads == 4


def test_the_roofline_by_bandwidth() -> None:
    slow = dataclasses.replace(board(), measured=boards.Measured(memcpy_gb_s=0.001))
    (found,) = fit.predict(slow, "p", 1024, 1024, 1, "onnxruntime", figures())
    moved = 48 * (1 / 64 + 1 / 64 + 1 / 256) + (32 * 4 + 16) / 256 + (800 + 4 * 64) / 256      # stem, body, deep; reduce has stride 2; the head int32
    moved += 48 * (1 / 1024 + 1 / 4096 + 2 / 4096 + 1 / 1024 + 4 / 1024) + 8 * (32 + 64) / 1024
    assert found.bound == "bandwidth" and found.seconds == pytest.approx((moved * 1024 ** 2 + 64 * 48) / 2e6, rel=1e-9)


def test_counted_instructions_and_the_rest() -> None:
    counted = fit.Calibration("c99", "arm64", "dotprod", 80.0, "counted", "", instructions_per_mac=2.0)
    (found,) = fit.predict(board(), "p", 640, 640, 4, "c99", figures(calibrations=(*figures().calibrations, counted)))
    pixels, slots = 640 ** 2, 2400e6 * 4
    assert found.basis == "counted" and found.threads == 1
    executed = 2 * (mac_per_pixel() * pixels + 64 * 512)
    assert found.network_s == pytest.approx(executed / (slots / 2)) and found.rest_s == pytest.approx(80 * pixels / slots)


def test_the_closest_calibration_is_taken() -> None:
    made = [fit.Calibration("c99", family, dot, 0.0, "assumed", f"{family} {dot}", share=0.1)
            for family, dot in (("any", "any"), ("arm64", "any"), ("any", "dotprod"), ("arm64", "dotprod"))]
    for last in range(4, 0, -1):
        assert figures(calibrations=tuple(made[:last])).calibration(board(), "c99") == made[last - 1]
    assert figures(calibrations=tuple(made)).calibration(board(isa="RV64GC"), "c99") == made[2]


def test_what_was_measured_with_other_vector_instructions_is_an_assumption() -> None:
    measured = fit.Calibration("c99", "x86", "vnni", 0.0, "measured", "remac bench on epyc_zen5_vm", share=0.5, simd="AVX-512")
    made = figures(calibrations=(*figures().calibrations, measured))
    assert made.calibration(find_board("epyc_zen5_vm"), "c99") == measured
    there = made.calibration(find_board("intel_n100"), "c99")
    assert (there.share, there.basis) == (0.5, "assumed")
    assert there.source == "the share of the peak that remac bench on epyc_zen5_vm reached with AVX-512, not measured with AVX2 256-bit"
    packed = fit.load_figures()
    assert {one.id for one in load_boards() if packed.calibration(one, "onnxruntime").basis == "measured"} == {"epyc_zen5_vm", "xeon6_vm"}


def test_scalar_cores_do_one_product_a_cycle_at_most() -> None:
    assert fit.peak_mac_s(board(int8_dot="none"), "c99") == 2400e6 and fit.peak_mac_s(board(), "c99") == 76.8e9
    assert fit.peak_mac_s(board(), "numpy") == 19.2e9


@pytest.mark.parametrize(("mib", "memory"), [(100_000, "whole"), (50, "strips"), (2, "no")])
def test_memory_decides(mib: int, memory: str) -> None:
    small = dataclasses.replace(board(), memory=dataclasses.replace(board().memory, size_mib=mib))
    (found,) = fit.predict(small, "p", 2048, 2048, 1, "numpy", figures())
    assert found.memory == memory


def test_the_flight_encoder_needs_no_python() -> None:
    """2048 columns of 1000 bytes, and the weights; on a board with Python its 50 MB come on top."""
    made = figures(flight_bytes_per_column=1000.0, loaded_bytes=dict.fromkeys(fit.ENCODERS, 50 << 20))
    for runtimes, needed in ((("c99",), 0), (("c99", "numpy"), 50 << 20)):
        (found,) = fit.predict(dataclasses.replace(board(), runtimes=runtimes), "p", 2048, 2048, 1, "c99", made)
        assert found.needed_bytes == needed + SHAPE.model_bytes + 2_048_000 and found.memory == "strips"
    assert [found.memory for found in fit.predict(find_board("gr712rc"), "rover-m", 1200, 1600)] == ["strips"]


def test_the_document_predicts_nothing_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = dataclasses.replace(find_board("gr712rc"), memory=dataclasses.replace(find_board("gr712rc").memory, size_mib=8))
    monkeypatch.setattr(speed_blocks, "load_boards", lambda: [tiny])
    text = speed_blocks.boards(Sources({"boards": json.loads(fit.FIGURES.read_text())}, ROOT))
    assert "| c99 | no | - | - | - | - | - | - |" in text and "or not at all" in text


def test_what_fits_comes_first() -> None:
    found = fit.predict(dataclasses.replace(board(), memory=boards.Memory(40, 17.1, False)), "p", 4096, 4096, 1, None, figures())
    order = [(entry.memory == "no", entry.seconds) for entry in found]
    assert order == sorted(order) and {entry.runtime for entry in found} == {"onnxruntime", "numpy", "c99"}


def test_a_runtime_without_a_wheel_is_no_candidate() -> None:
    assert "onnxruntime" in find_board("zcu102").runtimes and fit.runtimes(find_board("zcu102")) == ["c99", "numpy"]


def test_the_gain_by_hand() -> None:
    """1000x1000 at 2 bit/pixel is 2 Mbit as JPEG and 1 Mbit as ours; in 4 s of encoding 1 Mbit is saved."""
    gain = fit.gain(fit.Rate(2.0, 0.5, 3), 4.0, 1000, 1000)
    assert gain.saved_s_per_s == {32_000: pytest.approx(1e6 / 32_000 / 4), 2_000_000: pytest.approx(0.125)}
    assert gain.pictures == {100: 100, 250: 250} and gain.jpeg_pictures == {100: 50, 250: 125}


def test_measured_beside_predicted() -> None:
    (predicted,) = fit.predict(board(), "p", 1024, 1024, 1, "numpy", figures())
    run = fit.MeasuredRun("rpi5", "numpy", 1, 1024, 1024, predicted.seconds * 2, None, None, False, True, profile="p")
    others = (dataclasses.replace(run, board="rpi4b"), dataclasses.replace(run, profile="q"))
    (compared,) = fit.compare(board(), "p", figures(measured=(run, *others)))
    assert compared.error == pytest.approx(-0.5)


def test_packed_figures_are_read_back(tmp_path: Path) -> None:
    packed = fit.load_figures()
    assert packed.profile("rover-m").outputs("head") == 304 and 0 < packed.rate["rover-m"].share_of_jpeg < 1
    assert all(packed.calibration(one, name).runtime == name for one in load_boards() for name in fit.ENCODERS)
    for content, message in (("{", "not JSON"), ('{"schema": 99}', "schema 99, this version reads 3")):
        (tmp_path / "figures.json").write_text(content)
        fit.load_figures.cache_clear()
        with pytest.raises(fit.NoFigures, match=message):
            fit.load_figures(tmp_path / "figures.json")
    with pytest.raises(fit.NoFigures, match="not there"):
        fit.load_figures(tmp_path / "nothing.json")
    with pytest.raises(BadInput, match="did you mean rover-m"):
        packed.profile("rover_m")


# ---- what is packed

def bench_result(threads: int, network_ms: float, rest_ms: float, **changes: Any) -> dict[str, Any]:
    stages = {name: {"p50_ms": ms} for name, ms in zip(board_figures.NETWORK_STAGES, (network_ms / 2, network_ms / 2), strict=True)}
    return {"board": "rpi5", "emulated": None, "valid": True, "picture": {"width": 1000, "height": 500, "sha256": "x"},
            "codec": {"codec_hash": "h", "profile": "rover-m"},
            "settings": {"backend": "onnxruntime", "threads": threads, "quality": 32}, "cost": {"mac_per_pixel": 8000.0},
            "timings": {"stages": stages, "pixels_to_bytes": {"p50_ms": network_ms + rest_ms}}, "memory": {"available": False},
            "energy": {"available": False}, **changes}


def test_runs_of_an_earlier_encoder_are_told() -> None:
    """By the bytes of the synthetic picture; what was timed with another picture cannot be coded again."""
    asked = []

    def again(width: int, height: int, quality: int) -> str:
        asked.append((width, height, quality))
        return "today"
    picture = {"width": 640, "height": 480, "synthetic": True, "sha256": "x"}
    for told, expected in (("today", False), ("then", True)):
        result = bench_result(1, 5.0, 1.0, verified={"stream_sha256": told}, picture=picture)
        assert board_figures.measured_run(result, [], again)["earlier_encoder"] is expected
    other = bench_result(1, 5.0, 1.0, verified={"stream_sha256": "then"}, picture={**picture, "synthetic": False})
    small = bench_result(1, 5.0, 1.0, verified={"stream_sha256": "then"}, picture=picture, codec={"codec_hash": "s", "profile": "rover-s"})
    assert not any(board_figures.of_earlier_encoder(result, again) for result in (other, small)) and asked == [(640, 480, 32)] * 2


def test_the_packed_streams_are_those_of_todays_encoder() -> None:
    with Encoder(load_model(ROOT / "weights" / "rover-m")) as encoder:
        now = probe_streams(encoder)
        sums = board_figures.recoded(encoder)
        assert sums(64, 64, 32) != sums(64, 64, 33)
    assert json.loads(fit.FIGURES.read_text())["streams"] == now, "run `python -m benchmarks.board_figures` and `make readme`"


def test_calibration_by_hand() -> None:
    """4 GMAC in 500 ms are 8 GMAC/s of 76.8; the rest, 100 ms, is 2400e6 * 4 slots a second over half a megapixel."""
    found = board_figures.calibration(bench_result(1, 500.0, 100.0))
    assert found["share"] == pytest.approx(8 / 76.8, abs=1e-4) and found["rest_slots"] == pytest.approx(1920.0)
    assert board_figures.exponent([bench_result(1, 500.0, 1.0), bench_result(4, 250.0, 1.0)]) == pytest.approx(math.log(2) / math.log(4), abs=1e-4)
    assert board_figures.exponent([bench_result(1, 500.0, 1.0)]) is None


def test_the_largest_valid_picture_of_one_thread_calibrates() -> None:
    small, large = bench_result(1, 1, 1), bench_result(1, 2, 1, picture={"width": 2000, "height": 500, "sha256": "y"})
    others = [bench_result(2, 3, 1), bench_result(1, 3, 1, emulated="qemu", picture={"width": 9000, "height": 500, "sha256": "z"})]
    assert board_figures.calibrating_runs([small, large, *others], lambda run: False) == [large]
    assert board_figures.calibrating_runs([small, {**large, "valid": False}], lambda run: False) == [small]


def test_one_machine_calibrates_a_kind_of_processor_and_with_todays_encoder() -> None:
    """Runs of another board of that kind then check the prediction."""
    old, new = (bench_result(1, 1, 1, board=name) for name in ("epyc_zen5_vm", "xeon6_vm"))
    other = bench_result(1, 1, 1)
    assert board_figures.calibrating_runs([old, new, other], lambda run: run is old) == [new, other]
    assert board_figures.calibrating_runs([old, new], lambda run: False) == [old]
    assert board_figures.calibrating_runs([old, {**new, "valid": False}], lambda run: run is old) == [{**new, "valid": False}]


def test_instruction_counts_become_calibrations() -> None:
    flight = {"builds": [{"processor": "PPC750, big-endian", "compiler": "gcc 12", "instructions_per_pixel": {
        "g_a, h_a": 9000.0, "h_s, phases": 1000.0, "quantise": 60.0, "rANS, packets": 40.0}}]}
    (found,) = board_figures.counted(flight, 8000.0)
    assert (found["family"], found["instructions_per_mac"], found["rest_slots"], found["basis"]) == ("power", 1.25, 200.0, "counted")
    assert not list(board_figures.counted(None, 1.0)) and not list(board_figures.counted_arm64(None, [], 1.0))
    arm64 = {"instructions_per_pixel": [{"processor": "cortex-a53", "int8_dot": "smull", "network": 2600.0, "rest": 3000.0}]}
    (found,) = board_figures.counted_arm64(arm64, [{"runtime": "onnxruntime", "rest_slots": 7.0}, {"runtime": "c99", "rest_slots": 9.0}], 8000.0)
    assert (found["runtime"], found["int8_dot"], found["instructions_per_mac"], found["rest_slots"]) == ("onnxruntime", "smull", 0.325, 7.0)


# ---- the command

def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["boards", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_list_and_details(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = command(capsys)
    assert code == 0 and all(name in text for name in FACTS)
    code, text, _ = command(capsys, "--json")
    content = json.loads(text)
    assert code == 0 and len(content["boards"]) >= 29 and content["boards"][0]["class"] == "flight"
    code, text, _ = command(capsys, "--board", "rpi5")
    assert code == 0 and "cpu.clock_mhz" in text and "ThomasKaiser/sbc-bench" in text


def test_fit_prints_labelled_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = command(capsys, "fit", "--image", "1600x1200")
    assert code == 0 and "predictions" in text.splitlines()[0] and sum(line.startswith(tuple(FACTS)) for line in text.splitlines()) == 29
    code, text, _ = command(capsys, "fit", "--board", "rpi5", "--threads", "4", "--json")
    (entry,) = json.loads(text)["boards"]
    assert code == 0 and {prediction["runtime"] for prediction in entry["predictions"]} == {"onnxruntime", "numpy", "c99"}
    assert entry["predictions"][0]["gain"]["saved_s_per_s"]["32000"] > 0
    assert ", up to 4 threads. " in command(capsys, "fit", "--board", "rpi5", "--threads", "99")[1]
    assert ", 1 thread. " in command(capsys, "fit", "--board", "gr712rc", "--threads", "99")[1]


def test_fit_without_a_rate_predicts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """rover-s does not reach the quality of the comparison on every picture."""
    assert "rover-s" not in fit.load_figures().rate
    code, text, _ = command(capsys, "fit", "--profile", "rover-s", "--board", "rpi5")
    row = next(line.split() for line in text.splitlines() if line.startswith("rpi5 "))
    assert code == 0 and row[-4:] == ["-", "-", "-", "counted"] and row[-5:-4] == ["J"] and "not known, since rover-s" in text
    code, text, _ = command(capsys, "fit", "--profile", "rover-s", "--json")
    content = json.loads(text)
    assert code == 0 and content["rate"] is None and len(content["boards"]) >= 29
    assert not any(entry["measured"] for entry in content["boards"])      # those runs are of rover-m
    assert all(p["gain"] is None and p["seconds"] > 0 for entry in content["boards"] for p in entry["predictions"])


def test_fit_says_which_runs_are_of_an_earlier_encoder() -> None:
    run = fit.MeasuredRun("rpi5", "numpy", 1, 640, 480, 1.0, None, None, True, True, profile="p")
    for earlier in (False, True):
        made = figures(measured=(dataclasses.replace(run, earlier_encoder=earlier),))
        line = boards_command._measured_line(fit.compare(board(), "p", made)[0])
        assert line.endswith(" (of an earlier encoder)") == earlier == made.outdated


def test_the_package_carries_the_licence() -> None:
    assert (ROOT / "runtime" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert 'license-files = ["LICENSE"]' in (ROOT / "runtime" / "pyproject.toml").read_text()


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("--board", "rpi6"), 1, "did you mean rpi5"), (("fit", "--profile", "rover-l"), 1, "did you mean rover-"),
    (("fit", "--board", "raspberry"), 1, "no board named 'raspberry'"),
])
def test_wrong_names(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str) -> None:
    found, _, error = command(capsys, *arguments)
    assert found == code and message in error and "\n" not in error.strip()


@pytest.mark.parametrize("arguments", [("fit", "--image", "1600"), ("fit", "--image", "10x10"), ("fit", "--threads", "0"), ("prune",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["boards", *arguments])
    assert caught.value.code == 2
