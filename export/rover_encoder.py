"""Build the rover encoder: the model folder that the `remac` command and boards load, checked and measured.

Takes the integer network and reference bank of a profile, writes them with their ONNX graphs, the ground decoder and manifest.json into a folder,
asserts every rule of the arithmetic on the files as read back, compares each layer with the int64 reference codec on real pictures, encodes and
decodes a sample picture, and prints one table. Exits with 1 if a check failed: then the folder gets no manifest.json, and graphs that compute
anything else than the reference are removed.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

from export.command import reported
from export.report import CheckResult, Section, plain, render
from remac_runtime.bench.arguments import count
from remac_runtime.bench.cost import STAGES
from remac_runtime.errors import RemacError
from remac_runtime.files import copy
from remac_runtime.ground import ground_files
from remac_runtime.images import Picture, load_picture, psnr
from remac_runtime.mars import DATA_VARIABLE, DataMissing, data_folder
from remac_runtime.model import BANK_FILE, GROUND_FOLDER, NETWORK_FILE, Model, load_model
from remac_runtime.topology import GRAPHS

ROOT = Path(__file__).resolve().parents[1]
BUDGET_KMAC = {"rover-m": 8.0, "rover-s": 2.0}      # of a whole encode, per pixel
FRAME = (1152, 1600)                                # rows and columns for speed, memory and multiply-accumulates
WINDOW = (128, 192)                                 # of the pictures that are compared with the reference
MARS_PICTURES = 4
QUALITIES = (16, 32, 48)
JPEG_DEPTH = 8                                      # bits of a sample, which the sample picture must not exceed: it is set beside JPEG
BUSY = 0.5                                          # load average before the measurement that spoils it
EXAMPLES = """\
examples:
  python export/rover_encoder.py                          # build/rover-m from weights/rover-m
  python export/rover_encoder.py --profile rover-s --out build/rover-s
  python export/rover_encoder.py --json > report.json     # figures for a program, checks included
"""


@dataclass(frozen=True)
class Point:
    """The sample picture at one quality, beside the best JPEG (Pillow, 4:2:0) that is not larger. PSNR nan: the ground decoder is not built."""

    quality: int
    num_bytes: int
    bits_per_pixel: float
    psnr_db: float
    jpeg_psnr_db: float


@dataclass(frozen=True)
class Report:
    """Everything that is printed. Multiply-accumulates per pixel: {graph: {layer: MAC / pixel}}."""

    profile: str
    codec_hash: str
    folder: str
    parameters: int
    disk_bytes: dict[str, int]
    mac_per_pixel: dict[str, dict[str, float]]
    frame: tuple[int, int]
    latency: dict[str, Any]
    memory: dict[str, Any]
    load: float
    sample: str
    points: tuple[Point, ...]
    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def build_ground(weights: Path, folder: Path) -> tuple[CheckResult, list[str]]:
    """The ground decoders from the weights folder, where it has some; and the names of their files, relative to `folder`."""
    title = "ground decoders built"
    if importlib.util.find_spec("torch") is None:
        return CheckResult(title, False, "torch is not installed: pixels cannot be decoded"), []
    from export.ground_decoder import export_decoders
    from remac.weights import CODEC_FILE
    if not (weights / CODEC_FILE).exists():
        return CheckResult(title, False, f"{weights / CODEC_FILE} is missing: pixels cannot be decoded"), []
    exported = export_decoders(weights, folder)
    facts = "; ".join(f"{file.label}, {file.path.stat().st_size} bytes: {check.detail}" for file, check in exported)
    return CheckResult(title, all(check.passed for _, check in exported), facts), [file.path.relative_to(folder).as_posix() for file, _ in exported]


def mars_pictures(data: Path | None) -> list[Path]:
    """Some pictures of the Mars data folder, evenly over the list; none where it is absent."""
    try:
        paths = sorted((data_folder(data) / "test").glob("*.png"))
    except DataMissing:
        return []
    return paths[::max(1, len(paths) // MARS_PICTURES)][:MARS_PICTURES]


def arithmetic_checks(model: Model, sample: Path, data: Path | None) -> list[CheckResult]:
    """The graphs' rules, and the comparison with the reference on the sample and on Mars pictures."""
    from export.layer_checks import check_backend, check_every_layer, check_stream, expected, windows
    from export.onnx_checks import check_folder
    from remac_runtime.backends.c99_backend import best_kernel
    pictures = windows([sample, *mars_pictures(data)], *WINDOW)
    if not pictures:
        raise RemacError(f"{sample}: smaller than {WINDOW[1]}x{WINDOW[0]} pixels: name a larger picture with --sample")
    cases = [(name, expected(model, pixels)) for name, pixels in pictures]
    backends = [name for name in ("onnxruntime", "numpy", "torch") if importlib.util.find_spec(name) is not None]
    if best_kernel(model.network) is not None:
        backends.append("c99")
    return [*check_folder(model.folder, model.network), check_every_layer(model, cases),
            *(check_backend(model, name, cases) for name in backends), check_stream(model, pictures[0][1])]


