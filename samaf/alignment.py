"""Alignments of a query with a track, and the kernels that find the best ones.

A *line* says which query row meets which reference row. Query rows are `hop` seconds apart, reference rows ``ratio``
hops; the track plays `slope` reference seconds per query second, and the query's row 0 lies `offset` hops after the
track's row 0 (before it, if negative). So reference row r meets query row ``round((ratio r - offset) / slope)``.

A clip at another tempo drifts from the line of slope 1 by up to ``|slope - 1|`` times half its length. Hashes bear
some 60 ms of misplacement; hence the slopes that are tried lie closer the longer the query is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import distance_matrix, frozen, kernel

MAX_STRETCH = 0.12
"""Slopes from 1 - this to 1 + this are tried."""
DRIFT_S = 0.12
"""Two neighbouring slopes part by this much at a query's ends, so that each end is within half of it."""

_BLOCK = 8192
"""Reference rows whose distances are held at once."""

Float32 = NDArray[np.float32]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Line:
    """One alignment with the track at rows ``first : last`` of a segment.

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

    def rows(self, n_query: int, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(query rows, rows of the segment) that meet, in order."""
        low = max(0, int(np.ceil(self.offset / ratio - 1e-9)))
        high = min(self.last - self.first - 1, int(np.floor(self.at(n_query - 1) / ratio + 1e-9)))
        track_i = np.arange(low, high + 1)
        query_i = np.rint((ratio * track_i - self.offset) / self.slope).astype(np.int64)
        inside = (query_i >= 0) & (query_i < n_query)
        return query_i[inside], track_i[inside] + self.first


def slopes_for(n_query: int, hop_s: float) -> NDArray[np.float64]:
    """Slopes to try for a query of so many rows, 1 first."""
    step = 2.0 * DRIFT_S / max(n_query * hop_s, 1e-9)
    n = int(MAX_STRETCH / step + 0.5)
    steps = step * np.arange(1, n + 1)
    return np.concatenate([[1.0], 1.0 - steps, 1.0 + steps])


