"""The reference bank (FORMAT 4.3): medoids of training patches in the space of the semantic descriptors, coded by the network itself."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remac.medoids import medoids
from remac.references import REFERENCE_QUALITY
from remac_runtime import arithmetic
from remac_runtime.analysis import Analysed, analyse
from remac_runtime.backends import Backend
from remac_runtime.entropy_path import EntropyPath
from remac_runtime.network import Network


@dataclass(frozen=True)
class Candidate:
    """A patch that may become a reference."""

    analysed: Analysed
    planes: NDArray[np.uint8]


def candidate(network: Network, backend: Backend, pixels: NDArray[np.uint8]) -> Candidate:
    """Analyse and quantise uint8[256,256,3] as one band without references."""
    analysed = analyse(backend, pixels)
    path = EntropyPath(network, backend, None, None)
    params = arithmetic.quality_params(network, REFERENCE_QUALITY)
    planes: list[NDArray[np.uint8]] = []
    path.encode(path.batch([0], analysed.z[None]), analysed.y[None], params, planes)
    return Candidate(analysed, np.concatenate(planes))


def bank_tensors(candidates: list[Candidate], count: int) -> dict[str, NDArray[np.uint8]]:
    """The tensors of a bank file of `count` references chosen among the candidates."""
    semantic = np.stack([c.analysed.semantic for c in candidates])
    picked = [candidates[i] for i in medoids(semantic, count)]
    return {"z": np.stack([c.analysed.z for c in picked]), "planes": np.stack([c.planes for c in picked]),
            "texture": np.stack([c.analysed.texture for c in picked]).astype(np.uint8),
            "semantic": np.stack([c.analysed.semantic for c in picked]).astype(np.uint8)}
