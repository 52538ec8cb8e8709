"""Lines: found by a naive sum or by votes, moved, turned and told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from codes import Model, activations, fingerprint, noisy
from hypothesis import given
from hypothesis import strategies as st

from samaf.alignment import (
    Line,
    Lines,
    distinct,
    first_of_each,
    refine,
    scan,
    shifts_for,
    slopes_for,
    vote,
)
from samaf.hamming import pack
from samaf.query import Query
from samaf.verdict import Verdict

MODEL = Model.make()
VERDICT = Verdict(MODEL.weights, 128, 1.0)
STILL = np.zeros(1)


def query_of(
    values: np.ndarray, known: np.ndarray | None = None, valid: np.ndarray | None = None, hop_s: float = 1.0
) -> Query:
    print_ = fingerprint(values, MODEL.weights.model_id, valid=valid)
    if known is not None:
        print_ = replace(print_, known=known.astype(np.float32))
    return replace(VERDICT.query(print_), reference_hop_s=hop_s)


def lines_of(*lines: Line) -> Lines:
    return Lines(
        *(np.array([getattr(line, name) for line in lines]) for name in ("first", "last")),
        *(np.array([getattr(line, name) for line in lines], float) for name in ("offset", "slope", "score")),
    )


def each(lines: Lines) -> list[Line]:
    return [lines.line(k) for k in range(len(lines))]


# -- a line -----------------------------------------------------------------------------------------------------------


@given(
    st.floats(-60, 400),
    st.sampled_from([0.9, 0.95, 1.0, 1.05, 1.12]),
    st.sampled_from([0.5, 1.0, 0.1]),
)
def test_the_rows_of_a_line_are_those_that_meet(offset: float, slope: float, hop_s: float) -> None:
    query = query_of(activations(6.0, np.random.default_rng(0))[:45], hop_s=hop_s)
    line = Line(7, 40, offset, slope, 0.0)
    query_i, rows = line.rows(query)
    expected = []
    for r in range(33):
        at = (query.ratio * r - offset) / slope
        if 0 <= at <= 44:
            expected.append((round(at), r + 7))
    met = list(zip(query_i.tolist(), rows.tolist(), strict=True))
    assert [row for _, row in met] == sorted({row for _, row in met})
    # a row whose meeting rounds to one of the ends may count or not
    assert {pair for pair in expected if 0 < pair[0] < 44} <= set(met)
    assert all(0 <= i < 45 and 7 <= row < 40 for i, row in met)
    assert all(abs(line.at(i) - query.ratio * (row - 7)) <= slope * 0.5 + 1e-6 for i, row in met)


def test_a_line_may_begin_at_another_row() -> None:
    line = Line(0, 99, 120.0, 0.95, 3.0)
    later = line.from_row(40)
    assert [later.at(i) for i in (0, 10)] == pytest.approx([line.at(40), line.at(50)])
    back = later.from_row(-40)
    assert (back.offset, back.slope, back.score) == pytest.approx((120.0, 0.95, 3.0))


def test_lines_are_taken_and_made_one_by_one() -> None:
    a, b = Line(0, 9, 1.5, 1.0, 2.0), Line(9, 20, -3.0, 0.9, 1.0)
    lines = lines_of(a, b)
    assert each(lines) == [a, b] and each(Lines.of(b)) == [b]
    assert each(lines.take(np.array([False, True]))) == [b] == each(lines.take(slice(1, None)))


def test_slopes_lie_closer_for_longer_queries() -> None:
    values = activations(20.0, np.random.default_rng(0))
    short, middle, long = (slopes_for(query_of(values[:n])) for n in (11, 41, 91))
    assert short.tolist() == [1.0]
    assert middle[0] == long[0] == 1.0 and 1 < len(middle) < len(long)
    assert 0.85 <= long.min() < 0.92 and 1.08 < long.max() <= 1.15


def test_shifts_are_nine_at_most() -> None:
    query = query_of(activations(6.0, np.random.default_rng(0))[:20])
    assert shifts_for(0.4, query).tolist() == pytest.approx([-4, -3, -2, -1, 0, 1, 2, 3, 4])
    assert len(shifts_for(3.0, query)) == 9 and shifts_for(0.01, query).tolist() == [0.0]


# -- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [False, True])
def test_scan_equals_the_naive_sum(shares: bool) -> None:
    """Rows count by known shares in eighths, and what is met by nothing adds nothing."""
    rng = np.random.default_rng(4)
    values, stored = rng.standard_normal((23, 128)).astype(np.float32), rng.random((57, 128)) > 0.5
    valid = np.ones(23, bool)
    valid[3] = False
    known = rng.uniform(0.02, 1.0, 23) if shares else None
    query = query_of(values, known, valid)
    hashes = pack(stored)
    hashes[20] = 0
    lines = scan(hashes, np.array([0, 30, 57]), query, np.array([1.0]), 400, most=400)
    assert {(line.first, line.last) for line in each(lines)} == {(0, 30), (30, 57)}
    for line in each(lines):
        total = power = 0.0
        for k in range(3):
            i = round((-line.offset) % 10) + 10 * k
            r = round((line.offset + i) / 10) + line.first
            if i < 23 and valid[i]:
                share = max(1, round(8 * float(query.known[i])))
                power += share**2
                if 0 <= r < 57 and hashes[r].any():
                    total += share * (64 - int(np.bitwise_count(query.hashes[i] ^ hashes[r]).sum()))
        assert line.score == pytest.approx(total / np.sqrt(32 * max(power, 1.0)), abs=1e-3)


def test_scan_finds_slopes_and_prefers_none() -> None:
    rng = np.random.default_rng(5)
    track = activations(70.0, rng)
    hashes, starts = pack(track[::10] > 0), np.array([0, len(track[::10])])
    for slope in (0.94, 1.0, 1.06):
        at = np.rint(200 + slope * np.arange(100)).astype(int)
        query = query_of(noisy(track[at], 0.3, rng))
        best = scan(hashes, starts, query, slopes_for(query), 5, most=5).line(0)
        assert best.slope == pytest.approx(slope, abs=0.02)
        assert best.at(50) == pytest.approx(200 + slope * 50, abs=2)


def test_places_of_scanned_lines_are_shared_among_tracks() -> None:
    rng = np.random.default_rng(5)
    values = activations(5.1, rng)
    query = query_of(values)
    loop = np.tile(pack(values[::10] > 0), (100, 1))
    noise = pack(activations(31.0, rng)[:300:10] > 0)
    noise[7 : 7 + len(values[::10])] = pack(noisy(values[::10], 1.0, rng) > 0)
    stored = np.concatenate([loop, noise])
    starts = np.array([0, len(loop), len(loop), len(stored)])
    lines = each(scan(stored, starts, query, np.ones(1), 40, most=10))
    assert sum(line.first == 0 for line in lines) == 10
    assert any(line.first == len(loop) and round(line.offset / 10) == 7 for line in lines)
    is_live = np.array([False, True, True])
    alone = each(scan(stored, starts, query, np.ones(1), 40, most=10, is_live=is_live))
    assert {line.first for line in alone} == {len(loop)}


def test_votes_of_hits_are_sums_over_lines() -> None:
    query = query_of(activations(5.0, np.random.default_rng(0))[:30], np.linspace(0.3, 1.0, 30))
    starts = np.array([0, 50, 120])
    on_line = [(i, 60 + (i + 4) // 10) for i in (6, 16, 26)]  # of the second track, row 0 at hop 104
    elsewhere = [(5, 20), (9, 80), (12, 119)]
    query_i, rows = np.array(sorted(on_line + elsewhere)).T
    distance = np.full(len(rows), 30)
    lines = each(vote(query, starts, query_i, rows, distance, 10, 5))
    best = lines[0]
    assert (best.first, best.last, best.slope) == (50, 120, 1.0)
    weights = query.known[[6, 16, 26]] * 34
    assert best.score == pytest.approx(weights.sum(), rel=1e-5)
    offsets = [10 * (row - 50) - i for i, row in on_line]
    assert best.offset == round(float(np.average(offsets, weights=weights)))
    assert len(lines) == 4 and [line.score for line in lines] == sorted(
        [x.score for x in lines], reverse=True
    )


def test_nearer_hits_vote_more() -> None:
    query = query_of(activations(5.0, np.random.default_rng(0))[:30])
    hits = np.array([3, 3]), np.array([10, 40]), np.array([40, 20])
    lines = vote(query, np.array([0, 50]), *hits, 10, 10)
    assert lines.offset.tolist() == [397.0, 97.0] and lines.score.tolist() == [44.0, 24.0]


def test_one_track_has_no_more_votes_than_its_share() -> None:
    query = query_of(activations(5.0, np.random.default_rng(0))[:30])
    rows = np.array([*range(0, 40, 2), 55])
    distance = np.array([10] * 20 + [40])
    lines = vote(query, np.array([0, 50, 60]), np.zeros(21, int), rows, distance, 10, 3)
    assert lines.first.tolist() == [0, 0, 0, 50]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(1, 3))
def test_the_first_of_each_are_marked(keys: list[int], most: int) -> None:
    expected = [keys[:i].count(key) < most for i, key in enumerate(keys)]
    assert first_of_each(np.array(keys), most).tolist() == expected


# -- moving -----------------------------------------------------------------------------------------------------------


def test_refine_finds_the_true_line() -> None:
    rng = np.random.default_rng(6)
    values = activations(40.0, rng)
    hashes = pack(values[::10] > 0)
    query = query_of(noisy(values[123:223], 0.5, rng))
    found = refine(
        lines_of(Line(0, len(hashes), 300.0, 1.0, 0.0), Line(0, len(hashes), 120.0, 1.0, 0.0)),
        hashes,
        query,
        shifts=np.arange(-4.0, 5.0),
        turns=np.array([0.0, -0.03, 0.03]),
    )
    best, other = each(found)
    assert best.offset == pytest.approx(123.0, abs=1.0) and best.slope == 1.0
    assert best.score > 2 * abs(other.score)


def test_refine_scores_the_weighted_agreement() -> None:
    rng = np.random.default_rng(7)
    values = activations(20.0, rng)
    hashes = pack(values[::10] > 0)
    hashes[6] = 0
    query = query_of(noisy(values[35:85], 0.5, rng), np.linspace(0.3, 1.0, 50))
    for slope in (1.0, 0.95):
        line = Line(0, len(hashes), 35.0, slope, 0.0)
        query_i, rows = line.rows(query)
        query_i, rows = query_i[rows != 6], rows[rows != 6]
        signs = np.where(np.unpackbits(hashes[rows].view(np.uint8), axis=1, bitorder="little"), 1, -1)
        total = float((query.signed[query_i] * signs).sum())
        expected = total / np.sqrt(query.power[query_i].sum()) * (1 - abs(slope - 1))
        [scored] = each(refine(lines_of(line), hashes, query, shifts=STILL, turns=STILL))
        assert scored.score == pytest.approx(expected, rel=1e-4)


def test_lines_that_meet_nothing_are_dropped() -> None:
    values = activations(20.0, np.random.default_rng(8))
    hashes = pack(values[::10] > 0)
    lines = lines_of(Line(0, len(hashes), 900.0, 1.0, 0.0), Line(0, len(hashes), 30.0, 1.0, 0.0))
    kept = refine(lines, hashes, query_of(values[30:60]), shifts=STILL, turns=STILL)
    assert kept.offset.tolist() == [30.0]


def test_lines_beside_a_better_one_are_one() -> None:
    query = query_of(activations(6.0, np.random.default_rng(0))[:40])
    lines = [
        Line(0, 50, 100.0, 1.0, 9.0),
        Line(0, 50, 103.0, 1.0, 8.0),  # half a second beside the first
        Line(0, 50, 100.0 - 0.05 * 20, 1.05, 7.0),  # crosses it in the middle
        Line(50, 90, 100.0, 1.0, 6.0),  # another track
        Line(0, 50, 200.0, 1.0, 5.0),
        Line(0, 50, 300.0, 1.0, 4.0),
    ]
    scores = [line.score for line in distinct(lines_of(*lines), query, 9, 9)]
    assert scores == [9.0, 6.0, 5.0, 4.0]
    assert [line.score for line in distinct(lines_of(*lines), query, 9, 2)] == [9.0, 6.0, 5.0]
    assert [line.score for line in distinct(lines_of(*lines), query, 2, 9)] == [9.0, 6.0]
