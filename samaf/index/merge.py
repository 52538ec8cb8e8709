"""Which segments to join, and how: few segments to search, few bytes rewritten.

Segments fall into tiers by size, each tier four times the one before. The fourth segment of a tier joins the
other three, and smaller ones, into one of a higher tier; so a library of n hashes has O(log n) segments and
each hash is rewritten O(log n) times in its life. Joining leaves out the hashes of removed tracks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samaf.index import segment as segments
from samaf.index.codec import DamageError
from samaf.index.segment import Segment

RATIO = 4
SMALLEST_ROWS = 1 << 12  # about an hour of audio at one hash a second; below, all is one tier


def tier(n_rows: int) -> int:
    """Tier of a segment: 0 up to `SMALLEST_ROWS`, then one more for each factor of `RATIO`."""
    step, rows = 0, SMALLEST_ROWS
    while n_rows > rows:
        step, rows = step + 1, rows * RATIO
    return step


def plan(sizes: Sequence[int], incoming: int) -> list[int]:
    """Choose the segments that the next one should swallow.

    Parameters
    ----------
    sizes : sequence of int
        Rows of the present segments.
    incoming : int
        Rows about to be added.

    Returns
    -------
    list of int
        Positions in `sizes`, ascending; with the incoming rows they never exceed the largest segment allowed.
    """
    chosen: set[int] = set()
    total = incoming
    while True:
        level = tier(total)
        smaller = [i for i, rows in enumerate(sizes) if i not in chosen and tier(rows) < level]
        same = [i for i, rows in enumerate(sizes) if i not in chosen and tier(rows) == level]
        # Smaller segments are swallowed only by a merge that takes place anyway, or once there are too many.
        if len(same) + 1 >= RATIO:
            wanted = same + smaller
        elif chosen or len(smaller) >= RATIO - 1:
            wanted = smaller
        else:
            wanted = []
        taken = False
        for i in sorted(wanted, key=lambda i: sizes[i]):
            if total + sizes[i] <= segments.MAX_ROWS:
                chosen.add(i)
                total += sizes[i]
                taken = True
        if not taken:
            return sorted(chosen)


def groups(sizes: Sequence[int]) -> list[list[int]]:
    """Split segments, in their order, into runs that each fit one segment: what compaction joins."""
    runs: list[list[int]] = []
    rows = 0
    for i, size in enumerate(sizes):
        if not runs or rows + size > segments.MAX_ROWS:
            runs.append([])
            rows = 0
        runs[-1].append(i)
        rows += size
    return runs


class Gathered(NamedTuple):
    """What `segment.write` takes: hashes uint64 (n, w); ids, counts and checksums of the tracks, each (t,)."""

    hashes: NDArray[np.uint64]
    track_ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    checksums: NDArray[np.uint32]


def gather(parts: Sequence[Segment], removed: Collection[int], words: int) -> Gathered:
    """Join segments, leaving out removed tracks.

    Raises
    ------
    DamageError
        If hashes have changed since they were stored: their copies must not get a checksum that fits.
    """
    gone = np.fromiter(removed, np.int64, len(removed))
    kept = [~np.isin(part.track_ids, gone) for part in parts]

    def joined(arrays: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
        return np.concatenate([*arrays, np.zeros(0, dtype)])

    track_ids = joined([part.track_ids[keep] for part, keep in zip(parts, kept, strict=True)], np.int64)
    counts = joined([np.diff(part.starts)[keep] for part, keep in zip(parts, kept, strict=True)], np.int64)
    checksums = joined(
        [part.checksums[keep] for part, keep in zip(parts, kept, strict=True) if part.checksums is not None],
        np.uint32,
    )
    hashes = np.empty((int(counts.sum()), words), np.uint64)
    row = 0
    for part, keep in zip(parts, kept, strict=True):
        # Runs of kept tracks are copied whole: the edges of a run are where `keep` changes.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]])))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            rows = part.hashes[part.starts[first] : part.starts[last]]
            hashes[row : row + len(rows)] = rows
            row += len(rows)
    row = 0
    for track_id, count, checksum in zip(
        track_ids.tolist(), counts.tolist(), checksums.tolist(), strict=True
    ):
        if segments.checksum(hashes[row : row + count], track_id) != checksum:
            raise DamageError(f"the hashes of track {track_id} fail their checksum")
        row += count
    return Gathered(hashes, track_ids, counts, checksums)
