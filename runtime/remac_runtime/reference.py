"""The normative codec in int64 NumPy and plain Python, in the order of FORMAT.md, whose rule numbers stand in the comments.

FORMAT 2 (packets) is reference_packets.py, FORMAT 4 (files) is network.py, FORMAT 6.2 and 6.3 (the entropy coder) are reference_coder.py; the rest is
here. Slow and obvious on purpose, and never optimised. Where a faster implementation differs, this one is right. The three reference files import
no other part of the runtime but the constants, the errors and the reader of network files, so that a mistake elsewhere cannot be shared.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream, WrongModel
from remac_runtime.format import (
    ADAPTATION_BITS,
    ADAPTATION_LIMIT,
    BAND_ROWS,
    BAND_UNIT,
    CHANNEL_SHIFT,
    GAIN_BITS,
    HYPER_CONTEXTS,
    HYPER_STRIDE,
    LATENT_OFFSET,
    LATENT_STRIDE,
    LEVEL_MAX,
    MOSAIC_SIDE_MIN,
    MOSAICS,
    NEIGHBOURS,
    NO_REFERENCE,
    PAD_MULTIPLE,
    PHASES,
    POSITION_SHIFT,
    QUALITIES,
    ROUNDING,
    SCALE_FRACTION_BITS,
    SCALE_LEVELS,
    SCORE_SIZES,
    SIDE_MAX,
    SYMBOL_LIMIT,
)
from remac_runtime.network import Bank, Layer, Network
from remac_runtime.reference_coder import SymbolDecoder, Table, encode_symbols, lanes_log2_for, tables_of
from remac_runtime.reference_packets import (
    EARLIER_IMAGE,
    REFERENCE_SECTION,
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


def interpolate_anew(pixels: Ints, mosaic: int) -> Ints:
    """3.1: [H,W,3] -> [H,W,3]; of each pixel only the sample of its own colour counts."""
    height, width, _ = pixels.shape
    red_row, red_column = (mosaic - 1) // 2, (mosaic - 1) % 2
    row, column = np.arange(height)[:, None] % 2 == red_row, np.arange(width) % 2 == red_column
    red, blue = row & column, ~row & ~column
    m = np.where(red, pixels[..., 0], np.where(blue, pixels[..., 2], pixels[..., 1]))

    def near(dy: int, dx: int) -> Ints:
        rows, columns = ([min(abs(i + d), 2 * (n - 1) - (i + d)) for i in range(n)] for n, d in ((height, dy), (width, dx)))
        moved: Ints = m[rows][:, columns]
        return moved

    def guess(own: int, weights: dict[tuple[int, int], int]) -> Ints:
        total = own * m
        for (dy, dx), weight in weights.items():
            total = total + weight * near(dy, dx)
        clipped: Ints = np.clip((total + 32) >> 6, 0, 255)
        return clipped

    beside, diagonal = ((0, -1), (0, 1), (-1, 0), (1, 0)), ((-1, -1), (-1, 1), (1, -1), (1, 1))
    two_steps = ((0, -2), (0, 2), (-2, 0), (2, 0))
    green = guess(24, dict.fromkeys(beside, 16) | dict.fromkeys(two_steps, -6))
    along_row = guess(30, {(0, -1): 32, (0, 1): 32, (0, -2): -6, (0, 2): -6, (-2, 0): 3, (2, 0): 3} | dict.fromkeys(diagonal, -6))
    along_column = guess(30, {(-1, 0): 32, (1, 0): 32, (-2, 0): -6, (2, 0): -6, (0, -2): 3, (0, 2): 3} | dict.fromkeys(diagonal, -6))
    opposite = guess(36, dict.fromkeys(diagonal, 16) | dict.fromkeys(two_steps, -9))
    return np.stack([np.where(red, m, np.where(blue, opposite, np.where(row, along_row, along_column))),
                     np.where(red | blue, green, m),
                     np.where(blue, m, np.where(red, opposite, np.where(row, along_column, along_row)))], axis=2)


def pixel_tensor(samples: NDArray[Any], depth: int, mosaic: int = 0) -> Ints:
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
    if mosaic and (pixels.ndim == 2 or min(pixels.shape[:2]) < MOSAIC_SIDE_MIN or mosaic >= MOSAICS):
        raise BadInput(f"mosaic {mosaic} of samples of shape {samples.shape}: give 1..{MOSAICS - 1}, colour, sides of {MOSAIC_SIDE_MIN} or more")
    if pixels.ndim == 2:
        pixels = np.stack([pixels, pixels, pixels], axis=2)
    pixels = interpolate_anew(pixels, mosaic) if mosaic else pixels
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
    """5.5: y_hat [4h,4w,M] of a band. `symbols(phase, mu, level)` gives k: it quantises in the encoder, decodes in the decoder."""
    network, features = run.network, match_features(run.network, reference, z)
    side = run("side_out", run("side_mid", run("side_in", z)).repeat(2, axis=0).repeat(2, axis=1))
    y_hat = np.zeros((4 * z.shape[0], 4 * z.shape[1], network.latents), np.int64)
    planes: list[Ints] = []
    for p, (row, column) in enumerate(PHASES):
        near = [neighbour(planes[i][:, :, :network.context], dy, dx) for i, dy, dx in NEIGHBOURS[p]]
        hidden = run(f"hidden{p}", np.concatenate([side, features, *near], axis=2))
        mu, scale = run(f"mean{p}", hidden), run(f"scale{p}", hidden)
        level = np.clip(scale + network.scale_offset[quality] + 8, 0, LEVEL_MAX)
        latents = np.clip(mu + symbols(p, mu, level) * network.inverse_gain[quality], -2 ** 31, 2 ** 31 - 1)
        y_hat[row::2, column::2] = latents
        planes.append(np.clip(rne(latents, network.context_shift.astype(np.int64)) + LATENT_OFFSET, 0, 255))
    return y_hat


def quantise(network: Network, quality: int, y: Ints, mu: Ints, level: Ints) -> Ints:
    """5.5: the encoder's k."""
    index = level >> SCALE_FRACTION_BITS
    v = (y - mu) * network.gain[quality]
    magnitude = (np.abs(v) + np.array(ROUNDING)[index]) >> GAIN_BITS
    return np.where(index < network.coded_from, 0, np.sign(v) * np.minimum(magnitude, SYMBOL_LIMIT - 1))


