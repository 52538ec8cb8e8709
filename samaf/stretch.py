"""The stretch of a line along which a query and a track are the same recording, and how a line is followed to its ends.

Each aligned row has a log-likelihood ratio: how likely its agreement is if it is the same recording, against how likely
in unrelated audio. The stretch is the maximal segment of these: the one whose sum is largest (Karlin and Altschul
1990).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samaf.alignment import DRIFT_S, Float64, Int64, Line, Lines, refine, shifts_for
from samaf.hamming import distance, frozen, kernel
from samaf.query import Float32, Query, Words

HARD = 0.5
"""Share of the expected agreement that a row has left where it is hard to hear. Of the right stretches of 5 s (``dev``)
99 in a hundred have 0.68 or more as a whole; with 0.8 a row, no more are found."""
_SHIFT_S = 0.2
"""How far a line may be off where it is followed beyond what is known of it."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """What agrees along a line.

    Attributes
    ----------
    line : Line
    query_i, rows : int64 (k,)
        Rows of the query and of the segment that meet, those without content left out.
    agreement : float64 (k,)
        Of each pair.
    llr : float
        Sum of the rows' log-likelihood ratios, in nats.
    ber : float
        Bit error rate, rows weighted by their known shares.
    wrong_bits : int
        How many bits differ.
    """

    line: Line
    query_i: Int64
    rows: Int64
    agreement: Float64
    llr: float
    ber: float
    wrong_bits: int

    def runs_along(self, line: Line, part: slice, query: Query, apart: float) -> bool:
        """Whether this stretch covers a part of the query on the same line."""
        middle = (part.start + part.stop) / 2
        return (
            self.line.first == line.first
            and self.query_i[0] <= part.start + query.ratio
            and self.query_i[-1] >= part.stop - 2 * query.ratio
            and abs(self.line.at(middle) - line.at(middle)) <= apart
        )


def agreement(signed: Float32, stored: Words) -> Float64:
    """Agreement of aligned rows, (k,): weights (k, bits) and stored hashes (k, w)."""
    out = np.empty(len(signed), np.float64)
    _agreement(frozen(signed), frozen(stored), out)
    return out


@kernel
def _agreement(signed, stored, out):  # type: ignore[no-untyped-def]
    for i in range(signed.shape[0]):
        total = 0.0
        for w in range(signed.shape[1] // 64):
            word = stored[i, w]
            for k in range(64):
                weight = np.float64(signed[i, 64 * w + k])
                total += weight if (word >> np.uint64(k)) & np.uint64(1) else -weight
        out[i] = total


def row_llr(agreement: Float64, expected: Float32, mean: Float32, spread: Float32) -> Float64:
    """Log-likelihood ratio of each row in nats.

    Agreement is taken as normal, with the mean that unrelated audio has or that the same recording has where it is
    hard to hear (half of what is expected), and the spread of unrelated audio in both.
    """
    same = np.maximum(HARD * expected, mean + spread)
    return np.asarray((same - mean) / spread**2 * (agreement - (same + mean) / 2), np.float64)


def best_stretch(line: Line, query: Query, hashes: Words) -> Stretch | None:
    """The maximal segment of a line; None where no row has content."""
    query_i, rows = line.rows(query)
    stored = hashes[rows]
    real = query.valid[query_i] & stored.any(axis=1)
    query_i, rows, stored = query_i[real], rows[real], stored[real]
    if not len(rows):
        return None
    agreed = agreement(query.weights(query_i), stored)
    llr = row_llr(agreed, query.expected[query_i], query.mean[query_i], query.spread[query_i])
    part = maximal_segment(llr)
    query_i, rows = query_i[part], rows[part]
    known = query.known[query_i]
    errors = distance(query.hashes[query_i], stored[part])
    ber = float(np.sum(known * errors) / np.sum(known)) / query.bits
    return Stretch(line, query_i, rows, agreed[part], float(llr[part].sum()), ber, int(errors.sum()))


def maximal_segment(values: Float64) -> slice:
    """The segment whose sum is largest; of single values, the largest, where none is above 0.

    Examples
    --------
    >>> maximal_segment(np.array([-1.0, 2.0, -1.0, 3.0, -4.0, 1.0]))
    slice(1, 4, None)
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    gain = total[1:] - np.minimum.accumulate(total[:-1])
    last = int(gain.argmax())
    return slice(int(total[: last + 1].argmin()), last + 1)


def grow(line: Line, query: Query, part: slice, hashes: Words) -> Line:
    """Follow a line from a part of the query over the rest, its slope the finer the further it holds.

    Parameters
    ----------
    line
        In places of the whole query.
    part
        The rows along which it was found.
    hashes
        Of the segment.
    """
    low, high = part.start, part.stop
    around = round(1 / query.hop_s)  # a few rows more than the track is met by, for what the line may turn
    first = max(0, int(-line.offset / line.slope) - around)
    end = query.ratio * (line.last - line.first) - line.offset
    stop = min(len(query), int(end / line.slope) + around)
    while low > first or high < stop:
        span = high - low
        new_low, new_high = max(first, low - span), min(stop, high + span)
        wider = query.slice(slice(new_low, new_high))
        moved = line.from_row(new_low)
        turns = DRIFT_S / max(len(wider) * query.hop_s, 1e-9) * np.arange(-4.0, 5.0)
        best = refine(Lines.of(moved), hashes, wider, shifts=shifts_for(_SHIFT_S, query), turns=turns)
        if len(best):
            moved = best.line(0)
        line = Line(line.first, line.last, moved.at(-new_low), moved.slope, line.score)
        found = best_stretch(line, query, hashes)
        low, high = new_low, new_high
        if found is None or (
            found.query_i[0] > new_low + query.ratio and found.query_i[-1] < new_high - query.ratio
        ):
            break
    return line
