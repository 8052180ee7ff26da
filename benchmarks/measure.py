"""Runs codecs over pictures and keeps the results file up to date: the part that rd_peers and rd_remac share."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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

    encode: uint8[H,W,3] and a value of `qualities` -> the bytes of the file; decode: these bytes -> uint8[H,W,3].
    `settings` says in words how it is run: results measured under other settings are measured again.
    """

    name: str
    settings: str
    qualities: tuple[float, ...]
    encode: Callable[[Picture, float], bytes]
    decode: Callable[[bytes], Picture]


def measure_point(codec: Peer, picture: Picture, quality: float) -> RDPoint:
    """Encode, decode from the bytes alone, compare."""
    coded = codec.encode(picture, quality)
    decoded = codec.decode(coded)
    return RDPoint(quality, len(coded), psnr_db(picture, decoded))


def open_results(path: Path, codecs: Sequence[Peer], versions: dict[str, str]) -> Results:
    """The results so far, without those that this run would measure otherwise.

    Versions belong to the whole file, so a file of other versions is refused rather than mixed.
    """
    results = load(path) if path.exists() else Results()
    for name, version in versions.items():
        if results.versions.get(name, version) != version:
            raise ResultsError(f"{path} was measured with {name} {results.versions[name]}, here is {version}: "
                             f"move it away to measure everything anew")
    results.versions.update(versions)
    for codec in codecs:
        if results.codecs.get(codec.name, codec.settings) != codec.settings:
            results.drop_codec(codec.name)
        results.codecs[codec.name] = codec.settings
    return results


def _finished(curve: Curve | None, codec: Peer) -> bool:
    return curve is not None and tuple(point.quality for point in curve) == codec.qualities


def run(codecs: Sequence[Peer], images: Sequence[EvalImage], path: Path, versions: dict[str, str]) -> Results:
    """Measure every codec on every picture; finished pairs are kept and the file is rewritten after each new one."""
    results = open_results(path, codecs, versions)
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
                if _finished(entry.curves.get(codec.name), codec):
                    progress.update(len(codec.qualities))
                    continue
                points = []
                for quality in codec.qualities:
                    points.append(measure_point(codec, picture, quality))
                    progress.update()
                entry.curves[codec.name] = tuple(points)
                save(path, results)
    return results
