"""A query: the weights of its bits, what they lead to expect, and its parts."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from codes import Model, activations, fingerprint
from hypothesis import given
from hypothesis import strategies as st

from samaf.background import Background
from samaf.fingerprint import Fingerprint
from samaf.query import MAX_WEIGHT, Query, Reliability

MODEL = Model.make()
BACKGROUND = Background(MODEL.weights.calibration["background"], 128, 1.0)
RELIABILITY = Reliability(-0.5, 2.0, 1.5)
ROWS = 30


def overhanging(seed: int = 0) -> Fingerprint:
    """A query of 30 rows of which the outer ones overhang and two have no content."""
    rng = np.random.default_rng(seed)
    valid = np.ones(ROWS, bool)
    valid[[4, 17]] = False
    print_ = fingerprint(activations(6.0, rng)[:ROWS], MODEL.weights.model_id, valid=valid)
    known = np.minimum(1.0, 0.3 + 0.1 * np.minimum(np.arange(ROWS), np.arange(ROWS)[::-1]))
    return replace(print_, known=known.astype(np.float32), start_s=-0.7)


def query_of(print_: Fingerprint) -> Query:
    return Query.of(print_, RELIABILITY, BACKGROUND, 1.0)


def cut(print_: Fingerprint, a: int, b: int) -> Fingerprint:
    assert print_.confidence is not None and print_.known is not None
    return replace(
        print_,
        hashes=print_.hashes[a:b],
        valid=print_.valid[a:b],
        confidence=print_.confidence[a:b],
        known=print_.known[a:b],
        start_s=print_.start_s + a * print_.hop_s,
    )


def assert_same(a: Query, b: Query) -> None:
    assert a.reliability == b.reliability
    for field in fields(Query):
        if field.name == "reliability":
            continue
        one, other = getattr(a, field.name), getattr(b, field.name)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=field.name)
    np.testing.assert_allclose(a.power, b.power, rtol=1e-5)
    np.testing.assert_allclose(a.table, b.table, rtol=1e-4, atol=1e-4)


def test_weight_is_half_the_log_odds() -> None:
    confidence = np.array([[0.0, 1.0, 50.0]], np.float16)
    for known, expected in ((1.0, [0.0, 0.75, MAX_WEIGHT]), (0.25, [0.0, 0.75 / 8, MAX_WEIGHT])):
        weight = RELIABILITY.weight(confidence, np.array([known], np.float32))
        np.testing.assert_allclose(weight, [expected], rtol=1e-6)
        assert weight.dtype == np.float32
    assert confidence.tolist() == [[0.0, 1.0, 50.0]]  # the input stays


def test_weight_of_every_confidence() -> None:
    confidence = np.arange(0x7C00, dtype=np.uint16).view(np.float16)[None]
    exact = Reliability(intercept=0.0, slope=2.0, power=0.0).weight(confidence, np.ones(1, np.float32))
    assert np.array_equal(exact, np.minimum(confidence.astype(np.float32), MAX_WEIGHT))
    assert not exact[:, 0].any() and exact[0, 1] == 2.0**-24
    none = np.array([[-0.0]], np.float16)
    assert RELIABILITY.weight(none, np.ones(1, np.float32)) == RELIABILITY.weight(
        -none, np.ones(1, np.float32)
    )


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0.05, 1), st.floats(0.05, 1))
def test_weight_grows_with_confidence_and_known_share(a: float, b: float, c: float, d: float) -> None:
    confidence, known = np.array([sorted([a, b])], np.float16), np.array(sorted([c, d]), np.float32)
    weight = RELIABILITY.weight(np.repeat(confidence, 2, axis=0), known)
    assert (weight[:, 0] <= weight[:, 1]).all() and (weight[0] <= weight[1]).all()
    assert weight.min() >= 0 and weight.max() <= MAX_WEIGHT


def test_signed_weights_follow_the_bits_and_rows_without_content_have_none() -> None:
    print_ = overhanging()
    query = query_of(print_)
    weight = RELIABILITY.weight(print_.confidence, print_.known)  # type: ignore[arg-type]
    for i in range(ROWS):
        for bit in (0, 63, 64, 127):
            is_set = bool(print_.hashes[i, bit // 64] >> np.uint64(bit % 64) & np.uint64(1))
            expected = (weight[i, bit] if is_set else -weight[i, bit]) if print_.valid[i] else 0.0
            assert query.signed[i, bit] == expected
    assert not query.signed[~query.valid].any() and not query.expected[~query.valid].any()
    assert (len(query), query.bits, query.ratio) == (ROWS, 128, 10.0)


def test_what_is_expected_are_as_many_right_bits_as_their_odds_say() -> None:
    query = query_of(overhanging())
    weight = np.abs(query.signed).astype(np.float64)
    right = 1 / (1 + np.exp(-2 * weight))  # a bit's chance by its log-odds
    np.testing.assert_allclose(query.expected, np.sum(weight * (2 * right - 1), axis=1), rtol=1e-4, atol=1e-5)


def test_chance_is_that_of_the_background() -> None:
    query = query_of(overhanging())
    mean, spread = BACKGROUND.of_rows(query.signed)
    np.testing.assert_array_equal(query.mean, mean)
    np.testing.assert_array_equal(query.spread, spread)
    np.testing.assert_allclose(query.power, (query.signed**2).sum(axis=1), rtol=1e-5)


def test_the_table_equals_the_sum_over_bits() -> None:
    query = query_of(overhanging())
    assert query.table.shape == (ROWS, 32, 16)
    for value in range(16):
        signs = np.array([1 if value >> k & 1 else -1 for k in range(4)])
        np.testing.assert_allclose(
            query.table[:, 5, value], query.signed[:, 20:24] @ signs, rtol=1e-4, atol=1e-5
        )


def test_without_confidence_bits_count_alike() -> None:
    query = query_of(replace(overhanging(), confidence=None))
    np.testing.assert_allclose(
        np.abs(query.signed[query.valid]), np.repeat(query.known[query.valid, None], 128, axis=1)
    )
    alone = query_of(replace(overhanging(), confidence=None, known=None, start_s=0.0))
    assert set(np.abs(alone.signed).ravel().tolist()) == {0.0, 1.0}
    assert (alone.known == 1).all()


def test_the_fingerprint_stays_as_it_was() -> None:
    print_ = overhanging()
    query_of(print_)
    assert print_ == overhanging()


@given(st.integers(0, ROWS), st.integers(0, ROWS))
def test_a_slice_is_the_query_of_the_part(a: int, b: int) -> None:
    a, b = sorted((a, b))
    print_ = overhanging()
    assert_same(query_of(print_).slice(slice(a, b)), query_of(cut(print_, a, b)))


@given(st.lists(st.integers(0, ROWS), min_size=4, max_size=4))
def test_a_slice_of_a_slice(places: list[int]) -> None:
    a, c, d, b = sorted(places)
    query = query_of(overhanging())
    assert query.power.shape == (ROWS,) and query.table.shape[0] == ROWS  # asked for before it is cut
    part = query.slice(slice(a, b))
    assert_same(part.slice(slice(c - a, d - a)), query.slice(slice(c, d)))


def test_a_slice_may_be_open_and_keeps_the_clip_s_time() -> None:
    query = query_of(overhanging())
    assert_same(query.slice(slice(None)), query)
    part = query.slice(slice(12, None))
    assert part.start_s == pytest.approx(-0.7 + 1.2)
    assert part.duration_s == query.duration_s
    assert len(query.slice(slice(25, 99))) == 5
