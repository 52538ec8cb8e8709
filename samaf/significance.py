"""The null model: how good an alignment is by chance alone.

An alignment's evidence is the confidence-weighted agreement ``T`` of its rows: each bit counts with half the log-odds
that it is right, plus where query and reference agree, minus where they differ. Unrelated audio gives a ``T`` too,
with a mean and spread that depend on the query: hashes are correlated over bits, over time and between
pieces of the same kind. So each query is held against *background* hashes that come with the model: ``z`` is the
distance of ``T`` from the background's mean in units of its spread.

What is left, the shape of the tail, was measured when the model was calibrated: the share of unrelated alignments that
reach each ``z``, for each number of rows. Past the last measured point, its logarithm goes on in a straight line, which
overstates chance rather than understate it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samaf.errors import ModelError
from samaf.hamming import unpack
from samaf.weights import Weights

BACKGROUND_HOP_S = 0.5
"""Seconds from row to row of a background run."""
MAX_WEIGHT = 3.0
"""Half log-odds of a bit never exceed this: no bit is surer than 99.8 %."""
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
        flat = self.background.reshape(runs * length, self.bits)
        for start in range(0, len(signed), BLOCK_ROWS):
            block = signed[start : start + BLOCK_ROWS]
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
        return self.tail.log10_chance((agreement - mean) / spread, len(signed))


def bit_weight(confidence: Float32, intercept: float, slope: float) -> Float32:
    """Half the log-odds that a bit of this confidence is right, float32 of the same shape."""
    weight = np.multiply(confidence, np.float32(slope / 2), dtype=np.float32)
    weight += np.float32(intercept / 2)
    return np.clip(weight, 0.0, MAX_WEIGHT, out=weight)


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
            slope = (self.levels[-1] - self.levels[-3]) / max(knots[-1] - knots[-3], 1e-3)
            return float(self.levels[-1] + slope * (z - knots[-1]))
        if z <= knots[0]:  # towards 1 at 8 spreads under the first knot
            return float(np.interp(z, [knots[0] - 8.0, knots[0]], [0.0, self.levels[0]]))
        return float(np.interp(z, knots, self.levels))
