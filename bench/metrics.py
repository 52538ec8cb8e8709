"""Metrics of audio identification: pure functions over what became of a system's queries.

A query is a clip; it is *in the library* if its recording is, otherwise *out of it*. A system answers with its best
candidate (a track, an offset, a score), or with none, and has a verdict of its own on the candidate. From this follow
three ways of asking "how often is it right", which the functions keep apart:

- the best candidate, whatever its score: :func:`top1`;
- the candidates that the system itself accepts: :func:`recall`, :func:`precision`, :func:`f1`, :func:`accuracy`,
  :func:`false_accepts`;
- the candidates above the score that leaves few false answers, alike for all systems: :func:`threshold_at`,
  :func:`hits_above`, :func:`operating_points`.

Conventions for all functions
-----------------------------
- A share of nothing is not known: a :class:`Rate` with ``n = 0`` has the value nan and the interval [0, 1]. Quotients
  whose divisor is zero, and medians of nothing, are nan. None of this warns or raises.
- An answer without a score, or with a score of nan, ranks below all others: its evidence is -inf.
- "Above a threshold" is strict. An answer that ties with the threshold is not given.
- A wrong track named for a clip of the library is a miss. It is no false answer in the sense of
  :func:`false_accepts` and :func:`threshold_at`, which count clips out of the library, but it lowers the precision.
- Quantiles interpolate linearly between the two nearest values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NEAR_S = 0.5
"""Largest offset error of a near hit (Kim, Kim and Song, "Neural Audio Fingerprinting", section 3.5)."""
EXACT_S = 0.25
"""Largest offset error of an exact hit: half the hop of 0.5 s of the same report, where the right index is nearest."""
FALSE_ANSWER_RATE = 0.01
"""The rate of false answers at which systems are compared."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A share with the counts that it comes from.

    Attributes
    ----------
    hits, n
        ``hits`` of ``n``.
    """

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share in [0, 1]; nan where `n` is 0."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its Wilson interval at 95 %."""
        return wilson(self.hits, self.n)


@dataclass(frozen=True)
class Outcomes:
    """What became of n queries, as columns of length n.

    Attributes
    ----------
    in_library
        Whether the clip's recording is in the library.
    answered
        Whether the system had any candidate.
    right
        Whether the candidate is the clip's recording.
    accepted
        The system's own verdict on its candidate; False where there is none.
    score
        The candidate's score, higher is better; nan where there is none.
    error_s
        The candidate's offset minus the true one, signed; nan where not `right`, or where either is not known.
    ber
        Bit error rate of the candidate's alignment; nan for systems without.
    elapsed_s
        Seconds that the answer took.

    Raises
    ------
    ValueError
        If the columns differ in length, if there is a right candidate for a clip out of the library, or a right or
        accepted one for a clip without a candidate.
    """

    in_library: Bools
    answered: Bools
    right: Bools
    accepted: Bools
    score: Floats
    error_s: Floats
    ber: Floats
    elapsed_s: Floats

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")
        if (self.right & ~self.in_library).any():
            raise ValueError("a clip out of the library has no right candidate")
        if ((self.right | self.accepted) & ~self.answered).any():
            raise ValueError("a clip without a candidate has neither a right nor an accepted one")

    def __len__(self) -> int:
        return len(self.in_library)

    def where(self, mask: Bools) -> Outcomes:
        """The queries for which `mask` (n,) is true."""
        return Outcomes(*(getattr(self, field.name)[mask] for field in fields(self)))

    @property
    def evidence(self) -> Floats:
        """Score, or -inf where there is no answer or no number."""
        return np.where(self.answered & ~np.isnan(self.score), self.score, -np.inf)


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927, "Probable inference, the law of succession, and statistical inference").

    Unlike the normal approximation it stays within [0, 1], and has a width where `hits` is 0 or `n`.

    Parameters
    ----------
    hits, n
        0 <= hits <= n. Of n = 0 nothing is known: the interval is [0, 1].
    confidence
        Probability that such an interval covers the true share, in (0, 1).

    Returns
    -------
    low, high
        0 <= low <= hits / n <= high <= 1.

    Raises
    ------
    ValueError
        If `hits` is not in [0, n].
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no share")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Where hits is 0 or n the bound is 0 or 1 exactly; rounding must not put the share outside.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


# -- the best candidate ---------------------------------------------------------------------------------------------


def top1(outcomes: Outcomes, within_s: float = math.inf) -> Rate:
    """Top-1 hit rate: clips of the library whose best candidate is right, whatever its score.

    The three senses of the KAIST report (Kim, Kim and Song, "Neural Audio Fingerprinting", section 3.5) are *correct*
    (the right track), *near* (`within_s` = :data:`NEAR_S`) and *exact* (`within_s` = :data:`EXACT_S`).

    Parameters
    ----------
    within_s
        Largest offset error, inclusive. An error that is not known is no hit of a finite `within_s`.
    """
    right = outcomes.right
    if math.isfinite(within_s):
        right = right & (np.abs(outcomes.error_s) <= within_s)
    return Rate(int(right.sum()), int(outcomes.in_library.sum()))


