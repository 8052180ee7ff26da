"""Streams put together by hand: the reference codec's analysis and arithmetic, but packets and bands written as a case wants them.

Nothing here comes from the fast runtime, which is what the streams are to test.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from remac_runtime import reference, reference_coder
from remac_runtime.format import BAND_UNIT, HYPER_STRIDE, LATENT_STRIDE, NO_REFERENCE
from remac_runtime.network import Bank, Network
from remac_runtime.reference_packets import FIELDS, Header, Packet, crc32c, details_of, read_packets, write_packet, write_stream

Coded = list[tuple[reference_coder.Table, int]]
Choose = Callable[[int, tuple[int, int, int]], int]


class Parts(NamedTuple):
    """A coded band (FORMAT 6.2) in its three parts: states and words as bytes, escape bits as a string of 0 and 1."""

    states: bytes
    words: bytes
    bits: str

    def payload(self, unused: str = "0") -> bytes:
        """The band; `unused` fills the last escape byte."""
        bits = self.bits + unused * (-len(self.bits) % 8)
        return self.states + self.words + bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))[::-1]


def parts_of(coded: Coded, lanes_log2: int = 0) -> Parts:
    """The reference's band, taken apart."""
    payload = reference_coder.encode_symbols(coded, lanes_log2)
    bits = "".join(reference_coder.escape_bits(table, k) for table, k in coded if not 0 <= k - table.first < table.escape())
    states, end = 4 << lanes_log2, len(payload) - -(-len(bits) // 8)
    parts = Parts(payload[:states], payload[states:end], bits)
    assert parts.payload() == payload
    return parts


def raw_packet(header: Header, payload: bytes) -> bytes:
    """A packet with the header's own length, right or wrong, and a CRC that fits."""
    fields = FIELDS.pack(*header)
    return fields + struct.pack("<I", crc32c(fields + payload)) + payload


def join(packets: Iterable[Packet]) -> bytes:
    return b"".join(write_packet(*packet) for packet in packets)


class Scene:
    """A picture analysed by the reference, at a quality and band height, and what its encoder would send."""

    def __init__(self, samples: NDArray[Any], depth: int, network: Network, bank: Bank | None, quality: int, band_rows: int,
                 entries: tuple[int, int] | None = None) -> None:
        """`entries` are the semantic and the texture reference, else those that FORMAT 5.4 chooses."""
        self.network, self.bank, self.quality = network, bank, quality
        self.run = reference.Run(network)
        self.y, self.z, texture, semantic = reference.analyse(self.run, reference.pixel_tensor(samples, depth))
        chosen = reference.choose_references(bank, texture, semantic) if bank else (NO_REFERENCE, NO_REFERENCE)
        entries = chosen if entries is None else entries
        self.common = Header(b"", 0, 0, 0, 0, 0, 0, network.hash[:4], bank.hash[:4] if bank else bytes(4), samples.shape[1], samples.shape[0],
                             depth - 1 | (samples.ndim == 2) << 4 | (depth > 8) << 5, band_rows // BAND_UNIT, 0, 0, 1 if bank else 0, *entries, 0)
        self.entry = reference.open_reference(self.run, bank, entries[0])

    def coded(self, band: int, quality: int | None = None) -> Coded:
        """The symbols of a band as the encoder would code them."""
        y, z = self.y[self.common.rows(band, LATENT_STRIDE)], self.z[self.common.rows(band, HYPER_STRIDE)]
        return reference.code_band(self.run, self.entry, y, z, self.quality if quality is None else quality)

    def freely_coded(self, z: NDArray[np.int64], quality: int, choose: Choose) -> Coded:
        """The symbols of a band with hyper-latents z [h,w,Z] of any values; `choose(table, place)` gives the symbol at a place [h,w,M] of a phase."""
        z_tables, y_tables = reference_coder.tables_of(self.network.z_tables), reference_coder.tables_of(self.network.y_tables)
        coded = [(z_tables[reference.hyper_table(z, *place)], int(z[place])) for place in np.ndindex(z.shape)]
        adaptation = reference.Adaptation(self.network)

        def chosen(table: int, place: tuple[int, int, int]) -> int:
            k = choose(table, place)
            coded.append((y_tables[table], k))
            return k

        reference.band_latents(self.run, self.entry, z, quality, lambda phase, mu, level: adaptation.phase(level, chosen))
        return coded

    def packets_of(self, payloads: Sequence[tuple[int, int, bytes]]) -> list[Packet]:
        """The packets of (quality, coder, bytes) of every band."""
        return read_packets(write_stream(self.common, self.network, self.bank, payloads))

    @cached_property
    def symbols(self) -> list[Coded]:
        """Of every band, as the encoder would code them."""
        return [self.coded(band) for band in range(self.common.bands())]

    @cached_property
    def packets(self) -> list[Packet]:
        """What our encoder sends: one packet a band in all scenes that count on it."""
        lanes = [reference_coder.lanes_log2_for(len(coded)) for coded in self.symbols]
        return self.packets_of([(self.quality, n, reference_coder.encode_symbols(coded, n)) for n, coded in zip(lanes, self.symbols, strict=True)])

    @cached_property
    def details(self) -> bytes:
        """What the payload of the first packet begins with."""
        return details_of(*self.packets[0]) or b""

    @cached_property
    def parts(self) -> list[bytes]:
        """The payloads of the packets without the details."""
        (_, first), *others = self.packets
        return [first[len(self.details):], *(payload for _, payload in others)]
