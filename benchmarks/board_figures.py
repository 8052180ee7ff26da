"""Packs what `remac boards fit` needs into boards/figures.json: `python -m benchmarks.board_figures`.

A board has no results folder. So the shapes of the profiles, the calibration of the roofline, the rate against JPEG and the measured runs are taken
from weights/ and benchmarks/results/ and travel with the board files. Nothing here is typed but what is marked as assumed.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.rd_remac import probe_streams
from benchmarks.store import RESULTS, write_json
from remac_runtime import fit
from remac_runtime.bench import cost as bench_cost
from remac_runtime.bench import stages as bench_stages
from remac_runtime.bench.files import load_result
from remac_runtime.bench.harness import SEED
from remac_runtime.boards import find_board
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.images import Picture
from remac_runtime.model import BANK_FILE, NETWORK_FILE, load_model
from remac_runtime.network import Bank, Network, read_bank, read_network
from remac_runtime.terrain import terrain

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "boards" / "figures.json"
OURS = {"rover-m": "remac-m", "rover-s": "remac-s"}       # profile: codec of rd_summary.json
ANCHOR, QUALITY = "jpeg420", 85
NETWORK_STAGES = (bench_stages.ANALYSIS, bench_stages.PARAMETERS)
# Shares of the theoretical peak where nothing was measured or counted: {runtime: {products of bytes: share}}. Plain C reaches half of the bound of a
# scalar core and little of what vector instructions could do.
ASSUMED = {"onnxruntime": {"any": 0.35}, "numpy": {"any": 0.35}, "c99": {"none": 0.5, "any": 0.15}}
# Processors of flight.json (benchmarks/flight.py), and the boards that they stand for.
COUNTED = {"PPC750, big-endian": ("power", "none"), "RV64GC": ("riscv", "none"), "ARM64, Cortex-A53, SIMD": ("arm64", "smull"),
           "ARM64, Neoverse N1, SIMD": ("arm64", "dotprod")}
COUNTED_PROFILE, COUNTED_FRAME = "rover-m", (1152, 1600)
FLIGHT_NETWORK = ("g_a, h_a", "h_s, phases")
ASSUMED_LOADED_BYTES = {"onnxruntime": 80 << 20, "numpy": 60 << 20, "c99": 1 << 20}
ASSUMED_REST_SLOTS = 400.0
ASSUMED_THREAD_EXPONENT = 0.85


def shipped(root: Path) -> dict[str, tuple[Network, Bank | None]]:
    """The shipped network and bank of each profile."""
    found: dict[str, tuple[Network, Bank | None]] = {}
    for folder in sorted((root / "weights").iterdir()):
        if (folder / NETWORK_FILE).is_file():
            network = read_network(folder / NETWORK_FILE)
            found[folder.name] = network, read_bank(folder / BANK_FILE, network) if (folder / BANK_FILE).is_file() else None
    return found


def shape_entry(shape: bench_cost.Shape) -> dict[str, Any]:
    """What the costs of a profile follow from."""
    return {"layers": {name: list(size) for name, size in shape.layers.items()}, "table_bytes": shape.table_bytes}


def rate(summary: Mapping[str, Any], codec: str) -> dict[str, Any] | None:
    """Means over all pictures of all sets; None where the codec does not reach that quality on every one of them."""
    sets = list(summary["sets"].values())
    if any(codec not in entry["codecs"] or entry["codecs"][codec]["bytes_at_jpeg_q85"] is None for entry in sets):
        return None
    pictures = sum(entry["images"] for entry in sets)
    bits = [next(point["bpp"] for point in entry["codecs"][ANCHOR]["qualities"] if point["quality"] == QUALITY) for entry in sets]
    return {"jpeg_bits_per_pixel": round(sum(b * entry["images"] for b, entry in zip(bits, sets, strict=True)) / pictures, 5),
            "share_of_jpeg": round(sum(entry["codecs"][codec]["bytes_at_jpeg_q85"] * entry["images"] for entry in sets) / pictures, 5),
            "pictures": pictures}


# ---- calibration

def results(folder: Path) -> Iterator[dict[str, Any]]:
    """Every imported result, checked."""
    for path in sorted(folder.glob("*.json")):
        yield load_result(path)


def _seconds(result: Mapping[str, Any], stages: Sequence[str]) -> float:
    return math.fsum(result["timings"]["stages"][name]["p50_ms"] for name in stages) / 1e3


def calibrating_runs(found: Sequence[Mapping[str, Any]], earlier: Callable[[Mapping[str, Any]], bool]) -> list[Mapping[str, Any]]:
    """The runs that calibrate: of each kind of processor and runtime one of one thread. Of today's encoder before those that `earlier` tells, valid
    ones before others, then the one with the largest picture."""
    best: dict[tuple[str, ...], tuple[tuple[bool, bool, int], Mapping[str, Any]]] = {}
    for result in found:
        runtime, picture, board = result["settings"]["backend"], result["picture"], find_board(result["board"])
        if result["settings"]["threads"] == 1 and result["emulated"] is None and runtime in ASSUMED:
            key = (board.family, board.cpu.int8_dot, board.cpu.simd, runtime)
            rank = (not earlier(result), bool(result["valid"]), picture["width"] * picture["height"])
            if key not in best or rank > best[key][0]:
                best[key] = rank, result
    return [result for _, result in best.values()]


def calibration(result: Mapping[str, Any]) -> dict[str, Any]:
    """Share of the peak that the network reached, and what the rest took."""
    board, picture, runtime = find_board(result["board"]), result["picture"], result["settings"]["backend"]
    pixels = picture["width"] * picture["height"]
    network = _seconds(result, NETWORK_STAGES)
    rest = result["timings"]["pixels_to_bytes"]["p50_ms"] / 1e3 - network
    share = result["cost"]["mac_per_pixel"] * pixels / network / fit.peak_mac_s(board, runtime)
    return {"runtime": runtime, "family": board.family, "int8_dot": board.cpu.int8_dot, "simd": board.cpu.simd,
            "share": round(share, 4), "basis": "measured",
            "rest_slots": round(max(rest, 0.0) * board.cpu.clock_mhz * 1e6 * board.cpu.issue_width / pixels, 1),
            "source": f"remac bench on {board.id}, {picture['width']}x{picture['height']}, one thread"}


def exponent(found: Sequence[Mapping[str, Any]]) -> float | None:
    """e of threads^e by which the network got faster, from pairs of runs that differ in their threads; None where there is none."""
    alone = {_key(result): _seconds(result, NETWORK_STAGES) for result in found if result["settings"]["threads"] == 1}
    pairs = [(result["settings"]["threads"], alone[_key(result)] / _seconds(result, NETWORK_STAGES)) for result in found
             if result["settings"]["threads"] > 1 and _key(result) in alone and result["settings"]["backend"] == "onnxruntime"]
    exponents = [math.log(faster) / math.log(threads) for threads, faster in pairs]
    return round(statistics.median(exponents), 4) if exponents else None


def _key(result: Mapping[str, Any]) -> tuple[object, ...]:
    return (result["board"], result["settings"]["backend"], result["settings"]["quality"], result["picture"]["sha256"], result["codec"]["codec_hash"])


def mac_per_pixel(shape: bench_cost.Shape) -> float:
    """Multiply-accumulates of a frame, as many as instructions are counted for."""
    return math.fsum(layer.mac for layer in bench_cost.layer_costs(shape, *COUNTED_FRAME))


def counted(flight: Mapping[str, Any] | None, mac: float) -> Iterator[dict[str, Any]]:
    """Calibrations of c99 from the instructions that the flight encoder executes under emulation (flight.json); `mac` a pixel of that network."""
    for build in (flight or {"builds": []})["builds"]:
        for start, (family, int8_dot) in COUNTED.items():
            if build["processor"] == start:
                stages = build["instructions_per_pixel"]
                rest = math.fsum(count for stage, count in stages.items() if stage not in FLIGHT_NETWORK)
                yield {"runtime": "c99", "family": family, "int8_dot": int8_dot, "basis": "counted", "rest_slots": round(rest / fit.BUSY_SLOTS, 1),
                       "instructions_per_mac": round(math.fsum(stages[stage] for stage in FLIGHT_NETWORK) / mac, 5),
                       "source": f"instructions of the flight encoder on {build['processor']}, {build['compiler']}, at half of the issue width"}


def counted_arm64(content: Mapping[str, Any] | None, known: Sequence[Mapping[str, Any]], mac: float) -> Iterator[dict[str, Any]]:
    """Calibrations of onnxruntime from the instructions of its graphs on emulated ARM64 processors (arm64.json); `mac` a pixel of the network.

    The rest is taken from a known calibration: the emulated runs do it in NumPy, a board has the C part.
    """
    for build in (content or {"instructions_per_pixel": []})["instructions_per_pixel"]:
        yield {"runtime": "onnxruntime", "family": "arm64", "int8_dot": build["int8_dot"], "basis": "counted",
               "rest_slots": _rest(known, "onnxruntime"), "instructions_per_mac": round(build["network"] / mac, 5),
               "source": f"instructions of onnxruntime on {build['processor']}, at half of the issue width"}


def _rest(known: Sequence[Mapping[str, Any]], runtime: str) -> float:
    """Slots outside the network: of that runtime where it was measured, else of any."""
    slots = {entry["runtime"]: float(entry["rest_slots"]) for entry in known}
    return slots.get(runtime, max(slots.values(), default=ASSUMED_REST_SLOTS))


def assumed(known: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """For other kinds of processors; what is outside the network is taken from a known calibration of that runtime, or of any."""
    for runtime, shares in ASSUMED.items():
        for int8_dot, share in shares.items():
            yield {"runtime": runtime, "family": "any", "int8_dot": int8_dot, "share": share, "rest_slots": _rest(known, runtime), "basis": "assumed",
                   "source": "a share of the theoretical peak, not measured on this kind of processor"}


def flight_columns(flight: Mapping[str, Any] | None) -> float | None:
    """Working memory of the flight encoder by column of the picture: its strips and bands have a fixed number of rows."""
    return round(flight["memory"]["work_bytes"] / flight["memory"]["width"], 1) if flight else None


def recoded(encoder: Encoder) -> Callable[[int, int, int], str]:
    """SHA-256 of what an encoder makes of the synthetic picture of `remac bench` of a width and height, at a quality."""
    @cache
    def made(width: int, height: int, quality: int) -> str:
        return hashlib.sha256(encoder.encode(Picture(terrain(height, width, SEED)), EncodeOptions(quality=quality))).hexdigest()
    return made


def of_earlier_encoder(result: Mapping[str, Any], again: Callable[[int, int, int], str]) -> bool:
    """Whether the bytes that were timed are others than today's. Pictures other than the synthetic one are not at hand, other profiles than the one
    of the predictions are not coded again: these are taken as they are."""
    picture = result["picture"]
    if not picture["synthetic"] or result["codec"]["profile"] != COUNTED_PROFILE:
        return False
    return bool(result["verified"]["stream_sha256"] != again(picture["width"], picture["height"], result["settings"]["quality"]))


def measured_run(result: Mapping[str, Any], calibrating: Sequence[Mapping[str, Any]], again: Callable[[int, int, int], str]) -> dict[str, Any]:
    """What `remac boards fit` shows beside a prediction."""
    memory, energy, settings = result["memory"], result["energy"], result["settings"]
    return {"board": result["board"], "runtime": settings["backend"], "threads": settings["threads"], "width": result["picture"]["width"],
            "height": result["picture"]["height"], "seconds": round(result["timings"]["pixels_to_bytes"]["p50_ms"] / 1e3, 6),
            "added_bytes": memory["added_bytes"] if memory["available"] else None,
            "joules": energy["joules_per_encode"] if energy["available"] else None, "used_to_calibrate": result in calibrating,
            "valid": result["valid"], "earlier_encoder": of_earlier_encoder(result, again), "profile": result["codec"]["profile"]}


def make(root: Path, folder: Path) -> dict[str, Any]:
    """Everything, as figures.json holds it. Raises RemacError."""
    found = [result for result in results(folder / "boards") if result["emulated"] is None]
    with Encoder(load_model(root / "weights" / COUNTED_PROFILE)) as encoder:
        again, streams = recoded(encoder), probe_streams(encoder)
        calibrating = calibrating_runs(found, lambda result: of_earlier_encoder(result, again))
        runs = [measured_run(result, calibrating, again) for result in found]
    measured = [calibration(result) for result in calibrating]
    summary = folder / "rd_summary.json"
    if not summary.is_file():
        raise RemacError(f"{summary}: not there: run `python -m benchmarks.rd` first")
    rates = {profile: rate(json.loads(summary.read_text()), codec) for profile, codec in OURS.items()}
    loaded = {result["settings"]["backend"]: result["memory"]["loaded_bytes"] for result in calibrating if result["memory"]["available"]}
    flown, emulated = (json.loads(path.read_text()) if path.is_file() else None for path in (folder / "flight.json", folder / "arm64.json"))
    codecs = shipped(root)
    shapes = {profile: bench_cost.shape_of(*codec) for profile, codec in codecs.items()}
    mac = mac_per_pixel(shapes[COUNTED_PROFILE])
    known = [*measured, *counted(flown, mac)]
    known += counted_arm64(emulated, known, mac)
    return {"schema": fit.SCHEMA, "codec_hash": codecs[COUNTED_PROFILE][0].hash.hex(), "streams": streams,
            "profiles": {profile: shape_entry(shape) for profile, shape in shapes.items()}, "loaded_bytes": ASSUMED_LOADED_BYTES | loaded,
            "flight_bytes_per_column": flight_columns(flown),
            "thread_exponent": exponent(found) or ASSUMED_THREAD_EXPONENT, "calibrations": [*known, *assumed(known)],
            "rate": {profile: entry for profile, entry in rates.items() if entry},
            "measured": runs}


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Write figures.json; 1 with one line on standard error where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board_figures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    options = parser.parse_args(arguments)
    write_json(options.out, make(ROOT, options.results))
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
