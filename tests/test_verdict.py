"""The verdict: how rare evidence is, what a match tells of, and which matches stand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from codes import Model, activations, fingerprint, noisy
from hypothesis import given
from hypothesis import strategies as st

from samaf.alignment import Line
from samaf.errors import ModelError
from samaf.hamming import pack
from samaf.match import CHANGED_TEMPO, Match
from samaf.query import Query
from samaf.rarity import LEAST_SEEN, Tail
from samaf.resemblance import LEAST_SCORE, Judgement, Resemblance, related
from samaf.stretch import Stretch, best_stretch
from samaf.verdict import CHANGED, Limits, Odds, Verdict, decide, log_odds_of, power_of_ten

MODEL = Model.make()
VERDICT = Verdict(MODEL.weights, 128, 1.0)
SECONDS, RATE, LOG10_K = [1.0, 4.0, 16.0], [0.8, 0.4, 0.1], [-2.0, -3.0, -5.0]
LOG10_SEEN = [-4.0, -5.0, -6.0]


def tail() -> Tail:
    return Tail(np.array(SECONDS), np.array(RATE), np.array(LOG10_K), np.array(LOG10_SEEN))


# -- how rare ---------------------------------------------------------------------------------------------------------


def test_at_its_knots_the_tail_is_the_one_given() -> None:
    for seconds, rate, log10_k, log10_seen in zip(SECONDS, RATE, LOG10_K, LOG10_SEEN, strict=True):
        begins = (log10_k - log10_seen) * math.log(10) / rate
        for evidence in (begins, begins + 1.0, begins + 2.0):
            number = 10 ** (log10_k + 5.0) * math.exp(-rate * evidence)
            assert number > 1e-3
            assert tail().log10_evalue(evidence, seconds, 5.0) == pytest.approx(math.log10(number))


def test_chances_above_those_seen_rise_to_a_half_at_no_evidence() -> None:
    """A library smaller than the one calibrated on must not make what is usual a match."""
    for seconds, rate, log10_k, log10_seen in zip(SECONDS, RATE, LOG10_K, LOG10_SEEN, strict=True):
        begins = (log10_k - log10_seen) * math.log(10) / rate
        assert tail().log10_evalue(0.0, seconds, 3.0) == pytest.approx(3.0 + math.log10(0.5))
        half_way = tail().log10_evalue(begins / 2, seconds, 3.0)
        assert half_way == pytest.approx(3.0 + (math.log10(0.5) + log10_seen) / 2)


def test_between_knots_it_is_interpolated_over_the_logarithm() -> None:
    assert tail().log10_evalue(10.0, 2.0, 5.0) == pytest.approx(5.0 - 2.5 - 0.6 * 10 / math.log(10))
    assert tail().log10_evalue(20.0, 8.0, 5.0) == pytest.approx(5.0 - 4.0 - 0.25 * 20 / math.log(10))
    for beyond, knot in ((0.0, 1.0), (0.3, 1.0), (1e6, 16.0)):
        assert tail().log10_evalue(10.0, beyond, 5.0) == tail().log10_evalue(10.0, knot, 5.0)


def test_beyond_what_calibration_sees_evidence_counts_as_that_of_the_shortest() -> None:
    for seconds, rate in zip(SECONDS, RATE, strict=True):
        b, c = (tail().log10_evalue(evidence, seconds, 4.0) for evidence in (200.0, 250.0))
        assert b < LEAST_SEEN
        assert b - c == pytest.approx(0.8 * 50 / math.log(10))
        log10_k = LOG10_K[SECONDS.index(seconds)]
        least = (4.0 + log10_k - LEAST_SEEN) * math.log(10) / rate  # up to there its own rate holds
        assert LEAST_SEEN - b == pytest.approx(0.8 * (200 - least) / math.log(10))


def test_a_rate_that_rises_with_the_length_is_kept() -> None:
    rising = Tail(np.array([1.0, 4.0]), np.array([0.2, 0.4]), np.zeros(2), np.full(2, -1.0))
    assert rising.log10_evalue(100.0, 4.0, 5.0) == pytest.approx(5.0 - 40 / math.log(10))


@given(st.floats(0, 1000), st.floats(0, 12))
def test_more_evidence_is_rarer_and_more_places_make_it_usual(seconds: float, log10_tests: float) -> None:
    evidences = np.linspace(-200, 2000, 300)
    number = [tail().log10_evalue(evidence, seconds, log10_tests) for evidence in evidences]
    more = [tail().log10_evalue(evidence, seconds, log10_tests + 1.0) for evidence in evidences]
    assert all(a > b for a, b in pairwise(number)) and np.isfinite(number).all()
    assert all(b - a >= 1.0 - 1e-9 for a, b in zip(number, more, strict=True))


def test_powers_of_ten_do_not_overflow() -> None:
    assert [power_of_ten(x) for x in (-2.0, 0.0, 999.0, -999.0)] == pytest.approx([0.01, 1.0, 1e300, 0.0])


# -- what a stretch is worth ------------------------------------------------------------------------------------------


def test_weights_without_a_calibration_are_refused() -> None:
    with pytest.raises(ModelError, match="samaf calibrate"):
        Verdict(replace(MODEL.weights, calibration={}), 128, 1.0)


@pytest.mark.parametrize(
    ("hop_s", "nearest"), [(0.1, 0.5), (0.5, 0.5), (0.7, 0.5), (0.75, 1.0), (1.0, 1.0), (10.0, 1.0)]
)
def test_the_tail_is_that_of_the_nearest_hop(hop_s: float, nearest: float) -> None:
    calibration = dict(MODEL.weights.calibration)
    calibration["tail_64"] = np.stack([[[[hop] * 6, [-hop] * 6, [-9.0] * 6]] for hop in (0.5, 1.0)])
    verdict = Verdict(replace(MODEL.weights, calibration=calibration), 64, hop_s)
    [tail] = verdict.tails
    assert tail.rate.tolist() == [nearest] * 6
    assert tail.log10_k.tolist() == [-nearest] * 6


@pytest.fixture(scope="module")
def track() -> np.ndarray:
    return activations(61.0, np.random.default_rng(1))


def judged(track: np.ndarray, values: np.ndarray, offset: float, **options: object) -> tuple[Query, Stretch]:
    query = VERDICT.query(replace(fingerprint(values, MODEL.weights.model_id), **options))  # type: ignore[arg-type]
    hashes = pack(track[::10] > 0)
    stretch = best_stretch(Line(0, len(hashes), offset, 1.0, 0.0), query, hashes)
    assert stretch is not None
    return query, stretch


def judge(
    query: Query, stretch: Stretch, n_stored: int, verdict: Verdict = VERDICT, *, restored: bool = False
) -> Judgement:
    worth = verdict.judge(query, stretch, n_stored, restored=restored)
    assert worth is not None
    return worth


def test_evidence_is_the_distance_from_chance(track: np.ndarray) -> None:
    query, stretch = judged(track, noisy(track[100:151], 0.4, np.random.default_rng(2)), 100.0)
    mean, spread = VERDICT.background.of_stretch(query.signed[stretch.query_i])
    z = (stretch.agreement.sum() - mean) / spread
    worth = judge(query, stretch, 5000)
    assert worth.evidence == pytest.approx(z, rel=1e-3)  # it agrees as clearly as expected
    assert worth.known_s == pytest.approx(6.0)
    [tail] = VERDICT.tails
    rare = tail.log10_evalue(worth.evidence, worth.known_s, worth.log10_tests)
    assert worth.log10_evalue == pytest.approx(float(rare))


def test_rarity_is_the_mean_of_that_in_each_kind_by_its_chance(track: np.ndarray) -> None:
    query, stretch = judged(track, noisy(track[100:151], 1.5, np.random.default_rng(2)), 100.0)
    calibration = dict(MODEL.weights.calibration)
    one = calibration["tail_128"][:, 0]
    steeper = one.copy()
    steeper[:, 0] += 0.5
    calibration["tail_128"] = np.stack([one, steeper], axis=1)
    for odds, share in ((0.0, 0.5), (np.log(3.0), 0.25), (1000.0, 0.0)):
        calibration["kinds_128"] = np.zeros((2, 129))
        calibration["kinds_128"][1, -1] = odds  # whatever its bits
        kinds = Verdict(replace(MODEL.weights, calibration=calibration), 128, 1.0)
        worth = kinds.judge(query, stretch, 5000)
        assert worth is not None
        each = [10.0 ** t.log10_evalue(worth.evidence, worth.known_s, worth.log10_tests) for t in kinds.tails]
        assert each[1] < each[0] / 2
        assert 10.0**worth.log10_evalue == pytest.approx(share * each[0] + (1 - share) * each[1])


def test_less_agreement_than_chance_is_no_evidence(track: np.ndarray) -> None:
    query, stretch = judged(track, -track[100:151], 100.0)
    everything = Stretch(
        stretch.line,
        np.arange(0, 51, 10),
        np.arange(10, 16),
        -np.abs(query.signed[::10]).sum(axis=1, dtype=float),
        0.0,
        1.0,
        6 * 128,
    )
    assert judge(query, everything, 5000).evidence == 0.0


def test_a_clear_clip_must_agree_clearly(track: np.ndarray) -> None:
    """The same agreement says less where more was to be expected."""
    query, stretch = judged(track, noisy(track[100:151], 0.4, np.random.default_rng(2)), 100.0)
    plain = judge(query, stretch, 5000).evidence
    assert judge(replace(query, expected=0.8 * query.expected), stretch, 5000).evidence == plain
    clearer = replace(query, expected=2.0 * query.expected)
    mean = VERDICT.background.of_stretch(query.signed[stretch.query_i])[0]
    share = (stretch.agreement.sum() - mean) / (clearer.expected[stretch.query_i].sum() - mean)
    assert 0.4 < share / VERDICT.share < 0.8
    assert judge(clearer, stretch, 5000).evidence == pytest.approx(
        plain * math.sqrt(share / VERDICT.share), rel=1e-4
    )


def test_places_are_those_at_which_rows_meet_differently(track: np.ndarray) -> None:
    query, stretch = judged(track, track[100:151], 100.0)
    assert len(stretch.rows) == 6
    assert judge(query, stretch, 700).log10_tests == pytest.approx(math.log10(10 * 700))
    short = replace(stretch, **{k: getattr(stretch, k)[:2] for k in ("query_i", "rows", "agreement")})
    assert judge(query, short, 700).log10_tests == pytest.approx(math.log10(41 * 700))
    assert judge(query, short, 0).log10_tests == 0.0
    invalid = replace(query, valid=np.arange(51) % 10 == 0)
    assert judge(invalid, stretch, 700).log10_tests == pytest.approx(math.log10(6 * 700))


def test_a_stretch_that_tells_of_a_change_must_be_the_surer(track: np.ndarray) -> None:
    query, stretch = judged(track, track[100:151], 100.0)
    plain = judge(query, stretch, 5000)
    [tail] = VERDICT.tails
    near, far = (
        replace(stretch, line=replace(stretch.line, slope=1.0 + by * CHANGED_TEMPO)) for by in (0.99, 1.01)
    )
    assert judge(query, near, 5000) == plain
    for changed in (judge(query, far, 5000), judge(query, stretch, 5000, restored=True)):
        assert changed.log10_tests == pytest.approx(plain.log10_tests + CHANGED)
        rarer = tail.log10_evalue(plain.evidence, plain.known_s, plain.log10_tests + CHANGED)
        assert changed.log10_evalue == pytest.approx(float(rarer))
        assert changed.log10_evalue >= plain.log10_evalue + CHANGED - 1e-9
    assert judge(query, far, 5000, restored=True) == judge(query, far, 5000)


def test_what_a_stretch_rests_on_counts_known_shares(track: np.ndarray) -> None:
    known = np.linspace(0.25, 1.0, 51).astype(np.float32)
    query, stretch = judged(track, track[100:151], 100.0, known=known)
    worth = judge(query, stretch, 700)
    assert worth.known_s == pytest.approx(float(known[stretch.query_i].sum()))
    dense = judge(query, stretch, 700, Verdict(MODEL.weights, 128, 0.5))
    assert dense.known_s == pytest.approx(worth.known_s / 2)
    sparse = judge(query, stretch, 700, Verdict(MODEL.weights, 128, 3.0))
    assert sparse.known_s == pytest.approx(worth.known_s)


def test_what_cannot_come_within_a_limit_is_not_judged(track: np.ndarray) -> None:
    query, stretch = judged(track, noisy(track[100:151], 0.4, np.random.default_rng(2)), 100.0)
    worth = judge(query, stretch, 5000)
    for limit in (1e-2, 1.0, math.inf):
        assert VERDICT.judge(query, stretch, 5000, max_evalue=limit) == worth
    query, stretch = judged(track, track[300:351], 100.0)  # another place
    assert judge(query, stretch, 5000).log10_evalue > 0
    assert VERDICT.judge(query, stretch, 5000, max_evalue=1e-2) is None
    assert VERDICT.judge(query, stretch, 5000, max_evalue=1e300) is not None


# -- a match ----------------------------------------------------------------------------------------------------------


def resembled(track: int, score: float, start_s: float = 0.0, end_s: float = 5.0, ber: float = 0.2) -> Match:
    return Match(
        track, f"/m/{track}", str(track), ber, 10.0**-score, score, start_s, end_s, 0.0, end_s - start_s
    )


def test_changes_are_told_by_the_fewest_values() -> None:
    match = replace(resembled(1, 9.0), track_start_s=10.0, track_end_s=15.0)
    sped = match.played_at(1.1)
    assert (sped.speed, sped.tempo, sped.pitch_cents) == (1.1, 1.0, 0.0)
    finer = replace(match, tempo=0.98).played_at(1.1)
    assert (finer.speed, finer.tempo, finer.pitch_cents) == (1.078, 1.0, 0.0)
    pitched = replace(match, tempo=1 / 1.05).played_at(1.05)
    assert (pitched.speed, pitched.tempo) == (1.0, 1.0)
    assert pitched.pitch_cents == pytest.approx(84.5, abs=0.1)
    both = replace(match, tempo=1.08).played_at(1.1)
    assert (both.speed, both.tempo, both.pitch_cents) == (1.1, 1.08, 0.0)


@given(st.sampled_from([0.9, 0.95, 1.05, 1.1]), st.floats(0.88, 1.12))
def test_a_match_played_at_a_speed_is_told_in_the_clip_s_own_time(speed: float, tempo: float) -> None:
    match = replace(resembled(1, 9.0, 2.0, 7.0), track_start_s=10.0, track_end_s=15.0, tempo=tempo)
    told = match.played_at(speed)
    assert (told.query_start_s, told.query_end_s) == pytest.approx((2.0 / speed, 7.0 / speed), abs=1e-3)
    assert (told.track_start_s, told.track_end_s) == (10.0, 15.0)
    assert (told.score, told.evalue, told.ber) == (match.score, match.evalue, match.ber)
    assert told.speed * told.tempo == pytest.approx(speed * tempo, abs=1e-3) or told.pitch_cents != 0


def test_e_values_stay_finite() -> None:
    assert power_of_ten(-1.75) == pytest.approx(10**-1.75) and power_of_ten(1000.0) == 1e300


def test_a_match_is_json() -> None:
    match = replace(resembled(1, 3.0), probability=0.9, log_odds=0.954)
    assert Match(**json.loads(json.dumps(match.to_json(), allow_nan=False))) == match


# -- odds and relations -----------------------------------------------------------------------------------------------

ODDS = Odds(-1.0, 1.5, -0.5, -0.3)
ANY = Limits(min_probability=0.0)
RNG = np.random.default_rng(12)


def resemblance(
    match: Match, hashes: np.ndarray | None = None, *, off_s: float = 0.0, share: float = 1.0
) -> Resemblance:
    """A match as it is found, rows a second apart from its start; by default of audio like no other."""
    meets_s = np.arange(match.query_start_s, match.query_end_s) + off_s
    stored = RNG.integers(0, 2**64, (len(meets_s), 2), np.uint64) if hashes is None else hashes
    worth = Judgement(9.0, 10.0, share, len(meets_s), 5.0, (0.0,), -match.score)
    return Resemblance(match, worth, meets_s, stored[: len(meets_s)])


def spoilt(hashes: np.ndarray, ber: float) -> np.ndarray:
    """Hashes with some bits flipped."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    return np.packbits(bits ^ (RNG.random(bits.shape) < ber), axis=1).view(np.uint64)