def localisation_error(outcomes: Outcomes) -> tuple[float, float]:
    """Median and 95 % quantile of the absolute offset error over right candidates, in seconds."""
    return _median_and_95(np.abs(outcomes.error_s[outcomes.right]))


# -- the system's own verdict ---------------------------------------------------------------------------------------


def false_accepts(outcomes: Outcomes) -> Rate:
    """Clips out of the library that the system answers, by its own verdict."""
    accepted = outcomes.accepted & ~outcomes.in_library
    return Rate(int(accepted.sum()), int((~outcomes.in_library).sum()))


def wrong_accepts(outcomes: Outcomes) -> Rate:
    """Clips of the library that the system answers with another track, by its own verdict."""
    accepted = outcomes.accepted & outcomes.in_library & ~outcomes.right
    return Rate(int(accepted.sum()), int(outcomes.in_library.sum()))


def recall(outcomes: Outcomes) -> Rate:
    """Clips of the library that the system accepts and names rightly."""
    return Rate(int((outcomes.accepted & outcomes.right).sum()), int(outcomes.in_library.sum()))


def precision(outcomes: Outcomes) -> Rate:
    """Right ones among all accepted answers, those to clips out of the library included.

    It depends on the share of such clips among the queries, so compare it within one set of queries only.
    """
    return Rate(int((outcomes.accepted & outcomes.right).sum()), int(outcomes.accepted.sum()))


def f1(outcomes: Outcomes) -> float:
    """Harmonic mean of :func:`precision` and :func:`recall`.

    Computed from counts, 2 right / (accepted + in library): 0 where nothing is right, nan only where there is neither
    an accepted answer nor a clip of the library.
    """
    found, named = recall(outcomes), precision(outcomes)
    return _quotient(2.0 * found.hits, found.n + named.n)


def accuracy(outcomes: Outcomes) -> Rate:
    """Clips that the system deals with rightly: named rightly if in the library, left unnamed if out of it.

    Like :func:`precision` it depends on the share of clips out of the library.
    """
    dealt_with = np.where(outcomes.in_library, outcomes.right, True) & (
        outcomes.accepted == outcomes.in_library
    )
    return Rate(int(dealt_with.sum()), len(outcomes))


# -- equal rates of false answers -----------------------------------------------------------------------------------


def threshold_at(outcomes: Outcomes, rate: float = FALSE_ANSWER_RATE) -> float:
    """The smallest score threshold that leaves at most `rate` of the clips out of the library answered.

    Only answers strictly above it count as given. It belongs to a system, over all clip lengths and conditions: no
    user knows these beforehand. The system's own verdict plays no part.

    Parameters
    ----------
    rate
        In [0, 1). ``floor(rate * n)`` of n clips may be answered: with fewer than 100 of them, 1 % means none.

    Returns
    -------
    threshold
        A score; -inf if less than `rate` are answered at all; nan without clips out of the library.
    """
    evidence = np.sort(outcomes.evidence[~outcomes.in_library])[::-1]
    # The product of two exact decimals, such as 0.07 * 100, may come out just above or below the whole number.
    allowed = math.floor(rate * len(evidence) + 1e-9)
    return float(evidence[allowed]) if len(evidence) else math.nan


def hits_above(outcomes: Outcomes, threshold: float) -> Rate:
    """Clips of the library with the right candidate strictly above `threshold`: at :func:`threshold_at`, hit@fa1.

    With a `threshold` of nan nothing is known: 0 of 0.
    """
    if math.isnan(threshold):
        return Rate(0, 0)
    right = outcomes.right & (outcomes.evidence > threshold)
    return Rate(int(right.sum()), int(outcomes.in_library.sum()))


@dataclass(frozen=True)
class OperatingPoints:
    """All that a system can be set to by moving its score threshold; m thresholds, rising.

    Attributes
    ----------
    threshold
        (m,): -inf, then every score that occurs.
    false_answer_rate
        (m,): share of clips out of the library answered, falling; nan without such clips.
    hit_rate
        (m,): share of clips of the library named rightly, falling; nan without such clips. Over
        `false_answer_rate` this is the ROC curve, here of an open-set identification: it ends at top-1, not at 1.
    """

    threshold: Floats
    false_answer_rate: Floats
    hit_rate: Floats

    @property
    def miss_rate(self) -> Floats:
        """1 - `hit_rate`: over `false_answer_rate`, the DET curve (Martin and others 1997)."""
        return 1.0 - self.hit_rate


