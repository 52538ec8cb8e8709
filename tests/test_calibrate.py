"""Calibration: the fits recover what was simulated, and the whole of it runs on a few files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synth import tune, write
from test_encoder import random_weights

from samaf import Library
from samaf.background import RUN_ROWS
from samaf.errors import ModelError
from samaf.model import calibrate as room
from samaf.model.augment import Sources
from samaf.model.calibrate import HOPS_S, calibrate, read_copies
from samaf.model.estimates import KNOTS_S, MOST_FITTED, fit_kinds, fit_odds, fit_reliability, fit_tail
from samaf.rarity import Kinds, Tail
from samaf.resemblance import Judgement, Resemblance
from samaf.search import Searcher
from samaf.verdict import Odds
from samaf.weights import Weights

# -- the fits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intercept", "slope", "power"), [(0.3, 1.5, 1.0), (-0.2, 2.5, 0.5), (0.5, 0.8, 2.0)]
)
def test_reliability_recovers_the_odds_that_bits_were_drawn_with(
    intercept: float, slope: float, power: float
) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.exponential(size=(3000, 64)).astype(np.float32)
    known = rng.uniform(0.25, 1.0, 3000).astype(np.float32)
    odds = (intercept + slope * confidence) * known[:, None] ** power
    found = fit_reliability(confidence, known, rng.random(odds.shape) < 1 / (1 + np.exp(-odds)))
    assert (found.intercept, found.slope) == pytest.approx((intercept, slope), abs=0.05)
    assert found.power == power


def test_reliability_of_bits_that_tell_nothing_is_none() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.exponential(size=(2000, 64)).astype(np.float32)
    found = fit_reliability(confidence, np.ones(2000, np.float32), rng.random((2000, 64)) < 0.5)
    assert (found.intercept, found.slope) == pytest.approx((0.0, 0.0), abs=0.05)


def test_kinds_are_told_apart_as_surely_as_their_bits_tell_them() -> None:
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 3, 6000)
    means = rng.choice([-0.4, 0.4], (3, 64))
    means[2] = means[1]  # these two sound alike
    heard = (means[kinds] + rng.standard_normal((6000, 64))).astype(np.float32)
    weights = fit_kinds(heard[:3000], kinds[:3000], 3)
    assert weights.shape == (3, 65) and np.isfinite(weights).all()
    told = Kinds(weights)
    signed = np.arctanh(np.clip(heard[3000:] / 10, -0.9, 0.9))  # one row a clip
    told.weights = 10 * told.weights
    chances = np.exp([told.log_chances(row[None]) for row in signed])
    assert chances.sum(axis=1) == pytest.approx(1.0)
    first = kinds[3000:] == 0
    assert np.mean((chances[:, 0] > 0.5) == first) > 0.95
    assert np.mean(chances[~first, 1]) == pytest.approx(0.5, abs=0.05)
    for low, high in ((0.0, 0.1), (0.2, 0.8), (0.9, 1.0)):
        some = (chances[:, 0] >= low) & (chances[:, 0] <= high)
        assert np.mean(first[some]) == pytest.approx(chances[some, 0].mean(), abs=0.1)


def test_a_single_kind_is_certain() -> None:
    heard = np.random.default_rng(6).standard_normal((50, 64)).astype(np.float32)
    assert Kinds(fit_kinds(heard, np.zeros(50, int), 1)).log_chances(heard) == (0.0,)


def test_odds_recover_what_answers_were_drawn_with() -> None:
    rng = np.random.default_rng(7)
    answers = np.column_stack(
        [rng.uniform(-3.0, 9.0, 20_000), rng.uniform(1.0, 30.0, 20_000), rng.uniform(-4.0, 4.0, 20_000)]
    )
    true = Odds(0.3, 1.4, -1.2, -0.4)
    worths = [Judgement(0.0, expected, 1.0, 1.0, 5.0, (0.0,), -score) for score, expected, _ in answers]
    odds = np.array([true.alone(worth, rival) for worth, (*_, rival) in zip(worths, answers, strict=True)])
    right = rng.random(20_000) < 1.0 / (1.0 + 10.0**-odds)
    found = fit_odds(answers, right, np.ones(20_000))
    assert found == pytest.approx([0.3, 1.4, -1.2, -0.4], abs=0.12)
    rare = fit_odds(answers[:10], np.ones(10, bool), np.ones(10))
    assert np.isfinite(rare).all()


def strangers(
    n: int, known_s: float, rate: float, log10_k: float, rng: np.random.Generator
) -> list[list[Judgement]]:
    """What clips find by chance if evidence S or more is met ``tests K exp(-rate S)`` times."""
    found = []
    for _ in range(n):
        log10_tests = float(rng.uniform(5.4, 5.6))
        arrivals = np.cumsum(rng.exponential(size=MOST_FITTED + 4))  # the numbers at which they are met
        evidence = ((log10_tests + log10_k) * math.log(10.0) - np.log(arrivals)) / rate
        found.append(
            [
                Judgement(float(s), 1.0, 1.0, known_s, log10_tests, (0.0,), 0.0)
                for s in rng.permutation(evidence)
            ]
        )
    return found


@pytest.fixture(scope="module")
def fitted() -> np.ndarray:
    rng = np.random.default_rng(2)
    judged = strangers(500, 1.0, 0.8, -2.0, rng) + strangers(500, 8.0, 0.3, -3.5, rng)
    return fit_tail(judged, ["short"] * 500 + ["long"] * 500)


@pytest.mark.parametrize(("known_s", "rate", "log10_k"), [(1.0, 0.8, -2.0), (8.0, 0.3, -3.5)])
def test_the_tail_gives_the_shares_that_are_due(
    fitted: np.ndarray, known_s: float, rate: float, log10_k: float
) -> None:
    """In each group by itself: of clips that the fit has not seen, 1 - exp(-x) find an E-value of x or less."""
    assert fitted.shape == (3, len(KNOTS_S))
    tail = Tail(KNOTS_S, *fitted)
    evalues = np.array(
        [
            10 ** min(tail.log10_evalue(one.evidence, one.known_s, one.log10_tests) for one in clip)
            for clip in strangers(2000, known_s, rate, log10_k, np.random.default_rng(3))
        ]
    )
    for level in (1.0, 0.5, 0.1, 0.02):
        due = -math.expm1(-level)
        assert np.mean(evalues <= level) == pytest.approx(due, rel=0.3), level
    knot = KNOTS_S.tolist().index(known_s)
    assert fitted[0, knot] == pytest.approx(rate, rel=0.2)


def test_the_tail_is_smooth_and_falls_between_its_groups(fitted: np.ndarray) -> None:
    assert (fitted[0] > 0).all() and np.isfinite(fitted).all()
    assert (np.diff(fitted[0, :4]) < 0).all()


def test_clips_that_nothing_resembles_count_as_such() -> None:
    """A fifth of them finds nothing: their share at each level is as much lower."""
    judged = strangers(400, 2.0, 0.5, -2.0, np.random.default_rng(4))
    some = [one if k % 5 else [] for k, one in enumerate(judged)]
    all_found, fewer = (fit_tail(clips, ["all"] * 400) for clips in (judged, some))
    evalues = [Tail(KNOTS_S, *values).log10_evalue(20.0, 2.0, 5.0) for values in (all_found, fewer)]
    assert evalues[1] < evalues[0]


# -- copies -----------------------------------------------------------------------------------------------------------


def test_copies_are_read_from_pairs(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        "\ufeffpath_a,path_b,how\na.wav,deep/b.wav,remaster\na.wav,c.wav,\n", "utf-8"
    )
    a, b, c = tmp_path / "a.wav", tmp_path / "deep" / "b.wav", tmp_path / "c.wav"
    assert read_copies(tmp_path / "c.csv") == {a: {b, c}, b: {a}, c: {a}}
    (tmp_path / "none.csv").write_text("path_a,path_b\n")
    assert read_copies(tmp_path / "none.csv") == {}


@pytest.mark.parametrize("text", [b"path_a,path_c\nx,y\n", b"path_a,path_b\nx\n", b"\xff\xfe\x00", None])
def test_what_is_no_file_of_copies(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "c.csv"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ModelError, match=r"^[^\n]*c\.csv: no CSV with columns path_a and path_b[^\n]*$"):
        read_copies(path)


# -- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.npz"
    whole = random_weights()
    short = {name: whole.floats[name][..., :128] for name in ("dense", "dense_bias")}
    replace(whole, bits=(64, 128), arrays={**whole.arrays, **short}).save(path)
    return path


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Nine recordings to search among, and two kinds of held-out ones, one of them shorter than some clips."""
    folder = tmp_path_factory.mktemp("audio")
    return {
        "library": [write(folder / f"{k}.wav", tune(25, k)) for k in range(9)],
        "music": [write(folder / f"music{k}.wav", tune(8, 20 + k)) for k in range(4)],
        "short": [write(folder / f"short{k}.wav", tune(2.5, 30 + k)) for k in range(4)],
    }