# ---- FORMAT 6.1: order and tables of the symbols (6.2 and 6.3, the entropy coder, are reference_coder.py) ----------------------------------------

def hyper_table(z: Ints, r: int, q: int, c: int) -> int:
    """The number of the table of z[r, q, c], whose left and upper neighbours are known."""
    before = z[r, q - 1, c] if q else z[r - 1, 0, c] if r else LATENT_OFFSET
    return HYPER_CONTEXTS * c + min(max(int(before) - LATENT_OFFSET, -3), 3) + 3


class Adaptation:
    """6.1: what the symbols of a band have taught its channels; the tables of a phase follow from it."""

    def __init__(self, network: Network) -> None:
        self.network, self.channel = network, [0] * network.latents

    def phase(self, level: Ints, coded: Callable[[int, tuple[int, int, int]], int]) -> Ints:
        """k [h,w,M] of a phase. `coded(table, place)` gives a symbol with a table of y: it encodes in the encoder, decodes in the decoder."""
        k, lowest = np.zeros_like(level), self.network.coded_from
        for row, column in np.ndindex(level.shape[:2]):
            position = 0
            for c in range(level.shape[2]):
                if level[row, column, c] >> SCALE_FRACTION_BITS >= lowest:
                    moved = 64 * int(level[row, column, c]) + self.channel[c] + position >> ADAPTATION_BITS
                    table = min(max(moved, lowest), SCALE_LEVELS - 1)
                    symbol = k[row, column, c] = coded(table, (row, column, c))
                    score = int(self.network.score[table, min(abs(symbol), SCORE_SIZES - 1)])
                    self.channel[c] = min(max(self.channel[c] + (score + 2 >> CHANNEL_SHIFT), -ADAPTATION_LIMIT), ADAPTATION_LIMIT)
                    position = position + score - (position + 64 >> POSITION_SHIFT)
        return k


# ---- the codec ------------------------------------------------------------------------------------------------------------------------------------

def code_band(run: Run, reference: Reference | None, y: Ints, z: Ints, quality: int) -> list[tuple[Table, int]]:
    """The symbols of a band with their tables, in the order of 6.1."""
    z_tables, y_tables = tables_of(run.network.z_tables), tables_of(run.network.y_tables)
    coded = [(z_tables[hyper_table(z, *place)], int(z[place])) for place in np.ndindex(z.shape)]
    adaptation = Adaptation(run.network)

    def symbols(p: int, mu: Ints, level: Ints) -> Ints:
        k = quantise(run.network, quality, y[PHASES[p][0]::2, PHASES[p][1]::2], mu, level)

        def encoded(table: int, place: tuple[int, int, int]) -> int:
            coded.append((y_tables[table], int(k[place])))
            return int(k[place])

        return adaptation.phase(level, encoded)

    band_latents(run, reference, z, quality, symbols)
    return coded


