"""The entropy coder (FORMAT 6): interleaved rANS with 32-bit states, 16-bit words and 14-bit probabilities, and escape bits.

What surprises, first:

1. *The encoder walks backwards.* rANS is a stack: what is coded last is decoded first. So the last symbol of a band is coded first, and a band can be
   coded only when all its symbols are known. The decoder walks forwards, which is why it may ask for the tables of a phase when it gets there.
2. *Words are written from the end of the buffer towards its beginning*, then the states in front of them: the band is the tail of the buffer.
3. *Lanes are interleaved.* Symbol n belongs to lane n mod L, counted over the whole band, z and all phases; a call that stops in the middle of a
   round of lanes is resumed there. All lanes share one sequence of words. They exist so that wide processors can do L symbols at once, as the NumPy
   encoder does; each costs some 3 bytes a band.
4. *Escape bits start at the last byte and run backwards*, because words and escape bits, both of unknown length, then need no length field: the
   band is whole exactly if they meet (`BandDecoder.finish`).
5. *The state is the check.* Every lane starts from 2^16 and must be there again after the last symbol.

Invariant: 2^16 <= state < 2^32 between symbols. f < 2^14 for every entry, since a table has at least two, so f << 18 fits 32 bits.

Three bodies give the same bytes: C (csrc/remac.c), plain integers, and in the encoder NumPy over the lanes of a round where that pays. A decoder
learns the table of a latent from the symbol before it (adaptation.py), so it has no such body.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from remac_runtime import native
from remac_runtime.adaptation import Adaptation, Walk, following, hyper_tables
from remac_runtime.errors import CorruptStream
from remac_runtime.format import (
    ENCODER_LANES_LOG2_MAX,
    ENCODER_SYMBOLS_PER_LANE,
    LANES_LOG2_MAX,
    LATENT_OFFSET,
    PROBABILITY_BITS,
    STATE_LOW,
    SYMBOL_LIMIT,
)
from remac_runtime.network import Network, Tables

ESCAPE_ZEROS_MAX = 20          # FORMAT 6.3
_TOTAL = 1 << PROBABILITY_BITS
_LOOKUP_BITS = 8               # as in csrc/remac.h
_RECIPROCAL_BITS = 46          # csrc/remac.c has the proof
_ENCODE_LANES_LOG2_MIN = 6     # from so many lanes on NumPy beats plain integers

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CombinedTables:
    """The tables of z, then those of y: table t of y has number hyper + t. Entry j of table t is number start[t] + j of the flat arrays.

    first int32[T], start int32[T + 1], cdf uint16[N] as in FORMAT 4.2; reciprocal uint64[N], ceil(2^46 / frequency), spares the encoder its
    divisions; lookup uint16[T,256], the entry that holds slot b << 6, spares the decoder most of its search.
    """

    hyper: int
    first: NDArray[np.int32]
    start: NDArray[np.int32]
    cdf: NDArray[np.uint16]
    reciprocal: NDArray[np.uint64]
    lookup: NDArray[np.uint16]

    @cached_property
    def frequency(self) -> Ints:
        """Of every entry, int64[N]; 0 at the last value of a table."""
        values = np.append(self.cdf, np.uint16(0)).astype(np.int64)
        frequency: Ints = np.maximum(values[1:] - values[:-1], 0)
        return frequency

    @cached_property
    def plain(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """(frequency, cdf, first, start) for loops in plain integers."""
        return self.frequency.tolist(), self.cdf.tolist(), self.first.tolist(), self.start.tolist()

    @cached_property
    def entry_of_slot(self) -> NDArray[np.int32]:
        """Flat entry number by t << 14 | slot: int32[T << 14]. Some 10 MB, made only where the C body is missing."""
        return np.repeat(np.arange(len(self.cdf), dtype=np.int32), self.frequency)


def combine(network: Network) -> CombinedTables:
    """Tables of a network that was validated when it was read."""
    return combine_tables(network.z_tables, network.y_tables)


def combine_tables(z: Tables, y: Tables) -> CombinedTables:
    """Tables that keep the rules of FORMAT 4.2."""
    first = np.concatenate([z.first, y.first]).astype(np.int32)
    start = np.concatenate([z.start[:-1], y.start + z.start[-1]]).astype(np.int32)
    cdf = np.concatenate([z.cdf, y.cdf]).astype(np.int64)
    frequency = np.maximum(np.diff(cdf, append=0), 1)
    slots = np.arange(1 << _LOOKUP_BITS) << (PROBABILITY_BITS - _LOOKUP_BITS)
    lookup = np.stack([np.searchsorted(cdf[a:b], slots, "right") - 1 for a, b in pairwise(start)])
    return CombinedTables(len(z), first, start, cdf.astype(np.uint16), (-(-(1 << _RECIPROCAL_BITS) // frequency)).astype(np.uint64),
                          np.ascontiguousarray(lookup, np.uint16))


def lanes_log2_for(n: int) -> int:
    """log2 of the lanes for a band of n symbols (FORMAT 6.2)."""
    return min(max((n // ENCODER_SYMBOLS_PER_LANE).bit_length() - 1, 0), ENCODER_LANES_LOG2_MAX)


# ---- encoder (FORMAT 6.2, 6.3) ----

def encode(symbols: NDArray[np.int32], tables: NDArray[np.uint16], combined: CombinedTables, lanes_log2: int) -> bytes:
    """The coded band of symbols int32[n] with their tables [n]. Raises ValueError for symbols, tables or lanes out of range: the caller's bug."""
    if len(symbols) != len(tables):
        raise ValueError(f"{len(symbols)} symbols, {len(tables)} tables")
    if not 0 <= lanes_log2 <= LANES_LOG2_MAX:
        raise ValueError(f"lanes_log2 {lanes_log2} is not in 0..{LANES_LOG2_MAX}")
    if native.library is not None:
        out = np.empty((4 << lanes_log2) + 8 * len(symbols), np.uint8)   # remac_encode_bound
        status, offset = native.library.encode(native.plain(symbols, np.int32), native.plain(tables, np.uint16), combined.first, combined.start,
                                               combined.cdf, combined.reciprocal, out, lanes_log2)
        if status:
            raise ValueError(_BUGS[status])
        return out[offset:].tobytes()
    return _encode(symbols.astype(np.int64), tables.astype(np.int64), combined, lanes_log2)


