"""The worked example of the README: `python -m benchmarks.example` writes results/example.json and docs/pictures/.

The commands below are really run, in a scratch folder that holds `samples` and `build` as links, and their output is kept as it is printed. The
pictures are made of a NASA picture in samples/, with the same stream as the commands and the best JPEG that is not larger.
"""
from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.metrics import psnr_db
from benchmarks.peers import JPEG_QUALITIES, jpeg
from benchmarks.store import RESULTS, write_json
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.files import replacing

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SAMPLE = "samples/spirit_husband_hill_summit.png"
STREAM, DECODED = "summit.rmc", "summit.png"
BUDGET_BYTES, RECEIVED_BYTES = 24_000, 16_000
OPTIONS = f"--target-bytes {BUDGET_BYTES} --band-rows 128"
CROP = (1160, 138, 272, 208)              # of the comparison: left, top, width, height
OVERVIEW_SHRINK = 2                       # of the decoded picture and of the heat map below it
OVERVIEW_WEBP_QUALITY = 82
GAP_PIXELS, BACKGROUND = 6, 255


@dataclass(frozen=True)
class Command:
    """A line of the example. `integers`: its output is made by integer arithmetic alone, so it is the same on every machine, but for the seconds."""

    line: str
    integers: bool
    remark: str


COMMANDS = (
    Command(f"remac encode {SAMPLE} -o {STREAM} {OPTIONS}", True,
            "The best quality that fits a byte budget, in low bands for a link that loses packets."),
    Command(f"remac info {STREAM}", True, "What the stream holds; each packet carries enough to be decoded on its own."),
    Command(f"remac encode {SAMPLE} -o other.rmc {OPTIONS} --backend numpy", True, "Another engine, no ONNX Runtime ..."),
    Command(f"remac compare {STREAM} other.rmc", True, "... and the same bytes."),
    Command(f"remac decode {STREAM} -o {DECODED}", False, "On the ground, pixels again."),
    Command(f"remac compare {SAMPLE} {DECODED}", False, "What the coding cost (exit code 4: different)."),
    Command(f"head -c {RECEIVED_BYTES} {STREAM} > part.rmc; remac decode part.rmc -o part.png", False,
            "The link breaks off: what arrived is decoded, the rest concealed and reported (exit code 3)."),
    Command(f"remac view {STREAM} -o summit.html", False, "A page with the decoded picture, the bits of each block, bands and references."),
)


@dataclass(frozen=True)
class Step:
    """A command that was run: what it printed on both outputs, and its exit code."""

    command: str
    output: str
    exit_code: int