def test_odds_rise_with_the_score_and_fall_with_what_is_expected_and_with_rivals() -> None:
    def alone(score: float, expected: float = 10.0, rival: float = LEAST_SCORE) -> float:
        return ODDS.alone(Judgement(0.0, expected, 1.0, 1.0, 5.0, (0.0,), -score), rival)

    assert alone(2.0) == pytest.approx(-1.0 + 3.0 - 0.5 + 0.6)
    assert alone(3.0) - alone(2.0) == pytest.approx(1.5)
    assert alone(9.0) - alone(8.0) == pytest.approx(1.0)  # more than calibration sees
    assert alone(-5.0) == pytest.approx(alone(-2.0) - 3.0)
    assert alone(2.0, 100.0) == pytest.approx(alone(2.0) - 0.5)
    assert alone(2.0, rival=1.0) == pytest.approx(alone(2.0) - 0.9)
    assert alone(2.0, rival=50.0) == alone(2.0, rival=3.0)
    assert alone(2.0, rival=-50.0) == alone(2.0)


def test_copies_on_one_grid_are_told_by_their_hashes() -> None:
    hashes = RNG.integers(0, 2**64, (5, 2), np.uint64)
    one = resemblance(resembled(1, 9.0), hashes)
    for ber, copies in ((0.0, True), (0.15, True), (0.35, False), (0.5, False)):
        other = resemblance(resembled(2, 9.0), spoilt(hashes, ber), off_s=0.1)
        assert related(one, other).copies is related(other, one).copies is copies
    assert related(one, resemblance(resembled(2, 9.0), hashes)).together > 0.9
    # one of them begins in the middle of the other
    late = resemblance(resembled(2, 9.0, 3.0, 5.0), hashes[3:])
    assert related(one, late).copies and related(late, one).copies


