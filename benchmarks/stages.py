"""Each stage of the encode, before and after: `python -m benchmarks.stages` writes benchmarks/results/stages.json.

Three ways through one picture, one thread, in turn, round after round (RULES.md), all to the same bytes: the graphs in ONNX Runtime with NumPy for
all else; the same with the element-wise steps and the entropy coder in C; everything in C (backend c99). Beside each stage stands the least time that
this core could need for it (roofline.py).
"""
from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import roofline
from benchmarks.latency import PICTURE, QUALITY
from benchmarks.rd_remac import probe_streams
from benchmarks.store import RESULTS, write_json
from remac_runtime import native, rans
from remac_runtime.bench import environment as bench_environment
from remac_runtime.bench import harness as bench
from remac_runtime.bench import stages as bench_stages
from remac_runtime.bench import stats as bench_stats
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.files import write_atomically
from remac_runtime.images import load_picture
from remac_runtime.mars import DataMissing, data_folder
from remac_runtime.model import Model, load_model

SCHEMA = 1
ROUNDS, BUDGET_S = 30, 10.0
OURS = "c99"


@dataclass(frozen=True)
class Way:
    """A way through the encoder: a backend, and whether the C extension does what lies between the networks."""

    title: str
    backend: str
    extension: bool


WAYS: Mapping[str, Way] = {
    "numpy": Way("onnxruntime, NumPy", "onnxruntime", False), "onnxruntime": Way("onnxruntime, C", "onnxruntime", True),
    OURS: Way("c99", "c99", True),
}


def coded_symbols(encode: Callable[[], object]) -> int:
    """How many symbols an encode codes."""
    counts: list[int] = []
    code = rans.encode

    def counted(symbols: NDArray[np.int32], tables: NDArray[np.uint16], combined: rans.CombinedTables, lanes_log2: int) -> bytes:
        counts.append(len(symbols))
        return code(symbols, tables, combined, lanes_log2)

    rans.encode = counted
    try:
        encode()
    finally:
        rans.encode = code
    return sum(counts)


class Subject:
    """One way with its encoder, and the stages of each of its encodes from file to file."""

    def __init__(self, way: Way, encoder: Encoder, source: Path, target: Path) -> None:
        self.way, self.encoder, self.source, self.target = way, encoder, source, target
        self.picture, self.wanted = load_picture(source), EncodeOptions(quality=QUALITY)
        self.stages: list[dict[str, float]] = []

    def encode(self) -> bytes:
        with self._bodies():
            return self.encoder.encode(self.picture, self.wanted)

    def _bodies(self) -> AbstractContextManager[None]:
        return nullcontext() if self.way.extension else native.switched_off()

    def staged(self) -> None:
        clock = bench_stages.StageClock()
        with self._bodies(), bench_stages.attached(clock, self.encoder), clock.stage(bench_stages.OTHER):
            with clock.stage(bench_stages.LOAD):
                picture = load_picture(self.source)
            stream = self.encoder.encode(picture, self.wanted)
            with clock.stage(bench_stages.WRITE):
                write_atomically(self.target, stream)
        self.stages.append(clock.seconds)


def timed(subjects: Mapping[str, Subject], rounds: int) -> dict[str, dict[str, bench_stats.Summary]]:
    """{way: {"whole" or stage: samples}}; whole encodes without probes, stages from encodes of their own, all in turn."""
    tasks: dict[str, Callable[[], object]] = {f"{name} {what}": task for name, subject in subjects.items()
                                              for what, task in (("whole", subject.encode), ("staged", subject.staged))}
    taken = bench_stats.timed_in_turn(tasks, rounds, budget_s=BUDGET_S)
    result = {}
    for name, subject in subjects.items():
        last = subject.stages[-len(taken[f"{name} staged"].samples):]      # the first ones were the warm-up
        result[name] = {"whole": taken[f"{name} whole"]} | {stage: bench_stats.Summary(tuple(seconds[stage] for seconds in last))
                                                            for stage in bench_stages.STAGES}
    return result


def against_ours(before: bench_stats.Summary, after: bench_stats.Summary) -> float | None:
    """Time before over time after, round by round: the median; None for a stage that neither has."""
    ratios = [a / b for a, b in zip(before.samples, after.samples, strict=False) if b]
    return round(statistics.median(ratios), 3) if ratios else None


def measure(model: Model, data: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it as JSON. Raises RemacError (BenchFailed where bytes differ), DataMissing."""
    source = data / PICTURE
    if not source.is_file():
        raise DataMissing(f"no picture {source}: set REMAC_DATA or --data to the folder that holds it")
    before = bench_environment.state()      # of the machine without us
    with Encoder(model, "onnxruntime") as graphs, Encoder(model, OURS) as ours, tempfile.TemporaryDirectory() as scratch:
        subjects = {name: Subject(way, ours if way.backend == OURS else graphs, source, Path(scratch, name)) for name, way in WAYS.items()}
        say("verifying the bytes")
        picture = subjects[OURS].picture
        bench.verify(bench.Subject(ours, picture, source, subjects[OURS].wanted))
        streams = {name: subject.encode() for name, subject in subjects.items()}
        if len(set(streams.values())) > 1:
            raise bench.BenchFailed(f"the streams of {', '.join(streams)} differ: nothing was timed; run the tests")
        symbols, probes = coded_symbols(subjects[OURS].encode), probe_streams(ours)
        say("measuring the core")
        machine = roofline.measured()
        say(f"timing {rounds} rounds")
        timings = timed(subjects, rounds)
        after = bench_environment.state()
    height, width = picture.samples.shape[:2]
    work = roofline.work(model, height, width, symbols, len(streams[OURS]))
    cautions = [*bench_stats.of_machine(before, after, None, bench_environment.emulation()), *bench_stats.of_samples(timings[OURS]["whole"])]
    return {"schema": SCHEMA, "codec_hash": model.network.hash.hex(), "streams": probes, "picture": [width, height], "quality": QUALITY,
            "rounds": rounds, "threads": 1, "valid": not any(found.caution in bench_stats.SPOILS for found in cautions),
            "warnings": [found.to_json() for found in cautions],
            "machine": asdict(machine), "symbols": symbols, "stream_bytes": len(streams[OURS]),
            "work": {stage: {**asdict(entry), "least_ms": round(1e3 * entry.least_s(machine), 4), "bound": entry.bound(machine)}
                     for stage, entry in work.items()},
            "ways": {name: _described(WAYS[name], timings[name], timings[OURS]) for name in WAYS},
            "environment": {**bench_environment.environment(), "before": before, "after": after}}


def _described(way: Way, timings: Mapping[str, bench_stats.Summary], ours: Mapping[str, bench_stats.Summary]) -> dict[str, Any]:
    return {"title": way.title, **{what: {**timing.to_json(), "times_ours": against_ours(timing, ours[what])} for what, timing in timings.items()}}


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  python -m benchmarks.stages --rounds 5 --out /tmp/stages.json\n")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the model folder")
    parser.add_argument("--data", metavar="DIR", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--out", type=Path, default=RESULTS / "stages.json", metavar="FILE")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)
    result = measure(load_model(options.model), data_folder(options.data), options.rounds, say)
    write_json(options.out, result)
    for warning in result["warnings"]:
        print(f"stages: warning: {warning['warning']} ({warning['detail']}): {warning['remedy']}", file=sys.stderr)
    print(f"{options.out}: " + ", ".join(f"{way['title']} {way['whole']['p50_ms']:.1f} ms" for way in result["ways"].values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
