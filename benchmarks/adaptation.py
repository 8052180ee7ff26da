"""What tables that adapt save: `python -m benchmarks.adaptation` -> benchmarks/results/adaptation.json.

The evaluation pictures are coded with the shipped network and with the same network without its score (FORMAT 6.1), whose tables therefore stay those
of the network's own scales. The latents are the same, so are the pictures; only bytes differ, all of a stream's bytes counted.
"""
from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.datasets import EVALUATION_SETS, evaluation_images
from benchmarks.rd_remac import QUALITIES
from benchmarks.store import RESULTS, write_json
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.images import as_picture
from remac_runtime.model import Model, load_model

EXAMPLES = "examples:\n  python -m benchmarks.adaptation\n  python -m benchmarks.adaptation --out /tmp/adaptation.json\n"


def without_score(model: Model) -> Model:
    """The model with tables that stay where they are."""
    return replace(model, network=replace(model.network, score=np.zeros_like(model.network.score)))


def measure(model: Model, data: str | None) -> dict[str, dict[str, float]]:
    """{set: {quality: mean over its pictures of the bytes with tables that adapt, less those without, as a share of these}}."""
    shares: dict[str, dict[int, list[float]]] = {name: {quality: [] for quality in QUALITIES} for name in EVALUATION_SETS}
    with Encoder(model) as adaptive, Encoder(without_score(model)) as fixed:
        for image in tqdm(evaluation_images(data), unit="picture", disable=None):
            picture = as_picture(image.load())
            for quality in QUALITIES:
                sizes = [len(encoder.encode(picture, EncodeOptions(quality))) for encoder in (adaptive, fixed)]
                shares[image.set_name][quality].append(sizes[0] / sizes[1] - 1)
    return {name: {str(quality): statistics.fmean(values) for quality, values in found.items()} for name, found in shares.items()}


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--out", type=Path, default=RESULTS / "adaptation.json")
    options = parser.parse_args(arguments)
    model = load_model(options.model)
    sets = measure(model, options.data)
    write_json(options.out, {"schema": 1, "codec_hash": model.network.hash.hex(), "sets": sets})
    for name, found in sets.items():
        print(f"{name}: " + ", ".join(f"quality {quality} {100 * change:+.1f} %" for quality, change in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
