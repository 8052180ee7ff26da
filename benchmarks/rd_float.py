"""What the integers cost: `python -m benchmarks.rd_float` codes the evaluation pictures with the shipped weights in float and in integers.

Float mode computes in real numbers what the integers compute: what rounding took off the weights is added back, activations are not rounded, but the
limits of both stay, since saturation is part of what was trained. Both modes share the quantiser with its dead zone, the 8-bit planes of decoded
neighbours, the ground decoder and the estimate of the bits by the training likelihoods, without headers. Pictures are padded to whole bands, hence
bands of 128 rows: taller ones would pad more. The real bytes of the integer codec, in such bands, are in rd_remac.json.
"""
from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.datasets import evaluation_images, pixel_hash
from benchmarks.metrics import RDPoint, bd_rate, psnr_db
from benchmarks.rd_remac import QUALITIES, VARIANTS
from benchmarks.store import RESULTS, ImageResults, Results, load, save, write_json
from benchmarks.summary import mean
from remac_runtime import mosaic_filters, mosaics
from remac_runtime.exits import reported

ROOT = Path(__file__).resolve().parents[1]
VARIANT = "bands128"
OURS, FLOAT, INTEGER = f"remac-m-{VARIANT}", "remac-m-float", "remac-m-estimate"       # all decoded by the first ground decoder
GAP_FILE = "float_gap.json"


class TrainingCodec:
    """The PyTorch codec of a weights folder, in either mode."""

    def __init__(self, weights: Path) -> None:
        from calibration.integer_network import shipped_codec
        from remac_runtime.network import read_network
        self.codec = shipped_codec(weights)
        self.codec_hash = read_network(weights / "network.rmn").hash.hex()
        self.filters = mosaic_filters.read(weights, self.codec_hash)

    def points(self, picture: Any, integer: bool) -> tuple[RDPoint, ...]:
        """Estimated bytes and PSNR of uint8[H,W,3] at each quality."""
        import torch

        from remac.integer import set_integer
        from remac_runtime.format import PAD_MULTIPLE
        set_integer(self.codec, rounded=integer)
        height, width = picture.shape[:2]
        band_rows = VARIANTS[VARIANT]["band_rows"]
        pattern = mosaics.found(picture)
        x = torch.from_numpy(mosaics.sharpened(picture, pattern).copy()).permute(2, 0, 1)[None].float()
        x = torch.nn.functional.pad(x, (0, -width % PAD_MULTIPLE, 0, -height % band_rows), "replicate")
        points = []
        for quality in QUALITIES:
            with torch.no_grad():
                coded = self.codec(x, torch.tensor([quality]), False, bands=x.shape[2] // band_rows)
            decoded = coded.x_hat[0, :, :height, :width].clamp(0, 255).round().permute(1, 2, 0).byte().numpy()
            shown = mosaic_filters.shown(decoded, pattern, quality, self.filters)
            points.append(RDPoint(quality, math.ceil((coded.bits_y + coded.bits_z).item() / 8),
                                  psnr_db(picture, shown)))
        return tuple(points)


def gap(results: Results, codec_hash: str, real: Path) -> dict[str, Any]:
    """Mean BD-rate against float mode, by set: of integer mode by the same estimate, and of the real bytes, headers included, where measured."""
    measured = load(real).images if real.exists() else {}
    sets: dict[str, dict[str, float | None]] = {}
    for name in sorted({key.split("/")[0] for key in results.images}):
        curves = {key: image.curves for key, image in results.images.items() if key.startswith(f"{name}/")}
        estimate = mean(bd_rate(c[FLOAT], c[INTEGER]) for c in curves.values())
        complete = all(OURS in measured[key].curves for key in curves) if curves.keys() <= measured.keys() else False
        bytes_real = mean(bd_rate(c[FLOAT], measured[key].curves[OURS]) for key, c in curves.items()) if complete else None
        sets[name] = {"integer_estimate": round(estimate, 5), "real_bytes": None if bytes_real is None else round(bytes_real, 5)}
    return {"schema": 1, "codec_hash": codec_hash, "sets": sets}


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rd_float", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "rover-m")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--out", type=Path, default=RESULTS / "rd_float.json")
    options = parser.parse_args(arguments)
    images = evaluation_images(options.data)
    codec = TrainingCodec(options.weights)
    results = Results({}, {FLOAT: "float mode, estimated bits", INTEGER: "integer mode, estimated bits"})
    for image in tqdm(images, unit="picture"):
        picture = image.load()
        curves = {FLOAT: codec.points(picture, False), INTEGER: codec.points(picture, True)}
        results.images[image.key] = ImageResults(picture.shape[1], picture.shape[0], pixel_hash(picture), curves)
    save(options.out, results)
    write_json(options.out.with_name(GAP_FILE), gap(results, codec.codec_hash, options.out.with_name("rd_remac.json")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
