"""Which table codes a symbol (FORMAT 6.1): both bodies and the reference alike, within their bounds, and that it pays where a model is wrong."""
from __future__ import annotations

import inspect

import numpy as np
import pytest
from coder_cases import LIMIT, TableRules, available, body, pack, random_phases, random_rules, random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration import tables as calibrated
from remac_runtime import rans, reference
from remac_runtime.adaptation import Adaptation, before, hyper_tables
from remac_runtime.errors import CorruptStream
from remac_runtime.format import (
    ADAPTATION_BITS,
    ADAPTATION_LIMIT,
    LEVEL_MAX,
    SCALE_FRACTION_BITS,
    SCALE_LEVELS,
    SCALE_STEPS_PER_OCTAVE,
    SCORE_LIMIT,
    SCORE_SIZES,
)
from remac_runtime.network import Tables

pytestmark = pytest.mark.filterwarnings("error")      # a NumPy overflow must not pass unseen

BODIES = [name for name in available() if name != "rounds"]
CODED_FROM = st.sampled_from([0, 1, 30, 63])
SEEDS = st.integers(0, 2 ** 32 - 1)


def by_reference(rules: TableRules, phases: list[tuple[NDArray[np.int32], NDArray[np.uint16]]]) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """((symbol, number of its table) of each phase, what the channels have learnt) by the reference codec."""
    adaptation, found = reference.Adaptation(rules.network), []
    for symbols, level in phases:
        coded: list[tuple[int, int]] = []

        def encoded(table: int, place: tuple[int, int, int], symbols: NDArray[np.int32] = symbols, coded: list[tuple[int, int]] = coded) -> int:
            coded.append((int(symbols[place]), table + len(rules.z_tables)))
            return int(symbols[place])

        adaptation.phase(level.astype(np.int64), encoded)
        found.append(coded)
    return found, adaptation.channel


# ---- the same tables everywhere -------------------------------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(SEEDS, CODED_FROM, st.sampled_from([1, 5, 33]))
def test_every_body_gives_the_tables_of_the_reference(seed: int, coded_from: int, latents: int) -> None:
    """And gets symbols and tables back; channels go on from phase to phase, and end alike."""
    rng = np.random.default_rng(seed)
    rules, phases = random_rules(rng, latents, coded_from), random_phases(rng, latents, 3)
    combined = rans.combine_tables(rules.z_tables, pack([random_table(rng) for _ in range(SCALE_LEVELS)]))
    expected, channel = by_reference(rules, phases)
    for name in BODIES:
        with body(name):
            adaptation, learnt = Adaptation(rules.network), Adaptation(rules.network)
            parts = [adaptation.collect(symbols, level) for symbols, level in phases]
            assert [list(zip(symbols.tolist(), numbers.tolist(), strict=True)) for symbols, numbers in parts] == expected
            assert all(symbols.dtype == np.int32 and numbers.dtype == np.uint16 for symbols, numbers in parts)
            assert adaptation.channel.tolist() == channel
            coded_symbols, coded_tables = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            payload = rans.encode(coded_symbols, coded_tables, combined, seed % 9)
            decoder = rans.BandDecoder(payload, combined, seed % 9)
            for (symbols, level), (_, numbers) in zip(phases, parts, strict=True):
                given_level, coded = level.copy(), level >> SCALE_FRACTION_BITS >= coded_from
                decoded, found = decoder.decode_latents(level, learnt)
                assert np.array_equal(level, given_level)
                assert np.array_equal(decoded, np.where(coded, symbols, 0)) and np.array_equal(found[coded] + learnt.offset, numbers)
                assert not found[~coded].any() and decoded.dtype == np.int32 and found.dtype == np.uint16
            decoder.finish()
            assert learnt.channel.tolist() == channel


