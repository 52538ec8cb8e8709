"""Metrics of the bench: cases worked out by hand, and what must hold of any outcomes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import metrics
from bench.metrics import Outcomes, Rate

NAN, INF = math.nan, math.inf


def outcomes(*rows: tuple[Any, ...]) -> Outcomes:
    """Rows of in_library, answered, right, accepted, score, error_s, ber, elapsed_s."""
    types = (bool, bool, bool, bool, float, float, float, float)
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    return Outcomes(*(np.array(column, kind) for column, kind in zip(columns, types, strict=True)))


def found(score: float, error_s: float = 0.0, *, accepted: bool = True, ber: float = NAN) -> tuple[Any, ...]:
    return True, True, True, accepted, score, error_s, ber, 0.1


def wrong(score: float, *, accepted: bool = True, ber: float = NAN) -> tuple[Any, ...]:
    return True, True, False, accepted, score, NAN, ber, 0.1


def unknown(score: float, *, accepted: bool = False, ber: float = NAN) -> tuple[Any, ...]:
    """A clip out of the library."""
    return False, True, False, accepted, score, NAN, ber, 0.1


LOST = (True, False, False, False, NAN, NAN, NAN, 0.1)
"""A clip of the library without an answer."""
REFUSED = (False, False, False, False, NAN, NAN, NAN, 0.1)
"""A clip out of the library without an answer."""

# Ten clips: six of the library, four out of it.
TEN = outcomes(
    found(9.0, 0.0, ber=0.11),
    found(8.0, -0.25, ber=0.13),
    found(6.0, 0.5, accepted=False, ber=0.31),
    found(4.0, 0.7, ber=0.29),
    wrong(5.0, ber=0.43),
    LOST,
    unknown(6.0, accepted=True, ber=0.41),
    unknown(3.0, ber=0.47),
    unknown(1.0, accepted=True),
    REFUSED,
)


# -- worked out by hand -----------------------------------------------------------------------------------------------


def test_the_three_senses_of_top_1() -> None:
    assert metrics.top1(TEN) == Rate(4, 6)
    assert metrics.top1(TEN, metrics.NEAR_S) == Rate(3, 6)
    assert metrics.top1(TEN, metrics.EXACT_S) == Rate(2, 6)


def test_an_offset_that_is_not_known_is_not_near() -> None:
    assert metrics.top1(outcomes(found(1.0, NAN))) == Rate(1, 1)
    assert metrics.top1(outcomes(found(1.0, NAN)), metrics.NEAR_S) == Rate(0, 1)


def test_localisation_error_is_that_of_right_candidates() -> None:
    median, upper = metrics.localisation_error(TEN)
    assert median == pytest.approx((0.25 + 0.5) / 2)
    assert upper == pytest.approx(0.5 + 0.85 * 0.2)  # of four values, 95 % lies at 0.95 * 3 = 2 + 0.85


def test_verdicts() -> None:
    assert metrics.recall(TEN) == Rate(3, 6)
    assert metrics.precision(TEN) == Rate(3, 6)  # accepted: three right ones, a wrong one, two unknown ones
    assert metrics.wrong_accepts(TEN) == Rate(1, 6)
    assert metrics.false_accepts(TEN) == Rate(2, 4)
    assert metrics.f1(TEN) == pytest.approx(2 * 3 / (6 + 6))
    assert metrics.accuracy(TEN) == Rate(5, 10)  # three are named rightly, two are unknown and stay so


def test_threshold_leaves_no_more_than_the_rate() -> None:
    # Out of the library: 6, 3, 1 and no answer. None may be answered at 1 %, one at 25 %, all but one at 99 %.
    assert metrics.threshold_at(TEN) == 6.0
    assert metrics.threshold_at(TEN, 0.25) == 3.0
    assert metrics.threshold_at(TEN, 0.5) == 1.0
    assert metrics.threshold_at(TEN, 0.99) == -INF
    assert metrics.hits_above(TEN, 6.0) == Rate(2, 6)  # the hit that ties is not given
    assert metrics.hits_above(TEN, -INF) == Rate(4, 6)


def test_threshold_counts_in_whole_clips() -> None:
    hundred = outcomes(*(unknown(float(score)) for score in range(100)))
    assert metrics.threshold_at(hundred) == 98.0
    assert metrics.threshold_at(hundred.where(hundred.score > 0)) == 99.0  # of 99 clips, 1 % is none
    assert metrics.threshold_at(hundred, 0.07) == 92.0  # though 0.07 * 100 is 7.000000000000001
    assert metrics.threshold_at(hundred, 0.29) == 70.0  # and 0.29 * 100 is 28.999999999999996


def test_ties_at_the_threshold_are_left_unanswered() -> None:
    tied = outcomes(*(unknown(5.0) for _ in range(200)), found(5.0), found(5.5))
    assert metrics.threshold_at(tied) == 5.0
    assert metrics.hits_above(tied, 5.0) == Rate(1, 2)


def test_a_score_of_nan_ranks_last() -> None:
    told = outcomes(found(NAN), found(-3.0), unknown(NAN), unknown(-5.0))
    assert metrics.threshold_at(told) == -5.0
    assert metrics.threshold_at(told, 0.5) == -INF
    assert metrics.hits_above(told, -INF) == Rate(1, 2)
    assert metrics.top1(told) == Rate(2, 2)


def test_operating_points() -> None:
    points = metrics.operating_points(TEN)
    assert points.threshold.tolist() == [-INF, 1, 3, 4, 5, 6, 8, 9]
    assert points.false_answer_rate.tolist() == [3 / 4, 2 / 4, 1 / 4, 1 / 4, 1 / 4, 0, 0, 0]
    assert (6 * points.hit_rate).round(9).tolist() == [4, 4, 4, 3, 3, 2, 1, 0]
    assert np.allclose(points.miss_rate, 1 - points.hit_rate)


def test_bit_error_rates_of_true_and_false_alignments() -> None:
    assert TEN.ber[metrics.true_alignments(TEN)].tolist() == [0.11, 0.13, 0.31]  # 0.29 lies at a wrong place
    false = TEN.ber[metrics.false_alignments(TEN)]
    assert false[~np.isnan(false)].tolist() == [0.43, 0.41, 0.47]
    edges, shares = metrics.ber_histogram(np.array([0.0, 0.1, 0.3, 1.0, NAN]), bins=4)
    assert edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert shares.tolist() == [0.5, 0.25, 0, 0.25]
    assert not metrics.ber_histogram(np.array([NAN]))[1].any()


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_of_the_literature(hits: int, n: int, low: float, high: float) -> None:
    assert metrics.wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert metrics.wilson(0, 0) == (0.0, 1.0)
    for hits, n in ((-1, 3), (4, 3), (0, -1)):
        with pytest.raises(ValueError, match="no share"):
            metrics.wilson(hits, n)


def test_costs() -> None:
    assert metrics.bytes_per_hour(58e3, 1800) == 116e3
    assert metrics.times_real_time(3600, 10) == 360
    assert math.isnan(metrics.bytes_per_hour(1, 0)) and math.isnan(metrics.times_real_time(1, 0))
    timed = replace(TEN, elapsed_s=np.arange(10.0))
    assert metrics.query_time(timed) == pytest.approx((4.5, 8.55))


def test_evaluate_gives_them_all() -> None:
    scores = metrics.evaluate(
        TEN, audio_s=7200, ingest_s=20, ingest_cpu_s=10, index_bytes=1000, peak_memory_bytes=5
    )
    assert scores["hit_fa1"] == Rate(2, 6) and scores["threshold_fa1"] == 6.0
    assert scores["top1_near"] == Rate(3, 6) and scores["recall"] == Rate(3, 6)
    assert (scores["ber_true_median"], scores["ber_false_median"]) == (0.13, 0.43)
    assert (scores["ingest_x_real_time"], scores["ingest_cpu_x_real_time"]) == (360, 720)
    assert (scores["index_bytes_per_hour"], scores["peak_memory_bytes"]) == (500, 5)
    assert metrics.evaluate(TEN, threshold=-INF)["hit_fa1"] == Rate(4, 6)


def test_of_nothing_nothing_is_known() -> None:
    for name, value in metrics.evaluate(outcomes()).items():
        assert math.isnan(value.value if isinstance(value, Rate) else value), name
    only_library = TEN.where(TEN.in_library)
    assert math.isnan(metrics.threshold_at(only_library))
    assert metrics.hits_above(only_library, NAN) == Rate(0, 0)
    assert np.isnan(metrics.operating_points(only_library).false_answer_rate).all()
    assert metrics.f1(outcomes(LOST)) == 0.0 and math.isnan(metrics.f1(outcomes(REFUSED)))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ((False, True, True, False, 1.0, 0.0, NAN, 0.1), "out of the library"),
        ((True, False, True, False, 1.0, 0.0, NAN, 0.1), "without a candidate"),
        ((True, False, False, True, 1.0, NAN, NAN, 0.1), "without a candidate"),
    ],
)
def test_contradictions_are_refused(row: tuple[Any, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        outcomes(row)


def test_columns_must_have_one_length() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        replace(TEN, score=np.zeros(3))


# -- of any outcomes --------------------------------------------------------------------------------------------------

# Few values, so that ties are common.
SCORES = st.one_of(st.integers(0, 6).map(float), st.floats(-10, 10), st.just(NAN))
ERRORS = st.one_of(st.sampled_from([-0.5, -0.25, 0.0, 0.25, 0.5]), st.floats(-3, 3), st.just(NAN))
ROWS = st.one_of(
    st.builds(lambda s, e, a: found(s, e, accepted=a), SCORES, ERRORS, st.booleans()),
    st.builds(lambda s, a: wrong(s, accepted=a), SCORES, st.booleans()),
    st.builds(lambda s, a: unknown(s, accepted=a), SCORES, st.booleans()),
    st.sampled_from([LOST, REFUSED]),
)
OUTCOMES = st.lists(ROWS, max_size=40).map(lambda rows: outcomes(*rows))
RATES = st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 0.9])


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.5, 0.999))
def test_wilson_contains_the_share_and_narrows(a: int, b: int, confidence: float) -> None:
    hits, n = min(a, b), max(a, b)
    low, high = metrics.wilson(hits, n, confidence)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= hits / n <= high
        wider, ten_times = metrics.wilson(hits, n, 0.9999), metrics.wilson(10 * hits, 10 * n, confidence)
        assert wider[1] - wider[0] >= high - low >= ten_times[1] - ten_times[0]
        mirrored = metrics.wilson(n - hits, n, confidence)
        assert mirrored == pytest.approx((1 - high, 1 - low))


@given(OUTCOMES)
def test_stricter_senses_hit_less(told: Outcomes) -> None:
    exact, near, correct = (metrics.top1(told, within) for within in (metrics.EXACT_S, metrics.NEAR_S, INF))
    assert exact.hits <= near.hits <= correct.hits <= correct.n == told.in_library.sum()
    assert metrics.recall(told).hits <= correct.hits
    assert metrics.hits_above(told, metrics.threshold_at(told)).hits <= correct.hits


@given(OUTCOMES, RATES)
def test_the_threshold_is_the_smallest_that_serves(told: Outcomes, rate: float) -> None:
    evidence = told.evidence[~told.in_library]
    threshold = metrics.threshold_at(told, rate)
    if not len(evidence):
        assert math.isnan(threshold)
        return
    allowed = rate * len(evidence) + 1e-9
    assert (evidence > threshold).sum() <= allowed
    assert threshold == -INF or (evidence > np.nextafter(threshold, -INF)).sum() > allowed


@given(OUTCOMES, RATES)
def test_curves_fall_and_hold_the_operating_point(told: Outcomes, rate: float) -> None:
    points = metrics.operating_points(told)
    assert (np.diff(points.threshold) > 0).all()
    threshold = metrics.threshold_at(told, rate)
    for shares, n in (
        (points.false_answer_rate, (~told.in_library).sum()),
        (points.hit_rate, told.in_library.sum()),
    ):
        assert np.isnan(shares).all() if n == 0 else ((shares >= 0) & (shares <= 1)).all()
        assert n == 0 or ((np.diff(shares) <= 0).all() and shares[-1] == 0)
    if not math.isnan(threshold) and told.in_library.any():
        [at] = np.flatnonzero(points.threshold == threshold)
        assert points.hit_rate[at] == metrics.hits_above(told, threshold).value
        assert points.false_answer_rate[at] <= rate + 1e-9


@given(OUTCOMES)
def test_f1_is_the_harmonic_mean(told: Outcomes) -> None:
    precision, recall, f1 = metrics.precision(told).value, metrics.recall(told).value, metrics.f1(told)
    if precision > 0 and recall > 0:
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
        assert min(precision, recall) - 1e-12 <= f1 <= max(precision, recall) + 1e-12
    else:
        assert math.isnan(f1) or f1 == 0


@given(OUTCOMES, st.randoms(use_true_random=False))
def test_the_order_of_queries_does_not_matter(told: Outcomes, random: Any) -> None:
    order = list(range(len(told)))
    random.shuffle(order)
    shuffled = metrics.evaluate(told.where(np.array(order, int)))
    for name, value in metrics.evaluate(told).items():
        same = value if isinstance(value, Rate) else pytest.approx(value, nan_ok=True)
        assert shuffled[name] == same, name


@given(st.lists(st.one_of(st.floats(0, 1), st.just(NAN))), st.integers(1, 60))
def test_histograms_count_everything_once(ber: list[float], bins: int) -> None:
    edges, shares = metrics.ber_histogram(np.array(ber, float), bins)
    assert len(edges) == bins + 1 and len(shares) == bins
    assert shares.sum() == pytest.approx(1.0 if np.isfinite(np.array(ber, float)).any() else 0.0)