def encode(samples: NDArray[Any], depth: int, network: Network, bank: Bank | None, quality: int, *, band_rows: int = BAND_ROWS,
           image_id: int | None = None, trace: Trace | None = None, band_qualities: Sequence[int] | None = None, mosaic: int = 0) -> bytes:
    """The stream of samples uint8[H,W,3] or uint8|uint16[H,W]; references are used where a bank is given. Raises BadInput.

    `band_qualities` replaces the base quality band by band; `trace` collects the output of every layer.
    """
    if band_rows % BAND_UNIT or not BAND_UNIT <= band_rows <= 255 * BAND_UNIT:
        raise BadInput(f"{band_rows} rows a band: give a multiple of {BAND_UNIT} up to {255 * BAND_UNIT}")
    run = Run(network, trace)
    y, z, texture, semantic = analyse(run, pixel_tensor(samples, depth, mosaic))
    entries = choose_references(bank, texture, semantic) if bank else (NO_REFERENCE, NO_REFERENCE)
    reference = open_reference(run, bank, entries[0])
    common = Header(b"", 0, 0, 0, 0, 0, 0, network.hash[:4], bank.hash[:4] if bank else bytes(4), samples.shape[1], samples.shape[0],
                    depth - 1 | (samples.ndim == 2) << 4 | (depth > 8) << 5, band_rows // BAND_UNIT, 0, 0, 1 if bank else 0, *entries, mosaic)
    qualities = [quality] * common.bands() if band_qualities is None else list(band_qualities)
    if len(qualities) != common.bands() or not all(0 <= q < QUALITIES for q in (quality, *qualities)):
        raise BadInput(f"qualities {quality}, {qualities}: give 0..{QUALITIES - 1}, one for each of {common.bands()} bands")
    bands = []
    for band, q in enumerate(qualities):
        coded = code_band(run, reference, y[common.rows(band, LATENT_STRIDE)], z[common.rows(band, HYPER_STRIDE)], q)
        lanes_log2 = lanes_log2_for(len(coded))
        bands.append((q, lanes_log2, encode_symbols(coded, lanes_log2)))
    return write_stream(common, network, bank, bands, image_id=image_id)


@dataclass(frozen=True)
class Latents:
    """What the ground decoder gets: y_hat int32[H/16,W/16,M] of the padded picture (0 in lost bands), the common header fields, the lost bands."""

    y_hat: NDArray[np.int32]
    header: Header
    qualities: tuple[int | None, ...]
    lost: tuple[int, ...]


def check_model(packets: Sequence[Packet], network: Network, bank: Bank | None) -> None:
    """2, 3: the stream is of this version, this network and this bank. Raises UnsupportedStream, WrongModel or CorruptStream."""
    h = packets[0][0]
    depth, grey, companding = (h.sample & 15) + 1, h.sample >> 4 & 1, h.sample >> 5
    if h.reference_kind == EARLIER_IMAGE or not ((depth, companding) == (8, 0) or (depth > 8 and grey and companding == 1)):
        raise UnsupportedStream(f"reference kind {h.reference_kind}, {depth} bits with companding {companding}: use a newer remac")
    if h.mosaic and (grey or depth > 8 or min(h.width, h.height) < MOSAIC_SIDE_MIN):
        raise UnsupportedStream(f"mosaic {h.mosaic} of {h.width}x{h.height}, {depth} bits, grey {grey}: use a newer remac")
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
    z_tables, y_tables = tables_of(run.network.z_tables), tables_of(run.network.y_tables)
    adaptation = Adaptation(run.network)
    decoder, rows = SymbolDecoder(payload, header.coder & 15), header.rows(header.band, HYPER_STRIDE)
    z = np.zeros((rows.stop - rows.start, header.padded()[1] // HYPER_STRIDE, run.network.hyper), np.int64)
    for place in np.ndindex(z.shape):
        z[place] = decoder.next(z_tables[hyper_table(z, *place)])
        if not 0 <= z[place] <= 255:
            raise CorruptStream(f"band {header.band}: a hyper-latent is not in 0..255")

    def symbols(p: int, mu: Ints, level: Ints) -> Ints:
        return adaptation.phase(level, lambda table, place: decoder.next(y_tables[table]))

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