def test_copies_between_grids_are_told_by_how_well_each_explains_the_clip() -> None:
    def pair(*shares: float) -> list[Resemblance]:
        return [resemblance(resembled(k, 9.0), off_s=0.4 * k, share=share) for k, share in enumerate(shares)]

    for told in (pair(1.0, 0.97), pair(1.1, 1.1), pair(0.9, 0.9)):
        assert related(*told).copies and related(*reversed(told)).copies
    for parts in (pair(1.0, 0.6), pair(0.6, 0.65), pair(0.8, 0.3)):  # of one recording each
        assert not related(*parts).copies and not related(*reversed(parts)).copies


# -- which matches stand ----------------------------------------------------------------------------------------------


def decided(*found: Match, limits: Limits = ANY) -> list[tuple[int, float]]:
    matches = decide([resemblance(match) for match in found], ODDS, limits)
    assert all(match.evalue == pytest.approx(10.0**-match.score) for match in matches)
    assert all(match.log_odds == pytest.approx(log_odds_of(match.probability)) for match in matches)
    return [(match.track_id, round(match.score, 6)) for match in matches]


def test_each_stretch_has_its_best_tracks() -> None:
    assert decided() == []
    assert decided(resembled(2, 1.0), resembled(1, 3.0)) == [(1, 3.0), (2, 1.0)]
    one = Limits(min_probability=0.0, top=1)
    assert decided(resembled(2, 1.0), resembled(1, 3.0), limits=one) == [(1, 3.0)]
    # elsewhere in the query
    assert decided(resembled(1, 3.0), resembled(2, 2.0, 5.0, 10.0), limits=one) == [(1, 3.0), (2, 2.0)]
    assert decided(resembled(1, 3.0), resembled(1, 2.0, 5.0, 10.0), limits=one) == [(1, 3.0), (1, 2.0)]


