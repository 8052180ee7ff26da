"""Concealment of lost bands (FORMAT 2.3). Not normative: a ground decoder may do better."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def conceal(y_hat: NDArray[np.int32], lost_rows: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    """Latents int32[H/16,W/16,M] with the lost rows filled: int32[H/16,W/16,M], a copy where anything is lost.

    `lost_rows`: (first, end) latent rows of each lost band. Each lost row is interpolated between the nearest intact
    rows above and below, repeats the only one there is, or is 0 where every row is lost.
    """
    if not lost_rows:
        return y_hat
    intact = np.ones(len(y_hat), bool)
    for first, end in lost_rows:
        intact[first:end] = False
    filled = y_hat.copy()
    known = np.flatnonzero(intact)
    if not len(known):
        filled[:] = 0
        return filled
    for row in np.flatnonzero(~intact):
        after = int(np.searchsorted(known, row))
        above = known[max(after - 1, 0)]
        below = known[min(after, len(known) - 1)]
        if after == 0:
            above = below
        if above == below:
            filled[row] = y_hat[above]
            continue
        distance, step = int(below - above), int(row - above)
        weighted = y_hat[above].astype(np.int64) * (distance - step) + y_hat[below].astype(np.int64) * step
        filled[row] = (weighted + distance // 2) // distance
    return filled
