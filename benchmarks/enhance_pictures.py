"""Before and after MarsQE on a sample that may be shipped: `python -m benchmarks.enhance_pictures`.

Writes docs/pictures/enhanced.webp and results/enhance_pictures.json. The sample is coded and enhanced whole; the picture shows a window of
it at 100 %: one row for each setting, with the codec, MarsQE and the original.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.enhance import Setting, open_models, weights_of_marsqe
from benchmarks.enhance_settings import made_by
from benchmarks.metrics import psnr_db
from benchmarks.store import RESULTS, write_json
from remac.coded import HEVC, JPEG, REMAC
from remac_runtime.exits import reported
from remac_runtime.files import replacing

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Path("samples", "spirit_husband_hill_terrain.png")
SHOWN = (Setting(JPEG, 20), Setting(JPEG, 30), Setting(HEVC, 37), Setting(REMAC, 12))
WINDOW = (208, 16, 208, 152)             # left, top, width, height
GAP = 6
PICTURE = Path("docs", "pictures", "enhanced.webp")
WEBP_QUALITY = 75


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance_pictures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "marsqe")
    parser.add_argument("--picture", type=Path, default=ROOT / PICTURE, help=f"file of the picture ({PICTURE})")
    parser.add_argument("--out", type=Path, default=RESULTS / "enhance_pictures.json")
    options = parser.parse_args(arguments)
    mars = open_models(options.weights, options.weights, half=False).mars
    raw = np.asarray(Image.open(ROOT / SAMPLE).convert("RGB"))
    left, top, width, height = WINDOW
    page = np.full((len(SHOWN) * (height + GAP) - GAP, 3 * (width + GAP) - GAP, 3), 255, np.uint8)
    rows: list[dict[str, Any]] = []
    for row, setting in enumerate(SHOWN):
        compressed, tables = setting.apply(raw)
        enhanced = mars(compressed, tables, bound=setting.kind == JPEG)["marsqe"]
        for column, picture in enumerate((compressed, enhanced, raw)):
            y, x = row * (height + GAP), column * (width + GAP)
            page[y:y + height, x:x + width] = picture[top:top + height, left:left + width]
        rows.append({"setting": setting.key, "codec_psnr": round(psnr_db(raw, compressed), 2), "psnr": round(psnr_db(raw, enhanced), 2)})
    with replacing(options.picture) as place:
        Image.fromarray(page).save(place, "WEBP", quality=WEBP_QUALITY, method=6)
    write_json(options.out, {"schema": 1, "codec_hash": made_by()["codec"], "weights": weights_of_marsqe(options.weights),
                             "sample": SAMPLE.as_posix(), "window": list(WINDOW), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
