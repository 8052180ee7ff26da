"""Symbol statistics of a network on training pictures, through the runtime itself."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from calibration.tables import REACH
from remac_runtime import arithmetic
from remac_runtime.analysis import analyse
from remac_runtime.backends import Backend
from remac_runtime.entropy_path import EntropyPath
from remac_runtime.format import BAND_ROWS, HYPER_STRIDE, SCALE_LEVELS
from remac_runtime.network import Bank, Network
from remac_runtime.references import choose

COUNTED_QUALITIES = (0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 63)


def count_symbols(network: Network, bank: Bank | None, backend: Backend, pictures: Iterable[NDArray[np.uint8]]) -> tuple[
        NDArray[np.int64], NDArray[np.int64]]:
    """(counts of y int64[64,2*REACH+1] by scale index, counts of z int64[Z,256]) over pictures uint8[H,W,3], sides multiples of BAND_ROWS."""
    latent = np.zeros((SCALE_LEVELS, 2 * REACH + 1), np.int64)
    hyper = np.zeros((network.hyper, 256), np.int64)
    rows = BAND_ROWS // HYPER_STRIDE
    for pixels in pictures:
        analysed = analyse(backend, pixels)
        semantic, _ = choose(analysed.texture, analysed.semantic, bank)
        path = EntropyPath(network, backend, bank, semantic if bank else None)
        bands = len(analysed.z) // rows
        batch = path.batch(range(bands), analysed.z.reshape(bands, rows, *analysed.z.shape[1:]))
        y = analysed.y.reshape(bands, 4 * rows, *analysed.y.shape[1:])
        channel = np.broadcast_to(np.arange(network.hyper), analysed.z.shape)
        hyper += np.bincount((channel * 256 + analysed.z).ravel(), minlength=hyper.size).reshape(hyper.shape)
        for quality in COUNTED_QUALITIES:
            for phase in path.encode(batch, y, arithmetic.quality_params(network, quality)):
                symbols = np.clip(phase.symbols, -REACH, REACH) + REACH
                flat = phase.index.astype(np.int64) * latent.shape[1] + symbols
                latent += np.bincount(flat.ravel(), minlength=latent.size).reshape(latent.shape)
    return latent, hyper
