"""Predictions of what the codec costs on a board that is not at hand: memory, latency, energy, and what the link gains. Every figure is a prediction.

Latency is a roofline: each graph of the network takes the longer of its computing and of its bytes over the board's bandwidth. Computing is either
multiply-accumulates over the share of the core's theoretical peak that was reached where it was measured, or instructions that were counted under
emulation over half of the core's issue width. The rest of the encoder (range coding, quantisation, copies) is scaled by clock and issue width.
What was measured, counted or assumed is in data/figures.json, which `python -m benchmarks.board_figures` makes from results.
"""
from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from remac_runtime.bench import cost as bench_cost
from remac_runtime.boards import FOLDER, Board, unknown
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.topology import GRAPHS

FIGURES = FOLDER / "figures.json"
SCHEMA = 3
ENCODERS = ("onnxruntime", "c99", "numpy")                     # in order of preference at equal speed
LINKS_BIT_S = (32_000, 2_000_000)                              # direct to Earth, and relay: reference/flight practice
PASS_MBIT = (100, 250)                                         # of one relay pass
USABLE = 0.75                                                  # share of the memory that the encoder may take
STRIP_ROWS, FLIGHT_STRIP_ROWS = 64, 16                         # of c99's calls, which `flight_bytes_per_column` is for
BUSY_SLOTS = 0.5                                               # of the issue slots, by counted instructions: one a cycle where two are issued
COPY_MOVES = 2                                                 # a copied byte is read and written
ASSUMED = "assumed"                                            # basis of a calibration
SCALAR_MAC_PER_CYCLE = 1.0                                     # at most, without instructions for products of bytes


class NoFigures(RemacError):
    """The packed figures are not there, or of another version."""


@dataclass(frozen=True)
class Calibration:
    """How one runtime does on one kind of processor (`family` and `int8_dot` of a board, or "any").

    `share`: of the theoretical peak that the network reaches; `instructions_per_mac`: what it executes instead, where that was counted;
    `rest_slots`: issue slots a pixel outside the network; `basis`: measured, counted or assumed; `source` says where from; `simd`: vector
    instructions of the processor that was measured, None where that does not matter.
    """

    runtime: str
    family: str
    int8_dot: str
    rest_slots: float
    basis: str
    source: str
    share: float | None = None
    instructions_per_mac: float | None = None
    simd: str | None = None

    def on(self, board: Board) -> Calibration:
        """As it holds for a board: what was measured with other vector instructions is an assumption there."""
        if self.simd in (None, board.cpu.simd):
            return self
        return replace(self, basis=ASSUMED, source=f"the share of the peak that {self.source} reached with {self.simd}, not measured with "
                                                   f"{board.cpu.simd}")


@dataclass(frozen=True)
class Rate:
    """Over the evaluation pictures: bits a pixel of JPEG at quality 85, and our bytes over JPEG's at its PSNR."""

    jpeg_bits_per_pixel: float
    share_of_jpeg: float
    pictures: int


@dataclass(frozen=True)
class MeasuredRun:
    """An imported result of `remac bench`."""

    board: str
    runtime: str
    threads: int
    width: int
    height: int
    seconds: float
    added_bytes: int | None
    joules: float | None
    used_to_calibrate: bool
    valid: bool
    earlier_encoder: bool = False         # of the same network: its bytes are others than today's
    profile: str = "rover-m"


@dataclass(frozen=True)
class Figures:
    """What figures.json holds."""

    profiles: Mapping[str, bench_cost.Shape]
    loaded_bytes: Mapping[str, int]
    flight_bytes_per_column: float | None
    thread_exponent: float
    calibrations: tuple[Calibration, ...]
    rate: Mapping[str, Rate]
    measured: tuple[MeasuredRun, ...]

    @property
    def outdated(self) -> bool:
        """Whether a run that calibrates is of an earlier encoder."""
        return any(run.earlier_encoder for run in self.measured if run.used_to_calibrate)

    def profile(self, name: str) -> bench_cost.Shape:
        """Raises BadInput, with the nearest names."""
        if name not in self.profiles:
            raise BadInput(unknown("profile", name, self.profiles))
        return self.profiles[name]

    def calibration(self, board: Board, runtime: str) -> Calibration:
        """The one that fits the board's processor most closely; where several do, the first."""
        kinds = ((board.family, board.cpu.int8_dot), ("any", board.cpu.int8_dot), (board.family, "any"), ("any", "any"))
        found = {(entry.family, entry.int8_dot): entry for entry in reversed(self.calibrations) if entry.runtime == runtime}
        return next(found[kind] for kind in kinds if kind in found).on(board)