@contextmanager
def workplace(model: Path) -> Iterator[Path]:
    """A scratch folder with samples/, build/rover-m/ and a command `remac` that runs this checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "samples").symlink_to(ROOT / "samples")
        (folder / "build").mkdir()
        (folder / "build" / "rover-m").symlink_to(model.resolve())
        (folder / "bin").mkdir()
        command = folder / "bin" / "remac"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m remac_runtime "$@"\n')
        command.chmod(0o755)
        yield folder


def environment(folder: Path) -> dict[str, str]:
    """Variables with which a shell in a workplace finds the command, the checkout and no other model."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REMAC_")}
    return {**kept, "PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT / "runtime"), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def run_command(line: str, folder: Path) -> Step:
    """Run a line in a shell in the workplace."""
    done = subprocess.run(line, shell=True, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    return Step(line, done.stdout.rstrip("\n"), done.returncode)


# ---- the pictures

def best_jpeg(picture: NDArray[np.uint8], budget: int) -> tuple[int, bytes]:
    """Quality and bytes of the largest optimised 4:2:0 JPEG within the budget, by bisection. RemacError where none fits."""
    codec, best, low, high = jpeg("4:2:0"), None, 1, JPEG_QUALITIES[-1]
    while low <= high:
        quality = (low + high) // 2
        coded = codec.encode(picture, quality)
        if len(coded) <= budget:
            best, low = (quality, coded), quality + 1
        else:
            high = quality - 1
    if best is None:
        raise RemacError(f"no JPEG of the sample fits {budget} bytes: raise BUDGET_BYTES")
    return best


def save_crops(folder: Path, pictures: dict[str, NDArray[np.uint8]]) -> None:
    """The same window of each picture, without loss."""
    left, top, width, height = CROP
    for name, pixels in pictures.items():
        with replacing(folder / f"{name}.png") as place:
            Image.fromarray(np.ascontiguousarray(pixels[top:top + height, left:left + width])).save(place, "PNG", optimize=True)


def save_overview(folder: Path, decoded: NDArray[np.uint8], blocks: NDArray[np.uint8]) -> None:
    """Decoded picture above the colours of its 16x16 blocks uint8[h16,w16,3], both shrunk."""
    height, width = decoded.shape[0] // OVERVIEW_SHRINK, decoded.shape[1] // OVERVIEW_SHRINK
    heat = blocks.repeat(16, 0).repeat(16, 1)[:decoded.shape[0], :decoded.shape[1]]
    canvas = Image.new("RGB", (width, 2 * height + GAP_PIXELS), (BACKGROUND,) * 3)
    canvas.paste(Image.fromarray(decoded).resize((width, height), Image.Resampling.LANCZOS))
    canvas.paste(Image.fromarray(heat).resize((width, height), Image.Resampling.NEAREST), (0, height + GAP_PIXELS))
    with replacing(folder / "overview.webp") as place:
        canvas.save(place, "WEBP", quality=OVERVIEW_WEBP_QUALITY, method=6)


def compare_codecs(place: Path, model: Path, pictures: Path) -> dict[str, Any]:
    """Makes the pictures of the stream that the commands left, and says what each codec took and reached."""
    from remac_runtime.codec import Decoder
    from remac_runtime.images import load_picture
    from remac_runtime.model import load_model
    from remac_runtime.view import heat_map
    original, data = load_picture(ROOT / SAMPLE).samples, (place / STREAM).read_bytes()
    with Decoder(load_model(model)) as decoder:
        decoded = decoder.decode(data, strict=True)
        pixels, heat = decoded.picture.samples, heat_map(decoded.bits)
    quality, coded = best_jpeg(original, len(data))
    rival = jpeg("4:2:0").decode(coded)
    pictures.mkdir(parents=True, exist_ok=True)
    save_crops(pictures, {"original": original, "remac": pixels, "jpeg": rival})
    save_overview(pictures, pixels, heat.colours)
    return {"size": [original.shape[1], original.shape[0]], "crop": list(CROP), "heat_top_bpp": round(heat.top, 2),
            "remac": {"bytes": len(data), "quality": decoded.header.quality, "psnr": round(psnr_db(original, pixels), 2)},
            "jpeg": {"bytes": len(coded), "quality": quality, "psnr": round(psnr_db(original, rival), 2)}}


def make(model: Path, pictures: Path) -> dict[str, Any]:
    """Everything, as example.json holds it. RemacError where the stream cannot be made."""
    from remac_runtime import __version__
    from remac_runtime.model import load_model
    codec_hash = load_model(model).network.hash.hex()
    with workplace(model) as place:
        steps = [run_command(command.line, place) for command in COMMANDS]
        if steps[0].exit_code:
            raise RemacError(f"`{steps[0].command}` failed: {steps[0].output}")
        comparison = compare_codecs(place, model, pictures)
    versions = {"remac-runtime": __version__, "numpy": np.__version__, "pillow": Image.__version__}
    return {"schema": 1, "codec_hash": codec_hash, "environment": {"versions": versions}, "picture": SAMPLE,
            "steps": [asdict(step) for step in steps], "comparison": comparison}


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Write example.json and the pictures; 1 with one line on standard error where it cannot."""
    from remac_runtime.model import model_folder
    parser = argparse.ArgumentParser(prog="python -m benchmarks.example", description="Run the worked example of the README and make its pictures.")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the model; by default the one that remac-runtime finds itself")
    parser.add_argument("--out", type=Path, default=RESULTS / "example.json", metavar="FILE")
    parser.add_argument("--pictures", type=Path, default=PICTURES, metavar="FOLDER")
    options = parser.parse_args(arguments)
    write_json(options.out, make(model_folder(options.model), options.pictures))
    total = sum(path.stat().st_size for path in options.pictures.iterdir())
    print(f"{options.out}; {options.pictures}: {total / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
