"""The reference codec against FORMAT.md. Expected values are worked out by hand, by exact fractions or by loops over single numbers."""
from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from remac_runtime import reference, reference_coder, reference_packets
from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream, WrongModel
from remac_runtime.format import NEIGHBOURS, NO_REFERENCE, PHASES, ROUNDING, SYMBOL_LIMIT
from remac_runtime.network import Bank, Layer, Network, read_bank, read_network
from remac_runtime.terrain import terrain

HALF = reference_coder.Table(5, [0, 8192, 16384])                    # one symbol (5) and the escape, half each


@pytest.fixture(scope="module")
def model(small_model: Path) -> tuple[Network, Bank]:
    network = read_network(small_model / "network.rmn")
    return network, read_bank(small_model / "bank.rmb", network)


def packets_of(stream: bytes) -> list[bytes]:
    """The packets of an intact stream, by their length fields."""
    packets = []
    while stream:
        size = 40 + int.from_bytes(stream[10:12], "little")
        packets.append(stream[:size])
        stream = stream[size:]
    return packets


# ---- FORMAT 2

@pytest.mark.parametrize(("data", "expected"), [                # the first from FORMAT 2, the others from RFC 3720, B.4
    (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"", 0)])
def test_crc_of_published_messages(data: bytes, expected: int) -> None:
    assert reference_packets.crc32c(data) == expected


def test_every_field_is_where_the_format_puts_it(model: tuple[Network, Bank]) -> None:
    network, bank = model
    stream = reference.encode(terrain(130, 70, 1, grey=True, depth=12), 12, network, bank, 37, band_rows=64, image_id=0x01020304)
    packets = packets_of(stream)
    assert [p[:4] for p in packets] == [b"RMH1", b"RMP1", b"RMP1"]
    for sequence, packet in enumerate(packets):
        assert packet[4:10] == bytes([4, 3, 2, 1, sequence, 0])
        assert packet[12:16] == bytes([sequence, 0, 0, 1])
        assert packet[16:24] == network.hash[:4] + bank.hash[:4]
        assert packet[24:31] == bytes([70, 0, 130, 0, 11 | 16 | 32, 1, 37])
        assert packet[32] == 1 and packet[33] < len(bank) and packet[34] < len(bank) and packet[35] == 0
        assert packet[36:40] == reference_packets.crc32c(packet[:36] + packet[40:]).to_bytes(4, "little")
    assert packets[0][40:58] == bytes([18, 0]) + b"small\0\0\0" + network.hash[4:] + bank.hash[4:]


def test_image_id_is_the_crc_of_the_crcs(model: tuple[Network, Bank]) -> None:
    packets = packets_of(reference.encode(terrain(130, 70, 1), 8, model[0], None, 20, band_rows=64))
    bands = [packets[0][40 + 18:], *(packet[40:] for packet in packets[1:])]
    crcs = b"".join(reference_packets.crc32c(band).to_bytes(4, "little") for band in bands)
    assert {packet[4:8] for packet in packets} == {reference_packets.crc32c(crcs).to_bytes(4, "little")}
    assert {packet[20:24] + packet[32:36] for packet in packets} == {bytes([0, 0, 0, 0, 0, 255, 255, 0])}


def test_fragments_are_full_but_the_last(model: tuple[Network, Bank]) -> None:
    network, _ = model
    common = reference_packets.Header(b"", 0, 0, 0, 0, 0, 0, network.hash[:4], bytes(4), 64, 128, 7, 1, 0, 0, 0, 255, 255, 0)
    payloads = [bytes(range(256)) * 600, b"x" * 65495]
    stream = reference_packets.write_stream(common, network, None, [(5, 0, payloads[0]), (6, 0, payloads[1])])
    packets = packets_of(stream)
    assert [len(p) for p in packets] == [65535, 65535, 18 + 153600 - 2 * 65495 + 40, 65535]
    assert [tuple(p[12:16]) for p in packets] == [(0, 0, 0, 3), (0, 0, 1, 3), (0, 0, 2, 3), (1, 0, 0, 1)]
    found = reference_packets.read_packets(b"".join(reversed(packets)))
    for band, payload in enumerate(payloads):
        header, joined = reference_packets.join_band(found, band)
        assert joined == payload and header.quality == 5 + band
    with pytest.raises(CorruptStream, match="missing"):
        reference_packets.join_band(reference_packets.read_packets(stream.replace(packets[1], b"")), 0)


