"""Resemblances: stretches of the library that a query resembles, and how two of them are related.

What resembles the same stretch of a clip are copies of one recording, two recordings that sound at once, or
alternatives of which one is right at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import distance, frozen
from samaf.match import Match

LEAST_SCORE = -2.0
"""Scores below tell nothing: a hundred stretches as good are due by chance."""
GRID_S = 0.1
"""Stored rows that meet a clip no further apart are compared with each other."""
COPY_BER, STRANGER_BER = (0.08, 0.08), (0.41, 0.06)
"""Mean and spread of the bit error rate between rows that do, of copies and of other recordings."""
COPY_SHARE, STRANGER_SHARE = (0.05, 0.13), (-0.4, 0.2)
"""The same for the logarithm of the share of the expected agreement that the worse of them has: copies have all of it,
and of two recordings that sound at once each explains a part of the clip."""
COPIES, BOTH = 0.05, 0.02
"""Chances that a clip that holds one recording holds a second one in the same place: a copy, or one that sounds at the
same time."""

Float64 = NDArray[np.float64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Judgement:
    """What a stretch is worth.

    Attributes
    ----------
    evidence : float
        In spreads of unrelated audio's agreement.
    expected : float
        What the recording itself should give, in the same.
    share : float
        Of the agreement that is to be expected of the recording itself, over that of the median clip.
    known_s : float
        Seconds of the clip that it rests on.
    log10_tests : float
        Base-10 logarithm of the number of places at which it could have been found; of the twenty-fold where it tells
        of another speed, tempo or pitch.
    log_kinds : tuple of float
        Natural logarithm of the chance of each kind of audio.
    log10_evalue : float
        Base-10 logarithm of the E-value.
    """

    evidence: float
    expected: float
    share: float
    known_s: float
    log10_tests: float
    log_kinds: tuple[float, ...]
    log10_evalue: float


@dataclass(frozen=True, eq=False)
class Resemblance:
    """A stretch that a query resembles.

    Attributes
    ----------
    match : Match
        What it would tell, but for its probability.
    worth : Judgement
    meets_s : float64 (k,)
        Where in the clip the stored rows meet it, in seconds.
    stored : uint64 (k, w)
        These rows' hashes.
    """

    match: Match
    worth: Judgement
    meets_s: Float64
    stored: Words

    def played_at(self, speed: float) -> Resemblance:
        """The same of a clip restored from `speed`, in the clip's own time."""
        return replace(self, match=self.match.played_at(speed), meets_s=self.meets_s / speed)


@dataclass(frozen=True)
class Relation:
    """Of two recordings that a clip resembles over the same stretch.

    Attributes
    ----------
    alike
        How much likelier what is seen is of copies than of strangers.
    score
        The lower of their scores: by chance, a stranger has it once in ten to its power.
    copies
        Whether they are told to be copies.
    """

    alike: float
    score: float
    copies: bool

    @property
    def together(self) -> float:
        """Chance that the clip holds both, if it holds one of them: that the other is no stranger who is alike."""
        return self._odds_together / (1.0 + self._odds_together)

    @property
    def apart(self) -> float:
        """Chance that it holds but one."""
        return 1.0 / (1.0 + self._odds_together)

    @property
    def _odds_together(self) -> float:
        return (COPIES * self.alike + BOTH) * 10.0 ** min(self.score, 12.0)


def related(a: Resemblance, b: Resemblance) -> Relation:
    """How two recordings are related, as their hashes tell where their grids agree, else the clip between them."""
    score = -max(a.worth.log10_evalue, b.worth.log10_evalue)
    first = np.searchsorted(a.meets_s, b.meets_s - GRID_S - 1e-6)
    first = np.minimum(first, len(a.meets_s) - 1)
    near = np.abs(a.meets_s[first] - b.meets_s) <= GRID_S + 1e-6
    if near.sum() >= len(near) / 2:
        errors = distance(frozen(a.stored[first[near]]), frozen(b.stored[near]))
        ber = float(errors.mean()) / (64 * a.stored.shape[1])
        alike = _likelier(ber, COPY_BER, STRANGER_BER)
        return Relation(alike, score, alike > 1.0)
    alike = _likelier(math.log(max(min(a.worth.share, b.worth.share), 0.01)), COPY_SHARE, STRANGER_SHARE)
    return Relation(alike, score, alike > 1.0)


def _likelier(value: float, one: tuple[float, float], other: tuple[float, float]) -> float:
    """How much likelier a value is under one normal distribution (mean, spread) than under another."""
    logs = [-0.5 * ((value - mean) / spread) ** 2 - math.log(spread) for mean, spread in (one, other)]
    return math.exp(min(logs[0] - logs[1], 20.0))
