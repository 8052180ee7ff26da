"""Symbol statistics of a network on training pictures, through the runtime itself."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from calibration.tables import REACH
from remac_runtime import arithmetic
from remac_runtime.adaptation import Adaptation, before, hyper_tables
from remac_runtime.analysis import analyse
from remac_runtime.backends import Backend
from remac_runtime.entropy_path import EntropyPath
from remac_runtime.format import HYPER_CONTEXTS, HYPER_STRIDE, SCALE_LEVELS
from remac_runtime.network import Bank, Network
from remac_runtime.references import choose

COUNTED_BAND_ROWS = 256        # of the bands that are counted; which, hardly matters
COUNTED_QUALITIES = (0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 63)


def count_symbols(network: Network, bank: Bank | None, backend: Backend, pictures: Iterable[NDArray[np.uint8]]) -> tuple[
        NDArray[np.int64], NDArray[np.int64]]:
    """Counts of symbols by table, of y int64[64,2*REACH+1] and of z int64[Z,HYPER_CONTEXTS,256], over pictures uint8[H,W,3].

    Sides are multiples of COUNTED_BAND_ROWS.
    """
    latent = np.zeros((SCALE_LEVELS, 2 * REACH + 1), np.int64)
    hyper = np.zeros((network.hyper, HYPER_CONTEXTS, 256), np.int64)
    rows = COUNTED_BAND_ROWS // HYPER_STRIDE
    for pixels in pictures:
        analysed = analyse(backend, pixels)
        semantic, _ = choose(analysed.texture, analysed.semantic, bank)
        path = EntropyPath(network, backend, bank, semantic if bank else None)
        bands = len(analysed.z) // rows
        hyper_bands = analysed.z.reshape(bands, rows, *analysed.z.shape[1:])
        batch = path.batch(range(bands), hyper_bands)
        y = analysed.y.reshape(bands, 4 * rows, *analysed.y.shape[1:])
        for z in hyper_bands:
            flat = hyper_tables(before(z)).astype(np.int64) * 256 + z
            hyper += np.bincount(flat.ravel(), minlength=hyper.size).reshape(hyper.shape)
        for quality in COUNTED_QUALITIES:
            coded = path.encode(batch, y, arithmetic.quality_params(network, quality))
            for band in range(bands):
                adaptation = Adaptation(network)
                for phase in coded:
                    symbols, tables = adaptation.collect(phase.symbols[band], phase.level[band])
                    flat = (tables.astype(np.int64) - adaptation.offset) * latent.shape[1] + np.clip(symbols, -REACH, REACH) + REACH
                    latent += np.bincount(flat, minlength=latent.size).reshape(latent.shape)
    return latent, hyper
