"""Choice of references and matching of hyper-latents (FORMAT 5.4)."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remac_runtime.format import NO_REFERENCE
from remac_runtime.network import Bank

PLACES = 4      # across a reference: its hyper-latents, which those of a band are matched with


def choose(texture: NDArray[np.int64], semantic: NDArray[np.int64], bank: Bank | None) -> tuple[int, int]:
    """(semantic id, texture id): least sum of absolute, of squared differences; the lower id on a tie; NO_REFERENCE without a bank."""
    if bank is None:
        return NO_REFERENCE, NO_REFERENCE
    by_meaning = np.abs(bank.semantic.astype(np.int64) - semantic).sum(1)
    by_texture = np.square(bank.texture.astype(np.int64) - texture).sum(1)
    return int(by_meaning.argmin()), int(by_texture.argmin())


def fetch(z: NDArray[np.uint8], reference_z: NDArray[np.uint8], features: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reference features for each hyper-latent: z uint8[n,h,w,Z], reference_z uint8[4,4,Z], features uint8[8,8,R] -> uint8[n,2h,2w,R]."""
    n, h, w, channels = z.shape
    places = reference_z.reshape(-1, channels).astype(np.int16)
    flat = z.reshape(-1, channels).astype(np.int16)
    distance = np.stack([np.abs(flat - place).sum(1, dtype=np.int64) for place in places], 1)
    best = distance.argmin(1)                                                       # the first of equals
    count = features.shape[2]
    blocks = features.reshape(PLACES, 2, PLACES, 2, count).transpose(0, 2, 1, 3, 4).reshape(-1, 2, 2, count)
    found: NDArray[np.uint8] = blocks[best].reshape(n, h, w, 2, 2, count).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, count)
    return found