def test_a_track_matches_a_stretch_once() -> None:
    assert decided(resembled(1, 2.0), resembled(1, 3.0)) == [(1, 3.0)]
    assert decided(resembled(1, 3.0), resembled(1, 2.0, 2.0, 7.0)) == [(1, 3.0)]
    assert decided(resembled(1, 3.0), resembled(1, 2.0, 3.0, 8.0)) == [(1, 3.0), (1, 2.0)]


def test_limits_hold() -> None:
    found = [resembled(1, 3.0, ber=0.35), resembled(2, 1.9, 5.0, 10.0, ber=0.36)]
    assert decided(*found, limits=Limits(min_probability=0.0, max_evalue=1e-2)) == [(1, 3.0)]
    assert decided(*found, limits=Limits(min_probability=0.0, ber=0.35)) == [(1, 3.0)]
    assert decided(*found, limits=Limits(min_probability=0.99)) == [(1, 3.0)]
    assert decided(*found, limits=Limits(prior=1e-6)) == []


def test_a_match_by_itself_has_its_own_odds() -> None:
    [match] = decide([resemblance(resembled(1, 2.0))], ODDS, ANY)
    assert match.log_odds == pytest.approx(-1.0 + 3.0 - 0.5 + 0.6)
    [prior] = decide([resemblance(resembled(1, 2.0))], ODDS, Limits(min_probability=0.0, prior=0.1))
    assert prior.log_odds == pytest.approx(match.log_odds - math.log10(9.0))
    [sure] = decide([resemblance(resembled(1, 400.0))], ODDS, ANY)
    assert sure.probability == 1.0 and 395.0 < sure.log_odds < 405.0