def rate_and_quality(model: Model, picture: Picture) -> tuple[list[Point], CheckResult]:
    """The sample through the public encode and decode."""
    import remac_runtime
    from export.measure import jpeg_within
    from remac_runtime.codec import Decoder
    points: list[Point] = []
    pixels, ground = picture.samples.shape[0] * picture.samples.shape[1], bool(ground_files(model.folder / GROUND_FOLDER))
    for quality in QUALITIES:
        data = remac_runtime.encode(picture.samples, quality=quality, model=model.folder)
        with Decoder(model) as decoder:
            intact = decoder.decode(data, strict=True).report.complete
        decoded = Picture(remac_runtime.decode(data, model=model.folder)) if ground else None
        if not intact or (decoded is not None and decoded.samples.shape != picture.samples.shape):
            return points, CheckResult("sample decodes", False, f"quality {quality}: bands are lost or the size is another")
        jpeg = jpeg_within(picture, len(data))
        points.append(Point(quality, len(data), 8 * len(data) / pixels, psnr(decoded, picture) if decoded else float("nan"),
                            jpeg.psnr_db if jpeg else float("nan")))
    return points, CheckResult("sample decodes", True, f"qualities {', '.join(map(str, QUALITIES))}" + ("" if ground else ", to latents only"))


def count_check(profile: str, macs: dict[str, dict[str, float]]) -> CheckResult:
    total = sum(sum(layers.values()) for layers in macs.values()) / 1000
    budget = BUDGET_KMAC.get(profile)
    return CheckResult("multiply-accumulates within the budget", budget is None or total <= budget,
                       f"{total:.2f} kMAC/px" + (f" of {budget:g}" if budget else f", profile {profile} has none"))


def build(options: argparse.Namespace) -> Report:
    """All of it. Raises RemacError."""
    weights = ROOT / "weights" / options.profile
    folder: Path = options.out or ROOT / "build" / options.profile
    network_file, bank_file = options.network or weights / NETWORK_FILE, options.bank or weights / BANK_FILE
    sample: Path = options.sample or ROOT / "samples" / "spirit_husband_hill_summit.png"
    picture = load_picture(sample)
    if picture.depth > JPEG_DEPTH:
        raise RemacError(f"{sample}: has samples of {picture.depth} bits, JPEG holds {JPEG_DEPTH}: convert it to {JPEG_DEPTH} bits a sample, "
                         "or name another picture with --sample")

    from export import manifest, measure, onnx_checks, onnx_memory, to_onnx
    for path in (network_file, bank_file):
        if not path.is_file():
            raise RemacError(f"{path}: no such file: name the weights with --network and --bank, or train and freeze a network first")
    (folder / manifest.MANIFEST_FILE).unlink(missing_ok=True)       # it is of what is replaced now
    copy(network_file, folder / NETWORK_FILE)
    copy(bank_file, folder / BANK_FILE)
    model = load_model(folder)
    checks = [CheckResult("network and bank are valid", model.bank is not None, model.bank_problem or f"codec {model.network.hash.hex()}")]
    _say(f"writing the graphs of {model.network.profile} into {folder}")
    to_onnx.export_graphs(model.network, folder)
    ground, decoders = build_ground(network_file.parent, folder)
    checks.append(ground)
    macs = onnx_checks.count_macs(folder, *FRAME)
    checks.append(count_check(model.network.profile, macs))
    _say("comparing with the reference codec")
    described = manifest.describe(folder, model.network, model.bank, to_onnx.OPSET, macs)      # of the files before all that reads them below
    arithmetic = arithmetic_checks(model, sample, options.data)
    _say("coding the sample and measuring")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    points, decodes = rate_and_quality(model, picture)
    speed = measure.latency(model, Picture(measure.frame(_colour(picture), *FRAME)), options.runs)
    memory = {**asdict(measure.memory(folder, *FRAME)), "predicted_bytes": onnx_memory.peak_bytes(folder, *FRAME)}
    wrong = [*manifest.differences(folder, described), *manifest.offences(described, folder, model.network, model.bank, decoders)]
    listed = CheckResult("manifest matches the files", not wrong, wrong[0] if wrong else f"{len(described['files'])} files")
    sizes = {name.as_posix(): (folder / name).stat().st_size for name in manifest.model_files(folder)}
    finish(folder, described, (*checks, listed), (*arithmetic, decodes))
    layers = model.network.layers.values()
    return Report(
        model.network.profile, model.network.hash.hex(), str(folder), sum(layer.weight.size + layer.bias.size for layer in layers),
        sizes, macs, FRAME, asdict(speed), memory, load, sample.name, tuple(points), (*checks, *arithmetic, listed, decodes))


