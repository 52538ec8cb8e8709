"""The stretch of a line that agrees: the maximal segment of its rows' log-likelihood ratios."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from codes import Model, activations, fingerprint, noisy, stretched
from hypothesis import given
from hypothesis import strategies as st

from samaf.alignment import Line
from samaf.hamming import pack
from samaf.query import Query
from samaf.stretch import HARD, Stretch, agreement, best_stretch, grow, maximal_segment, row_llr
from samaf.verdict import Verdict

MODEL = Model.make()
VERDICT = Verdict(MODEL.weights, 128, 1.0)


def query_of(values: np.ndarray, **options: np.ndarray) -> Query:
    return VERDICT.query(fingerprint(values, MODEL.weights.model_id, **options))


@pytest.fixture(scope="module")
def track() -> np.ndarray:
    return activations(60.3, np.random.default_rng(1))


@pytest.fixture(scope="module")
def hashes(track: np.ndarray) -> np.ndarray:
    """Of a segment with ten rows of another track before it."""
    other = activations(11.1, np.random.default_rng(2))[:100:10]
    return pack(np.concatenate([other, track[::10]]) > 0)


def line_at(hashes: np.ndarray, offset: float, slope: float = 1.0) -> Line:
    return Line(10, len(hashes), offset, slope, 0.0)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=25))
def test_the_maximal_segment_is_the_best_of_all(values: list[int]) -> None:
    found = maximal_segment(np.array(values, float))
    assert 0 <= found.start < found.stop <= len(values)
    sums = [sum(values[a:b]) for a in range(len(values)) for b in range(a + 1, len(values) + 1)]
    assert sum(values[found]) == max(sums)


def test_where_nothing_agrees_the_least_bad_row_is_left() -> None:
    assert maximal_segment(np.array([-3.0, -1.0, -2.0])) == slice(1, 2)
    assert maximal_segment(np.array([0.0])) == slice(0, 1)


def test_agreement_is_the_weights_with_the_stored_signs() -> None:
    rng = np.random.default_rng(3)
    signed = rng.standard_normal((5, 128)).astype(np.float32)
    bits = rng.random((5, 128)) < 0.5
    np.testing.assert_allclose(
        agreement(signed, pack(bits)), (signed * np.where(bits, 1, -1)).sum(axis=1), rtol=1e-4
    )


def test_a_row_s_likelihood_is_that_of_two_normal_distributions() -> None:
    agreed, expected, mean, spread = np.array([40.0, -5.0]), np.array([60.0, 0.5]), np.array([1.0, 2.0]), 8.0
    same = [30.0, 10.0]  # half of what is expected, but one spread above chance at least
    assert HARD == 0.5
    ratio = [
        (-((a - s) ** 2) + (a - m) ** 2) / (2 * spread**2) for a, s, m in zip(agreed, same, mean, strict=True)
    ]
    np.testing.assert_allclose(row_llr(agreed, expected, mean, np.full(2, spread)), ratio, rtol=1e-6)


def test_the_best_stretch_is_the_part_that_agrees(track: np.ndarray, hashes: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    strange = activations(42.0, rng)
    values = noisy(np.concatenate([strange[:80], track[200:310], strange[100:180]]), 0.4, rng)
    query = query_of(values)
    found = best_stretch(line_at(hashes, 120.0), query, hashes)
    assert found is not None
    np.testing.assert_array_equal(found.query_i, np.arange(80, 190, 10))
    np.testing.assert_array_equal(found.rows, np.arange(20, 31) + 10)
    assert found.llr > 50 and 0 < found.ber < 0.25
    np.testing.assert_allclose(
        found.agreement, agreement(query.signed[found.query_i], hashes[found.rows]), rtol=1e-6
    )


def test_rows_without_content_are_left_out(track: np.ndarray, hashes: np.ndarray) -> None:
    valid = np.ones(81, bool)
    valid[30] = False
    hashes = hashes.copy()
    hashes[10 + 15] = 0
    found = best_stretch(line_at(hashes, 100.0), query_of(track[100:181], valid=valid), hashes)
    assert found is not None
    assert found.query_i.tolist() == [0, 10, 20, 40, 60, 70, 80]
    silent = query_of(track[100:181], valid=np.zeros(81, bool))
    assert best_stretch(line_at(hashes, 100.0), silent, hashes) is None
    assert best_stretch(line_at(hashes, 9000.0), query_of(track[100:181]), hashes) is None


def test_errors_count_by_known_shares(track: np.ndarray, hashes: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    print_ = fingerprint(noisy(track[100:181], 0.4, rng), MODEL.weights.model_id)
    known = np.linspace(0.3, 1.0, 81).astype(np.float32)
    query = VERDICT.query(replace(print_, known=known))
    found = best_stretch(line_at(hashes, 100.0), query, hashes)
    assert found is not None
    errors = np.bitwise_count(query.hashes[found.query_i] ^ hashes[found.rows]).sum(axis=1) / 128
    assert found.ber == pytest.approx(np.average(errors, weights=known[found.query_i]), rel=1e-5)


@pytest.mark.parametrize("slope", [1.0, 0.95, 1.06])
def test_a_line_is_followed_to_its_ends(track: np.ndarray, hashes: np.ndarray, slope: float) -> None:
    values = stretched(track[50:], slope)
    query = query_of(noisy(values, 0.3, np.random.default_rng(6)))
    part = slice(200, 300)
    # what is known of it holds in its part alone
    middle = 50 + slope * 250 + 2
    found = grow(line_at(hashes, middle - (slope + 0.01) * 250, slope + 0.01), query, part, hashes)
    assert found.slope == pytest.approx(slope, abs=0.002)
    for i in (0, len(query) - 1):
        assert found.at(i) == pytest.approx(50 + slope * i, abs=2)


def test_a_line_is_not_followed_beyond_what_agrees(track: np.ndarray, hashes: np.ndarray) -> None:
    rng = np.random.default_rng(7)
    strange = activations(62.0, rng)
    query = query_of(np.concatenate([strange[:250], track[250:350], strange[350:600]]))
    line = line_at(hashes, 0.0)
    found = best_stretch(grow(line, query, slice(250, 350), hashes), query, hashes)
    assert found is not None
    assert 248 <= found.query_i[0] <= 252 and 338 <= found.query_i[-1] <= 352


def test_a_stretch_runs_along_its_line(track: np.ndarray, hashes: np.ndarray) -> None:
    query = query_of(track[100:401])
    found = best_stretch(line_at(hashes, 100.0), query, hashes)
    assert isinstance(found, Stretch)
    part = slice(100, 200)
    assert found.runs_along(line_at(hashes, 100.0), part, query, 5.0)
    assert found.runs_along(line_at(hashes, 104.0), part, query, 5.0)
    assert found.runs_along(line_at(hashes, 100.0 - 0.1 * 150, 1.1), part, query, 5.0)
    assert not found.runs_along(line_at(hashes, 106.0), part, query, 5.0)
    assert not found.runs_along(replace(line_at(hashes, 100.0), first=0), part, query, 5.0)
    short = replace(found, query_i=found.query_i[14:])
    assert not short.runs_along(line_at(hashes, 100.0), part, query, 5.0)
