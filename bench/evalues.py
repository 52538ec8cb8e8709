"""Are E-values what they say? Of unknown queries, how many reach E <= x, against how many are due.

Pure functions over the scores of queries whose recordings the library does not hold. A score is -log10 E of the best
answer, and -inf where there is none. An E-value is an expected number of answers as good by chance; as these come
like rare events, one or more reach E <= x in a share 1 - exp(-x) of queries (Karlin and Altschul 1990). Observed by
due is 1 where E-values are right, above 1 where they promise too much.

Queries of one artist or speaker go wrong together. So the intervals are bootstrap intervals over *clusters* of
queries, not over queries (Davison and Hinkley 1997, section 3.8); they are nan where there is but one cluster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = (1.0, 0.1, 0.01, 0.001)
"""E-values at which shares are compared."""
FEWEST_DUE = 10
"""Queries that must be due at a level for it to be reported."""
RESAMPLES = 1000

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Level:
    """How many queries reach an E-value.

    Attributes
    ----------
    evalue
        The level.
    observed, due
        Shares of the queries.
    interval
        Of `observed`, at 95 %.
    """

    evalue: float
    observed: float
    due: float
    interval: Interval

    @property
    def ratio(self) -> float:
        """Observed by due."""
        return self.observed / self.due

    @property
    def ratio_interval(self) -> Interval:
        """The interval of the ratio."""
        return self.interval[0] / self.due, self.interval[1] / self.due


def due(evalue: float) -> float:
    """Share of unknown queries that reach E <= `evalue` where E-values are right."""
    return -math.expm1(-evalue)


def reach(scores: Floats, evalue: float) -> NDArray[np.bool_]:
    """Which scores (n,) are those of E <= `evalue`."""
    return scores >= -math.log10(evalue)


def bootstrap(hits: NDArray[np.bool_], clusters: Sequence[str], seed: int = 0) -> Interval:
    """The 95 % interval of the share of `hits`, from :data:`RESAMPLES` resamples of whole clusters.

    Parameters
    ----------
    hits : (n,)
        One a query.
    clusters
        Name of each query's cluster.
    seed
        Of the resampling.
    """
    if len(set(clusters)) < 2:
        return math.nan, math.nan
    low, high = np.quantile(resampled(hits, clusters, seed), [0.025, 0.975])
    return float(low), float(high)


def resampled(values: NDArray[Any], clusters: Sequence[str], seed: int = 0) -> Floats:
    """Means of values (n,), one a query, in :data:`RESAMPLES` resamples of whole clusters."""
    names, which = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sizes, sums = np.bincount(which), np.bincount(which, values)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means: Floats = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def level(scores: Floats, clusters: Sequence[str], evalue: float, seed: int = 0) -> Level:
    """How many queries reach an E-value; see :func:`bootstrap`."""
    hits = reach(scores, evalue)
    return Level(evalue, float(hits.mean()), due(evalue), bootstrap(hits, clusters, seed))


def levels(scores: Floats, clusters: Sequence[str], seed: int = 0) -> list[Level]:
    """The same at all of :data:`LEVELS` at which at least :data:`FEWEST_DUE` queries are due."""
    return [level(scores, clusters, x, seed) for x in LEVELS if len(scores) * due(x) >= FEWEST_DUE]


def ranked(scores: Floats) -> list[tuple[float, float]]:
    """(E-value, share of the queries that have it or a smaller one), ascending; without those without an answer."""
    known = np.sort(scores[np.isfinite(scores)])[::-1]
    return [(10.0 ** -max(score, -300.0), (i + 1) / len(scores)) for i, score in enumerate(known.tolist())]