def finish(folder: Path, described: dict[str, Any], checks: Sequence[CheckResult], computed: Sequence[CheckResult]) -> None:
    """Write the manifest where all has passed; else there is none, and no graph either where a check of what they compute has failed."""
    from export import manifest
    if all(check.passed for check in (*checks, *computed)):
        manifest.write_manifest(folder, described)
        return
    message = f"{folder}: gets no {manifest.MANIFEST_FILE}, as a check failed"
    if not all(check.passed for check in computed):
        for graph in GRAPHS:
            (folder / f"{graph}.onnx").unlink(missing_ok=True)
        message += "; its graphs are removed"
    print(f"remac: {message}: mend what is named below and build again", file=sys.stderr)


def _colour(picture: Picture) -> Any:
    from remac_runtime.images import to_pixels
    return to_pixels(picture)


def _say(message: str) -> None:
    print(f"{message} ...", file=sys.stderr, flush=True)


def sections(report: Report) -> Sequence[Section]:
    """The table."""
    counts = {layer: count for layers in report.mac_per_pixel.values() for layer, count in layers.items()}
    total, (rows, columns) = sum(counts.values()), report.frame
    stages = [(name, sum(counts[layer] for layer in layers)) for name, layers in STAGES.items()]
    rover = {name: size for name, size in report.disk_bytes.items() if not name.startswith(f"{GROUND_FOLDER}/")}
    time, memory = report.latency, report.memory
    megapixels = rows * columns / 1e6
    return [
        Section(f"{report.profile}, codec {report.codec_hash}, in {report.folder}", [
            ("parameters", f"{report.parameters / 1e6:.2f} M"), ("rover files", f"{sum(rover.values()) / 1e6:.2f} MB"),
            ("all files", f"{sum(report.disk_bytes.values()) / 1e6:.2f} MB")]),
        Section(f"whole encode of {columns}x{rows}: multiply-accumulates per pixel", [
            *((name, f"{count / 1000:.3f} kMAC/px", f"{100 * count / total:.1f} %") for name, count in stages),
            ("total", f"{total / 1000:.3f} kMAC/px", "100.0 %")]),
        Section(f"whole encode of {columns}x{rows}: one thread of this machine, pixels to bytes", [
            (f"latency, {time['engine']}", f"{time['median_ms']:.1f} ms median, {time['min_ms']:.1f} to {time['max_ms']:.1f} of {time['runs']} runs"),
            *([("beware", f"the machine was busy (load {report.load:.1f}): timings are too long")] if report.load > BUSY else []),
            (f"speed, {time['engine']}", f"{1000 * megapixels / time['median_ms']:.1f} MPix/s"),
            ("memory, tensors of g_a and h_a, predicted", f"{memory['predicted_bytes'] / 2**20:.1f} MiB"),
            (f"memory, {memory['engine']}, added by the picture", f"{memory['added_bytes'] / 2**20:.1f} MiB"),
            (f"memory, {memory['engine']}, whole process at its peak", f"{memory['peak_bytes'] / 2**20:.1f} MiB")]),
        Section(f"{report.sample}, beside JPEG 4:2:0 of the same size", [
            ("quality", "bytes", "bpp", "PSNR dB", "JPEG dB"),
            *((str(p.quality), str(p.num_bytes), f"{p.bits_per_pixel:.3f}", _decibel(p.psnr_db), _decibel(p.jpeg_psnr_db)) for p in report.points)]),
        Section("checks", [("pass" if check.passed else "FAIL", check.name, check.detail) for check in report.checks]),
    ]


def _decibel(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--profile", default="rover-m", help="weights/PROFILE is built into build/PROFILE (rover-m)")
    result.add_argument("--out", type=Path, metavar="FOLDER", help="another folder to build into")
    result.add_argument("--network", type=Path, metavar="FILE", help="another integer network file; the ground decoder is looked for beside it")
    result.add_argument("--bank", type=Path, metavar="FILE", help="another reference bank")
    result.add_argument("--sample", type=Path, metavar="PICTURE", help=f"another sample picture, of up to {JPEG_DEPTH} bits a sample")
    result.add_argument("--data", type=Path, metavar="FOLDER", help=f"the Mars pictures (${DATA_VARIABLE} or ../shared/data/mars; not needed)")
    result.add_argument("--runs", type=count, default=9, metavar="N", help="timed encodes (9)")
    result.add_argument("--json", action="store_true", help="print JSON in place of the table")
    return result


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    report = build(options)
    print(json.dumps(plain({**asdict(report), "passed": report.passed}), indent=1) if options.json else render(sections(report)))
    for check in report.checks:
        if not check.passed:
            print(f"remac: check failed: {check.name}: {check.detail}", file=sys.stderr)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
