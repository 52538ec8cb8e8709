"""The null model: how good an alignment is by chance alone.

An alignment's evidence is the confidence-weighted agreement ``T`` of its rows: each bit counts with half the log-odds
that it is right, plus where query and reference agree, minus where they differ. Unrelated audio gives a ``T`` too,
with a mean and spread that depend on the query: hashes are correlated over bits, over time and between
pieces of the same kind. So each query is held against *background* hashes that come with the model: ``z`` is the
distance of ``T`` from the background's mean in units of its spread.

What is left, the shape of the tail, was measured when the model was calibrated: the share of unrelated alignments that
reach each ``z``, for each number of rows, down to 1 in 10,000. From there on the tail is that of a normal distribution
widened to pass through the last point.

Background alone judges a query by what is usual. What is usual for *this* query shows in the library itself: the
best scores of the tracks it does not come from. They make a second estimate (:class:`Competition`), and the two are
averaged.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from samaf.errors import ModelError
from samaf.hamming import unpack
from samaf.weights import Weights

BACKGROUND_HOP_S = 0.5
"""Seconds from row to row of a background run."""
MAX_WEIGHT = 3.0
"""Half log-odds of a bit never exceed this: no bit is surer than 99.8 %."""
TAPER = 0.8
"""The competition's tail is shorter far out than where it is measured; tuned on music that is in no library."""
BLOCK_ROWS = 8
"""Longest stretch of rows whose spread is measured as a whole; longer ones are sums of such blocks."""

Float32 = NDArray[np.float32]