def test_alternatives_share_what_is_likely() -> None:
    """One of them is right at most, unless both sound at once."""
    alone = decide([resemblance(resembled(1, 1.5))], ODDS, ANY)[0]
    equal = decide([resemblance(resembled(k, 1.5), share=s) for k, s in ((1, 1.0), (2, 0.6))], ODDS, ANY)
    assert equal[0].probability == pytest.approx(equal[1].probability, abs=1e-6)
    assert 0.4 < equal[0].probability < 0.65 and alone.probability > 0.95
    better, worse = decide(
        [resemblance(resembled(1, 9.0)), resemblance(resembled(2, 1.5), share=0.6)], ODDS, ANY
    )
    assert (better.track_id, worse.track_id) == (1, 2)
    assert better.probability > 0.99 and worse.probability < 0.45
    mixed = decide(
        [resemblance(resembled(k, 9.0), off_s=k / 3, share=0.5 + k / 4) for k in (0, 1)], ODDS, ANY
    )
    assert all(match.probability > 0.99 and match.copies_of is None for match in mixed)


def test_copies_are_no_rivals() -> None:
    hashes = RNG.integers(0, 2**64, (5, 2), np.uint64)
    alone = decide([resemblance(resembled(1, 2.5), hashes)], ODDS, ANY)[0]
    copies = decide(
        [resemblance(resembled(k, 3.5 - 0.5 * k), spoilt(hashes, 0.03)) for k in (2, 0, 1)], ODDS, Limits()
    )
    assert [match.track_id for match in copies] == [0, 1, 2]
    assert [match.copies_of for match in copies] == [None, 0, 0]
    assert all(match.probability > alone.probability - 0.02 for match in copies)


