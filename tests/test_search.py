from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from codes import Model, activations, fingerprint, noisy, stretched
from hypothesis import given
from hypothesis import strategies as st

from samaf.alignment import Line, refine, scan, slopes_for, weight_table
from samaf.errors import AudioError, MismatchError, ModelError, StoreError
from samaf.hamming import pack
from samaf.index import Index, TrackInfo
from samaf.match import Match, decide
from samaf.search import Searcher, _extent
from samaf.significance import Competition, NullModel, Tail, bit_weight

N_TRACKS = 12
TRACK_S = 60.3


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.make()


@pytest.fixture(scope="module")
def tracks() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [activations(TRACK_S, rng) for _ in range(N_TRACKS)]


@pytest.fixture(scope="module")
def index(
    model: Model, tracks: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    path = tmp_path_factory.mktemp("search") / "index.db"
    model_id = model.weights.model_id
    with Index.create(path, model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add(
            [(TrackInfo(f"/m/{i}.wav"), fingerprint(t, model_id, step=10)) for i, t in enumerate(tracks)]
        )
        yield index


@pytest.fixture(scope="module")
def searcher(index: Index, model: Model) -> Searcher:
    return Searcher(index, model.weights)


def clip(model: Model, track: np.ndarray, start: int, n: int, noise: float = 0.4, seed: int = 5):  # type: ignore[no-untyped-def]
    values = noisy(track[start : start + n], noise, np.random.default_rng(seed))
    return fingerprint(values, model.weights.model_id)


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("start", [0, 7, 103, 255, 553])
def test_a_noisy_clip_is_named_and_placed(
    searcher: Searcher, model: Model, tracks: list[np.ndarray], start: int, exhaustive: bool
) -> None:
    for k in (0, 5, N_TRACKS - 1):
        [match] = searcher.search(clip(model, tracks[k], start, 41), exhaustive=exhaustive)
        assert match.path == f"/m/{k}.wav"
        assert match.track_start_s - match.query_start_s * match.tempo == pytest.approx(start / 10, abs=0.15)
        assert match.query_end_s - match.query_start_s == pytest.approx(5.0, abs=0.15)
        assert 0 < match.ber < 0.3
        assert match.score > 3
        assert match.score == pytest.approx(-math.log10(match.evalue))


def test_an_unknown_clip_has_no_match_unless_forced(searcher: Searcher, model: Model) -> None:
    rng = np.random.default_rng(99)
    for _ in range(20):
        stranger = fingerprint(activations(5.0, rng), model.weights.model_id)
        assert searcher.search(stranger, ber=0.35) == []
        forced = searcher.search(stranger, ber=1.0, max_evalue=math.inf, top=1)
        assert forced
        assert math.isfinite(forced[0].score)


def test_the_e_value_counts_false_matches(searcher: Searcher, model: Model) -> None:
    rng = np.random.default_rng(7)
    scores = np.array(
        [
            searcher.search(
                fingerprint(activations(4.0, rng), model.weights.model_id),
                ber=1.0,
                max_evalue=math.inf,
                top=1,
            )[0].score
            for _ in range(150)
        ]
    )
    assert np.mean(scores > 1.0) < 0.25  # 0.1 expected
    assert np.mean(scores > 2.5) < 0.02


@pytest.mark.parametrize("slope", [0.93, 0.96, 1.04, 1.07])
def test_a_clip_at_another_tempo_is_followed(
    searcher: Searcher, model: Model, tracks: list[np.ndarray], slope: float
) -> None:
    values = stretched(tracks[3][150:], slope)[:91]
    [match] = searcher.search(
        fingerprint(noisy(values, 0.3, np.random.default_rng(2)), model.weights.model_id)
    )
    assert match.path == "/m/3.wav"
    assert match.tempo == pytest.approx(slope, abs=0.02)
    assert match.speed == 1.0
    assert match.track_start_s == pytest.approx(15.0, abs=0.3)


def test_a_long_query_gives_each_stretch_its_track(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    rng = np.random.default_rng(11)
    parts = [
        activations(20.0, rng),
        tracks[2][100:300],
        activations(15.0, rng),
        tracks[7][:250],
        tracks[2][400:520],
    ]
    query = fingerprint(noisy(np.concatenate(parts), 0.3, rng), model.weights.model_id)
    starts_s = np.cumsum([0, *[len(p) for p in parts]]) / 10
    matches = sorted(searcher.search(query, top=1), key=lambda m: m.query_start_s)
    assert [m.path for m in matches] == ["/m/2.wav", "/m/7.wav", "/m/2.wav"]
    for match, k, track_start_s in zip(matches, (1, 3, 4), (10.0, 0.0, 40.0), strict=True):
        assert match.query_start_s == pytest.approx(starts_s[k], abs=1.6)
        assert match.query_end_s == pytest.approx(starts_s[k + 1], abs=1.6)
        assert match.track_start_s - match.query_start_s + starts_s[k] == pytest.approx(
            track_start_s, abs=0.2
        )


def test_a_query_longer_than_the_track(searcher: Searcher, model: Model, tracks: list[np.ndarray]) -> None:
    rng = np.random.default_rng(12)
    values = np.concatenate([activations(9.0, rng), tracks[4], activations(8.0, rng)])
    [match] = searcher.search(fingerprint(noisy(values, 0.3, rng), model.weights.model_id), top=1)
    assert match.path == "/m/4.wav"
    assert match.track_start_s == pytest.approx(0.0, abs=1.2)
    assert match.track_end_s == pytest.approx(TRACK_S, abs=1.2)


def test_a_recording_stored_twice_gives_two_answers(
    model: Model, tracks: list[np.ndarray], tmp_path: Path
) -> None:
    model_id = model.weights.model_id
    with Index.create(tmp_path / "i", model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add(
            [
                (TrackInfo(f"/m/{n}"), fingerprint(tracks[k], model_id, step=10))
                for n, k in (("a", 0), ("b", 0))
            ]
        )
        searcher = Searcher(index, model.weights)
        query = clip(model, tracks[0], 77, 60)
        assert {m.path for m in searcher.search(query)} == {"/m/a", "/m/b"}
        assert len(searcher.search(query, top=1)) == 1
        index.remove([searcher.search(query)[0].track_id])
        assert len(searcher.search(query)) == 1


def test_silence_is_refused_and_invalid_rows_count_nowhere(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    model_id = model.weights.model_id
    silent = fingerprint(tracks[0][:41], model_id, valid=np.zeros(41, bool))
    with pytest.raises(AudioError, match="silent"):
        searcher.search(silent)
    valid = np.ones(81, bool)
    valid[:40] = False
    [match] = searcher.search(fingerprint(tracks[0][100:181], model_id, valid=valid))
    assert match.ber < 0.25
    assert match.track_start_s - match.query_start_s == pytest.approx(10.0, abs=0.15)


def test_large_segments_are_probed_and_agree_with_the_exhaustive_search(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    model_id = model.weights.model_id
    known = [activations(100.0, rng) for _ in range(4)]
    crowd = rng.integers(0, 2**63, (140_000, 2), dtype=np.uint64)
    from samaf.fingerprint import Fingerprint

    big = Fingerprint(crowd, np.ones(len(crowd), bool), 1.0, 128, model_id, float(len(crowd)))
    with Index.create(tmp_path / "i", model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add(
            [
                (TrackInfo("/m/big"), big),
                *[(TrackInfo(f"/m/{k}"), fingerprint(v, model_id, step=10)) for k, v in enumerate(known)],
            ]
        )
        with index.snapshot() as snapshot:
            assert any(segment.tables for segment in snapshot.segments)
        searcher = Searcher(index, model.weights)
        for k, values in enumerate(known):
            query = clip(model, values, 123 + k, 41, noise=0.4)
            [probed] = searcher.search(query)
            [scanned] = searcher.search(query, exhaustive=True)
            assert probed.path == scanned.path == f"/m/{k}"
            assert probed.score == pytest.approx(scanned.score, abs=1.0)


def test_another_model_is_refused(searcher: Searcher, model: Model, tracks: list[np.ndarray]) -> None:
    with pytest.raises(MismatchError):
        searcher.search(fingerprint(tracks[0][:41], "0" * 64))


def test_weights_without_null_model_are_refused(index: Index, model: Model) -> None:
    from dataclasses import replace

    with pytest.raises(ModelError, match="samaf export"):
        Searcher(index, replace(model.weights, null={}))


def test_scan_equals_the_naive_sum() -> None:
    rng = np.random.default_rng(4)
    hashes = pack(rng.random((57, 128)) > 0.5)
    hashes[20] = 0
    query, valid = pack(rng.random((23, 128)) > 0.5), np.ones(23, bool)
    valid[3] = False
    starts = np.array([0, 30, 57])
    lines = scan(hashes, starts, query, valid, 10.0, np.array([1.0]), 400, most=400)
    assert {(line.first, line.last) for line in lines} == {(0, 30), (30, 57)}
    for line in lines:
        total = count = 0.0
        for k in range(3):
            i = round((-line.offset) % 10) + 10 * k
            r = round((line.offset + i) / 10) + line.first
            if i < 23:
                count += 1
                met = 0 <= r < 57 and valid[i] and hashes[r].any()
                total += int(np.bitwise_count(query[i] ^ hashes[r]).sum()) if met else 64
        assert line.score == pytest.approx((64 * count - total) / np.sqrt(32 * count), abs=1e-3)


def test_refine_finds_the_true_line() -> None:
    rng = np.random.default_rng(6)
    values = activations(40.0, rng)
    hashes = pack(values[::10] > 0)
    query = noisy(values[123:223], 0.5, rng)
    signed = query
    found = refine(
        [Line(0, len(hashes), 120.0, 1.0, 0.0), Line(0, len(hashes), 300.0, 1.0, 0.0)],
        hashes,
        signed,
        10.0,
        shifts=np.arange(-4.0, 5.0),
        turns=np.array([0.0, -0.03, 0.03]),
    )
    assert found[0].offset == pytest.approx(123.0, abs=1.0)
    assert found[0].slope == 1.0
    assert found[0].score > 2 * abs(found[1].score)


def test_weight_table_equals_the_sum_over_bits() -> None:
    signed = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    table = weight_table(signed)
    for value in range(16):
        signs = np.array([1 if value >> k & 1 else -1 for k in range(4)])
        np.testing.assert_allclose(table[:, 5, value], signed[:, 20:24] @ signs, rtol=1e-5)


def test_slopes_lie_closer_for_longer_queries() -> None:
    assert slopes_for(11, 0.1)[0] == 1.0
    assert len(slopes_for(41, 0.1)) < len(slopes_for(91, 0.1))
    assert slopes_for(91, 0.1).min() >= 0.85


def test_extent_is_the_stretch_that_agrees() -> None:
    errors = np.array([0.5, 0.5, 0.1, 0.45, 0.1, 0.1, 0.5, 0.52])
    assert _extent(errors) == slice(2, 6)
    assert _extent(np.array([0.5, 0.5])) == slice(0, 2)
    assert _extent(np.zeros(0)) == slice(0, 0)


def test_tail_is_monotone_and_finite() -> None:
    tail = Tail(np.array([1, 4]), np.array([-1.0, -2.0, -3.0]), np.array([[1.3, 2.3, 3.1], [1.5, 2.6, 3.5]]))
    for n in (1, 2, 3, 4, 100):
        chance = [tail.log10_chance(z, n) for z in np.linspace(-30, 60, 500)]
        assert all(a >= b for a, b in pairwise(chance))
        assert chance[0] == 0.0
        assert np.isfinite(chance).all()
    assert tail.log10_chance(2.3, 1) == pytest.approx(-2.0)


def test_moments_are_those_of_the_background(model: Model) -> None:
    null = NullModel(model.weights, 128)
    signed = null.weigh(pack(np.ones((3, 128), bool)), None, np.ones(3, bool))
    mean, spread = null.moments(signed, 1.0)
    agreement = [
        null.background[run, place : place + 6 : 2].sum()
        for run in range(len(null.background))
        for place in range(null.background.shape[1] - 4)
    ]
    assert mean == pytest.approx(np.mean(agreement), abs=0.01)
    assert spread == pytest.approx(np.std(agreement), rel=1e-3)


def test_bit_weight_grows_with_confidence() -> None:
    weight = bit_weight(np.array([0.0, 1.0, 50.0], np.float32), -0.5, 2.0)
    assert weight[0] == 0.0
    assert weight[1] == pytest.approx(0.75)
    assert weight[2] == 3.0


def test_competition_lowers_what_the_library_makes_usual() -> None:
    rng = np.random.default_rng(8)
    usual = list(np.abs(rng.normal(3.0, 0.5, 100)))
    competition = Competition(usual)
    assert competition.weight == 0.5
    far, near = competition.log10_evalue(12.0, -9.0), competition.log10_evalue(max(usual), -9.0)
    assert far < near < -3.0
    doubled = Competition([*usual, 12.0, 12.0])  # the recording itself is stored twice
    assert doubled.log10_evalue(12.0, -9.0) == pytest.approx(far, rel=0.1)


def test_without_competitors_the_background_decides() -> None:
    for n in (0, 1, 12):
        assert Competition([5.0] * n).log10_evalue(9.0, -4.0) == -4.0


@pytest.mark.parametrize("hop_s", [0.5, 2.0, 10.0])
def test_other_reference_hops(model: Model, tmp_path: Path, hop_s: float) -> None:
    rng = np.random.default_rng(13)
    model_id = model.weights.model_id
    known = [activations(200.0, rng) for _ in range(3)]
    with Index.create(tmp_path / "i", model_id=model_id, bits=128, hop_s=hop_s, query_hop_s=0.1) as index:
        step = round(hop_s * 10)
        index.add([(TrackInfo(f"/m/{k}"), fingerprint(v, model_id, step=step)) for k, v in enumerate(known)])
        query = fingerprint(noisy(known[1][303:1003], 0.3, rng), model_id)
        match = Searcher(index, model.weights).search(query)[0]
    assert match.path == "/m/1"
    assert match.track_start_s - match.query_start_s == pytest.approx(30.3, abs=0.3)


def test_a_long_match_is_one_match(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    model_id = model.weights.model_id
    long = activations(600.0, rng)
    with Index.create(tmp_path / "i", model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add([(TrackInfo("/m/long"), fingerprint(long, model_id, step=10))])
        searcher = Searcher(index, model.weights)
        [match] = searcher.search(fingerprint(noisy(long, 0.3, rng), model_id))
        assert (match.query_start_s, match.query_end_s) == pytest.approx((0.0, 600.0), abs=0.2)
        values = stretched(long, 1.03)
        [match] = searcher.search(fingerprint(noisy(values, 0.3, rng), model_id))
        assert match.tempo == pytest.approx(1.03, abs=0.002)
        assert match.track_end_s == pytest.approx(600.0, abs=3.0)


def test_wrong_arguments_are_refused(searcher: Searcher, model: Model, tracks: list[np.ndarray]) -> None:
    query = clip(model, tracks[0], 0, 41)
    for wrong in ({"max_evalue": 0.0}, {"ber": 1.5}, {"top": 0}):
        with pytest.raises(ValueError, match="must be above 0"):
            searcher.search(query, **wrong)


def resembled(track: int, score: float, start_s: float = 0.0, end_s: float = 5.0, ber: float = 0.2) -> Match:
    return Match(
        track, f"/m/{track}", str(track), ber, 10.0**-score, score, start_s, end_s, 0.0, end_s - start_s
    )


def decided(*candidates: Match, max_evalue: float = math.inf, top: int = 5) -> list[tuple[int, float]]:
    matches = decide(list(candidates), ber=1.0, max_evalue=max_evalue, top=top)
    assert all(match.evalue == pytest.approx(10.0**-match.score) for match in matches)
    return [(match.track_id, round(match.score, 6)) for match in matches]


def test_a_match_has_the_evidence_beyond_its_rival() -> None:
    assert decided(resembled(1, 3.0)) == [(1, 3.0)]
    assert decided(resembled(1, 3.0), resembled(2, -1.0)) == [(1, 3.0), (2, -4.0)]
    assert decided(resembled(1, 3.0), resembled(2, 1.2), resembled(3, 0.5)) == [
        (1, 1.8),
        (2, -1.8),
        (3, -2.5),
    ]
    assert decided(resembled(1, 3.0), resembled(2, 1.2), max_evalue=1e-2) == []
    # elsewhere in the query, or the same track at another speed: no rival
    assert decided(resembled(1, 3.0), resembled(2, 2.0, 5.0, 10.0)) == [(1, 3.0), (2, 2.0)]
    assert decided(resembled(1, 3.0), resembled(1, 2.0)) == [(1, 3.0)]


def test_what_is_sure_stands_beside_what_is_sure() -> None:
    assert decided(resembled(1, 9.0), resembled(2, 8.5)) == [(1, 9.0), (2, 8.5)]
    assert decided(resembled(1, 9.0), resembled(2, 8.5), resembled(3, 1.0)) == [(1, 8.0), (2, 7.5), (3, -8.0)]
    assert decided(resembled(1, 9.0), resembled(2, 3.9), max_evalue=1e-2) == [(1, 5.1)]
    assert decided(resembled(1, 9.0), resembled(2, 8.5), resembled(3, 8.0), top=2) == [(1, 9.0), (2, 8.5)]


def test_of_a_recording_stored_twice_neither_is_named_unless_sure() -> None:
    assert decided(resembled(1, 3.9), resembled(2, 3.9), max_evalue=1e-2) == []
    assert decided(resembled(1, 4.1), resembled(2, 4.1), max_evalue=1e-2) == [(1, 4.1), (2, 4.1)]


def test_a_match_with_a_change_must_be_the_surer_and_is_a_rival_as_any() -> None:
    for change in ({"tempo": 0.95}, {"speed": 1.05}, {"pitch_cents": 84.5}):
        changed = replace(resembled(1, 3.0), **change)
        assert decided(changed) == [(1, 1.7)]
        assert decided(changed, resembled(2, 1.0)) == [(1, 0.7), (2, -2.0)]
    assert decided(replace(resembled(1, 3.0), tempo=1.02)) == [(1, 3.0)]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.floats(-2, 9), st.integers(0, 20), st.integers(1, 9)), max_size=12
    )
)
def test_the_decision_is_that_of_the_definition(drawn: list[tuple[int, float, int, int]]) -> None:
    candidates = [resembled(track, score, start, start + length) for track, score, start, length in drawn]

    def overlap(a: Match, b: Match) -> bool:
        shared = min(a.query_end_s, b.query_end_s) - max(a.query_start_s, b.query_start_s)
        lengths = (a.query_end_s - a.query_start_s, b.query_end_s - b.query_start_s)
        return shared > 0.5 * min(lengths)

    expected = []
    for match in candidates:
        rivals = [
            other.score
            for other in candidates
            if other.track_id != match.track_id
            and overlap(other, match)
            and not (match.score >= 4 and other.score >= 4)
        ]
        expected.append(replace(match, score=match.score - max([0.0, *rivals])))
    kept: list[Match] = []
    for match in sorted(expected, key=lambda match: -match.score):
        over = [k for k in kept if overlap(k, match)]
        if match.score >= 2 and len(over) < 2 and all(k.track_id != match.track_id for k in over):
            kept.append(match)
    got = decide(candidates, ber=1.0, max_evalue=1e-2, top=2)
    assert [replace(match, evalue=0.0) for match in got] == [replace(match, evalue=0.0) for match in kept]


@given(st.lists(st.floats(-5, 20), min_size=1, max_size=6))
def test_rivals_never_change_the_order(scores: list[float]) -> None:
    ranked = decided(*(resembled(k, score) for k, score in enumerate(scores)), top=10)
    contested = dict(ranked)
    by_score = sorted(range(len(scores)), key=lambda k: -scores[k])
    assert all(contested[a] >= contested[b] - 1e-6 for a, b in pairwise(by_score))
    assert all(contested[k] <= round(scores[k], 6) + 1e-6 for k in contested)


# -- removed, empty and repetitive tracks ------------------------------------------------------------------------------


@pytest.fixture
def empty(model: Model, tmp_path: Path) -> Iterator[Index]:
    model_id = model.weights.model_id
    with Index.create(tmp_path / "x.db", model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        yield index


def looped(values: np.ndarray, seconds: int) -> np.ndarray:
    """A recording that repeats its first 10 s."""
    return np.tile(values[:100], (seconds // 10, 1))


def test_a_track_without_hashes_takes_no_matches(
    empty: Index, model: Model, tracks: list[np.ndarray]
) -> None:
    model_id = model.weights.model_id
    nothing = replace(
        fingerprint(tracks[1][:11], model_id, step=10),
        hashes=np.zeros((0, 2), np.uint64),
        valid=np.zeros(0, bool),
    )
    empty.add(
        [
            (TrackInfo("/m/none.wav"), nothing),
            (TrackInfo("/m/0.wav"), fingerprint(tracks[0], model_id, step=10)),
            (TrackInfo("/m/none2.wav"), nothing),
        ]
    )
    [match] = Searcher(empty, model.weights).search(clip(model, tracks[0], 103, 60))
    assert match.path == "/m/0.wav"


@pytest.mark.parametrize("tables", [False, True])
def test_removed_tracks_hide_nothing(
    empty: Index, model: Model, tracks: list[np.ndarray], tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found, and how surely, does not change when the removed hashes are purged."""
    monkeypatch.setattr("samaf.index.segment.TABLE_ROWS", 500 if tables else 1 << 17)
    model_id = model.weights.model_id
    loop = fingerprint(looped(tracks[2], 12_000), model_id, step=10)
    others = [(TrackInfo(f"/m/{k}.wav"), fingerprint(tracks[k], model_id, step=10)) for k in range(4, 10)]
    [gone, kept, *_] = empty.add([(TrackInfo("/m/a.wav"), loop), (TrackInfo("/m/b.wav"), loop), *others])
    empty.remove([gone])
    searcher = Searcher(empty, model.weights)
    query = clip(model, looped(tracks[2], 40), 13, 80)
    before = searcher.search(query)
    assert [match.track_id for match in before] == [kept]
    empty.compact()
    assert searcher.search(query)[0].score == pytest.approx(before[0].score, rel=0.1)


@pytest.mark.parametrize("tables", [False, True])
def test_a_track_that_repeats_itself_does_not_hide_the_right_one(
    empty: Index, model: Model, tracks: list[np.ndarray], tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop resembles the clip at a hundred places, each more than the right track does at its one."""
    monkeypatch.setattr("samaf.index.segment.TABLE_ROWS", 500 if tables else 1 << 17)
    model_id = model.weights.model_id
    part = tracks[5][100:200]
    loop = np.tile(noisy(part, 0.1, np.random.default_rng(3)), (100, 1))
    right = tracks[5].copy()
    right[100:200] = noisy(part, 1.0, np.random.default_rng(4))
    empty.add(
        [
            (TrackInfo("/m/loop.wav"), fingerprint(loop, model_id, step=10)),
            (TrackInfo("/m/5.wav"), fingerprint(right, model_id, step=10)),
        ]
    )
    query = clip(model, tracks[5], 113, 70, noise=0.5)
    found = Searcher(empty, model.weights).candidates(query, max_evalue=1.0, top=5)
    assert {match.path for match in found} == {"/m/loop.wav", "/m/5.wav"}


def test_places_of_scanned_lines_are_shared_among_tracks() -> None:
    rng = np.random.default_rng(5)
    query = activations(5.0, rng)
    hashes = pack(query > 0)
    loop = np.tile(hashes[::10], (100, 1))
    noise = pack(activations(30.0, rng)[::10] > 0)
    noise[7:11] = pack(noisy(query[::10], 1.0, rng) > 0)
    stored = np.concatenate([loop, noise])
    starts = np.array([0, len(loop), len(loop), len(stored)])
    options = {"ratio": 10.0, "slopes": np.array([1.0]), "count": 40}
    valid = np.ones(len(hashes), bool)
    lines = scan(stored, starts, hashes, valid, **options, most=10)  # type: ignore[arg-type]
    assert sum(line.first == 0 for line in lines) == 10
    assert any(line.first == len(loop) and round(line.offset / 10) == 7 for line in lines)
    alone = scan(
        stored,
        starts,
        hashes,
        valid,
        **options,
        most=10,
        is_live=np.array([False, True, True]),  # type: ignore[arg-type]
    )
    assert {line.first for line in alone} == {len(loop)}


def test_ids_that_cannot_be(empty: Index) -> None:
    assert empty.remove([-1, 0, 1 << 63, 1 << 70]) == 0
    with pytest.raises(StoreError, match="no track -1"):
        empty.track(-1)
