"""Candidates of a query: stored hashes that share a band with it, or nearly so, and lie close in full.

A query hash looks into one bucket per band and probe: first the bucket of its own value, then those of the
values with its least confident bits flipped, in the order in which such errors are likely. The full distance
of each posting is computed at once, so that only rows within `max_distance` leave this room.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import distance_matrix, frozen, kernel, popcount
from samaf.index.segment import Segment, band_value

# Of all bits: a single hash this far off is met by chance 2.6 times in 10,000 (128 bits).
DEFAULT_CUT = 0.35

_SCAN_QUERIES, _SCAN_ROWS = (
    128,
    1 << 12,
)  # one block of distances: 512 KiB, which stay in the second-level cache
_CHUNK = 64  # distances passed over at once where none is near


class Candidates(NamedTuple):
    """Pairs of a query hash and a stored one, each pair once, by query hash and then row."""

    query_i: NDArray[np.int32]
    row: NDArray[np.int64]
    distance: NDArray[np.int32]


@kernel
def likely_flips(confidence, first_bit, width_bits, masks):  # type: ignore[no-untyped-def]
    """Write into `masks` the sets of a band's bits with the least sums of confidence, the empty set first.

    Best-first search over the bits sorted by confidence: a set's successors replace its least confident end
    by the next bit, or add the next bit; so every set is made once, after one with a smaller sum. Returns the
    number of masks, at most 2 ** width_bits.
    """
    bits = np.empty(width_bits, np.int64)
    costs = np.empty(width_bits, np.float64)
    for k in range(width_bits):  # insertion sort: at most 24 bits
        cost = np.float64(confidence[first_bit + k])
        j = k
        while j > 0 and costs[j - 1] > cost:
            costs[j] = costs[j - 1]
            bits[j] = bits[j - 1]
            j -= 1
        costs[j] = cost
        bits[j] = 1 << k
    masks[0] = 0
    if masks.shape[0] == 1:
        return 1
    heap_sum = np.empty(masks.shape[0] + 2, np.float64)
    heap_mask = np.empty(masks.shape[0] + 2, np.int64)
    heap_last = np.empty(masks.shape[0] + 2, np.int64)
    heap_sum[0], heap_mask[0], heap_last[0] = costs[0], bits[0], 0
    size = 1
    count = 1
    while count < masks.shape[0] and size > 0:
        total, mask, last = heap_sum[0], heap_mask[0], heap_last[0]
        masks[count] = mask
        count += 1
        if last + 1 < width_bits:
            # The first successor takes the place of the set at the root, the second goes to the end.
            heap_sum[0] = total - costs[last] + costs[last + 1]
            heap_mask[0] = (mask ^ bits[last]) | bits[last + 1]
            heap_last[0] = last + 1
        else:
            size -= 1
            heap_sum[0], heap_mask[0], heap_last[0] = heap_sum[size], heap_mask[size], heap_last[size]
        parent = 0
        while True:
            child = 2 * parent + 1
            if child >= size:
                break
            if child + 1 < size and heap_sum[child + 1] < heap_sum[child]:
                child += 1
            if heap_sum[parent] <= heap_sum[child]:
                break
            heap_sum[parent], heap_sum[child] = heap_sum[child], heap_sum[parent]
            heap_mask[parent], heap_mask[child] = heap_mask[child], heap_mask[parent]
            heap_last[parent], heap_last[child] = heap_last[child], heap_last[parent]
            parent = child
        if last + 1 < width_bits:
            heap_sum[size] = total + costs[last + 1]
            heap_mask[size] = mask | bits[last + 1]
            heap_last[size] = last + 1
            child = size
            size += 1
            while child > 0:
                parent = (child - 1) // 2
                if heap_sum[parent] <= heap_sum[child]:
                    break
                heap_sum[parent], heap_sum[child] = heap_sum[child], heap_sum[parent]
                heap_mask[parent], heap_mask[child] = heap_mask[child], heap_mask[parent]
                heap_last[parent], heap_last[child] = heap_last[child], heap_last[parent]
                child = parent
    return count


@kernel
def _probe_band(  # type: ignore[no-untyped-def]
    hashes,
    offsets,
    postings,
    first_bit,
    width_bits,
    queries,
    confidence,
    usable,
    probes,
    cut,
    found_query,
    found_row,
    found_distance,
):
    """Write what one band finds as long as there is room; returns how much there is to find."""
    masks = np.empty(probes, np.int64)
    room = found_row.shape[0]
    n_rows, n_postings = hashes.shape[0], postings.shape[0]
    found = 0
    for i in range(queries.shape[0]):
        if not usable[i]:
            continue
        value = band_value(queries, i, first_bit, width_bits)
        n_masks = likely_flips(confidence[i], first_bit, width_bits, masks)
        for p in range(n_masks):
            v = value ^ masks[p]
            # Tables are not checked when they are opened: damaged ones must not lead out of the arrays.
            for j in range(min(offsets[v], n_postings), min(offsets[v + 1], n_postings)):
                row = np.int64(postings[j])
                if row >= n_rows:
                    continue
                d = np.uint64(0)
                for k in range(queries.shape[1]):
                    d += popcount(queries[i, k] ^ hashes[row, k])
                if d <= cut:
                    if found < room:
                        found_query[found] = i
                        found_row[found] = row
                        found_distance[found] = d
                    found += 1
    return found


def _probe(
    segment: Segment,
    queries: NDArray[np.uint64],
    confidence: NDArray[np.float32],
    usable: NDArray[np.bool_],
    probes: int,
    cut: int,
) -> Candidates:
    room = 1 << 14
    keys: list[NDArray[np.int64]] = []
    distances: list[NDArray[np.int32]] = []
    for table in segment.tables:
        while True:
            query_i, row = np.empty(room, np.int32), np.empty(room, np.int64)
            distance = np.empty(room, np.int32)
            found = _probe_band(
                segment.hashes,
                table.offsets,
                table.postings,
                table.first_bit,
                table.width_bits,
                queries,
                confidence,
                usable,
                min(probes, 1 << table.width_bits),
                np.uint64(cut),
                query_i,
                row,
                distance,
            )
            if found <= room:
                break
            room = found
        keys.append(query_i[:found].astype(np.int64) * len(segment) + row[:found])
        distances.append(distance[:found])
    # Several bands find the same pair; it shall vote once.
    key, first = np.unique(np.concatenate(keys), return_index=True)
    query_i, row = np.divmod(key, len(segment))
    return Candidates(query_i.astype(np.int32), row, np.concatenate(distances)[first])


@kernel
def _near(distances, filled, cut, first_row, query_i, out_query, out_row, out_distance):  # type: ignore[no-untyped-def]
    """Write what lies within the cut as long as there is room; returns how much there is to find."""
    n = distances.shape[1]
    room = out_row.shape[0]
    found = 0
    for i in range(distances.shape[0]):
        for start in range(0, n, _CHUNK):
            stop = min(start + _CHUNK, n)
            least = distances[i, start]
            for j in range(start, stop):
                least = min(least, distances[i, j])
            if least > cut:
                continue
            for j in range(start, stop):
                if distances[i, j] <= cut and filled[j]:
                    if found < room:
                        out_query[found] = query_i[i]
                        out_row[found] = first_row + j
                        out_distance[found] = distances[i, j]
                    found += 1
    return found


def _scan(segment: Segment, queries: NDArray[np.uint64], usable: NDArray[np.bool_], cut: int) -> Candidates:
    places = np.flatnonzero(usable).astype(np.int32)
    filled = frozen(np.asarray(segment.hashes.any(axis=1)))
    room = 1 << 12
    parts: list[Candidates] = []
    for start in range(0, len(places), _SCAN_QUERIES):
        block = places[start : start + _SCAN_QUERIES]
        codes = queries[block]
        for first in range(0, len(segment), _SCAN_ROWS):
            rows = slice(first, first + _SCAN_ROWS)
            distances = frozen(distance_matrix(codes, segment.hashes[rows]))
            while True:
                out = Candidates(np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.int32))
                found = _near(distances, filled[rows], max(cut, 0), first, frozen(block), *out)
                if found <= room:
                    break
                room = found
            parts.append(Candidates(out.query_i[:found], out.row[:found], out.distance[:found]))
    if not parts:
        return Candidates(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32))
    query_i = np.concatenate([part.query_i for part in parts])
    order = np.argsort(query_i, kind="stable")  # rows ascend already
    row, distance = (
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.distance for part in parts]),
    )
    return Candidates(query_i[order], row[order], distance[order])


def candidates(
    segment: Segment,
    hashes: NDArray[np.uint64],
    confidence: NDArray[np.floating] | None = None,
    valid: NDArray[np.bool_] | None = None,
    probes: int = 4,
    *,
    max_distance: int | None = None,
) -> Candidates:
    """Find stored hashes near those of a query.

    Parameters
    ----------
    segment : Segment
        One without tables is scanned, and then nothing within the distance is missed.
    hashes : uint64 (m, w)
    confidence : float (m, 64 w), optional
        Says which bits to flip first; without it, single bits from the lowest on, then pairs.
    valid : bool (m,), optional
        Query hashes that count; default those that are not all zero.
    probes : int
        Buckets per band and query hash, the exact one included.
    max_distance : int, optional
        In bits; default 0.35 of all.

    Returns
    -------
    Candidates
        ``query_i`` int32, ``row`` int64 and ``distance`` int32, each (k,).

    Raises
    ------
    ValueError
        If shapes do not fit each other, or `probes` is below 1.
    """
    if hashes.ndim != 2 or hashes.dtype != np.uint64 or hashes.shape[1] != segment.hashes.shape[1]:
        raise ValueError(
            f"query hashes {hashes.dtype} {hashes.shape} do not fit codes of {segment.hashes.shape[1]} words"
        )
    if probes < 1:
        raise ValueError("probes must be at least 1")
    bits = 64 * hashes.shape[1]
    if confidence is None:
        confidence = np.ones((len(hashes), bits), np.float32)
    if confidence.shape != (len(hashes), bits):
        raise ValueError(f"confidence has shape {confidence.shape}, not {(len(hashes), bits)}")
    usable = hashes.any(axis=1) if valid is None else np.asarray(valid, np.bool_) & hashes.any(axis=1)
    if usable.shape != (len(hashes),):
        raise ValueError(f"valid has shape {usable.shape}, not ({len(hashes)},)")
    cut = int(DEFAULT_CUT * bits) if max_distance is None else max_distance
    if cut < 0 or not segment.tables:
        return _scan(segment, hashes, usable & (cut >= 0), cut)
    return _probe(
        segment,
        frozen(hashes),
        frozen(confidence.astype(np.float32, copy=False)),
        frozen(usable),
        probes,
        cut,
    )
