"""Encode speed beside classical codecs in one run: `python -m benchmarks.speed`.

Every codec encodes the same picture in turn, round after round, one thread each, so that whatever else the machine does hits all alike. Timed are
pixels in memory -> finished bytes, and picture file -> stream file; colour conversion and entropy coding are inside. Our stream is decoded back to
the latents of the reference quality before anything is timed. Cold start and peak memory are taken from fresh processes.
"""
from __future__ import annotations

import argparse
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DataMissingError, data_root
from benchmarks.store import RESULTS, write_json

PICTURE = Path("frames", "test", "m2020_zcam_sol0053.png")       # 1600x1152, as the camera delivers it
QUALITY = 32
ROUNDS = 15
OURS = "remac-m"
RIVALS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "openjpeg": ("JPEG2000", {"quality_mode": "rates", "quality_layers": [24], "irreversible": True, "mct": 1, "no_jp2": True}),
    "webp-m4": ("WEBP", {"quality": 75, "method": 4}),
    "webp-m6": ("WEBP", {"quality": 75, "method": 6}),
    "jpeg": ("JPEG", {"quality": 85, "optimize": True, "subsampling": "4:2:0"}),
}
PEAK_SCRIPT = """
import sys, time
start = time.perf_counter()
import remac_runtime.codec as codec, remac_runtime.images as images, remac_runtime.model as model

def peak():     # not getrusage, which counts what the parent held when it started this process
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024

with codec.Encoder(model.load_model(sys.argv[1])) as encoder:
    picture = images.load_picture(sys.argv[2])
    before = peak()
    encoder.encode(picture, codec.EncodeOptions(quality=int(sys.argv[3]), strip_rows=int(sys.argv[4]) or None))
print(peak(), before, time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Timing:
    """Seconds of each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def to_json(self) -> dict[str, Any]:
        ordered = sorted(self.samples)
        p90 = ordered[min(len(ordered) - 1, round(0.9 * len(ordered)))]
        return {"median_ms": round(1e3 * self.median, 3), "min_ms": round(1e3 * ordered[0], 3), "p90_ms": round(1e3 * p90, 3),
                "samples_ms": [round(1e3 * s, 3) for s in self.samples]}


def timed_in_turn(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Run every task once unmeasured, then `rounds` times in turn."""
    for task in tasks.values():
        task()
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            samples[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def pillow_encoder(pixels: NDArray[np.uint8], kind: str, options: dict[str, Any]) -> Callable[[], bytes]:
    from PIL import Image
    picture = Image.fromarray(pixels)

    def encode() -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()
    return encode


def file_encoder(source: Path, target: Path, kind: str, options: dict[str, Any]) -> Callable[[], None]:
    from PIL import Image

    def encode() -> None:
        with Image.open(source) as picture:
            picture.convert("RGB").save(target, kind, **options)
    return encode


def measure(model: Path | None, data: Path, rounds: int) -> dict[str, Any]:
    """All of it as JSON: sizes, timings, ratios to our own median (above 1: we are faster), memory and cold start."""
    from remac_runtime.codec import EncodeOptions, Encoder
    from remac_runtime.images import load_picture
    from remac_runtime.model import load_model
    loaded, source, wanted = load_model(model), data / PICTURE, EncodeOptions(quality=QUALITY)
    picture = load_picture(source)
    with Encoder(loaded, "onnxruntime", 1) as encoder, tempfile.TemporaryDirectory() as scratch:
        verify(loaded, encoder.encode(picture, wanted))

        def ours_to_file() -> None:
            Path(scratch, "ours.rmc").write_bytes(encoder.encode(load_picture(source), wanted))

        memory: dict[str, Callable[[], object]] = {OURS: lambda: encoder.encode(picture, wanted)}
        files: dict[str, Callable[[], object]] = {OURS: ours_to_file}
        for name, (kind, options) in RIVALS.items():
            memory[name] = pillow_encoder(picture.samples, kind, options)
            files[name] = file_encoder(source, Path(scratch, name), kind, options)
        sizes = {name: len(encode()) for name, encode in memory.items()}      # type: ignore[arg-type]
        results = {"pixels_to_bytes": timed_in_turn(memory, rounds), "file_to_file": timed_in_turn(files, rounds)}
    height, width = picture.samples.shape[:2]
    processes = {"whole": fresh(loaded.folder, source, 0), "strips_of_128": fresh(loaded.folder, source, 128)}
    return {"schema": 1, "picture": [width, height], "quality": QUALITY, "rounds": rounds, "codec_hash": loaded.network.hash.hex(), "bytes": sizes,
            **{kind: compared(timings, height * width) for kind, timings in results.items()},
            "fresh_process": processes, "environment": environment()}


def compared(timings: Mapping[str, Timing], pixels: int) -> dict[str, dict[str, Any]]:
    """Timings with speeds and ratios to ours."""
    ours = timings[OURS].median
    return {name: {**t.to_json(), "mpix_per_s": round(pixels / t.median / 1e6, 2), "times_ours": round(t.median / ours, 3)}
            for name, t in timings.items()}


def verify(model: Any, data: bytes) -> None:
    """The bytes decode to the latents of the same stream through the NumPy backend, or nothing is timed."""
    from remac_runtime.codec import Decoder
    with Decoder(model, "numpy") as slow, Decoder(model, "onnxruntime") as fast:
        if not np.array_equal(slow.decode(data).y_hat, fast.decode(data).y_hat):
            raise SystemExit("speed: backends disagree, nothing was timed: run the tests")


def fresh(model: Path, source: Path, strip_rows: int) -> dict[str, float]:
    """A process that starts, loads, encodes once and ends: peak resident bytes, of that before encoding, seconds inside Python."""
    child = subprocess.run([sys.executable, "-c", PEAK_SCRIPT, str(model), str(source), str(QUALITY), str(strip_rows)],
                           capture_output=True, text=True, check=True)
    peak, before, seconds = child.stdout.split()
    return {"peak_bytes": int(peak), "loaded_bytes": int(before), "cold_start_s": round(float(seconds), 4)}


def environment() -> dict[str, str]:
    """Processor and versions."""
    from importlib.metadata import version

    from PIL import features
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")
    vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text()
    return {"machine": platform.machine(), "cpu": cpu, "vnni": str(vnni), "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "onnxruntime", "pillow")},
            "openjpeg": str(features.version("jpg_2000")), "libwebp": str(features.version("webp"))}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.json")
    options = parser.parse_args(arguments)
    try:
        result = measure(options.model, data_root(options.data), options.rounds)
    except DataMissingError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 1
    write_json(options.out, result)
    for kind in ("pixels_to_bytes", "file_to_file"):
        print(kind, {name: f"{t['median_ms']} ms, {t['times_ours']} x ours" for name, t in result[kind].items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
