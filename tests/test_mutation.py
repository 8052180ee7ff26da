"""The suite notices one wrong number: a network, bank, rounding rule or stream that differs in one place makes the check fail on some vector.

Each mutant is the shipped codec over a fast backend with one thing changed, and the same hashes as before, so that only the numbers can give it away.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from conformance.checking import Implementation, Runtime, VectorSet, check, manifest_sets, opened_set, weights_of
from conformance.manifest import stream_of, trace_checksums, vector_of, write_set
from conformance.vectors import VECTORS, Vector
from make_vectors import FOLDER
from numpy.typing import NDArray

from remac_runtime import adaptation, arithmetic, native, reference
from remac_runtime import format as constants
from remac_runtime.backends import BACKENDS, base, open_backend
from remac_runtime.codec import Decoder, Encoder
from remac_runtime.crc import crc32c
from remac_runtime.errors import RemacError
from remac_runtime.format import HYPER_CONTEXTS
from remac_runtime.model import Model
from remac_runtime.network import LAYERS, Bank, Network, Tables, read_bank, read_network
from remac_runtime.packets import HEADER_BYTES, find_packets

# In the order in which they are tried.
NAMES = ("edge_65x63", "bands_64", "odd_symbols", "odd_hyper_latents", "edge_97x131", "grey_8", "odd_surprises")
TRIES = 12          # mutants of a kind; some change a number that makes no difference, behind a layer that saturates
RELEASED_TRIES = 48 # of a trained network, most of whose hyper-latents are constant
BACKEND_NAMES = [name for name in BACKENDS if name == "numpy" or (name == "c99" and native.library is not None)]
T = TypeVar("T")
Mutate = Callable[[Network, np.random.Generator], Network]


@pytest.fixture(scope="module")
def vectors(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> VectorSet:
    """A few vectors of the small network."""
    network = read_network(small_model / "network.rmn")
    bank = read_bank(small_model / "bank.rmb", network)
    chosen = [next(v for v in VECTORS if v.name == name) for name in NAMES]
    folder = tmp_path_factory.mktemp("mutation")
    return opened_set(network, bank, folder, write_set(network, bank, folder, chosen))


def runtime(backend: str, folder: Path, network: Network, bank: Bank, c_part: bool = True) -> Runtime:
    model = Model(folder, network, bank)
    engine = open_backend(backend, folder, network)
    return Runtime(Encoder(model, engine), Decoder(model, engine), c_part=c_part)


def caught_by(implementation: Implementation, vectors: VectorSet) -> str | None:
    """The first vector on which an implementation fails, None if it passes them all."""
    for name in vectors.entries:
        try:
            check(implementation, vectors, name)
        except (AssertionError, RemacError):        # other bytes, or a refusal of what must decode
            return name
    return None


# ---- one number of the network or the bank

def _changed(values: NDArray[Any], place: tuple[int, ...], by: int) -> NDArray[Any]:
    out = values.copy()
    out[place] += by
    return out


def with_field(record: T, field: str, value: Any) -> T:
    """`dataclasses.replace` of a field by name."""
    changes: dict[str, Any] = {field: value}
    return replace(record, **changes)  # type: ignore[type-var]


def _place(rng: np.random.Generator, values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(rng.integers(n)) for n in values.shape)


def _layer(network: Network, name: str, field: str, place: tuple[int, ...], by: int) -> Network:
    layer = network.layers[name]
    return replace(network, layers={**network.layers, name: with_field(layer, field, _changed(getattr(layer, field), place, by))})


def weight(name: str) -> Mutate:
    """One weight by 1, 4 or 32, away from the bound."""
    def mutate(network: Network, rng: np.random.Generator) -> Network:
        place, by = _place(rng, network.layers[name].weight), int(rng.choice([1, 4, 32]))
        return _layer(network, name, "weight", place, -by if network.layers[name].weight[place] > 0 else by)
    return mutate


def shift(name: str) -> Mutate:
    return lambda network, rng: _layer(network, name, "shift", _place(rng, network.layers[name].shift), 1)


def bias(network: Network, rng: np.random.Generator) -> Network:
    """By what makes one unit after the shift."""
    name = LAYERS[int(rng.integers(len(LAYERS)))]
    place = _place(rng, network.layers[name].bias)
    return _layer(network, name, "bias", place, 1 << max(int(network.layers[name].shift[place]), 0))


def row(field: str, by: int) -> Mutate:
    """One value of FORMAT 4.2; of tables by quality, in the row of one that a vector uses."""
    def mutate(network: Network, rng: np.random.Generator) -> Network:
        values: NDArray[Any] = getattr(network, field)
        place = (32, *_place(rng, values[0])) if values.ndim == 2 else _place(rng, values)
        return with_field(network, field, _changed(values, place, by))
    return mutate


def coded_from(network: Network, rng: np.random.Generator) -> Network:
    return replace(network, coded_from=network.coded_from + 1)


def cdf(kind: str) -> Mutate:
    """One value inside one table by one."""
    def mutate(network: Network, rng: np.random.Generator) -> Network:
        tables: Tables = getattr(network, kind)
        values = tables.cdf
        while True:
            t = int(rng.integers(len(tables)))
            at = int(rng.integers(tables.start[t] + 1, tables.start[t + 1] - 1))
            if values[at + 1] - values[at] > 1:
                return with_field(network, kind, replace(tables, cdf=_changed(values, (at,), 1)))
    return mutate


def score(network: Network, rng: np.random.Generator) -> Network:
    """What a symbol of 0 or of a size up to 3 says about its table, by a sixteenth of a table."""
    return with_field(network, "score", _changed(network.score, (int(rng.integers(len(network.score))), int(rng.integers(4))), 64))


def z_context(network: Network, rng: np.random.Generator) -> Network:
    """The tables of two contexts of one channel change places."""
    tables, channel = network.z_tables, int(rng.integers(network.hyper))
    number = np.arange(len(tables))
    pair = HYPER_CONTEXTS * channel + rng.choice(HYPER_CONTEXTS, 2, replace=False)
    number[pair] = number[pair[::-1]]
    cdfs = [tables.cdf[tables.start[t]:tables.start[t + 1]] for t in number]
    start = np.cumsum([0, *map(len, cdfs)]).astype(np.int32)
    return replace(network, z_tables=Tables(tables.first[number], start, np.concatenate(cdfs)))


MUTATIONS: dict[str, Mutate] = {
    **{f"weight of {name}": weight(name) for name in LAYERS}, **{f"shift of {name}": shift(name) for name in LAYERS}, "bias": bias,
    "gain": row("gain", 1 << 12), "inverse_gain": row("inverse_gain", 1), "scale_offset": row("scale_offset", 16),
    "context_shift": row("context_shift", 1), "coded_from": coded_from, "score": score, "context of z": z_context,
    "CDF entry of z": cdf("z_tables"), "CDF entry of y": cdf("y_tables"),
}


@pytest.mark.parametrize(("backend", "kind"), [(backend, kind) for backend in BACKEND_NAMES for kind in MUTATIONS
                                              if backend == "numpy" or kind.startswith(("weight", "shift"))])
def test_one_number_of_the_network(vectors: VectorSet, backend: str, kind: str) -> None:
    rng = np.random.default_rng(1)
    mutants = (MUTATIONS[kind](vectors.network, rng) for _ in range(TRIES))
    assert any(caught_by(runtime(backend, vectors.folder, mutant, vectors.bank), vectors) for mutant in mutants)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", sorted(manifest_sets()))
def test_one_number_of_a_released_network(chosen: str) -> None:
    """The same with trained numbers, on all vectors of the set. Quantisation may swallow what one weight of an early layer does to the latents: that
    is what the checksums of the layers' outputs are for.
    """
    content = manifest_sets()[chosen]
    network, bank = weights_of(content)
    vectors = opened_set(network, bank, FOLDER / chosen, content)
    missed = []
    for kind, mutate in MUTATIONS.items():
        mutants = [mutate(network, rng) for rng in [np.random.default_rng(1)] for _ in range(RELEASED_TRIES)]
        if not any(caught_by(runtime(BACKEND_NAMES[0], vectors.folder, mutant, bank), vectors) for mutant in mutants) \
                and not any(trace_differs(mutant, vectors) for mutant in mutants):
            missed.append(kind)
    assert not missed


def trace_differs(network: Network, vectors: VectorSet) -> bool:
    """Whether a layer's output has another checksum on a vector that has checksums."""
    for entry in vectors.entries.values():
        if entry["trace_crc32c"]:
            vector = vector_of(entry)
            trace: reference.Trace = {}
            stream_of(vector, vector.recipe.samples(), network, vectors.bank, trace)
            if trace_checksums(trace, network) != entry["trace_crc32c"]:
                return True
    return False


