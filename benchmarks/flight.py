"""Build the flight encoder for several processors, run it under emulation, compare its bytes, and count instructions: results/flight.json.

Needs gcc, the cross compilers of PROCESSORS and qemu-user: on Debian
apt-get install gcc gcc-aarch64-linux-gnu gcc-riscv64-linux-gnu gcc-powerpc-linux-gnu qemu-user
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import flight_checks, store
from benchmarks.flight_checks import tool
from remac_runtime.boards import find_board
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.fit import FLIGHT_STRIP_ROWS
from remac_runtime.format import BAND_ROWS
from remac_runtime.images import load_picture
from remac_runtime.model import load_model

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "samples" / "spirit_husband_hill_terrain.png"
CROP = (100, 40, 356, 168)        # of it: 256x128, two columns of bands' width and no padding
QUALITY = 32
OPTIMISE = ("-O2", "-fno-schedule-insns")     # without the second, gcc spills the kernels' accumulators
STAGES = ("g_a, h_a", "h_s, phases", "quantise", "rANS, packets")
FUNCTIONS = {      # of the stages behind the network; what is left of a coded band is h_s and the phases
    "quantise": ("remac_quantise", "remac_collect"),
    "rANS, packets": ("remac_encode", "write_escapes", "write_band", "finish_stream", "sign_packets", "remac_crc32c",
                      "multiply_polynomials", "advance_zeros", "fill_header"),
}
INSTRUCTIONS_PER_CYCLE = 1.0
ASSUMPTION = (f"A prediction, not a measurement: instructions counted for the PowerPC 750, at {INSTRUCTIONS_PER_CYCLE:g} instruction a cycle. The "
              "core issues two, but a multiplication keeps one of its two integer units busy for two cycles or more, and memory is not modelled. "
              "Half as many seconds are possible, or twice as many.")
PREDICTED = ("rad750_133", "rad750_200")       # board files, which hold clock and power
FRAME = (1600, 1200)              # width and height of the memory map and of the prediction
EXAMPLES = """\
examples:
  python -m benchmarks.flight                        # all processors, into benchmarks/results/flight.json
  python -m benchmarks.flight --only PPC750 --out /tmp/flight.json
