"""Rarity: how often strangers resemble each other as much, in each kind of audio.

The number of stretches with at least some evidence that a search among strangers would find, the E-value, has the form
of Karlin and Altschul (1990), ``K m n exp(-lambda S)``; that is asymptotic and wants independent rows, while a clip has
a few correlated ones, and pieces and voices resemble each other. So lambda and K depend on the number of rows, and were
fitted to searches for clips that the library does not hold (:mod:`samaf.model.calibrate`).

How often strangers resemble each other differs from kind to kind as well: the same person says the same word again,
music seldom returns in another piece. So each kind of recordings that calibration is given has a lambda and K of its
own, and kinds are told apart by multinomial logistic regression on a stretch's mean bits, each counted as it can be
trusted: one second of 128 bits tells music from speech in 98 of 100 cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_SEEN = -3.0
"""Base-10 logarithm of the least E-value that calibration can see: with a few thousand clips, one in a thousand."""

LN_10 = math.log(10.0)
LOG10_HALF = math.log10(0.5)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def mean_bits(signed: Float32) -> Float32:
    """What to expect of each bit, between -1 and 1, in the mean over rows: float32 (bits,), of weights (m, bits)."""
    return np.tanh(signed).mean(axis=0)


class Kinds:
    """Tells kinds apart.

    Parameters
    ----------
    weights : (kinds, bits + 1)
        Of each mean bit for the logarithm of a kind's odds, and its constant.
    """

    def __init__(self, weights: Float64) -> None:
        self.weights, self.constants = weights[:, :-1], weights[:, -1]

    def log_chances(self, signed: Float32) -> tuple[float, ...]:
        """Natural logarithm of the chance of each kind, of the weights (m, bits) of a stretch's rows."""
        odds = self.weights @ mean_bits(signed) + self.constants
        return tuple((odds - np.logaddexp.reduce(odds)).tolist())


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


def log10_of_kinds(
    tails: Sequence[Tail], log_kinds: Sequence[float], evidence: float, known_s: float, log10_tests: float
) -> float:
    """Base-10 logarithm of the E-value of a stretch: the mean of those of the kinds, by their chances.

    Parameters
    ----------
    tails
        Of each kind.
    log_kinds
        Natural logarithm of the chance of each.
    evidence, known_s, log10_tests
        See :meth:`Tail.log10_evalue`.
    """
    logs = [
        float(tail.log10_evalue(evidence, known_s, log10_tests)) * LN_10 + chance
        for tail, chance in zip(tails, log_kinds, strict=True)
    ]
    return float(np.logaddexp.reduce(logs)) / LN_10
