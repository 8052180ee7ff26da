"""FORMAT 6.2 and 6.3 of the normative codec: the entropy coder, in plain Python. See reference.py."""
from __future__ import annotations

import bisect
import struct
from collections.abc import Sequence
from typing import NamedTuple

from remac_runtime.errors import CorruptStream
from remac_runtime.format import ENCODER_LANES_LOG2_MAX, ENCODER_SYMBOLS_PER_LANE, PROBABILITY_BITS, STATE_LOW, SYMBOL_LIMIT
from remac_runtime.network import Tables


class Table(NamedTuple):
    """4.2: entry j has the cumulative frequencies cdf[j]..cdf[j+1] and is the symbol first + j; the last entry is the escape."""

    first: int
    cdf: list[int]

    def escape(self) -> int:
        return len(self.cdf) - 2


def tables_of(tables: Tables) -> list[Table]:
    return [Table(int(tables.first[t]), tables.cdf[tables.start[t]:tables.start[t + 1]].tolist()) for t in range(len(tables))]


def lanes_log2_for(n: int) -> int:
    """6.2: clamp(floor(log2(max(n, 1) / 32768)), 0, 6)."""
    return min(max((n // ENCODER_SYMBOLS_PER_LANE).bit_length() - 1, 0), ENCODER_LANES_LOG2_MAX)


def escape_bits(table: Table, k: int) -> str:
    """6.3: sign, then Exp-Golomb order 0, as a string of 0 and 1."""
    e = table.first - 1 - k if k < table.first else k - (table.first + table.escape())
    return "01"[k < table.first] + "0" * ((e + 1).bit_length() - 1) + f"{e + 1:b}"


def encode_symbols(symbols: Sequence[tuple[Table, int]], lanes_log2: int) -> bytes:
    """6.2, 6.3: the coded band of (table, symbol) in the order of decoding."""
    states, words, bits, entries = [STATE_LOW] * (1 << lanes_log2), [], "", []
    for table, k in symbols:
        j = k - table.first
        if not 0 <= j < table.escape():
            j, bits = table.escape(), bits + escape_bits(table, k)
        entries.append((table.cdf[j + 1] - table.cdf[j], table.cdf[j]))
    for n in range(len(entries) - 1, -1, -1):
        (f, c), x = entries[n], states[n % len(states)]
        if x >= f << 18:
            words.append(x & 0xFFFF)
            x >>= 16
        states[n % len(states)] = ((x // f) << PROBABILITY_BITS) + x % f + c
    bits += "0" * (-len(bits) % 8)
    escapes = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))[::-1]
    return struct.pack(f"<{len(states)}I{len(words)}H", *states, *words[::-1]) + escapes


class SymbolDecoder:
    """6.2, 6.3: `next` for every symbol, then `finish`. Raises CorruptStream."""

    def __init__(self, payload: bytes, lanes_log2: int) -> None:
        if len(payload) < 4 << lanes_log2:
            raise CorruptStream(f"a band of {len(payload)} bytes is too short for {1 << lanes_log2} lanes")
        self.payload, self.at, self.count, self.bits = payload, 4 << lanes_log2, 0, 0
        self.states = list(struct.unpack_from(f"<{1 << lanes_log2}I", payload))
        if min(self.states) < STATE_LOW:
            raise CorruptStream("a state is below 2^16 at the start of the band")

    def next(self, table: Table) -> int:
        x = self.states[self.count % len(self.states)]
        slot = x & (1 << PROBABILITY_BITS) - 1
        j = bisect.bisect_right(table.cdf, slot) - 1
        x = (table.cdf[j + 1] - table.cdf[j]) * (x >> PROBABILITY_BITS) + slot - table.cdf[j]
        if x < STATE_LOW:
            if self.at + 2 > len(self.payload):
                raise CorruptStream("the words of the band run out")
            x = x << 16 | self.payload[self.at] | self.payload[self.at + 1] << 8
            self.at += 2
        self.states[self.count % len(self.states)] = x
        self.count += 1
        return self._escaped(table) if j == table.escape() else table.first + j

    def _bit(self) -> int:
        if self.bits // 8 >= len(self.payload):
            raise CorruptStream("the escape bits of the band run out")
        self.bits += 1
        return self.payload[len(self.payload) - 1 - (self.bits - 1) // 8] >> 7 - (self.bits - 1) % 8 & 1

    def _escaped(self, table: Table) -> int:
        below, m, value = self._bit(), 0, 1
        while not self._bit():
            m += 1
            if m > 20:
                raise CorruptStream("an escape has more than 20 leading zeros")
        for _ in range(m):
            value = value << 1 | self._bit()
        k = table.first - value if below else table.first + table.escape() + value - 1
        if abs(k) >= SYMBOL_LIMIT:
            raise CorruptStream(f"an escaped symbol reaches {SYMBOL_LIMIT}")
        return k

    def finish(self) -> None:
        if self.at + -(-self.bits // 8) != len(self.payload):
            raise CorruptStream("words and escapes do not fill the band")
        if any(x != STATE_LOW for x in self.states):
            raise CorruptStream("a state is not 2^16 at the end of the band")