def operating_points(outcomes: Outcomes) -> OperatingPoints:
    """ROC and DET points over the score."""
    evidence = outcomes.evidence
    threshold = np.unique(np.append(evidence, -np.inf))

    def share_above(chosen: Bools, n: int) -> Floats:
        ranked = np.sort(evidence[chosen])
        above = len(ranked) - np.searchsorted(ranked, threshold, side="right")
        return above / n if n else np.full(len(threshold), np.nan)

    in_library = outcomes.in_library
    return OperatingPoints(
        threshold,
        false_answer_rate=share_above(~in_library, int((~in_library).sum())),
        hit_rate=share_above(outcomes.right, int(in_library.sum())),
    )


# -- bit error rates ------------------------------------------------------------------------------------------------


def true_alignments(outcomes: Outcomes) -> Bools:
    """Candidates of the right track within :data:`NEAR_S` of the right place, (n,)."""
    return outcomes.right & (np.abs(outcomes.error_s) <= NEAR_S)


def false_alignments(outcomes: Outcomes) -> Bools:
    """Candidates of another track, (n,).

    The right track at a wrong place is neither true nor false: where music repeats, it may well fit there.
    """
    return outcomes.answered & ~outcomes.right


def ber_histogram(ber: Floats, bins: int = 50) -> tuple[Floats, Floats]:
    """Distribution of bit error rates.

    Parameters
    ----------
    ber
        Bit error rates in [0, 1]; nan is left out.
    bins
        Number of equal bins over [0, 1]; each holds its lower edge, the last one both.

    Returns
    -------
    edges, shares
        (bins + 1,) and (bins,); the shares sum to 1, or are all 0 where nothing is to be counted.
    """
    counts, edges = np.histogram(ber[~np.isnan(ber)], bins=bins, range=(0.0, 1.0))
    return edges, counts / max(1, counts.sum())


# -- costs ----------------------------------------------------------------------------------------------------------


def query_time(outcomes: Outcomes) -> tuple[float, float]:
    """Median and 95 % quantile of the seconds that an answer took, over all queries."""
    return _median_and_95(outcomes.elapsed_s)


def bytes_per_hour(index_bytes: float, audio_s: float) -> float:
    """Size of the index by hour of audio in the library."""
    return _quotient(3600.0 * index_bytes, audio_s)


def times_real_time(audio_s: float, elapsed_s: float) -> float:
    """Seconds of audio taken in by second of work."""
    return _quotient(audio_s, elapsed_s)


# -- all together ---------------------------------------------------------------------------------------------------


def evaluate(
    outcomes: Outcomes,
    *,
    threshold: float | None = None,
    audio_s: float = math.nan,
    ingest_s: float = math.nan,
    ingest_cpu_s: float = math.nan,
    index_bytes: float = math.nan,
    peak_memory_bytes: float = math.nan,
    macs_per_s: float | None = None,
) -> dict[str, Rate | float]:
    """All metrics by name.

    Parameters
    ----------
    outcomes
        Of one system.
    threshold
        Score threshold of ``hit_fa1``. By default that of `outcomes` themselves; give the one of the whole system
        when `outcomes` are a part of its queries.
    audio_s, ingest_s, ingest_cpu_s, index_bytes, peak_memory_bytes, macs_per_s
        What was measured while the library was taken in: seconds of audio, of wall-clock and of processor time; size
        of the index; peak memory; multiplications of a network. What is not given comes out as nan.

    Returns
    -------
    metrics
        Shares as :class:`Rate`; times in seconds (``_s``), sizes in bytes (``_bytes``).
    """
    if threshold is None:
        threshold = threshold_at(outcomes)
    error_s, error_95_s = localisation_error(outcomes)
    query_s, query_95_s = query_time(outcomes)
    return {
        "hit_fa1": hits_above(outcomes, threshold),
        "top1_correct": top1(outcomes),
        "top1_near": top1(outcomes, NEAR_S),
        "top1_exact": top1(outcomes, EXACT_S),
        "recall": recall(outcomes),
        "precision": precision(outcomes),
        "f1": f1(outcomes),
        "accuracy": accuracy(outcomes),
        "false_accepts": false_accepts(outcomes),
        "wrong_accepts": wrong_accepts(outcomes),
        "threshold_fa1": threshold,
        "error_median_s": error_s,
        "error_95_s": error_95_s,
        "ber_true_median": _median_and_95(outcomes.ber[true_alignments(outcomes)])[0],
        "ber_false_median": _median_and_95(outcomes.ber[false_alignments(outcomes)])[0],
        "query_median_s": query_s,
        "query_95_s": query_95_s,
        "ingest_x_real_time": times_real_time(audio_s, ingest_s),
        "ingest_cpu_x_real_time": times_real_time(audio_s, ingest_cpu_s),
        "index_bytes_per_hour": bytes_per_hour(index_bytes, audio_s),
        "peak_memory_bytes": peak_memory_bytes,
        "macs_per_s": math.nan if macs_per_s is None else macs_per_s,
    }


def _median_and_95(values: Floats) -> tuple[float, float]:
    """Quantiles of the values that are numbers; nan where there are none."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return math.nan, math.nan
    median, upper = np.quantile(values, (0.5, 0.95))
    return float(median), float(upper)


def _quotient(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor else math.nan
