"""The documents: their figures are those of the results, their worked example and snippets run, their links and commands exist. Each check is
shown to be able to fail."""
from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import example, ground, rd, readme
from benchmarks.blocks import BLOCKS
from benchmarks.latency import compared
from benchmarks.metrics import RDPoint
from benchmarks.sources import SOURCES
from benchmarks.store import RESULTS, ImageResults, Results, save, write_json
from export.report import CheckResult
from export.rover_encoder import Point, Report
from remac_runtime.bench.cost import STAGES, shape_of
from remac_runtime.bench.stages import STAGES as STAGE_NAMES
from remac_runtime.bench.stats import Summary
from remac_runtime.network import read_network

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "rover-m"
NETWORK = b"a network"
HASH = hashlib.sha256(NETWORK).digest()[:8].hex()
SNIPPET = re.compile(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[\d,]*\d")
SECONDS = re.compile(r"\d+\.\d+ s$", re.MULTILINE)


# ---- a checkout with invented results

def rate_results(folder: Path) -> None:
    """rd_summary.json and rd.svg of invented curves, by the real report."""
    rates = {"jpeg420": 1.0, "jpeg2000": 0.7, "remac-m": 0.5, "remac-m-first": 0.5, "remac-m-noref": 0.52, "remac-s": 0.6}
    curves = {name: tuple(RDPoint(q, 1000 * rate * 2 ** (q / 15), 20 + q / 5) for q in (8, 40, 85, 90)) for name, rate in rates.items()}
    for own, keys in ((True, ("remac-m", "remac-m-first", "remac-m-noref", "remac-s")), (False, ("jpeg420", "jpeg2000"))):
        images = {key: ImageResults(64, 64, "0" * 16, {name: curves[name] for name in keys}) for key in ("test/a", "test/b", "frames/c")}
        settings = {name: f"remac; codec hash {HASH}" if own else name for name in keys}
        save(folder / ("rd_remac.json" if own else "rd_peers.json"), Results({}, settings, images))
    assert rd.main(["--codec-results", str(folder / "rd_remac.json"), "--peers", str(folder / "rd_peers.json"), "--out", str(folder)]) == 0


def encoder_result() -> dict[str, Any]:
    """A report of the real class: every layer of the real stages, 100 multiply-accumulates each."""
    layers = {layer: 100.0 for stage in STAGES.values() for layer in stage}
    report = Report("rover-m", HASH, "build/rover-m", 3_000_000, {"network.rmn": 1_000_000, "ground/moderate@1.onnx": 2_000_000}, {"all": layers},
                    (1152, 1600), {"median_ms": 50.0}, {"predicted_bytes": 1, "added_bytes": 2 << 20, "peak_bytes": 3 << 20}, 0.0, "sample.png",
                    (Point(16, 1000, 0.1, 30.0, 25.0),), (CheckResult("a|b", True, "5 files"), CheckResult("c", False)))
    return {**asdict(report), "passed": report.passed}


def speed_result() -> dict[str, Any]:
    seconds = {"remac-m": 0.05, "remac-s": 0.02, "openjpeg": 0.25, "webp-m4": 0.1, "analysis": 0.03, "float-onnx": 0.09}
    timings = compared({name: Summary((time,)) for name, time in seconds.items()}, 1_843_200)
    kinds = {"remac-m": "ours", "remac-s": "ours", "openjpeg": "classic", "webp-m4": "classic", "analysis": "network", "float-onnx": "network"}
    systems = {name: {"title": name, "kind": kind, "settings": "", "bytes": 1000, "psnr": 35.0, "mac_per_pixel": 1.0} for name, kind in kinds.items()}
    fresh = {"peak_bytes": 1 << 20, "loaded_bytes": 1 << 19, "cold_start_s": 0.5}
    environment = {"processor": {"model": "1", "flags": []}, "versions": {"onnxruntime": "1"}, "libraries": {"openjpeg": "1"}}
    return {"schema": 2, "codec_hash": HASH, "picture": [1600, 1152], "quality": 32, "psnr": 35.0, "rounds": 1, "threads": 1, "valid": True,
            "warnings": [], "systems": systems, "pixels_to_bytes": timings, "file_to_file": timings,
            "fresh_process": {"whole": fresh, "strips_of_128": fresh}, "environment": environment}


def stages_result() -> dict[str, Any]:
    """Every stage takes 2 ms of c99, twice that of the others and at least 1 ms; c99 has no selection of its own."""
    def way(milliseconds: float, selection: float) -> dict[str, Any]:
        timings = {stage: {**Summary((milliseconds / 1e3,) * 3).to_json(), "times_ours": milliseconds / 2} for stage in (*STAGE_NAMES, "whole")}
        return timings | {"title": "1", "selection": {**timings["selection"], "p50_ms": selection}}
    work = {stage: {"least_ms": 1.0, "bound": "compute"} for stage in STAGE_NAMES if stage not in ("load", "write", "other")}
    return {"schema": 1, "codec_hash": HASH, "picture": [1600, 1152], "quality": 32, "rounds": 3, "threads": 1, "warnings": [],
            "machine": {"mac_s": 5e11, "bytes_s": 5e10}, "symbols": 100_000, "stream_bytes": 1000, "work": work,
            "ways": {"numpy": way(4.0, 4.0), "onnxruntime": way(4.0, 4.0), "c99": way(2.0, 0.0)}}


def boards_result() -> dict[str, Any]:
    run = {"board": "rpi5", "runtime": "numpy", "threads": 1, "width": 640, "height": 480, "seconds": 0.5, "added_bytes": None, "joules": None}
    calibrations = [{"runtime": name, "family": "any", "int8_dot": "any", "rest_slots": 100.0, "basis": "assumed", "source": "", "share": 0.5}
                    for name in ("onnxruntime", "numpy", "c99")]
    shape = shape_of(read_network(ROOT / readme.network_file()), None)
    return {"codec_hash": HASH, "profiles": {"rover-m": {"layers": dict(shape.layers), "table_bytes": 1000}}, "loaded_bytes": dict.fromkeys(
                ("onnxruntime", "numpy", "c99"), 1 << 20), "flight_bytes_per_column": 1000.0, "thread_exponent": 0.9, "calibrations": calibrations,
            "rate": {"rover-m": {"jpeg_bits_per_pixel": 2.0, "share_of_jpeg": 0.6, "pictures": 3}},
            "measured": [{**run, "used_to_calibrate": used, "valid": True} for used in (True, False)]}


def exactness_results() -> dict[str, dict[str, Any]]:
    fuzzed = {"cases": 20, "failures": 0, "compared_with_python": 5}
    build = {"processor": "RV64", "same_bytes": True, "code_bytes": 1000, "constant_bytes": 2_000_000, "stack_bytes": 1024,
             "instructions_per_pixel": {"g_a": 10.0, "rANS": 1.0}}
    method = {"psnr": 30.0, "psnr_b": 29.0, "ssim": 0.9, "ms_ssim": 0.95, "gain": 0.5, "worst": -0.1, "pictures": 1}
    network = {"gain": 1.0, "steps": 100}
    methods = dict.fromkeys(("jpeg", "marsqe-lite", "marsqe"), method)
    settings = {"jpeg 30": methods, "hevc 32": methods | {"hevc": method}}
    cost = {"tmac": 1.0, "tmac_features_kept": 0.5, "parameters": 1.4}
    training = {"steps": 10, "patches": 40, "seconds": 60, "device": "cpu"}
    return {
        "enhance": {"codec_hash": HASH, "precision": "float32", "images": {"a": {}}, "summary": {"test": settings, "frames": settings},
                    "cost": {"marsqe-lite": cost, "marsqe": cost}, "training": {"marsqe": training, "arcnn-hevc": training},
                    "segmentation": {"test": {"miou": 0.5, "pixel_accuracy": 0.9, "accuracy": {"sand": 0.1, "soil": 0.9}}}},
        "enhance-modules": {"patches": 400, "pictures": 1, "networks": dict.fromkeys(("fused", "added", "plain"), network)},
        "enhance-pictures": {"codec_hash": HASH, "rows": [{"setting": "hevc 37", "codec_psnr": 30.0, "psnr": 31.0}]},
        "verify": {"codec_hash": HASH, "passed": True, "encoders": ["a"], "decoders": ["a", "b"], "matrix": [["pass", "unsupported"]],
                   "cases": [{"decoders_only": False}, {"decoders_only": True}]},
        "differential": {"codec_hash": HASH, "cases": 10, "compared": 30, "engines": ["numpy", "c99"], "differences": 0,
                         "bands": fuzzed, "streams": fuzzed},
        "flight": {"codec_hash": HASH, "builds": [build], "memory": {"width": 160, "height": 120, "strip_rows": 16, "work_bytes": 1, "keep_bytes": 2},
                   "prediction": {"assumption": "A guess.", "boards": [{"name": "X", "clock_mhz": 100, "seconds": 1.0, "joules": {"CPU": 5}}]}}}


def ground_results() -> dict[str, dict[str, Any]]:
    labels, qualities = ("moderate@1", "deep@2"), [str(quality) for quality in ground.QUALITIES]
    ablated = {"none": 0.0, "wrong": 0.0, "narrow": -1.0, "int8": -0.5}
    psnr = {label: {q: {name: 30 + 3 * i + lift for name, lift in {"named": gain, **ablated}.items()} for i, q in enumerate(qualities)}
            for gain, label in zip((0, 1.5), labels, strict=True)}
    images = {f"{name}/{n}": {"pixels": "", "shape": [64, 64], "bytes": {q: 1000 * 2 ** i for i, q in enumerate(qualities)}, "psnr": psnr}
              for name in ("test", "frames") for n in range(2)}
    run = {"median_s": 2.0, "peak_bytes": 3 << 20, "added_bytes": 2 << 20, "samples": [{}]}
    field = {"kmac_per_pixel": 50.0, "parameters": 6.0, "own_parameters": 6.0, "theoretical": 560, "theoretical_narrow": 272,
             "measured": {"quality": 36, "pictures": ["test/0"], "points": 6, "patches": 12}, "share_within": {"16": 0.9, "48": 0.99, "80": 1.0},
             "loss_from_window": {"32": 0.5, "64": 0.0}}
    subjects = {"latents rover-m": ("c99",), **{f"decoder {label}": ("onnxruntime", "torch") for label in labels}}
    engine = {"network": "deep@2", "target": "sm86", "precision": "fp16", "builder": "tensorrt_rtx 1.7", "bytes": 1000, "layers": 10,
              "convolutions": {"HALF": 5}, "kept_in_fp32": ["/Cast"], "largest_difference": 1.0}
    return {"ground": {"codec_hash": HASH, "threads": 1, "environment": {"processor": {"model": "X"}, "versions": {"torch": "2"}, "load": 3.0},
                       "decoders": dict.fromkeys(labels, ""), "fields": dict.fromkeys(labels, field), "images": images,
                       "costs": {key: {"engines": dict.fromkeys(names, run)} for key, names in subjects.items()},
                       "summary": ground.summarise(images, list(labels))},
            "engines": {"codec_hash": HASH, "engines": [engine]}}


def other_results() -> dict[str, dict[str, Any]]:
    coded = {"bytes": 1000, "quality": 10, "psnr": 30.0}
    stage = {"stage": "float", "steps": 1000, "batch": 3, "processes": 2, "patch": 256, "seconds": 3600.0, "hardware": "2 cores", "command": "train"}
    return {
        "corruption": {"codec_hash": HASH, "count": 7, "slowest_s": 0.5, "largest_peak_bytes": 1 << 20, "failures": [],
                       "kinds": {"bits_flipped": {"forged": False, "outcomes": {"losses": 4, "CorruptStream": 3}}}},
        "example": {"codec_hash": HASH, "steps": [{"command": "remac view a.rmc", "output": "a.rmc -> a.html", "exit_code": 0}],
                    "comparison": {"size": [100, 80], "crop": [0, 0, 10, 10], "heat_top_bpp": 1.5, "remac": coded, "jpeg": coded}},
        "boards": boards_result(),
        "stages": stages_result(),
        "adaptation": {"codec_hash": HASH, "sets": {"test": {"0": -0.024, "36": -0.026}}},
        "mosaics": {"codec_hash": HASH, "found": {"frames/a": {"filtered": -0.125, "unfiltered": -0.1}}, "simulated_from": "val",
                    "simulated": {"val/a": {"filtered": -0.2, "unfiltered": -0.1}, "val/b": {"filtered": -0.3, "unfiltered": -0.1}}},
        "float-gap": {"codec_hash": HASH, "sets": {"test": {"integer_estimate": 0.0123, "real_bytes": None}}},
        **exactness_results(), **ground_results(),
        "training": {"profile": "rover-m", "stages": [stage], "data": "pictures"},
        "training-s": {"profile": "rover-s", "stages": [stage], "data": "pictures"}}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents with every block, not yet filled, and results of all kinds by the shipped codec."""
    root = tmp_path_factory.mktemp("checkout")
    results = root / "benchmarks" / "results"
    for document in readme.DOCUMENTS:
        (root / document).parent.mkdir(parents=True, exist_ok=True)
        (root / document).write_text("".join(f"<!-- figures: {name} -->\n<!-- end -->\n" for name in BLOCKS))
    for profile in ("rover-m", "rover-s"):
        (root / readme.network_file(profile)).write_bytes(NETWORK)
    rate_results(results)
    for name, content in {"encoder": encoder_result(), "encoder-s": encoder_result(), "speed": speed_result(), **other_results()}.items():
        write_json(results / SOURCES[name].file, content)
    return root


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Path:
    """A copy of the template for one test."""
    return Path(shutil.copytree(template, tmp_path / "checkout"))


def run(checkout: Path, *arguments: str) -> int:
    return readme.main(["--root", str(checkout), *arguments])


# ---- the generator

def test_every_block_is_written_from_the_results(checkout: Path) -> None:
    assert run(checkout, "--check") == 1
    assert run(checkout) == 0
    assert run(checkout, "--check") == 0
    text = (checkout / "README.md").read_text()
    assert "Not measured" not in text
    for figure in ("**-50.0 %**", "| JPEG 2000 | -30.0 % | 70 % |", "**2.300** | 100 %", "5.0 times as fast as OpenJPEG", "a\\|b", "1 of 2 checks",
                   "4 decoded, losses reported", "a.rmc -> a.html", "1.00 hours in all", "| -50.0 % | -50.0 % | 2.300 |",
                   "| -48.0 % | -48.0 % | 2.200 |", "0 of 3 pictures cost more", "| +1.2 % | - |",
                   "| deep@2 | 50.0 | 6.00 | -29.3 % | +1.50 | -29.3 % | +1.50 | 2.00 s | 3 MiB |", "+1.50 (+1.50 to +1.50)",
                   "| deep@2 | 18 | 37.50 | -1.500 | -1.500 | -2.500 | -2.000 |", "| moderate@1 | 560 | 272 | 48 | 48 | 80 | 0.50 dB |",
                   "| latents to pixels, deep@2 | PyTorch | 2.00 s |", "load average 3.00",
                   "| quantise | 4.00 (0 %) | 4.00 (0 %) | 2.00 (0 %) | 2.00 | 2.00 | 1.00 | compute | 50 % |",
                   "| selection | 4.00 (0 %) | 4.00 (0 %) | 0.00 (0 %) | - | - | 1.00 | compute | - |", "50 million symbols a second",
                   "| deep@2, fp16 | sm86 | 1,000 | 10 | 5 half | `/Cast` | 1 |", "| frames/a | -12.5 % |", "would have made them | -25.0 % |"):
        assert figure in text, figure


def test_an_edited_figure_fails_the_check(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(checkout)
    document = checkout / "README.md"
    document.write_text(document.read_text().replace("**-50.0 %**", "**-57.0 %**", 1))
    capsys.readouterr()
    assert run(checkout, "--check") == 1
    shown = capsys.readouterr()
    assert "-57.0 %" in shown.out and "-50.0 %" in shown.out and "make readme" in shown.err


def test_other_results_fail_the_check(checkout: Path) -> None:
    run(checkout)
    write_json(checkout / "benchmarks" / "results" / "speed.json", {**speed_result(), "rounds": 3})
    assert run(checkout, "--check") == 1


LOWER_BANDS = "*Times are of an earlier encoder of the same network (lower bands, no search for mosaics, other rounding): to be measured again.*"
EARLIER = "*Times are of an earlier encoder of the same network: to be measured again.*"


@pytest.mark.parametrize(("streams", "packed", "sentence"), [
    (None, "a of the probe", LOWER_BANDS), ("a of the probe", "a of the probe", None), ("a of the probe", "b of the probe", EARLIER),
    ("a of the probe", None, None),
])
def test_times_of_an_earlier_encoder_say_so(checkout: Path, streams: str | None, packed: str | None, sentence: str | None) -> None:
    results = checkout / "benchmarks" / "results"
    for name, content, kept in (("speed", speed_result(), streams), ("stages", stages_result(), streams), ("boards", boards_result(), packed)):
        write_json(results / SOURCES[name].file, {**content, **({"streams": kept} if kept else {})})
    run(checkout)
    text = (checkout / "README.md").read_text()
    tables = [re.search(rf"<!-- figures: {name} -->(.*?)<!-- end -->", text, re.DOTALL) for name in ("speed", "stages", "networks", "small")]
    assert all(found and [line for line in found[1].splitlines() if line in (LOWER_BANDS, EARLIER)] == [sentence] * bool(sentence)
               for found in tables)
    assert ((sentence or "an earlier encoder").strip("*") in text) == bool(sentence)


def test_predictions_by_runs_of_an_earlier_encoder_say_so(checkout: Path) -> None:
    content = boards_result()
    for earlier in (False, True):
        content["measured"][0]["earlier_encoder"] = earlier
        write_json(checkout / "benchmarks" / "results" / SOURCES["boards"].file, content)
        run(checkout)
        text = (checkout / "boards" / "README.md").read_text()
        tables = [re.search(rf"<!-- figures: {name} -->(.*?)<!-- end -->", text, re.DOTALL) for name in ("boards", "prediction-error")]
        boards, error = (found[1] for found in tables if found)
        assert (EARLIER in boards.splitlines()) == ("ms (1) |" in error) == ("(1): of an earlier encoder of the same network." in error) == earlier


@pytest.mark.parametrize("name", ["speed", "encoder", "corruption", "example", "rd"])
def test_results_of_another_codec_are_not_shown(checkout: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkout / "benchmarks" / "results" / SOURCES[name].file
    path.write_text(path.read_text().replace(HASH, "0123456789abcdef"))
    assert run(checkout) == 0
    assert f"*Not measured yet: needs `benchmarks/results/{path.name}`.*" in (checkout / "README.md").read_text()
    assert "0123456789abcdef" in capsys.readouterr().err


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_file_leaves_no_figure(checkout: Path, name: str) -> None:
    run(checkout)
    (checkout / "benchmarks" / "results" / SOURCES[name].file).unlink()
    assert run(checkout, "--check") == 1
    assert run(checkout) == 0
    assert f"*Not measured yet: needs `benchmarks/results/{SOURCES[name].file}`.*" in (checkout / "README.md").read_text()


def test_a_codec_that_was_not_measured_on_all_pictures_is_not_shown(checkout: Path) -> None:
    path = checkout / "benchmarks" / "results" / "rd_summary.json"
    content = json.loads(path.read_text())
    content["sets"]["test"]["codecs"]["jpeg2000"]["complete"] = False
    write_json(path, content)
    run(checkout)
    assert "| JPEG 2000 | - | - | -30.0 % | 70 % |" in (checkout / "README.md").read_text()
    content["sets"]["test"]["codecs"]["remac-m"]["complete"] = False
    write_json(path, content)
    run(checkout)
    assert "*Not measured yet: needs `benchmarks/results/rd_summary.json with all pictures`.*" in (checkout / "README.md").read_text()


@pytest.mark.parametrize(("text", "message"), [
    ("<!-- figures: speed -->\n", "has no <!-- end -->"), ("<!-- end -->\n", "without a block"),
    ("<!-- figures: spede -->\n<!-- end -->\n", "no block is named"),
    ("<!-- figures: speed -->\n<!-- figures: rd -->\n<!-- end -->\n", "begins inside"),
])
def test_markers_that_do_not_pair(checkout: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "README.md").write_text(text)
    assert run(checkout) == 1
    assert message in capsys.readouterr().err
    assert (checkout / "README.md").read_text() == text


# ---- what the README tells people to run

@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder to run the README's commands in, with the shipped model."""
    if not (BUILT / "network.rmn").exists() or not list((BUILT / "ground").glob("*@*.onnx")):
        pytest.skip("build/rover-m is not built: run `make encoder`")
    if not (ROOT / readme.network_file()).exists() or (BUILT / "network.rmn").read_bytes() != (ROOT / readme.network_file()).read_bytes():
        pytest.skip("build/rover-m is of other weights than weights/rover-m: run `make encoder`")
    with example.workplace(BUILT) as folder:
        yield folder


def snippets() -> list[tuple[str, str]]:
    return SNIPPET.findall((ROOT / "README.md").read_text())


def run_snippet(language: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if language == "python" else ["sh", "-e", "-c", code]
    return subprocess.run(command, cwd=folder, env=example.environment(folder), capture_output=True, text=True, check=False)


def test_the_readme_has_snippets_to_run() -> None:
    assert {language for language, _ in snippets()} == {"python", "sh"}


@pytest.mark.parametrize(("language", "code"), snippets(), ids=lambda value: value if len(value) < 8 else "")
def test_snippets_run(place: Path, language: str, code: str) -> None:
    done = run_snippet(language, code, place)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("language", "code"), [("python", "assert False"), ("sh", "remac compare samples/README.md nothing\ntrue")])
def test_a_snippet_that_fails_is_seen(tmp_path: Path, language: str, code: str) -> None:
    with example.workplace(tmp_path) as folder:
        assert run_snippet(language, code, folder).returncode != 0


def same_but_seconds(a: str, b: str) -> bool:
    return SECONDS.sub("s", a) == SECONDS.sub("s", b)


def same_but_numbers(a: str, b: str) -> bool:
    """The same words around numbers that are written the same way."""
    return NUMBER.sub("#", a) == NUMBER.sub("#", b)


def test_the_worked_example_is_real(place: Path) -> None:
    """What integers make is the same here as when the example was written: sizes, CRCs and hashes. Of the rest, exit codes and
    words: the ground decoder may differ in a last digit between machines."""
    path = RESULTS / "example.json"
    if not path.exists() or json.loads(path.read_text())["codec_hash"] != readme.shipped_hash(ROOT):
        pytest.skip("the example is of other weights: run `python -m benchmarks.example`")
    integers = {command.line: command.integers for command in example.COMMANDS}
    for step in json.loads(path.read_text())["steps"]:
        again = example.run_command(step["command"], place)
        assert again.exit_code == step["exit_code"], again.output
        assert (same_but_seconds if integers[step["command"]] else same_but_numbers)(again.output, step["output"])


@pytest.mark.parametrize("change", [lambda text: text.replace("1", "2", 1), lambda text: text + "\nmore"])
def test_a_changed_example_is_seen(change: Callable[[str], str]) -> None:
    output = "a.png -> a.rmc: 14,979 bytes, quality 15, 0.12 s"
    assert same_but_seconds(output, output.replace("0.12 s", "1.50 s"))
    assert not same_but_seconds(output, change(output))


@pytest.mark.parametrize(("other", "same"), [("largest difference 97; PSNR 28.1 dB", True), ("largest difference 130.0; PSNR 29.02 dB", False),
                                             ("largest difference 130; PSNR 29.02 dB (peak 255)", False)])
def test_words_of_an_example_are_compared_where_its_numbers_are_not(other: str, same: bool) -> None:
    assert same_but_numbers("largest difference 130; PSNR 29.02 dB", other) == same
