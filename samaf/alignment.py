"""Alignments of a query with a track: finding the best lines, moving and growing them, and the stretch that agrees.

A *line* says which query row meets which stored row. Query rows are `hop` seconds apart, stored rows ``ratio``
hops; the track plays `slope` reference seconds per query second, and the query's row 0 lies `offset` hops after the
track's row 0 (before it, if negative). So stored row r meets query row ``round((ratio r - offset) / slope)``.

A clip at another tempo drifts from the line of slope 1 by up to ``|slope - 1|`` times half its length. Hashes bear
some 60 ms of misplacement; hence the slopes that are tried lie closer the longer the query is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import frozen, kernel, popcount
from samaf.query import Query, Words

MAX_STRETCH = 0.12
"""Slopes from 1 - this to 1 + this are tried."""
DRIFT_S = 0.12
"""Two neighbouring slopes part by this much at a query's ends, so that each end is within half of it."""
APART_S = 0.5
"""Lines of one track that lie no further apart are one."""

_BLOCK = 8192
"""Stored rows whose distances are held at once."""
_FULL = 8
"""Weight of a row that is known whole, where rows count by whole numbers."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """One line through the track at rows ``first : last`` of a segment.

    Attributes
    ----------
    first, last : int
        Rows of the track in the segment.
    offset : float
        Place of the query's row 0 in the track, in query hops.
    slope : float
        Reference seconds per query second.
    score : float
        Evidence, in units that only rank lines of one query.
    """

    first: int
    last: int
    offset: float
    slope: float
    score: float

    def at(self, query_i: float) -> float:
        """Place in the track of a query row, in query hops."""
        return self.offset + self.slope * query_i

    def rows(self, query: Query) -> tuple[Int64, Int64]:
        """(query rows, rows of the segment) that meet, in order."""
        low = max(0, int(np.ceil(self.offset / query.ratio - 1e-9)))
        high = min(self.last - self.first - 1, int(np.floor(self.at(len(query) - 1) / query.ratio + 1e-9)))
        track_i = np.arange(low, high + 1)
        query_i = np.rint((query.ratio * track_i - self.offset) / self.slope).astype(np.int64)
        inside = (query_i >= 0) & (query_i < len(query))
        return query_i[inside], track_i[inside] + self.first

    def from_row(self, query_i: float) -> Line:
        """The same line for a query that begins at that row of this one."""
        return replace(self, offset=self.at(query_i))


@dataclass(frozen=True, eq=False)
class Lines:
    """Many lines, an array (k,) for each attribute of :class:`Line`."""

    first: Int64
    last: Int64
    offset: Float64
    slope: Float64
    score: Float64

    @classmethod
    def of(cls, line: Line) -> Lines:
        """One line."""
        return cls(
            np.array([line.first]),
            np.array([line.last]),
            np.array([line.offset]),
            np.array([line.slope]),
            np.array([line.score]),
        )

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: NDArray[Any] | slice) -> Lines:
        """Some of the lines."""
        return Lines(
            self.first[which], self.last[which], self.offset[which], self.slope[which], self.score[which]
        )

    def joined(self, more: Lines) -> Lines:
        """These lines, then more."""
        return Lines(
            np.concatenate([self.first, more.first]),
            np.concatenate([self.last, more.last]),
            np.concatenate([self.offset, more.offset]),
            np.concatenate([self.slope, more.slope]),
            np.concatenate([self.score, more.score]),
        )

    def ordered(self) -> Lines:
        """The best line first."""
        return self.take(np.argsort(-self.score, kind="stable"))

    def line(self, k: int) -> Line:
        """One of the lines."""
        return Line(
            int(self.first[k]),
            int(self.last[k]),
            float(self.offset[k]),
            float(self.slope[k]),
            float(self.score[k]),
        )


def slopes_for(query: Query) -> Float64:
    """Slopes to try for a query of that length, 1 first."""
    step = 2.0 * DRIFT_S / max(float(query.known.sum()) * query.hop_s, 1e-9)
    n = int(MAX_STRETCH / step + 0.5) if step <= MAX_STRETCH else 0
    steps = step * np.arange(1, n + 1)
    return np.concatenate([[1.0], 1.0 - steps, 1.0 + steps])


def shifts_for(reach_s: float, query: Query) -> Float64:
    """Offsets to try, in query hops: nine at most, to about `reach_s` each way."""
    reach = reach_s / query.hop_s
    steps = min(round(reach), 4)
    return np.linspace(-reach, reach, 2 * steps + 1) if steps else np.zeros(1)


# -- finding -----------------------------------------------------------------------------------------------------------


@kernel
def _agreements(query, share, hashes, out):  # type: ignore[no-untyped-def]
    """Bits in which each query row agrees with each stored one beyond half of them, times the row's share.

    Stored rows without content agree and differ in nothing.
    """
    n, words = hashes.shape
    half = 32 * words
    for i in range(query.shape[0]):
        row = out[i]
        weight = share[i]
        if words == 2:
            a, b = query[i, 0], query[i, 1]
            for j in range(n):
                errors = np.int32(popcount(a ^ hashes[j, 0]) + popcount(b ^ hashes[j, 1]))
                row[j] = (half - errors) * weight
        else:
            for j in range(n):
                errors = np.int32(0)
                for k in range(words):
                    errors += np.int32(popcount(query[i, k] ^ hashes[j, k]))
                row[j] = (half - errors) * weight
    for j in range(n):
        empty = True
        for k in range(words):
            if hashes[j, k]:
                empty = False
        if empty:
            for i in range(query.shape[0]):
                out[i, j] = 0


@kernel
def _best_lines(agreement, lines, counts, scale, best, which):  # type: ignore[no-untyped-def]
    """For each start column, the best of all lines: the sum of its rows' agreement, in units of what chance spreads."""
    n = best.shape[0]
    total = np.empty(n, np.int32)
    for line in range(lines.shape[0]):
        total[:] = 0
        for k in range(counts[line]):
            row = agreement[lines[line, k], k : k + n]
            for c in range(n):
                total[c] += row[c]
        factor = scale[line]
        for c in range(n):
            score = np.float32(total[c]) * factor
            better = score > best[c]
            best[c] = score if better else best[c]
            which[c] = line if better else which[c]