"""


@dataclass(frozen=True)
class Processor:
    """A processor: its compiler and flags, and the emulator that runs it."""

    name: str
    compiler: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...]


PROCESSORS = (
    Processor("PPC750, big-endian", "powerpc-linux-gnu-gcc", ("-mcpu=750",), ("qemu-ppc", "-cpu", "750")),
    Processor("RV64GC", "riscv64-linux-gnu-gcc", ("-march=rv64gc",), ("qemu-riscv64",)),
    Processor("ARM64, Cortex-A53", "aarch64-linux-gnu-gcc", ("-mcpu=cortex-a53",), ("qemu-aarch64", "-cpu", "cortex-a53")),
    Processor("ARM64, Cortex-A53, SIMD", "aarch64-linux-gnu-gcc", ("-mcpu=cortex-a53", "-DREMAC_SIMD=1"), ("qemu-aarch64", "-cpu", "cortex-a53")),
    Processor("ARM64, Neoverse N1, SIMD", "aarch64-linux-gnu-gcc", ("-mcpu=neoverse-n1", "-DREMAC_SIMD=1"), ("qemu-aarch64", "-cpu", "neoverse-n1")),
    Processor("x86-64", "gcc", (), ("qemu-x86_64",)),
)


@dataclass(frozen=True)
class Build:
    """What one processor gave. Sizes in bytes; instructions per pixel of the padded picture, by stage."""

    processor: str
    compiler: str
    flags: str
    code_bytes: int
    constant_bytes: int
    data_bytes: int
    stack_bytes: int
    stack_path: tuple[str, ...]
    same_bytes: bool
    instructions_per_pixel: dict[str, float]


def counted(processor: Processor, plugin: Path, arguments: list[str], folder: Path) -> dict[str, int]:
    """Instructions by function of one run of flight_encode."""
    counts = folder / "counts.txt"
    tool([*processor.emulator, "-plugin", plugin, "-d", "plugin", "-D", counts, folder / "flight_encode", *arguments], folder)
    result: dict[str, int] = {}
    for line in counts.read_text(encoding="utf-8").splitlines():
        name, count = line.rsplit(" ", 1)
        name = name.split(".")[0]                # what gcc appends to its variants of a function
        result[name] = result.get(name, 0) + int(count)
    return result


def by_stage(pushed: dict[str, int], whole: dict[str, int], pixels: int) -> dict[str, float]:
    """Instructions per pixel by stage, from a run that stops behind the analysis and from a whole one."""
    parts = {stage: sum(whole.get(name, 0) - pushed.get(name, 0) for name in names) for stage, names in FUNCTIONS.items()}
    analysis = sum(pushed.values())
    network = sum(whole.values()) - analysis - sum(parts.values())
    counts = {STAGES[0]: analysis, STAGES[1]: network, **parts}
    return {stage: round(counts[stage] / pixels, 1) for stage in STAGES}


def measure(processor: Processor, folder: Path, plugin: Path, picture: Path, expected: bytes) -> Build:
    """Build for a processor, run and count. Raises ToolError."""
    flags = [*OPTIMISE, *processor.flags]
    built = flight_checks.compile_object(processor.compiler, [*flags, flight_checks.CALL_GRAPH], folder)
    stack, sizes = flight_checks.measured_stack(built), flight_checks.section_bytes(built)
    tool([processor.compiler, "-std=c99", *flags, "-static", "flight_encode.c", "remac_flight.o", "-o", "flight_encode"], folder)
    arguments = ["--keep", "--references", "chosen", "--quality", str(QUALITY), str(picture), "out.rmc"]
    pushed = counted(processor, plugin, ["--push-only", *arguments], folder)
    whole = counted(processor, plugin, arguments, folder)
    width, height = CROP[2] - CROP[0], CROP[3] - CROP[1]
    version = tool([processor.compiler, "-dumpfullversion"], folder).strip()
    return Build(processor.name, f"gcc {version}", " ".join(flags), sizes["code"], sizes["constants"], sizes["data"], stack.size, stack.path,
                 (folder / "out.rmc").read_bytes() == expected, by_stage(pushed, whole, width * height))


def predict(instructions_per_pixel: float) -> dict[str, Any]:
    """Seconds and joules of the boards PREDICTED for a frame, by power mode, with the assumption they rest on."""
    width, height = (-(-side // 64) * 64 for side in FRAME)
    instructions = instructions_per_pixel * width * height
    boards = []
    for board in map(find_board, PREDICTED):
        seconds = instructions / (board.cpu.clock_mhz * 1e6 * INSTRUCTIONS_PER_CYCLE)
        boards.append({"name": board.cpu.model.split()[0], "clock_mhz": board.cpu.clock_mhz, "seconds": round(seconds, 1),
                       "joules": {mode.name: round(seconds * mode.watts) for mode in board.power_modes}})
    return {"assumption": ASSUMPTION, "instructions_per_cycle": INSTRUCTIONS_PER_CYCLE, "boards": boards}


def memory(folder: Path) -> dict[str, Any]:
    """Working memory for the frame, with one band and with the whole picture kept, as the encoder itself states it. Raises ToolError."""
    tool(["gcc", "-std=c99", "-O1", "flight_encode.c", "remac_flight.c", "-o", "flight_here"], folder)
    maps = []
    for keep in ("0", "1"):
        printed = tool([folder / "flight_here", "--map", *map(str, FRAME), str(BAND_ROWS), keep], folder)
        maps.append({line.split()[0]: int(line.split()[1]) for line in printed.splitlines()})
    work, kept = (regions.pop("total") for regions in maps)
    return {"width": FRAME[0], "height": FRAME[1], "band_rows": BAND_ROWS, "strip_rows": FLIGHT_STRIP_ROWS, "work_bytes": work, "keep_bytes": kept,
            "regions": maps[0]}


def run(weights: Path, processors: list[Processor], folder: Path) -> dict[str, Any]:
    """Everything of flight.json, built in a scratch folder. Raises ToolError and RemacError."""
    model = load_model(weights)
    tool([sys.executable, ROOT / "export" / "flight_c.py", "--model", weights.resolve(), "-o", folder], ROOT)
    plugin, picture = folder / "instructions.so", folder / "picture.ppm"
    tool(["gcc", "-O2", "-shared", "-fPIC", "-o", plugin, Path(__file__).with_name("instructions.c")], folder)
    Image.open(PICTURE).convert("RGB").crop(CROP).save(picture)
    with Encoder(model, "numpy") as encoder:
        expected = encoder.encode(load_picture(picture), EncodeOptions(quality=QUALITY))
    builds = []
    for processor in processors:
        builds.append(measure(processor, folder, plugin, picture, expected))
        print(f"{processor.name}: {sum(builds[-1].instructions_per_pixel.values()):.0f} instructions a pixel, stack {builds[-1].stack_bytes} bytes, "
              f"bytes {'equal' if builds[-1].same_bytes else 'DIFFER'}")
    ppc = [build for build in builds if build.processor == PROCESSORS[0].name]
    return {"schema": 1, "profile": model.network.profile, "codec_hash": model.network.hash.hex(),
            "picture": {"name": PICTURE.name, "crop": CROP, "quality": QUALITY}, "stages": STAGES,
            "widths": {name: len(layer.bias) for name, layer in model.network.layers.items()}, "memory": memory(folder),
            "builds": [asdict(build) for build in builds],
            "prediction": predict(sum(ppc[0].instructions_per_pixel.values())) if ppc else None}


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "rover-m", help="folder with network.rmn and bank.rmb (weights/rover-m)")
    parser.add_argument("--only", metavar="NAME", help="only processors whose name begins so; print the JSON unless --out is given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="another file than benchmarks/results/flight.json")
    options = parser.parse_args(arguments)
    chosen = [processor for processor in PROCESSORS if processor.name.startswith(options.only or "")]
    with tempfile.TemporaryDirectory() as scratch:
        results = run(options.weights, chosen, Path(scratch))
    if options.out or not options.only:
        store.write_json(options.out or store.RESULTS / "flight.json", results)
    else:
        print(json.dumps(results, indent=1))
    return 0 if all(build["same_bytes"] for build in results["builds"]) else 1


if __name__ == "__main__":
    sys.exit(main())
