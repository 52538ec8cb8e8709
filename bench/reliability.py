"""Are probabilities what they say? Of answers that are likely so much, how many are right.

Pure functions over answers, each with the base-10 logarithm of its odds, and whether it is right. Answers are put into
bins of equal count (Murphy and Winkler 1977, reliability diagrams); in each the share that is right should be the mean
probability. The Brier score is the mean square of the difference between a probability and what came true (Brier
1950): 0 is best, 0.25 is what one half for everything gives.

Intervals are bootstrap intervals over artists or speakers, see :mod:`bench.evalues`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.evalues import Floats, Interval, bootstrap

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers that are about as likely.

    Attributes
    ----------
    count
        How many.
    probability
        Their mean.
    right, interval
        Share that is right, and its interval at 95 %.
    """

    count: int
    probability: float
    right: float
    interval: Interval


def probabilities(log_odds: Floats) -> Floats:
    """Of base-10 logarithms of odds."""
    return 1.0 / (1.0 + 10.0 ** np.clip(-log_odds, -300.0, 300.0))


def bins(log_odds: Floats, right: NDArray[np.bool_], clusters: Sequence[str], seed: int = 0) -> list[Bin]:
    """:data:`BINS` bins of equal count, the least likely answers first; fewer where there are fewer answers.

    Parameters
    ----------
    log_odds, right : (n,)
        Of the answers.
    clusters
        Name of each answer's cluster.
    seed
        Of the resampling.
    """
    likely = probabilities(log_odds)
    found = []
    for which in np.array_split(np.argsort(log_odds, kind="stable"), min(BINS, len(log_odds))):
        interval = bootstrap(right[which], [clusters[k] for k in which], seed)
        found.append(Bin(len(which), float(likely[which].mean()), float(right[which].mean()), interval))
    return found


def brier(log_odds: Floats, right: NDArray[np.bool_]) -> float:
    """Mean square of the difference between the probabilities and what came true."""
    return float(np.mean((probabilities(log_odds) - right) ** 2))
