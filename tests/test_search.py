"""The whole search, on random codes: what is found, where, how surely, and what is tried for it."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from codes import Model, activations, fingerprint, noisy, stretched

from samaf.errors import AudioError, MismatchError, ModelError, StoreError
from samaf.fingerprint import Fingerprint
from samaf.index import Index, TrackInfo
from samaf.match import Match
from samaf.search import SURE_SCORE, Searcher
from samaf.verdict import CHANGED, Limits

FORCED = Limits(min_probability=0.0, top=1)

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
        assert 4.0 <= match.query_end_s - match.query_start_s <= 5.0  # from stored row to stored row
        assert 0 < match.ber < 0.3
        assert match.score > 3
        assert match.score == pytest.approx(-math.log10(match.evalue))


def test_an_unknown_clip_has_no_match_unless_forced(searcher: Searcher, model: Model) -> None:
    rng = np.random.default_rng(99)
    for _ in range(20):
        stranger = fingerprint(activations(5.0, rng), model.weights.model_id)
        assert searcher.search(stranger) == []
        forced = searcher.search(stranger, limits=FORCED)
        assert forced
        assert math.isfinite(forced[0].score)


def test_the_e_value_counts_false_matches(searcher: Searcher, model: Model) -> None:
    rng = np.random.default_rng(7)
    scores = np.array(
        [
            searcher.search(
                fingerprint(activations(4.0, rng), model.weights.model_id),
                limits=FORCED,
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
    matches = sorted(searcher.search(query, limits=Limits(top=1)), key=lambda m: m.query_start_s)
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
    [match] = searcher.search(
        fingerprint(noisy(values, 0.3, rng), model.weights.model_id), limits=Limits(top=1)
    )
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
        assert len(searcher.search(query, limits=Limits(top=1))) == 1
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


def test_weights_without_a_calibration_are_refused(index: Index, model: Model) -> None:
    with pytest.raises(ModelError, match="samaf calibrate"):
        Searcher(index, replace(model.weights, calibration={}))


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
    at = match.track_start_s + match.tempo * ((10.0 + 60.0) / 2 - match.query_start_s)
    assert at == pytest.approx(30.3 + 35.0, abs=0.3)


def test_a_long_match_is_one_match(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    model_id = model.weights.model_id
    long = activations(600.0, rng)
    with Index.create(tmp_path / "i", model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add([(TrackInfo("/m/long"), fingerprint(long, model_id, step=10))])
        searcher = Searcher(index, model.weights)
        [match] = searcher.search(fingerprint(noisy(long, 0.3, rng), model_id))
        assert (match.query_start_s, match.query_end_s) == pytest.approx((0.0, 600.0), abs=1.0)
        values = stretched(long, 1.03)
        [match] = searcher.search(fingerprint(noisy(values, 0.3, rng), model_id))
        assert match.tempo == pytest.approx(1.03, abs=0.002)
        assert match.track_end_s == pytest.approx(600.0, abs=3.0)


def test_a_long_query_is_weighed_in_parts(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(13)
    model_id = model.weights.model_id
    long = activations(300.0, rng)
    query = fingerprint(noisy(stretched(long, 1.02), 0.4, rng), model_id)
    with Index.create(tmp_path / "l.db", model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add([(TrackInfo("/m/long"), fingerprint(long, model_id, step=10))])
        searcher = Searcher(index, model.weights)
        [whole] = searcher.search(query)
        monkeypatch.setattr("samaf.query.PAGE", 64)
        [parts] = searcher.search(query)
    assert replace(parts, score=0, evalue=0, log_odds=0) == replace(whole, score=0, evalue=0, log_odds=0)
    assert parts.score == pytest.approx(whole.score, rel=1e-5)


def test_memory_of_a_day_is_that_of_its_rows(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    values = np.zeros((240_000, 128), np.float32)  # most of it is silent, as a recording of a night is
    for hour in range(6):
        values[36_000 * hour + 500 :][: len(tracks[hour])] = tracks[hour]
    day = fingerprint(values, model.weights.model_id, valid=values.any(axis=1))
    searcher.search(clip(model, tracks[0], 0, 41))
    tracemalloc.start()
    try:
        matches = searcher.search(day)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [match.path for match in sorted(matches, key=lambda match: match.query_start_s)] == [
        f"/m/{hour}.wav" for hour in range(6)
    ]
    assert peak < 24 << 20  # their weights alone would take 123 MB


def test_resemblances_are_what_matches_are_made_of(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    query = clip(model, tracks[0], 103, 60)
    [match] = searcher.search(query)
    found = searcher.resembled(query)
    assert len(found) > 1  # those that chance gives among them
    like = min(found, key=lambda one: one.worth.log10_evalue)
    assert like.match == replace(match, probability=math.nan, log_odds=math.nan)
    assert len(like.meets_s) == len(like.stored)
    assert np.diff(like.meets_s) == pytest.approx(1.0, abs=0.11)
    judged = [one.worth for one in found]
    best = like.worth
    assert match.score == pytest.approx(-best.log10_evalue)
    assert best.evidence == max(one.evidence for one in judged)
    assert best.known_s == pytest.approx(7.0, abs=1.0)


def told(match: Match) -> Match:
    """A match without its odds."""
    return replace(match, log_odds=0.0, probability=0.5)


@pytest.mark.parametrize("seconds", [2, 5, 40])
def test_a_limit_only_leaves_out_what_is_above_it(
    searcher: Searcher, model: Model, tracks: list[np.ndarray], seconds: int
) -> None:
    """What is passed over early, with half of the work, could not have been a match."""
    found = 0
    for k in range(12):
        query = clip(model, tracks[k], 10 * k, 10 * seconds, noise=1.0 + k / 6, seed=k)
        whole = searcher.search(query, limits=Limits(min_probability=0.0))
        within = searcher.search(query, limits=Limits(min_probability=0.0, max_evalue=1e-2))
        same = [match for match in whole if match.evalue <= 1e-2]
        assert [told(match) for match in within] == [told(match) for match in same]
        # rivals that are not worth looking at change the odds a little
        odds = [match.log_odds for match in same]
        assert [match.log_odds for match in within] == pytest.approx(odds, abs=0.01 if seconds < 40 else 0.3)
        found += len(within)
    assert 3 <= found <= 14


@pytest.mark.parametrize("rows", [41, 500])
def test_progress_tells_seconds_of_the_clip(
    searcher: Searcher, model: Model, tracks: list[np.ndarray], rows: int
) -> None:
    query = clip(model, tracks[0], 0, rows)
    told: list[tuple[float, float]] = []
    searcher.search(query, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] >= query.duration_s - 1.0  # its last second is the last row's
    assert {total for _, total in told} == {query.duration_s}
    assert len(told) == 1 if rows == 41 else len(told) > 3


def test_wrong_arguments_are_refused(searcher: Searcher, model: Model, tracks: list[np.ndarray]) -> None:
    query = clip(model, tracks[0], 0, 41)
    for wrong in ({"max_evalue": 0.0}, {"ber": 1.5}, {"top": 0}):
        with pytest.raises(ValueError, match="max_evalue above 0"):
            searcher.search(query, limits=Limits(**wrong))  # type: ignore[arg-type]
    for wrong in ({"min_probability": 1.0}, {"min_probability": -0.1}, {"prior": 0.0}, {"prior": 1.0}):
        with pytest.raises(ValueError, match="prior between 0 and 1"):
            Limits(**wrong)  # type: ignore[arg-type]


# -- other speeds ------------------------------------------------------------------------------------------------------


class Played:
    """A clip as it was before it was played at another speed, which tells what of it was asked for."""

    def __init__(self, sketches: dict[float, Fingerprint], exact: Fingerprint | None = None) -> None:
        self.of_speed, self.exact = sketches, exact
        self.asked: list[float | str] = []

    def sketches(self) -> Iterator[tuple[float, Fingerprint]]:
        for speed, sketch in self.of_speed.items():
            self.asked.append("sketch")
            yield speed, sketch

    def at(self, speed: float) -> Fingerprint:
        self.asked.append(speed)
        return self.exact or self.of_speed[speed]


def stranger(model: Model, seed: int = 99) -> Fingerprint:
    return fingerprint(activations(5.0, np.random.default_rng(seed)), model.weights.model_id)


def test_a_sure_match_is_tried_at_no_other_speed(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    query = clip(model, tracks[0], 103, 60)
    restored = Played({1.1: clip(model, tracks[1], 103, 60)})
    [match] = searcher.search(query, restored=restored)
    assert match.path == "/m/0.wav" and match.score > SURE_SCORE
    assert restored.asked == []


def test_the_speed_is_that_of_the_best_sketch(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    good, poor = clip(model, tracks[2], 103, 60), clip(model, tracks[2], 103, 60, noise=1.2)
    restored = Played({0.9: poor, 1.1: good, 1.05: stranger(model, 5)})
    [match] = searcher.search(stranger(model), restored=restored)
    assert restored.asked == ["sketch"] * 3 + [1.1]
    assert (match.path, match.speed, match.tempo) == ("/m/2.wav", 1.1, 1.0)
    [plain] = searcher.search(good)
    worth = min((one.worth for one in searcher.resembled(good)), key=lambda one: one.log10_evalue)
    [tail] = searcher.verdict.tails
    rarer = tail.log10_evalue(worth.evidence, worth.known_s, worth.log10_tests + CHANGED)
    assert match.score == pytest.approx(-rarer)
    assert 0.0 < match.score <= plain.score - CHANGED
    assert match.query_end_s == pytest.approx(plain.query_end_s / 1.1, abs=1e-3)
    assert match.track_start_s == plain.track_start_s


def test_what_is_told_is_the_exact_fingerprint_s(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    restored = Played({1.1: clip(model, tracks[2], 103, 60)}, exact=clip(model, tracks[3], 203, 60))
    [match] = searcher.search(stranger(model), restored=restored)
    assert match.path == "/m/3.wav"


@pytest.mark.parametrize(("ahead", "asked"), [(-0.1, []), (0.1, [1.1])])
def test_a_sketch_must_beat_the_query(
    searcher: Searcher, model: Model, monkeypatch: pytest.MonkeyPatch, ahead: float, asked: list[float]
) -> None:
    """The E-value of the sketch is set: the query's own, and so much better or worse."""
    query, sketch = stranger(model), stranger(model)
    judge = searcher.verdict.judge

    def judged(work, stretch, n_stored, **options):  # type: ignore[no-untyped-def]
        assert options["restored"] == (work.hop_s != query.hop_s)
        return replace(judge(work, stretch, n_stored), log10_evalue=-0.5 - ahead * options["restored"])

    monkeypatch.setattr(searcher.verdict, "judge", judged)
    restored = Played({1.1: replace(sketch, hop_s=0.2)})
    searcher.search(query, restored=restored)
    assert restored.asked == ["sketch", *asked]


