"""Differences of rates, with intervals from resamples of the recordings (bootstrap, 95 %).

Clips of one recording go right or wrong together. So it is the recordings that are drawn anew, not the clips; and two
systems are held against each other clip by clip, as most clips are as easy or as hard for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.comparison import Entrant, Group
from bench.evalues import Interval, resampled
from bench.metrics import Bools, Floats
from bench.tables import UNKNOWN, percent


def middle(again: Floats) -> Interval:
    """The 95 % interval of resamples."""
    low, high = np.quantile(again, [0.025, 0.975])
    return float(low), float(high)


def written(value: float, interval: Interval, digits: int = 0) -> str:
    """``88.1 [80, 94]``."""
    low, high = interval
    return (
        UNKNOWN
        if math.isnan(value)
        else f"{percent(value, 1)} [{percent(low, digits)}, {percent(high, digits)}]"
    )


@dataclass(frozen=True)
class Judgement:
    """Whether one system is ahead of another.

    Attributes
    ----------
    lead
        Difference of their rates; nan where nothing is known.
    interval
        Of it, 95 %.
    """

    lead: float
    interval: Interval

    @property
    def points(self) -> str:
        """``+12.3 [+8.1, +16.0]``."""
        if math.isnan(self.lead):
            return UNKNOWN
        low, high = self.interval
        return f"{100 * self.lead:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"

    @property
    def words(self) -> str:
        """``holds (+12.3 [+8.1, +16.0])``."""
        low, high = self.interval
        verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"
        return f"{verdict} ({self.points})"


def ahead(first: Floats, second: Floats, recordings: Sequence[str], seed: int = 0) -> Judgement:
    """Judge by hits (n,) of the same clips, whose recordings are drawn anew."""
    if not recordings:
        return Judgement(math.nan, (math.nan, math.nan))
    gains = np.asarray(first, float) - np.asarray(second, float)
    return Judgement(float(gains.mean()), middle(resampled(gains, recordings, seed)))


def ahead_in_naming(
    first: Entrant, second: Entrant, hits: Callable[[Entrant], Bools], group: Group | None = None
) -> Judgement:
    """Judge by the clips of the library that both were asked.

    Parameters
    ----------
    hits
        Which of an entrant's trials (n,) count as named.
    group
        The clips; None: all.
    """
    known = {query.query: hit for (query, _), hit in zip(second.trials, hits(second), strict=True)}
    both = [
        (hit, known[query.query], query.track)
        for (query, _), hit in zip(first.trials, hits(first), strict=True)
        if query.track is not None
        and query.query in known
        and (group is None or (query.kind, query.length_s) == (group.kind, group.length_s))
    ]
    return ahead(
        np.array([hit for hit, _, _ in both], float),
        np.array([hit for _, hit, _ in both], float),
        [track for _, _, track in both],
    )
