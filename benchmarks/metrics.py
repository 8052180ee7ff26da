"""PSNR and Bjontegaard deltas of rate and PSNR.

BD-rate is the mean difference of log rate between two curves over the PSNR interval they share, as a rate factor minus one:
-0.4 means 40 % fewer bytes at equal PSNR. Each curve is interpolated by PCHIP (log rate as a function of PSNR), which passes
through the measured points and does not overshoot between them; the fit of one cubic to all points, which is older, does both.
It is computed per image and then averaged: averaging the curves first flatters codecs that hold the rate rather than the quality.

The package `bjontegaard` computes the same number (a test compares them). It is not used here because it needs sorted, strictly
monotone curves, imports pyplot, and answers with a number where one of the curves has no measured point in the shared interval.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

PEAK = 255.0          # of 8-bit samples
MIN_POINTS = 2        # fewer measured points of a curve inside the shared interval are no measurement


@dataclass(frozen=True)
class RDPoint:
    """One coded picture: the codec's own quality setting, bytes of the file, PSNR in dB (inf where lossless)."""

    quality: float
    num_bytes: float
    psnr_db: float


@dataclass(frozen=True)
class Front:
    """The useful points of a curve, both arrays strictly increasing: PSNR in dB, natural logarithm of the bytes."""

    psnr_db: NDArray[np.float64]
    log_bytes: NDArray[np.float64]

    def inside(self, low_db: float, high_db: float) -> int:
        """How many points lie in the closed interval."""
        return int(np.count_nonzero((self.psnr_db >= low_db) & (self.psnr_db <= high_db)))

    def interpolator(self) -> PchipInterpolator:
        """Log bytes as a function of PSNR; needs two points."""
        return PchipInterpolator(self.psnr_db, self.log_bytes, extrapolate=False)


def psnr_db(reference: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """PSNR in dB of two uint8[H,W,3] pictures, the squared error averaged over all samples in float64; inf where they are equal."""
    if reference.dtype != np.uint8 or decoded.dtype != np.uint8:
        raise TypeError(f"PSNR is defined here for uint8 samples, found {reference.dtype} and {decoded.dtype}")
    if reference.shape != decoded.shape:
        raise ValueError(f"PSNR of pictures of different shapes, {reference.shape} and {decoded.shape}")
    if reference.size == 0:
        raise ValueError("PSNR of an empty picture")
    error = np.subtract(reference, decoded, dtype=np.float64)
    mse = float(np.mean(np.square(error, out=error)))
    return math.inf if mse == 0.0 else 10.0 * math.log10(PEAK * PEAK / mse)


def front(curve: Sequence[RDPoint]) -> Front:
    """The points that no other point of the curve beats: walking down from the highest PSNR, those that are smaller than all before.

    Real curves are not always monotone (a finer quantiser that costs less, a rate that is capped). This keeps a point exactly if
    no other reaches its PSNR with its bytes or fewer, so that PSNR and rate both increase strictly. It is not the convex hull:
    points above the line between their neighbours stay. Lossless points (PSNR inf) cannot be interpolated and are left out.
    """
    kept: list[RDPoint] = []
    for point in sorted(curve, key=lambda p: (-p.psnr_db, p.num_bytes)):
        if math.isfinite(point.psnr_db) and (not kept or point.num_bytes < kept[-1].num_bytes):
            kept.append(point)
    kept.reverse()
    return Front(np.array([p.psnr_db for p in kept], dtype=np.float64), np.log(np.array([p.num_bytes for p in kept], dtype=np.float64)))


def bd_rate(anchor: Sequence[RDPoint], test: Sequence[RDPoint], within_db: tuple[float, float] = (-math.inf, math.inf)) -> float:
    """BD-rate of `test` against `anchor` as a fraction (-0.4: 40 % fewer bytes), over the part of `within_db` that both cover.

    NaN where the intervals do not overlap or one of the curves has fewer than two points in the overlap; `within_db` only cuts
    what is averaged. The order of the points does not matter.
    """
    a, t = front(anchor), front(test)
    if min(a.psnr_db.size, t.psnr_db.size) < MIN_POINTS:
        return math.nan
    low, high = float(max(a.psnr_db[0], t.psnr_db[0])), float(min(a.psnr_db[-1], t.psnr_db[-1]))
    if min(a.inside(low, high), t.inside(low, high)) < MIN_POINTS:
        return math.nan
    low, high = max(low, within_db[0]), min(high, within_db[1])
    if low >= high:
        return math.nan
    difference = float(t.interpolator().integrate(low, high) - a.interpolator().integrate(low, high))
    return math.expm1(difference / (high - low))


def bd_psnr(anchor: Sequence[RDPoint], test: Sequence[RDPoint]) -> float:
    """BD-PSNR in dB: the mean of PSNR(test) - PSNR(anchor) over the logarithm of the bytes that both cover, interpolated by PCHIP as for the BD-rate.

    NaN where the intervals do not overlap or one of the curves has fewer than two points in the overlap.
    """
    a, t = front(anchor), front(test)
    if min(a.log_bytes.size, t.log_bytes.size) < MIN_POINTS:
        return math.nan
    low, high = float(max(a.log_bytes[0], t.log_bytes[0])), float(min(a.log_bytes[-1], t.log_bytes[-1]))
    if low >= high or min(np.count_nonzero((c.log_bytes >= low) & (c.log_bytes <= high)) for c in (a, t)) < MIN_POINTS:
        return math.nan
    areas = [float(PchipInterpolator(c.log_bytes, c.psnr_db, extrapolate=False).integrate(low, high)) for c in (a, t)]
    return (areas[1] - areas[0]) / (high - low)


def bytes_at_psnr(curve: Sequence[RDPoint], target_db: float) -> float:
    """Bytes the codec needs for a PSNR, interpolated as for the BD-rate; NaN outside the curve."""
    useful = front(curve)
    if useful.psnr_db.size < MIN_POINTS or not useful.psnr_db[0] <= target_db <= useful.psnr_db[-1]:
        return math.nan
    return math.exp(float(useful.interpolator()(target_db)))
