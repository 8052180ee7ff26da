"""What one core of this machine can do at most, multiply-accumulates of bytes and bytes copied, and from it the least time of a stage of the encode.

The first is measured with the widest dot products of the processor and nothing else (peak.c), the second by copying arrays as large as the encoder's
tensors, which stay in the last cache where the processor has a large one.
"""
from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from remac_runtime.bench import cost as bench_cost
from remac_runtime.bench import stages as bench_stages
from remac_runtime.errors import RemacError
from remac_runtime.format import LATENT_STRIDE
from remac_runtime.model import Model

PEAK = Path(__file__).with_name("peak.c")
COPIED_BYTES = 8 << 20
REPEATS = 15
GRAPHS_OF = {bench_stages.ANALYSIS: ("analysis",), bench_stages.PARAMETERS: ("side", "reference", "phase0", "phase1", "phase2", "phase3")}
QUANTISE_BYTES = 3 * 4 + 4 + 2 + 1      # of a latent: y, mu and scale read; symbol, level and plane written
CODING_BYTES = 4 + 2                    # of a latent: symbol and level read


@dataclass(frozen=True)
class Machine:
    """Of one core: multiply-accumulates of bytes a second, and bytes read or written a second."""

    mac_s: float
    bytes_s: float


@dataclass(frozen=True)
class Work:
    """What a stage cannot do without: multiply-accumulates, bytes read and written once, symbols coded."""

    mac: float = 0.0
    moved_bytes: float = 0.0
    symbols: int = 0

    def least_s(self, machine: Machine) -> float:
        """Seconds of a core that computes and moves at its best, both at once."""
        return max(self.mac / machine.mac_s, self.moved_bytes / machine.bytes_s)

    def bound(self, machine: Machine) -> str:
        return "compute" if self.mac / machine.mac_s > self.moved_bytes / machine.bytes_s else "memory"


def measured() -> Machine:
    """Of this machine, now. Raises RemacError without a compiler, or for a processor that peak.c does not know."""
    return Machine(_peak_mac_s(), _copied_bytes_s())


def _peak_mac_s() -> float:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RemacError("the peak of the processor is measured with a C program: install gcc or clang")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        built = subprocess.run([compiler, "-O2", "-march=native", str(PEAK), "-o", str(program)], capture_output=True, text=True, check=False)
        if built.returncode:
            raise RemacError(f"{PEAK.name} cannot be built for this processor ({built.stderr.strip().splitlines()[0]}): add its dot products to it")
        return float(subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout)


def _copied_bytes_s() -> float:
    source, target = np.ones(COPIED_BYTES, np.uint8), np.ones(COPIED_BYTES, np.uint8)
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * COPIED_BYTES / best


def work(model: Model, height: int, width: int, symbols: int, stream_bytes: int) -> Mapping[str, Work]:
    """By stage, where it is known: `symbols` were coded into `stream_bytes`."""
    shape, pixels = bench_cost.shape_of(model.network, model.bank), bench_cost.padded_pixels(height, width)
    costs = bench_cost.layer_costs(shape, height, width)
    latents = pixels // LATENT_STRIDE ** 2 * shape.outputs("head")
    described = pixels * (shape.outputs("body") / 64 + shape.outputs("deep") / 256)
    networks = {stage: Work(sum(layer.mac for layer in costs if layer.graph in graphs) * pixels,
                            sum(layer.traffic_bytes for layer in costs if layer.graph in graphs) * pixels) for stage, graphs in GRAPHS_OF.items()}
    return {**networks, bench_stages.SELECTION: Work(moved_bytes=described), bench_stages.QUANTISE: Work(moved_bytes=latents * QUANTISE_BYTES),
            bench_stages.CODING: Work(moved_bytes=latents * CODING_BYTES + stream_bytes, symbols=symbols),
            bench_stages.PACKETS: Work(moved_bytes=2 * stream_bytes)}
