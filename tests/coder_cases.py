"""What the tests of coder and arithmetic share: a scalar coder written from the text of FORMAT 6 alone, and random tables, bands and latents."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from remac_runtime import native, rans
from remac_runtime.arithmetic import QualityParams
from remac_runtime.errors import CorruptStream
from remac_runtime.format import LEVEL_MAX, SCALE_LEVELS, SCORE_LIMIT, SCORE_SIZES
from remac_runtime.network import Network, Tables

LIMIT = 2 ** 20
BODIES = ("c", "singly", "rounds")
INT32 = (-2 ** 31, 2 ** 31 - 1)
EDGES = (*INT32, INT32[0] + 1, INT32[1] - 1, -2 ** 26 + 1, 2 ** 26 - 1, -1, 0, 1)


@contextmanager
def body(name: str) -> Iterator[None]:
    """Make rans use its C body, its plain integers or its NumPy rounds, which only its encoder has."""
    kept = native.library, rans._ENCODE_LANES_LOG2_MIN
    if name == "c" and native.library is None:
        pytest.skip("the C extension is not built")
    try:
        if name != "c":
            native.library = None
            rans._ENCODE_LANES_LOG2_MIN = 0 if name == "rounds" else 99
        yield
    finally:
        native.library, rans._ENCODE_LANES_LOG2_MIN = kept


def available() -> list[str]:
    return [name for name in BODIES if name != "c" or native.library is not None]


# ---- the scalar coder, from FORMAT 6.2 and 6.3 --------------------------------------------------------------------------------------------------

class Table(NamedTuple):
    first: int
    cdf: list[int]

    @property
    def entries(self) -> int:
        return len(self.cdf) - 1


def escape_bits(table: Table, k: int) -> list[int]:
    below = k < table.first
    e = table.first - 1 - k if below else k - (table.first + table.entries - 1)
    m = (e + 1).bit_length() - 1
    return [int(below)] + [0] * m + [(e + 1) >> i & 1 for i in range(m, -1, -1)]


def scalar_encode(coded: Sequence[tuple[Table, int]], lanes_log2: int, bits: list[int] | None = None) -> bytes:
    """The band of (table, symbol) in the order of decoding; `bits` replaces the escape bits, to make hostile bands."""
    own_bits: list[int] = []
    entries = []
    for table, k in coded:
        inside = table.first <= k < table.first + table.entries - 1
        entries.append((table, k - table.first if inside else table.entries - 1))
        own_bits += [] if inside else escape_bits(table, k)
    lanes = 2 ** lanes_log2
    states, words = [2 ** 16] * lanes, list[int]()
    for n in reversed(range(len(entries))):
        table, j = entries[n]
        c, f, x = table.cdf[j], table.cdf[j + 1] - table.cdf[j], states[n % lanes]
        if x >= f * 2 ** 18:
            words.insert(0, x % 2 ** 16)
            x //= 2 ** 16
        states[n % lanes] = x // f * 2 ** 14 + x % f + c
        assert 2 ** 16 <= states[n % lanes] < 2 ** 32
    bits = own_bits if bits is None else bits
    padded = bits + [0] * (-len(bits) % 8)
    escapes = [sum(bit << 7 - i for i, bit in enumerate(padded[b:b + 8])) for b in range(0, len(padded), 8)]
    return b"".join(x.to_bytes(4, "little") for x in states) + b"".join(w.to_bytes(2, "little") for w in words) + bytes(reversed(escapes))


# ---- helpers ------------------------------------------------------------------------------------------------------------------------------------

def random_table(rng: np.random.Generator) -> Table:
    """All sorts: a handful of entries or hundreds; even frequencies, or one that leaves 1 to each of the others."""
    entries = int(rng.choice([2, 2, 3, 5, 40, 300, 1000]))
    if rng.random() < 0.5:
        frequency = np.ones(entries, np.int64)
        frequency[rng.integers(entries)] += 2 ** 14 - entries
        cdf = np.concatenate([[0], np.cumsum(frequency)])
    else:
        cdf = np.concatenate([[0], np.sort(rng.choice(np.arange(1, 2 ** 14), entries - 1, replace=False)), [2 ** 14]])
    return Table(int(rng.choice([-2 ** 15, -entries // 2, 0, 100, 2 ** 15 - 1])), cdf.tolist())


def pack(tables: Sequence[Table]) -> Tables:
    start = np.cumsum([0, *(len(table.cdf) for table in tables)])
    return Tables(np.array([table.first for table in tables], np.int32), start.astype(np.int32),
                  np.concatenate([table.cdf for table in tables]).astype(np.int32))


def combine(tables: Sequence[Table]) -> rans.CombinedTables:
    """The first table is that of z."""
    return rans.combine_tables(pack(tables[:1]), pack(tables[1:]))


def random_symbol(rng: np.random.Generator, table: Table) -> int:
    """Mostly in the table and as likely as it says; else escapes right beside both ends and as far as symbols go."""
    kind = rng.random()
    if kind < 0.7:
        return table.first + int(np.searchsorted(table.cdf, rng.integers(2 ** 14), "right")) - 1
    if kind < 0.85:
        return table.first + int(rng.choice([-3, -2, -1, 0, table.entries - 2, table.entries - 1, table.entries, table.entries + 1]))
    return int(rng.choice([-LIMIT + 1, LIMIT - 1, int(rng.integers(-LIMIT + 1, LIMIT))]))


class Band(NamedTuple):
    tables: list[Table]
    numbers: NDArray[np.uint16]
    symbols: NDArray[np.int32]

    def scalar(self, lanes_log2: int, bits: list[int] | None = None) -> bytes:
        return scalar_encode([(self.tables[t], int(k)) for t, k in zip(self.numbers, self.symbols, strict=True)], lanes_log2, bits)


def random_band(seed: int, n: int) -> Band:
    rng = np.random.default_rng(seed)
    tables = [random_table(rng) for _ in range(int(rng.integers(2, 6)))]
    numbers = rng.integers(0, len(tables), n)
    return Band(tables, numbers.astype(np.uint16), np.array([random_symbol(rng, tables[t]) for t in numbers], np.int32))


def outcome(payload: bytes, combined: rans.CombinedTables, lanes_log2: int, calls: Sequence[NDArray[np.uint16]]) -> list[int] | None:
    """The decoded symbols, or None if the band is found corrupt."""
    try:
        decoder = rans.BandDecoder(payload, combined, lanes_log2)
        symbols = [decoder.decode(numbers) for numbers in calls]
        decoder.finish()
    except CorruptStream:
        return None
    assert all(part.dtype == np.int32 for part in symbols)
    return [int(k) for part in symbols for k in part]


def random_params(rng: np.random.Generator, channels: int) -> QualityParams:
    """Rows over the whole ranges of FORMAT 4.2, their ends included."""
    def row(low: int, high: int, n: int = channels) -> NDArray[np.int32]:
        spread = np.exp2(rng.uniform(0, np.log2(high - low + 1), n)).astype(np.int64) - 1 + low
        return np.where(rng.random(n) < 0.2, rng.choice([low, high], n), spread).astype(np.int32)
    return QualityParams(row(1, 2 ** 24 - 1), row(1, 2 ** 26 - 1), (row(0, 2 ** 20) * rng.choice([-1, 1], channels)).astype(np.int32),
                         rng.integers(0, 17, channels).astype(np.int32), row(0, 2 ** 29, 64), int(rng.integers(0, 64)))


def random_latents(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Of all magnitudes, and the edges."""
    values = np.exp2(rng.uniform(0, 31, shape)).astype(np.int64) * rng.choice([-1, 1], shape)
    return np.where(rng.random(shape) < 0.1, rng.choice(EDGES, shape), values).clip(*INT32).astype(np.int32)