# The numbers are those of remac_status in csrc/remac.h.
_BUGS = {1: "the output has no room", 2: f"a symbol reaches +-{SYMBOL_LIMIT}", 3: "a table does not exist", 4: "the lanes are out of range"}


def _encode(symbols: Ints, tables: Ints, combined: CombinedTables, lanes_log2: int) -> bytes:
    if len(symbols) and np.abs(symbols).max() >= SYMBOL_LIMIT:
        raise ValueError(_BUGS[2])
    if len(symbols) and not 0 <= tables.min() <= tables.max() < len(combined.first):
        raise ValueError(_BUGS[3])
    start = combined.start[tables].astype(np.int64)
    last = combined.start[tables + 1] - start - 2
    beyond = symbols - combined.first[tables]
    escaped = (beyond < 0) | (beyond >= last)
    entry = start + np.where(escaped, last, beyond)
    code = _encode_rounds if lanes_log2 >= _ENCODE_LANES_LOG2_MIN else _encode_singly
    states, words = code(combined.frequency[entry], combined.cdf[entry].astype(np.int64), 1 << lanes_log2)
    return states.astype("<u4").tobytes() + words.astype("<u2").tobytes() + _escape_bytes(beyond[escaped], last[escaped])


def _encode_singly(frequency: Ints, low: Ints, lanes: int) -> tuple[Ints, Ints]:
    """(states, words in the order of decoding), one symbol at a time."""
    states, words = [STATE_LOW] * lanes, []
    frequencies, lows = frequency.tolist(), low.tolist()
    for n in range(len(frequencies) - 1, -1, -1):
        x, f = states[n % lanes], frequencies[n]
        if x >= f << 18:
            words.append(x & 0xFFFF)
            x >>= 16
        states[n % lanes] = (x // f << PROBABILITY_BITS) + x % f + lows[n]
    return np.array(states, np.int64), np.array(words[::-1], np.int64)


def _encode_rounds(frequency: Ints, low: Ints, lanes: int) -> tuple[Ints, Ints]:
    """The same, a round of lanes at a time. The words of a round are in the order of its lanes in both directions of reading."""
    states = np.full(lanes, STATE_LOW, np.int64)
    limit, rounds = frequency << 18, []
    for top in range((len(frequency) - 1) // lanes * lanes, -1, -lanes):
        f = frequency[top:top + lanes]     # the last round of a band may be short
        x = states[:len(f)]
        full = x >= limit[top:top + lanes]
        if full.any():
            rounds.append(x[full] & 0xFFFF)
            x[full] >>= 16
        quotient, remainder = np.divmod(x, f)
        x[:] = (quotient << PROBABILITY_BITS) + remainder + low[top:top + lanes]
    return states, np.concatenate(rounds[::-1]) if rounds else np.zeros(0, np.int64)


def _escape_bytes(beyond: Ints, last: Ints) -> bytes:
    """Escape bits of symbols that lie `beyond` the first of their tables, whose escape entry is `last`; in the order of decoding, as stored."""
    bits = []
    for b, n in zip(beyond.tolist(), last.tolist(), strict=True):
        value = -b if b < 0 else b - n + 1      # e + 1
        bits.append(f"{int(b < 0)}{value:0{2 * value.bit_length() - 1}b}")
    joined = "".join(bits)
    size = -(-len(joined) // 8)
    return int(joined.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")[::-1]


# ---- decoder (FORMAT 6.2, 6.3) ----

_CORRUPT = {
    5: "it ends before its last symbol",
    6: f"an escape has more than {ESCAPE_ZEROS_MAX} leading zeros or its symbol reaches +-{SYMBOL_LIMIT}",
    7: f"a lane state is below {STATE_LOW} at its start or not {STATE_LOW} at its end",
    8: "words and escape bits do not fill it",
}


class BandDecoder:
    """Decodes one band in the order of FORMAT 6.1: `decode` for z and for each phase, then `finish`. After CorruptStream it is of no more use."""

    def __init__(self, payload: bytes, combined: CombinedTables, lanes_log2: int) -> None:
        """Raises CorruptStream if the states are missing or out of range."""
        if not 0 <= lanes_log2 <= LANES_LOG2_MAX:
            raise CorruptStream(f"a band with 2^{lanes_log2} rANS lanes, at most 2^{LANES_LOG2_MAX} are allowed")
        if len(payload) < 4 << lanes_log2:
            raise CorruptStream(f"a band of {len(payload)} bytes, its {1 << lanes_log2} lane states alone take {4 << lanes_log2}")
        self._payload, self._combined, self._library = payload, combined, native.library
        if self._library is not None:
            self._state = np.zeros(self._library.DECODER_WORDS, np.uint32)
            self._check(self._library.decoder_start(self._state, payload, lanes_log2))
            return
        self._states = np.frombuffer(payload, "<u4", 1 << lanes_log2).tolist()
        self._words = np.frombuffer(payload, "<u2", (len(payload) - (4 << lanes_log2)) // 2, 4 << lanes_log2).tolist()
        self._lane = self._next = self._bits = 0      # lane of the next symbol, words and escape bits read
        if min(self._states) < STATE_LOW:
            raise self._corrupt(_CORRUPT[7])

    def decode(self, tables: NDArray[np.uint16]) -> NDArray[np.int32]:
        """The next symbols int32[n], with their tables [n]. Raises CorruptStream, or ValueError for a table that does not exist."""
        if self._library is not None:
            symbols, c = np.empty(len(tables), np.int32), self._combined
            self._check(self._library.decode(self._state, self._payload, native.plain(tables, np.uint16), symbols, c.first, c.start, c.cdf, c.lookup))
            return symbols
        if len(tables) and not 0 <= tables.min() <= tables.max() < len(self._combined.first):
            raise ValueError(_BUGS[3])
        return np.array(self._decode(_given(tables))[0], np.int32)

    def decode_hyper(self, rows: int, columns: int, channels: int) -> NDArray[np.uint8]:
        """The hyper-latents uint8[rows,columns,channels] of the band, which come first. Raises CorruptStream."""
        z = np.empty((rows, columns, channels), np.uint8)
        for r, q in np.ndindex(rows, columns):
            left = z[r, q - 1] if q else z[r - 1, 0] if r else np.full(channels, LATENT_OFFSET)
            symbols = self.decode(hyper_tables(left))
            if symbols.min() < 0 or symbols.max() > 255:
                raise self._corrupt("a hyper-latent is not in 0..255")
            z[r, q] = symbols
        return z

    def decode_latents(self, level: NDArray[np.uint16], adaptation: Adaptation) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """The next phase, with levels uint16[...,M]: (symbols int32[...,M], 0 where they are not coded; the tables of y that they had uint16[...,M],
        0 there). Raises CorruptStream."""
        symbols, a, c = np.zeros(level.shape, np.int32), adaptation, self._combined
        if self._library is not None:
            tables = level.copy()
            self._check(self._library.decode_latents(self._state, self._payload, a.score, a.channel, tables, symbols, c.first, c.start, c.cdf,
                                                     c.lookup, a.coded_from, a.offset))
            return symbols, tables
        tables, coded = np.zeros_like(level), level >= a.lowest
        symbols[coded], numbers = self._decode(a.walk(level))
        tables[coded] = np.array(numbers, np.int64) - a.offset
        return symbols, tables

    def finish(self) -> None:
        """Raises CorruptStream unless the symbols decoded so far are the whole band."""
        if self._library is not None:
            self._check(self._library.decoder_finish(self._state, self._payload))
            return
        if any(x != STATE_LOW for x in self._states):
            raise self._corrupt(_CORRUPT[7])
        if self._words_end() + self._escape_size() != len(self._payload):
            raise self._corrupt(_CORRUPT[8])

    def _check(self, status: int) -> None:
        if status in _BUGS:
            raise ValueError(_BUGS[status])
        if status:
            raise self._corrupt(_CORRUPT[status])

    def _corrupt(self, what: str) -> CorruptStream:
        return CorruptStream(f"a band of {len(self._payload)} bytes is damaged: {what}")

    def _words_end(self) -> int:
        return 4 * len(self._states) + 2 * self._next

    def _escape_size(self) -> int:
        return -(-self._bits // 8)

    def _decode(self, walk: Walk) -> tuple[list[int], list[int]]:
        """The next symbols and their tables, which come one by one: each may depend on the symbol before."""
        c = self._combined
        entry_of_slot, (frequency, cdf, first, start) = c.entry_of_slot.data, c.plain
        words, states, mask = self._words, self._states, len(self._states) - 1
        symbols: list[int] = []
        tables: list[int] = []
        table = following(walk, None)
        while table is not None:
            x = states[self._lane]
            slot = x & _TOTAL - 1
            g = entry_of_slot[(table << PROBABILITY_BITS) + slot]
            x = frequency[g] * (x >> PROBABILITY_BITS) + slot - cdf[g]
            if x < STATE_LOW:
                if self._next == len(words):
                    raise self._corrupt(_CORRUPT[5])
                x = x << 16 | words[self._next]
                self._next += 1
            states[self._lane] = x
            self._lane = self._lane + 1 & mask
            symbol = first[table] + g - start[table]
            symbols.append(self._escape(first[table], symbol) if g == start[table + 1] - 2 else symbol)
            tables.append(table)
            table = following(walk, symbols[-1])
        if self._words_end() + self._escape_size() > len(self._payload):
            raise self._corrupt(_CORRUPT[5])
        return symbols, tables

    def _bit(self) -> int:
        if self._bits // 8 >= len(self._payload) - self._words_end():
            raise self._corrupt(_CORRUPT[5])
        byte = self._payload[len(self._payload) - 1 - self._bits // 8]
        self._bits += 1
        return byte >> 7 - (self._bits - 1) % 8 & 1

    def _escape(self, first: int, above: int) -> int:
        """An escaped symbol, below `first` or from `above` on."""
        negative, zeros, value = self._bit(), 0, 1
        while not self._bit():
            zeros += 1
            if zeros > ESCAPE_ZEROS_MAX:
                raise self._corrupt(_CORRUPT[6])
        for _ in range(zeros):
            value = value << 1 | self._bit()
        symbol = first - value if negative else above + value - 1
        if abs(symbol) >= SYMBOL_LIMIT:
            raise self._corrupt(_CORRUPT[6])
        return symbol


def _given(tables: NDArray[np.uint16]) -> Walk:
    for table in tables.tolist():       # noqa: UP028  a list, to which `yield from` would hand them on, takes no symbols back
        yield table


def estimated_bits(symbols: NDArray[np.int32], tables: NDArray[np.uint16], combined: CombinedTables, network: Network) -> NDArray[np.float32]:
    """Bits of the symbols int32[h,w,M] with tables uint16[h,w,M] of y, summed over the channels: float32[h,w]. For reports, not normative."""
    places = tables >= network.coded_from
    coded, numbers = symbols[places], tables[places].astype(np.int64) + combined.hyper
    last = combined.start[1:] - combined.start[:-1] - 2
    beyond = coded - combined.first[numbers]
    escaped = (beyond < 0) | (beyond >= last[numbers])
    entry_bits = (PROBABILITY_BITS - np.log2(np.maximum(combined.frequency, 1))).astype(np.float32)
    bits = entry_bits[combined.start[numbers] + np.where(escaped, last[numbers], beyond)]
    value = np.where(beyond < 0, -beyond, beyond - last[numbers] + 1)[escaped]       # e + 1
    bits[escaped] += 2 * np.floor(np.log2(value)).astype(np.float32) + 2
    positions = np.flatnonzero(places) // tables.shape[-1]
    return np.bincount(positions, bits, tables[..., 0].size).astype(np.float32).reshape(tables.shape[:-1])
