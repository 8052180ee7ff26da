"""Measure everything: `python benchmarks/run.py`. Resumable: a part whose results name this codec is not measured again, and parts that take long go
on by themselves where they were cut off. Only `speed` compares the versions of all libraries: what else has changed, such as code, is for --force.

Results go to benchmarks/results/, one JSON a part; each keeps benchmarks/RULES.md. Parts with times need an idle machine. Afterwards
`python benchmarks/report.py` makes the page and `python -m benchmarks.readme` the tables of the documents. `make verify-all` compares the processors.
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
from remac_runtime.files import copy
from remac_runtime.mars import DATA_VARIABLE, data_folder
from remac_runtime.model import DEFAULT_MODEL, MODEL_VARIABLE, NETWORK_FILE, Model, load_model

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "benchmarks"
SMALL_MODEL = ROOT / "build" / "rover-s"
WEIGHTS, ENHANCER_WEIGHTS = ROOT / "weights" / "rover-m", ROOT / "weights" / "marsqe"
CALM_TRIES, CALM_PAUSE_S, CALM_SHARE = 20, 3.0, 0.9
THIS_BOARD = "xeon6_vm"
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


def _nothing(settings: Settings) -> None:
    return None


@dataclass(frozen=True)
class Part:
    """One measurement: how long it takes in words, whether its results are up to date, what makes them, and what they need that is not there."""

    title: str
    duration: str
    done: Callable[[Settings], bool]
    run: Callable[[Settings], None]
    lacks: Callable[[Settings], str | None] = _nothing


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


def _model_folder(settings: Settings) -> Path:
    """The model folder that is measured, which need not be there yet."""
    return Path(settings.model or os.environ.get(MODEL_VARIABLE) or ROOT / DEFAULT_MODEL).resolve()


def _built(file: str, folder: Callable[[Settings], Path]) -> Callable[[Settings], bool]:
    """Whether a results file names the codec hash of a model folder that is there."""
    def done(settings: Settings) -> bool:
        content, built = _read(settings.results / file), folder(settings)
        return isinstance(content, dict) and (built / NETWORK_FILE).is_file() and content.get("codec_hash") == load_model(built).network.hash.hex()
    return done


def _other_network(settings: Settings) -> str | None:
    """For parts that start from the weights in PyTorch: these are of one network only."""
    folder = _model_folder(settings)
    path = folder / NETWORK_FILE
    if folder == (ROOT / DEFAULT_MODEL).resolve() or not path.is_file() or path.read_bytes() == (WEIGHTS / NETWORK_FILE).read_bytes():
        return None         # the default folder is what `encoder` builds anew
    return f"it starts from {WEIGHTS.relative_to(ROOT)}, and {folder} holds another network"


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


def _command(*arguments: str, timed: str = "", elsewhere: Sequence[str] = (), into: str | None = None) -> Callable[[Settings], None]:
    """A measurement that is a program of its own and measures everything. In its arguments {results} and {model} stand for the folders.

    `timed`: its option for the number of timed rounds. `elsewhere`: further arguments where the results do not go to benchmarks/results, so that
    nothing else in the checkout is replaced. `into`: a results file that takes its output.
    """
    def run(settings: Settings) -> None:
        model = _model_folder(settings)      # named from the checkout where it lies in it: the results of `encoder` hold the name
        folders = {"{results}": str(settings.results.resolve()), "{model}": str(model.relative_to(ROOT) if model.is_relative_to(ROOT) else model)}
        given = [*arguments, *(elsewhere if settings.results.resolve() != RESULTS else ())]
        for name, folder in folders.items():
            given = [argument.replace(name, folder) for argument in given]
        if timed:
            given += [timed, str(settings.rounds)] if settings.rounds else []
            wait_until_calm()
        say(" ".join(given))
        line = [sys.executable, *given]
        if into is None:
            subprocess.run(line, cwd=ROOT, check=True)
            return
        done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        write_json(settings.results / into, json.loads(done.stdout))
    return run


def _resuming(file: str, *arguments: str, timed: str = "") -> Callable[[Settings], None]:
    """A program that keeps what fits of its results file, unless it is told to measure that again too: this it does on a copy, so that what was
    measured before is replaced by something complete only."""
    def run(settings: Settings) -> None:
        target = settings.results.resolve() / file
        if not settings.force:
            _command(*arguments, "--out", str(target), timed=timed)(settings)
            return
        again = CACHE / "again" / file
        again.unlink(missing_ok=True)
        if target.exists():
            copy(target, again)
        _command(*arguments, "--out", str(again), "--force", timed=timed)(settings)
        copy(again, target)
    return run


def _never(settings: Settings) -> bool:
    """These go on by themselves where they were cut off, take seconds, or name nothing in their results that could be compared."""
    return False


def _differential_done(settings: Settings) -> bool:
    from benchmarks.differential import COUNT, FUZZ_COUNT
    content = _read(settings.results / "differential.json")
    return (_of_this_codec("differential.json")(settings) and content["cases"] >= COUNT
            and min(content[fuzzed]["cases"] for fuzzed in ("bands", "streams")) >= FUZZ_COUNT)


def _modules_lack(settings: Settings) -> str | None:
    """The runs of these networks are trained for this one table and are not shipped."""
    from benchmarks.enhance_modules import NETWORKS
    folder = Path("runs", "modules")
    missing = [name for name in NETWORKS if not (ROOT / folder / name / "checkpoint.pt").exists()]
    return f"no run {folder / missing[0]}: train it as `python -m benchmarks.enhance_modules --help` says" if missing else None


def _pictures_done(settings: Settings) -> bool:
    from benchmarks.enhance import weights_of_marsqe
    file = "enhance_pictures.json"
    return _of_this_codec(file)(settings) and _read(settings.results / file).get("weights") == weights_of_marsqe(ENHANCER_WEIGHTS)


def _rd_remac(*arguments: str) -> Callable[[Settings], None]:
    return _resuming("rd_remac.json", "-m", "benchmarks.rd_remac", *arguments)


PARTS: dict[str, Part] = {
    "encoder": Part("build the encoder, check it, count its cost", "a minute", _built("encoder.json", _model_folder),
                    _command("export/rover_encoder.py", "--out", "{model}", "--json", timed="--runs", into="encoder.json"), _other_network),
    "encoder-s": Part("the same of rover-s", "a minute", _built("encoder_s.json", lambda settings: SMALL_MODEL),
                      _command("export/rover_encoder.py", "--profile", "rover-s", "--out", "build/rover-s", "--json", timed="--runs",
                               into="encoder_s.json")),
    "speed": Part("encode times beside other encoders, in turn", "ten minutes, idle machine", _speed_done, _speed),
    "stages": Part("each stage of the encode before and after, beside its roofline", "two minutes, idle machine", _of_this_codec("stages.json"),
                   _command("-m", "benchmarks.stages", "--out", "{results}/stages.json", timed="--rounds")),
    "boards": Part("remac bench on this machine: calibrates and checks the predictions", "five minutes, idle machine", _boards_done, _boards),
    "arm64-instructions": Part("instructions of the encoder on emulated ARM64 processors", "a minute, needs debootstrap and qemu-user-static",
                               _of_this_codec("arm64.json"), _command("-m", "benchmarks.arm64_instructions", "--out", "{results}/arm64.json")),
    "flight": Part("the flight encoder on emulated processors, instructions counted", "minutes, needs cross compilers", _of_this_codec("flight.json"),
                   _command("-m", "benchmarks.flight", "--out", "{results}/flight.json"), _other_network),
    "corruption": Part("damaged streams", "a minute", _of_this_codec("corruption.json"),
                       _command("-m", "benchmarks.corruption", "--output", "{results}/corruption.json")),
    "bit-exact": Part("whole pictures across engines", "minutes", _of_this_codec("bit_exact.json"),
                      _command("-m", "benchmarks.bit_exact", "--out", "{results}/bit_exact.json")),
    "differential": Part("random pictures across all engines, mutated streams under sanitizers", "long the first time, needs a C compiler",
                         _differential_done, _resuming("differential.json", "-m", "benchmarks.differential")),
    "example": Part("the worked example of the README", "seconds", _of_this_codec("example.json"),
                    _command("-m", "benchmarks.example", "--out", "{results}/example.json", elsewhere=("--pictures", "{results}/pictures"))),
    "rd-remac": Part("rate and quality of ours, every picture", "half an hour", _never, _rd_remac()),
    "rd-first": Part("the same with the ground decoder of the training", "minutes", _never, _rd_remac("--variant", "first")),
    "rd-noref": Part("the same without references", "minutes", _never, _rd_remac("--variant", "noref")),
    "rd-bands": Part("the same in bands of 128 rows", "minutes", _never, _rd_remac("--variant", "bands128")),
    "rd-small": Part("the same of rover-s", "a quarter of an hour", _never, _rd_remac("--model", "build/rover-s", "--name", "remac-s")),
    "rd-float": Part("the same before quantisation", "minutes", _of_this_codec("float_gap.json"),
                     _command("-m", "benchmarks.rd_float", "--out", "{results}/rd_float.json"), _other_network),
    "adaptation": Part("what tables that adapt save", "two minutes", _of_this_codec("adaptation.json"),
                       _command("-m", "benchmarks.adaptation", "--out", "{results}/adaptation.json")),
    "mosaics": Part("what coding mosaics saves", "minutes", _of_this_codec("mosaics.json"),
                    _command("-m", "benchmarks.mosaics", "--out", "{results}/mosaics.json")),
    "rd-peers": Part("rate and quality of the peers", "hours the first time", _never, _resuming("rd_peers.json", "-m", "benchmarks.rd_peers")),
    "rd": Part("BD-rates", "seconds", _never, _command("-m", "benchmarks.rd", "--codec-results", "{results}/rd_remac.json",
                                                       "--peers", "{results}/rd_peers.json", "--out", "{results}")),
    "ground": Part("ground decoders: quality, cost, how far they look", "a quarter of an hour, idle machine", _never,
                   _resuming("ground.json", "-m", "benchmarks.ground", timed="--rounds"), _other_network),
    "engines": Part("TensorRT engines of the ground decoders, needs tensorrt_rtx", "minutes", _of_this_codec("engines.json"),
                    _command("-m", "benchmarks.engines", "--out", "{results}/engines.json"), _other_network),
    "enhance": Part("MarsQE beside its baselines, those whose runs are in runs/", "hours the first time", _never,
                    _resuming("enhance.json", "-m", "benchmarks.enhance")),
    "enhance-modules": Part("what the modules of MarsQE bring, needs runs of their own", "minutes", _never,
                            _command("-m", "benchmarks.enhance_modules", "--out", "{results}/enhance_modules.json"), _modules_lack),
    "enhance-pictures": Part("before and after MarsQE on a sample", "a minute", _pictures_done,
                             _command("-m", "benchmarks.enhance_pictures", "--out", "{results}/enhance_pictures.json",
                                      elsewhere=("--picture", "{results}/enhanced.webp"))),
    "board-figures": Part("pack what `remac boards fit` needs", "seconds", _never,
                          _command("-m", "benchmarks.board_figures", "--results", "{results}", elsewhere=("--out", "{results}/figures.json"))),
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
    result.add_argument("--model", type=Path, metavar="DIR", help="the model folder; parts that start from weights/rover-m are left out where it "
                                                                         "holds another network")
    result.add_argument("--data", metavar="DIR", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    result.add_argument("--board", default=THIS_BOARD, metavar="NAME", help=f"the board that this machine is ({THIS_BOARD})")
    result.add_argument("--rounds", type=int, metavar="N", help="timed rounds, for a quick look (encoder, encoder-s, speed, stages, boards, ground)")
    result.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the results go (benchmarks/results), and elsewhere the "
                                                                                             "pictures and board figures made of them, too")
    result.add_argument("--force", action="store_true", help="measure again what is there; a part's results are replaced when it is complete")
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
            lacking = part.lacks(settings)
            if lacking and options.parts:
                raise RemacError(f"{name} cannot be measured: {lacking}")
            if lacking:
                print(f"{name}: left out: {lacking}", flush=True)
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
