"""The estimates of a calibration, from what was drawn and found: fits without audio, encoder or search."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from samaf.query import Reliability
from samaf.rarity import LEAST_SEEN, LN_10, Tail
from samaf.resemblance import LEAST_SCORE, Judgement

MOST_FITTED = 12
"""Stretches of a clip that are held against each other in the fit."""
KNOTS_S = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
"""Known seconds at which rate and constant are fitted."""
LEVELS = np.array([2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005])
"""E-values at which the shares of clips that reach them are held against those due."""
STIFFNESS = 1.0
"""How much the fit minds a rate, or a begin of the tail, that bends over the logarithm of the seconds."""
RIDGE = 3.0
"""Penalty on the squares of the weights that tell kinds apart: there are many clips, but of few recordings."""
ODDS_RIDGE = 0.1
"""The same for odds: a few clips that are all answered rightly leave them finite."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def fit_reliability(confidence: Float32, known: Float32, right: NDArray[np.bool_]) -> Reliability:
    """The most likely :class:`samaf.query.Reliability`, by Newton's method in intercept and slope for each power.

    Parameters
    ----------
    confidence : (k, bits)
    known : (k,)
    right : (k, bits)
    """
    best: tuple[float, Reliability] | None = None
    sign = np.where(right, 1.0, -1.0).ravel()
    for power in np.arange(0.0, 2.01, 0.25):
        scale = np.repeat(known.astype(np.float64) ** power, confidence.shape[1])
        features = np.stack([scale, scale * confidence.ravel()])
        w = np.zeros(2)
        for _ in range(20):
            wrong = 1.0 / (1.0 + np.exp(sign * (w @ features)))
            gradient = features @ (wrong * sign)
            curvature = (features * (wrong * (1.0 - wrong))) @ features.T
            step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
            w += step
            if np.abs(step).max() < 1e-6:
                break
        likelihood = -float(np.logaddexp(0.0, -sign * (w @ features)).sum())
        if best is None or likelihood > best[0]:
            best = likelihood, Reliability(float(w[0]), float(w[1]), float(power))
    assert best is not None
    return best[1]


