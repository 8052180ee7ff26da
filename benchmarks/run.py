"""Measure everything: `python benchmarks/run.py`. Resumable: a part whose results are of this codec and these versions is not measured again.

Results go to benchmarks/results/, one JSON a part; each keeps benchmarks/RULES.md. Parts with times need an idle machine. Afterwards
`python benchmarks/report.py` makes the page and `python -m benchmarks.readme` the tables of the documents.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

from benchmarks.store import RESULTS, write_json
from remac_runtime.bench import environment as bench_environment
from remac_runtime.bench import files as bench_files
from remac_runtime.bench import harness as bench
from remac_runtime.bench.stats import IDLE_LOAD
from remac_runtime.boards import unknown
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.mars import DATA_VARIABLE, data_folder
from remac_runtime.model import MODEL_VARIABLE, Model, load_model

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "benchmarks"
SMALL_MODEL = ROOT / "build" / "rover-s"
CALM_TRIES, CALM_PAUSE_S, CALM_SHARE = 20, 3.0, 0.9
THIS_BOARD = "epyc_zen5_vm"
# What `remac boards fit` is calibrated with (one thread, the largest picture of each engine) and checked with (the others).
BOARD_RUNS = (("onnxruntime", 1, None), ("onnxruntime", 2, None), ("onnxruntime", 1, (640, 480)), ("onnxruntime", 2, (640, 480)),
              ("onnxruntime", 1, (2560, 1920)), ("numpy", 1, None), ("numpy", 1, (640, 480)), ("c99", 1, None), ("c99", 1, (640, 480)))


@dataclass(frozen=True)
class Settings:
    """What all parts share."""

    model: Path | None
    data: str | None
    results: Path
    board: str
    rounds: int | None
    force: bool


@dataclass(frozen=True)
class Part:
    """One measurement: how long it takes in words, whether its results are up to date, and what makes them."""

    title: str
    duration: str
    done: Callable[[Settings], bool]
    run: Callable[[Settings], None]


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _loaded(settings: Settings) -> Model:
    return load_model(settings.model)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# ---- parts

def _of_this_codec(file: str) -> Callable[[Settings], bool]:
    """Whether a results file names the codec hash of the model at hand."""
    def done(settings: Settings) -> bool:
        content = _read(settings.results / file)
        return isinstance(content, dict) and content.get("codec_hash") == _loaded(settings).network.hash.hex()
    return done


def _small_done(settings: Settings) -> bool:
    content = _read(settings.results / "encoder_s.json")
    return isinstance(content, dict) and SMALL_MODEL.is_dir() and content.get("codec_hash") == load_model(SMALL_MODEL).network.hash.hex()


def _speed_done(settings: Settings) -> bool:
    content = _read(settings.results / "speed.json")
    return (_of_this_codec("speed.json")(settings) and content.get("schema") == _latency().SCHEMA
            and content["environment"]["versions"] == bench_environment.versions())


def _latency() -> Any:
    from benchmarks import latency
    return latency


def _speed(settings: Settings) -> None:
    latency = _latency()
    small = load_model(SMALL_MODEL) if SMALL_MODEL.is_dir() else None
    result = latency.measure(_loaded(settings), data_folder(settings.data), CACHE, rounds=settings.rounds or latency.ROUNDS, say=say, small=small)
    write_json(settings.results / "speed.json", result)
    for warning in result["warnings"]:
        say(f"warning: {warning['warning']} ({warning['detail']}): {warning['remedy']}")


def _board_file(settings: Settings, backend: str, threads: int, size: tuple[int, int] | None) -> Path:
    width, height = size or bench.SIZE
    return settings.results / "boards" / f"{settings.board}-{backend}-{threads}-{width}x{height}.json"


def _board_runs(settings: Settings) -> list[tuple[str, int, tuple[int, int] | None]]:
    from remac_runtime.backends import BACKENDS
    return [run for run in BOARD_RUNS if run[0] in BACKENDS]


def _current(path: Path, codec_hash: str) -> bool:
    content = _read(path)
    return isinstance(content, dict) and content.get("schema") == bench.SCHEMA and content["codec"]["codec_hash"] == codec_hash


def _boards_done(settings: Settings) -> bool:
    codec_hash = _loaded(settings).network.hash.hex()
    return all(_current(_board_file(settings, *run), codec_hash) for run in _board_runs(settings))


def wait_until_calm() -> None:
    """Let the load of what ran before fade, a minute at most: it is a load of our own, but it would make the next run not valid."""
    for _ in range(CALM_TRIES):
        if (bench_environment.state()["load"] or 0.0) <= CALM_SHARE * IDLE_LOAD:
            return
        time.sleep(CALM_PAUSE_S)


def _boards(settings: Settings) -> None:
    codec_hash = _loaded(settings).network.hash.hex()
    for backend, threads, size in _board_runs(settings):
        path = _board_file(settings, backend, threads, size)
        if settings.force or not _current(path, codec_hash):
            say(f"remac bench, {backend}, {threads} threads, {'x'.join(map(str, size or bench.SIZE))}")
            wait_until_calm()
            options = bench.BenchOptions(settings.model, settings.board, backend, threads, size=size, rounds=settings.rounds)
            write_json(path, bench_files.sealed(bench.run(options)))


def _command(*arguments: str, into: str | None = None) -> Callable[[Settings], None]:
    """A measurement that is a program of its own; `into`: a results file that takes its output."""
    def run(settings: Settings) -> None:
        say(" ".join(arguments))
        line = [sys.executable, *arguments]
        if into is None:
            subprocess.run(line, cwd=ROOT, check=True)
            return
        done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        write_json(settings.results / into, json.loads(done.stdout))
    return run


def _never(settings: Settings) -> bool:
    """These go on by themselves where they were cut off."""
    return False


PARTS: dict[str, Part] = {
    "encoder": Part("build the encoder, check it, count its cost", "a minute", _of_this_codec("encoder.json"),
                    _command("export/rover_encoder.py", "--out", "build/rover-m", "--json", into="encoder.json")),
    "encoder-s": Part("the same of rover-s", "a minute", _small_done,
                      _command("export/rover_encoder.py", "--profile", "rover-s", "--out", "build/rover-s", "--json", into="encoder_s.json")),
    "speed": Part("encode times beside other encoders, in turn", "ten minutes, idle machine", _speed_done, _speed),
    "stages": Part("each stage of the encode before and after, beside its roofline", "two minutes, idle machine", _of_this_codec("stages.json"),
                   _command("-m", "benchmarks.stages")),
    "boards": Part("remac bench on this machine: calibrates and checks the predictions", "five minutes, idle machine", _boards_done, _boards),
    "arm64-instructions": Part("instructions of the encoder on emulated ARM64 processors", "a minute, needs debootstrap and qemu-user-static",
                               _of_this_codec("arm64.json"), _command("-m", "benchmarks.arm64_instructions")),
    "flight": Part("the flight encoder on emulated processors, instructions counted", "minutes, needs cross compilers", _of_this_codec("flight.json"),
                   _command("-m", "benchmarks.flight")),
    "corruption": Part("damaged streams", "a minute", _of_this_codec("corruption.json"), _command("-m", "benchmarks.corruption")),
    "bit-exact": Part("whole pictures across engines", "minutes", _of_this_codec("bit_exact.json"), _command("-m", "benchmarks.bit_exact")),
    "example": Part("the worked example of the README", "seconds", _of_this_codec("example.json"), _command("-m", "benchmarks.example")),
    "rd-remac": Part("rate and quality of ours, every picture", "half an hour", _never, _command("-m", "benchmarks.rd_remac")),
    "rd-first": Part("the same with the ground decoder of the training", "minutes", _never,
                     _command("-m", "benchmarks.rd_remac", "--variant", "first")),
    "rd-noref": Part("the same without references", "minutes", _never, _command("-m", "benchmarks.rd_remac", "--variant", "noref")),
    "rd-bands": Part("the same in bands of 128 rows", "minutes", _never, _command("-m", "benchmarks.rd_remac", "--variant", "bands128")),
    "rd-small": Part("the same of rover-s", "a quarter of an hour", _never,
                     _command("-m", "benchmarks.rd_remac", "--model", "build/rover-s", "--name", "remac-s")),
    "rd-float": Part("the same before quantisation", "minutes", _of_this_codec("float_gap.json"), _command("-m", "benchmarks.rd_float")),
    "adaptation": Part("what tables that adapt save", "two minutes", _of_this_codec("adaptation.json"), _command("-m", "benchmarks.adaptation")),
    "mosaics": Part("what coding mosaics saves", "minutes", _of_this_codec("mosaics.json"), _command("-m", "benchmarks.mosaics")),
    "rd-peers": Part("rate and quality of the peers", "hours the first time", _never, _command("-m", "benchmarks.rd_peers")),
    "rd": Part("BD-rates", "seconds", _never, _command("-m", "benchmarks.rd", "--codec-results", "benchmarks/results/rd_remac.json")),
    "ground": Part("ground decoders: quality, cost, how far they look", "a quarter of an hour, idle machine", _never,
                   _command("-m", "benchmarks.ground")),
    "engines": Part("TensorRT engines of the ground decoders, needs tensorrt_rtx", "minutes", _of_this_codec("engines.json"),
                    _command("-m", "benchmarks.engines")),
    "board-figures": Part("pack what `remac boards fit` needs", "seconds", _never, _command("-m", "benchmarks.board_figures")),
}


# ---- the command

def chosen(names: Sequence[str]) -> list[str]:
    """The parts named, all of them for none, in their order. Raises RemacError, with the nearest names."""
    for name in names:
        if name not in PARTS:
            raise RemacError(unknown("part", name, PARTS))
    return [name for name in PARTS if not names or name in names]


def parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {name:20} {part.title} ({part.duration})" for name, part in PARTS.items())
    examples = "examples:\n  python benchmarks/run.py\n  python benchmarks/run.py speed boards --force\n"
    result = argparse.ArgumentParser(prog="python benchmarks/run.py", description=__doc__, epilog=f"parts:\n{parts}\n\n{examples}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("parts", nargs="*", metavar="PART", help="what to measure (everything)")
    result.add_argument("--model", type=Path, metavar="DIR", help="the model folder")
    result.add_argument("--data", metavar="DIR", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    result.add_argument("--board", default=THIS_BOARD, metavar="NAME", help=f"the board that this machine is ({THIS_BOARD})")
    result.add_argument("--rounds", type=int, metavar="N", help="timed rounds, for a quick look")
    result.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where speed, boards and encoder go (benchmarks/results)")
    result.add_argument("--force", action="store_true", help="measure again what is up to date")
    return result


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    settings = Settings(options.model, options.data, options.results, options.board, options.rounds, options.force)
    for variable, folder in ((DATA_VARIABLE, options.data), (MODEL_VARIABLE, options.model)):
        if folder:      # for the parts that are programs of their own
            os.environ[variable] = str(Path(folder).resolve())
    try:
        for name in chosen(options.parts):
            part = PARTS[name]
            if not settings.force and part.done(settings):
                print(f"{name}: up to date")
                continue
            print(f"{name}: {part.title} ({part.duration})", flush=True)
            part.run(settings)
    except subprocess.CalledProcessError as error:
        print(f"run: {' '.join(error.cmd[1:])} failed: mend what it says and run this again, finished parts are kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run: interrupted; finished parts are kept, run this again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
