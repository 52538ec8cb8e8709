"""The index: tracks and segments in one file, with one writer and many readers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from samaf.atomic import inherit, put_in_place
from samaf.errors import StoreError, shown
from samaf.index import tracks
from samaf.index.change import (
    Change,
    clean,
    compact,
    forget,
    full_segments,
    ingest,
    making,
    write_header,
)
from samaf.index.environment import Environment
from samaf.index.locks import WriterLock
from samaf.index.reader import IndexReader
from samaf.index.replacing import new_file, new_name, unlink
from samaf.index.snapshot import Snapshot
from samaf.index.state import FORMAT_VERSION, IndexHeader
from samaf.index.tracks import Alias, Track, TrackInfo
from samaf.settings import check_hop

if TYPE_CHECKING:
    from samaf.fingerprint import Fingerprint
    from samaf.index.transfer import ImportReport


class Index(IndexReader):
    """A library of fingerprints on disk; make one with `create`, open it with `open`.

    Any number of threads may share one, whether they read or write.

    Examples
    --------
    >>> with Index.open("music.samafdb", readonly=False) as index:  # doctest: +SKIP
    ...     index.add([(TrackInfo("song.flac"), fingerprint)])
    [1]
    """

    def __init__(self, path: str, lock: WriterLock | None = None) -> None:
        super().__init__(path)
        self._pid = os.getpid()
        self._lock = lock
        self._env: Environment | None = None
        self._change_guard = threading.RLock()  # held from the first to the last transaction of a change
        if lock is not None:  # what a killed writer has left behind goes
            unlink(new_name(path))
            try:
                with self._change_guard, self.snapshot() as snapshot:
                    clean(self._environment(), snapshot.tree)
            except BaseException:
                self._close_environment()
                raise

    # -- opening and closing -------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, readonly: bool = True) -> Index:
        """Open an index.

        Parameters
        ----------
        path : path-like
        readonly : bool
            False takes the right to write until `close`.

        Raises
        ------
        StoreError
            If it is missing, damaged, unreadable, or not an index.
        MismatchError
            If it is of another format version.
        LockedError
            If it is to be written and another process, or another `Index` of this one, writes to it.
        """
        name = os.path.realpath(path)
        index = cls(name)
        if readonly:
            return index
        lock = WriterLock(name)
        try:
            return cls(name, lock)  # anew: before the lock was ours, compaction may have replaced the file
        except BaseException:
            lock.release()
            raise

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        model_id: str,
        bits: int,
        hop_s: float,
        query_hop_s: float,
        model_name: str = "",
        model_path: str = "",
    ) -> Index:
        """Make a new, empty index and open it for writing; missing folders are made.

        Raises
        ------
        StoreError
            If something is there already, or the folder cannot be written.
        LockedError
            If another process is making the same one.
        """
        if bits not in (64, 128, 256):
            raise ValueError(f"bits must be 64, 128 or 256, not {bits}")
        check_hop(hop_s)
        check_hop(query_hop_s)
        name = os.path.realpath(path)
        header = IndexHeader(
            FORMAT_VERSION, model_id, bits, hop_s, query_hop_s, model_name, model_path, round(time.time(), 3)
        )
        try:
            os.makedirs(os.path.dirname(name), exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"index {shown(name)} cannot be made: {error.strerror}: {shown(error.filename)}"
            ) from None
        lock = WriterLock(name)
        try:
            if os.path.lexists(name):
                raise StoreError(f"{shown(name)} exists already; open it, or name another file")
            with new_file(name) as env, making(env) as change:
                write_header(change, header)
            put_in_place(new_name(name), name)
            return cls(name, lock)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Give back the file and the right to write, after the change in progress; a second time does nothing."""
        super().close()
        if self._lock is None or self._pid != os.getpid():
            return  # a forked child has no part in the writing
        with self._change_guard:
            self._close_environment()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _close_environment(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Index {self._path!r}{'' if self._file else ', closed'}>"

    # -- writing -------------------------------------------------------------------------------------------------

    def _environment(self) -> Environment:
        if self._lock is None:
            raise StoreError(
                f"index {shown(self._path)} is closed; open it again"
                if self._file is None
                else f"index {shown(self._path)} is open for reading only; open it with readonly=False"
            )
        if self._env is None:
            self._env = Environment(self._path)
        return self._env

    @contextmanager
    def _changing(self) -> Iterator[tuple[Snapshot, Change]]:
        """Make one change of what is stored, alone."""
        with self._change_guard:
            env = self._environment()
            with self.snapshot() as snapshot:
                change = None
                try:
                    with making(env, snapshot.tree) as change:
                        yield snapshot, change
                except BaseException:
                    if change is not None and change.wrote_ahead:
                        with suppress(Exception), self.snapshot() as after:
                            clean(env, after.tree)  # what cannot be deleted now, the next writer deletes
                    raise

    def add(
        self, batch: Sequence[tuple[TrackInfo, Fingerprint]], *, replacing: Iterable[int] = ()
    ) -> list[int]:
        """Store recordings; all of them become visible at once, or none.

        Parameters
        ----------
        batch : sequence of (TrackInfo, Fingerprint)
        replacing : iterable of int
            Tracks that go in the same moment, such as earlier versions of the same files.

        Returns
        -------
        list of int
            The new tracks' ids, in order.

        Raises
        ------
        MismatchError
            If a fingerprint was made with another model, bit count or hop.
        StoreError
            If the disk is full, or the index open for reading only.
        """
        for _, print_ in batch:
            self.check_fits(model_id=print_.model_id, bits=print_.bits, hop_s=print_.hop_s)
        now = time.time()
        new = [
            (Track.new(0, info, print_.duration_s, len(print_.hashes), now), print_.hashes)
            for info, print_ in batch
        ]
        with self._changing() as (snapshot, change):
            return ingest(snapshot, change, full_segments(new), replacing)

    def remove(self, track_ids: Iterable[int]) -> int:
        """Take tracks out; ids that are not there are passed over.

        Their hashes stay in the file as dead rows until a merge or `compact` leaves them out.

        Returns
        -------
        int
            How many tracks were there.
        """
        with self._changing() as (_, change):
            return sum(forget(change, track_id) for track_id in set(track_ids))

    def add_alias(
        self, track_id: int, path: str | os.PathLike[str], size_bytes: int = 0, mtime_ns: int = 0
    ) -> None:
        """Note another file with the content of a track; for the track's own file, its new size and time.

        Raises
        ------
        StoreError
            If there is no such track.
        """
        alias = Alias(os.path.abspath(os.fspath(path)), size_bytes, mtime_ns)
        with self._changing() as (_, change):
            track = tracks.get(change.txn, track_id)
            if track is None:
                raise self._unknown(track_id)
            tracks.put(change.txn, track_id, tracks.with_alias(track, alias))

    def drop_path(self, path: str | os.PathLike[str]) -> Track | None:
        """Forget a file. A track's own file gives way to its first alias; a track without another file is removed.

        Returns
        -------
        Track or None
            The track as it was, None if the file was not known.
        """
        name = os.path.abspath(path)
        with self._changing() as (_, change):
            track = tracks.find(change.txn, tracks.PATH, name)
            if track is not None:
                left = tracks.without_path(track, name)
                if left is None:
                    forget(change, track.track_id)
                else:
                    tracks.put(change.txn, track.track_id, left)
        return track

    def compact(self, *, shrink: bool = True) -> None:
        """Join all segments and purge removed tracks.

        Parameters
        ----------
        shrink : bool
            Write the result to a new file that takes the old one's place, so that the disk gets its space
            back; needs room for both meanwhile. Searches that run go on in the old file. False works within
            the file, which keeps its size and reuses the space later.

        Raises
        ------
        StoreError
            If the disk is full; the index is unchanged then.
        """
        if not shrink:
            with self._changing() as (snapshot, change):
                compact(snapshot, change)
            return
        with self._change_guard:
            self._environment()
            with self.snapshot() as snapshot, new_file(self._path) as new:
                with making(new) as change:
                    compact(snapshot, change)
                inherit(self._path, new.path)
            self._close_environment()
            put_in_place(new_name(self._path), self._path)

    def import_from(self, path: str | os.PathLike[str]) -> ImportReport:
        """Store the tracks of a file that `export_to` wrote under new ids; known digests are skipped.

        Raises
        ------
        MismatchError
            If it was made with another model, bit count or hop.
        StoreError
            If it cannot be read or is damaged, or the disk is full; nothing is stored then.
        """
        from samaf.index.transfer import ImportReport, exported

        with exported(path) as file, self._changing() as (snapshot, change):
            header = file.header
            self.check_fits(model_id=header.model_id, bits=header.bits, hop_s=header.hop_s)
            known = {
                track.track_id
                for track in file.tracks
                if track.digest and tracks.find(snapshot.tree, tracks.DIGEST, track.digest)
            }
            added = ingest(snapshot, change, file.batches(known))
            return ImportReport(tuple(added), len(known))
