"""Runs of training are told what they are, resume as they began, and are read back; bad input to the commands around them is one line."""
from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from tiny_codec import TINY

from calibration import decoder, freeze, thaw
from remac import gpu_bundle, marsqe_weights, matching, regrow, train_codec, train_marsqe, train_segmenter, training_record, widen
from remac.checkpoints import read_checkpoint, save_checkpoint, write_checkpoint
from remac.config import PROFILES, RATE, STAGES
from remac.runs import begin, open_log, read_run
from remac_runtime.errors import BadInput, BadNetwork
from remac_runtime.exits import Exit, interrupt_at_end, interrupted_by_terminate, reported

Main = Callable[[list[str]], int]


# ---- runs

def test_a_run_is_read_back(tmp_path: Path) -> None:
    """Where it ran is written when it runs, not when its record is."""
    run = tmp_path / "run"
    begin(run, {"codec": {"latents": 304}, "train": asdict(STAGES["quantised"]), "rate": asdict(RATE), "processes": 2, "device": "cpu",
                "command": "c"})
    save_checkpoint(run / "checkpoint.pt", {"model": {}, "step": 70, "seconds": 12.25})
    record = read_run(run)
    assert (record.steps, record.batch, record.seconds, record.device, record.command) == (70, 3, 12.25, "cpu", "c")
    assert record.hardware == record.config["hardware"] and record.hardware.startswith("cpu, ")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"hardware": "cpu, another one"}))
    stage = training_record.stage(run)
    assert stage["hardware"] == "cpu, another one" and stage["steps"] == 70 and stage["latents"] == 304 and stage["planned_steps"] == 11_000
    del config["hardware"]
    (run / "config.json").write_text(json.dumps(config))
    assert read_run(run).hardware == record.hardware, "older runs: this machine's"


def test_a_record_keeps_runs_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_record, "data_folder", lambda named: tmp_path)
    monkeypatch.setattr(training_record, "pictures", lambda data: "none")
    runs = [tmp_path / name for name in ("first", "second")]
    for run in runs:
        made_run(run, "rover-s")
    out = tmp_path / "training.json"
    for arguments, told in (([runs[0]], ["first"]), ([runs[1], "--keep"], ["first", "second"]), ([runs[0], "--keep"], ["second", "first"]),
                            ([runs[1]], ["second"])):
        assert training_record.main([*map(str, arguments), "--out", str(out)]) == 0
        assert [entry["command"] for entry in json.loads(out.read_text())["stages"]] == told
        assert json.loads(out.read_text())["profile"] == "rover-s", "as the runs say"


def made_run(folder: Path, profile: str) -> None:
    begin(folder, {"codec": {"name": profile, "latents": 304}, "train": asdict(STAGES["quantised"]), "rate": asdict(RATE), "processes": 2,
                   "device": "cpu", "command": folder.name})
    save_checkpoint(folder / "checkpoint.pt", {"model": {}, "step": 70, "seconds": 12.25})


def test_a_record_is_of_one_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(training_record, "data_folder", lambda named: tmp_path)
    monkeypatch.setattr(training_record, "pictures", lambda data: "none")
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "training.json"
    made_run(first, "rover-m")
    made_run(second, "rover-s")
    assert training_record.main([str(first), str(second), "--out", str(out)]) == Exit.FAILED and not out.exists()
    assert f"not of several (rover-m in {first}, rover-s in {second}): name the runs of one\n" in capsys.readouterr().err
    assert training_record.main([str(first), "--out", str(out)]) == 0 and json.loads(out.read_text())["profile"] == "rover-m"
    assert training_record.main([str(second), "--keep", "--out", str(out)]) == Exit.FAILED and len(json.loads(out.read_text())["stages"]) == 1
    (second / "config.json").write_text(json.dumps({**json.loads((second / "config.json").read_text()), "codec": {"latents": 304}}))
    assert training_record.main([str(second), "--out", str(out)]) == Exit.FAILED
    assert capsys.readouterr().err.endswith(f"remac: {second}: its config.json names no profile: name a run of remac.train_codec\n")


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"device": "cpu"}'])
def test_what_is_no_run_is_refused(content: str | None, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 1, "seconds": 1.0})
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"config\.json: .*: .*name"):
        read_run(tmp_path)


