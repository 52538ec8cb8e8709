"""Matches, and which candidates are any: of several tracks that a stretch resembles, one must stand out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

SURE_SCORE = 4.0
"""A match with this score stands whatever else its stretch resembles."""
CHANGED = 1.3
"""Powers of ten that a match must have over when it says that the clip's speed, tempo or pitch was changed: few are."""
CHANGED_TEMPO = 0.03
"""Tempi no further from 1 count as unchanged: short clips do not tell them apart."""


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
        Expected number of matches at least this good by chance, over the whole library, in view of what else in it
        the query resembles.
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

    def weakened(self, powers: float) -> Match:
        """The same match with an E-value that is so many powers of ten larger."""
        score = self.score - powers
        return replace(self, score=score, evalue=power_of_ten(-score)) if powers else self

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return asdict(self)


def check_limits(ber: float, max_evalue: float, top: int) -> None:
    """Refuse what no search can be limited to with a `ValueError`."""
    if not (max_evalue > 0 and 0 <= ber <= 1 and top >= 1):
        raise ValueError("max_evalue must be above 0, ber from 0 to 1, top at least 1")


def decide(candidates: list[Match], *, ber: float, max_evalue: float, top: int) -> list[Match]:
    """The matches among candidates, best first.

    Each keeps the evidence that it has beyond its best rival: another track that its stretch resembles. Chance may be
    kinder to a query than the null model knows: a speaker who says the same words again, pieces from the same box of
    loops. But whatever its level, the best of many chance scores is seldom far ahead of the second: where tails are
    exponential, it leads by ``d`` powers of ten once in ``10 ** d`` times (Rényi 1953, on spacings of order
    statistics). So a lead is an E-value too, and the larger of both holds.

    A rival that is sure (:data:`SURE_SCORE`) is no chance: the recording is stored twice, or two sound at once. It is
    passed over, unless the match is not sure itself. Of a recording stored twice, then, neither is named where none
    is sure.

    A match that says that the clip was changed (:data:`CHANGED`) has to be the surer for it; as a rival it counts in
    full, for chance finds it as easily.

    Parameters
    ----------
    candidates
        All that a query resembles, at whatever speeds it was tried.
    ber, max_evalue, top
        See :meth:`samaf.search.Searcher.search`.
    """
    beside = _overlaps(candidates)
    contested = [
        _worth(match, [candidates[k] for k in others])
        for match, others in zip(candidates, beside, strict=True)
    ]
    kept: dict[int, Match] = {}
    for i in sorted(range(len(contested)), key=lambda i: -contested[i].score):
        match = contested[i]
        over = [kept[k].track_id for k in beside[i] if k in kept]
        if match.ber <= ber and match.evalue <= max_evalue and len(over) < top and match.track_id not in over:
            kept[i] = match
    return list(kept.values())


def _worth(match: Match, others: list[Match]) -> Match:
    """A match with the evidence that it has beyond the best rival among the candidates that overlap it."""
    sure = match.score >= SURE_SCORE
    rival = max(
        (
            other.score
            for other in others
            if other.track_id != match.track_id and not (sure and other.score >= SURE_SCORE)
        ),
        default=0.0,
    )
    changed = match.speed != 1.0 or match.pitch_cents != 0.0 or abs(match.tempo - 1.0) > CHANGED_TEMPO
    return match.weakened(max(rival, 0.0) + (CHANGED if changed else 0.0))


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