@pytest.fixture
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "TWINS", 30)
        patch.setattr(room, "LENGTHS_S", (1.0, 5.0))
        yield


def calibrated(model: Path, audio: dict[str, list[Path]], **options: Any) -> Weights:
    kinds = [audio["music"], audio["short"]]
    return calibrate(model, kinds, audio["library"], queries=4, **options)


@pytest.mark.usefixtures("_small")
def test_a_model_is_calibrated(model: Path, audio: dict[str, list[Path]], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    told: list[tuple[int, int, str]] = []
    made = calibrated(
        model,
        audio | {"library": [*audio["library"], broken]},
        jobs=2,
        progress=lambda *step: told.append(step),
    )
    base, known = Weights.load(model), made.calibration
    assert made.model_id == base.model_id
    assert known["background"].shape == (9, RUN_ROWS, 2) and known["background"].any(axis=2).all()
    assert known["hops"].tolist() == list(HOPS_S) and known["tail_seconds"].tolist() == KNOTS_S.tolist()
    for bits in base.bits:
        assert known[f"odds_{bits}"].shape == (len(HOPS_S), 4)
        assert known[f"kinds_{bits}"].shape == (3, bits + 1)
        assert known[f"tail_{bits}"].shape == (len(HOPS_S), 3, 3, len(KNOTS_S))
        assert (known[f"tail_{bits}"][:, :, 0] > 0).all()
    assert known["reliability"].shape == (3,) and known["share"].shape == () and known["share"] > 0
    assert all(np.isfinite(value).all() for value in known.values())
    done, total, _ = told[-1]
    assert done == total == 18 + 30 + 24 * (1 + 2 * 2)
    assert [step for step, *_ in told] == sorted(step for step, *_ in told)
    assert [note for *_, note in told if note] == [next(n for *_, n in told if "broken.wav" in n)]
    made.save(tmp_path / "again.npz")
    with Library(tmp_path / "db", writable=True, model=tmp_path / "again.npz") as library:
        library.add(audio["library"])
        match = library.search(tune(25, 3)[9 * 16000 : 17 * 16000], min_probability=0.0)[0]
        assert match.title == "3" and math.isfinite(match.score)


@pytest.mark.usefixtures("_small")
def test_a_calibration_follows_its_seed(model: Path, audio: dict[str, list[Path]]) -> None:
    a, b, c = (calibrated(model, audio, seed=s, jobs=jobs) for s, jobs in ((0, 1), (0, 3), (1, 2)))
    assert a.calibration.keys() == b.calibration.keys()
    for name, value in a.calibration.items():
        np.testing.assert_allclose(value, b.calibration[name], rtol=1e-6, err_msg=name)
    assert not np.array_equal(a.calibration["tail_128"], c.calibration["tail_128"])


@pytest.mark.usefixtures("_small")
def test_no_unknown_clip_has_babble_of_what_is_searched(
    model: Path, audio: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    voices: dict[str, set[tuple[Path, ...]]] = {"known": set(), "unknown": set()}
    twin, unknown = room._twin, room._unknown

    def a_twin(encoder: Any, clips: Any, sources: Sources, *rest: Any) -> Any:
        voices["known"].add(tuple(sources.voices))
        return twin(encoder, clips, sources, *rest)

    def an_unknown(encoder: Any, recordings: Any, sources: Sources, *rest: Any) -> Any:
        voices["unknown"].add(tuple(sources.voices))
        return unknown(encoder, recordings, sources, *rest)

    monkeypatch.setattr(room, "_twin", a_twin)
    monkeypatch.setattr(room, "_unknown", an_unknown)
    calibrated(model, audio, sources=Sources([], [], audio["music"]))
    assert voices == {"known": {tuple(audio["music"])}, "unknown": {()}}


@pytest.mark.usefixtures("_small")
def test_a_clip_s_own_recordings_and_their_copies_are_left_out(
    model: Path, audio: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: dict[Path, int] = {}
    left_out: list[frozenset[int]] = []

    class Watched(Searcher):
        def resembled(self, query: Any, *, without: Any = ()) -> list[Resemblance]:
            ids.update({Path(track.path): track.track_id for track in self.index.tracks()})
            left_out.append(frozenset(without))
            return super().resembled(query, without=without)

    monkeypatch.setattr(room, "Searcher", Watched)
    copies = {audio["music"][0]: {audio["library"][0], Path("/elsewhere.wav")}}
    calibrated(model, audio, copies=copies, jobs=1)
    assert set(ids) == {path for paths in audio.values() for path in paths}
    own = {frozenset([ids[path]]) for path in [*audio["music"][1:], *audio["short"]]}
    own.add(frozenset([ids[audio["music"][0]], ids[audio["library"][0]]]))
    clips = 2 * 2 * 2 * 2 * 4  # codes, hops, kinds and lengths, four of each
    sounds = clips // 2
    assert left_out.count(frozenset()) == clips + sounds  # each clip is also searched for as one that is held
    left_out = [without for without in left_out if without]
    assert len(left_out) == clips
    single = {without for without in left_out if without in own}
    assert len(single) > 4
    joined = set(left_out) - own  # 5 s of recordings of 2.5 s are several, one after the other
    assert joined and all(without <= {ids[path] for path in audio["short"]} for without in joined)
    assert all(2 <= len(without) <= 3 for without in joined)


@pytest.mark.usefixtures("_small")
def test_too_little_audio_to_calibrate_on(model: Path, audio: dict[str, list[Path]], tmp_path: Path) -> None:
    for held_out, library in (
        ([], audio["library"]),
        ([audio["short"]], audio["library"]),
        ([[tmp_path / "none.wav"]], audio["library"]),
    ):
        with pytest.raises(ModelError, match="too little audio to calibrate on"):
            calibrate(model, held_out, library, queries=2)