# ---- adaptation (FORMAT 6.1) ----------------------------------------------------------------------------------------------------------------------

class TableRules(NamedTuple):
    """What `Adaptation` looks at in a network."""

    score: NDArray[np.int16]
    coded_from: int
    z_tables: Tables
    latents: int

    @property
    def network(self) -> Network:
        return cast(Network, self)


def random_rules(rng: np.random.Generator, latents: int, coded_from: int, z: int = 3) -> TableRules:
    """Scores as they come, or all at the limits of FORMAT 4.2."""
    kind = int(rng.integers(4))
    score = rng.integers(-SCORE_LIMIT, SCORE_LIMIT + 1, (SCALE_LEVELS, SCORE_SIZES)) if kind < 2 else \
        rng.choice([-SCORE_LIMIT, SCORE_LIMIT], (SCALE_LEVELS, SCORE_SIZES)) if kind == 2 else \
        np.full((SCALE_LEVELS, SCORE_SIZES), rng.choice([-SCORE_LIMIT, SCORE_LIMIT]))
    return TableRules(score.astype(np.int16), coded_from, pack([random_table(rng) for _ in range(z)]), latents)


def random_phases(rng: np.random.Generator, latents: int, count: int) -> list[tuple[NDArray[np.int32], NDArray[np.uint16]]]:
    """(symbols, level) of phases of some size, empty ones among them; small symbols, and as far as they go."""
    shape = (int(rng.integers(0, 4)), int(rng.integers(1, 5)), latents)
    phases = []
    for _ in range(count):
        far = rng.choice([-LIMIT + 1, LIMIT - 1, -16, -15, -14, 14, 15, 16], shape)
        symbols = np.where(rng.random(shape) < 0.2, far, rng.integers(-3, 4, shape))
        level = np.where(rng.random(shape) < 0.1, rng.choice([0, 15, 16, LEVEL_MAX], shape), rng.integers(0, LEVEL_MAX + 1, shape))
        phases.append((symbols.astype(np.int32), level.astype(np.uint16)))
    return phases
