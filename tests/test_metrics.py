"""PSNR and BD-rate against closed forms, properties, and the package bjontegaard where it is installed."""
from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metrics import RDPoint, bd_psnr, bd_rate, bytes_at_psnr, front, psnr_db


def line(low_db: float, high_db: float, points: int = 5, factor: float = 1.0, decades_per_db: float = 0.05) -> list[RDPoint]:
    """A curve whose log rate is linear in PSNR, where PCHIP is exact."""
    levels_db = np.linspace(low_db, high_db, points).tolist()
    return [RDPoint(index, factor * 1000.0 * 10.0 ** (decades_per_db * psnr), psnr) for index, psnr in enumerate(levels_db)]


@st.composite
def curves(draw: st.DrawFn) -> list[RDPoint]:
    """Strictly monotone curves of 4 to 10 points that begin below 30 and end above 40 dB."""
    steps = draw(st.lists(st.tuples(st.floats(0.5, 6.0), st.floats(1.02, 3.0)), min_size=3, max_size=9))
    psnr, size = draw(st.floats(20.0, 29.0)), draw(st.floats(500.0, 5000.0))
    points = [RDPoint(0, size, psnr)]
    for index, (step_db, growth) in enumerate(steps):
        psnr, size = psnr + step_db, size * growth
        points.append(RDPoint(index + 1, size, psnr))
    return points


# PSNR

def test_psnr_of_known_errors() -> None:
    black = np.zeros((4, 6, 3), np.uint8)
    assert psnr_db(black, np.full_like(black, 255)) == 0.0
    assert psnr_db(black, black + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    one_sample = black.copy()
    one_sample[2, 3, 1] = 10
    assert psnr_db(black, one_sample) == pytest.approx(10 * math.log10(255**2 * black.size / 100))


def test_psnr_averages_the_error_over_the_planes_and_not_their_psnr() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    decoded = picture.copy()
    decoded[..., 0] = 3
    assert psnr_db(picture, decoded) == pytest.approx(10 * math.log10(255**2 / (9 / 3)))


def test_psnr_does_not_wrap_and_is_symmetric() -> None:
    low, high = np.full((2, 2, 3), 3, np.uint8), np.full((2, 2, 3), 250, np.uint8)
    assert psnr_db(low, high) == psnr_db(high, low) == pytest.approx(20 * math.log10(255 / 247))


def test_psnr_of_equal_pictures_is_infinite() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert psnr_db(picture, picture.copy()) == math.inf


def test_psnr_refuses_what_it_is_not_defined_for() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="shapes"):
        psnr_db(picture, picture[:, :, :1])
    with pytest.raises(TypeError, match="uint8"):
        psnr_db(picture, picture.astype(np.float32))
    with pytest.raises(ValueError, match="empty"):
        psnr_db(picture[:0], picture[:0])


# Useful points of a curve

def test_front_leaves_out_beaten_points() -> None:
    good = [RDPoint(0, 100, 30.0), RDPoint(1, 200, 33.0), RDPoint(2, 400, 36.0)]
    beaten = [RDPoint(3, 210, 32.9), RDPoint(4, 200, 32.0), RDPoint(5, 500, 36.0), RDPoint(6, 100, 29.0)]
    kept = front(good + beaten)
    assert kept.psnr_db.tolist() == [30.0, 33.0, 36.0]
    assert np.exp(kept.log_bytes) == pytest.approx([100, 200, 400])


def test_front_is_not_the_convex_hull() -> None:
    dented = [RDPoint(0, 100, 30.0), RDPoint(1, 390, 31.0), RDPoint(2, 400, 36.0)]
    assert front(dented).psnr_db.size == 3


def test_front_leaves_out_lossless_points() -> None:
    assert front([*line(30, 40), RDPoint(9, 1e9, math.inf)]).psnr_db.tolist() == front(line(30, 40)).psnr_db.tolist()


# BD-rate

@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25, 3.0])
def test_bd_rate_of_parallel_lines_is_the_factor(factor: float) -> None:
    assert bd_rate(line(25, 45), line(25, 45, points=8, factor=factor)) == pytest.approx(factor - 1, abs=1e-12)


def test_bd_rate_of_crossing_lines_is_the_factor_in_the_middle_of_the_overlap() -> None:
    anchor = line(20, 40, decades_per_db=0.05)
    test = line(30, 50, decades_per_db=0.08)
    assert bd_rate(anchor, test) == pytest.approx(10 ** (0.03 * 35) - 1, rel=1e-12)


def test_bd_rate_looks_at_the_overlap_only() -> None:
    """A test curve that begins inside the anchor's interval, and one that ends beyond it."""
    assert bd_rate(line(25, 45, points=9), line(31, 39, factor=0.7)) == pytest.approx(-0.3, abs=1e-12)
    assert bd_rate(line(25, 45), line(40, 60, points=9, factor=0.7)) == pytest.approx(-0.3, abs=1e-12)
    far_away = [RDPoint(7, 1e7, 70.0), RDPoint(8, 1e8, 90.0)]
    assert bd_rate(line(25, 45, points=9), [*line(25, 45, points=9, factor=0.7), *far_away]) == pytest.approx(-0.3, abs=0.01)


