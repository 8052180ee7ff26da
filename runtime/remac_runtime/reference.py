"""The normative codec in int64 NumPy and plain Python, in the order of FORMAT.md, whose rule numbers stand in the comments.

FORMAT 2 (packets) is reference_packets.py, FORMAT 4 (files) is network.py; the rest is here. Slow and obvious on purpose, and never optimised. Where
a faster implementation differs, this one is right. The two reference files import no other part of the runtime but the constants, the errors and
the reader of network files, so that a mistake elsewhere cannot be shared.
"""
from __future__ import annotations

import bisect
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream, WrongModel
from remac_runtime.format import (
    BAND_ROWS,
    BAND_UNIT,
    ENCODER_LANES_LOG2_MAX,
    ENCODER_SYMBOLS_PER_LANE,
    GAIN_BITS,
    HYPER_STRIDE,
    LATENT_OFFSET,
    LATENT_STRIDE,
    NEIGHBOURS,
    NO_REFERENCE,
    PAD_MULTIPLE,
    PHASES,
    PROBABILITY_BITS,
    QUALITIES,
    SCALE_FRACTION_BITS,
    SCALE_LEVELS,
    SIDE_MAX,
    STATE_LOW,
    SYMBOL_LIMIT,
)
from remac_runtime.network import Bank, Layer, Network, Tables
from remac_runtime.reference_packets import (
    EARLIER_IMAGE,
    HEADER_SYNC,
    MAJOR,
    REFERENCE_SECTION,
    STREAM,
    Header,
    Packet,
    join_band,
    read_packets,
    write_stream,
)

Ints = NDArray[np.int64]
Trace = dict[str, NDArray[Any]]
Reference = tuple[Ints, Ints]

# ---- FORMAT 3: samples ------------------------------------------------------------------------------------------------------------------------