@dataclass(frozen=True)
class Prediction:
    """Of one encode by one runtime. `memory`: whole, strips (of STRIP_ROWS, c99 of FLIGHT_STRIP_ROWS) or no; `seconds` None where no runtime fits."""

    board: str
    runtime: str
    threads: int
    width: int
    height: int
    memory: str
    needed_bytes: int
    network_s: float
    rest_s: float
    bound: str
    basis: str
    source: str
    power_mode: str | None
    joules: float | None

    @property
    def seconds(self) -> float:
        return self.network_s + self.rest_s


@dataclass(frozen=True)
class Gain:
    """What an encode is worth: seconds of link saved against JPEG q85 at equal PSNR for each of encoding, by bit/s; pictures by Mbit of a pass."""

    saved_s_per_s: Mapping[int, float]
    pictures: Mapping[int, int]
    jpeg_pictures: Mapping[int, int]


@cache
def load_figures(path: Path = FIGURES) -> Figures:
    """The packed figures. Raises NoFigures."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise NoFigures(f"{path}: not there: run `python -m benchmarks.board_figures` in the checkout") from None
    except ValueError as error:
        raise NoFigures(f"{path}: not JSON ({error}): run `python -m benchmarks.board_figures` in the checkout") from None
    if content.get("schema") != SCHEMA:
        raise NoFigures(f"{path}: schema {content.get('schema')!r}, this version reads {SCHEMA}: run `python -m benchmarks.board_figures`")
    return from_json(content)


def from_json(content: Mapping[str, Any]) -> Figures:
    """Figures of the content of figures.json."""
    shapes = {name: bench_cost.Shape({layer: (size[0], size[1], size[2]) for layer, size in entry["layers"].items()}, entry["table_bytes"])
              for name, entry in content["profiles"].items()}
    return Figures(shapes, content["loaded_bytes"], content["flight_bytes_per_column"], content["thread_exponent"],
                   tuple(Calibration(**entry) for entry in content["calibrations"]), {name: Rate(**entry) for name, entry in content["rate"].items()},
                   tuple(MeasuredRun(**entry) for entry in content["measured"]))


# ---- one board

def peak_mac_s(board: Board, runtime: str) -> float:
    """Multiply-accumulates a second of one core in theory. NumPy computes in float32; C without byte products does no more than one a cycle."""
    if runtime == "numpy":
        return board.peaks.fp32_gflop_s_1core / 2 * 1e9
    peak = board.peaks.int8_gmac_s_1core * 1e9
    return min(peak, SCALAR_MAC_PER_CYCLE * board.cpu.clock_mhz * 1e6) if board.cpu.int8_dot == "none" else peak


def bandwidth(board: Board) -> float:
    """Bytes a second: twice what was copied where that was measured, else half of the theory."""
    if board.measured.memcpy_gb_s is not None:
        return COPY_MOVES * board.measured.memcpy_gb_s * 1e9
    return board.memory.bandwidth_gb_s * 1e9 / 2


def runtimes(board: Board) -> list[str]:
    """Those of our encoders that run there without building a package first."""
    return [name for name in ENCODERS if name in board.runtimes and (name != "onnxruntime" or board.software.onnxruntime_wheel)]


def fits(board: Board, runtime: str, shape: bench_cost.Shape, height: int, width: int, figures: Figures) -> tuple[str, int]:
    """whole, strips or no, and the bytes that it takes so. The flight encoder, c99, always works in strips; alone it needs no Python."""
    loaded = 0 if board.runtimes == ("c99",) else figures.loaded_bytes[runtime]
    needed = 0
    for name, rows in (("whole", None), ("strips", STRIP_ROWS)):
        need = bench_cost.memory(shape, height, width, rows)
        if runtime != "c99":
            added = need.added_bytes(runtime)
        elif rows is None:
            continue
        elif figures.flight_bytes_per_column is not None:
            added = need.model_bytes + int(figures.flight_bytes_per_column * width)
        else:
            added = need.model_bytes + need.added_bytes(runtime)
        needed = loaded + added
        if needed <= USABLE * board.memory.size_mib * 2**20:
            return name, needed
    return "no", needed


def latency(board: Board, calibration: Calibration, shape: bench_cost.Shape, height: int, width: int, threads: int,
            exponent: float) -> tuple[float, float, str]:
    """Seconds of the network and of the rest, and what binds most of the network's: compute or bandwidth."""
    pixels, spent = bench_cost.padded_pixels(height, width), {"compute": 0.0, "bandwidth": 0.0}
    costs, slots = bench_cost.layer_costs(shape, height, width), board.cpu.clock_mhz * 1e6 * board.cpu.issue_width
    if calibration.instructions_per_mac is not None:
        mac_s = slots * BUSY_SLOTS / calibration.instructions_per_mac
    else:
        mac_s = (calibration.share or 0.0) * peak_mac_s(board, calibration.runtime)
    value_bytes = 4 if calibration.runtime == "numpy" else 1        # of an activation
    for graph in GRAPHS:
        mac, moved = (math.fsum(getattr(layer, name) for layer in costs if layer.graph == graph) for name in ("mac", "traffic_bytes"))
        compute, moving = pixels * mac / (mac_s * threads ** exponent), pixels * moved * value_bytes / bandwidth(board)
        spent["compute" if compute >= moving else "bandwidth"] += max(compute, moving)
    return math.fsum(spent.values()), calibration.rest_slots * height * width / slots, max(spent, key=lambda name: spent[name])


