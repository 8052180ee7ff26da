"""Instructions of the encoder through ONNX Runtime on emulated ARM64 processors: `python -m benchmarks.arm64_instructions`, into arm64.json.

They calibrate `remac boards fit` for boards that nobody has measured yet. Counted is the difference between a process that works three times and one
that works once, so that starting and loading cancel out; once for whole encodes and once for the network's graphs alone. What is outside the network
is done by NumPy there, since the tree has no compiler for the C part. Needs gcc, qemu-user and the tree of `benchmarks/bench_arm64.sh setup`.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.flight_checks import ToolError
from benchmarks.store import RESULTS, write_json
from remac_runtime.bench.cost import padded_pixels
from remac_runtime.exits import reported
from remac_runtime.model import load_model

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "processors" / "arm64"
SIZE = (192, 256)                            # rows and columns of the synthetic picture
RUNS = (1, 3)
PROCESSORS = {"cortex-a53": "smull", "neoverse-n1": "dotprod"}        # as qemu names them: how a board file names its products of bytes
CHILD = """
import sys
from remac_runtime.codec import Encoder
from remac_runtime.images import Picture
from remac_runtime.model import load_model
from remac_runtime.terrain import terrain
kind, runs, rows, columns = sys.argv[1], *map(int, sys.argv[2:5])
calls = []
with Encoder(load_model(), "onnxruntime") as encoder:
    picture, run = Picture(terrain(rows, columns, 1)), encoder.backend.run
    encoder.backend.run = lambda graph, *inputs: calls.append((graph, inputs)) or run(graph, *inputs)
    encoder.encode(picture)
    encoder.backend.run = run
    for _ in range(runs):
        if kind == "encode":
            encoder.encode(picture)
        else:
            for graph, inputs in calls:
                run(graph, *inputs)
"""


def tool(*command: str | Path, **environment: str) -> None:
    try:
        done = subprocess.run(list(map(str, command)), env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ToolError(f"{error.filename}: not found: apt-get install gcc qemu-user, and benchmarks/bench_arm64.sh setup {TREE}") from None
    if done.returncode:
        raise ToolError(f"{command[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def counted(processor: str, kind: str, runs: int, plugin: Path, scratch: Path) -> int:
    """Instructions of one process."""
    counts, python = scratch / "counts.txt", TREE / "root" / "usr" / "bin" / "python3.11"
    tool("qemu-aarch64", "-plugin", plugin, "-d", "plugin", "-D", counts, "-L", TREE / "root", "-cpu", processor, python, "-c", CHILD, kind,
         str(runs), *map(str, SIZE), PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED="0",
         PYTHONPATH=os.pathsep.join([str(ROOT / "runtime"), str(TREE / "site")]))
    return sum(int(line.rsplit(" ", 1)[1]) for line in counts.read_text(encoding="utf-8").splitlines())


def per_pixel(processor: str, kind: str, plugin: Path, scratch: Path) -> float:
    """Instructions a padded pixel of one encode, or of its network alone."""
    few, many = (counted(processor, kind, runs, plugin, scratch) for runs in RUNS)
    return (many - few) / (RUNS[1] - RUNS[0]) / padded_pixels(*SIZE)


def measure(say: Any = print) -> dict[str, Any]:
    """Everything of arm64.json. Raises ToolError, RemacError."""
    codec_hash, builds = load_model().network.hash.hex(), []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        plugin = scratch / "instructions.so"
        tool("gcc", "-O2", "-shared", "-fPIC", "-o", plugin, Path(__file__).with_name("instructions.c"))
        for processor, int8_dot in PROCESSORS.items():
            tool(ROOT / "benchmarks" / "processors" / "arm64.sh", TREE, processor, "-c", "pass")       # leaves a cpuinfo that fits the processor
            network, whole = (per_pixel(processor, kind, plugin, scratch) for kind in ("network", "encode"))
            builds.append({"processor": processor, "int8_dot": int8_dot, "network": round(network, 1), "rest": round(max(whole - network, 0.0), 1)})
            say(f"{processor}: {whole:.0f} instructions a pixel, {network:.0f} of them in the network")
    version = next((TREE / "site").glob("onnxruntime-*.dist-info")).name.split("-")[1].removesuffix(".dist")
    return {"schema": 1, "codec_hash": codec_hash, "onnxruntime": version, "picture": [SIZE[1], SIZE[0]], "instructions_per_pixel": builds}


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Write arm64.json; 1 with one line on standard error where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm64_instructions", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "arm64.json", metavar="FILE")
    options = parser.parse_args(arguments)
    write_json(options.out, measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
