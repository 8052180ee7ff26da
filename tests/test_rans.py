"""The entropy coder (FORMAT 6): its three bodies against each other and against the scalar coder of coder_cases.py."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from coder_cases import BODIES, LIMIT, Band, Table, available, body, combine, escape_bits, outcome, pack, random_band, scalar_encode
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from remac_runtime import rans
from remac_runtime.adaptation import Adaptation, before, hyper_tables
from remac_runtime.errors import CorruptStream
from remac_runtime.format import HYPER_CONTEXTS, LEVEL_MAX, SCALE_FRACTION_BITS
from remac_runtime.network import read_network

pytestmark = pytest.mark.filterwarnings("error")   # a NumPy overflow must not pass unseen


def outcomes(payload: bytes, combined: rans.CombinedTables, lanes_log2: int, calls: Sequence[NDArray[np.uint16]]) -> list[int] | None:
    """The same from every body, which must agree."""
    results = []
    for name in available():
        with body(name):
            results.append(outcome(payload, combined, lanes_log2, calls))
    assert all(result == results[0] for result in results)
    return results[0]


# ---- the same bytes -----------------------------------------------------------------------------------------------------------------------------

def test_bytes_worked_out_by_hand() -> None:
    """Table of symbol 0 and the escape, f = 2^13 each. 0: x = (2^16 div 2^13 << 14) + 0 = 0x20000. 5: x = 0x20000 + 2^13; e = 4, e + 1 = 101b, m = 2:
    bits 0 00 101."""
    combined = combine([Table(0, [0, 2 ** 13, 2 ** 14])] * 2)
    for name in available():
        with body(name):
            assert rans.encode(np.array([0], np.int32), np.array([0], np.uint16), combined, 0) == bytes.fromhex("00000200")
            assert rans.encode(np.array([5], np.int32), np.array([1], np.uint16), combined, 0) == bytes.fromhex("00200200 14")
            assert rans.encode(np.array([], np.int32), np.array([], np.uint16), combined, 1) == bytes.fromhex("00000100 00000100")
    assert scalar_encode([(Table(0, [0, 2 ** 13, 2 ** 14]), 5)], 0) == bytes.fromhex("00200200 14")


@settings(max_examples=150)
@given(st.integers(0, 2 ** 32 - 1), st.integers(0, 8), st.sampled_from(["0", "1", "L-1", "L", "L+1", "some"]), st.integers(0, 700))
def test_every_body_gives_the_bytes_of_the_format(seed: int, lanes_log2: int, count: str, some: int) -> None:
    lanes = 2 ** lanes_log2
    band = random_band(seed, {"0": 0, "1": 1, "L-1": lanes - 1, "L": lanes, "L+1": lanes + 1, "some": some}[count])
    expected, combined = band.scalar(lanes_log2), combine(band.tables)
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(band.symbols) + 1, 3))    # calls end in the middle of rounds, or are empty
    for name in available():
        with body(name):
            assert rans.encode(band.symbols, band.numbers, combined, lanes_log2) == expected
    assert outcomes(expected, combined, lanes_log2, np.split(band.numbers, cuts)) == band.symbols.tolist()


def test_largest_and_smallest_tables() -> None:
    """2^14 entries of frequency 1, and frequency 2^14 - 1 beside 1."""
    tables = [Table(-8192, list(range(2 ** 14 + 1))), Table(0, [0, 2 ** 14 - 1, 2 ** 14]), Table(0, [0, 1, 2 ** 14])]
    symbols = np.array([-8192, 8190, 8191, 0, 0, 0, -1, 1, 0, 0, -LIMIT + 1, LIMIT - 1] * 9, np.int32)
    numbers = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2] * 9, np.uint16)
    band = Band(tables, numbers, symbols)
    for lanes_log2 in (0, 3):
        for name in available():
            with body(name):
                assert rans.encode(symbols, numbers, combine(tables), lanes_log2) == band.scalar(lanes_log2)
        assert outcomes(band.scalar(lanes_log2), combine(tables), lanes_log2, [numbers]) == symbols.tolist()


@pytest.mark.parametrize("first", [-2 ** 15, 1 - 2 ** 15, -1, 0, 2 ** 15 - 4, 2 ** 15 - 3, 2 ** 15 - 1])
@pytest.mark.parametrize("count", [2, 65, 128, 129, 300])
def test_rare_escapes_are_found_at_every_place(first: int, count: int) -> None:
    """One symbol outside of its table, the next ones to its ends or beyond int16, at every place of groups that are looked at together."""
    sizes = np.arange(count) % 3 + 1                          # symbols of each table, besides the escape
    tables = [Table(first, [*(n << 12 for n in range(size + 1)), 2 ** 14]) for size in sizes.tolist()]
    combined, rng = combine(tables), np.random.default_rng(first & 0xFFFF)
    far = [k for k in (-2 ** 15 - 1, -2 ** 15, 2 ** 15 - 1, 2 ** 15, 1 - LIMIT, LIMIT - 1) if not first <= k < first + 3]
    for place in (None, *range(67)):
        numbers = rng.integers(max(count - 128, 0) if place is not None and place % 2 else 0, count, 71).astype(np.uint16)
        numbers[0] = count - 1
        symbols = (first + rng.integers(0, 6, 71) % sizes[numbers]).astype(np.int32)
        if place is not None:
            for at in (place, min(place + 33, 70)):
                symbols[at] = rng.choice([first - 1, first + sizes[numbers[at]], *far])
        expected = Band(tables, numbers, symbols).scalar(1)
        for name in available():
            with body(name):
                assert rans.encode(symbols, numbers, combined, 1) == expected
    for bad in (count, 2 ** 16 - 1):
        numbers[40] = bad
        for name in available():
            with body(name), pytest.raises(ValueError, match="table does not exist"):
                rans.encode(symbols, numbers, combined, 1)


def test_reciprocals_divide_exactly() -> None:
    """csrc/remac.c divides by f as (x * ceil(2^46 / f)) >> 46 for every x < f << 18, in 64 bits."""
    cdfs = [Table(0, [0, f, 2 ** 14]) for f in range(1, 2 ** 14)]
    reciprocal = rans.combine_tables(pack(cdfs), pack(cdfs[:1])).reciprocal[0:-3:3].tolist()
    for f, r in enumerate(reciprocal, 1):
        top = (f << 18) - 1
        assert top * r < 2 ** 64
        for x in (0, f - 1, f, 12345 * f - 1, 12345 * f, top - f, top):
            assert x * r >> 46 == x // f


@pytest.mark.parametrize(("n", "lanes_log2"), [(0, 0), (1, 0), (32768, 0), (65535, 0), (65536, 1), (131071, 1), (131072, 2), (2097151, 5),
                                               (2097152, 6), (10 ** 9, 6)])
def test_lanes_of_the_encoder(n: int, lanes_log2: int) -> None:
    assert rans.lanes_log2_for(n) == lanes_log2


# ---- damage -------------------------------------------------------------------------------------------------------------------------------------

def padding_bits(band: Band) -> int:
    bits = [escape_bits(band.tables[t], int(k)) for t, k in zip(band.numbers, band.symbols, strict=True)
            if not 0 <= k - band.tables[t].first < band.tables[t].entries - 1]
    return -sum(map(len, bits)) % 8


@pytest.mark.parametrize(("seed", "n", "lanes_log2"), [(1, 40, 0), (2, 40, 1), (3, 70, 2), (4, 33, 5)])
def test_every_flipped_bit_is_noticed_or_changes_symbols(seed: int, n: int, lanes_log2: int) -> None:
    band = random_band(seed, n)
    payload, combined, symbols = band.scalar(lanes_log2), combine(band.tables), band.symbols.tolist()
    assert outcomes(payload, combined, lanes_log2, [band.numbers]) == symbols
    unnoticed = 0
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        unnoticed += outcomes(bytes(damaged), combined, lanes_log2, [band.numbers]) == symbols
    assert unnoticed == padding_bits(band)     # FORMAT 6.3 leaves the rest of the last escape byte open


@pytest.mark.parametrize(("seed", "lanes_log2"), [(5, 0), (6, 2), (7, 5)])
def test_every_truncation_and_insertion_is_noticed(seed: int, lanes_log2: int) -> None:
    band = random_band(seed, 50)
    payload, combined, symbols = band.scalar(lanes_log2), combine(band.tables), band.symbols.tolist()
    for size in range(len(payload)):
        assert outcomes(payload[:size], combined, lanes_log2, [band.numbers]) != symbols
    for at in range(len(payload) + 1):
        assert outcomes(payload[:at] + b"\0" + payload[at:], combined, lanes_log2, [band.numbers]) != symbols


@settings(max_examples=150)
@given(st.binary(max_size=120), st.integers(0, 8), st.integers(0, 2 ** 16), st.integers(0, 150))
def test_garbage_gives_the_same_outcome_in_every_body(payload: bytes, lanes_log2: int, seed: int, n: int) -> None:
    states = b"".join((x | 0x10000).to_bytes(4, "little") for x in range(seed, seed + 2 ** lanes_log2))
    band = random_band(seed, n)
    for whole in (payload, states + payload):
        outcomes(whole, combine(band.tables), lanes_log2, [band.numbers])


@pytest.mark.parametrize("lanes_log2", [0, 5])
def test_hostile_escapes(lanes_log2: int) -> None:
    table = Table(0, [0, 2 ** 13, 2 ** 14])
    band = Band([table, table], np.array([1], np.uint16), np.array([7], np.int32))
    combined, calls = combine(band.tables), [band.numbers]

    def decoded(bits: list[int]) -> list[int] | None:
        return outcomes(band.scalar(lanes_log2, bits), combined, lanes_log2, calls)

    assert decoded(escape_bits(table, LIMIT - 1)) == [LIMIT - 1]
    assert decoded(escape_bits(table, -LIMIT + 1)) == [-LIMIT + 1]
    assert decoded(escape_bits(table, LIMIT)) is None
    assert decoded(escape_bits(table, -LIMIT)) is None
    assert decoded([0] + [0] * 20 + [1] + [0] * 20) is None      # e + 1 = 2^20, the symbol 2^20
    assert decoded([0] + [0] * 21 + [1] + [0] * 21) is None
    assert decoded([0] * 400) is None
    assert decoded([]) is None
    assert decoded([1, 0, 0, 0, 0, 0, 1]) is None                # cut off in the middle


def test_escape_bits_may_not_run_into_words() -> None:
    """Nor may words be read from escape bytes: the decoder must stop where they meet."""
    table = Table(0, [0, 1, 2 ** 14])
    band = Band([table, table], np.zeros(60, np.uint16), np.array([0] * 50 + [3] * 10, np.int32))
    payload, combined = band.scalar(0), combine(band.tables)
    size = -(-10 * len(escape_bits(table, 3)) // 8)
    for drop in range(1, size + 1):
        assert outcomes(payload[:-size] + payload[drop - size:] if drop < size else payload[:-size], combined, 0, [band.numbers]) is None
    more = [np.concatenate([band.numbers, np.zeros(40, np.uint16)])]
    assert outcomes(payload, combined, 0, more) is None


@pytest.mark.parametrize("name", BODIES)
def test_bad_starts_and_ends(name: str) -> None:
    band = random_band(11, 30)
    payload, combined = band.scalar(1), combine(band.tables)
    with body(name):
        for lanes_log2, data, message in ((9, payload, "lanes"), (15, payload, "lanes"), (1, payload[:7], "states alone take 8"),
                                          (1, bytes(4) + payload[4:], "damaged: a lane state"), (0, b"", "take 4")):
            with pytest.raises(CorruptStream, match=message):
                rans.BandDecoder(data, combined, lanes_log2)
        decoder = rans.BandDecoder(payload, combined, 1)
        decoder.decode(band.numbers[:-1])
        with pytest.raises(CorruptStream, match="damaged"):
            decoder.finish()
        decoder.decode(band.numbers[-1:])
        decoder.finish()
        with pytest.raises(CorruptStream, match="do not fill"):
            rans.BandDecoder(bytes.fromhex("00000100 00000100 ab"), combined, 1).finish()


# ---- our own bugs -------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", BODIES)
def test_calls_that_cannot_be_right(name: str) -> None:
    combined = combine([Table(0, [0, 2 ** 13, 2 ** 14])] * 2)
    symbols, numbers = np.array([0, 1, 0], np.int32), np.array([0, 1, 1], np.uint16)
    with body(name):
        for k in (LIMIT, -LIMIT, 2 ** 31 - 1, -2 ** 31):
            with pytest.raises(ValueError, match="symbol reaches"):
                rans.encode(np.array([0, k, 0], np.int32), numbers, combined, 0)
        with pytest.raises(ValueError, match="does not exist"):
            rans.encode(symbols, numbers + 1, combined, 0)
        with pytest.raises(ValueError, match="lanes"):
            rans.encode(symbols, numbers, combined, 9)
        with pytest.raises(ValueError, match="2 tables"):
            rans.encode(symbols, numbers[:2], combined, 0)
        decoder = rans.BandDecoder(rans.encode(symbols, numbers, combined, 0), combined, 0)
        with pytest.raises(ValueError, match="does not exist"):
            decoder.decode(np.array([2], np.uint16))


@pytest.mark.parametrize("name", BODIES)
def test_another_table_does_not_decode(name: str) -> None:
    """One frequency moved by one: what the encoder meant is lost."""
    band = random_band(21, 200)
    table = int(np.bincount(band.numbers).argmax())
    cdf = list(band.tables[table].cdf)
    at = next(i for i in range(1, len(cdf) - 1) if cdf[i + 1] - cdf[i] > 1)
    cdf[at] += 1
    mutated = [t if i != table else Table(t.first, cdf) for i, t in enumerate(band.tables)]
    with body(name):
        assert outcome(band.scalar(2), combine(band.tables), 2, [band.numbers]) == band.symbols.tolist()
        assert outcome(band.scalar(2), combine(mutated), 2, [band.numbers]) != band.symbols.tolist()


# ---- order (FORMAT 6.1) and the network's tables --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", BODIES)
def test_a_band_of_the_small_network(small_model: Path, name: str) -> None:
    """z, then two phases, as the codec does it; the estimate of the bits is that of the band within the cost of its states."""
    network = read_network(small_model / "network.rmn")
    combined, rng = rans.combine(network), np.random.default_rng(3)
    z = rng.integers(0, 256, (2, 3, network.hyper)).astype(np.uint8)
    level = rng.integers(0, LEVEL_MAX + 1, (2, 4, 6, network.latents)).astype(np.uint16)
    index = level >> SCALE_FRACTION_BITS
    symbols = np.rint(rng.laplace(0, 0.1 * 2 ** (index / 5))).astype(np.int32)
    symbols[0, 0, 0, :4] = -1000, 1000, LIMIT - 1, -LIMIT + 1
    symbols[index < network.coded_from] = 0
    with body(name):
        adaptation, learnt = Adaptation(network), Adaptation(network)
        parts = [adaptation.collect(symbols[p], level[p]) for p in range(2)]
        coded = np.concatenate([z.ravel().astype(np.int32), *(part[0] for part in parts)])
        numbers = np.concatenate([hyper_tables(before(z)).ravel(), *(part[1] for part in parts)])
        payload = rans.encode(coded, numbers, combined, 3)
        decoder = rans.BandDecoder(payload, combined, 3)
        decoded_z = decoder.decode_hyper(*z.shape)
        assert decoded_z.dtype == np.uint8 and np.array_equal(decoded_z, z)
        bits = []
        for p in range(2):
            decoded, tables = decoder.decode_latents(level[p], learnt)
            assert decoded.dtype == np.int32 and np.array_equal(decoded, symbols[p])
            assert tables.dtype == np.uint16 and np.array_equal(tables[index[p] >= network.coded_from] + combined.hyper, parts[p][1])
            assert not tables[index[p] < network.coded_from].any()
            bits.append(rans.estimated_bits(decoded, tables, combined, network))
        decoder.finish()
        only_y = rans.encode(coded[z.size:], numbers[z.size:], combined, 0)
    assert bits[0].shape == (4, 6) and bits[0].dtype == np.float32 and min(b.min() for b in bits) >= 0
    assert abs(sum(float(b.sum()) for b in bits) - 8 * len(only_y)) < 40 + 0.001 * 8 * len(only_y)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("wrong", [-1, 256, LIMIT - 1, -LIMIT + 1])
def test_hyper_latents_beyond_a_byte_are_corrupt(small_model: Path, name: str, wrong: int) -> None:
    """At any place: they are escapes of their tables."""
    network = read_network(small_model / "network.rmn")
    combined, z = rans.combine(network), np.full((2, 2, network.hyper), 128, np.uint8)
    numbers = hyper_tables(before(z)).ravel()
    for place in (0, network.hyper - 1, z.size - 1):
        symbols = z.ravel().astype(np.int32)
        symbols[place] = wrong
        with body(name), pytest.raises(CorruptStream, match=r"hyper-latent is not in 0\.\.255"):
            rans.BandDecoder(rans.encode(symbols, numbers, combined, 0), combined, 0).decode_hyper(*z.shape)


def test_combined_tables_are_those_of_z_then_those_of_y(small_model: Path) -> None:
    network = read_network(small_model / "network.rmn")
    combined = rans.combine(network)
    assert combined.hyper == len(network.z_tables) == HYPER_CONTEXTS * network.hyper
    for t in range(len(combined.first)):
        source, number = (network.z_tables, t) if t < combined.hyper else (network.y_tables, t - combined.hyper)
        cdf = combined.cdf[combined.start[t]:combined.start[t + 1]]
        assert combined.first[t] == source.first[number]
        assert np.array_equal(cdf, source.cdf[source.start[number]:source.start[number + 1]])
        entries = combined.entry_of_slot[t << 14:t + 1 << 14] - combined.start[t]
        assert all(cdf[entries[slot]] <= slot < cdf[entries[slot] + 1] for slot in range(0, 2 ** 14, 61))
        assert np.array_equal(combined.lookup[t], entries[::64])