def expansion(depth: int) -> list[int]:
    """I(n) of the 256 companded codes."""
    return [(n * n * (2 ** depth - 1) + 32512) // 65025 for n in range(256)]


def compand(samples: Ints, depth: int) -> Ints:
    """The code n whose I(n) is nearest, the lower n on a tie."""
    code, best = np.zeros_like(samples), np.full_like(samples, 1 << 16)
    for n, intensity in enumerate(expansion(depth)):
        distance = np.abs(samples - intensity)
        code, best = np.where(distance < best, n, code), np.minimum(distance, best)
    return code


def pixel_tensor(samples: NDArray[Any], depth: int) -> Ints:
    """uint8[H,W,3] or uint8|uint16[H,W] of `depth` bits -> padded pixels int64[H',W',3] in 0..255."""
    if not (samples.ndim == 2 and 8 <= depth <= 16) and not (samples.ndim == 3 and samples.shape[2] == 3 and depth == 8):
        raise BadInput(f"samples of shape {samples.shape} and {depth} bits: give [H,W] of 8 to 16 bits or [H,W,3] of 8 bits")
    if not (1 <= samples.shape[0] <= SIDE_MAX and 1 <= samples.shape[1] <= SIDE_MAX):
        raise BadInput(f"picture of {samples.shape[1]}x{samples.shape[0]}: sides are 1..{SIDE_MAX}")
    pixels = samples.astype(np.int64)
    if pixels.min() < 0 or pixels.max() >= 2 ** depth:
        raise BadInput(f"a sample is not in 0..{2 ** depth - 1}: state the right bit depth")
    if depth > 8:
        pixels = compand(pixels, depth)
    if pixels.ndim == 2:
        pixels = np.stack([pixels, pixels, pixels], axis=2)
    return np.pad(pixels, ((0, -pixels.shape[0] % PAD_MULTIPLE), (0, -pixels.shape[1] % PAD_MULTIPLE), (0, 0)), mode="edge")


# ---- FORMAT 5: arithmetic (FORMAT 4, the files, is network.py) ----------------------------------------------------------------------------------

def rne(a: Ints, s: Ints) -> Ints:
    """5.1: a * 2^-s rounded half to even; s broadcasts over the last axis."""
    right, left = np.maximum(s, 1), np.maximum(-s, 0)
    return np.where(s > 0, (a + (np.int64(1) << (right - 1)) - 1 + ((a >> right) & 1)) >> right, a << left)


def run_layer(layer: Layer, x: Ints) -> Ints:
    """5.2: x int64[h,w,in] -> int64[h/stride,w/stride,out]."""
    stride, kernel = layer.stride, layer.weight.shape[1]
    rows, columns, margin = x.shape[0] // stride, x.shape[1] // stride, kernel // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
    acc = np.zeros((rows, columns, len(layer.bias)), np.int64) + layer.bias.astype(np.int64)
    for dy in range(kernel):
        for dx in range(kernel):
            tap = padded[dy:dy + stride * rows:stride, dx:dx + stride * columns:stride]
            acc += tap @ layer.weight[:, dy, dx, :].astype(np.int64).T
    out = rne(acc, layer.shift.astype(np.int64))
    return out if layer.head else np.clip(out, 0, 255)


def space_to_depth(x: Ints, b: int) -> Ints:
    """5.2: int64[h,w,c] -> int64[h/b,w/b,b*b*c]."""
    return np.concatenate([x[dy::b, dx::b] for dy in range(b) for dx in range(b)], axis=2)


@dataclass(frozen=True)
class Run:
    """A network at work: called with a layer's name and input. `trace` collects the outputs by name, bands one below the other."""

    network: Network
    trace: Trace | None = None

    def __call__(self, name: str, x: Ints) -> Ints:
        out = run_layer(self.network.layers[name], x)
        if self.trace is not None:
            self.trace[name] = np.concatenate([self.trace[name], out]) if name in self.trace else out
        return out


def analyse(run: Run, pixels: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """5.3: padded pixels -> y [H/16,W/16,M], z [H/64,W/64,Z], texture and semantic descriptors [C]."""
    body = run("body", run("stem", space_to_depth(pixels, 8)))
    deep = run("deep", run("reduce", body))
    y = run("head", np.concatenate([deep, space_to_depth(pixels, 16)], axis=2))
    z = run("hyper_out", space_to_depth(run("hyper_in", space_to_depth(deep, 2)), 2))
    texture, semantic = (t.sum((0, 1)) // (t.shape[0] * t.shape[1]) for t in (body, deep))
    return y, z, texture, semantic


def choose_references(bank: Bank, texture: Ints, semantic: Ints) -> tuple[int, int]:
    """5.4: (semantic, texture) entries of the bank; argmin takes the lower id on a tie."""
    return (int(np.argmin(np.abs(bank.semantic.astype(np.int64) - semantic).sum(1))),
            int(np.argmin(((bank.texture.astype(np.int64) - texture) ** 2).sum(1))))


def open_reference(run: Run, bank: Bank | None, semantic: int) -> Reference | None:
    """5.4: the hyper-latents [4,4,Z] and the features [8,8,R] of the semantic entry; None without one."""
    if bank is None or semantic == NO_REFERENCE:
        return None
    return bank.z[semantic].astype(np.int64), run("reference", np.concatenate(list(bank.planes[semantic].astype(np.int64)), axis=2))


def match_features(network: Network, reference: Reference | None, z: Ints) -> Ints:
    """5.4: reference features [2h,2w,R] of a band's z [h,w,Z]."""
    rows, columns = z.shape[:2]
    features = np.zeros((2 * rows, 2 * columns, network.reference_features), np.int64)
    if reference is None:
        return features
    entry, f = reference
    for r in range(rows):
        for q in range(columns):
            a, b = divmod(int(np.argmin(np.abs(entry - z[r, q]).sum(2))), 4)
            features[2 * r:2 * r + 2, 2 * q:2 * q + 2] = f[2 * a:2 * a + 2, 2 * b:2 * b + 2]
    return features


def neighbour(plane: Ints, dy: int, dx: int) -> Ints:
    """5.5: the plane's latents at offset (dy, dx), LATENT_OFFSET outside the band (5.4)."""
    padded = np.pad(plane, ((1, 1), (1, 1), (0, 0)), constant_values=LATENT_OFFSET)
    return padded[1 + dy:1 + dy + plane.shape[0], 1 + dx:1 + dx + plane.shape[1]]


def band_latents(run: Run, reference: Reference | None, z: Ints, quality: int, symbols: Callable[[int, Ints, Ints], Ints]) -> Ints:
    """5.5: y_hat [4h,4w,M] of a band. `symbols(phase, mu, index)` gives k: it quantises in the encoder, decodes in the decoder."""
    network, features = run.network, match_features(run.network, reference, z)
    side = run("side_out", run("side_mid", run("side_in", z)).repeat(2, axis=0).repeat(2, axis=1))
    y_hat = np.zeros((4 * z.shape[0], 4 * z.shape[1], network.latents), np.int64)
    planes: list[Ints] = []
    for p, (row, column) in enumerate(PHASES):
        near = [neighbour(planes[i][:, :, :network.context], dy, dx) for i, dy, dx in NEIGHBOURS[p]]
        hidden = run(f"hidden{p}", np.concatenate([side, features, *near], axis=2))
        mu, scale = run(f"mean{p}", hidden), run(f"scale{p}", hidden)
        half = 1 << SCALE_FRACTION_BITS - 1
        index = np.clip((scale + network.scale_offset[quality] + half) >> SCALE_FRACTION_BITS, 0, SCALE_LEVELS - 1)
        latents = np.clip(mu + symbols(p, mu, index) * network.inverse_gain[quality], -2 ** 31, 2 ** 31 - 1)
        y_hat[row::2, column::2] = latents
        planes.append(np.clip(rne(latents, network.context_shift.astype(np.int64)) + LATENT_OFFSET, 0, 255))
    return y_hat


def quantise(network: Network, quality: int, y: Ints, mu: Ints, index: Ints) -> Ints:
    """5.5: the encoder's k."""
    v = (y - mu) * network.gain[quality]
    magnitude = (np.abs(v) + network.rounding.astype(np.int64)[index]) >> GAIN_BITS
    return np.where(index < network.coded_from, 0, np.sign(v) * np.minimum(magnitude, SYMBOL_LIMIT - 1))


# ---- FORMAT 6: entropy coder --------------------------------------------------------------------------------------------------------------------

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


# ---- the codec, with the order of the symbols (6.1) -----------------------------------------------------------------------------------------------

def code_band(run: Run, reference: Reference | None, y: Ints, z: Ints, quality: int) -> list[tuple[Table, int]]:
    """The symbols of a band with their tables, in the order of 6.1."""
    z_tables, y_tables = tables_of(run.network.z_tables), tables_of(run.network.y_tables)
    coded = [(z_tables[i % len(z_tables)], int(k)) for i, k in enumerate(z.ravel())]

    def symbols(p: int, mu: Ints, index: Ints) -> Ints:
        k = quantise(run.network, quality, y[PHASES[p][0]::2, PHASES[p][1]::2], mu, index)
        coded.extend((y_tables[i], int(s)) for i, s in zip(index.ravel(), k.ravel(), strict=True) if i >= run.network.coded_from)
        return k

    band_latents(run, reference, z, quality, symbols)
    return coded


def encode(samples: NDArray[Any], depth: int, network: Network, bank: Bank | None, quality: int, *, band_rows: int = BAND_ROWS,
           image_id: int | None = None, trace: Trace | None = None, band_qualities: Sequence[int] | None = None) -> bytes:
    """The stream of samples uint8[H,W,3] or uint8|uint16[H,W]; references are used where a bank is given. Raises BadInput.

    `band_qualities` replaces the base quality band by band; `trace` collects the output of every layer.
    """
    if band_rows % BAND_UNIT or not BAND_UNIT <= band_rows <= 255 * BAND_UNIT:
        raise BadInput(f"{band_rows} rows a band: give a multiple of {BAND_UNIT} up to {255 * BAND_UNIT}")
    run = Run(network, trace)
    y, z, texture, semantic = analyse(run, pixel_tensor(samples, depth))
    entries = choose_references(bank, texture, semantic) if bank else (NO_REFERENCE, NO_REFERENCE)
    reference = open_reference(run, bank, entries[0])
    common = Header(b"", 0, 0, 0, 0, 0, 0, network.hash[:4], bank.hash[:4] if bank else bytes(4), samples.shape[1], samples.shape[0],
                    depth - 1 | (samples.ndim == 2) << 4 | (depth > 8) << 5, band_rows // BAND_UNIT, 0, 0, 1 if bank else 0, *entries, 0)
    qualities = [quality] * common.bands() if band_qualities is None else list(band_qualities)
    if len(qualities) != common.bands() or not all(0 <= q < QUALITIES for q in (quality, *qualities)):
        raise BadInput(f"qualities {quality}, {qualities}: give 0..{QUALITIES - 1}, one for each of {common.bands()} bands")
    bands = []
    for band, q in enumerate(qualities):
        coded = code_band(run, reference, y[common.rows(band, LATENT_STRIDE)], z[common.rows(band, HYPER_STRIDE)], q)
        lanes_log2 = lanes_log2_for(len(coded))
        bands.append((q, lanes_log2, encode_symbols(coded, lanes_log2)))
    return write_stream(common, network, bank, quality, bands, image_id=image_id)


@dataclass(frozen=True)
class Latents:
    """What the ground decoder gets: y_hat int32[H/16,W/16,M] of the padded picture (0 in lost bands), the common header fields, the lost bands."""

    y_hat: NDArray[np.int32]
    header: Header
    qualities: tuple[int | None, ...]
    lost: tuple[int, ...]


def check_model(packets: Sequence[Packet], network: Network, bank: Bank | None) -> None:
    """2, 2.1, 3: the stream is of this version, this network and this bank. Raises UnsupportedStream, WrongModel or CorruptStream."""
    h = packets[0][0]
    depth, grey, companding = (h.sample & 15) + 1, h.sample >> 4 & 1, h.sample >> 5
    for major, *_ in (STREAM.unpack_from(payload) for header, payload in packets if header.sync == HEADER_SYNC):
        if major != MAJOR:
            raise UnsupportedStream(f"stream version {major}, this build reads {MAJOR}: use a newer remac")
    if h.reference_kind == EARLIER_IMAGE or not ((depth, companding) == (8, 0) or (depth > 8 and grey and companding == 1)):
        raise UnsupportedStream(f"reference kind {h.reference_kind}, {depth} bits with companding {companding}: use a newer remac")
    if h.codec_tag != network.hash[:4]:
        raise WrongModel(f"coded with network {h.codec_tag.hex()}, loaded is {network.hash.hex()}: load that network")
    if h.reference_kind and (bank is None or h.bank_tag != bank.hash[:4]):
        raise WrongModel(f"coded with bank {h.bank_tag.hex()}, loaded is {bank.hash.hex() if bank else 'none'}: load that bank")
    if h.semantic != NO_REFERENCE and (bank is None or h.semantic >= len(bank)):
        raise CorruptStream(f"semantic reference {h.semantic} is not in the bank")


def decode_band(run: Run, reference: Reference | None, header: Header, payload: bytes) -> Ints:
    """y_hat [4h,4w,M] of a joined band. Raises CorruptStream or UnsupportedStream."""
    if header.coder & REFERENCE_SECTION:
        raise UnsupportedStream(f"band {header.band}: block vectors need a newer remac")
    z_tables, y_tables, coded_from = tables_of(run.network.z_tables), tables_of(run.network.y_tables), run.network.coded_from
    decoder, rows = SymbolDecoder(payload, header.coder & 15), header.rows(header.band, HYPER_STRIDE)
    shape = (rows.stop - rows.start, header.padded()[1] // HYPER_STRIDE, len(z_tables))
    z = np.array([decoder.next(z_tables[i % len(z_tables)]) for i in range(shape[0] * shape[1] * shape[2])], np.int64).reshape(shape)
    if z.min() < 0 or z.max() > 255:
        raise CorruptStream(f"band {header.band}: a hyper-latent is not in 0..255")

    def symbols(p: int, mu: Ints, index: Ints) -> Ints:
        return np.array([decoder.next(y_tables[i]) if i >= coded_from else 0 for i in index.ravel()], np.int64).reshape(index.shape)

    y_hat = band_latents(run, reference, z, header.quality, symbols)
    decoder.finish()
    return y_hat


def decode_latents(data: bytes, network: Network, bank: Bank | None, trace: Trace | None = None) -> Latents:
    """The latents of a stream and its lost bands. Raises CorruptStream, UnsupportedStream or WrongModel where nothing can be decoded."""
    packets = read_packets(data)
    check_model(packets, network, bank)
    header, run = packets[0][0].common(), Run(network, trace)
    reference = open_reference(run, bank, header.semantic)
    y_hat = np.zeros((header.padded()[0] // LATENT_STRIDE, header.padded()[1] // LATENT_STRIDE, network.latents), np.int32)
    qualities: list[int | None] = [None] * header.bands()
    for band in range(header.bands()):
        try:
            first, payload = join_band(packets, band)
            y_hat[header.rows(band, LATENT_STRIDE)] = decode_band(run, reference, first, payload)
            qualities[band] = first.quality
        except (CorruptStream, UnsupportedStream):
            continue
    return Latents(y_hat, header, tuple(qualities), tuple(band for band, quality in enumerate(qualities) if quality is None))
