"""What reads an index: any number of threads and processes, which need no more than the right to read the file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from samaf.errors import MismatchError, StoreError, shown
from samaf.index import tracks
from samaf.index.codec import DamageError
from samaf.index.explain import explained, explaining
from samaf.index.mapped import IndexFile, Pinned
from samaf.index.segment import Segment, Stored
from samaf.index.snapshot import IndexStats, SegmentStats, Snapshot
from samaf.index.state import IndexHeader, State, check_turn, part_key, read_header
from samaf.index.tracks import Track

if TYPE_CHECKING:
    from samaf.index.verify import VerifyReport


@dataclass
class _Known:
    """What has been read of one state, kept until there is another."""

    file: IndexFile
    header: IndexHeader
    state: State
    removed: frozenset[int]
    stored: dict[int, Stored] = field(default_factory=dict)


class IndexReader:
    """An index, open for reading; safe to share among threads, and to use on both sides of a fork.

    Parameters
    ----------
    path : str
        Absolute, links followed.

    Raises
    ------
    StoreError
        If it is missing, damaged, unreadable, or not an index.
    MismatchError
        If it is of another format version.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._file: IndexFile | None = self._opened()
        self._known: _Known | None = None
        self._load(*self._pin())

    def close(self) -> None:
        """Give back the file; a second time does nothing."""
        self._file = self._known = None

    @property
    def path(self) -> str:
        """Absolute path of the file, with symbolic links followed."""
        return self._path

    @property
    def header(self) -> IndexHeader:
        """What the index is made for."""
        return self._header

    def check_fits(
        self, *, model_id: str | None = None, bits: int | None = None, hop_s: float | None = None
    ) -> None:
        """Refuse hashes that cannot be compared with the stored ones; arguments left out are not checked.

        Raises
        ------
        MismatchError
        """
        header, name = self.header, shown(self._path)
        if model_id is not None and model_id != header.model_id:
            made_with = header.model_name or header.model_path or header.model_id[:12]
            raise MismatchError(
                f"index {name} was made with model {shown(made_with)}, not {model_id[:12]}; "
                "use that model, or build the index anew"
            )
        if bits is not None and bits != header.bits:
            raise MismatchError(
                f"index {name} holds hashes of {header.bits} bits, not {bits}; "
                f"use --bits {header.bits}, or build the index anew"
            )
        if hop_s is not None and abs(hop_s - header.hop_s) > 1e-9:
            raise MismatchError(
                f"index {name} holds a hash every {header.hop_s:g} s, not {hop_s:g} s; "
                f"use --hop {header.hop_s:g}, or build the index anew"
            )

    # -- one state -----------------------------------------------------------------------------------------------

    def _opened(self) -> IndexFile:
        """Open the file that lies at the path, its first pages checked against the states that they name."""
        while True:
            file = IndexFile(self._path)
            pinned = file.pin()
            if pinned is None:
                continue  # replaced in this very moment
            with explaining(self._path):
                self._header = read_header(pinned.tree, self._path)
                check_turn(pinned.before())
            return file

    def _pin(self) -> tuple[IndexFile, Pinned]:
        """Pin the newest state of the file that lies at the path now: compaction may have put a new one there."""
        while True:
            file = self._file
            if file is None:
                raise StoreError(f"index {shown(self._path)} is closed; open it again")
            pinned = file.pin()
            if pinned is not None:
                return file, pinned
            with self._guard:
                if self._file is file:
                    self._file = self._opened()

    def _load(self, file: IndexFile, pinned: Pinned) -> _Known:
        known = self._known
        same_file = known is not None and known.file is file
        if known is not None and same_file and known.state.transaction == pinned.tree.meta.transaction:
            return known
        with explaining(self._path):
            header = known.header if known is not None and same_file else read_header(pinned.tree, self._path)
            state = check_turn(pinned.tree) or State()
        stored = known.stored if known is not None and same_file else {}
        live = {number: stored[number] for number in state.segments if number in stored}
        self._known = known = _Known(file, header, state, frozenset(state.removed), live)
        return known

    @contextmanager
    def _reading(self) -> Iterator[Pinned]:
        """Read single records of the newest state."""
        _, pinned = self._pin()
        with explaining(self._path):
            yield pinned

    def _segments(self, known: _Known, pinned: Pinned) -> Iterator[Segment]:
        for number in known.state.segments:
            stored = known.stored.get(number)
            new = stored is None
            if stored is None:
                stored = Stored(pinned.tree, number, part_key(number))
            segment = stored.segment(pinned)
            if new and not segment.tables:  # each search will pass over all of it
                stored.fetch(pinned)
                for k in range(len(segment.track_ids)):
                    segment.check(k)
            known.stored[number] = stored
            yield segment

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read one state of the index, whose pages are not used again until the block ends.

        Raises
        ------
        StoreError
            If the index is damaged, deleted or closed.
        """
        file, pinned = self._pin()
        known = self._load(file, pinned)
        with explaining(self._path):
            segments = tuple(self._segments(known, pinned))
        snapshot = Snapshot(self._path, known.header, known.state, known.removed, segments, pinned)
        del segments, pinned  # or they would live as long as this generator's frame
        try:
            yield snapshot
        finally:
            snapshot.end()

    # -- tracks --------------------------------------------------------------------------------------------------

    def tracks(
        self, damaged: Callable[[StoreError], None] | None = None, *, after: int = 0
    ) -> Iterator[Track]:
        """Yield tracks in order of their ids; no state is pinned in between.

        Parameters
        ----------
        damaged
            Called with what is wrong with a track whose record cannot be right, and which is passed over.
        after
            Only tracks with ids above it; 0: all.

        Raises
        ------
        StoreError
            If there is such a track, and no `damaged`.
        """
        key: bytes | None = None

        def told(error: DamageError) -> None:
            if damaged is None:
                raise error
            damaged(explained(error, self._path))

        while True:
            with self._reading() as pinned:
                if key is None:
                    key = tracks.key_ahead_of(pinned.tree, after)
                page = next(tracks.pages(pinned.tree, key, told), None)
            if page is None:
                return
            key, found = page
            yield from (track for track in found if track.track_id > after)

    def track(self, track_id: int) -> Track:
        """Return one track.

        Raises
        ------
        StoreError
            If there is no such track.
        """
        with self._reading() as pinned:
            track = tracks.get(pinned.tree, track_id)
        if track is None:
            raise self._unknown(track_id)
        return track

    def _unknown(self, track_id: int) -> StoreError:
        return StoreError(f"index {shown(self._path)} has no track {track_id}; see 'samaf index list'")

    def find_path(self, path: str | os.PathLike[str]) -> Track | None:
        """Return the track recorded from this file, or with this file as an alias."""
        with self._reading() as pinned:
            return tracks.find(pinned.tree, tracks.PATH, os.path.abspath(path))

    def find_digest(self, digest: str) -> Track | None:
        """Return the track with this content digest."""
        with self._reading() as pinned:
            return tracks.find(pinned.tree, tracks.DIGEST, digest) if digest else None

    # -- the whole -----------------------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        """Measure the index."""
        file, pinned = self._pin()
        known = self._load(file, pinned)
        with explaining(self._path):
            forms = [Stored(pinned.tree, n, part_key(n)).layout for n in known.state.segments]
        return IndexStats(
            n_tracks=known.state.n_tracks,
            n_removed=len(known.removed),
            n_hashes=sum(form.n_rows for form in forms),
            n_invalid=sum(form.n_invalid for form in forms),
            duration_s=known.state.duration_s,
            segments=tuple(SegmentStats(form.n_rows, form.width_bits) for form in forms),
            file_bytes=os.path.getsize(self._path),
            header=known.header,
        )

    def verify(self) -> VerifyReport:
        """Check every byte that is in use: pages, checksums, tables, tracks and lookups."""
        from samaf.index.verify import verify

        return verify(self._pin()[1], self._path)

    def export_to(self, path: str | os.PathLike[str]) -> None:
        """Write header, tracks and hashes into one portable file (see `transfer`).

        Raises
        ------
        StoreError
            If the file cannot be written, or hashes are damaged.
        """
        from samaf.index.transfer import export_to

        with self.snapshot() as snapshot:
            export_to(snapshot, path)