def test_sketches_without_content_are_passed_over(searcher: Searcher, model: Model) -> None:
    silent = fingerprint(activations(5.0, np.random.default_rng(0))[:39], model.weights.model_id)
    silent = replace(silent, valid=np.zeros(39, bool), hashes=np.zeros((39, 2), np.uint64))
    for sketches in ({}, {0.9: silent}):
        restored = Played(sketches)
        assert searcher.search(stranger(model), restored=restored) == []
        assert restored.asked == ["sketch"] * len(sketches)


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
    found = Searcher(empty, model.weights).search(query)
    assert {match.path for match in found} == {"/m/loop.wav", "/m/5.wav"}


@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("seconds", [8, 40])
def test_without_hides_tracks_as_removal_does(
    empty: Index,
    model: Model,
    tracks: list[np.ndarray],
    tables: bool,
    seconds: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("samaf.index.segment.TABLE_ROWS", 500 if tables else 1 << 17)
    model_id = model.weights.model_id
    stored = [tracks[0], tracks[1], noisy(tracks[0], 0.3, np.random.default_rng(6)), *tracks[2:8]]
    ids = empty.add([(TrackInfo(f"/m/{k}"), fingerprint(t, model_id, step=10)) for k, t in enumerate(stored)])
    searcher = Searcher(empty, model.weights)
    query = clip(model, tracks[0], 103, 10 * seconds)
    limits = Limits(min_probability=0.0)
    whole = searcher.search(query, limits=limits)
    assert [match.track_id for match in whole[:2]] == [ids[0], ids[2]]
    assert searcher.search(query, limits=limits, without=[999]) == whole
    hidden = searcher.search(query, limits=limits, without=[ids[0], ids[4]])
    judged = [one.worth for one in searcher.resembled(query, without={ids[0], ids[4]})]
    assert hidden[0].track_id == ids[2]
    empty.remove([ids[0], ids[4]])
    assert searcher.search(query, limits=limits) == hidden
    assert [one.worth for one in searcher.resembled(query)] == judged
    assert searcher.search(query, without=ids) == []


def test_ids_that_cannot_be(empty: Index) -> None:
    assert empty.remove([-1, 0, 1 << 63, 1 << 70]) == 0
    with pytest.raises(StoreError, match="no track -1"):
        empty.track(-1)


# -- several at once ---------------------------------------------------------------------------------------------------


def test_recordings_that_sound_at_once_are_both_told(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    mixed = tracks[1][100:201] + tracks[8][207:308]
    found = searcher.search(fingerprint(mixed, model.weights.model_id))
    assert {match.path for match in found} == {"/m/1.wav", "/m/8.wav"}
    for match in found:
        assert match.probability > 0.99 and match.copies_of is None
        assert match.wrong_bits / match.bits == pytest.approx(match.ber, abs=0.02)
    assert found.gaps == [] and found.coverage == 1.0


def test_recordings_one_after_the_other_are_told_with_what_lies_between(
    searcher: Searcher, model: Model, tracks: list[np.ndarray]
) -> None:
    rng = np.random.default_rng(21)
    parts = [tracks[3][100:200], activations(7.0, rng)[:70], tracks[6][50:150], tracks[3][100:200]]
    found = searcher.search(fingerprint(noisy(np.concatenate(parts), 0.3, rng), model.weights.model_id))
    told = sorted((match.query_start_s, match.query_end_s, match.path) for match in found)
    assert [path for *_, path in told] == ["/m/3.wav", "/m/6.wav", "/m/3.wav"]
    for (start_s, end_s, _), (true_start_s, true_end_s) in zip(
        told, ((0.0, 10.0), (17.0, 27.0), (27.0, 37.0)), strict=True
    ):
        assert start_s == pytest.approx(true_start_s, abs=1.5) and end_s == pytest.approx(true_end_s, abs=1.9)
    [gap] = [gap for gap in found.gaps if gap[1] - gap[0] > 4.0]
    assert gap[0] == pytest.approx(10.0, abs=1.9) and gap[1] == pytest.approx(17.0, abs=1.5)


@pytest.mark.parametrize("off", [0, 4])
def test_copies_are_told_as_such_wherever_their_grids_lie(
    empty: Index, model: Model, tracks: list[np.ndarray], off: int
) -> None:
    model_id = model.weights.model_id
    again = noisy(tracks[0], 0.2, np.random.default_rng(3))[off:]
    stored = [tracks[0], again, *tracks[1:8]]
    ids = empty.add([(TrackInfo(f"/m/{k}"), fingerprint(t, model_id, step=10)) for k, t in enumerate(stored)])
    found = Searcher(empty, model.weights).search(clip(model, tracks[0], 103, 60, noise=0.3))
    assert {match.track_id for match in found} == set(ids[:2])
    assert found[0].copies_of is None and found[1].copies_of == found[0].track_id
    assert all(match.probability > 0.99 for match in found)
