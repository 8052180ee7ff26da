"""What a codec computed on its way, layer by layer, and where two of them part."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac_runtime import packets
from remac_runtime.backends import Backend
from remac_runtime.backends.base import Array
from remac_runtime.format import PHASES, SIDE_MAX
from remac_runtime.network import LAYERS, Network
from remac_runtime.topology import OUTPUTS
from remac_runtime.verify.cases import Case
from remac_runtime.verify.layers import ShowsLayers

Trace = dict[str, Array]        # [rows, columns, channels] by layer, bands one below the other, as reference.py collects them
Z, SYMBOLS, LATENTS = "z", "symbols", "latents"
_NPY = b"\x93NUMPY"
# The order of computation. `z` is what the entropy path starts from: hyper_out in the encoder, read from the stream in the decoder.
ORDER = (*LAYERS[:LAYERS.index("hyper_out") + 1], Z, *LAYERS[LAYERS.index("hyper_out") + 1:LAYERS.index("hidden0")],
         *(f"{kind}{p}" for p in range(len(PHASES)) for kind in ("hidden", "mean", "scale", SYMBOLS)), LATENTS)
_WORDS = {Z: "the hyper-latents z", LATENTS: "the latents y_hat", **{f"{SYMBOLS}{p}": f"the symbols of phase {p}" for p in range(len(PHASES))}}


class Recorder(Backend):
    """A backend that keeps what goes through it; with `deep`, also the layers inside the graphs where the backend can show them."""

    def __init__(self, backend: Backend, deep: bool) -> None:
        super().__init__(backend.network)
        self.name, self.backend, self.deep = backend.name, backend, deep
        self._parts: dict[str, list[Array]] = {}
        self.note = ""

    def compute(self, graph: str, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return self.backend.compute(graph, inputs)

    def run(self, graph: str, *inputs: Array) -> tuple[Array, ...]:
        outputs = self.backend.run(graph, *inputs)
        if self.deep:
            self._keep_inner(graph, inputs)
        if graph == "side":
            self._keep(Z, inputs[0])
        for name, x in zip(OUTPUTS[graph], outputs, strict=True):
            self._keep(name, x)
        return outputs

    def _keep_inner(self, graph: str, inputs: tuple[Array, ...]) -> None:
        """The layers that are no outputs of the graph."""
        if not isinstance(self.backend, ShowsLayers) or self.note:
            return
        try:
            shown = self.backend.layers(graph, tuple(np.ascontiguousarray(x[None] if graph == "analysis" else x) for x in inputs))
        except Exception as error:      # the trace of the graph's outputs is still worth having
            self.note = f"layers inside the graphs cannot be shown ({(str(error).splitlines() or ['?'])[0]})"
        else:
            for name in shown.keys() - set(OUTPUTS[graph]):
                self._keep(name, shown[name])

    def _keep(self, name: str, x: Array) -> None:
        self._parts.setdefault(name, []).append(x.reshape(-1, *x.shape[-2:]))

    def trace(self) -> Trace:
        """All that was kept so far."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


def by_phase(trace: Mapping[str, Array]) -> Trace:
    """A trace whose symbols [H/16,W/16,M] are split into the four phases, for `first_difference`."""
    split = {name: x for name, x in trace.items() if name != SYMBOLS}
    if SYMBOLS in trace:
        split.update({f"{SYMBOLS}{p}": trace[SYMBOLS][dy::2, dx::2] for p, (dy, dx) in enumerate(PHASES)})
    return split


def symbols_of(trace: Trace, y_hat: NDArray[np.int32], data: bytes, network: Network) -> NDArray[np.int64] | None:
    """The symbols k int64[rows,columns,M] that gave latents y_hat: (y_hat - mu) / inverse_gain of the band's quality (FORMAT 5.5); None where a band
    is lost."""
    scanned = packets.scan(data, SIDE_MAX ** 2)
    bands = range(-(-len(y_hat) * 16 // scanned.header.band_rows))
    if any(band not in scanned.bands for band in bands) or any(2 * len(trace.get(f"mean{p}", ())) != len(y_hat) for p in range(len(PHASES))):
        return None
    rows = scanned.header.band_rows // 16
    quality = np.array([scanned.bands[row // rows].quality for row in range(len(y_hat))])
    mu = np.empty(y_hat.shape, np.int64)
    for p, (dy, dx) in enumerate(PHASES):
        mu[dy::2, dx::2] = trace[f"mean{p}"]
    symbols: NDArray[np.int64] = (y_hat - mu) // network.inverse_gain[quality].astype(np.int64)[:, None]
    return symbols


@dataclass(frozen=True)
class Difference:
    """The first place, in the order of computation, where a tensor is not what the reference gives."""

    layer: str
    channel: int
    row: int
    column: int
    found: int
    expected: int
    different: int
    values: int
    unseen: tuple[str, ...] = ()        # layers before it that were not shown
    found_shape: tuple[int, ...] = ()   # where the shapes differ
    expected_shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = _WORDS.get(self.layer, f"layer {self.layer}")
        if self.found_shape:
            return f"{what} is {self.found_shape}, the reference gives {self.expected_shape}"
        before = f" (or in {', '.join(self.unseen)}, which this engine does not show)" if self.unseen else ""
        return (f"first difference in {what}{before}: channel {self.channel}, row {self.row}, column {self.column}: {self.found}, "
                f"the reference gives {self.expected}; {self.different:,} of {self.values:,} values differ")


def first_difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> Difference | None:
    """Compare two traces (see `by_phase`) in the order of computation; what only one of them has is passed over. Of tensors with fewer or more rows,
    the rows that both have are compared first."""
    unseen: list[str] = []
    for name in (name for name in ORDER if name in expected):
        if name not in found:
            unseen.append(name)
            continue
        a, b = found[name], expected[name]
        rows = min(len(a), len(b)) if a.shape[1:] == b.shape[1:] else 0
        unequal = a[:rows] != b[:rows] if rows else np.zeros(0, bool)
        if unequal.any():
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(unequal)), unequal.shape))
            return Difference(name, at[2], at[0], at[1], int(a[at]), int(b[at]), int(np.count_nonzero(unequal)), unequal.size, tuple(unseen))
        if a.shape != b.shape:
            return Difference(name, 0, 0, 0, 0, 0, 0, 0, tuple(unseen), a.shape, b.shape)
        unseen.clear()
    return None


def read_latents(path: Path, case: Case, channels: int) -> dict[str, Array]:
    """`latents` and perhaps `symbols` of a worker's .npz, or latents of a foreign decoder's .npy or raw little-endian int32. Raises ValueError."""
    start = path.read_bytes()[:len(_NPY)]
    if start.startswith(b"PK"):
        with np.load(path) as arrays:
            return {name: arrays[name] for name in (SYMBOLS, LATENTS) if name in arrays}
    if start == _NPY:
        return {LATENTS: np.load(path)}
    shape = (-(-case.height // 64) * 4, -(-case.width // 64) * 4, channels)
    values = np.fromfile(path, "<i4")
    if values.size != shape[0] * shape[1] * shape[2]:
        raise ValueError(f"{values.size} numbers, latents of {case.width}x{case.height} pixels are {list(shape)}")
    return {LATENTS: values.reshape(shape).astype(np.int32)}
