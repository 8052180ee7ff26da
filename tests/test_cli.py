"""The command `remac`: what it writes, says and returns.

A stand-in codec (rows of pixels, zlib) takes the place of the network; the last tests run the real one on the small random model."""
from __future__ import annotations

import errno
import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_codec import PICTURE, ROOT, FakeEncoder, FakeModel, damaged, remac
from PIL import Image

from remac_runtime import cli, commands, compare, exits, packets
from remac_runtime.codec import EncodeOptions, LossReport
from remac_runtime.exits import Exit
from remac_runtime.images import Picture, load_picture, save_picture

# ---- help

def test_help_names_commands_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("encode", "decode", "info", "compare", "view", "examples:", "exit codes:"))
    assert "(decode, ground, view)" in text
    listed = {int(code) for code in re.findall(r"^  (\d+)  ", text, re.MULTILINE)}
    assert listed == set(Exit)
    for command in cli.COMMANDS:
        assert remac(command, "--help") == 0
        text = capsys.readouterr().out
        assert "exit codes:" in text and ("--backend" not in text or "default: the fastest that works here" in " ".join(text.split()))


def test_help_does_not_import_numpy() -> None:
    script = "import sys\nfrom remac_runtime.cli import main\ntry:\n    main(['--help'])\nfinally:\n    sys.stderr.write(str('numpy' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=_environment(), check=True)
    assert done.stderr == "False"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}


# ---- encode and decode

def test_encode_and_decode_one_file(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "-o", "a.rmc", "--quality", "40", "--image-id", "0x1234") == 0
    line = capsys.readouterr().out
    assert line.startswith("a.png -> a.rmc: 90x300 8-bit colour, ") and "quality 40" in line and f"{Path('a.rmc').stat().st_size:,} bytes" in line
    assert remac("decode", "a.rmc", "-o", "back.png") == 0
    assert np.array_equal(load_picture("back.png").samples, PICTURE)
    assert sorted(os.listdir()) == ["a.png", "a.rmc", "b.png", "back.png", "bad.png"]


