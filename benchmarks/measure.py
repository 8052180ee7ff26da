"""Runs codecs over pictures and keeps the results file up to date: the part that rd_peers and rd_remac share."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.datasets import EvalImage, pixel_hash
from benchmarks.metrics import RDPoint, psnr_db
from benchmarks.store import Curve, ImageResults, Results, ResultsError, load, save

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Peer:
    """A codec under test.

    encode: `components` of a picture and a value of `qualities` -> the bytes of the file; decode: these bytes -> uint8[H,W,3].
    `settings` says in words how it is run: results measured under other settings are measured again.
    """

    name: str
    settings: str
    qualities: tuple[float, ...]
    encode: Callable[[Picture, float], bytes]
    decode: Callable[[bytes], Picture]


def components(picture: Picture) -> Picture:
    """What an encoder gets of uint8[H,W,3]: one plane uint8[H,W] where the three are equal, as in a grey file."""
    grey = np.array_equal(picture[..., 0], picture[..., 1]) and np.array_equal(picture[..., 0], picture[..., 2])
    return np.ascontiguousarray(picture[..., 0]) if grey else picture


def as_rgb(samples: Picture) -> Picture:
    """uint8[H,W,3] of uint8[H,W], [H,W,1] or [H,W,3]: a grey plane is repeated."""
    planes = samples.reshape(*samples.shape[:2], -1)
    return np.ascontiguousarray(np.broadcast_to(planes, (*planes.shape[:2], 3)))


def measure_point(codec: Peer, picture: Picture, quality: float) -> RDPoint:
    """Encode uint8[H,W,3], decode from the bytes alone, compare."""
    coded = codec.encode(components(picture), quality)
    decoded = codec.decode(coded)
    return RDPoint(quality, len(coded), psnr_db(picture, decoded))


def check_versions(path: Path, measured: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raises ResultsError where a results file was measured with other versions: they belong to the whole file, so it is refused rather than mixed.
    A version that the file does not name is not known to be another one."""
    for name, version in here.items():
        if measured.get(name, version) != version:
            raise ResultsError(f"{path} was measured with {name} {measured[name]}, here is {version}: move it away or name another --out to measure "
                               f"everything anew")


def open_results(path: Path, codecs: Sequence[Peer], versions: dict[str, str], force: bool = False) -> Results:
    """The results so far, without those that this run would measure otherwise. `force`: without any of these codecs."""
    results = load(path) if path.exists() else Results()
    if force:
        for codec in codecs:
            results.drop_codec(codec.name)
        results = results if results.codecs else Results()      # versions and pictures of a file that holds no other codec bind nobody
    check_versions(path, results.versions, versions)
    results.versions.update(versions)
    for codec in codecs:
        if results.codecs.get(codec.name, codec.settings) != codec.settings:
            results.drop_codec(codec.name)
        results.codecs[codec.name] = codec.settings
    return results


def _curve(codec: Peer, picture: Picture, there: Curve, progress: tqdm[Any]) -> Curve:
    known = {point.quality: point for point in there}
    points = []
    for quality in codec.qualities:
        points.append(known.get(quality) or measure_point(codec, picture, quality))
        progress.update()
    return tuple(points)


def run(codecs: Sequence[Peer], images: Sequence[EvalImage], path: Path, versions: dict[str, str], force: bool = False) -> Results:
    """Measure every codec on every picture; points that are there are kept, unless `force`, and the file is rewritten after each curve that gained
    some."""
    results = open_results(path, codecs, versions, force)
    total = len(images) * sum(len(codec.qualities) for codec in codecs)
    with tqdm(total=total, unit="point", smoothing=0.05) as progress:
        for image in images:
            picture = image.load()
            height, width = picture.shape[:2]
            entry = results.images.setdefault(image.key, ImageResults(width, height, pixel_hash(picture)))
            if entry.pixels != pixel_hash(picture):
                raise ResultsError(f"{path} holds another picture named {image.key}: move it away to measure everything anew")
            for codec in codecs:
                progress.set_description(f"{image.key} {codec.name}")
                there = entry.curves.get(codec.name, ())
                entry.curves[codec.name] = _curve(codec, picture, there, progress)
                if entry.curves[codec.name] != there:
                    save(path, results)
    return results
