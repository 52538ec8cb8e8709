"""What a reader holds: one state of the index, and its measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from samaf.index import tracks
from samaf.index.environment import Environment, explaining
from samaf.index.segment import Segment
from samaf.index.state import IndexHeader, State
from samaf.index.tracks import Track


@dataclass(frozen=True)
class SegmentStats:
    """Rows of a segment, and the width of its bands in bits (0: no tables)."""

    rows: int
    width_bits: int


@dataclass(frozen=True)
class IndexStats:
    """Size of an index; `n_removed` counts removed tracks whose hashes are still to be purged."""

    n_tracks: int
    n_removed: int
    n_hashes: int
    n_invalid: int
    duration_s: float
    segments: tuple[SegmentStats, ...]
    file_bytes: int
    header: IndexHeader

    @property
    def bytes_per_hour(self) -> float:
        """Bytes of file per hour of stored audio, 0 for an empty index."""
        return self.file_bytes * 3600 / self.duration_s if self.duration_s else 0.0


@dataclass(frozen=True)
class Snapshot:
    """One state of the index, unmoved by later changes; its arrays must not be used once it has ended."""

    header: IndexHeader
    segments: tuple[Segment, ...]
    removed: frozenset[int]
    state: State
    env: Environment
    txn: Any

    @property
    def n_tracks(self) -> int:
        """Tracks that can be found."""
        return self.state.n_tracks

    @property
    def duration_s(self) -> float:
        """Seconds of audio that can be found."""
        return self.state.duration_s

    @property
    def n_hashes(self) -> int:
        """Stored hashes, those of removed tracks included until they are purged."""
        return sum(map(len, self.segments))

    def track(self, track_id: int) -> Track:
        """Return one track.

        Raises
        ------
        KeyError
            If there is none.
        """
        with explaining(self.env.path):
            track = tracks.get(self.txn, track_id)
        if track is None:
            raise KeyError(track_id)
        return track
