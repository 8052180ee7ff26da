"""The results files of the rate-distortion benchmark: one JSON structure for the peers and for remac.

    {"schema": 1,
     "environment": {"versions": {"pillow": "...", ...}, "codecs": {"jpeg420": "how it was run", ...}},
     "images": {"test/NAME": {"width": 1152, "height": 880, "pixels": "hash",
                              "curves": {"jpeg420": [{"quality": 5, "bytes": 9123, "psnr": 24.87}, ...]}}}}

A `psnr` of null stands for a lossless decode.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.metrics import RDPoint
from remac_runtime import files
from remac_runtime.errors import RemacError

SCHEMA = 1
RESULTS = Path(__file__).resolve().parent / "results"
PSNR_DIGITS = 4          # of the file; 0.0001 dB is below what the choice of a decoder's rounding does

Curve = tuple[RDPoint, ...]


class ResultsError(RemacError):
    """A results file that cannot be used as asked."""


@dataclass
class ImageResults:
    """The curves of one picture; width and height in pixels, `pixels` the hash of its samples."""

    width: int
    height: int
    pixels: str
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def num_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


@dataclass
class Results:
    """A results file in memory: `versions` of the libraries, `codecs` how each was run, `images` by "set/name"."""

    versions: dict[str, str] = field(default_factory=dict)
    codecs: dict[str, str] = field(default_factory=dict)
    images: dict[str, ImageResults] = field(default_factory=dict)

    def drop_codec(self, name: str) -> None:
        """Forget all curves of a codec, as when it is now run otherwise."""
        self.codecs.pop(name, None)
        for image in self.images.values():
            image.curves.pop(name, None)


def _point_to_json(point: RDPoint) -> dict[str, float | int | None]:
    psnr = round(point.psnr_db, PSNR_DIGITS) if math.isfinite(point.psnr_db) else None
    return {"quality": point.quality, "bytes": int(point.num_bytes), "psnr": psnr}


def _point_from_json(entry: dict[str, Any]) -> RDPoint:
    return RDPoint(entry["quality"], entry["bytes"], math.inf if entry["psnr"] is None else float(entry["psnr"]))


def _image_to_json(image: ImageResults) -> dict[str, Any]:
    curves = {name: [_point_to_json(point) for point in curve] for name, curve in sorted(image.curves.items())}
    return {"width": image.width, "height": image.height, "pixels": image.pixels, "curves": curves}


def _image_from_json(entry: dict[str, Any]) -> ImageResults:
    curves = {name: tuple(_point_from_json(point) for point in curve) for name, curve in entry["curves"].items()}
    return ImageResults(entry["width"], entry["height"], entry["pixels"], curves)


def load(path: Path) -> Results:
    """Read a results file; ResultsError with one line where it is absent or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path}: no such results file") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ResultsError(f"{path}: not a results file of schema {SCHEMA}")
    environment = content["environment"]
    images = {key: _image_from_json(entry) for key, entry in content["images"].items()}
    return Results(environment["versions"], environment["codecs"], images)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a results file, so that a run that is cut off leaves the old or the new one; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, content)


def save(path: Path, results: Results) -> None:
    """Write a results file atomically, its entries in a fixed order."""
    environment = {"versions": dict(sorted(results.versions.items())), "codecs": dict(sorted(results.codecs.items()))}
    images = {key: _image_to_json(image) for key, image in sorted(results.images.items())}
    write_json(path, {"schema": SCHEMA, "environment": environment, "images": images})


def merge(parts: Iterable[Results]) -> Results:
    """One set of results from several; ResultsError where they hold other pictures of one name or the same codec twice."""
    merged = Results()
    for part in parts:
        twice = merged.codecs.keys() & part.codecs.keys()
        if twice:
            raise ResultsError(f"codec '{min(twice)}' is in two results files")
        merged.versions.update(part.versions)
        merged.codecs.update(part.codecs)
        for key, image in part.images.items():
            known = merged.images.setdefault(key, ImageResults(image.width, image.height, image.pixels))
            if known.pixels != image.pixels:
                raise ResultsError(f"{key}: the results files measured different pictures of this name")
            known.curves.update(image.curves)
    return merged
