"""What the integers cost: `python -m calibration.float_gap` codes the evaluation pictures with the shipped weights in float and in integers.

Both modes share every weight (float mode adds back what rounding took off), the ground decoder and the estimate of the bits by the training
likelihoods; the real bytes of the integer codec are in the rate-distortion results. Writes estimated curves in their structure.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calibration.integer_network import unfolded
from remac.codec import Codec
from remac.config import PROFILES
from remac.data import DataMissing, data_folder, load_picture, picture_paths
from remac.integer import set_integer
from remac.weights import load_codec
from remac_runtime.format import BAND_ROWS, PAD_MULTIPLE
from remac_runtime.network import read_network

ROOT = Path(__file__).resolve().parents[1]
QUALITIES = (0, 9, 18, 27, 36, 45, 54, 63)
SETS = {"test": "test", "frames": "frames/test"}


def shipped_codec(weights: Path) -> Codec:
    """The codec of a weights folder in evaluation mode, with its float weights."""
    network = read_network(weights / "network.rmn")
    return load_codec(weights, unfolded(Codec(PROFILES[network.profile]), network)).eval()


def padded(x: Tensor) -> Tensor:
    """float[1,3,H,W] with the last row and column repeated: H to a multiple of the band height, so that all bands are alike, W to PAD_MULTIPLE."""
    return torch.nn.functional.pad(x, (0, -x.shape[3] % PAD_MULTIPLE, 0, -x.shape[2] % BAND_ROWS), "replicate")


@torch.no_grad()
def curve(codec: Codec, path: Path, integer: bool) -> list[dict[str, float]]:
    """Estimated bytes and PSNR at each quality."""
    set_integer(codec, integer)
    picture = torch.from_numpy(load_picture(path).copy()).permute(2, 0, 1)[None].float()
    x = padded(picture)
    points = []
    for quality in QUALITIES:
        coded = codec(x, torch.tensor([quality]), False, bands=x.shape[2] // BAND_ROWS)
        error = (coded.x_hat[:, :, :picture.shape[2], :picture.shape[3]].clamp(0, 255).round() - picture).square().mean().item()
        num_bytes = math.ceil((coded.bits_y + coded.bits_z).item() / 8)
        points.append({"quality": quality, "bytes": num_bytes, "psnr": round(10 * math.log10(255 ** 2 / error), 4)})
    return points


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration.float_gap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "rover-m")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "rd_float.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images: dict[str, Any] = {}
    try:
        codec = shipped_codec(options.weights)
        for name, folder in SETS.items():
            for path in picture_paths(data_folder(options.data) / folder):
                print(f"{name}/{path.stem}", file=sys.stderr)
                height, width = load_picture(path).shape[:2]
                curves = {"remac-m-float": curve(codec, path, False), "remac-m-integer-estimate": curve(codec, path, True)}
                images[f"{name}/{path.stem}"] = {"width": width, "height": height, "curves": curves}
    except DataMissing as error:
        print(f"remac: {error}", file=sys.stderr)
        return 2
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(json.dumps({"schema": 1, "images": images}, indent=1) + "\n")
    os.replace(temporary, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
