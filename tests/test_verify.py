"""`remac verify`: outcomes and exit codes, crashes and hangs, foreign programs, where a fault is found, and a board with nothing but NumPy."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import hollow

from remac_runtime import cli, reference
from remac_runtime.errors import BadInput
from remac_runtime.format import BAND_ROWS
from remac_runtime.images import Picture, save_picture
from remac_runtime.model import Model
from remac_runtime.network import LAYERS
from remac_runtime.terrain import terrain
from remac_runtime.verify import engines
from remac_runtime.verify.matrix import BAD, CaseResult, Cell, Matrix, Outcome, tally
from remac_runtime.verify.runtimes import Runtime, command_line, misses
from remac_runtime.verify.session import Session
from remac_runtime.verify.trace import ORDER, first_difference

pytest.importorskip("onnx", reason="onnx is not installed")
ROOT = Path(__file__).resolve().parents[1]
QUALITY = 30


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "dune.ppm"
    save_picture(Picture(terrain(70, 100, 5)), path)
    return path


@pytest.fixture(scope="module")
def stream(model: Model, picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reference makes of the picture."""
    path = tmp_path_factory.mktemp("stream") / "dune.rmc"
    path.write_bytes(reference.encode(terrain(70, 100, 5), 8, model.network, model.bank, QUALITY))
    return path


@pytest.fixture(scope="module")
def latents(model: Model, stream: Path) -> Path:
    path = stream.with_suffix(".i32")
    reference.decode_latents(stream.read_bytes(), model.network, model.bank).y_hat.astype("<i4").tofile(path)
    return path