def fit_kinds(heard: Float32, kinds: NDArray[np.int64], n_kinds: int) -> Float64:
    """The most likely weights of :class:`samaf.rarity.Kinds`, (kinds, bits + 1), by L-BFGS.

    Parameters
    ----------
    heard : (n, bits)
        Mean bits of clips.
    kinds : (n,)
        What they are of.
    n_kinds
        How many kinds there are.
    """
    from scipy.optimize import minimize

    features = np.column_stack([heard, np.ones(len(heard))]).astype(np.float64)
    of_kind = np.eye(n_kinds)[kinds]

    def loss(values: Float64) -> tuple[float, Float64]:
        weights = values.reshape(n_kinds, -1)
        odds = features @ weights.T
        log_chances = odds - np.logaddexp.reduce(odds, axis=1)[:, None]
        gradient = (np.exp(log_chances) - of_kind).T @ features + RIDGE * weights
        return float(RIDGE / 2 * np.sum(weights**2) - np.sum(of_kind * log_chances)), gradient.ravel()

    start = np.zeros(n_kinds * features.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B").x.reshape(n_kinds, -1)


def fit_odds(answers: Float64, right: NDArray[np.bool_], weights: Float64) -> Float64:
    """The most likely :class:`samaf.verdict.Odds`, (4,), by Newton's method.

    Parameters
    ----------
    answers : (n, 3)
        Score, expected evidence and rival's score.
    right : (n,)
    weights : (n,)
        How much each answer counts.
    """
    score, expected, rival = answers.T
    seen, rival = (np.clip(values, LEAST_SCORE, -LEAST_SEEN) for values in (score, rival))
    features = np.stack([np.ones(len(score)), seen, np.log10(expected), rival]) * LN_10
    given = (score - seen) * LN_10
    w = np.zeros(4)
    for _ in range(30):
        chance = 1.0 / (1.0 + np.exp(-np.clip(w @ features + given, -500.0, 500.0)))
        gradient = features @ (weights * (right - chance)) - ODDS_RIDGE * w
        curvature = (features * (weights * chance * (1.0 - chance))) @ features.T + ODDS_RIDGE * np.eye(4)
        step = np.linalg.solve(curvature, gradient)
        w += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-6:
            break
    return w


def fit_tail(judged: Sequence[Sequence[Judgement]], groups: Sequence[Hashable]) -> Float64:
    """Rate, and base-10 logarithms of K and of the largest chance seen, at :data:`KNOTS_S`, (3, knots).

    A share ``1 - exp(-x)`` of clips is due to find an E-value of x or less. The rates are those with which the shares
    found at :data:`LEVELS` come nearest to it in each group of clips, by the sum of squares over the variances of
    what is due (the statistic of Anderson and Darling, 1952, at a few levels): likelihood would follow the bulk
    of the clips, and the tail is what is wanted.

    Parameters
    ----------
    judged
        What each clip found by chance.
    groups
        Of each clip: its length, say.
    """
    from scipy.optimize import minimize

    table = np.zeros((len(judged), MOST_FITTED, 3))
    table[:, :, 2] = 20.0  # found by anybody where a clip has fewer stretches
    for row, one in zip(table, judged, strict=True):
        best = sorted(one, key=lambda judgement: -judgement.evidence)[:MOST_FITTED]
        if best:
            row[: len(best)] = [(j.evidence, j.known_s, j.log10_tests) for j in best]
    evidence, seconds, log10_tests = np.moveaxis(table, 2, 0)
    names = list(dict.fromkeys(groups))
    member = np.array([[group == name for group in groups] for name in names], np.float64)
    counts = member.sum(axis=1)
    due = -np.expm1(-LEVELS)
    first = np.arange(len(table)), evidence.argmax(axis=1)
    order = np.argsort(seconds[first])
    tests = np.interp(KNOTS_S, seconds[first][order], _smooth(log10_tests[first][order]))
    seen = np.log10(LEVELS[0]) - tests  # no chance is seen that lies above the largest level

    def fitted(values: Float64) -> Float64:
        rates, begins = np.exp(values.reshape(2, -1))
        return np.stack([rates, seen + rates * begins / LN_10, seen])

    def loss(values: Float64) -> float:
        log10_evalues = Tail(KNOTS_S, *fitted(values)).log10_evalue(evidence, seconds, log10_tests)
        evalues = 10.0 ** np.minimum(log10_evalues.min(axis=1), 9.0)
        reached = 1.0 / (1.0 + (evalues[:, None] / LEVELS) ** 8)  # 1 below, 0 above, and smooth
        share = member @ reached / counts[:, None]
        off = (share - due) ** 2 / (due * (1.0 - due) + 1.0 / counts[:, None])
        bends = np.sum(np.diff(values.reshape(2, -1), 2) ** 2)
        return float((counts[:, None] * off).sum() / len(LEVELS) + STIFFNESS * bends)

    # were all clips of one length, an E-value of 2 would be that of their 14th percentile, and ln 2 of their median
    low, middle = np.maximum(np.percentile(evidence[first], [100.0 * np.exp(-LEVELS[0]), 50.0]), [0.1, 0.2])
    rate = np.log(LEVELS[0] / np.log(2.0)) / max(middle - low, 0.1)
    values = np.log(np.repeat([rate, low], len(KNOTS_S)))
    for _ in range(2):  # the second start goes on where the first lost its way
        values = minimize(loss, values, method="BFGS", options={"maxiter": 150}).x
    return fitted(values)


def _smooth(values: Float64) -> Float64:
    """Running mean over a tenth of the values."""
    width = max(1, len(values) // 10)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")