def test_options_reach_the_codec(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def record(self: FakeEncoder, picture: Picture, options: EncodeOptions) -> bytes:
        seen.extend([options, self.arguments[1:], picture.depth])
        return FakeEncoder.encode(self, picture, EncodeOptions())
    monkeypatch.setattr(commands, "Encoder", type("Recorder", (FakeEncoder,), {"encode": record}))
    save_picture(Picture(PICTURE[:, :, 0].astype(np.uint16), 16), "deep.png")
    assert remac("encode", "deep.png", "-o", "d.rmc", "--target-bytes", "5000", "--strip-rows", "128", "--band-rows", "64", "--no-reference",
                 "--depth", "12", "--image-id", "7", "--backend", "numpy", "--threads", "2") == 0
    assert seen == [EncodeOptions(target_bytes=5000, strip_rows=128, band_rows=64, references=False, image_id=7), ("numpy", 2), 12]
    seen.clear()
    assert remac("encode", "a.png", "-o", "d.rmc", "--target-psnr", "36.5") == 0
    assert seen == [EncodeOptions(target_psnr=36.5), (None, 1), 8]


def test_a_batch_goes_on_after_a_bad_file_and_names_it(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "bad.png", "b.png", "-o", "out") == Exit.FAILED
    captured = capsys.readouterr()
    assert sorted(os.listdir("out")) == ["a.rmc", "b.rmc"]
    assert "[2/3] bad.png: is not a picture" in captured.err and "2 of 3 encoded; failed: bad.png" in captured.err
    assert "Traceback" not in captured.err and captured.out.count("\n") == 2
    assert remac("decode", "out/a.rmc", "out/b.rmc", "-o", "pictures/") == 0
    assert np.array_equal(load_picture("pictures/b.png").samples, PICTURE[::-1])
    assert "2 of 2 decoded" in capsys.readouterr().out


def test_one_file_into_a_folder(fake: Path) -> None:
    assert remac("encode", "a.png", "-o", "new/folder/") == 0
    assert os.listdir("new/folder") == ["a.rmc"]
    Path("there").mkdir()
    assert remac("encode", "a.png", "-o", "there") == 0
    assert os.listdir("there") == ["a.rmc"]


def test_json_of_a_batch(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "bad.png", "-o", "out", "--json") == Exit.FAILED
    result = json.loads(capsys.readouterr().out)
    first, second = result["files"]
    assert (result["command"], result["failed"]) == ("encode", 1)
    assert first["bytes"] == Path("out/a.rmc").stat().st_size and first["bits_per_pixel"] == pytest.approx(8 * first["bytes"] / 27000, abs=1e-5)
    assert (first["width"], first["height"], first["depth"], first["grey"], first["quality"]) == (90, 300, 8, False, 32)
    assert set(second) == {"input", "error"}
    assert first["semantic_reference"] is None and first["texture_reference"] is None


def test_a_damaged_band_is_concealed_reported_and_has_its_own_exit_code(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remac("encode", "a.png", "-o", "a.rmc")
    Path("a.rmc").write_bytes(damaged(Path("a.rmc").read_bytes(), 1))
    capsys.readouterr()
    assert remac("decode", "a.rmc", "-o", "back.png", "--json") == Exit.LOSS
    captured = capsys.readouterr()
    assert "1 of 3 bands are lost and were concealed (rows 128-255)" in captured.err
    one: Any = Namespace(header=packets.StreamHeader(64, 64, bytes(8)), report=LossReport((0,), 1, 1))
    assert commands.loss_lines(one) == ["1 of 1 band is lost and was concealed (rows 0-63): receive it again for the whole picture",
                                        "1 byte belongs to no intact packet and was skipped"]
    (result,) = json.loads(captured.out)["files"]
    assert (result["lost_bands"], result["lost_rows"], result["bands"]) == ([1], [[128, 255]], 3) and result["skipped_bytes"] > 0
    assert np.array_equal(load_picture("back.png").samples[:128], PICTURE[:128])
    assert remac("decode", "a.rmc", "-o", "strict.png", "--strict") == Exit.FAILED
    assert not Path("strict.png").exists() and "without `strict`" in capsys.readouterr().err
    Path("c.rmc").write_bytes(b"junk" + FakeEncoder(FakeModel()).encode(Picture(PICTURE), EncodeOptions()))
    assert remac("decode", "c.rmc", "a.rmc", "-o", "out") == Exit.LOSS, "the worst of the batch"
    assert remac("decode", "c.rmc", "-o", "out") == 0, "bytes between intact packets cost nothing"


def bad_streams() -> dict[str, tuple[bytes, str]]:
    whole = FakeEncoder(FakeModel()).encode(Picture(PICTURE), EncodeOptions())
    foreign = bytearray(packets.pack_stream(packets.StreamHeader(90, 60, bytes(8)), [packets.BandPayload(b"", 0, 0)]))
    return {"empty": (b"", "is empty"), "text": (b"hello, world" * 9, "not a remac stream"), "cut in the header": (whole[:50], "no intact packet"),
            "damaged header alone": (b"X" + whole[1:60], "not a remac stream"), "another codec": (bytes(foreign), "made with codec"),
            "newer version": (whole[:3] + b"9" + whole[4:60], "stream format 9.*install a newer")}


@pytest.mark.parametrize("kind", bad_streams())
def test_bad_streams_get_one_line_and_leave_no_file(fake: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    data, message = bad_streams()[kind]
    Path("bad.rmc").write_bytes(data)
    before = sorted(os.listdir())
    assert remac("decode", "bad.rmc", "-o", "x.png") == Exit.FAILED
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("remac: error: bad.rmc: ") and error.count("\n") == 1 and error.count(":") >= 3
    assert sorted(os.listdir()) == before


def test_a_truncated_stream_gives_what_arrived(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remac("encode", "a.png", "-o", "a.rmc")
    data = Path("a.rmc").read_bytes()
    Path("a.rmc").write_bytes(data[:len(data) * 2 // 3])
    assert remac("decode", "a.rmc", "-o", "a2.png") == Exit.LOSS
    assert np.array_equal(load_picture("a2.png").samples[:128], PICTURE[:128])


def test_the_pixel_limit(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remac("encode", "a.png", "-o", "a.rmc")
    assert remac("decode", "a.rmc", "-o", "x.png", "--max-pixels", "26999") == Exit.FAILED
    assert "90x300 is beyond the limit of 26999" in capsys.readouterr().err
    assert remac("decode", "a.rmc", "-o", "x.png", "--max-pixels", "27000") == 0


def test_a_missing_bank_is_a_warning(fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commands, "load_model", lambda folder: FakeModel(None, "bank.rmb is damaged"))
    assert remac("encode", "a.png", "-o", "a.rmc") == 0
    assert "warning: encoding without references: bank.rmb is damaged" in capsys.readouterr().err
    assert remac("encode", "a.png", "-o", "a.rmc", "--no-reference") == 0
    assert capsys.readouterr().err == ""


def test_a_target_that_cannot_be_met(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "-o", "a.rmc", "--target-bytes", "10") == Exit.FAILED
    assert "remac: error: a.png: the picture does not fit 10 bytes: the smallest possible size is" in capsys.readouterr().err
    assert not Path("a.rmc").exists()


# ---- wrong usage

@pytest.mark.parametrize(("arguments", "message"), [
    (["encode", "a.png"], "-o/--output"), (["encode", "a.png", "-o", "x.rmc", "--quality", "64"], "0..63"),
    (["encode", "a.png", "-o", "x.rmc", "--quality", "3", "--target-bytes", "9"], "not allowed with"),
    (["encode", "a.png", "-o", "x.rmc", "--band-rows", "100"], "multiple of 64"),
    (["encode", "a.png", "-o", "x.rmc", "--target-psnr", "nan"], "not a PSNR"),
    (["encode", "a.png", "-o", "x.rmc", "--threads", "many"], "not a whole number"), (["encode", "a.png", "b.png", "-o", "x.rmc"], "need a folder"),
    (["encode", "a.png", "b.png", "-o", "bad.png"], "need a folder"), (["encode", "a.png", "b.png", "-o", "x", "--image-id", "1"], "one picture"),
    (["encode", "a.png", "-o", "b.png"], "name it b.rmc"), (["decode", "a.rmc", "-o", "b.jpg"], "name it b.png"),
    (["decode", "a.rmc", "-o", "b"], "written as .png, .pgm, .ppm"), (["enhance", "a.jpg", "-o", "b.tif"], "name it b.png"),
    (["encode", "a.png", "./a.png", "-o", "x"], "given twice"),
    (["encode", "a.png", "sub/a.png", "-o", "x"], "both be written to x/a.rmc: use two output folders"),
    *(([command, "a.png", "-o", output], "no place for a file")
      for command in ("encode", "decode", "view", "enhance", "ground") for output in ("", "-")),
    (["view", "a.png", "-o", "a.png"], "overwrite itself"),
    (["decode", "a.png", "-o", "a.png"], "overwrite itself"), (["view", "a.rmc", "-o", "a.pdf"], ".html or a .png"),
    (["explode"], "invalid choice"), ([], "COMMAND"),
])
def test_wrong_usage(fake: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    before = sorted(os.listdir())
    assert remac(*arguments) == Exit.USAGE
    error = capsys.readouterr().err
    assert message in error and "usage: remac" in error
    assert sorted(os.listdir()) == before


# ---- interruptions and machine trouble

def test_a_signal_at_the_worst_moment(fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)       # a job in the background starts with SIGINT ignored
    for number in (signal.SIGTERM, signal.SIGINT):
        def killed(self: Path, target: Path, number: int = number) -> None:
            assert self.stat().st_size > 0, "the new file is written, but not yet in place"
            os.kill(os.getpid(), number)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            assert remac("encode", "a.png", "b.png", "-o", "out") == Exit.INTERRUPTED
        assert os.listdir("out") == [] and "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGINT, interrupt)


def test_a_full_disk(fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    monkeypatch.setattr(Path, "replace", full)
    assert remac("encode", "a.png", "-o", "a.rmc") == Exit.FAILED
    assert "no space left on device: check the path" in capsys.readouterr().err and sorted(os.listdir()) == ["a.png", "b.png", "bad.png"]


def test_a_folder_that_cannot_be_made(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "-o", "bad.png/x/") == Exit.FAILED
    error = capsys.readouterr().err
    assert error.startswith("remac: error: ") and error.count("\n") == 1
    remac("encode", "a.png", "-o", "a.rmc")
    for command, output in (("encode", "x.rmc"), ("decode", "x.png"), ("view", "x.html")):
        assert remac(command, "a.png" if command == "encode" else "a.rmc", "-o", f"nowhere/{output}") == Exit.FAILED
        assert capsys.readouterr().err == "remac: error: nowhere: no such folder: make it\n"


def test_a_bug_is_one_line_unless_asked_for(fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError("division\nby zero")
    monkeypatch.setattr(FakeEncoder, "encode", broken)
    assert remac("encode", "a.png", "b.png", "-o", "out") == Exit.FAILED
    assert "a.png: internal error (ZeroDivisionError: division by zero): please report it" in capsys.readouterr().err
    monkeypatch.setenv(exits.DEBUG_VARIABLE, "1")
    with pytest.raises(ZeroDivisionError):
        remac("encode", "a.png", "-o", "x.rmc")


def test_a_bug_outside_a_batch_is_one_line_too(fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("division by zero")
    monkeypatch.setattr(compare, "run", broken)
    assert remac("compare", "a.png", "b.png") == Exit.FAILED
    assert "internal error (ZeroDivisionError: division by zero): please report it" in capsys.readouterr().err
    monkeypatch.setenv(exits.DEBUG_VARIABLE, "1")
    with pytest.raises(ZeroDivisionError):
        remac("compare", "a.png", "b.png")


def test_numbers_are_decimal(fake: Path) -> None:
    """A leading zero is no octal; the id of a picture may be hexadecimal."""
    assert remac("encode", "a.png", "-o", "x.rmc", "--quality", "08", "--image-id", "0x10") == 0
    assert packets.scan(Path("x.rmc").read_bytes()).header.quality == 8


def test_standard_output_may_be_named(fake: Path) -> None:
    """/dev/stdout leads to a pipe, which has no name to write beside."""
    script = "from pathlib import Path; from remac_runtime.files import write_atomically; write_atomically(Path('/dev/stdout'), b'through')"
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout == b"through"


def test_an_error_is_json_only_on_standard_output(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`verify --json FILE` names a file: the error is no part of it."""
    assert remac("verify", "nothing.png", "--json", "result.json") == Exit.FAILED
    assert capsys.readouterr().out == "" and not Path("result.json").exists()
    assert remac("info", "nothing.rmc", "--json") == Exit.FAILED
    assert "no such file" in json.loads(capsys.readouterr().out)["error"]


def test_names_that_cannot_be_printed(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, output = "bild ü 火.png", io.BytesIO()
    shutil.copy("a.png", name)
    shown = io.TextIOWrapper(output, "latin-1")
    monkeypatch.setattr(sys, "stdout", shown)
    assert remac("encode", name, "a.png", "-o", "out") == 0
    assert b"\\u706b.png -> out" in output.getvalue() and b"2 of 2 encoded" in output.getvalue() and len(os.listdir("out")) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output(fake: Path, unbuffered: str) -> None:
    remac("encode", "a.png", "-o", "a.rmc")
    for arguments in (["a.rmc", "--json"], ["a.rmc"], ["b.rmc", "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-m", "remac_runtime", "info", *arguments], stdout=full, stderr=subprocess.PIPE, text=True,
                                  env={**_environment(), "PYTHONUNBUFFERED": unbuffered}, check=False)
        assert done.returncode == Exit.FAILED and done.stderr.startswith("remac: error: ") and done.stderr.count("\n") == 1, done.stderr


def test_a_closed_pipe_is_no_error_message(fake: Path) -> None:
    remac("encode", "a.png", "-o", "a.rmc", "--band-rows", "64")
    script = f"{sys.executable} -m remac_runtime info a.rmc | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=_environment(), check=False)
    assert done.stderr == ""


# ---- sub-commands of other packages

class FakeEntry:
    name = "train"

    def load(self) -> Any:
        return lambda arguments: 7 if arguments == ["--steps", "3"] else 8


def test_sub_commands_of_the_toolkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [FakeEntry()] if group == cli.PLUGIN_GROUP else [])
    assert remac("train", "--steps", "3") == 7
    assert remac("--help") == 0
    assert "train" in capsys.readouterr().out
    broken = FakeEntry()
    broken.load = lambda: importlib.import_module("not_there")  # type: ignore[method-assign]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [broken])
    assert remac("train") == Exit.FAILED
    assert "train cannot be loaded" in capsys.readouterr().err


# ---- the real codec on the small random model

@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_model: Path) -> Path:
    """A working folder with a picture; the ground decoder, which needs trained weights, shows the first latents."""
    from remac_runtime.ground import GroundDecoder, GroundFile

    def show(self: GroundDecoder, y_hat: np.ndarray, *_: object) -> np.ndarray:
        return np.clip((y_hat[:, :, :3] >> 10) + 128, 0, 255).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    monkeypatch.setattr(GroundDecoder, "decode", show)
    monkeypatch.setattr(GroundDecoder, "file", GroundFile(1, "fake", tmp_path))
    monkeypatch.setenv("REMAC_MODEL", str(small_model))
    monkeypatch.chdir(tmp_path)
    Image.open(ROOT / "samples" / "spirit_husband_hill_terrain.png").convert("RGB").crop((0, 0, 150, 140)).save("a.png")
    return tmp_path


def test_the_real_codec(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "-o", "a.rmc", "--backend", "numpy", "--band-rows", "64") == 0
    assert remac("encode", "a.png", "-o", "b.rmc", "--backend", "numpy", "--band-rows", "64", "--strip-rows", "64") == 0
    assert remac("compare", "a.rmc", "b.rmc") == 0
    capsys.readouterr()
    assert remac("info", "a.rmc", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["width"], content["height"], content["bands"], content["profile"]) == (150, 140, 3, "small")
    assert content["references"]["kind"] == "bank" and content["references"]["semantic"] in range(3)
    assert remac("decode", "a.rmc", "-o", "whole.png", "--backend", "numpy") == 0
    Path("b.rmc").write_bytes(damaged(Path("a.rmc").read_bytes(), 1))
    assert remac("decode", "b.rmc", "-o", "concealed.png", "--backend", "numpy") == Exit.LOSS
    whole, concealed = load_picture("whole.png").samples, load_picture("concealed.png").samples
    assert whole.shape == (140, 150, 3) and np.array_equal(whole[:64], concealed[:64]) and np.array_equal(whole[128:], concealed[128:])
    assert remac("view", "b.rmc", "-o", "view.html", "--backend", "numpy") == Exit.LOSS
    assert "for the entropy parameters" in Path("view.html").read_text()


def test_the_real_codec_meets_its_byte_budget(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remac("encode", "a.png", "-o", "a.rmc", "--backend", "numpy", "--target-bytes", "1", "--json") == Exit.FAILED
    smallest = int(re.findall(r"(\d+) bytes \(quality 0\)", json.loads(capsys.readouterr().out)["files"][0]["error"])[0])
    assert remac("encode", "a.png", "-o", "a.rmc", "--backend", "numpy", "--target-bytes", str(smallest + 500)) == 0
    assert smallest <= Path("a.rmc").stat().st_size <= smallest + 500


def test_errors_about_the_model(real: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert remac("encode", "a.png", "-o", "a.rmc", "--model", "nowhere") == Exit.FAILED
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setenv("REMAC_MODEL", str(real))
    (real / "network.rmn").write_bytes(b"RMACNET1 but damaged")
    assert remac("encode", "a.png", "-o", "a.rmc") == Exit.FAILED
    error = capsys.readouterr().err
    assert error.startswith("remac: error: ") and error.count("\n") == 1 and not Path("a.rmc").exists()
