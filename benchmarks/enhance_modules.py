"""What TEM, TFM and the references bring when trained with and without them (the paper's Table V, networks C and D), at JPEG quality 30.

`python -m benchmarks.enhance_modules --runs runs/modules` measures three runs of MarsQE-lite, each of the same steps from the start:

  python -m remac.train_marsqe --model marsqe-lite  --out runs/modules/fused --parts 2 0 --steps 800
  python -m remac.train_marsqe --model marsqe-added --out runs/modules/added --parts 2 0 --steps 800
  python -m remac.train_marsqe --model marsqe-added --out runs/modules/plain --parts 2 2 --steps 800
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.datasets import EvalImage, evaluation_images
from benchmarks.enhance import ABLATED, ABLATED_SET, training_of
from benchmarks.enhance_models import Mars, averaged
from benchmarks.metrics import psnr_db
from benchmarks.store import RESULTS, write_json
from remac.marsqe import MarsQE
from remac_runtime.exits import reported

NETWORKS = ("fused", "added", "plain")


def gains(run: Path, weights: Path, images: tuple[EvalImage, ...]) -> list[float]:
    """Gain in PSNR over JPEG of each picture, dB."""
    model = averaged(run)
    assert isinstance(model, MarsQE)
    mars = Mars(weights, half=True, model=model, post=False)
    ablation = "no-reference" if run.name == "plain" else ""
    result = []
    for image in tqdm(images, desc=run.name, leave=False):
        raw = image.load()
        compressed, tables = ABLATED.apply(raw)
        enhanced = mars(compressed, tables, ablation)["marsqe-lite"]
        result.append(psnr_db(raw, enhanced) - psnr_db(raw, compressed))
    return result


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance_modules", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights/marsqe"), help="folder of the segmenter and the references")
    parser.add_argument("--runs", type=Path, default=Path("runs/modules"), help=f"folder of the runs {', '.join(NETWORKS)}")
    parser.add_argument("--out", type=Path, default=RESULTS / "enhance_modules.json")
    options = parser.parse_args(arguments)
    missing = [name for name in NETWORKS if not (options.runs / name / "checkpoint.pt").exists()]
    if missing:
        print(f"remac: no run {options.runs / missing[0]}: train it as --help says", file=sys.stderr)
        return 1
    images = evaluation_images(options.data, (ABLATED_SET,))
    training = {name: training_of(options.runs / name) for name in NETWORKS}
    patches = {record["patches"] for record in training.values()}
    if len(patches) > 1:
        print(f"remac: the runs saw {sorted(patches)} patches: train all with the same --steps and --batch", file=sys.stderr)
        return 1
    networks: dict[str, Any] = {}
    for name in NETWORKS:
        found = gains(options.runs / name, options.weights, images)
        networks[name] = {"gain": float(np.mean(found)), "steps": training[name]["steps"]}
    write_json(options.out, {"schema": 1, "pictures": len(images), "patches": patches.pop(), "networks": networks})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