class NullModel:
    """Chance levels for the codes of one model at one length.

    Parameters
    ----------
    weights
        A calibrated model.
    bits
        Code length.

    Raises
    ------
    ModelError
        If the model was never calibrated.
    """

    def __init__(self, weights: Weights, bits: int) -> None:
        null = weights.null
        if not null:
            raise ModelError(
                "the weights file holds no null model, so that no match could be told from chance; "
                "write it again with `samaf export`"
            )
        self.bits = bits
        self.intercept, self.slope = (float(v) for v in null["agreement"])
        rows = null["background"]
        signs = unpack(rows.reshape(-1, rows.shape[-1])[:, : bits // 64].astype(np.uint64), bits)
        self.background = np.where(signs, np.float32(1), np.float32(-1)).reshape(*rows.shape[:2], bits)
        self.tail = Tail(null["tail_rows"], null["tail_levels"], null[f"tail_z_{bits}"])

    def weigh(
        self, hashes: NDArray[np.uint64], confidence: Float32 | None, valid: NDArray[np.bool_]
    ) -> Float32:
        """Signed weight of each query bit, float32 (m, bits); 0 in invalid rows."""
        if confidence is None:
            weight = np.ones((len(hashes), self.bits), np.float32)
        else:
            weight = bit_weight(confidence, self.intercept, self.slope)
        signed = np.where(unpack(hashes, self.bits), weight, -weight)
        signed[~valid] = 0.0
        return signed

    def agreement(self, signed: Float32, stored: NDArray[np.uint64]) -> float:
        """``T`` of aligned rows: query weights (n, bits) and stored hashes (n, w)."""
        return float(np.sum(np.where(unpack(stored, self.bits), signed, -signed), dtype=np.float64))

    def moments(self, signed: Float32, hop_s: float) -> tuple[float, float]:
        """Mean and standard deviation of ``T`` over unrelated audio.

        Parameters
        ----------
        signed
            Weights of the query rows of the alignment, in order, (n, bits).
        hop_s
            Seconds between the reference rows.
        """
        mean = variance = 0.0
        stride = max(1, round(hop_s / BACKGROUND_HOP_S))
        runs, length, _ = self.background.shape
        rows = max(1, min(BLOCK_ROWS, 1 + (length - 1) // stride))  # a block must fit into a background run
        flat = self.background.reshape(runs * length, self.bits)
        for start in range(0, len(signed), rows):
            block = signed[start : start + rows]
            agreement = (flat @ block.T).reshape(runs, length, len(block))
            places = length - stride * (len(block) - 1)
            total = np.zeros((runs, places), np.float32)
            for k in range(len(block)):
                total += agreement[:, k * stride : k * stride + places, k]
            mean += float(total.mean())
            variance += float(total.var())
        # rows closer than the background's own are so alike that they count as fewer
        closeness = max(1.0, BACKGROUND_HOP_S / hop_s)
        return mean, float(np.sqrt(max(variance * closeness, 1e-12)))

    def log10_chance(self, agreement: float, signed: Float32, hop_s: float) -> float:
        """Base-10 logarithm of the chance that one unrelated alignment agrees as much."""
        mean, spread = self.moments(signed, hop_s)
        return self.tail.log10_chance(float((agreement - mean) / spread), len(signed))


def bit_weight(confidence: Float32, intercept: float, slope: float) -> Float32:
    """Half the log-odds that a bit of this confidence is right, float32 of the same shape."""
    weight = np.multiply(confidence, np.float32(slope / 2), dtype=np.float32)
    weight += np.float32(intercept / 2)
    return np.clip(weight, 0.0, MAX_WEIGHT, out=weight)


class Competition:
    """The tail of chance for one query, estimated from the library's own tracks.

    Half the squared score of the best alignment of an unrelated track has an exponential tail; its mean excess is
    estimated from the spacings of the upper order statistics (Hill 1975). The best few are left out:
    the recording sought may be stored more than once.

    Parameters
    ----------
    scores
        Best score of each track (or of those that came close), in any order.
    """

    RANKS = 58
    LEFT_OUT = 3
    FEWEST = 12

    def __init__(self, scores: list[float]) -> None:
        ordered = np.sort(np.maximum(np.array(scores, np.float64), 0.0))[::-1] ** 2 / 2
        self.n = min(self.RANKS, len(ordered) - 1)
        if self.n < self.FEWEST:
            self.weight = 0.0
            return
        rank = np.arange(self.LEFT_OUT, self.n)
        spacings = (rank + 1) * (ordered[rank] - ordered[rank + 1])
        self.excess = max(TAPER * float(spacings.mean()), 1e-3)
        self.floor = float(ordered[self.n])
        self.weight = 0.5 * self.n / self.RANKS

    def log10_evalue(self, score: float, log10_background: float) -> float:
        """Average, in logarithms, of the background's E-value and the competition's.

        The more tracks compete, the more they count: half of the whole at most, nothing up to 12 tracks.
        """
        if self.weight == 0.0:
            return log10_background
        above = max(score, 0.0) ** 2 / 2 - self.floor
        expected = math.log10(self.n) - above / self.excess / math.log(10.0)
        return (1.0 - self.weight) * log10_background + self.weight * expected


class Tail:
    """Measured tail of ``z``: which ``z`` a given share of unrelated alignments reaches.

    Parameters
    ----------
    rows : (k,)
        Numbers of rows measured, ascending.
    levels : (j,)
        Base-10 logarithms of shares, descending from about -1.
    z : (k, j)
        Reached by that share.
    """

    def __init__(self, rows: NDArray, levels: NDArray, z: NDArray) -> None:
        self.log_rows = np.log2(rows.astype(np.float64))
        self.levels = levels.astype(np.float64)
        self.z = z.astype(np.float64)

    def log10_chance(self, z: float, n_rows: int) -> float:
        """Base-10 logarithm of the share of unrelated alignments of `n_rows` rows that reach `z`."""
        at = np.log2(max(1, n_rows))
        knots = np.array([np.interp(at, self.log_rows, self.z[:, j]) for j in range(len(self.levels))])
        if z >= knots[-1]:
            widening = knots[-1] / _normal_quantile(self.levels[-1])
            return min(float(self.levels[-1]), _log10_normal_tail(z / widening))
        if z <= knots[0]:  # towards 1 at 8 spreads under the first knot
            return float(np.interp(z, [knots[0] - 8.0, knots[0]], [0.0, self.levels[0]]))
        return float(np.interp(z, knots, self.levels))


def _log10_normal_tail(x: float) -> float:
    """Base-10 logarithm of the share of a standard normal distribution above `x`."""
    if x < 8.0:
        return math.log10(0.5 * math.erfc(x / math.sqrt(2.0)))
    # the continued fraction of Mills' ratio, cut where it is good to 1e-4
    ratio = 1.0 / (x + 1.0 / (x + 2.0 / (x + 3.0 / x)))
    return (-0.5 * x * x - 0.5 * math.log(2.0 * math.pi) + math.log(ratio)) / math.log(10.0)


def _normal_quantile(log10_share: float) -> float:
    """Where that share of a standard normal distribution lies above."""
    return NormalDist().inv_cdf(1.0 - 10.0**log10_share)
