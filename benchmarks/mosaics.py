"""What coding mosaics saves: `python -m benchmarks.mosaics` -> benchmarks/results/mosaics.json.

Pictures of the evaluation sets in which a mosaic is found (FORMAT 3.1) are coded as their mosaic and as they are; so are pictures of the validation
set that a simulated camera has taken: at half size, which leaves them as sharp as a sensor sees, and plainly interpolated from a mosaic. The
constants of remac_runtime/mosaics.py were chosen on the latter. The ground decoder is the first one, with its filters for mosaics and without.
"""
from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.datasets import EVALUATION_SETS, evaluation_images
from benchmarks.metrics import RDPoint, bd_rate, psnr_db
from benchmarks.rd_remac import QUALITIES, first_decoder
from benchmarks.store import RESULTS, write_json
from remac_runtime import mosaics
from remac_runtime.choices import AUTOMATIC, PATTERNS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.ground import GroundDecoder
from remac_runtime.images import Picture
from remac_runtime.model import load_model

SIMULATED, SIMULATED_PATTERN = "val", 1
FILTERED, UNFILTERED = "filtered", "unfiltered"
EXAMPLES = "examples:\n  python -m benchmarks.mosaics\n  python -m benchmarks.mosaics --out /tmp/mosaics.json\n"


def simulated(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture uint8[H,W,3] at half size, as a camera with a mosaic would have made it."""
    rows, columns = (side // 2 * 2 for side in picture.shape[:2])
    blocks = picture[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, 3).astype(np.uint16)
    return mosaics.interpolated(((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8), SIMULATED_PATTERN)


class Unfiltered(GroundDecoder):
    """A ground decoder without its filters for mosaics."""

    @property
    def filters(self) -> None:
        return None


def saved(picture: NDArray[np.uint8], encoder: Encoder, decoder: Decoder, unfiltered: GroundDecoder) -> dict[str, float]:
    """BD-rates of the mosaic against the picture, as fractions: as it is decoded, and by the same decoder without its filters."""
    def curves(wish: str, *grounds: GroundDecoder) -> list[list[RDPoint]]:
        streams = [encoder.encode(Picture(picture), EncodeOptions(quality, mosaic=wish)) for quality in QUALITIES]
        decoded = [decoder.decode(data) for data in streams]
        return [[RDPoint(quality, len(data), psnr_db(picture, replace(one, ground=ground).picture.samples))
                 for quality, data, one in zip(QUALITIES, streams, decoded, strict=True)] for ground in grounds]

    whole, = curves(PATTERNS[0], decoder.ground)
    mosaic = zip((FILTERED, UNFILTERED), curves(AUTOMATIC, decoder.ground, unfiltered), strict=True)
    return {name: round(bd_rate(whole, curve), 5) for name, curve in mosaic}


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mosaics", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--out", type=Path, default=RESULTS / "mosaics.json")
    options = parser.parse_args(arguments)
    model = load_model(options.model)
    cameras = {image.key: image.load() for image in evaluation_images(options.data, EVALUATION_SETS)}
    cameras = {key: picture for key, picture in cameras.items() if mosaics.found(picture)}
    coloured = {image.key: image.load() for image in evaluation_images(options.data, (SIMULATED,))}
    drawn = {key: simulated(picture) for key, picture in coloured.items() if picture.ndim == 3}
    drawn = {key: picture for key, picture in drawn.items() if mosaics.found(picture)}       # grey in three channels has none
    first = first_decoder(options.model)
    with Encoder(model) as encoder, Decoder(model, ground=GroundDecoder(model, 1, first)) as decoder:
        unfiltered = Unfiltered(model, 1, first)
        changes = [{key: saved(picture, encoder, decoder, unfiltered) for key, picture in tqdm(group.items(), unit="picture", disable=None)}
                   for group in (cameras, drawn)]
    write_json(options.out, {"schema": 2, "codec_hash": model.network.hash.hex(), "found": changes[0], "simulated_from": SIMULATED,
                             "simulated": changes[1]})
    for name, change in changes[0].items():
        print(f"{name}: {100 * change[FILTERED]:+.1f} %, without filters {100 * change[UNFILTERED]:+.1f} %")
    means = [100 * statistics.fmean(change[kind] for change in changes[1].values()) for kind in (FILTERED, UNFILTERED)]
    print(f"{len(changes[1])} simulated pictures: {means[0]:+.1f} %, without filters {means[1]:+.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
