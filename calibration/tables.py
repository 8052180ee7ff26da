"""CDF tables (FORMAT 4.2): what the symbols really do on training pictures, smoothed towards the model they were trained with. And
the score by which tables adapt (FORMAT 6.1), which follows from them."""
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from remac_runtime.format import (
    ADAPTATION_BITS,
    HYPER_CONTEXTS,
    PROBABILITY_BITS,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEPS_PER_OCTAVE,
    SCORE_LIMIT,
    SCORE_SIZES,
)

TOTAL = 1 << PROBABILITY_BITS
REACH = 1023                   # symbols counted and tabled up to this size; larger ones escape
PRIOR_COUNT = 400.0            # the model weighs like so many observed symbols
TAIL_MASS = 2.0 ** -13         # a table ends where less than this is left on a side
SCORE_REACH = 2                # the score is a slope over so many tables on each side
Z_PRIOR = 0.02                 # pseudo-count of each value of z near those seen
Z_CHANNEL_COUNT = 8.0          # the values of a channel weigh like so many in each of its contexts


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


def latent_pmfs(counts: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Probabilities float64[64, 2*REACH+1] of the symbols by table, from their counts of the same shape (None: the Gaussian model alone)."""
    pmfs = np.stack([gaussian_pmf(SCALE_MIN * 2.0 ** (index / SCALE_STEPS_PER_OCTAVE)) for index in range(SCALE_LEVELS)])
    if counts is None:
        return pmfs
    seen = counts + counts[:, ::-1]          # symmetric by construction of the residual
    return np.stack([_smoothed_tail((n + PRIOR_COUNT * pmf) / (n.sum() + PRIOR_COUNT)) for n, pmf in zip(seen, pmfs, strict=True)])


def latent_tables(pmfs: NDArray[np.float64]) -> dict[str, NDArray[np.generic]]:
    """Tables of y from `latent_pmfs`."""
    cdfs, first = [], []
    for pmf in pmfs:
        reach = _reach(pmf)
        inside = pmf[REACH - reach:REACH + reach + 1]
        cdfs.append(quantised_cdf(np.append(inside, max(1.0 - inside.sum(), 1e-6))))
        first.append(-reach)
    return _stacked("y", cdfs, first)


def score(pmfs: NDArray[np.float64]) -> NDArray[np.int16]:
    """What a symbol's size says about its table, int16[64, SCORE_SIZES] (FORMAT 6.1): the bits that the next larger scale would have spared, a slope
    over 2 * SCORE_REACH tables, less its mean, so that tables which fit do not move. Larger sizes never speak for smaller scales."""
    bits = -np.log2(np.maximum(pmfs[:, REACH:], 2.0 ** -40))
    index = np.arange(SCALE_LEVELS)
    low, high = np.maximum(index - SCORE_REACH, 0), np.minimum(index + SCORE_REACH, SCALE_LEVELS - 1)
    slope = np.maximum.accumulate((bits[low] - bits[high]) / (high - low)[:, None], 1)
    sides = np.where(np.arange(bits.shape[1]) > 0, 2.0, 1.0) * pmfs[:, REACH:]      # of both signs
    last = SCORE_SIZES - 1                                                          # stands for all larger sizes, too: it has their mean
    shares = np.concatenate([sides[:, :last], sides[:, last:].sum(1, keepdims=True)], 1)
    tail = (sides * slope)[:, last:].sum(1) / np.maximum(shares[:, last], 1e-300)
    pooled = np.concatenate([slope[:, :last], np.maximum(tail, slope[:, last - 1])[:, None]], 1)
    centred = pooled - (shares * pooled).sum(1, keepdims=True) / shares.sum(1, keepdims=True)
    return np.asarray(np.clip(np.rint(centred * 2 ** ADAPTATION_BITS), -SCORE_LIMIT, SCORE_LIMIT), np.int16)


def no_score() -> NDArray[np.int16]:
    """The score of a network whose tables do not adapt, for the one that counts symbols before there are counts."""
    return np.zeros((SCALE_LEVELS, SCORE_SIZES), np.int16)


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
    """Tables of z from counts int64[Z,HYPER_CONTEXTS,256], smoothed towards their channel. Values near those seen stay in the table, others
    escape."""
    cdfs, first = [], []
    for contexts in counts:
        seen = contexts.sum(0)
        values = np.flatnonzero(seen)
        low, high = max(0, int(values[0]) - 3), min(255, int(values[-1]) + 3)
        probability = seen[low:high + 1].astype(np.float64)
        spread = np.convolve(probability, [0.25, 0.5, 0.25], "same") * 0.02     # values between those seen are likelier than far ones
        channel = np.append(probability + spread + Z_PRIOR, Z_PRIOR)
        for context in contexts:
            cdfs.append(quantised_cdf(np.append(context[low:high + 1], 0) + Z_CHANNEL_COUNT * channel / channel.sum()))
            first.append(low)
    return _stacked("z", cdfs, first)


def _stacked(kind: str, cdfs: list[NDArray[np.uint16]], first: list[int]) -> dict[str, NDArray[np.generic]]:
    start = np.concatenate([[0], np.cumsum([len(cdf) for cdf in cdfs])])
    return {f"{kind}.first": np.array(first, np.int16), f"{kind}.start": start.astype(np.int32), f"{kind}.cdf": np.concatenate(cdfs)}


def uniform_hyper_tables(channels: int) -> dict[str, NDArray[np.generic]]:
    """Stand-in tables of z, for the network that counts symbols before there are counts."""
    return hyper_tables(np.ones((channels, HYPER_CONTEXTS, 256), np.int64))