@pytest.mark.parametrize("name", BODIES)
def test_tables_worked_out_by_hand(name: str) -> None:
    """Score +4000 for zeros, -4096 for others. Level 320 is table 20; a score moves its channel by a quarter, its position by the whole."""
    score = np.full((SCALE_LEVELS, SCORE_SIZES), -4096, np.int16)
    score[:, 0] = 4000
    rules = TableRules(score, 1, pack([random_table(np.random.default_rng(0))]), 3)
    level = np.full((1, 2, 3), 320, np.uint16)
    with body(name):
        adaptation = Adaptation(rules.network)
        coded, numbers = adaptation.collect(np.array([[[0, 0, 5], [0, -1, 0]]], np.int32), level)
        # First position 0, 4000, 8000 - (4000 + 64 >> 7) = 7969: tables 20, 20 + 3.9, 20 + 7.8. Second: 0 (channel 1000), then 4000 + 1000;
        # then 4000 - 31 - 4096 = -127, and -1024 in the channel: 20480 - 1151 >> 10 = 18.
        assert (numbers - 1).tolist() == [20, 23, 27, 20, 24, 18]
        assert adaptation.channel.tolist() == [2000, -24, -24]
        assert coded.tolist() == [0, 0, 5, 0, -1, 0]
        assert (adaptation.collect(np.zeros((1, 1, 3), np.int32), np.array([[[15, 16, 1023]]], np.uint16))[1] - 1).tolist() == [1, 63]


@settings(max_examples=30)
@given(SEEDS, CODED_FROM)
def test_without_scores_a_table_is_the_rounded_scale(seed: int, coded_from: int) -> None:
    rng = np.random.default_rng(seed)
    rules = random_rules(rng, 5, coded_from)._replace(score=calibrated.no_score())
    for name in BODIES:
        with body(name):
            adaptation = Adaptation(rules.network)
            for symbols, level in random_phases(rng, 5, 2):
                coded, numbers = adaptation.collect(symbols, level)
                index = level >> SCALE_FRACTION_BITS
                assert np.array_equal(coded, symbols[index >= coded_from])
                assert np.array_equal(numbers, index[index >= coded_from] + adaptation.offset)
            assert not adaptation.channel.any()


@pytest.mark.parametrize("name", BODIES)
def test_a_damaged_phase_is_corrupt(name: str) -> None:
    rng = np.random.default_rng(4)
    rules = random_rules(rng, 5, 1)
    combined = rans.combine_tables(rules.z_tables, pack([random_table(rng) for _ in range(SCALE_LEVELS)]))
    symbols, level = rng.integers(-4, 5, (4, 4, 5)).astype(np.int32), rng.integers(16, LEVEL_MAX + 1, (4, 4, 5)).astype(np.uint16)
    with body(name):
        payload = rans.encode(*Adaptation(rules.network).collect(symbols, level), combined, 0)
        with pytest.raises(CorruptStream):
            rans.BandDecoder(payload[:9], combined, 0).decode_latents(level, Adaptation(rules.network))


@pytest.mark.parametrize("name", BODIES)
def test_shapes_must_agree(name: str) -> None:
    rules = random_rules(np.random.default_rng(0), 5, 1)
    symbols, level = np.zeros((2, 3, 5), np.int32), np.zeros((2, 3, 5), np.uint16)
    with body(name):
        adaptation = Adaptation(rules.network)
        for wrong in ((symbols[:1], level), (symbols, level[:, :2]), (symbols[..., :4], level[..., :4]), (symbols.ravel(), level)):
            with pytest.raises(ValueError, match="not alike"):
                adaptation.collect(*wrong)
        strided = np.full((2, 3, 10), 100, np.uint16)[..., ::2]
        assert len(adaptation.collect(symbols, strided)[0]) == 30


# ---- bounds ---------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sign", [-1, 1])
def test_states_stay_within_their_bounds(sign: int) -> None:
    """With the largest score at every symbol: a position settles where it loses as much as it gains, a channel stops at its limit."""
    rules = TableRules(np.full((SCALE_LEVELS, SCORE_SIZES), sign * SCORE_LIMIT, np.int16), 0, pack([random_table(np.random.default_rng(0))]), 3000)
    adaptation, level = Adaptation(rules.network), np.full((1, 20, 3000), 512, np.uint16)
    walk = adaptation.walk(level)
    positions = []
    next(walk)
    for _ in range(level.size - 1):
        table = walk.send(LIMIT - 1)
        positions.append(inspect.getgeneratorlocals(walk)["position"])        # type: ignore[arg-type]
        assert 0 <= table - adaptation.offset < SCALE_LEVELS
    with pytest.raises(StopIteration):
        walk.send(1 - LIMIT)
    assert 2 ** 18 < max(map(abs, positions)) < 2 ** 20
    assert np.array_equal(adaptation.channel, np.full(3000, sign * ADAPTATION_LIMIT))
    for name in BODIES:
        with body(name):
            same = Adaptation(rules.network)
            same.collect(np.full(level.shape, LIMIT - 1, np.int32), level)
            assert np.array_equal(same.channel, adaptation.channel)


