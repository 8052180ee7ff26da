"""CDF tables (FORMAT 4.2): what the symbols really do on training pictures, smoothed towards the model they were trained with."""
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from remac_runtime.format import PROBABILITY_BITS, SCALE_LEVELS, SCALE_MIN, SCALE_STEPS_PER_OCTAVE

TOTAL = 1 << PROBABILITY_BITS
REACH = 1023                   # symbols counted and tabled up to this size; larger ones escape
PRIOR_COUNT = 400.0            # the model weighs like so many observed symbols
TAIL_MASS = 2.0 ** -13         # a table ends where less than this is left on a side
Z_PRIOR = 0.02                 # pseudo-count of each value of z near those seen


def quantised_cdf(probability: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Cumulative frequencies of total 2^14, each at least 1: uint16[n+1]. What rounding leaves goes to the most probable entry."""
    frequency = np.maximum(1, np.floor(probability / probability.sum() * TOTAL)).astype(np.int64)
    while (excess := int(frequency.sum()) - TOTAL) > 0:
        largest = int(frequency.argmax())
        frequency[largest] -= min(excess, max(1, int(frequency[largest]) // 2))
    frequency[frequency.argmax()] -= excess
    return np.concatenate([[0], np.cumsum(frequency)]).astype(np.uint16)


def gaussian_pmf(sigma: float) -> NDArray[np.float64]:
    """Probabilities of -REACH..REACH under a Gaussian that is integrated over each step."""
    edges = (np.arange(-REACH, REACH + 2) - 0.5) / (sigma * math.sqrt(2.0))
    cumulative = np.array([0.5 * math.erfc(-edge) for edge in edges])
    return np.asarray(np.diff(cumulative))


def latent_tables(counts: NDArray[np.int64] | None) -> dict[str, NDArray[np.generic]]:
    """Tables of y from counts int64[64, 2*REACH+1] of symbols by scale index (None: the Gaussian model alone)."""
    cdfs, first = [], []
    for index in range(SCALE_LEVELS):
        pmf = gaussian_pmf(SCALE_MIN * 2.0 ** (index / SCALE_STEPS_PER_OCTAVE))
        if counts is not None:
            seen = counts[index] + counts[index][::-1]          # symmetric by construction of the residual
            pmf = (seen + PRIOR_COUNT * pmf) / (seen.sum() + PRIOR_COUNT)
            pmf = _smoothed_tail(pmf)
        reach = _reach(pmf)
        inside = pmf[REACH - reach:REACH + reach + 1]
        cdfs.append(quantised_cdf(np.append(inside, max(1.0 - inside.sum(), 1e-6))))
        first.append(-reach)
    return _stacked("y", cdfs, first)


def _smoothed_tail(pmf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average rare symbols over neighbours of like size, so that a table has no holes where few were seen."""
    smooth = pmf.copy()
    for k in range(4, REACH + 1):
        width = k // 4
        mean = pmf[REACH + k - width:min(REACH + k + width, 2 * REACH) + 1].mean()
        smooth[REACH + k] = smooth[REACH - k] = mean
    return smooth / smooth.sum()


def _reach(pmf: NDArray[np.float64]) -> int:
    tail = np.cumsum(pmf[:REACH])                               # mass at or below -REACH, ..., -1
    inside = np.flatnonzero(tail >= TAIL_MASS)
    return max(1, REACH - int(inside[0])) if len(inside) else 1


def hyper_tables(counts: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Tables of z from counts int64[Z,256]; values near those seen stay in the table, others escape."""
    cdfs, first = [], []
    for seen in counts:
        values = np.flatnonzero(seen)
        low, high = max(0, int(values[0]) - 3), min(255, int(values[-1]) + 3)
        probability = seen[low:high + 1].astype(np.float64)
        spread = np.convolve(probability, [0.25, 0.5, 0.25], "same") * 0.02     # values between those seen are likelier than far ones
        cdfs.append(quantised_cdf(np.append(probability + spread + Z_PRIOR, Z_PRIOR)))
        first.append(low)
    return _stacked("z", cdfs, first)


def _stacked(kind: str, cdfs: list[NDArray[np.uint16]], first: list[int]) -> dict[str, NDArray[np.generic]]:
    start = np.concatenate([[0], np.cumsum([len(cdf) for cdf in cdfs])])
    return {f"{kind}.first": np.array(first, np.int16), f"{kind}.start": start.astype(np.int32), f"{kind}.cdf": np.concatenate(cdfs)}


def uniform_hyper_tables(channels: int) -> dict[str, NDArray[np.generic]]:
    """Stand-in tables of z, for the network that counts symbols before there are counts."""
    return hyper_tables(np.ones((channels, 256), np.int64))
