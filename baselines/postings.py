"""Hashes under which positions are stored: the table, and what systems that have one share.

The time line of such a system is in frames: those of all tracks, one after another. A hash found in both the clip and
the store gives a *line*: a track, and an offset between the two in frames. True matches heap up on a line.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, Tables
from samaf.hamming import frozen, kernel

Int64: TypeAlias = NDArray[np.int64]
UInt32: TypeAlias = NDArray[np.uint32]

_HEADS = 2**16


class Postings:
    """Positions under 32-bit keys: what a hash table would hold, sorted, in three arrays.

    The upper halves of the keys lead through a directory to a run of postings, which is ordered by the lower halves;
    so a posting takes six bytes.

    Parameters
    ----------
    tables
        What :meth:`tables` of another one gave; by default the table is empty.
    """

    def __init__(self, tables: Tables | None = None) -> None:
        if tables is None:
            tables = {"directory": np.zeros(_HEADS + 1, np.uint32)}
            tables |= {"tails": np.zeros(0, np.uint16), "positions": np.zeros(0, np.uint32)}
        self._directory, self._tails, self._positions = (
            frozen(tables[name]) for name in ("directory", "tails", "positions")
        )
        self._pending: list[NDArray[np.uint64]] = []

    def add(self, keys: UInt32, positions: UInt32) -> None:
        """Store a position under each key; they are sorted in when next something is asked."""
        self._pending.append(keys.astype(np.uint64) << np.uint64(32) | positions)

    def items(self) -> tuple[UInt32, UInt32]:
        """All keys, ascending, and their positions, ascending within a key."""
        self.settle()
        heads = np.repeat(np.arange(_HEADS, dtype=np.uint32), np.diff(self._directory))
        return heads << np.uint32(16) | self._tails, self._positions

    def tables(self) -> Tables:
        """The arrays: "directory" uint32 (65537,), "tails" uint16 (n,), "positions" uint32 (n,)."""
        self.settle()
        return {"directory": self._directory, "tails": self._tails, "positions": self._positions}

    def find(self, keys: UInt32) -> tuple[Int64, UInt32]:
        """Look up many keys at once.

        Parameters
        ----------
        keys : uint32 (m,)

        Returns
        -------
        which : int64 (n,)
            Index of the key, ascending.
        positions : uint32 (n,)
            A position stored under it, ascending within a key.
        """
        self.settle()
        first, count = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        _spans(frozen(keys), self._directory, self._tails, first, count)
        which = np.repeat(np.arange(len(keys)), count)
        within = np.arange(len(which)) - (np.cumsum(count) - count)[which]
        return which, self._positions[first[which] + within]

    def settle(self) -> None:
        """Sort in what has been added."""
        if not self._pending:
            return
        added, self._pending = self._pending, []
        keys, positions = self.items()
        packed = np.concatenate([keys.astype(np.uint64) << np.uint64(32) | positions, *added])
        del keys, positions, added  # as much again
        packed.sort()
        heads = np.arange(_HEADS, dtype=np.uint64) << np.uint64(48)
        self._directory = frozen(np.append(np.searchsorted(packed, heads), len(packed)).astype(np.uint32))
        self._tails = frozen((packed >> np.uint64(32)).astype(np.uint16))
        self._positions = frozen(packed.astype(np.uint32))


@kernel
def _spans(keys, directory, tails, first, count):  # type: ignore[no-untyped-def]
    for i in range(len(keys)):
        head = np.int64(keys[i]) >> 16
        tail = np.int64(keys[i]) & 0xFFFF
        low, end = np.int64(directory[head]), np.int64(directory[head + 1])
        high = end
        while low < high:
            middle = (low + high) >> 1
            if tails[middle] < tail:
                low = middle + 1
            else:
                high = middle
        first[i] = low
        while low < end and tails[low] == tail:
            low += 1
        count[i] = low - first[i]


class PostingsBaseline(Baseline):
    """A system that stores one table of postings, over at most 2**32 frames.

    Parameters
    ----------
    parameters
        The system's settings.
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self._starts = np.zeros(1, np.int64)
        self._postings = Postings()

    def settle(self) -> None:
        """Sort in what has been added."""
        self._postings.settle()

    def tables(self) -> Tables:
        """The postings, and "starts" uint32 (tracks + 1,): the first frame of each track, and the end of the last."""
        return {"starts": self._starts.astype(np.uint32), **self._postings.tables()}

    def restore(self, tables: Tables) -> None:
        """Take back what :meth:`tables` gave."""
        self._starts = tables["starts"].astype(np.int64)
        self._postings = Postings(tables)

    def _store(self, track_id: str, keys: UInt32, frames: Int64, n_frames: int) -> None:
        """Append a track of `n_frames` frames, with a key at each of `frames`."""
        start = self._starts[-1]
        self._postings.add(keys, (start + frames).astype(np.uint32))
        self._starts = np.append(self._starts, start + n_frames)
        self.tracks.append(track_id)

    def _lines(self, keys: UInt32, frames: Int64) -> Int64:
        """The line of each posting found for the keys of a clip, in one number that :meth:`_split` takes apart.

        Neighbouring offsets of one track are neighbouring numbers.
        """
        which, positions = self._postings.find(keys)
        tracks = np.searchsorted(self._starts, positions, side="right") - 1
        return (tracks << 32) + (positions - self._starts[tracks] - frames[which])

    @staticmethod
    def _split(lines: Int64) -> tuple[Int64, Int64]:
        """Track number, and frame of the track (negative before its start) at which the clip's first frame lies."""
        tracks = (lines + 2**31) >> 32
        return tracks, lines - (tracks << 32)