def test_a_resumed_run_is_told_the_same(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All but its length: a run that goes on with other settings is neither of the two."""
    monkeypatch.setitem(PROFILES, "rover-s", TINY)
    common = ["--profile", "rover-s", "--data", str(pictures), "--device", "cpu", "--out", str(tmp_path / "run")]
    assert train_codec.main([*common, "--batch", "1", "--steps", "1"]) == 0
    before = (tmp_path / "run" / "config.json").read_bytes()
    for more, field in ((["--batch", "2"], "train.batch 1, not 2"), (["--batch", "1", "--set", "hold=0.5"], "train.hold 0.25, not 0.5"),
                        (["--batch", "1", "--decoder", "small"], "codec.decoder.name tiny, not small")):
        capsys.readouterr()
        assert train_codec.main([*common, "--steps", "2", *more]) == 1
        assert f"holds a run with {field}: name another folder with --out" in capsys.readouterr().err
        assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert train_codec.main([*common, "--batch", "1", "--steps", "2"]) == 0 and read_run(tmp_path / "run").steps == 2


def test_fields_of_another_version_are_no_difference(tmp_path: Path) -> None:
    config: dict[str, Any] = {"train": {"steps": 9, "seed": 1, "gone": 3}, "device": "cpu"}
    begin(tmp_path, config)
    save_checkpoint(tmp_path / "checkpoint.pt", {})
    begin(tmp_path, {"train": {"steps": 10, "seed": 1, "new": (1, 2)}, "codec": {}, "device": "cpu"})
    with pytest.raises(BadInput, match="seed 1, not 2"):
        begin(tmp_path, {"train": {"steps": 10, "seed": 2}, "device": "cpu"})


def test_a_field_that_an_earlier_version_lacked_was_its_default(tmp_path: Path) -> None:
    older = asdict(STAGES["quantised"])
    del older["muon"]
    begin(tmp_path, {"train": older, "device": "cpu"})
    save_checkpoint(tmp_path / "checkpoint.pt", {})
    with pytest.raises(BadInput, match=r"train\.muon 0\.0, not 4\.0"):
        begin(tmp_path, {"train": asdict(STAGES["quantised"]) | {"muon": 4.0}, "device": "cpu"})
    begin(tmp_path, {"train": asdict(STAGES["quantised"]), "device": "cpu"})


@pytest.mark.parametrize("field", ["start", "coded", "processes"])
def test_what_a_run_learns_from_stays(field: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"train": {"steps": 9}, "device": "cpu", "start": "a.pt", "coded": ["hevc"], "processes": 2}
    begin(tmp_path, config)
    save_checkpoint(tmp_path / "checkpoint.pt", {})
    begin(tmp_path, config)
    with pytest.raises(BadInput, match=f"holds a run with {field} "):
        begin(tmp_path, config | {field: "another"})


def test_a_gpu_that_is_not_there_is_one_line(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for main in (train_codec.main, train_marsqe.main, train_segmenter.main):
        assert main(["--out", str(tmp_path / "run"), "--data", str(pictures), "--device", "cuda"]) == Exit.FAILED
        error = capsys.readouterr().err
        assert error.startswith("remac: no GPU that PyTorch can use for cuda") and error.count("\n") == 1


@pytest.mark.parametrize("stage", ["quantised", "decoder"])
def test_a_later_stage_wants_a_start(stage: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_codec.main(["--stage", stage, "--out", str(tmp_path / "run"), "--data", str(pictures)]) == Exit.FAILED
    assert f"stage {stage} goes on from another run" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_bundle_does_not_take_what_was_trained_in_it(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    monkeypatch.setattr(gpu_bundle, "BUNDLE", bundle)
    (bundle / "run").mkdir(parents=True)
    assert gpu_bundle.main(["--data", str(pictures)]) == Exit.FAILED
    assert "move it away first" in capsys.readouterr().err
    (bundle / "run").rename(bundle / "kept")
    assert gpu_bundle.main(["--data", str(pictures), "--start", str(tmp_path / "nothing.pt")]) == Exit.FAILED
    assert "nothing.pt: cannot be read" in capsys.readouterr().err and (bundle / "kept").exists()
    other = tmp_path / "bundle-marsqe"
    other.mkdir()
    for start, problem in ((tmp_path, "no shipped weights"), (tmp_path / "nothing.pt", "cannot be read")):
        assert gpu_bundle.main(["--data", str(pictures), "--marsqe", "--start", str(start)]) == Exit.FAILED
        assert problem in capsys.readouterr().err and other.exists()


def test_any_field_of_a_marsqe_run_can_be_set(pictures: Path, tmp_path: Path) -> None:
    run = train_marsqe.parse(["--out", str(tmp_path), "--data", str(pictures), "--set", "steps=5", "--set", "batch=2"])
    assert (run.train.steps, run.train.batch) == (5, 2)
    with pytest.raises(SystemExit):
        train_marsqe.parse(["--out", str(tmp_path), "--data", str(pictures), "--set", "muon=3"])


def test_a_log_has_each_step_once(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 1.0} for step in (50, 100, 100, 150)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 2')
    with open_log(tmp_path, 100) as log:
        log.write('{"step": 150}\n')
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [50, 100, 100, 150]


# ---- checkpoints

def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {"x": torch.ones(1000)}, "step": 3})
    whole = path.read_bytes()
    assert read_checkpoint(path, mapped=True)["step"] == 3
    for content in (b"", b"no checkpoint", whole[:len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        for mapped in (False, True):
            with pytest.raises(BadNetwork, match=r"checkpoint\.pt: (no checkpoint, or a damaged one|cannot be read) .*: name"):
                read_checkpoint(path, mapped=mapped)
    for other, message in ((torch.ones(3), "no checkpoint, or a damaged one"), ({"average": {}}, "lacks model")):
        torch.save(other, path)
        with pytest.raises(BadNetwork, match=message):
            read_checkpoint(path)
    with pytest.raises(BadNetwork, match="cannot be read"):
        read_checkpoint(tmp_path)


# ---- commands

def commands(data: Path, folder: Path, path: str) -> list[tuple[Main, list[str]]]:
    """Commands that take a checkpoint, with `path` as theirs."""
    out, pictures = ["--out", str(folder / "out")], ["--data", str(data)]
    return [(train_codec.main, [*out, *pictures, "--start", path]), (train_codec.main, [*out, *pictures, "--start", path, "--processes", "2"]),
            (train_marsqe.main, [*out, *pictures, "--model", "dncnn", "--start", path]), (freeze.main, [path, *out, *pictures]),
            (widen.main, [path, *out, *pictures]), (regrow.main, [path, "--former", path, "--codec", path, *out])]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_a_bad_checkpoint_is_one_line(content: bytes | None, number: int, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.pt"
    if content is not None:
        path.write_bytes(content)
    main, arguments = commands(pictures, tmp_path, str(path))[number]
    assert main([*arguments]) == Exit.FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"remac: {path}: ") and error.count("\n") == 1 and error.endswith("name the checkpoint.pt of a run\n")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_checkpoint_of_another_profile_is_one_line(processes: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.pt"
    write_checkpoint(path, "float", asdict(RATE), {"analysis.stem.weight": torch.ones(3)})
    assert train_codec.main(["--out", str(tmp_path / "out"), "--data", str(pictures), "--start", str(path), "--processes", processes]) == Exit.FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"remac: {path}: not of profile rover-m with this decoder") and error.count("\n") == 1


def test_a_bad_checkpoint_of_a_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"no checkpoint")
    for name in ("deep", "refined"):
        with pytest.raises(BadNetwork, match=r"other\.pt: no checkpoint"):
            decoder.load_checkpoint(tmp_path / "other.pt", "rover-m", name)


@pytest.mark.parametrize(("main", "arguments"), [
    (matching.main, []), (train_codec.main, []), (train_marsqe.main, []), (train_segmenter.main, []), (gpu_bundle.main, None)])
def test_missing_pictures_are_one_line(main: Main, arguments: list[str] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if arguments is None else ["--out", str(tmp_path / "out")]
    assert main([*out, "--data", str(tmp_path / "nothing")]) == Exit.FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"remac: no pictures at {tmp_path / 'nothing'}: name their folder") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_labels_are_one_line(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_segmenter.main(["--out", str(tmp_path / "out"), "--data", str(pictures)]) == Exit.FAILED
    assert "remac: no label maps of the pictures of train in" in capsys.readouterr().err


def test_folders_that_are_no_runs_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main, arguments in ((training_record.main, [str(tmp_path), "--out", str(tmp_path / "out.json")]), (thaw.main, [str(tmp_path), "--out", "x"]),
                            (marsqe_weights.main, [str(tmp_path), "--out", str(tmp_path)])):
        assert main(arguments) == Exit.FAILED
        assert capsys.readouterr().err.count("\n") == 1


# ---- how commands end

def test_interrupts_wait_for_the_end_of_a_block() -> None:
    reached = []

    @reported
    def main(number: int) -> int:
        with interrupt_at_end():
            signal.raise_signal(number)
            reached.append(number)
        reached.append(0)
        return 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(signal.SIGINT) == main(signal.SIGTERM) == Exit.INTERRUPTED and reached == [signal.SIGINT, signal.SIGTERM]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert main(signal.SIGINT) == 0, "what is ignored stays so"
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), interrupt_at_end():
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("what an interrupt elsewhere broke")
    finally:
        signal.signal(signal.SIGINT, before)


def test_terminate_interrupts_and_what_was_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_terminate():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
