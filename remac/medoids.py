"""k-medoids: the few of many patches that stand for all best, by their descriptors."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SWAPS = 50


def medoids(descriptors: NDArray[np.int64], count: int) -> list[int]:
    """Indices of `count` medoids under L1: greedy start, then swaps while the total distance falls (k-medoids, PAM)."""
    distance = np.abs(descriptors[:, None, :] - descriptors[None, :, :]).sum(2).astype(np.float64)
    chosen = [int(distance.sum(1).argmin())]
    while len(chosen) < min(count, len(descriptors)):
        nearest = distance[:, chosen].min(1)
        gain = np.maximum(nearest[:, None] - distance, 0).sum(0)
        chosen.append(int(gain.argmax()))
    for _ in range(SWAPS):
        best = (float(distance[:, chosen].min(1).sum()), -1, -1)
        for position in range(len(chosen)):
            others = distance[:, [c for c in chosen if c != chosen[position]]].min(1)
            totals = np.minimum(others[:, None], distance).sum(0)
            if totals.min() < best[0] - 1e-9:
                best = (float(totals.min()), position, int(totals.argmin()))
        if best[1] < 0:
            break
        chosen[best[1]] = best[2]
    return sorted(chosen)
