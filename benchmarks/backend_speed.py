"""The c99 backend beside onnxruntime, one thread each: `python -m benchmarks.backend_speed`.

Both analyse and encode the same picture in turn, round after round. Wall-clock time decides on an idle machine; processor time is given too, which
neighbours disturb less. Ratios are onnxruntime / c99, above 1 where c99 is faster: the median over the rounds of the ratio within a round. Nothing is
timed unless the streams are the same bytes.
"""
from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.datasets import DataMissingError, data_root
from benchmarks.latency import PICTURE, QUALITY
from benchmarks.store import RESULTS, write_json

BACKENDS = ("onnxruntime", "c99")
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
ROUNDS = 30


def measure(model: Path | None, data: Path, rounds: int) -> dict[str, Any]:
    """{what: {clock: {backend: median ms, ..., "ratio"}}} for `analysis` (pixels to y, z and descriptors) and `encode` (pixels to bytes)."""
    from remac_runtime.analysis import analyse
    from remac_runtime.backends.c99_backend import C99Backend
    from remac_runtime.bench.environment import environment
    from remac_runtime.codec import EncodeOptions, Encoder
    from remac_runtime.images import load_picture, to_pixels
    from remac_runtime.model import load_model
    loaded, picture, options = load_model(model), load_picture(data / PICTURE), EncodeOptions(quality=QUALITY)
    pixels = to_pixels(picture)
    with Encoder(loaded, "onnxruntime") as theirs, Encoder(loaded, "c99") as ours:
        if theirs.encode(picture, options) != ours.encode(picture, options):
            raise SystemExit("backend_speed: the backends disagree, nothing was timed: run the tests")
        encoders = dict(zip(BACKENDS, (theirs, ours), strict=True))
        kernel = ours.backend.kernel if isinstance(ours.backend, C99Backend) else "unknown"
        result = {"analysis": paired({name: partial(analyse, encoder.backend, pixels) for name, encoder in encoders.items()}, rounds),
                  "encode": paired({name: partial(encoder.encode, picture, options) for name, encoder in encoders.items()}, rounds)}
    height, width = picture.samples.shape[:2]
    return {"schema": 1, "picture": [width, height], "quality": QUALITY, "rounds": rounds, "kernel": kernel,
            "codec_hash": loaded.network.hash.hex(), **result, "environment": environment()}


def paired(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Per clock: median milliseconds of each task, and the median over the rounds of first / last."""
    samples: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in tasks} for clock in CLOCKS}
    for _ in range(rounds):
        for name, task in tasks.items():
            before = {clock: now() for clock, now in CLOCKS.items()}
            task()
            for clock, now in CLOCKS.items():
                samples[clock][name].append(now() - before[clock])
    first, *_, last = tasks
    return {clock: {**{name: round(1e3 * statistics.median(times), 3) for name, times in taken.items()},
                    "ratio": round(statistics.median(a / b for a, b in zip(taken[first], taken[last], strict=True)), 3)}
            for clock, taken in samples.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backend_speed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  REMAC_KERNEL=avx2 python -m benchmarks.backend_speed --rounds 10 --out /tmp/avx2.json")
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "backend_speed.json")
    options = parser.parse_args(arguments)
    try:
        result = measure(options.model, data_root(options.data), options.rounds)
    except DataMissingError as error:
        print(f"backend_speed: {error}", file=sys.stderr)
        return 1
    write_json(options.out, result)
    for what in ("analysis", "encode"):
        print(what, result[what])
    return 0


if __name__ == "__main__":
    sys.exit(main())
