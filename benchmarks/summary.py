"""What the rate-distortion results say: per set and codec, as frozen dataclasses that the report and the JSON are made from.

A mean over pictures exists where all of them have the value: one over some of them would be compared with others over all.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.datasets import FOLDERS
from benchmarks.metrics import RDPoint, bd_rate, bytes_at_psnr, front
from benchmarks.store import ImageResults, Results, ResultsError

ANCHOR = "jpeg420"
# BD-rates against the anchor are taken between these of its qualities. Below 8, JPEG falls apart. Above 90 it is not to be trusted
# on these pictures: six of them (test: sols 349, 713, 739, 1035, 1196; frames: Navcam of sol 731) still lie on the block grid of a
# JPEG q95 that they went through before publication, which JPEG 4:4:4 at q95 returns at 49 to 61 dB, 7 to 24 dB above q90. What
# happens at higher rates shows in the comparison of the other codecs with each other, which knows no limits.
# The range was chosen after results had been seen, and results depend on it: OTHER_ANCHOR_QUALITIES are reported beside it.
ANCHOR_QUALITIES = (8, 90)
OTHER_ANCHOR_QUALITIES = ((5, 98), (8, 95), (26, 90))
RIVAL = "jpeg2000"            # wavelets are the other choice in flight: pictures on which remac costs more are named
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

    complete: whether every picture of the set has a BD-rate; covered: the share of the BD-rate's PSNR interval that the codec reaches, mean over
    the pictures; bd_rate: by picture, against the anchor; against: by other codec, then by picture, each pair over the interval it shares;
    bytes_at_operating_point: bytes at the PSNR of the anchor's quality 85 over the anchor's bytes, mean over the pictures;
    psnr_range: means over the pictures of the lowest and the highest PSNR in dB. NaN where one of the pictures has none.
    """

    measured: int
    complete: bool
    covered: float
    bd_rate_mean: float
    bd_rate: Mapping[str, float]
    against: Mapping[str, Mapping[str, float]]
    bits_per_pixel_range: tuple[float, float]
    psnr_range: tuple[float, float]
    qualities: tuple[QualityMean, ...]
    bytes_at_operating_point: float

    @property
    def rival_bd_rate(self) -> Mapping[str, float]:
        """By picture, against JPEG 2000."""
        return self.against.get(RIVAL, {})

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
    """Mean of the values; NaN of none, and where one of them is not finite."""
    known = list(values)
    return math.fsum(known) / len(known) if known and all(map(math.isfinite, known)) else math.nan


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


def _limits(image: ImageResults, qualities: tuple[int, int]) -> tuple[float, float]:
    """PSNRs in dB of the anchor at two of its qualities; NaN where it was not measured there."""
    at = {point.quality: point.psnr_db for point in image.curves[ANCHOR]}
    return at.get(qualities[0], math.nan), at.get(qualities[1], math.nan)


def anchor_bd_rate(name: str, image: ImageResults, qualities: tuple[int, int] = ANCHOR_QUALITIES) -> float:
    """BD-rate against the anchor, between the PSNRs of two of its qualities; NaN where it was not measured at them."""
    within = _limits(image, qualities)
    return bd_rate(image.curves[ANCHOR], image.curves[name], within) if all(map(math.isfinite, within)) else math.nan


def covered(name: str, image: ImageResults, qualities: tuple[int, int] = ANCHOR_QUALITIES) -> float:
    """Which share of the interval of `anchor_bd_rate` a codec reaches, 0..1: over the rest its BD-rate says nothing."""
    low, high = _limits(image, qualities)
    reached = front(image.curves[name]).psnr_db
    return max(0.0, min(high, reached[-1]) - max(low, reached[0])) / (high - low) if len(reached) else 0.0


def ranges(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Mean BD-rates by set, range of the anchor's qualities ("8-90") and codec."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for set_name in sorted({key.split("/")[0] for key in results.images}):
        images = [image for key, image in results.images.items() if key.startswith(f"{set_name}/") and ANCHOR in image.curves]
        common = set.intersection(*(set(image.curves) for image in images)) if images else set()
        found[set_name] = {f"{low}-{high}": {name: mean(anchor_bd_rate(name, image, (low, high)) for image in images) for name in sorted(common)}
                           for low, high in (ANCHOR_QUALITIES, *OTHER_ANCHOR_QUALITIES)}
    return found


def pairwise(name: str, other: str, images: Mapping[str, ImageResults]) -> dict[str, float]:
    """BD-rates of a codec against another one, by picture, over their whole curves."""
    return {key: bd_rate(image.curves[other], image.curves[name]) for key, image in images.items() if other in image.curves}


def summarise_codec(name: str, images: Mapping[str, ImageResults], others: Sequence[str], of: int) -> CodecSummary:
    """A codec over the pictures it was measured on, which the anchor must have been as well; `of` so many in the set."""
    against_anchor = {key: anchor_bd_rate(name, image) for key, image in images.items()}
    curves = [(image, image.curves[name]) for image in images.values()]
    rates = [bits_per_pixel(point, image) for image, curve in curves for point in curve]
    measured = sum(map(math.isfinite, against_anchor.values()))
    return CodecSummary(
        measured=measured,
        complete=measured == of,
        covered=mean(covered(name, image) for image in images.values()),
        bd_rate_mean=mean(against_anchor.values()),
        bd_rate=against_anchor,
        against={other: pairwise(name, other, images) for other in others if other not in (name, ANCHOR)},
        bits_per_pixel_range=(min(rates), max(rates)),
        psnr_range=(mean(min(p.psnr_db for p in curve) for _, curve in curves), mean(max(p.psnr_db for p in curve) for _, curve in curves)),
        qualities=quality_means(name, images),
        bytes_at_operating_point=mean(operating_ratio(name, image) for image in images.values()),
    )


def summarise(results: Results, order: Sequence[str] | None = None) -> dict[str, SetSummary]:
    """Every set of the results by its name, in the order of datasets.FOLDERS; `order` of the codecs, by default as in the file."""
    summaries = {}
    for set_name in FOLDERS:
        images = {key: image for key, image in results.images.items() if key.startswith(f"{set_name}/") and ANCHOR in image.curves}
        having = {name: {key: image for key, image in images.items() if name in image.curves} for name in order or results.codecs}
        codecs = {name: summarise_codec(name, measured, list(having), len(images)) for name, measured in having.items() if measured}
        if codecs:
            summaries[set_name] = SetSummary(len(images), codecs)
    if not summaries:
        raise ResultsError(f"no picture was measured with the anchor {ANCHOR}")
    return summaries