def test_checksums_of_layers(vectors: VectorSet) -> None:
    """One weight of every layer again, judged by the layers' outputs."""
    assert not trace_differs(vectors.network, vectors)
    for name in LAYERS:
        rng = np.random.default_rng(2)
        assert any(trace_differs(weight(name)(vectors.network, rng), vectors) for _ in range(TRIES)), name


@pytest.mark.parametrize("backend", BACKEND_NAMES)
def test_what_is_not_changed_passes(vectors: VectorSet, backend: str) -> None:
    assert caught_by(runtime(backend, vectors.folder, vectors.network, vectors.bank), vectors) is None


@pytest.mark.parametrize("field", ["z", "planes", "texture", "semantic"])
def test_one_number_of_the_bank(vectors: VectorSet, field: str) -> None:
    """Of an entry that is used. Its descriptors only decide whether it is, so all of them are changed."""
    values: NDArray[np.uint8] = getattr(vectors.bank, field)
    entry = reference_entry(vectors, field)

    def mutant(place: int) -> Bank:
        changed = values.copy()
        if field in ("z", "planes"):
            changed[entry].ravel()[place * changed[entry].size // TRIES] ^= 0x40      # anywhere in it: few of its 16 places are the nearest
        else:
            changed[entry] ^= 0x80
        return with_field(vectors.bank, field, changed)

    assert any(caught_by(runtime("numpy", vectors.folder, vectors.network, mutant(place)), vectors) for place in range(TRIES))


def reference_entry(vectors: VectorSet, field: str) -> int:
    header = next(find_packets((vectors.folder / "bands_64.rmc").read_bytes())).header
    return header.texture if field == "texture" else header.semantic


# ---- the rounding rule: half up instead of half to even

def half_up(acc: NDArray[np.int64], shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    right, left = np.maximum(shifts, 0), np.maximum(-shifts, 0)
    return acc + (np.int64(1) << right >> 1) >> right << left


def _in_layers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(np, "rint", lambda x, out: np.floor(x + np.float32(0.5), out=out))        # of all NumPy code, of which only the layers use it


def _in_heads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(base, "requantise", lambda acc, shift: np.copyto(acc, half_up(acc.astype(np.int64), shift.astype(np.int64)), "unsafe"))


def _in_planes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arithmetic, "_requantise", half_up)


@pytest.mark.parametrize("where", [_in_layers, _in_heads, _in_planes])
def test_rounding_half_up(vectors: VectorSet, monkeypatch: pytest.MonkeyPatch, where: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Without the C part, whose rounding cannot be taken away; the same rule in C is compared with NumPy's elsewhere."""
    mutant = runtime("numpy", vectors.folder, vectors.network, vectors.bank, c_part=False)
    assert caught_by(mutant, vectors) is None
    where(monkeypatch)
    assert caught_by(mutant, vectors)


def test_rounding_of_latents(vectors: VectorSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the quantiser adds (FORMAT 5.5), less by a thousandth of a step each."""
    monkeypatch.setattr(arithmetic, "ROUNDING", tuple(part - (1 << 20) for part in constants.ROUNDING))
    assert caught_by(runtime("numpy", vectors.folder, vectors.network, vectors.bank), vectors)


# ---- one constant of the tables' adaptation (FORMAT 6.1)

@pytest.mark.parametrize(("name", "wrong"), [("POSITION_SHIFT", 6), ("POSITION_SHIFT", 8), ("CHANNEL_SHIFT", 1), ("CHANNEL_SHIFT", 3),
                                             ("ADAPTATION_LIMIT", (1 << 14) - 1), ("ADAPTATION_LIMIT", 1 << 15), ("ADAPTATION_BITS", 9),
                                             ("SCORE_SIZES", 15), ("SCALE_LEVELS", 63), ("LATENT_OFFSET", 127), ("HYPER_CONTEXTS", 5)])
def test_constants_of_the_adaptation(vectors: VectorSet, monkeypatch: pytest.MonkeyPatch, name: str, wrong: int) -> None:
    """In Python; the C part has the same numbers (test_native.py)."""
    mutant = runtime("numpy", vectors.folder, vectors.network, vectors.bank, c_part=False)
    assert caught_by(mutant, vectors) is None
    monkeypatch.setattr(adaptation, name, wrong)
    assert caught_by(mutant, vectors)


def test_channels_start_anew_with_every_band(vectors: VectorSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not with every phase."""
    mutant = runtime("numpy", vectors.folder, vectors.network, vectors.bank, c_part=False)
    walk = adaptation.Adaptation.walk

    def forgetful(self: adaptation.Adaptation, level: NDArray[np.uint16]) -> adaptation.Walk:
        self.channel[:] = 0
        return walk(self, level)

    monkeypatch.setattr(adaptation.Adaptation, "walk", forgetful)
    assert caught_by(mutant, vectors)
    monkeypatch.setattr(adaptation.Adaptation, "walk", walk)
    assert caught_by(mutant, vectors) is None
    kept = np.zeros(vectors.network.latents, np.int32)

    def of_all_bands(self: adaptation.Adaptation, network: Network) -> None:
        start(self, network)
        self.channel = kept

    start = adaptation.Adaptation.__init__
    monkeypatch.setattr(adaptation.Adaptation, "__init__", of_all_bands)
    assert caught_by(mutant, vectors)


# ---- one byte

@dataclass(frozen=True)
class Wire:
    """A runtime behind a channel that changes what passes through it."""

    inner: Runtime
    change: Callable[[bytes], bytes]
    written: bool = False

    def encode(self, vector: Vector, samples: NDArray[Any]) -> bytes:
        stream = self.inner.encode(vector, samples)
        return self.change(stream) if self.written else stream

    def decode(self, data: bytes) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        return self.inner.decode(data if self.written else self.change(data))


def forged(stream: bytes, at: int) -> bytes:
    """One byte changed, and the CRC of its packet made to fit."""
    changed = bytearray(stream)
    changed[at] ^= 0xFF
    packet = next(p for p in find_packets(stream) if p.offset <= at < p.end)
    fields, payload = changed[packet.offset:packet.offset + HEADER_BYTES - 4], changed[packet.offset + HEADER_BYTES:packet.end]
    changed[packet.offset + HEADER_BYTES - 4:packet.offset + HEADER_BYTES] = crc32c(bytes(payload), crc32c(bytes(fields))).to_bytes(4, "little")
    return bytes(changed)


def test_one_byte_of_a_band(vectors: VectorSet) -> None:
    """Every byte of a packet, with a CRC that fits, but for those that a decoder does not look at: the sequence number and the CRC itself."""
    name = "bands_64"
    stream = (vectors.folder / f"{name}.rmc").read_bytes()
    band = list(find_packets(stream))[1]
    ignored = {band.offset + at for at in (8, 9, *range(HEADER_BYTES - 4, HEADER_BYTES))}
    inner = runtime("numpy", vectors.folder, vectors.network, vectors.bank)
    only = replace(vectors, entries={name: vectors.entries[name]})
    places = [at for at in range(band.offset, band.end) if at not in ignored]
    missed = [at for at in places[:HEADER_BYTES] + places[HEADER_BYTES::7] if caught_by(Wire(inner, partial(forged, at=at)), only) is None]
    assert not missed


@pytest.mark.parametrize("at", [0, 9, 20, 39, 60, -1])
def test_one_byte_that_an_encoder_writes(vectors: VectorSet, at: int) -> None:
    inner = runtime("numpy", vectors.folder, vectors.network, vectors.bank)

    def change(stream: bytes) -> bytes:
        place = at % len(stream)
        return stream[:place] + bytes([stream[place] ^ 1]) + stream[place + 1:]

    with pytest.raises(AssertionError, match=f"first difference is at byte {at}" if at >= 0 else "first difference"):
        check(Wire(inner, change, written=True), vectors, "edge_65x63")


# ---- the graphs of ONNX Runtime

@pytest.mark.parametrize("kind", ["weight of body", "weight of mean2", "shift of side_in"])
def test_one_number_of_the_graphs(vectors: VectorSet, tmp_path: Path, kind: str) -> None:
    """Graphs that were exported from a network with one other number, under the name of the right one."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from export.to_onnx import export_graphs

    rng = np.random.default_rng(1)
    for number in range(TRIES):
        export_graphs(MUTATIONS[kind](vectors.network, rng), tmp_path / str(number))
        if caught_by(runtime("onnxruntime", tmp_path / str(number), vectors.network, vectors.bank), vectors):
            return
    pytest.fail(f"no mutant of {TRIES} was noticed")
