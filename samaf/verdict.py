"""The verdict: how much a stretch's agreement says, how often chance says as much, and what is a match.

The evidence of a stretch is the distance of its agreement from that of unrelated audio, laid over the same rows, in
spreads of the latter (:mod:`samaf.background`). It counts by the share that this agreement has of what is to be
expected of the recording itself: the bits' confidence says how many of them should be right, so a clear clip must
agree clearly.

The E-value is the number of stretches with at least that evidence that a search among strangers would find. It has
the form of Karlin and Altschul (1990), ``K m n exp(-lambda S)``; that is asymptotic and wants independent rows, while a
clip has a few correlated ones, and pieces and voices resemble each other. So lambda and K depend on the number of rows
and on the kind of audio (:mod:`samaf.kinds`), and were fitted to searches for clips that the library does not hold
(:mod:`samaf.model.calibrate`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samaf.background import Background
from samaf.errors import ModelError
from samaf.fingerprint import Fingerprint
from samaf.kinds import Kinds
from samaf.query import Query, Reliability
from samaf.stretch import Stretch
from samaf.weights import Weights

CHANGED = 1.3
"""Powers of ten by which a match that tells of another speed, tempo or pitch is the less likely: few clips are changed,
and twenty changes are tried."""
CHANGED_TEMPO = 0.03
"""Tempi no further from 1 count as unchanged: hashes bear as much, and short clips do not tell them apart."""

LEAST_SEEN = -3.0
"""Base-10 logarithm of the least E-value that calibration can see: with a few thousand clips, one in a thousand."""

LN_10 = math.log(10.0)
LOG10_HALF = math.log10(0.5)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """One place of one track that a query was recognised as.

    Attributes
    ----------
    track_id, path, title
        The track.
    ber : float
        Bit error rate over all aligned hashes.
    evalue : float
        Expected number of matches at least this good between this query and a library of this size that holds none of
        its recordings.
    score : float
        ``-log10(evalue)``; finite where `evalue` has underflowed to 0.
    query_start_s, query_end_s, track_start_s, track_end_s : float
        What of the query is what of the track.
    speed, tempo, pitch_cents : float
        How the query was changed. Hashes tell reference seconds per query second, not how they came about:
        a change is given as tempo.
    """

    track_id: int
    path: str
    title: str
    ber: float
    evalue: float
    score: float
    query_start_s: float
    query_end_s: float
    track_start_s: float
    track_end_s: float
    speed: float = 1.0
    tempo: float = 1.0
    pitch_cents: float = 0.0

    def played_at(self, speed: float) -> Match:
        """The same match of a clip restored from `speed`, told in the clip's own time, by the fewest changes."""
        tempo, cents = self.tempo, 0.0
        if abs(tempo - 1.0) <= CHANGED_TEMPO:
            speed_told, tempo = speed * tempo, 1.0
        elif abs(tempo * speed - 1.0) <= CHANGED_TEMPO:
            speed_told, tempo, cents = 1.0, tempo * speed, 1200.0 * math.log2(speed)
        else:
            speed_told = speed
        return replace(
            self,
            query_start_s=round(self.query_start_s / speed, 3),
            query_end_s=round(self.query_end_s / speed, 3),
            speed=round(speed_told, 4),
            tempo=round(tempo, 4),
            pitch_cents=round(cents, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return asdict(self)


class Verdict:
    """What a calibrated model knows of chance, for codes of one length in an index of one hop.

    Parameters
    ----------
    weights
        A calibrated model.
    bits
        Code length.
    hop_s
        Seconds between the hashes of the index.

    Raises
    ------
    ModelError
        If the model was never calibrated.
    """

    def __init__(self, weights: Weights, bits: int, hop_s: float) -> None:
        known = weights.calibration
        if not known:
            raise ModelError(
                "the weights file holds no calibration, so that no match could be told from chance; "
                "write it again with `samaf calibrate`"
            )
        self.bits, self.hop_s = bits, hop_s
        try:
            self.reliability = Reliability(*(float(v) for v in known["reliability"]))
            self.background = Background(known["background"], bits, hop_s)
            self.share = float(known["share"])
            nearest = int(np.abs(np.log(known["hops"] / hop_s)).argmin())
            self.kinds = Kinds(known[f"kinds_{bits}"])
            self.tails = [Tail(known["tail_seconds"], *of_kind) for of_kind in known[f"tail_{bits}"][nearest]]
            if self.kinds.weights.shape != (len(self.tails), bits):
                raise ValueError("kinds")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(
                f"the calibration in the weights file is old or damaged ({error!r}); write it again with "
                "`samaf calibrate`"
            ) from None

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
        log_kinds = self.kinds.log_chances(query.signed[rows])

        def judged(mean: float, spread: float) -> Judgement:
            evidence = self._evidence(
                float(stretch.agreement.sum()), float(query.expected[rows].sum()), mean, spread
            )
            of_kinds = [tail.log10_evalue(evidence, known_s, log10_tests) for tail in self.tails]
            log_evalue = np.logaddexp.reduce(np.array(of_kinds) * LN_10 + log_kinds)
            return Judgement(evidence, known_s, log10_tests, float(log_evalue) / LN_10)

        if math.isfinite(max_evalue):
            independent = float(np.sqrt(np.sum(query.spread[rows] ** 2, dtype=np.float64)))
            if judged(float(query.mean[rows].sum()), independent).log10_evalue > math.log10(max_evalue):
                return None
        return judged(*self.background.of_stretch(query.signed[rows]))

    def _evidence(self, agreement: float, expected: float, mean: float, spread: float) -> float:
        """What a stretch's agreement says, in spreads.

        Without the share, 95 % of the music and 93 % of the speech of 5 s whose best candidate is right lie above the
        highest in a hundred clips that the library does not hold; with it, 97 and 94 %. Above the highest in a hundred
        of up to 10 s lie 54 and 82 % of the speech of 2 s (``dev``, 432 clips of each kind).
        """
        excess = max(agreement - mean, 0.0)
        share = excess / max(expected - mean, spread) / self.share
        return excess / spread * math.sqrt(min(share, 1.0))


@dataclass(frozen=True)
class Judgement:
    """What a stretch is worth.

    Attributes
    ----------
    evidence : float
        In spreads of unrelated audio's agreement.
    known_s : float
        Seconds of the clip that it rests on.
    log10_tests : float
        Base-10 logarithm of the number of places at which it could have been found; of the twenty-fold where it tells
        of another speed, tempo or pitch.
    log10_evalue : float
        Base-10 logarithm of the E-value.
    """

    evidence: float
    known_s: float
    log10_tests: float
    log10_evalue: float


class Tail:
    """How rare evidence S is among strangers of a kind: a chance of ``K exp(-lambda S)`` for each place that is tried.

    Long stretches of related audio agree a little all along (variations, the same words, the same loops), so that their
    evidence counts for less: lambda falls with the length. That is measured as far as calibration sees. It sees no
    chances above those that its own library leaves open: from there to a half, at no evidence at all, they are
    interpolated. Nor does it see E-values under some 0.001: what evidence goes beyond counts with the rate of the
    shortest stretches, which are alike by chance alone.

    Parameters
    ----------
    seconds : (k,)
        Known seconds of a stretch at which lambda and K were fitted, ascending.
    rate : (k,)
        lambda.
    log10_k : (k,)
        Base-10 logarithm of K.
    log10_seen : (k,)
        Base-10 logarithm of the largest chance that calibration saw.
    """

    def __init__(self, seconds: Float64, rate: Float64, log10_k: Float64, log10_seen: Float64) -> None:
        self.log_seconds = np.log2(np.asarray(seconds, np.float64))
        self.rate, self.log10_k = np.asarray(rate, np.float64), np.asarray(log10_k, np.float64)
        self.log10_seen = np.asarray(log10_seen, np.float64)

    def log10_evalue(self, evidence: ArrayLike, known_s: ArrayLike, log10_tests: ArrayLike) -> Float64:
        """Base-10 logarithm of the E-value of stretches with that evidence, each found at one of so many places."""
        evidence = np.asarray(evidence, np.float64)
        at = np.log2(np.maximum(known_s, 0.1))
        rate, log10_k, log10_seen = (
            np.interp(at, self.log_seconds, of) for of in (self.rate, self.log10_k, self.log10_seen)
        )
        falls = rate / LN_10  # powers of ten for a unit of evidence
        begins = (log10_k - log10_seen) / falls  # evidence at which the largest chance lies
        bulk = LOG10_HALF + (log10_seen - LOG10_HALF) * evidence / begins
        seen = log10_tests + np.where(evidence < begins, bulk, log10_k - falls * evidence)
        beyond = np.minimum(seen - LEAST_SEEN, 0.0)  # in powers of ten at the rate of that length
        return seen + beyond * (np.maximum(self.rate[0] / rate, 1.0) - 1.0)


def check_limits(ber: float, max_evalue: float, top: int) -> None:
    """Refuse what no search can be limited to with a `ValueError`."""
    if not (max_evalue > 0 and 0 <= ber <= 1 and top >= 1):
        raise ValueError("max_evalue must be above 0, ber from 0 to 1, top at least 1")


def decide(found: list[Match], *, ber: float, max_evalue: float, top: int) -> list[Match]:
    """The matches among what a query resembles, best first; no two of one track overlap.

    Parameters
    ----------
    found
        All that a query resembles, at whatever speeds it was tried.
    ber, max_evalue, top
        See :meth:`samaf.search.Searcher.search`.
    """
    good = [match for match in found if match.ber <= ber and match.evalue <= max_evalue]
    beside = _overlaps(good)
    kept: set[int] = set()
    for i in sorted(range(len(good)), key=lambda i: -good[i].score):
        others = [good[k].track_id for k in beside[i] if k in kept]
        if len(others) < top and good[i].track_id not in others:
            kept.add(i)
    return sorted((good[i] for i in kept), key=lambda match: -match.score)


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
