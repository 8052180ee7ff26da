"""`remac ground`: what is there is kept, what is damaged or made otherwise is made again, failures are listed, and killed workers lose nothing."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_ground import write_small_decoder
from small_network import write_small_model

from remac_runtime import cli
from remac_runtime.archive import coordinator as archive
from remac_runtime.archive import task as archive_task
from remac_runtime.archive import workers as archive_workers
from remac_runtime.archive.task import SOURCE, Result, Settings, Task, sha256
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.exits import Exit
from remac_runtime.files import temporary_prefix
from remac_runtime.images import Picture, load_picture, save_picture
from remac_runtime.model import load_model
from remac_runtime.png import png_text
from remac_runtime.terrain import terrain

ROOT = Path(__file__).resolve().parents[1]
STREAMS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and streams in `in`, some of them in a folder below."""
    folder = tmp_path_factory.mktemp("archive")
    write_small_model(folder)
    write_small_decoder(folder)
    (folder / "in" / "sol2").mkdir(parents=True)
    with Encoder(load_model(folder), "numpy") as encoder:
        for number in range(STREAMS):
            name = f"sol2/{number}.rmc" if number > 3 else f"{number}.rmc"
            (folder / "in" / name).write_bytes(encoder.encode(Picture(terrain(64, 64, number)), EncodeOptions(band_rows=64)))
    return folder


def ground(place: Path, out: Path, *arguments: str, inputs: tuple[str, ...] = ()) -> int:
    sources = inputs or (str(place / "in"),)
    return int(cli.main(["ground", *sources, "-o", str(out), "--model", str(place), "--backend", "numpy", *arguments]))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


NAMES = [*(f"{n}.png" for n in range(4)), "sol2/4.png", "sol2/5.png"]


# ---- what is done, and what is there