@settings(max_examples=30)
@given(SEEDS, CODED_FROM)
def test_tables_are_those_of_y_and_channels_keep_their_limit(seed: int, coded_from: int) -> None:
    rng = np.random.default_rng(seed)
    rules = random_rules(rng, 5, coded_from)
    adaptation = Adaptation(rules.network)
    for symbols, level in random_phases(rng, 5, 8):
        numbers = adaptation.collect(symbols, level)[1].astype(np.int64) - adaptation.offset
        assert np.all((numbers >= coded_from) & (numbers < SCALE_LEVELS)) and np.abs(adaptation.channel).max() <= ADAPTATION_LIMIT


# ---- hyper-latents --------------------------------------------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(SEEDS, st.sampled_from([(1, 1), (1, 6), (6, 1), (3, 4)]), st.sampled_from([1, 16]))
def test_tables_of_hyper_latents_are_those_of_the_reference(seed: int, sides: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(seed)
    z = np.where(rng.random((*sides, channels)) < 0.8, rng.integers(123, 134, (*sides, channels)), rng.integers(0, 256, (*sides, channels)))
    expected = [reference.hyper_table(z.astype(np.int64), *place) for place in np.ndindex(z.shape)]
    found = hyper_tables(before(z.astype(np.uint8)))
    assert found.dtype == np.uint16 and found.ravel().tolist() == expected


def test_hyper_contexts_by_hand() -> None:
    """Seven tables a channel, by the one to the left; in the first column the one above, for the first 128."""
    z = np.array([[[125, 10], [127, 128], [255, 131]], [[129, 128], [0, 132], [128, 0]]], np.uint8)
    assert before(z)[..., 0].tolist() == [[128, 125, 127], [125, 129, 0]]
    assert hyper_tables(before(z))[..., 0].tolist() == [[3, 0, 2], [0, 4, 0]]
    assert hyper_tables(before(z))[..., 1].tolist() == [[7 + 3, 7 + 0, 7 + 3], [7 + 0, 7 + 3, 7 + 6]]


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([(1, 1), (1, 5), (5, 1), (2, 3)]))
def test_hyper_latents_come_back(seed: int, sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    combined = rans.combine_tables(pack([random_table(rng) for _ in range(3 * 7)]), pack([random_table(rng)]))
    z = rng.integers(0, 256, (*sides, 3)).astype(np.uint8)
    for name in BODIES:
        with body(name):
            decoder = rans.BandDecoder(rans.encode(z.ravel().astype(np.int32), hyper_tables(before(z)).ravel(), combined, 1), combined, 1)
            assert np.array_equal(decoder.decode_hyper(*z.shape), z)
            decoder.finish()


# ---- the score that calibration makes --------------------------------------------------------------------------------------------------------------

def sizes_of(pmfs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities float64[tables, SCORE_SIZES] of the sizes that a score tells apart: the last stands for all larger ones too."""
    reach = pmfs.shape[1] // 2
    sides = pmfs[:, reach:] + np.where(np.arange(reach + 1) > 0, pmfs[:, reach::-1], 0)
    return np.concatenate([sides[:, :SCORE_SIZES - 1], sides[:, SCORE_SIZES - 1:].sum(1, keepdims=True)], 1)


def counted(rng: np.random.Generator, factor: float) -> NDArray[np.int64]:
    """Counts of Laplacian symbols, `factor` times as large as the tables' scales: not what the Gaussian model says."""
    sigma = calibrated.SCALE_MIN * 2 ** (np.arange(SCALE_LEVELS) / SCALE_STEPS_PER_OCTAVE)
    symbols = np.rint(rng.laplace(0, factor * sigma[:, None] / np.sqrt(2), (SCALE_LEVELS, 20_000))).astype(np.int64)
    rows = np.clip(symbols, -calibrated.REACH, calibrated.REACH) + calibrated.REACH
    return np.stack([np.bincount(row, minlength=2 * calibrated.REACH + 1) for row in rows])


PMFS = {"model": lambda: calibrated.latent_pmfs(None), "counted": lambda: calibrated.latent_pmfs(counted(np.random.default_rng(1), 1.0))}


@pytest.mark.parametrize("source", PMFS)
def test_a_score_is_centred_and_does_not_fall(source: str) -> None:
    """Centred as the coder sees it, where all sizes from the last one on are one: else tables that fit would leave their place. 16 a symbol would
    move a position by two tables in the end (16 * 2^7 / 2^10)."""
    pmfs = PMFS[source]()
    score = calibrated.score(pmfs).astype(np.int64)
    assert score.shape == (SCALE_LEVELS, SCORE_SIZES) and np.abs(score).max() <= SCORE_LIMIT
    assert np.all(np.diff(score, axis=1) >= 0)
    means = (sizes_of(pmfs) * score).sum(1)
    assert np.abs(means).max() < 16, dict(enumerate(means.round().tolist()))


def test_without_a_score_nothing_adapts() -> None:
    assert calibrated.no_score().shape == (SCALE_LEVELS, SCORE_SIZES) and calibrated.no_score().dtype == np.int16
    assert not calibrated.no_score().any()


def y_tables(pmfs: NDArray[np.float64]) -> Tables:
    tensors = calibrated.latent_tables(pmfs)
    return Tables(*(tensors[f"y.{part}"].astype(np.int32) for part in ("first", "start", "cdf")))


def simulated(rng: np.random.Generator, lowest: int, octaves: int) -> tuple[float, float]:
    """Four phases of latents with scales from table `lowest` on, whose symbols are 2^octaves times as large as the scales say: (how many tables
    the last phase has moved up on average, bits with adapted tables by bits with fixed ones)."""
    pmfs = calibrated.latent_pmfs(None)
    rules = TableRules(calibrated.score(pmfs), 1, pack([random_table(rng)]), 64)
    fixed, combined = rules._replace(score=calibrated.no_score()), rans.combine_tables(rules.z_tables, y_tables(pmfs))
    cumulative = np.cumsum(pmfs, 1)
    bits, moved = [0.0, 0.0], 0.0
    adaptations = Adaptation(rules.network), Adaptation(fixed.network)
    for _ in range(4):
        level = (16 * lowest + rng.integers(0, 16 * 4, (12, 12, 64))).astype(np.uint16)
        index = level.astype(np.int64) >> SCALE_FRACTION_BITS
        true = np.clip(index + octaves * SCALE_STEPS_PER_OCTAVE, 0, SCALE_LEVELS - 1)
        symbols = np.zeros(level.shape, np.int32)
        for table in np.unique(true):
            here = true == table
            drawn = np.searchsorted(cumulative[table], rng.random(int(here.sum())) * cumulative[table, -1]) - calibrated.REACH
            symbols[here] = drawn
        for i, adaptation in enumerate(adaptations):
            found = adaptation.collect(symbols, level)[1].astype(np.int64).reshape(level.shape) - adaptation.offset
            bits[i] += float(rans.estimated_bits(symbols, found.astype(np.uint16), combined, rules.network).sum())
            moved = float((found - index).mean()) if i == 0 else moved
    return moved, bits[0] / bits[1]


@pytest.mark.parametrize("lowest", [8, 16, 24, 32, 40])
def test_tables_follow_a_model_that_is_wrong(lowest: int) -> None:
    """By an octave, five tables, in either direction, and save bits by that."""
    for octaves in (-1, 1):
        moved, cost = simulated(np.random.default_rng(lowest), lowest, octaves)
        assert 0.6 * SCALE_STEPS_PER_OCTAVE < moved * octaves < 1.2 * SCALE_STEPS_PER_OCTAVE and cost < 0.96, (octaves, moved, cost)


@pytest.mark.parametrize("lowest", [8, 16, 24, 32, 40, 52])
def test_tables_that_fit_stay(lowest: int) -> None:
    """Adaptation costs little where the model is right."""
    moved, cost = simulated(np.random.default_rng(lowest), lowest, 0)
    assert abs(moved) < 0.3 and cost < 1.02, (moved, cost)


def test_a_score_of_one_table_is_a_kilo() -> None:
    """FORMAT's unit: 2^10 of a position's state is one table, 2^6 one level."""
    score = np.zeros((SCALE_LEVELS, SCORE_SIZES), np.int16)
    score[:, 1] = 1 << ADAPTATION_BITS
    rules = TableRules(score, 0, pack([random_table(np.random.default_rng(0))]), 2)
    numbers = Adaptation(rules.network).collect(np.array([[[1, 0]]], np.int32), np.array([[[160, 160]]], np.uint16))[1]
    assert (numbers.astype(np.int64) - 1).tolist() == [10, 11]
