"""The entropy path of one stream over a backend: h_s, reference features, the four phases. Encoder and decoder walk it alike (FORMAT 5.5).

Bands of equal height travel together as one batch, so that a picture costs a handful of network runs and not a handful per band.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from remac_runtime import arithmetic, references
from remac_runtime.backends import Backend
from remac_runtime.format import HYPER_STRIDE, PHASES
from remac_runtime.network import Bank, Network

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Batch:
    """Bands of one height: their numbers, and side information uint8[n,2h,2w,S+R] at 1/32 of the picture."""

    bands: tuple[int, ...]
    side: NDArray[np.uint8]


@dataclass(frozen=True)
class CodedPhase:
    """One phase of a batch: symbols int32[n,h,w,M] and levels of their scales uint16[n,h,w,M]."""

    symbols: NDArray[np.int32]
    level: NDArray[np.uint16]


def band_slices(rows: int, band_rows: int) -> list[slice]:
    """Hyper-latent rows of each band of a picture with `rows` hyper-latent rows; `band_rows` counts pixels."""
    step = band_rows // HYPER_STRIDE
    return [slice(top, min(top + step, rows)) for top in range(0, rows, step)]


class EntropyPath:
    """Networks of the entropy path for one picture. `semantic` is the bank entry, or None."""

    def __init__(self, network: Network, backend: Backend, bank: Bank | None, semantic: int | None) -> None:
        self.network, self.backend = network, backend
        self.reference_z: NDArray[np.uint8] | None = None
        if semantic is not None and bank is not None:
            self.reference_z = bank.z[semantic]
            (self.features,) = backend.run("reference", bank.planes[semantic])

    def batch(self, bands: Sequence[int], z: NDArray[np.uint8]) -> Batch:
        """Side information of bands of equal height; z uint8[n,h,w,Z]."""
        (side,) = self.backend.run("side", z)
        if self.reference_z is None:
            fetched = np.zeros((*side.shape[:3], self.network.reference_features), np.uint8)
        else:
            fetched = references.fetch(z, self.reference_z, self.features)
        return Batch(tuple(bands), np.concatenate([side, fetched], 3))

    def phases(self, batch: Batch, planes: list[NDArray[np.uint8]]) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.int32]]]:
        """(phase, mu, scale) int32[n,h,w,M] in turn. The caller appends the decoded plane of each phase to `planes` before asking for the next."""
        for p in range(len(PHASES)):
            # Phase 1 sees plane 0 only; phases 2 and 3 see planes 0 and 1 (FORMAT 5.5).
            seen = [plane[..., :self.network.context] for plane in planes[:min(p, 2)]]
            mu, scale = self.backend.run(f"phase{p}", batch.side, *seen)
            yield p, mu, scale

    def encode(self, batch: Batch, y: NDArray[np.int32], params: arithmetic.QualityParams,
               planes: list[NDArray[np.uint8]] | None = None) -> list[CodedPhase]:
        """Quantise the latents int32[n,2h,2w,M] of a batch at one quality; decoded planes are appended to `planes` where given."""
        coded: list[CodedPhase] = []
        planes = [] if planes is None else planes
        for p, mu, scale in self.phases(batch, planes):
            dy, dx = PHASES[p]
            result = arithmetic.quantise(np.ascontiguousarray(y[:, dy::2, dx::2]), mu, scale, params)
            planes.append(result.plane)
            coded.append(CodedPhase(result.symbols, result.level))
        return coded


def interleave(planes: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """Four phases [h,w,M] -> latents [2h,2w,M]."""
    h, w, m = planes[0].shape
    y = np.empty((2 * h, 2 * w, m), planes[0].dtype)
    for plane, (dy, dx) in zip(planes, PHASES, strict=True):
        y[dy::2, dx::2] = plane
    return y
