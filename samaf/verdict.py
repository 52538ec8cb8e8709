"""The verdict: how much a stretch's agreement says, how often chance says as much, and which recordings a clip holds.

The evidence of a stretch is the distance of its agreement from that of unrelated audio, laid over the same rows, in
spreads of the latter (:mod:`samaf.background`). It counts by the share that this agreement has of what is to be
expected of the recording itself: the bits' confidence says how many of them should be right, so a clear clip must
agree clearly. Without the share, 95 % of the music and 93 % of the speech of 5 s whose best candidate is right lie
above the highest in a hundred clips that the library does not hold; with it, 97 and 94 %. Above the highest in a
hundred of up to 10 s lie 54 and 82 % of the speech of 2 s (``dev``, 432 clips of each kind).

The E-value is the number of stretches with at least that evidence that a search among strangers would find
(:mod:`samaf.rarity`). It knows nothing of what else the library holds.

The probability does. Before the search, the clip holds something of the library with a probability of one half, spread
evenly over its recordings; of a query longer than a minute, each minute does. The odds of a stretch by itself follow
from its E-value, from the evidence that the recording itself should give, and from how well other recordings agree:
where one that has nothing to do with it comes near, this clip is easily mistaken in this library. Where stretches
overlap, their recordings are alternatives, unless both sound at once, or one is a copy of the other
(:mod:`samaf.resemblance`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from samaf import settings
from samaf.background import Background
from samaf.errors import ModelError
from samaf.fingerprint import Fingerprint
from samaf.match import CHANGED_TEMPO, Match
from samaf.query import Query, Reliability
from samaf.rarity import LEAST_SEEN, LN_10, Kinds, Tail, log10_of_kinds
from samaf.resemblance import LEAST_SCORE, Judgement, Relation, Resemblance, related
from samaf.stretch import Stretch

CHANGED = 1.3
"""Powers of ten by which a match that tells of another speed, tempo or pitch is the less likely: few clips are changed,
and twenty changes are tried."""

PRIOR_S = 60.0
"""Length of the longest clips that calibration sees. A longer query counts as several: a recording in it is as likely
as in such a clip, while chance has more places."""
_MOST = 64
"""Kinds, hops and lengths of a calibration."""
_MOST_ROWS = 1 << 17
"""Of its background."""

Float64 = NDArray[np.float64]


class Calibrated(Protocol):
    """A model that was calibrated, such as `samaf.weights.Weights`."""

    @property
    def model_id(self) -> str:
        """Of its hashes."""
        ...

    @property
    def calibration(self) -> dict[str, NDArray]:
        """Arrays, or none before it was calibrated."""
        ...


@dataclass(frozen=True, eq=False)
class CalibratedModel:
    """A calibration with the model that it is of, where these are in no weights file."""

    model_id: str
    calibration: dict[str, NDArray]


class Verdict:
    """What a calibrated model knows of chance, for codes of one length in an index of one hop.

    The calibration may have been made by anybody. Of K kinds, at H hops and S lengths, it has the arrays `reliability`
    (3,), `share` (), `hops` (H,), `tail_seconds` (S,) ascending, `kinds_BITS` (K, BITS + 1), `odds_BITS` (H, 4) and
    `tail_BITS` (H, K, 3, S), of no number above a million; what divides is at least a millionth; K, H and S are at most
    64. `background` has at most 131,072 rows.

    Parameters
    ----------
    model
        A calibrated one.
    bits
        Code length.
    hop_s
        Seconds between the hashes of the index.

    Raises
    ------
    ModelError
        If the model was never calibrated, or its calibration cannot be right.
    """

    def __init__(self, model: Calibrated, bits: int, hop_s: float) -> None:
        known = model.calibration
        if not known:
            raise ModelError(
                "the weights file holds no calibration, so that no match could be told from chance; "
                "write it again with `samaf calibrate`"
            )
        self.bits, self.hop_s = bits, hop_s
        try:
            _check_calibration(known, bits)
        except ValueError as error:
            raise ModelError(
                f"the calibration in the weights file is old or damaged ({error}); write it again with "
                "`samaf calibrate`"
            ) from None
        self.reliability = Reliability(*(float(v) for v in known["reliability"]))
        self.background = Background(known["background"], bits, hop_s)
        self.share = float(known["share"])
        nearest = int(np.abs(np.log(known["hops"] / hop_s)).argmin())
        self.kinds = Kinds(known[f"kinds_{bits}"])
        self.odds = Odds(*(float(v) for v in known[f"odds_{bits}"][nearest]))
        self.tails = [Tail(known["tail_seconds"], *of_kind) for of_kind in known[f"tail_{bits}"][nearest]]

    def query(self, print_: Fingerprint) -> Query:
        """The query that a fingerprint makes."""
        return Query.of(print_, self.reliability, self.background, self.hop_s)

    def judge(
        self,
        query: Query,
        stretch: Stretch,
        n_stored: int,
        *,
        restored: bool = False,
        max_evalue: float = math.inf,
    ) -> Judgement | None:
        """What a stretch is worth in a library of so many valid hashes.

        Parameters
        ----------
        restored
            Whether the query is a clip restored from another speed.
        max_evalue
            None is given, and much sooner, if the E-value were above it even with rows that are independent of each
            other.
        """
        rows = stretch.query_i
        # places of the stretch in the query: those that meet stored rows differently, or all where it is long
        n_valid = int(query.valid.sum())
        places = max(n_valid - query.ratio * (len(rows) - 1), min(query.ratio, n_valid))
        log10_tests = math.log10(max(1.0, places * n_stored))
        if restored or abs(stretch.line.slope - 1.0) > CHANGED_TEMPO:
            log10_tests += CHANGED
        known_s = float(query.known[rows].sum()) * min(1.0, self.hop_s)
        signed = query.weights(rows)
        log_kinds = self.kinds.log_chances(signed)

        agreement, in_all = float(stretch.agreement.sum()), float(query.expected[rows].sum())

        def judged(mean: float, spread: float) -> Judgement:
            excess, expected = max(agreement - mean, 0.0), max(in_all - mean, spread)
            share = excess / expected / self.share
            evidence = excess / spread * math.sqrt(min(share, 1.0))
            log10_evalue = log10_of_kinds(self.tails, log_kinds, evidence, known_s, log10_tests)
            return Judgement(
                evidence, expected / spread, share, known_s, log10_tests, log_kinds, log10_evalue
            )

        if math.isfinite(max_evalue):
            independent = float(np.sqrt(np.sum(query.spread[rows] ** 2, dtype=np.float64)))
            if judged(float(query.mean[rows].sum()), independent).log10_evalue > math.log10(max_evalue):
                return None
        return judged(*self.background.of_stretch(signed))


def _check_calibration(known: dict[str, NDArray], bits: int) -> None:
    """Refuse a calibration that is not as :class:`Verdict` says with a `ValueError`."""
    of_kinds, of_odds, of_tail = f"kinds_{bits}", f"odds_{bits}", f"tail_{bits}"
    for name in ("background", "reliability", "share", "hops", "tail_seconds", of_kinds, of_odds, of_tail):
        if name not in known:
            raise ValueError(f"{name} is missing")
    hops, seconds, kinds = known["hops"].size, known["tail_seconds"].size, known[of_kinds].size // (bits + 1)
    if not (1 <= hops <= _MOST and 1 <= seconds <= _MOST and 1 <= kinds <= _MOST):
        raise ValueError(f"it has {hops} hops, {seconds} lengths and {kinds} kinds")
    for name, shape in {
        "reliability": (3,),
        "share": (),
        "hops": (hops,),
        "tail_seconds": (seconds,),
        of_kinds: (kinds, bits + 1),
        of_odds: (hops, 4),
        of_tail: (hops, kinds, 3, seconds),
    }.items():
        values = known[name]
        if values.shape != shape or values.dtype.kind != "f" or not (np.abs(values) <= 1e6).all():
            raise ValueError(f"{name} is no array of numbers of shape {shape}")
    runs = known["background"]
    if runs.dtype != np.uint64 or runs.ndim != 3 or runs.shape[2] < bits // 64:
        raise ValueError(f"background has type {runs.dtype} and shape {runs.shape}")
    if not 1 <= runs[..., 0].size <= _MOST_ROWS:
        raise ValueError(f"background has shape {runs.shape}")
    rate, log10_k, log10_seen = np.moveaxis(known[of_tail], 2, 0)
    for name, divisor in (
        ("share", known["share"]),
        ("hops", known["hops"]),
        ("tail_seconds", np.diff(known["tail_seconds"], prepend=0.0)),
        ("the tail's rate", rate),
        ("the tail's evidence", log10_k - log10_seen),
    ):
        if not (divisor >= 1e-6).all():
            raise ValueError(f"{name} does not stay above 0")
    if not 0.0 <= known["reliability"][2] <= 100.0:
        raise ValueError("reliability has a power that is not from 0 to 100")


@dataclass(frozen=True)
class Odds:
    """Base-10 logarithm of the odds that a stretch is of the recording itself, as logistic regression finds them.

    Attributes
    ----------
    constant
        Where the prior odds are even.
    score
        For each unit of the score, as far as calibration sees; beyond, a unit counts once.
    expected
        For each power of ten of the evidence that the recording itself should give: the surer the bits, the better
        must it be.
    rival
        For each unit of the best score of another recording.
    """

    constant: float
    score: float
    expected: float
    rival: float

    def alone(self, worth: Judgement, rival: float) -> float:
        """The odds of a stretch, beside a rival with a score of :data:`LEAST_SCORE` to its own, or none."""
        score = -worth.log10_evalue
        seen = min(max(score, LEAST_SCORE), -LEAST_SEEN)
        return (
            self.constant
            + self.score * seen
            + (score - seen)
            + self.expected * math.log10(worth.expected)
            + self.rival * min(max(rival, LEAST_SCORE), -LEAST_SEEN)
        )


@dataclass(frozen=True)
class Limits:
    """What is told.

    Attributes
    ----------
    ber, max_evalue, min_probability, prior, top
        See :meth:`samaf.library.Library.search`.

    Raises
    ------
    ValueError
        If no search can be limited to it.
    """

    ber: float = settings.BER
    max_evalue: float = settings.MAX_EVALUE
    min_probability: float = settings.MIN_PROBABILITY
    prior: float = settings.PRIOR
    top: int = settings.TOP

    def __post_init__(self) -> None:
        if not (0 <= self.ber <= 1 and self.max_evalue > 0 and self.top >= 1):
            raise ValueError("ber must be from 0 to 1, max_evalue above 0, top at least 1")
        if not (0 <= self.min_probability < 1 and 0 < self.prior < 1):
            raise ValueError("min_probability must be at least 0 and below 1, prior between 0 and 1")

    def hold(self, match: Match) -> bool:
        """Whether a match is told."""
        least = log_odds_of(self.min_probability)
        return match.ber <= self.ber and match.evalue <= self.max_evalue and match.log_odds >= least


def decide(found: list[Resemblance], odds: Odds, limits: Limits, duration_s: float = PRIOR_S) -> list[Match]:
    """The matches among what a query resembles, best first; no two of one track overlap.

    Parameters
    ----------
    found
        All that a query resembles, at whatever speeds it was tried.
    odds
        Of the model.
    limits
        What is told.
    duration_s
        Length of the query.
    """
    prior = log_odds_of(limits.prior) + math.log10(max(1.0, duration_s / PRIOR_S))
    found, beside = _once_a_track(found)
    relations = {
        (i, k): related(found[i], found[k]) for i, others in enumerate(beside) for k in others if i < k
    }
    relations |= {(k, i): relation for (i, k), relation in relations.items()}
    alone = []
    for i, one in enumerate(found):
        rivals = [
            LEAST_SCORE + relations[i, k].apart * (-found[k].worth.log10_evalue - LEAST_SCORE)
            for k in beside[i]
        ]
        alone.append(odds.alone(one.worth, max(rivals, default=LEAST_SCORE)) + prior)
    # of alternatives, one is right; the others' odds count against it
    against = [
        [0.0, *((alone[k] * LN_10 + math.log(relations[i, k].apart)) for k in beside[i])]
        for i in range(len(found))
    ]
    own = [alone[i] - float(np.logaddexp.reduce(against[i])) / LN_10 for i in range(len(found))]
    matches = []
    for i, one in enumerate(found):
        by_others = [_beside(own[k], relations[i, k]) for k in beside[i] if own[k] > own[i]]
        log_odds = max([own[i], *by_others])
        matches.append(replace(one.match, log_odds=log_odds, probability=probability_of(log_odds)))
    kept: dict[int, Match] = {}
    for i in sorted(range(len(found)), key=lambda i: -matches[i].log_odds):
        others = [k for k in beside[i] if k in kept]
        if limits.hold(matches[i]) and len(others) < limits.top:
            same = next((kept[k] for k in others if relations[i, k].copies), None)
            of = None if same is None else same.track_id if same.copies_of is None else same.copies_of
            kept[i] = replace(matches[i], copies_of=of)
    return list(kept.values())


def _beside(log_odds: float, relation: Relation) -> float:
    """Odds of what a clip holds if it holds another recording with these odds: a copy, or one that sounds at once."""
    right, wrong = probability_of(log_odds), probability_of(-log_odds)
    return math.log10(relation.together * right / (relation.apart + relation.together * wrong))


def _once_a_track(found: list[Resemblance]) -> tuple[list[Resemblance], list[list[int]]]:
    """The best of the stretches of a track that overlap; and, for each of these, which others it overlaps."""
    beside = _overlaps([one.match for one in found])
    kept: set[int] = set()
    for i in sorted(range(len(found)), key=lambda i: found[i].worth.log10_evalue):
        tracks = {found[k].match.track_id for k in beside[i] if k in kept}
        if found[i].match.track_id not in tracks:
            kept.add(i)
    places = {i: place for place, i in enumerate(sorted(kept))}
    return [found[i] for i in places], [[places[k] for k in beside[i] if k in places] for i in places]


def log_odds_of(probability: float) -> float:
    """Base-10 logarithm of its odds; of 0, none are less."""
    return math.log10(probability / (1.0 - probability)) if probability > 0 else -math.inf


def probability_of(log_odds: float) -> float:
    """The probability with these odds, of which this is the base-10 logarithm."""
    return 1.0 / (1.0 + power_of_ten(-log_odds))


def _overlaps(matches: list[Match]) -> list[list[int]]:
    """For each match, which others share more than half of the shorter one's stretch of the query."""
    beside: list[list[int]] = [[] for _ in matches]
    going_on: list[int] = []
    for i in sorted(range(len(matches)), key=lambda i: matches[i].query_start_s):
        match = matches[i]
        going_on = [k for k in going_on if matches[k].query_end_s > match.query_start_s]
        for k in going_on:
            other = matches[k]
            shared = min(match.query_end_s, other.query_end_s) - match.query_start_s
            shorter = min(match.query_end_s - match.query_start_s, other.query_end_s - other.query_start_s)
            if shared > 0.5 * shorter:
                beside[i].append(k)
                beside[k].append(i)
        going_on.append(i)
    return beside


def power_of_ten(exponent: float) -> float:
    """10 to the `exponent`, at most 1e300."""
    return float(10.0 ** min(exponent, 300.0))
