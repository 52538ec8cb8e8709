"""Unrelated audio: what agreement with a query comes about by chance.

Hashes are correlated over bits, over time and between pieces of the same kind, and how much differs from query to
query: a drone resembles many things, a busy bar few. So each query is held against *background* hashes that come with
the model, runs of recordings that have nothing to do with it. The rows of a stretch are laid over every place of every
run in the order in which they would meet a track, so that loops and drones, whose rows agree or differ together, show
in the sums. What counts of these is their upper end, where a false match would come from: the spread that is given is
that of the normal distribution whose top thousandth lies as high.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import unpack
from samaf.products import product

HOP_S = 0.5
"""Seconds from row to row of a run."""
RUN_ROWS = 47
"""Rows of a run: 24 s."""
TOP_SHARE = 0.001
"""The upper end. With a tenth of it, music of 1 s is told from chance less well; with ten times, speech is."""
TOP_MEAN = 3.3671
"""Mean of the top thousandth of a standard normal distribution."""
BLOCK_ROWS = 12
"""Longest stretch of rows that is laid over the runs as a whole; longer ones are sums of such blocks."""
BLOCKS = 4
"""Blocks of a long stretch that are looked at; the others are like them."""
_SAMPLE_ROWS = 1024
"""Background rows that a single row is compared with: its mean and spread need no more."""

_ROWS_AT_ONCE = 256

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Background:
    """Background hashes of a model at one length and one hop of the stored hashes.

    Parameters
    ----------
    runs : uint64 (runs, rows, words)
        Rows :data:`HOP_S` apart.
    bits
        Code length.
    hop_s
        Seconds between the stored rows that a query will meet.
    """

    def __init__(self, runs: NDArray[np.uint64], bits: int, hop_s: float) -> None:
        runs = runs[:, :: max(1, round(hop_s / HOP_S)), : bits // 64]
        self.n_runs, self.length = runs.shape[:2]
        words = np.ascontiguousarray(runs, np.uint64).reshape(self.n_runs * self.length, -1)
        signs = np.where(unpack(words, bits), np.float32(1), np.float32(-1)).T
        self.signs = np.ascontiguousarray(signs)  # (bits, runs * rows): products of few rows are fastest so
        self._sample = np.ascontiguousarray(signs[:, :: max(1, signs.shape[1] // _SAMPLE_ROWS)])
        # rows closer than the background's own are so alike that they count as one
        self._thin = max(1, round(HOP_S / hop_s))

    def of_rows(self, signed: Float32) -> tuple[Float32, Float32]:
        """Mean and standard deviation of each row's agreement by itself, (m,) each, of weights (m, bits)."""
        mean, spread = np.empty(len(signed), np.float32), np.empty(len(signed), np.float32)
        for a in range(0, len(signed), _ROWS_AT_ONCE):
            agreement = product(signed[a : a + _ROWS_AT_ONCE], self._sample)
            mean[a : a + _ROWS_AT_ONCE] = agreement.mean(axis=1)
            spread[a : a + _ROWS_AT_ONCE] = agreement.std(axis=1)
        return mean, np.maximum(spread, np.float32(1e-6))

    def of_stretch(self, signed: Float32) -> tuple[float, float]:
        """Mean of a stretch's agreement, and its spread as its upper end shows it.

        Parameters
        ----------
        signed
            Weights of the stretch's rows in order, float32 (k, bits).
        """
        rows = signed[:: self._thin]
        block = max(1, min(BLOCK_ROWS, self.length))
        blocks = [rows[a : a + block] for a in range(0, len(rows), block)]
        seen = [blocks[k] for k in np.unique(np.linspace(0, len(blocks) - 1, BLOCKS).astype(int))]
        measured = np.array([self._of_block(part) for part in seen])
        # blocks are taken as independent, so that of long stretches the tail comes nearer to the normal one
        mean, variance, excess = measured.sum(axis=0) / len(seen) * len(blocks)
        scale = len(signed) / len(rows)
        spread = np.sqrt(variance) * (1.0 + excess / len(blocks) / np.sqrt(len(blocks)))
        return float(mean * scale), float(max(spread * scale, 1e-6))

    def _of_block(self, rows: Float32) -> tuple[float, float, float]:
        """(mean, variance, how much wider the upper end is than normal) of rows that are laid over the runs."""
        agreement = product(rows, self.signs).reshape(len(rows), self.n_runs, self.length)
        places = self.length - len(rows) + 1
        total = np.zeros((self.n_runs, places), np.float32)
        for k in range(len(rows)):
            total += agreement[k, :, k : k + places]
        mean, variance = float(total.mean()), float(total.var())
        n = max(1, round(TOP_SHARE * total.size))
        top = float(np.partition(total.ravel(), -n)[-n:].mean())
        return mean, variance, (top - mean) / TOP_MEAN / max(variance**0.5, 1e-6) - 1.0