def changed(packet: bytes, offset: int, value: int) -> bytes:
    """The packet with one byte of its header changed, under a CRC that is right."""
    packet = packet[:offset] + bytes([value]) + packet[offset + 1:]
    return packet[:36] + reference_packets.crc32c(packet[:36] + packet[40:]).to_bytes(4, "little") + packet[40:]


@pytest.mark.parametrize(("offset", "value"), [(2, ord("H")), (3, 50), (12, 0), (12, 2), (14, 1), (15, 0), (24, 0), (25, 65), (27, 65), (28, 128 | 7),
                                               (29, 0), (30, 64), (31, 9), (31, 32), (32, 3), (32, 0), (35, 5)])
def test_a_packet_out_of_bounds_is_no_packet(model: tuple[Network, Bank], offset: int, value: int) -> None:
    first, second = packets_of(reference.encode(terrain(100, 60, 3), 8, model[0], model[1], 20, band_rows=64))
    assert len(reference_packets.read_packets(first + second)) == 2
    assert len(reference_packets.read_packets(first + changed(second, offset, second[offset]))) == 2      # the tool itself does no harm
    assert len(reference_packets.read_packets(first + changed(second, offset, value))) == 1


# ---- FORMAT 3

@pytest.mark.parametrize("depth", [9, 10, 12, 16])
def test_companding_gives_the_nearest_code(depth: int) -> None:
    top = 2 ** depth - 1
    table = [(2 * n * n * top + 65025) // (2 * 65025) for n in range(256)]      # round half up; no tie occurs, as 65025 is odd
    assert table == reference.expansion(depth)
    samples = np.arange(top + 1)
    codes = reference.compand(samples, depth)
    for sample in [*range(0, top, max(1, top // 4000)), top]:
        assert codes[sample] == min(range(256), key=lambda n: (abs(table[n] - sample), n))
    assert np.all(np.diff(codes) >= 0) and (codes[0], codes[-1]) == (0, 255)


def test_pixels_are_padded_with_the_last_row_and_column() -> None:
    samples = terrain(65, 3, 1)
    pixels = reference.pixel_tensor(samples, 8)
    assert pixels.shape == (128, 64, 3)
    assert all(np.array_equal(pixels[r, c], samples[min(r, 64), min(c, 2)]) for r in (0, 64, 65, 127) for c in (0, 2, 3, 63))
    grey = reference.pixel_tensor(samples[..., 0], 8)
    assert np.array_equal(grey, np.stack([pixels[..., 0]] * 3, 2))


@pytest.mark.parametrize(("shape", "depth"), [((4, 4, 4), 8), ((4, 4, 3), 12), ((4,), 8), ((0, 4), 8), ((4, 4), 7), ((4, 4), 17), ((4, 16385), 8)])
def test_samples_of_another_kind_are_refused(shape: tuple[int, ...], depth: int) -> None:
    with pytest.raises(BadInput):
        reference.pixel_tensor(np.zeros(shape, np.uint16), depth)


def test_samples_beyond_the_depth_are_refused() -> None:
    with pytest.raises(BadInput, match="bit depth"):
        reference.pixel_tensor(np.full((4, 4), 4096, np.uint16), 12)


# ---- FORMAT 5

def test_requantise_is_exact_rounding_half_to_even() -> None:
    a = np.array([*range(-300, 301), 2 ** 24 - 1, -2 ** 24 + 1, 2 ** 31 - 1, -2 ** 31, 3 * 2 ** 15, -3 * 2 ** 15, 5 * 2 ** 15], np.int64)
    for shift in range(-8, 17):
        expected = [round(Fraction(int(v)) / Fraction(2) ** shift) for v in a]         # Python rounds fractions half to even
        assert reference.rne(a, np.array([shift])).tolist() == expected
    assert reference.rne(np.array([[6, 6, 6]]), np.array([2, 1, -1])).tolist() == [[2, 3, 12]]


@pytest.mark.parametrize(("kernel", "stride", "head"), [(1, 1, False), (3, 1, False), (3, 2, False), (1, 1, True)])
def test_layer_against_single_numbers(kernel: int, stride: int, head: bool) -> None:
    rng = np.random.default_rng(kernel + stride)
    weight = rng.integers(-64, 65, (3, kernel, kernel, 5)).astype(np.int8)
    bias = rng.integers(-20000, 20000, 3).astype(np.int32)
    shift = np.array([4, 9, -2 if head else 0], np.int8)
    x = rng.integers(0, 256, (4, 6, 5))
    out = reference.run_layer(Layer("test", weight, bias, shift, stride, head), x)
    assert out.shape == (4 // stride, 6 // stride, 3)
    for row, column, o in np.ndindex(out.shape):
        acc = int(bias[o])
        for dy, dx, i in np.ndindex(kernel, kernel, 5):
            r, c = row * stride + dy - kernel // 2, column * stride + dx - kernel // 2
            if 0 <= r < 4 and 0 <= c < 6:
                acc += int(weight[o, dy, dx, i]) * int(x[r, c, i])
        value = round(Fraction(acc) / Fraction(2) ** int(shift[o]))
        assert out[row, column, o] == (value if head else min(max(value, 0), 255))


def test_space_to_depth_order() -> None:
    x = np.arange(4 * 6 * 5).reshape(4, 6, 5)
    out = reference.space_to_depth(x, 2)
    assert out.shape == (2, 3, 20)
    for dy, dx, c, r, q in np.ndindex(2, 2, 5, 2, 3):
        assert out[r, q, (dy * 2 + dx) * 5 + c] == x[2 * r + dy, 2 * q + dx, c]


def test_neighbours_are_the_nearest_latents_decoded_before() -> None:
    rows, columns = 3, 4
    number = np.arange(4 * rows * columns).reshape(2 * rows, 2 * columns)             # of every latent, 1000 outside the band
    for phase, (row, column) in enumerate(PHASES):
        seen = []
        for which, dy, dx in NEIGHBOURS[phase]:
            plane = number[PHASES[which][0]::2, PHASES[which][1]::2][..., None]
            seen.append(reference.neighbour(plane, dy, dx)[..., 0])
            assert which < phase
        steps = {1: [(-1, -1), (-1, 1), (1, -1), (1, 1)], 2: [(0, -1), (0, 1), (-1, 0), (1, 0)], 3: [(-1, 0), (1, 0), (0, -1), (0, 1)]}.get(phase, [])
        for (dy, dx), plane in zip(steps, seen, strict=True):
            for r, q in np.ndindex(rows, columns):
                y, x = 2 * r + row + dy, 2 * q + column + dx
                inside = 0 <= y < 2 * rows and 0 <= x < 2 * columns
                assert plane[r, q] == (number[y, x] if inside else 128)


def test_references_are_the_nearest_and_ties_go_to_the_lower_id(model: tuple[Network, Bank]) -> None:
    _, bank = model
    for entry in range(len(bank)):
        near = bank.texture[entry].astype(np.int64), bank.semantic[entry].astype(np.int64)
        assert reference.choose_references(bank, *near) == (entry, entry)
    twice = Bank(bank.hash, bank.codec_hash, bank.z, bank.planes, bank.texture[[2, 1, 1]], bank.semantic[[0, 1, 1]])
    assert reference.choose_references(twice, bank.texture[1].astype(np.int64), bank.semantic[1].astype(np.int64)) == (1, 1)
    # L1 and L2 disagree: one channel off by 6 (L1 6, L2 36) or three channels off by 3 (L1 9, L2 27).
    texture, semantic = np.full(16, 100, np.uint8), np.full(32, 100, np.uint8)
    off = [[6, 0, 0], [3, 3, 3]]
    split = Bank(bank.hash, bank.codec_hash, bank.z[:2], bank.planes[:2], np.stack([texture + np.pad(np.array(d, np.uint8), (0, 13)) for d in off]),
                 np.stack([semantic + np.pad(np.array(d, np.uint8), (0, 29)) for d in off]))
    assert reference.choose_references(split, texture.astype(np.int64), semantic.astype(np.int64)) == (0, 1)


def test_matched_features_come_from_the_nearest_hyper_latent(model: tuple[Network, Bank]) -> None:
    network, bank = model
    entry = bank.z[1].astype(np.int64)
    features = np.arange(8 * 8 * network.reference_features).reshape(8, 8, -1)
    z = np.stack([[entry[3, 1], entry[0, 2]]])
    found = reference.match_features(network, (entry, features), z)
    assert np.array_equal(found[0:2, 0:2], features[6:8, 2:4]) and np.array_equal(found[0:2, 2:4], features[0:2, 4:6])
    entry[2, 2] = entry[0, 2]                                                         # now a tie: the first in row-major order
    assert np.array_equal(reference.match_features(network, (entry, features), z), found)
    assert not reference.match_features(network, None, z).any()


def test_quantisation_in_exact_numbers(model: tuple[Network, Bank]) -> None:
    network, _ = model
    rng = np.random.default_rng(5)
    y, mu = rng.integers(-2 ** 21, 2 ** 21, (2, 6, 7, 32))
    y[0, 0, 0], mu[0, 0, 0] = 2 ** 26 - 1, 1 - 2 ** 26                                 # the largest difference that heads allow
    level = rng.integers(0, 1024, y.shape)
    index = level // 16
    for quality in (0, 31, 63):
        k = reference.quantise(network, quality, y, mu, level)
        for at in np.ndindex(y.shape):
            v = (int(y[at]) - int(mu[at])) * int(network.gain[quality, at[-1]])
            size = min(math.floor(Fraction(abs(v) + ROUNDING[index[at]], 2 ** 30)), SYMBOL_LIMIT - 1)
            assert k[at] == (0 if index[at] < network.coded_from else size if v > 0 else -size)


# ---- FORMAT 6

@pytest.mark.parametrize(("symbols", "expected"), [
    ([], "00000100"),
    ([5], "00000200"),                                          # 2^16 div 2^13 << 14
    ([5] * 15, "00000080"),
    ([5] * 16, "000001000000"),                                 # 2^31 sheds a word of zeros first
    ([9], "0020020010"),                                        # escape entry, so + 2^13; e = 3: 0 00 100, padded to 00010000
    ([4], "00200200c0"),                                        # e = 0 below the table: 1 1
    ([6, 6, 6, 5], "00e0100054"),                               # 0x20000, 0x42000, 0x86000, 0x10e000; 01 01 01 00
])
def test_coder_by_hand(symbols: list[int], expected: str) -> None:
    assert reference_coder.encode_symbols([(HALF, k) for k in symbols], 0).hex() == expected


def random_tables(rng: np.random.Generator, count: int) -> list[reference_coder.Table]:
    tables = []
    for _ in range(count):
        inner = np.sort(rng.choice(np.arange(1, 2 ** 14), rng.integers(1, 200), replace=False))
        tables.append(reference_coder.Table(int(rng.integers(-300, 300)), [0, *inner.tolist(), 2 ** 14]))
    return tables


def random_symbols(rng: np.random.Generator, count: int) -> list[tuple[reference_coder.Table, int]]:
    """Symbols of random tables: most within, some just outside, some at the limits."""
    tables = random_tables(rng, 7)
    symbols = []
    for _ in range(count):
        table = tables[int(rng.integers(7))]
        kind = int(rng.integers(50))
        k = int(rng.integers(table.first, table.first + table.escape()))
        outside = {0: table.first - 1, 1: table.first + table.escape(), 2: SYMBOL_LIMIT - 1, 3: 1 - SYMBOL_LIMIT, 4: table.first - 1000}
        symbols.append((table, outside.get(kind, k)))
    return symbols


def decode_all(payload: bytes, tables: Sequence[reference_coder.Table], lanes_log2: int) -> list[int]:
    decoder = reference_coder.SymbolDecoder(payload, lanes_log2)
    out = [decoder.next(table) for table in tables]
    decoder.finish()
    return out


@pytest.mark.parametrize(("count", "lanes_log2"), [(0, 0), (1, 0), (1, 8), (255, 8), (257, 8), (3000, 0), (3000, 3), (3000, 6)])
def test_coder_returns_what_went_in(count: int, lanes_log2: int) -> None:
    symbols = random_symbols(np.random.default_rng(count + lanes_log2), count)
    payload = reference_coder.encode_symbols(symbols, lanes_log2)
    assert decode_all(payload, [table for table, _ in symbols], lanes_log2) == [k for _, k in symbols]


def test_coder_is_as_short_as_the_probabilities_allow() -> None:
    symbols = [s for s in random_symbols(np.random.default_rng(3), 8000) if 0 <= s[1] - s[0].first < s[0].escape()]
    bits = sum(14 - math.log2(t.cdf[k - t.first + 1] - t.cdf[k - t.first]) for t, k in symbols)
    assert abs(len(reference_coder.encode_symbols(symbols, 0)) - 4 - bits / 8) < 0.001 * bits / 8 + 4


def test_damage_to_a_band_is_noticed_at_the_latest_at_its_end() -> None:
    """Changed escape bits can name another symbol and states are no checksum (the packet's CRC is): so lengths and states, not content."""
    symbols = [s for s in random_symbols(np.random.default_rng(8), 400) if 0 <= s[1] - s[0].first < s[0].escape()]
    tables = [table for table, _ in symbols]
    payload = reference_coder.encode_symbols(symbols, 1)
    assert decode_all(payload, tables, 1) == [k for _, k in symbols]
    for damaged in (payload + b"\0", payload[:-1], payload[:-2], payload[:7], b"", b"\0" * 8 + payload[8:], payload[:3] + b"\0" + payload[4:]):
        with pytest.raises(CorruptStream):
            decode_all(damaged, tables, 1)
    with pytest.raises(CorruptStream):
        decode_all(payload, tables[:-1], 1)


def test_escapes_beyond_the_limits_are_corrupt() -> None:
    escape = (0x22000).to_bytes(4, "little")

    def band(bits: str) -> bytes:
        bits += "0" * (-len(bits) % 8)
        return escape + bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))[::-1]

    assert decode_all(band("0" + "0" * 19 + "1" + "0" * 19), [HALF], 0) == [6 + 2 ** 19 - 1]
    assert decode_all(band("0" + "0" * 19 + f"{2 ** 20 - 6:b}"), [HALF], 0) == [2 ** 20 - 1]
    with pytest.raises(CorruptStream, match="leading zeros"):
        decode_all(band("0" + "0" * 21 + "1" + "0" * 21), [HALF], 0)
    with pytest.raises(CorruptStream, match="symbol reaches"):
        decode_all(band("0" + "0" * 20 + "1" + "0" * 20), [HALF], 0)
    with pytest.raises(CorruptStream, match="fill"):
        decode_all(escape, [HALF], 0)                           # its bits lie in the states


def test_lanes_follow_the_number_of_symbols() -> None:
    for n in (0, 1, 32767, 32768, 65535, 65536, 65537, 131071, 131072, 2097151, 2097152, 10 ** 7):
        assert reference_coder.lanes_log2_for(n) == min(max(math.floor(math.log2(max(n, 1) / 32768)), 0), 6)


# ---- the whole

@pytest.mark.parametrize(("shape", "depth", "quality", "bank", "band_rows"), [
    ((1, 1, 3), 8, 0, False, 128), ((65, 130, 3), 8, 32, True, 64), ((150, 63), 8, 63, True, 64), ((64, 64), 12, 50, False, 128),
    ((129, 17), 16, 13, True, 256)])
def test_decoder_sees_what_the_encoder_saw(model: tuple[Network, Bank], shape: tuple[int, ...], depth: int, quality: int, bank: bool,
                                           band_rows: int) -> None:
    network, references = model[0], model[1] if bank else None
    samples = terrain(shape[0], shape[1], 9, depth=depth, grey=len(shape) == 2)
    coded: reference.Trace = {}
    decoded: reference.Trace = {}
    stream = reference.encode(samples, depth, network, references, quality, band_rows=band_rows, trace=coded)
    latents = reference.decode_latents(stream, network, references, decoded)
    assert set(coded) - set(decoded) == {"stem", "body", "reduce", "deep", "head", "hyper_in", "hyper_out"}
    assert ("reference" in decoded) == bank and len(decoded) == 15 + bank
    assert all(np.array_equal(coded[name], decoded[name]) for name in decoded)
    assert latents.lost == () and set(latents.qualities) == {quality} and latents.y_hat.dtype == np.int32
    assert (latents.header.height, latents.header.width) == shape[:2] and latents.y_hat.shape == coded["head"].shape
    # Where a latent is coded, it is off by at most the rounding, 3/4 of a step, and the two roundings of the gains.
    step = network.inverse_gain[quality].astype(np.float64)
    off = np.abs(latents.y_hat - coded["head"]) / step
    index = np.empty(off.shape, np.int64)
    for p, (row, column) in enumerate(PHASES):
        index[row::2, column::2] = (coded[f"scale{p}"] + network.scale_offset[quality] + 8) >> 4
    assert off[index >= network.coded_from].max() < 0.76 + 2 ** -10 * off.shape[2]


def test_a_lost_band_costs_no_other(model: tuple[Network, Bank]) -> None:
    network, bank = model
    stream = reference.encode(terrain(256, 64, 4), 8, network, bank, 30, band_rows=64)
    whole = reference.decode_latents(stream, network, bank).y_hat
    bands = packets_of(stream)
    for lost in range(4):
        for packets in ([*bands[:lost], *bands[lost + 1:]], [*bands[lost + 1:], *bands[:lost]]):
            damaged = reference.decode_latents(b"noise".join(packets), network, bank)
            assert damaged.lost == (lost,) and damaged.qualities[lost] is None
            rows = np.arange(16) // 4 == lost
            assert np.array_equal(damaged.y_hat[~rows], whole[~rows]) and not damaged.y_hat[rows].any()


def test_bands_may_have_their_own_quality(model: tuple[Network, Bank]) -> None:
    network, _ = model
    samples = terrain(150, 64, 4)
    mixed = reference.decode_latents(reference.encode(samples, 8, network, None, 20, band_rows=64, band_qualities=[0, 63, 20]), network, None)
    assert mixed.qualities == (0, 63, 20)
    for band, quality in enumerate(mixed.qualities):
        alone = reference.decode_latents(reference.encode(samples, 8, network, None, quality or 0, band_rows=64), network, None)
        assert np.array_equal(mixed.y_hat[4 * band:4 * band + 4], alone.y_hat[4 * band:4 * band + 4])
    with pytest.raises(BadInput, match="qualities"):
        reference.encode(samples, 8, network, None, 20, band_rows=64, band_qualities=[1])
    with pytest.raises(BadInput, match="rows a band"):
        reference.encode(samples, 8, network, None, 20, band_rows=96)


def test_streams_of_another_model_or_version_are_refused(model: tuple[Network, Bank]) -> None:
    network, bank = model
    (packet,) = packets_of(reference.encode(terrain(20, 20, 4), 8, network, bank, 30))
    assert reference.decode_latents(packet, network, bank).lost == ()
    for wrong, error in ((packet[:3] + b"2" + packet[4:], UnsupportedStream), (changed(packet, 32, 2), CorruptStream),
                         (changed(packet, 28, 11), UnsupportedStream),
                         (changed(packet, 16, packet[16] ^ 1), WrongModel), (changed(packet, 20, packet[20] ^ 1), WrongModel),
                         (changed(packet, 33, 3), CorruptStream), (b"", CorruptStream), (packet[:-1], CorruptStream)):
        with pytest.raises(error):
            reference.decode_latents(wrong, network, bank)
    with pytest.raises(WrongModel, match="none"):
        reference.decode_latents(packet, network, None)
    assert reference.decode_latents(changed(packet, 31, 16), network, bank).lost == (0,)
    assert reference.decode_latents(changed(packet, 33, NO_REFERENCE), network, bank).lost == (0,)


def test_reference_shares_no_code_with_the_rest_of_the_runtime() -> None:
    allowed = {"errors", "format", "network", "reference_coder", "reference_packets"}
    for module in (reference, reference_coder, reference_packets):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("remac_runtime"):
                assert node.module.removeprefix("remac_runtime.") in allowed, f"{module.__name__} imports {node.module}"
            if isinstance(node, ast.Import):
                assert all(alias.name in {"bisect", "struct", "numpy"} for alias in node.names)
