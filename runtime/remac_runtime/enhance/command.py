"""What `remac enhance` does, one picture after the other, and the picture that `--map` writes."""
from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.commands import Job, Outcome, plan, read_stream, run_jobs, warn
from remac_runtime.enhance.enhancer import Enhanced, Enhancer
from remac_runtime.enhance.matching import CELL, CLASS_NAMES, CLASS_PIXELS
from remac_runtime.images import Picture, save_picture
from remac_runtime.model import load_model
from remac_runtime.progress import watcher

MAP_SUFFIX = ".map.png"
CLASS_COLOURS = np.array([(230, 190, 90), (150, 90, 50), (110, 110, 120), (120, 180, 230)], np.uint8)     # sand, soil, rock, sky
_SHADE = 0.45           # of the classes' colours over the picture
_GAP, _LINE = 8, 18


def run(options: argparse.Namespace) -> int:
    jobs = plan(options.images, options.output, ".png")
    enhancer = Enhancer(load_model(options.model), options.enhancer, threads=options.threads, tile=options.tile)
    enhancer.watch = watcher("tile")
    return run_jobs(jobs, lambda job: _enhance_one(job, enhancer, options), options, "enhanced")


def _enhance_one(job: Job, enhancer: Enhancer, options: argparse.Namespace) -> Outcome:
    data = read_stream(job.source)
    start = time.perf_counter()
    enhanced = enhancer.enhance_jpeg(data, options.max_pixels)
    seconds = time.perf_counter() - start
    save_picture(enhanced.picture, job.output, enhanced.notes)
    for line in enhanced.warnings:
        warn(f"{job.place}{job.source}: {line}")
    facts: dict[str, Any] = {"enhancer": enhanced.notes["remac-enhancer"], "grey": enhanced.picture.grey, "warnings": list(enhanced.warnings),
                             "seconds": round(seconds, 4)}
    if options.map:
        path = job.output.with_name(job.output.stem + MAP_SUFFIX)
        save_picture(Picture(map_picture(enhanced, enhancer.dictionary.patches)), path, enhanced.notes)
        facts["map"] = str(path)
    return Outcome(job, facts={**facts, "text": f"{enhanced.picture.size}, {facts['enhancer']}, {seconds:.2f} s"})


def map_picture(enhanced: Enhanced, dictionary: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Side by side, uint8[H,W,3]: the classes over the enhanced picture, and the reference that each cell was matched with; a legend below.

    As the picture is coded, before any EXIF orientation. `dictionary`: the raw references uint8[24,128,128,3].
    """
    rows, columns = enhanced.pixels.shape[:2]
    colours = CLASS_COLOURS[enhanced.classes].repeat(CLASS_PIXELS, 0).repeat(CLASS_PIXELS, 1)[:rows, :columns]
    shaded = np.rint((1 - _SHADE) * enhanced.pixels + _SHADE * colours).astype(np.uint8)
    cells = dictionary[enhanced.index]                                                              # [h, w, 128, 128, 3]
    mosaic = cells.swapaxes(1, 2).reshape(cells.shape[0] * CELL, cells.shape[1] * CELL, 3)[:rows, :columns]
    gap = np.full((rows, _GAP, 3), 255, np.uint8)
    panels = np.concatenate([shaded, gap, mosaic], 1)
    return np.concatenate([panels, _legend(panels.shape[1])])


def _legend(width: int) -> NDArray[np.uint8]:
    """A line of text in the classes' colours, which Pillow, without which no JPEG is read, draws."""
    from PIL import Image, ImageDraw
    image = Image.new("RGB", (width, _LINE), "white")
    draw = ImageDraw.Draw(image)
    at = 4
    for name, colour in zip(CLASS_NAMES, CLASS_COLOURS.tolist(), strict=True):
        draw.rectangle((at, 4, at + 9, 13), tuple(colour))
        draw.text((at + 14, 3), name, "black")
        at += 24 + int(draw.textlength(name))
    return np.asarray(image)
