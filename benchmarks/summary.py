"""What the rate-distortion results say: per set and codec, as frozen dataclasses that the report and the JSON are made from.

Means over pictures leave out those where the value does not exist (curves that do not overlap); `measured` counts the rest.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.metrics import RDPoint, bd_rate, bytes_at_psnr
from benchmarks.store import ImageResults, Results, ResultsError

ANCHOR = "jpeg420"
RIVAL = "jpeg2000"            # what flight systems with wavelets would use: pictures on which remac costs more are named
OPERATING_QUALITY = 85        # of the anchor; the usual setting in flight
WORST_NAMED = 5


@dataclass(frozen=True)
class QualityMean:
    """Means over the pictures of a set at one quality setting: bits a pixel and PSNR in dB (lossless pictures left out)."""

    quality: float
    bits_per_pixel: float
    psnr_db: float


@dataclass(frozen=True)
class CodecSummary:
    """One codec on one set. Rates are fractions: -0.4 means 40 % fewer bytes than the anchor.

    bd_rate: by picture, against the anchor; rival_bd_rate: by picture, against JPEG 2000; bytes_at_operating_point: bytes at the
    PSNR of the anchor's quality 85 over the anchor's bytes, mean over the pictures; NaN where there is none.
    """

    measured: int
    bd_rate_mean: float
    bd_rate: Mapping[str, float]
    rival_bd_rate: Mapping[str, float]
    bits_per_pixel_range: tuple[float, float]
    qualities: tuple[QualityMean, ...]
    bytes_at_operating_point: float

    @property
    def worst(self) -> tuple[str, ...]:
        """The pictures with the highest BD-rates, the worst first."""
        known = [key for key, rate in self.bd_rate.items() if not math.isnan(rate)]
        return tuple(sorted(known, key=lambda key: -self.bd_rate[key])[:WORST_NAMED])

    @property
    def costlier_than_rival(self) -> tuple[str, ...]:
        """The pictures that cost more than in JPEG 2000, the worst first."""
        costlier = [key for key, rate in self.rival_bd_rate.items() if rate > 0]
        return tuple(sorted(costlier, key=lambda key: -self.rival_bd_rate[key]))


@dataclass(frozen=True)
class SetSummary:
    """All codecs on one set of pictures."""

    images: int
    codecs: Mapping[str, CodecSummary]


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are finite; NaN of none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def bits_per_pixel(point: RDPoint, image: ImageResults) -> float:
    """Rate in bits a pixel (not a sample)."""
    return 8.0 * point.num_bytes / image.num_pixels


def quality_means(name: str, images: Mapping[str, ImageResults]) -> tuple[QualityMean, ...]:
    """Means at each quality that was measured on every picture."""
    curves = [(image, {point.quality: point for point in image.curves[name]}) for image in images.values()]
    common = set.intersection(*(set(points) for _, points in curves))
    means = [QualityMean(quality, mean(bits_per_pixel(points[quality], image) for image, points in curves),
                         mean(points[quality].psnr_db for _, points in curves)) for quality in common]
    return tuple(sorted(means, key=lambda entry: entry.bits_per_pixel))


def operating_ratio(name: str, image: ImageResults) -> float:
    """Bytes of a codec at the PSNR of the anchor's operating quality, over the anchor's bytes there."""
    for point in image.curves[ANCHOR]:
        if point.quality == OPERATING_QUALITY:
            return bytes_at_psnr(image.curves[name], point.psnr_db) / point.num_bytes
    raise ResultsError(f"the anchor was not measured at quality {OPERATING_QUALITY}")


def summarise_codec(name: str, images: Mapping[str, ImageResults]) -> CodecSummary:
    """A codec over the pictures it was measured on, which the anchor must have been as well."""
    against_anchor = {key: bd_rate(image.curves[ANCHOR], image.curves[name]) for key, image in images.items()}
    against_rival = {key: bd_rate(image.curves[RIVAL], image.curves[name]) for key, image in images.items() if RIVAL in image.curves}
    rates = [bits_per_pixel(point, image) for image in images.values() for point in image.curves[name]]
    return CodecSummary(
        measured=int(np.count_nonzero(np.isfinite(list(against_anchor.values())))),
        bd_rate_mean=mean(against_anchor.values()),
        bd_rate=against_anchor,
        rival_bd_rate=against_rival,
        bits_per_pixel_range=(min(rates), max(rates)),
        qualities=quality_means(name, images),
        bytes_at_operating_point=mean(operating_ratio(name, image) for image in images.values()),
    )


def summarise(results: Results, order: Sequence[str] | None = None) -> dict[str, SetSummary]:
    """Every set of the results by its name; `order` of the codecs, by default as in the file."""
    sets: dict[str, dict[str, ImageResults]] = {}
    for key, image in results.images.items():
        if ANCHOR in image.curves:
            sets.setdefault(key.split("/")[0], {})[key] = image
    if not sets:
        raise ResultsError(f"no picture was measured with the anchor {ANCHOR}")
    summaries = {}
    for set_name, images in sets.items():
        codecs = {}
        for name in order or results.codecs:
            having = {key: image for key, image in images.items() if name in image.curves}
            if having:
                codecs[name] = summarise_codec(name, having)
        summaries[set_name] = SetSummary(len(images), codecs)
    return summaries
