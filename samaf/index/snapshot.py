"""What a reader holds: one state of the index, and its measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from samaf.errors import StoreError, shown
from samaf.index import tracks
from samaf.index.explain import explaining
from samaf.index.mapped import Pinned
from samaf.index.pages import Tree
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

    def to_json(self) -> dict[str, Any]:
        """The measures as a dict of JSON types."""
        return {**asdict(self), "bytes_per_hour": self.bytes_per_hour}


class Snapshot:
    """One state of the index, unmoved by later changes, until it ends.

    A segment, or an array of one, may be kept longer: as long as one lives, the state's pages are not used again.

    Attributes
    ----------
    path : str
    header : IndexHeader
    state : State
    removed : frozenset of int
        Tracks that are not there any more, though segments hold their hashes.
    """

    def __init__(
        self,
        path: str,
        header: IndexHeader,
        state: State,
        removed: frozenset[int],
        segments: tuple[Segment, ...],
        pinned: Pinned,
    ) -> None:
        self.path, self.header, self.state, self.removed = path, header, state, removed
        self._held: tuple[tuple[Segment, ...], Pinned] | None = (segments, pinned)

    def end(self) -> None:
        """Let the state go."""
        self._held = None

    def _get(self) -> tuple[tuple[Segment, ...], Pinned]:
        if self._held is None:
            raise StoreError(f"the snapshot of index {shown(self.path)} has ended; take another")
        return self._held

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments."""
        return self._get()[0]

    @property
    def tree(self) -> Tree:
        """Keys and values of the state (for the rooms of the index)."""
        return self._get()[1].tree

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
        with explaining(self.path):
            track = tracks.get(self.tree, track_id)
        if track is None:
            raise KeyError(track_id)
        return track

    def check(self, segment: Segment, k: int) -> None:
        """Hold the hashes of a segment's track k (not its id) against their checksum.

        Raises
        ------
        StoreError
            If they are not what was stored.
        """
        with explaining(self.path):
            segment.check(k)