def weight_table(signed: Float32) -> Float32:
    """Agreement of each query row with each value of each four bits, float32 (m, bits / 4, 16)."""
    m, bits = signed.shape
    value = np.arange(16)
    signs = np.where((value[:, None] >> np.arange(4)) & 1, 1.0, -1.0).astype(np.float32)
    return np.ascontiguousarray(signed.reshape(m, bits // 4, 4) @ signs.T)


@kernel
def _best_lines(distances, lines, counts, half, scale, best, which):  # type: ignore[no-untyped-def]
    """For each start column, the best of all lines: how far its distances' sum lies under what chance gives."""
    n = best.shape[0]
    total = np.empty(n, np.int32)
    for line in range(lines.shape[0]):
        total[:] = 0
        for k in range(counts[line]):
            row = distances[lines[line, k], k : k + n]
            for c in range(n):
                total[c] += row[c]
        expected = np.float32(counts[line] * half)
        factor = scale[line]
        for c in range(n):
            score = (expected - np.float32(total[c])) * factor
            better = score > best[c]
            best[c] = score if better else best[c]
            which[c] = line if better else which[c]


@kernel
def _agreement(table, norm, hashes, first, last, offset, slope, ratio):  # type: ignore[no-untyped-def]
    """Sum of a line's weighted agreement over what that of random bits would spread, less for slopes far from 1.

    A slope other than 1 is rare, and may let a line meet one row more than the true one does.
    """
    m = table.shape[0]
    low = max(0, int(np.ceil(offset / ratio - 1e-9)))
    high = min(last - first - 1, int(np.floor((offset + slope * (m - 1)) / ratio + 1e-9)))
    total = np.float32(0.0)
    power = np.float32(0.0)
    for r in range(low, high + 1):
        i = int(np.rint((ratio * r - offset) / slope))
        if i < 0 or i >= m:
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
    if power <= 0:
        return np.float32(-1e9)
    return total / np.sqrt(power) * np.float32(1.0 - abs(slope - 1.0))


@kernel
def _refine(table, norm, hashes, first, last, offset, slope, ratio, shifts, turns, out):  # type: ignore[no-untyped-def]
    """Best of the neighbours of each line: shifted by hops, turned about the query's middle by slopes."""
    middle = 0.5 * (table.shape[0] - 1)
    for j in range(offset.shape[0]):
        out[j, 0] = -1e9
        for turn in turns:
            new_slope = slope[j] + turn
            turned = offset[j] - turn * middle
            for shift in shifts:
                score = _agreement(table, norm, hashes, first[j], last[j], turned + shift, new_slope, ratio)
                if score > out[j, 0]:
                    out[j, 0], out[j, 1], out[j, 2] = score, turned + shift, new_slope


def refine(
    lines: list[Line],
    hashes: Words,
    signed: Float32,
    ratio: float,
    *,
    shifts: NDArray[np.float64],
    turns: NDArray[np.float64],
) -> list[Line]:
    """Move each line to its best neighbour by confidence-weighted agreement, best line first.

    Parameters
    ----------
    hashes
        Of the segment.
    signed
        float32 (m, bits): see :meth:`samaf.significance.NullModel.weigh`.
    shifts, turns
        Offsets in hops and slopes to add; 0 should be among each.
    """
    if not lines:
        return []
    table = weight_table(signed)
    norm = np.einsum("mb,mb->m", signed, signed)
    out = np.empty((len(lines), 3))
    _refine(
        frozen(table),
        frozen(norm),
        frozen(hashes),
        np.array([line.first for line in lines]),
        np.array([line.last for line in lines]),
        np.array([line.offset for line in lines]),
        np.array([line.slope for line in lines]),
        float(ratio),
        shifts,
        turns,
        out,
    )
    moved = [
        Line(line.first, line.last, float(offset), float(slope), float(score))
        for line, (score, offset, slope) in zip(lines, out, strict=True)
        if score > -1e8
    ]
    return sorted(moved, key=lambda line: -line.score)


def scan(
    hashes: Words,
    starts: NDArray[np.int64],
    query: Words,
    valid: NDArray[np.bool_],
    ratio: float,
    slopes: NDArray[np.float64],
    count: int,
    *,
    most: int,
    is_live: NDArray[np.bool_] | None = None,
) -> list[Line]:
    """The `count` best lines over every position of a segment, by hard bits alone.

    Parameters
    ----------
    hashes
        Of the segment, (n, w).
    starts
        Rows at which its tracks start, and the number of rows.
    query, valid
        (m, w), (m,).
    ratio
        Query hops per reference row.
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
    half = 32 * query.shape[1]
    phases = min(m, int(np.ceil(ratio)))
    members = [
        np.rint(phase + ratio * np.arange(m) / slope).astype(np.int32)
        for slope in slopes
        for phase in range(phases)
    ]
    members = [line[line < m] for line in members]
    width = max(map(len, members))
    lines = np.zeros((len(members), width), np.int32)
    for place, member in zip(lines, members, strict=True):
        place[: len(member)] = member
    counts = np.array([len(member) for member in members], np.int32)
    rarity = 1.0 - np.abs(np.repeat(slopes, phases) - 1.0)
    scale = (rarity / np.sqrt(np.maximum(1, counts) * half / 2.0)).astype(np.float32)
    filled = np.asarray(hashes.any(axis=1))
    if is_live is not None:
        filled &= np.repeat(is_live, np.diff(starts))
    best = np.full(n + width - 1, -np.inf, np.float32)  # start s is reference row s - (width - 1)
    which = np.zeros(len(best), np.int32)
    for a in range(0, len(best), _BLOCK):
        b = min(a + _BLOCK, len(best))
        distances = np.full((m, b - a + width - 1), half, np.uint16)
        low, high = max(0, a - width + 1), min(n, b)
        at = low - (a - width + 1)
        part = distance_matrix(query, hashes[low:high])
        distances[:, at : at + high - low] = np.where(filled[low:high], part, half)
        distances[~valid] = half
        _best_lines(
            frozen(distances), frozen(lines), frozen(counts), half, frozen(scale), best[a:b], which[a:b]
        )
    top = np.argpartition(-best, min(count, len(best)) - 1)[:count]
    top = top[np.argsort(-best[top], kind="stable")]
    found: list[Line] = []
    of_track: dict[int, int] = {}
    dropped = 0

    def add(places: NDArray[np.int64]) -> None:
        nonlocal dropped
        rows = places - (width - 1)
        ends = np.minimum(rows + counts[which[places]], n) - 1
        # a line over a border concerns both tracks
        low_track = np.searchsorted(starts, np.maximum(rows, 0), side="right") - 1
        high_track = np.searchsorted(starts, ends, side="right") - 1
        columns = (rows, which[places], best[places], low_track, high_track)
        for row, line, score, low, high in zip(*(c.tolist() for c in columns), strict=True):
            slope, phase = float(slopes[line // phases]), line % phases
            for k in range(low, high + 1):
                if is_live is not None and not is_live[k]:
                    continue
                of_track[k] = of_track.get(k, 0) + 1
                if of_track[k] > most:
                    dropped += 1
                    continue
                offset = ratio * (row - int(starts[k])) - slope * phase
                found.append(Line(int(starts[k]), int(starts[k + 1]), offset, slope, score))

    add(top)
    if dropped:  # the places go to the best lines of the tracks that have none yet
        others = [
            start
            for k, start in enumerate(_best_of_tracks(best, starts, width))
            if start >= 0 and k not in of_track
        ]
        add(np.array(sorted(others, key=lambda start: -best[start])[:dropped], np.int64))
    return found


def _best_of_tracks(best: Float32, starts: NDArray[np.int64], width: int) -> list[int]:
    """Where each track's best line starts, -1 for a track without hashes; a line is that of the track of its middle."""
    middle = np.clip(np.arange(len(best)) - (width - 1) + width // 2, 0, starts[-1] - 1)
    track = np.searchsorted(starts, middle, side="right") - 1
    order = np.lexsort((-best, track))
    places = np.full(len(starts) - 1, -1, np.int64)
    firsts = order[first_of_each(track[order], 1)]
    places[track[firsts]] = firsts
    return places.tolist()


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