def test_bd_rate_within_limits_is_that_of_the_part() -> None:
    """Crossing lines differ by 0.03 decades a dB, so the mean lies in the middle of the part."""
    anchor, test = line(20, 40, points=21, decades_per_db=0.05), line(20, 40, points=21, decades_per_db=0.08)
    assert bd_rate(anchor, test, (25.5, 30.5)) == pytest.approx(10 ** (0.03 * 28) - 1, rel=1e-12)
    assert bd_rate(anchor, test, (28.25, 28.75)) == pytest.approx(10 ** (0.03 * 28.5) - 1, rel=1e-9)     # between two points
    assert math.isnan(bd_rate(anchor, test, (41.0, 50.0)))


@pytest.mark.parametrize("test", [line(46, 60), line(45, 60), line(40.1, 60, points=2), line(30, 40, points=1), [], line(10, 60, points=2)])
def test_bd_rate_without_a_measured_overlap_is_nan(test: list[RDPoint]) -> None:
    """Apart, touching, one point inside, one point, none, and a curve that only passes over the interval."""
    assert math.isnan(bd_rate(line(25, 45), test))
    assert math.isnan(bd_rate(test, line(25, 45)))


def test_bd_rate_leaves_out_beaten_points() -> None:
    test = line(25, 45, factor=0.8)
    assert bd_rate(line(25, 45), [*test, RDPoint(9, 1e9, 35.3)]) == pytest.approx(-0.2, abs=1e-12)


@given(curves(), st.floats(0.05, 20.0))
def test_scaling_all_rates_scales_the_bd_rate(curve: list[RDPoint], factor: float) -> None:
    scaled = [RDPoint(point.quality, point.num_bytes * factor, point.psnr_db) for point in curve]
    assert bd_rate(curve, scaled) == pytest.approx(factor - 1, abs=1e-9)


@given(curves(), curves(), st.randoms(use_true_random=False))
def test_bd_rate_does_not_depend_on_the_order_of_points(anchor: list[RDPoint], test: list[RDPoint], generator: random.Random) -> None:
    shuffled = generator.sample(test, len(test))
    assert bd_rate(anchor, shuffled) == pytest.approx(bd_rate(anchor, test), nan_ok=True, abs=0)


@given(curves(), curves())
def test_bd_rate_of_the_swapped_pair_is_the_inverse_factor(anchor: list[RDPoint], test: list[RDPoint]) -> None:
    forward, back = bd_rate(anchor, test), bd_rate(test, anchor)
    assert math.isnan(forward) == math.isnan(back)
    assert math.isnan(forward) or (1 + forward) * (1 + back) == pytest.approx(1, rel=1e-9)


@given(curves(), curves())
def test_bd_rate_lies_between_the_extreme_rate_ratios(anchor: list[RDPoint], test: list[RDPoint]) -> None:
    value = bd_rate(anchor, test)
    if math.isnan(value):
        return
    sizes = [point.num_bytes for point in anchor], [point.num_bytes for point in test]
    assert min(sizes[1]) / max(sizes[0]) - 1e-9 <= 1 + value <= max(sizes[1]) / min(sizes[0]) + 1e-9


@given(curves(), curves())
def test_bd_rate_agrees_with_the_bjontegaard_package(anchor: list[RDPoint], test: list[RDPoint]) -> None:
    package = pytest.importorskip("bjontegaard")
    value = bd_rate(anchor, test)
    if math.isnan(value):
        return
    columns = [[point.num_bytes for point in anchor], [point.psnr_db for point in anchor],
               [point.num_bytes for point in test], [point.psnr_db for point in test]]
    assert 100 * value == pytest.approx(package.bd_rate(*columns, method="pchip", require_matching_points=False, min_overlap=0), rel=1e-7, abs=1e-7)


# Bytes at a PSNR

def test_bytes_at_psnr_meets_the_points_and_is_geometric_between() -> None:
    curve = line(25, 45)
    for point in curve:
        assert bytes_at_psnr(curve, point.psnr_db) == pytest.approx(point.num_bytes)
    assert bytes_at_psnr(curve, 32.7) == pytest.approx(1000 * 10 ** (0.05 * 32.7))


def test_bytes_at_psnr_does_not_extrapolate() -> None:
    assert math.isnan(bytes_at_psnr(line(25, 45), 24.9))
    assert math.isnan(bytes_at_psnr(line(25, 45), 45.1))
    assert math.isnan(bytes_at_psnr(line(25, 45, points=1), 25.0))


# BD-PSNR

def lifted(curve: list[RDPoint], gain_db: float) -> list[RDPoint]:
    return [RDPoint(point.quality, point.num_bytes, point.psnr_db + gain_db) for point in curve]


@given(curves(), st.floats(-3.0, 3.0))
def test_bd_psnr_of_a_lifted_curve_is_the_lift(curve: list[RDPoint], gain_db: float) -> None:
    assert bd_psnr(curve, lifted(curve, gain_db)) == pytest.approx(gain_db, abs=1e-9)


def test_bd_psnr_of_crossing_lines_is_the_gain_in_the_middle() -> None:
    """Lines through 1000 bytes at 30 dB, of 20 and 10 dB a decade, over one decade."""
    anchor, test = ([RDPoint(n, 1000 * 10 ** share, 30 + slope * share) for n, share in enumerate((0, 0.3, 0.6, 1))] for slope in (20, 10))
    assert bd_psnr(anchor, test) == pytest.approx(-5)
    assert bd_psnr(test, anchor) == pytest.approx(5)


@pytest.mark.parametrize("test", [line(25, 45, factor=1e6), line(30, 40, points=1), []])
def test_bd_psnr_without_a_measured_overlap_is_nan(test: list[RDPoint]) -> None:
    assert math.isnan(bd_psnr(line(25, 45), test)) and math.isnan(bd_psnr(test, line(25, 45)))