@given(st.lists(st.floats(-2, 9), min_size=2, max_size=5), st.floats(0.3, 1.1), st.integers(0, 2**32))
def test_the_answer_moves_as_its_scores_do(scores: list[float], share: float, seed: int) -> None:
    """A small step of one score is a small step of all probabilities."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 2**64, (len(scores), 5, 2), np.uint64)

    def answer(first: float) -> np.ndarray:
        found = [
            resemblance(resembled(k, score), stored[k], off_s=0.3 * k, share=1.0 if k else share)
            for k, score in enumerate([first, *scores[1:]])
        ]
        told = {match.track_id: match.probability for match in decide(found, ODDS, ANY)}
        return np.array([told[k] for k in range(len(scores))])

    steps = np.array([answer(scores[0] + d) for d in np.linspace(0.0, 1.0, 41)])
    assert np.abs(np.diff(steps, axis=0)).max() < 0.06
    if len(scores) == 2:  # of more, one may fall with those that it goes together with
        assert (np.diff(steps[:, 0]) > -1e-9).all()


SPANS = st.tuples(st.integers(0, 20), st.integers(1, 9))


@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(-2, 9), SPANS, st.booleans()), max_size=14),
    st.integers(1, 3),
)
def test_no_stretch_has_more_matches_than_asked_for(
    drawn: list[tuple[int, float, tuple[int, int], bool]], top: int
) -> None:
    found = [
        resembled(track, score, start, start + length, 0.4 if errs else 0.2)
        for track, score, (start, length), errs in drawn
    ]

    def overlap(a: Match, b: Match) -> bool:
        shared = min(a.query_end_s, b.query_end_s) - max(a.query_start_s, b.query_start_s)
        lengths = (a.query_end_s - a.query_start_s, b.query_end_s - b.query_start_s)
        return shared > 0.5 * min(lengths)

    limits = Limits(min_probability=0.2, ber=0.35, max_evalue=1e-1, top=top)
    kept = decide([resemblance(match) for match in found], ODDS, limits)
    assert [match.log_odds for match in kept] == sorted((match.log_odds for match in kept), reverse=True)
    for i, match in enumerate(kept):
        assert match.ber <= 0.35 and match.evalue <= 1e-1 and match.probability >= 0.2
        over = [other for other in kept[:i] if overlap(match, other)]
        assert len(over) < top and all(other.track_id != match.track_id for other in over)


def test_a_recording_is_as_likely_in_each_minute_of_a_query() -> None:
    found = [resemblance(resembled(1, 2.0))]
    clip, minute, long = (decide(found, ODDS, ANY, seconds)[0] for seconds in (5.0, 60.0, 600.0))
    assert clip.log_odds == minute.log_odds
    assert long.log_odds == pytest.approx(minute.log_odds + 1.0)