def predict(board: Board, profile: str, height: int, width: int, threads: int = 1, runtime: str | None = None,
            figures: Figures | None = None) -> list[Prediction]:
    """One prediction for each runtime of the board, or for the one named: those that fit first, the fastest of them first. Raises BadInput."""
    figures = figures or load_figures()
    shape, used = figures.profile(profile), min(threads, board.cpu.cores)
    found = []
    for name in [runtime] if runtime else runtimes(board):
        calibration = figures.calibration(board, name)
        memory, needed = fits(board, name, shape, height, width, figures)
        cores = 1 if name == "c99" else used            # the flight encoder has one thread
        network, rest, bound = latency(board, calibration, shape, height, width, cores, figures.thread_exponent)
        joules = board.watts.watts * (network + rest) if board.watts else None
        found.append(Prediction(board.id, name, cores, width, height, memory, needed, network, rest, bound, calibration.basis, calibration.source,
                                board.watts.name if board.watts else None, joules))
    return sorted(found, key=lambda entry: (entry.memory == "no", entry.seconds))


def gain(rate: Rate, seconds: float, height: int, width: int) -> Gain:
    """What an encode that takes so long is worth on the link."""
    jpeg_bits = rate.jpeg_bits_per_pixel * height * width
    bits = jpeg_bits * rate.share_of_jpeg
    return Gain({link: (jpeg_bits - bits) / link / seconds for link in LINKS_BIT_S},
                {mbit: int(mbit * 1e6 // bits) for mbit in PASS_MBIT}, {mbit: int(mbit * 1e6 // jpeg_bits) for mbit in PASS_MBIT})


@dataclass(frozen=True)
class Compared:
    """A measured run beside its prediction; `error` is predicted over measured, less one."""

    run: MeasuredRun
    predicted_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.run.seconds - 1


def compare(board: Board, profile: str, figures: Figures | None = None) -> list[Compared]:
    """The measured runs of a profile on a board beside predictions for the same runtime, threads and size."""
    figures = figures or load_figures()
    found = []
    for run in figures.measured:
        if (run.board, run.profile) == (board.id, profile):
            (prediction,) = predict(board, profile, run.height, run.width, run.threads, run.runtime, figures)
            found.append(Compared(run, prediction.seconds))
    return found
