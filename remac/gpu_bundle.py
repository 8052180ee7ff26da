"""Pack what training on another machine needs: `python -m remac.gpu_bundle` (or `make gpu-bundle`).

Writes an ignored folder, `runs/gpu-bundle/`, of less than 50 MiB: the training and validation pictures re-coded as high-quality
WebP, the code, and a checkpoint to start from. There, `python train.py` trains or resumes; the same command again goes on where it stopped.
"""
from __future__ import annotations

import argparse
import importlib.util
import io
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image

from remac.checkpoints import read_checkpoint, save_checkpoint, write_checkpoint
from remac.data import load_picture, picture_paths
from remac.train_marsqe import starting_weights
from remac_runtime.errors import BadInput
from remac_runtime.exits import reported
from remac_runtime.mars import data_folder

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "runs" / "gpu-bundle"
PICTURE_BUDGET = 24 << 20          # with a checkpoint and the checkout itself it must stay below 64 MiB
QUALITIES = (97, 95, 93, 90)       # WebP; the first whose pictures fit the budget is taken
RUNNER = '''"""Train or resume: python train.py [remac.train_codec|remac.train_marsqe] [its arguments]"""
import os, subprocess, sys
here = os.path.dirname(os.path.abspath(__file__))
environment = dict(os.environ, PYTHONPATH=os.pathsep.join([here, os.path.join(here, "runtime")]), REMAC_DATA=os.path.join(here, "data"))
module = sys.argv.pop(1) if sys.argv[1:] and sys.argv[1].startswith("remac.") else "remac.train_codec"
start = ["--start", os.path.join(here, "start.pt")] if os.path.exists(os.path.join(here, "start.pt")) else []
defaults = {"remac.train_codec": ["--stage", "quantised" if start else "float", "--batch", "16"],
            "remac.train_marsqe": ["--batch", "64", "--steps", "8000", "--workers", "14", "--own-camera", "0.5"]}
arguments = sys.argv[1:] or [*defaults[module], "--out", os.path.join(here, "run"), *start]
sys.exit(subprocess.call([sys.executable, "-m", module, *arguments], env=environment))
'''


def recoded(path: Path, quality: int) -> bytes:
    """The picture as lossy WebP."""
    buffer = io.BytesIO()
    Image.fromarray(load_picture(path)).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def pack_pictures(data: Path, out: Path) -> tuple[int, int]:
    """Write train/ and val/ within the budget; returns (quality, bytes)."""
    paths = [path for split in ("train", "val") for path in picture_paths(data / split)]
    for quality in QUALITIES:
        coded = {path: recoded(path, quality) for path in paths}
        total = sum(map(len, coded.values()))
        if total <= PICTURE_BUDGET:
            break
    else:
        raise BadInput(f"the pictures take {total >> 20} MiB even at quality {quality}, more than {PICTURE_BUDGET >> 20}: take some out")
    for path, content in coded.items():
        target = out / path.parent.name / f"{path.stem}.webp"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return quality, total


def slim(checkpoint: Path, out: Path) -> None:
    """A checkpoint to start from: no optimizer, convolutions in half precision."""
    state = read_checkpoint(checkpoint, needed=("model", "rate"))
    model = {name: value.half() if value.ndim == 4 else value for name, value in state["model"].items()}
    write_checkpoint(out, state.get("stage", "float"), state["rate"], model)


def pack_marsqe(weights: Path, start: Path | None, out: Path) -> None:
    """What `remac.train_marsqe` needs besides: the segmenter, the dictionary decoded (here, where the codec is), averaged weights to start from."""
    from remac.matching import DICTIONARY_FILE, load_dictionary
    from remac.segmenter import SEGMENTER_FILE, load_segmenter
    from remac_runtime.enhance.matching import join_dictionary
    target = out / "weights" / "marsqe"
    target.mkdir(parents=True)
    torch.save(load_segmenter(weights).state_dict(), (target / SEGMENTER_FILE).with_suffix(".pt"))
    Image.fromarray(join_dictionary(load_dictionary(weights / DICTIONARY_FILE))).save((target / DICTIONARY_FILE).with_suffix(".png"))
    if start:
        average = starting_weights(start)["average"]
        save_checkpoint(out / "start.pt", {"average": {name: value.half() for name, value in average.items()}})


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.gpu_bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--start", type=Path, help="checkpoint to start from")
    parser.add_argument("--marsqe", action="store_true",
                        help="for remac.train_marsqe instead of the codec; --start is one of its checkpoints, or weights/marsqe")
    options = parser.parse_args(arguments)
    bundle = BUNDLE.with_name(f"{BUNDLE.name}-marsqe") if options.marsqe else BUNDLE
    data = data_folder(options.data)
    if (bundle / "run").exists():
        raise BadInput(f"{bundle / 'run'}: what was trained there would be lost: move it away first")
    if options.start and options.marsqe:        # before the bundle that is there goes
        starting_weights(options.start)
    elif options.start:
        read_checkpoint(options.start, needed=("model", "rate"), mapped=True)
    shutil.rmtree(bundle, ignore_errors=True)
    quality, total = pack_pictures(data, bundle / "data")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "build", "*.egg-info")
    shutil.copytree(ROOT / "remac", bundle / "remac", ignore=ignored)
    shutil.copytree(ROOT / "runtime" / "remac_runtime", bundle / "runtime" / "remac_runtime", ignore=ignored)
    compressai = importlib.util.find_spec("compressai")
    assert compressai and compressai.origin      # remac.compressai_import needs it here as well
    shutil.copytree(Path(compressai.origin).parent, bundle / "compressai", ignore=ignored)
    if options.marsqe:
        pack_marsqe(ROOT / "weights" / "marsqe", options.start, bundle)
    elif options.start:
        slim(options.start, bundle / "start.pt")
    (bundle / "train.py").write_text(RUNNER)
    module = " remac.train_marsqe" if options.marsqe else ""
    print(f"{bundle.relative_to(ROOT)}: pictures as WebP quality {quality}, {total / 2 ** 20:.1f} MiB; run `python train.py{module}` in it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