def scan(
    hashes: Words,
    starts: Int64,
    query: Query,
    slopes: Float64,
    count: int,
    *,
    most: int,
    is_live: NDArray[np.bool_] | None = None,
) -> Lines:
    """The best lines over every position of a segment, by hard bits alone; rows count by their known shares.

    Parameters
    ----------
    hashes
        Of the segment, (n, w).
    starts
        Rows at which its tracks start, and the number of rows.
    slopes
        To try.
    count
        How many lines.
    most
        Of these, how many of one track.
    is_live
        bool (t,): tracks that count; default all.
    """
    m, n = len(query), len(hashes)
    half = query.bits // 2
    share = np.where(query.valid, np.maximum(1, np.rint(_FULL * query.known)), 0).astype(np.int16)
    phases = min(m, int(np.ceil(query.ratio)))
    members = [
        np.rint(phase + query.ratio * np.arange(m) / slope).astype(np.int32)
        for slope in slopes
        for phase in range(phases)
    ]
    members = [line[line < m] for line in members]
    width = max(map(len, members))
    lines = np.zeros((len(members), width), np.int32)
    power = np.empty(len(members))
    for k, member in enumerate(members):
        lines[k, : len(member)] = member
        power[k] = np.sum(share[member].astype(np.float64) ** 2)
    counts = np.array([len(member) for member in members], np.int32)
    rarity = 1.0 - np.abs(np.repeat(slopes, phases) - 1.0)
    scale = (rarity / np.sqrt(np.maximum(power, 1.0) * half / 2.0)).astype(np.float32)
    filled = None if is_live is None else np.repeat(is_live, np.diff(starts))
    best = np.full(n + width - 1, -np.inf, np.float32)  # start s is stored row s - (width - 1)
    which = np.zeros(len(best), np.int32)
    for a in range(0, len(best), _BLOCK):
        b = min(a + _BLOCK, len(best))
        agreement = np.zeros((m, b - a + width - 1), np.int16)
        low, high = max(0, a - width + 1), min(n, b)
        at = low - (a - width + 1)
        part = agreement[:, at : at + high - low]
        _agreements(frozen(query.hashes), frozen(share), frozen(hashes[low:high]), part)
        if filled is not None:
            part *= filled[low:high]
        _best_lines(frozen(agreement), frozen(lines), frozen(counts), frozen(scale), best[a:b], which[a:b])
    top = np.argpartition(-best, min(count, len(best)) - 1)[:count]
    top = top[np.argsort(-best[top], kind="stable")]

    def lines_at(places: Int64) -> tuple[Int64, Lines]:
        """(tracks, lines) of start places; one over a border concerns both tracks."""
        rows = places - (width - 1)
        ends = np.minimum(rows + counts[which[places]], n) - 1
        low = np.searchsorted(starts, np.maximum(rows, 0), side="right") - 1
        high = np.searchsorted(starts, ends, side="right") - 1
        times = high - low + 1
        place = np.repeat(places, times)
        track = np.arange(len(place)) - np.repeat(np.cumsum(times) - times, times) + np.repeat(low, times)
        slope = slopes[which[place] // phases]
        offset = query.ratio * (place - (width - 1) - starts[track]) - slope * (which[place] % phases)
        return track, Lines(starts[track], starts[track + 1], offset, slope, best[place].astype(np.float64))

    tracks, found = lines_at(top)
    if is_live is not None:
        live = is_live[tracks]
        tracks, found = tracks[live], found.take(live)
    kept = first_of_each(tracks, most)
    if kept.all():
        return found
    others = _best_of_tracks(best, starts, width)
    others[tracks] = -1
    if is_live is not None:
        others[~is_live] = -1
    others = others[others >= 0]  # the places go to the best lines of the tracks that have none yet
    others = others[np.argsort(-best[others], kind="stable")][: int((~kept).sum())]
    _, more = lines_at(others)
    return found.take(kept).joined(more)


def _best_of_tracks(best: Float32, starts: Int64, width: int) -> Int64:
    """Where each track's best line starts, -1 for a track without hashes; a line is that of the track of its middle."""
    middle = np.clip(np.arange(len(best)) - (width - 1) + width // 2, 0, starts[-1] - 1)
    track = np.searchsorted(starts, middle, side="right") - 1
    order = np.lexsort((-best, track))
    places = np.full(len(starts) - 1, -1, np.int64)
    firsts = order[first_of_each(track[order], 1)]
    places[track[firsts]] = firsts
    return places


def vote(
    query: Query,
    starts: Int64,
    query_i: NDArray[Any],
    rows: Int64,
    distance: NDArray[Any],
    count: int,
    most: int,
) -> Lines:
    """Lines of slope 1 that most hits lie on.

    Parameters
    ----------
    starts
        Rows at which the segment's tracks start, and the number of rows.
    query_i, rows, distance
        Query row, stored row and distance in bits of each hit, (k,).
    count, most
        How many lines, and of these how many of one track.
    """
    k = np.searchsorted(starts, rows, side="right") - 1
    offset = query.ratio * (rows - starts[k]) - query_i
    bins = np.floor(offset / (APART_S / query.hop_s)).astype(np.int64)
    weight = query.known[query_i] * (query.bits / 2 - distance)
    low = int(bins.min())
    span = int(bins.max()) - low + 2
    keys, place = np.unique(k * span + bins - low, return_inverse=True)
    votes = np.bincount(place, weight)
    centre = np.bincount(place, weight * offset) / votes
    order = np.argsort(-votes, kind="stable")
    top = order[first_of_each(keys[order] // span, most)][:count]
    tracks = keys[top] // span
    return Lines(
        starts[tracks],
        starts[tracks + 1],
        np.rint(centre[top]),
        np.ones(len(top)),
        votes[top].astype(np.float64),
    )


def first_of_each(keys: NDArray[Any], most: int) -> NDArray[np.bool_]:
    """Mark the first `most` places of each key.

    Examples
    --------
    >>> first_of_each(np.array([7, 7, 3, 7]), 2)
    array([ True,  True,  True, False])
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([begins, [len(keys)]]))
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys)) - np.repeat(begins, lengths)
    return rank < most


# -- moving ------------------------------------------------------------------------------------------------------------


@kernel
def _agreement(table, norm, at, m, hashes, first, last, offset, slope, ratio):  # type: ignore[no-untyped-def]
    """(sum of a line's weighted agreement, square of what that of random bits spreads) in a part of a query of m rows.

    The part begins at row `at` of the query.
    """
    end = at + table.shape[0]
    low = max(0, int(np.ceil((offset + slope * max(0, at - 1)) / ratio - 1e-9)))
    high = min(last - first - 1, int(np.floor((offset + slope * min(end, m - 1)) / ratio + 1e-9)))
    total = np.float32(0.0)
    power = np.float32(0.0)
    for r in range(low, high + 1):
        i = int(np.rint((ratio * r - offset) / slope)) - at
        if i < 0 or i >= table.shape[0]:
            continue
        row = first + r
        empty = True
        for w in range(hashes.shape[1]):
            word = hashes[row, w]
            if word:
                empty = False
            for k in range(16):
                total += table[i, 16 * w + k, int((word >> np.uint64(4 * k)) & np.uint64(15))]
        if empty:
            for k in range(table.shape[1]):
                total -= table[i, k, 0]
        else:
            power += norm[i]
    return total, power


@kernel
def _add_neighbours(table, norm, at, m, hashes, first, last, offset, slope, ratio, shifts, turns, out):  # type: ignore[no-untyped-def]
    """Add what the neighbours of each line agree in a part of a query: shifted by hops, turned by slopes.

    They are turned about the query's middle.
    """
    middle = 0.5 * (m - 1)
    for j in range(offset.shape[0]):
        for t in range(turns.shape[0]):
            new_slope = slope[j] + turns[t]
            turned = offset[j] - turns[t] * middle
            for s in range(shifts.shape[0]):
                total, power = _agreement(
                    table, norm, at, m, hashes, first[j], last[j], turned + shifts[s], new_slope, ratio
                )
                out[j, t, s, 0] += total
                out[j, t, s, 1] += power


def refine(lines: Lines, hashes: Words, query: Query, *, shifts: Float64, turns: Float64) -> Lines:
    """Move each line to its best neighbour by weighted agreement, best line first.

    Parameters
    ----------
    hashes
        Of the segment.
    shifts, turns
        Offsets in hops and slopes to add; 0 should be among each.
    """
    summed = np.zeros((len(lines), len(turns), len(shifts), 2), np.float32)
    for at, page in query.pages():
        _add_neighbours(
            frozen(page.table),
            frozen(page.power),
            at,
            len(query),
            frozen(hashes),
            frozen(lines.first),
            frozen(lines.last),
            frozen(lines.offset),
            frozen(lines.slope),
            float(query.ratio),
            shifts,
            turns,
            summed,
        )
    agreement, power = summed[..., 0], summed[..., 1]
    slope = lines.slope[:, None] + turns
    # a slope other than 1 is rare, and may let a line meet one row more than the true one does
    scores = agreement / np.sqrt(np.maximum(power, 1e-9)) * (1.0 - np.abs(slope - 1.0))[:, :, None]
    scores[power <= 0] = -np.inf
    scores = scores.reshape(len(lines), len(turns) * len(shifts))
    best = scores.argmax(axis=1)
    turn, shift = np.unravel_index(best, (len(turns), len(shifts)))
    score = scores[np.arange(len(lines)), best]
    offset = lines.offset - turns[turn] * (0.5 * (len(query) - 1)) + shifts[shift]
    slope = lines.slope + turns[turn]
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > -np.inf]
    return Lines(lines.first[order], lines.last[order], offset[order], slope[order], score[order])


def distinct(lines: Lines, query: Query, count: int, most: int) -> list[Line]:
    """The first `count` lines that do not run beside one of the same track before them, `most` of each track."""
    kept: list[Line] = []
    of_track: dict[int, list[float]] = {}
    at = lines.offset + lines.slope * (len(query) / 2)
    for k, (first, middle) in enumerate(zip(lines.first.tolist(), at.tolist(), strict=True)):
        others = of_track.setdefault(first, [])
        if len(others) < most and all(abs(middle - other) > APART_S / query.hop_s for other in others):
            others.append(middle)
            kept.append(lines.line(k))
            if len(kept) == count:
                break
    return kept