def test_an_archive_is_decoded_as_decode_does(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ground(place, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "[6/6]" in printed and "6 done, 0 there already, 0 failed, 0 with losses, of 6 files" in printed
    assert list(tree(tmp_path / "out")) == NAMES
    one = str(place / "in" / "sol2" / "4.rmc")
    assert cli.main(["decode", one, "-o", str(tmp_path / "one.png"), "--model", str(place), "--backend", "numpy"]) == 0
    assert np.array_equal(load_picture(tmp_path / "one.png").samples, load_picture(tmp_path / "out" / "sol2" / "4.png").samples)


def test_what_is_there_and_whole_is_kept(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert ground(place, out) == 0
    before, stamps = tree(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    capsys.readouterr()
    assert ground(place, out, "--json") == 0
    assert facts(capsys)["there_already"] == STREAMS
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}, "nothing was written"
    (out / "0.png").write_bytes(before["0.png"][:-20])                                      # cut off
    (out / "1.png").write_bytes(before["1.png"][:90] + b"?" + before["1.png"][91:])         # a changed byte
    (out / "2.png").write_bytes(before["3.png"])                                            # another picture
    save_picture(load_picture(out / "3.png"), out / "3.png")                                # saved by another program: the notes are gone
    (out / "sol2" / "4.png").unlink()
    assert ground(place, out, "--json") == 0
    counts = facts(capsys)
    assert (counts["done"], counts["there_already"]) == (5, 1) and tree(out) == before


def test_a_changed_stream_or_decoder_is_decoded_again(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_small_model(model)
    write_small_decoder(model)
    source = tmp_path / "a.rmc"
    source.write_bytes((place / "in" / "0.rmc").read_bytes())
    done = []
    for change in (lambda: None, lambda: source.write_bytes((place / "in" / "1.rmc").read_bytes()), lambda: write_small_decoder(model, shift=100.0),
                   lambda: write_small_decoder(model, "deep@2"), lambda: None):
        change()
        assert ground(model, tmp_path / "out", "--json", inputs=(str(source),)) == 0
        done.append(facts(capsys)["done"])
    assert done == [1, 1, 1, 1, 0]
    notes = png_text(tmp_path / "out" / "a.png")
    assert notes is not None and notes["remac-decoder"] == "deep@2" and notes[SOURCE].split()[0] == sha256(source.read_bytes())
    assert ground(model, tmp_path / "out", "--json", "--decoder", "moderate@1", inputs=(str(source),)) == 0
    assert facts(capsys)["done"] == 1


def test_failures_are_listed_and_the_rest_is_done(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, missing, damaged = tmp_path / "bad.rmc", tmp_path / "missing.rmc", tmp_path / "damaged.rmc"
    bad.write_bytes(b"rubbish")
    with Encoder(load_model(place), "numpy") as encoder:
        whole = encoder.encode(Picture(terrain(128, 64, 9)), EncodeOptions(band_rows=64))
    damaged.write_bytes(whole[:-3])
    inputs = (str(bad), str(place / "in"), str(missing), str(damaged))
    for _ in range(2):          # what failed is tried again, what was lossy stays lossy when it is there already
        assert ground(place, tmp_path / "out", inputs=inputs) == Exit.FAILED
        error = capsys.readouterr().err
        table = error[error.index("\n  "):]
        assert "bad.rmc      not a remac stream" in table.replace(str(tmp_path) + "/", "") or "not a remac stream" in table
        assert "missing.rmc" in table and "no such file" in table and "damaged.rmc" in table and "band 1 lost" in table and "Traceback" not in error
        assert "2 failed, 1 with losses, of 9 files" in error
        assert f"remac: error: [1/9] {bad}: " in error
    capsys.readouterr()
    assert ground(place, tmp_path / "out", inputs=(str(damaged),)) == Exit.LOSS and ", 1 band lost and" in capsys.readouterr().out
    assert ground(place, tmp_path / "none", inputs=(str(tmp_path / "nofile"),)) == Exit.FAILED
    assert "nofile: no such file or folder: check the path" in capsys.readouterr().err
    assert sorted(tree(tmp_path / "out")) == sorted([*NAMES, "damaged.png"])


def test_what_another_process_writes_is_left_alone(place: Path, tmp_path: Path) -> None:
    """A second coordinator may be writing the same picture: only what nobody has touched for long is removed."""
    output = tmp_path / "out" / "0.png"
    output.parent.mkdir()
    live, forgotten = (output.with_name(f"{temporary_prefix(output)}{process}-1.tmp") for process in (1, 2))
    for path in (live, forgotten):
        path.write_bytes(b"half")
    before = time.time() - archive_task.UNFINISHED_S - 1
    os.utime(forgotten, (before, before))
    assert ground(place, tmp_path / "out") == 0
    assert live.exists() and not forgotten.exists()
    archive_task.remove_unfinished(output, [os.getpid()])
    assert live.exists()
    archive_task.remove_unfinished(output, [1])
    assert not live.exists()


def test_skipped_bytes_are_reported(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `remac decode` does, also where the picture is there already."""
    source = tmp_path / "a.rmc"
    source.write_bytes(b"rubbish" + (place / "in" / "0.rmc").read_bytes())
    for skipped in (False, True):
        assert ground(place, tmp_path / "out", "--json", inputs=(str(source), str(place / "in" / "1.rmc"))) == 0
        printed = capsys.readouterr()
        results = {Path(result["source"]).name: result for result in json.loads(printed.out)["results"]}
        assert (results["a.rmc"]["skipped_bytes"], results["1.rmc"]["skipped_bytes"], results["a.rmc"]["skipped"]) == (7, 0, skipped)
        assert results["a.rmc"]["warnings"] == [] and printed.err.count("warning") == 1
        assert f"remac: warning: [1/2] {source}: 7 bytes of no intact packet skipped" in printed.err


def test_linked_folders_are_followed(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that lead back to where they are hold nothing more; what cannot be read is named."""
    inputs = tmp_path / "in"
    (inputs / "below").mkdir(parents=True)
    (inputs / "linked").symlink_to(place / "in")
    (inputs / "below" / "back").symlink_to(inputs)
    (inputs / "itself.rmc").symlink_to("itself.rmc")
    (inputs / "below" / "1.rmc").write_bytes((place / "in" / "1.rmc").read_bytes())
    assert ground(place, tmp_path / "out", inputs=(str(inputs),)) == 0
    assert sorted(tree(tmp_path / "out")) == sorted(["below/1.png", *(f"linked/{name}" for name in NAMES)])
    assert f"remac: warning: {inputs / 'itself.rmc'}: is left out, as it cannot be read (" in capsys.readouterr().err


@pytest.mark.parametrize(("inputs", "message"), [
    (("{in}", "{in}/0.rmc", "{copy}/0.rmc"), "would both be written to"), (("{copy}/x.txt",), "is none of .rmc"),
    (("{copy}/x.jpg",), "add --enhance"),
    (("{copy}",), "holds no .rmc files")])
def test_wrong_usage(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], inputs: tuple[str, ...], message: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("x.txt", "x.jpg"):
        (copy / name).write_bytes(b"")
    if "{in}" in inputs:
        (copy / "0.rmc").write_bytes((place / "in" / "0.rmc").read_bytes())
    named = tuple(name.format(**{"in": place / "in", "copy": copy}) for name in inputs)
    assert ground(place, tmp_path / "out", inputs=named) == Exit.USAGE
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_unknown_decoder_lists_those_there(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ground(place, tmp_path / "out", "--decoder", "deep@7") == Exit.FAILED
    assert "no ground decoder deep@7; there are moderate@1: choose one with --decoder" in capsys.readouterr().err


def test_a_worker_with_another_decoder_refuses(place: Path, tmp_path: Path) -> None:
    """Machines whose model folders differ must not mix their pictures in one archive."""
    settings = Settings(str(place), "moderate@1", None, {"decoder": "0" * 64}, backend="numpy")
    task = Task(str(place / "in" / "0.rmc"), str(tmp_path / "0.png"), settings)
    result = archive_task.perform(task)
    assert result.error is not None and "is another moderate@1 than where the run was started" in result.error and not (tmp_path / "0.png").exists()


# ---- workers that die

def tasks_of(place: Path, out: Path) -> list[Task]:
    options = cli.build_parser().parse_args(["ground", str(place / "in"), "-o", str(out), "--model", str(place), "--backend", "numpy"])
    pairs = archive.collect(options.inputs, out, False)
    settings = archive.settings_of(options)
    return [Task(str(source), str(output), settings) for source, output in pairs]


LOG = "REMAC_TEST_LOG"


def perform_and_die(task: Task) -> Result:
    """The task, noted in a log; the first one that sees a file `die` kills its process half-way: once, or where it says `always`."""
    log = Path(os.environ[LOG])
    die = log / "die"
    if Path(task.source).name == "2.rmc" and die.exists():
        if die.read_text() == "once":
            die.unlink()
        output = Path(task.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        (output.parent / f"{temporary_prefix(output)}{os.getpid()}-1.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    result = archive_task.perform(task)
    with (log / "log").open("a") as file:
        file.write(f"{Path(task.source).name} {'kept' if result.skipped else 'made'} {result.error or ''}\n")
    return result


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    monkeypatch.setenv(LOG, str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "runtime"), str(ROOT / "tests")]))
    monkeypatch.setattr(archive_workers, "perform", perform_and_die)
    return folder


def made(log: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in (log / "log").read_text().splitlines() if " made" in line)


def test_a_killed_process_loses_nothing(place: Path, tmp_path: Path, log: Path) -> None:
    (log / "die").write_text("once")
    tasks = tasks_of(place, tmp_path / "out")
    results = list(archive_workers.in_processes(tasks, 2))
    assert Counter(result.source for result in results) == Counter(task.source for task in tasks)
    assert not any(result.error for result in results) and set(made(log).values()) == {1}
    assert list(tree(tmp_path / "out")) == NAMES, "and the half-written file is gone"


@pytest.mark.slow
def test_a_file_that_kills_its_process_is_found_among_the_innocent(place: Path, tmp_path: Path, log: Path) -> None:
    (log / "die").write_text("always")
    results = list(archive_workers.in_processes(tasks_of(place, tmp_path / "out"), 2))
    failed = [result for result in results if result.error]
    assert [Path(result.source).name for result in failed] == ["2.rmc"] and "died" in str(failed[0].error)
    assert len(results) == STREAMS and sum(made(log).values()) == STREAMS - 1


def test_a_run_that_was_killed_goes_on(place: Path, tmp_path: Path) -> None:
    """SIGTERM in the middle: the exit code says so, nothing half-written is left, and the next run does the rest."""
    for number in range(STREAMS, 40):
        (tmp_path / f"{number}.rmc").write_bytes((place / "in" / f"{number % 4}.rmc").read_bytes())
    options = [str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(place), "--backend", "numpy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    run = subprocess.Popen([sys.executable, "-m", "remac_runtime", "ground", *options, "--workers", "2"], env=environment, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    run.stdout.readline()
    run.terminate()
    _, error = run.communicate(timeout=60)
    assert run.returncode == Exit.INTERRUPTED and "interrupted" in error and "Traceback" not in error
    there = tree(tmp_path / "out")
    assert there and all(name.endswith(".png") for name in there) and all(png_text(tmp_path / "out" / name) for name in there)
    assert cli.main(["ground", *options]) == 0
    assert len(tree(tmp_path / "out")) == 40 - STREAMS
    assert all(tree(tmp_path / "out")[name] == content for name, content in there.items())


# ---- Dask

@pytest.fixture
def cluster(log: Path) -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'remac-runtime[ground]'")
    import dask
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), \
            distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as local:
        yield local


def test_a_killed_dask_worker_loses_nothing(place: Path, tmp_path: Path, log: Path, cluster: Any) -> None:
    """Every file is done once, none lost; what is half-written is left to a later run, which can tell that nobody writes it any more."""
    (log / "die").write_text("once")
    tasks = tasks_of(place, tmp_path / "out")
    results = list(archive_workers.on_cluster(tasks, cluster.scheduler_address))
    assert Counter(result.source for result in results) == Counter(task.source for task in tasks)
    assert not any(result.error for result in results) and set(made(log).values()) == {1} and len(made(log)) == STREAMS
    left = [name for name in tree(tmp_path / "out") if name not in NAMES]
    assert len(left) == 1 and left[0].endswith(".tmp") and all(png_text(tmp_path / "out" / name) for name in NAMES)
    os.utime(tmp_path / "out" / left[0], (1, 1))
    assert ground(place, tmp_path / "out") == 0 and list(tree(tmp_path / "out")) == NAMES


@pytest.mark.slow
def test_a_file_that_kills_every_dask_worker_is_found_among_the_innocent(place: Path, tmp_path: Path, log: Path, cluster: Any) -> None:
    (log / "die").write_text("always")
    results = list(archive_workers.on_cluster(tasks_of(place, tmp_path / "out"), cluster.scheduler_address))
    assert {Path(result.source).name: bool(result.error) for result in results} == {f"{n}.rmc": n == 2 for n in range(STREAMS)}
    assert set(made(log).values()) == {1}


def test_no_scheduler(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'remac-runtime[ground]'")
    monkeypatch.setattr(archive_workers, "PATIENCE_S", 0.3)
    assert ground(place, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1") == Exit.FAILED
    error = capsys.readouterr().err
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in error and "Traceback" not in error


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(RemacError, match="pip install"):
        list(archive_workers.on_cluster([], "tcp://127.0.0.1:1"))