def verify(model: Model, tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """(exit code, the JSON). What the reference gives is kept for the next test, unless one keeps its own."""
    out = tmp_path / "out.json"
    kept = [] if "--keep" in arguments else ["--keep", str(model.folder / "kept")]
    code = cli.main(["verify", "--model", str(model.folder), "--json", str(out), *kept, *arguments])
    return code, json.loads(out.read_text()) if out.exists() else {}


def both(*engines: str) -> list[str]:
    return [argument for engine in engines for argument in ("--encode-with", engine, "--decode-with", engine)]


def script(tmp_path: Path, name: str, body: str) -> str:
    """A foreign program as a command, which sees its arguments as sys.argv[1:]."""
    path = tmp_path / f"{name}.py"
    path.write_text(f"import os, shutil, signal, sys, time\n{body}\n")
    return f"{sys.executable} -S {path}"


def details(content: dict[str, Any], name: str, action: str) -> str:
    return "; ".join(group["detail"] for group in content["runtimes"][name]["results"][action]["others"])


# ---- outcomes

def test_everything_gives_the_same(model: Model, picture: Path, tmp_path: Path) -> None:
    code, content = verify(model, tmp_path, str(picture), "--quality", "10,50", *both("reference", "numpy", "onnxruntime:level=basic"))
    assert code == 0 and content["passed"]
    assert content["matrix"] == [["pass"] * 3] * 3
    assert content["runtimes"]["onnxruntime:level=basic"]["results"]["encode"]["counts"] == {"pass": 2}


@pytest.mark.parametrize("outcome", Outcome)
def test_a_result_of_each_kind_decides_the_exit_code(outcome: Outcome) -> None:
    results = {"a": CaseResult(Outcome.PASS), "b": CaseResult(outcome)}
    matrix = Matrix(["e"], ["d"], {"e": results}, {"d": {case: CaseResult(Outcome.PASS) for case in results}})
    assert matrix.passed == (outcome not in BAD)
    cell = matrix.cell("e", "d")
    assert cell.counts[Outcome.PASS] == (2 if outcome == Outcome.PASS else 1)
    assert cell.outcome == (outcome if outcome in BAD else Outcome.PASS)
    partial = outcome in (Outcome.UNSUPPORTED, Outcome.NOT_RUN)
    assert cell.word == ("pass 1/2" if partial else str(cell.outcome))
    assert cell.tried == (1 if outcome in (Outcome.UNSUPPORTED, Outcome.NOT_RUN) else 2), "cases that were not run do not count as tried"


@pytest.mark.parametrize("quiet", [Outcome.UNSUPPORTED, Outcome.NOT_RUN])
def test_nothing_run_is_no_success(quiet: Outcome) -> None:
    matrix = Matrix(["e"], ["d"], {"e": {"a": CaseResult(quiet)}}, {"d": {"a": CaseResult(quiet)}})
    assert not matrix.passed and matrix.cell("e", "d").outcome == quiet
    assert not Matrix([], [], {}, {}).passed
    assert Cell({}).outcome == Outcome.NOT_RUN and tally([]).all == 0


def test_an_engine_that_is_not_here_is_unsupported(model: Model, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = verify(model, tmp_path, str(picture), *both("onnxruntime:packaging=none"))
    assert code == 1 and content["matrix"] == [["unsupported"]]
    assert "nothing was verified" in capsys.readouterr().out
    assert "holds no graphs" in details(content, "onnxruntime:packaging=none", "decode")


# ---- foreign programs

def test_a_foreign_encoder_and_decoder_join(model: Model, picture: Path, stream: Path, latents: Path, tmp_path: Path) -> None:
    encoder = script(tmp_path, "encoder", f"assert sys.argv[1] == '--q={QUALITY}'; shutil.copyfile({str(stream)!r}, sys.argv[3])")
    decoder = script(tmp_path, "decoder", f"shutil.copyfile({str(latents)!r}, sys.argv[2])")
    code, content = verify(model, tmp_path, str(picture), "--quality", str(QUALITY), "--encode-with", "numpy", "--encode-with",
                           f"mine={encoder} --q={{quality}} {{input}} {{output}}", "--decode-with", f"mine={decoder} {{input}} {{output}}")
    assert code == 0 and content["encoders"] == ["numpy", "mine"] and content["matrix"] == [["pass"], ["pass"]]


FAULTY = {      # what the program does: (outcome, a word of its detail)
    "crash": ("os.kill(os.getpid(), signal.SIGSEGV)", "error", "SIGSEGV"),
    "status": ("print('no memory'); sys.exit(3)", "error", "status 3: no memory"),
    "hang": ("time.sleep(60)", "timeout", "0.5 s"), "silent": ("pass", "error", "no output"),
    "unsupported": ("print('colour only', file=sys.stderr); sys.exit(77)", "unsupported", "colour only"),
    "wrong": ("open(sys.argv[2], 'wb').write(b'RMH1')", "fail", "byte 4"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faulty_programs(fault: str, model: Model, picture: Path, latents: Path, tmp_path: Path) -> None:
    body, outcome, word = FAULTY[fault]
    decoder = script(tmp_path, "decoder", f"shutil.copyfile({str(latents)!r}, sys.argv[2])")
    runtimes = [{"name": "bad", "encode": f"{script(tmp_path, fault, body)} {{input}} {{output}}", "timeout_s": 0.5 if fault == "hang" else 100},
                {"name": "good", "decode": f"{decoder} {{input}} {{output}}"}]
    (tmp_path / "runtimes.json").write_text(json.dumps({"runtimes": runtimes}))
    code, content = verify(model, tmp_path, str(picture), "--quality", str(QUALITY), "--runtimes", str(tmp_path / "runtimes.json"))
    assert content["matrix"] == [[outcome]] and word in details(content, "bad", "encode")
    assert code == (0 if outcome == "unsupported" else 1)       # the decoder has passed, so something was verified


def test_a_foreign_decoder_that_is_wrong_in_one_value(model: Model, picture: Path, latents: Path, tmp_path: Path) -> None:
    values = np.fromfile(latents, "<i4").reshape(8, 8, model.network.latents)
    values[3, 5, 7] += 1
    values.tofile(tmp_path / "wrong.i32")
    decoder = script(tmp_path, "decoder", f"shutil.copyfile({str(tmp_path / 'wrong.i32')!r}, sys.argv[2])")
    code, content = verify(model, tmp_path, str(picture), "--quality", str(QUALITY), "--encode-with", "numpy",
                           "--decode-with", f"mine={decoder} {{input}} {{output}}")
    text = details(content, "mine", "decode")
    assert code == 1 and content["matrix"] == [["fail"]]
    assert f"latents y_hat: channel 7, row 3, column 5: {values[3, 5, 7]}, the reference gives {values[3, 5, 7] - 1}; 1 of" in text


def test_the_stream_of_a_foreign_encoder_is_decoded_to_find_the_place(model: Model, picture: Path, tmp_path: Path) -> None:
    """Another quality: the symbols differ from the first phase on."""
    (tmp_path / "other.rmc").write_bytes(reference.encode(terrain(70, 100, 5), 8, model.network, model.bank, QUALITY - 1))
    encoder = script(tmp_path, "encoder", f"shutil.copyfile({str(tmp_path / 'other.rmc')!r}, sys.argv[2])")
    code, content = verify(model, tmp_path, str(picture), "--quality", str(QUALITY), "--encode-with", f"mine={encoder} {{input}} {{output}}",
                           "--decode-with", "reference")
    assert code == 1 and "the symbols of phase 0: channel" in details(content, "mine", "encode")


def test_command_lines() -> None:
    values = {"input": "a b.ppm", "output": "o", "quality": 3, "band_rows": BAND_ROWS, "references": True, "image_id": None,
              "mosaic": "none"}
    template = "./enc -q{quality} --refs {references} [--id {image_id}] {input} '{output}.x'"
    assert command_line(template, values) == ["./enc", "-q3", "--refs", "chosen", "a b.ppm", "o.x"]
    assert command_line(template, {**values, "image_id": 7, "references": False}) == ["./enc", "-q3", "--refs", "none", "--id", "7", "a b.ppm", "o.x"]
    with pytest.raises(BadInput, match="no placeholder"):
        command_line("x {input} {size}", values)
    assert misses(template, values) is None and misses(template, {**values, "band_rows": 64}) == "band_rows"


# ---- workers that die

def worker_runtimes(tmp_path: Path, body: str, **fields: Any) -> Path:
    """A file of one runtime, whose worker's Python runs `body` first: `when(item)` is called before each item."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import json, os, runpy, signal, sys, time\n"
        "sys.argv = sys.argv[2:]\n"        # -m remac_runtime.verify.worker JOB
        "from remac_runtime.verify import worker as verify_worker\n"
        "plain = verify_worker.RuntimeCodec.decode\n"
        f"def decode(self, item):\n    {body}\n    return plain(self, item)\n"
        "verify_worker.RuntimeCodec.decode = decode\n"
        "sys.exit(verify_worker.main(sys.argv[1:]))\n")
    entry = {"name": "frail", "engine": "numpy", "launcher": [sys.executable, str(launcher)], **fields}
    path = tmp_path / "runtimes.json"
    path.write_text(json.dumps({"runtimes": [entry]}))
    return path


@pytest.mark.parametrize(("body", "outcome", "word"), [
    ("os.kill(os.getpid(), signal.SIGILL)", "error", "SIGILL"), ("time.sleep(60)", "timeout", "3 s"), ("os._exit(0)", "error", "without a word")])
def test_a_worker_that_dies_in_one_case(body: str, outcome: str, word: str, model: Model, picture: Path, tmp_path: Path) -> None:
    """The cases after it are run by another worker."""
    runtimes = worker_runtimes(tmp_path, f"if item['quality'] == 20: {body}", timeout_s=3 if outcome == "timeout" else 100)
    code, content = verify(model, tmp_path, str(picture), "--quality", "10,20,30", "--runtimes", str(runtimes))
    counts = content["runtimes"]["frail"]["results"]
    assert code == 1 and content["matrix"] == [[outcome]]
    assert counts["encode"]["counts"] == {"pass": 3} and counts["decode"]["counts"] == {"pass": 2, outcome: 1}
    assert word in details(content, "frail", "decode")


def test_a_python_that_does_not_start(model: Model, picture: Path, tmp_path: Path) -> None:
    runtimes = tmp_path / "runtimes.json"
    runtimes.write_text(json.dumps({"runtimes": [{"name": "gone", "engine": "numpy", "launcher": ["/no/such/python"]},
                                                 {"name": "small", "engine": "numpy", "max_pixels": 100}]}))
    code, content = verify(model, tmp_path, str(picture), "--runtimes", str(runtimes))
    assert code == 1 and content["matrix"] == [["error", "error"], ["not run", "not run"]]
    assert "no such file" in details(content, "gone", "encode") and "up to 100 pixels" in details(content, "small", "decode")


# ---- where a fault is found

@pytest.mark.parametrize(("engine", "fault"), [("numpy", "body.3"), ("onnxruntime", "deep.5"), ("onnxruntime", "scale1.2"),
                                               pytest.param("torch", "hyper_out.1", marks=pytest.mark.slow)])
def test_a_changed_weight_is_found_in_its_layer_and_channel(engine: str, fault: str, model: Model, picture: Path, tmp_path: Path) -> None:
    layer, _, channel = fault.partition(".")
    pytest.importorskip(engine)
    code, content = verify(model, tmp_path, str(picture), "--encode-with", engine, "--decode-with", engine, "--inject", fault)
    entropy_path = layer.startswith("scale")
    assert code == 1 and content["matrix"] == [["fail"]] and content["inject"] == fault
    for action in ("encode", "decode") if entropy_path else ("encode",):
        text = details(content, engine, action)
        assert f"first difference in layer {layer}: channel {channel}, row" in text and "the reference gives" in text, text
    if not entropy_path:
        assert content["runtimes"][engine]["results"]["decode"]["counts"] == {"pass": 1}, "a decoder does not run the analysis"


def test_a_changed_byte_is_found_by_everyone(model: Model, picture: Path, stream: Path, tmp_path: Path) -> None:
    encoder = script(tmp_path, "encoder", f"shutil.copyfile({str(stream)!r}, sys.argv[2])")
    code, content = verify(model, tmp_path, str(picture), "--quality", str(QUALITY), "--inject", "byte", *both("numpy"),
                           "--encode-with", f"mine={encoder} {{input}} {{output}}")
    assert code == 1 and content["matrix"] == [["fail"], ["fail"]]
    assert f"byte {stream.stat().st_size // 2} is the first that differs" in details(content, "mine", "encode")
    assert "no intact packet" in details(content, "numpy", "decode")


def test_a_place_that_does_not_exist_cannot_be_changed(model: Model, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(model, tmp_path, str(picture), "--inject", "body.999") == (1, {})
    assert "name LAYER.CHANNEL" in capsys.readouterr().err


@pytest.mark.parametrize("layer", LAYERS)
def test_changed_layers_differ_in_one_weight_within_its_range(layer: str, model: Model) -> None:
    before, after = model.network.layers[layer].weight, engines.changed_layer(model.network, f"{layer}.1").weight
    places = np.argwhere(before != after)
    assert len(places) == 1 and places[0][0] == 1 and abs(int(after[tuple(places[0])])) == 64


def test_first_difference_is_the_first_in_the_order_of_computation() -> None:
    assert set(LAYERS) <= set(ORDER) and ORDER.index("scale0") < ORDER.index("symbols0") < ORDER.index("hidden1")
    wanted = {name: np.zeros((4, 3, 2), np.int64) for name in ORDER}
    found = {name: x.copy() for name, x in wanted.items()}
    assert first_difference(found, wanted) is None
    found["mean2"][1, 2, 0], found["deep"][3, 0, 1] = 9, -5
    difference = first_difference(found, wanted)
    assert difference is not None
    assert (difference.layer, difference.found, difference.expected) == ("deep", -5, 0)
    assert (difference.channel, difference.row, difference.column) == (1, 3, 0)
    del found["reduce"], found["body"]
    assert "or in body, reduce, which this engine does not show" in str(first_difference(found, wanted))
    shorter = {**wanted, "stem": wanted["stem"][:2]}
    assert "(2, 3, 2), the reference gives (4, 3, 2)" in str(first_difference(shorter, wanted))


# ---- vectors, boards, kept runs, reports

def small_vectors(folder: Path, model: Model, stream: Path, picture: Path, latents: Path) -> Path:
    """A suite of one good and two bad vectors."""
    (folder / "set").mkdir(parents=True)
    data = stream.read_bytes()
    streams = {"dune.rmc": data, "cut.rmc": data[:50], "lost.rmc": hollow(data)}
    for name, content in streams.items():
        (folder / "set" / name).write_bytes(content)
    (folder / "dune.ppm").write_bytes(picture.read_bytes())
    y_hat = np.fromfile(latents, "<i4").reshape(8, 8, model.network.latents)
    digest = [hashlib.sha256(f"int32{list(y_hat.shape)}".encode() + y.astype("<i4").tobytes()).hexdigest() for y in (y_hat, np.zeros_like(y_hat))]

    def entry(name: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "file": f"{name}.rmc", "stream_sha256": hashlib.sha256(streams[f"{name}.rmc"]).hexdigest(), **fields}

    bank = model.bank.hash.hex() if model.bank else None
    good = entry("dune", recipe={"width": 100, "height": 70, "depth": 8, "grey": False}, picture="dune.ppm", quality=QUALITY, band_rows=BAND_ROWS,
                 references=True, image_id=None, mosaic="none", odd=None, latents_sha256=digest[0])
    bad = [entry("cut", error="CorruptStream", lost=[]),
           entry("lost", error=None, lost=[0], band_rows=BAND_ROWS, latents_shape=[8, 8, model.network.latents], latents_sha256=digest[1])]
    (folder / "manifest.json").write_text(json.dumps({"sets": [{"codec_hash": model.network.hash.hex(), "bank_hash": bank, "folder": "set",
                                                               "vectors": [good], "bad": bad}]}))
    return folder


def test_vectors_on_a_bare_board(model: Model, stream: Path, picture: Path, latents: Path, tmp_path: Path) -> None:
    """NumPy and onnxruntime only, no Pillow, no reference among the runtimes: the suite alone says what must come out."""
    vectors = small_vectors(tmp_path / "vectors", model, stream, picture, latents)
    out = tmp_path / "out.json"
    block = ("import sys\nfor name in ('PIL', 'torch', 'onnx', 'tqdm', 'scipy'):\n    sys.modules[name] = None\n"
             "from remac_runtime.cli import main\nsys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", block, "verify", "--model", str(model.folder), "--vectors", str(vectors), "--json", str(out),
               *both("numpy", "onnxruntime")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")}, capture_output=True, text=True, check=False)
    content = json.loads(out.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert content["matrix"] == [["pass", "pass"]] * 2
    for name in ("numpy", "onnxruntime"):
        assert {action: results["counts"] for action, results in content["runtimes"][name]["results"].items()} == {
            "encode": {"pass": 1}, "decode": {"pass": 3}}


def test_a_bad_vector_that_is_decoded_fails(model: Model, stream: Path, picture: Path, latents: Path, tmp_path: Path) -> None:
    vectors = small_vectors(tmp_path / "vectors", model, stream, picture, latents)
    manifest = json.loads((vectors / "manifest.json").read_text())
    manifest["sets"][0]["bad"][0]["error"], manifest["sets"][0]["bad"][1] = "WrongModel", {**manifest["sets"][0]["bad"][1], "lost": []}
    (vectors / "manifest.json").write_text(json.dumps(manifest))
    code, content = verify(model, tmp_path, "--vectors", str(vectors), *both("numpy"))
    assert code == 1 and content["runtimes"]["numpy"]["results"]["decode"]["counts"] == {"fail": 2, "pass": 1}
    assert "expected WrongModel" in details(content, "numpy", "decode") and "expected none" in details(content, "numpy", "decode")


def test_vectors_must_be_those_of_the_model(model: Model, stream: Path, picture: Path, latents: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    vectors = small_vectors(tmp_path / "vectors", model, stream, picture, latents)
    (vectors / "set" / "dune.rmc").write_bytes(b"other")
    assert verify(model, tmp_path, "--vectors", str(vectors)) == (1, {})
    assert "not the bytes of the manifest" in capsys.readouterr().err
    (vectors / "manifest.json").write_text(json.dumps({"sets": []}))
    assert verify(model, tmp_path, "--vectors", str(vectors)) == (1, {})
    assert "no vectors of codec" in capsys.readouterr().err


def test_what_has_passed_is_kept(model: Model, picture: Path, tmp_path: Path) -> None:
    """A second run does not start what has passed, unless the runtime, the picture or the model is another."""
    runtimes = worker_runtimes(tmp_path, "open('started', 'a').write('x')")
    keep = ["--keep", str(tmp_path / "keep"), "--runtimes", str(runtimes)]
    old = Path.cwd()
    os.chdir(tmp_path)
    try:
        for quality, started in (("10", 1), ("10", 1), ("10,11", 2), ("10", 2)):
            code, content = verify(model, tmp_path, str(picture), "--quality", quality, *keep)
            assert code == 0 and content["runtimes"]["frail"]["machine"]["numpy"] == np.__version__
            assert len(Path("started").read_text()) == started
        worker_runtimes(tmp_path, "open('started', 'a').write('y')", timeout_s=99)
        verify(model, tmp_path, str(picture), "--quality", "10", *keep)
        assert Path("started").read_text() == "xxy"
    finally:
        os.chdir(old)


def test_what_another_reference_gave_is_not_kept(model: Model, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = tmp_path / "keep"
    for fingerprint, known in (("one", 1), ("one", 1), ("two", 2)):
        monkeypatch.setattr(Session, "_fingerprint", lambda self, runtime, fingerprint=fingerprint: fingerprint)
        assert verify(model, tmp_path, str(picture), "--quality", "10", "--keep", str(keep), *both("numpy"))[0] == 0
        assert len(list((keep / "expected").glob("*.rmc"))) == known


def test_the_page_says_what_the_matrix_says(model: Model, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runtimes = tmp_path / "runtimes.json"
    gone = {"name": "Mars <board>", "unsupported": "it is on Mars & cannot be reached", "recipe": "fly there"}
    runtimes.write_text(json.dumps({"runtimes": [{"name": "numpy", "engine": "numpy"}, gone]}))
    page = tmp_path / "page.html"
    code, content = verify(model, tmp_path, str(picture), "--runtimes", str(runtimes), "--report", str(page))
    text = page.read_text()
    assert code == 0 and content["matrix"] == [["pass", "unsupported"], ["unsupported", "unsupported"]]
    assert text.count('<td class="pass">P</td>') == 1 and text.count('<td class="unsupported" title=') == 3
    assert "Mars &lt;board&gt;" in text and "it is on Mars &amp; cannot be reached" in text and "fly there" in text
    assert "prefers-color-scheme: dark" in text and "http" not in text and "<script" not in text and str(tmp_path) not in text
    assert str(tmp_path) not in json.dumps(content)
    shown = capsys.readouterr().out
    assert "unsupported (it is on Mars & cannot be reached)" in shown and "2 pass, 2 unsupported" in shown


@pytest.mark.parametrize(("arguments", "word"), [
    (["a.ppm", "--encode-with", "quantum"], "unknown engine"), (["a.ppm", "--decode-with", "numpy:level=all"], "no option of numpy"),
    (["a.ppm", "--runtimes", "none.json"], "cannot be read"), (["--vectors", "nowhere"], "missing"),
    (["none.ppm", "--report", "no/x.html"], "no: no such folder: make it")])
def test_wishes_that_cannot_be_met(arguments: list[str], word: str, model: Model, picture: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(model, tmp_path, *(str(picture) if argument == "a.ppm" else argument for argument in arguments)) == (1, {})
    error = capsys.readouterr().err.splitlines()[-1]
    assert word in error and "Traceback" not in error


def test_runtimes_are_read_as_they_are_written() -> None:
    from remac_runtime.verify.runtimes import from_json
    runtime = Runtime("a", "numpy", ("qemu", "python"), {"X": "1"}, timeout_s=3, max_pixels=9, recipe="r")
    assert from_json(json.loads(json.dumps(runtime.as_json()))) == runtime
    for wrong in ({"engine": "numpy"}, {"name": "a"}, {"name": "a", "engine": "numpy", "cpu": 3}, {"name": "a", "engine": "abacus"}):
        with pytest.raises(BadInput):
            from_json(wrong)
    assert dataclasses.replace(runtime, engine="").can("encode") is False


# ---- packagings

@pytest.mark.parametrize("packaging", ["float", "qdq"])
def test_packagings_give_the_same_and_show_a_changed_weight(packaging: str, model: Model, picture: Path, tmp_path: Path) -> None:
    from export.to_packaging import export_packaging
    export_packaging(model.network, packaging, model.folder / packaging)
    engine = f"onnxruntime:packaging={packaging}"
    code, content = verify(model, tmp_path, str(picture), "--quality", "10,50", *both(engine))
    assert code == 0 and content["matrix"] == [["pass"]]
    code, content = verify(model, tmp_path, str(picture), "--encode-with", engine, "--decode-with", engine, "--inject", "deep.5")
    assert code == 1 and "layer deep" in details(content, engine, "encode") and "channel 5" in details(content, engine, "encode")
