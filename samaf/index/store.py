"""The index: tracks and segments in one LMDB file, with one writer and many readers."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from samaf.errors import MismatchError, StoreError, shown
from samaf.index import segment, tracks
from samaf.index.change import (
    Change,
    changing,
    clean,
    compact,
    forget,
    full_segments,
    ingest,
    making,
    write_header,
)
from samaf.index.environment import Environment, explaining
from samaf.index.locks import WriterLock, gate
from samaf.index.snapshot import IndexStats, SegmentStats, Snapshot
from samaf.index.state import FORMAT_VERSION, STATE, IndexHeader, State, getter, read_header, read_state
from samaf.index.tracks import Alias, Track, TrackInfo

if TYPE_CHECKING:
    from samaf.fingerprint import Fingerprint
    from samaf.index.transfer import ImportReport
    from samaf.index.verify import VerifyReport


class Index:
    """A library of fingerprints on disk; make one with `create`, open it with `open`.

    Examples
    --------
    >>> with Index.open("music.samafdb", readonly=False) as index:  # doctest: +SKIP
    ...     index.add([(TrackInfo("song.flac"), fingerprint)])
    [1]
    """

    def __init__(self, path: str, env: Environment, lock: WriterLock | None) -> None:
        self._path = path
        self._env: Environment | None = env
        self._guard = threading.Lock()  # of self._env, which any thread may find to be out of date
        self._writer = lock
        self._state: tuple[bytes, State, frozenset[int]] | None = None  # the last one decoded, and from what
        with env.reading() as txn:
            self._header = read_header(env, txn)
            read_state(txn)

    # -- opening and closing ---------------------------------------------------------------------------------

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
        env = Environment.acquire(name)
        lock = None
        try:
            if not readonly:
                lock = WriterLock(name)
                # Before the lock was ours, compaction may have replaced the file.
                fresh = Environment.acquire(name)
                env.release()
                env = fresh
            index = cls(name, env, lock)
            if not readonly:  # what a killed writer or reader has left behind
                env.forget_dead_readers()
                _unlink(_new_name(name))
                clean(env)
            return index
        except BaseException:
            env.release()
            if lock is not None:
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
        if not (hop_s > 0 and query_hop_s > 0):
            raise ValueError("hops must be positive")
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
            with _new_file(name) as env, making(env, State()) as change:
                write_header(change, header)
            # A table of readers left by a deleted index must not be taken for this one's.
            _unlink(name + "-lock")
            _put_in_place(name)
            return cls(name, Environment.acquire(name), lock)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Give back the file and the right to write; a second time does nothing."""
        if self._env is not None:
            self._env.release()
            self._env = None
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Index {self._path!r}{'' if self._env else ', closed'}>"

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

    # -- reading ---------------------------------------------------------------------------------------------

    @contextmanager
    def _using(self) -> Iterator[Environment]:
        """Use the file that lies at the path now: compaction may have put a new one there."""
        with self._guard:
            if self._env is None:
                raise StoreError(f"index {shown(self._path)} is closed; open it again")
            try:
                status = os.stat(self._path)
            except OSError:
                raise StoreError(f"index {shown(self._path)} has been deleted; open another") from None
            if (status.st_dev, status.st_ino) != self._env.key:
                fresh = Environment.acquire(self._path)
                self._env.release()
                self._env, self._state = fresh, None
                with fresh.reading() as txn:
                    self._header = read_header(fresh, txn)
            env = self._env.retain()
        try:
            yield env
        finally:
            env.release()

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        with self._using() as env, env.reading() as txn:
            yield txn

    def _read_state(self, txn: Any) -> tuple[State, frozenset[int]]:
        data = txn.get(STATE)
        known = self._state
        if known is None or known[0] != data:
            state = read_state(txn)
            known = self._state = bytes(data), state, frozenset(state.removed)
        return known[1], known[2]

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read one state of the index: one LMDB read transaction, which pins its pages until the block ends.

        Raises
        ------
        StoreError
            If the index is damaged, deleted, closed, or was opened before a fork.
        """
        with self._using() as env:
            txn = env.begin()
            try:
                with explaining(self._path):
                    state, removed = self._read_state(txn)
                    parts = tuple(segment.read(getter(txn, number), number) for number in state.segments)
                yield Snapshot(self._header, parts, removed, state, env, txn)
            finally:
                txn.abort()

    def tracks(self) -> Iterator[Track]:
        """Yield all tracks in order of their ids; no transaction stays open in between."""
        after = tracks.FIRST_PAGE
        while True:
            with self._reading() as txn:
                page = next(tracks.pages(txn, after), None)
            if page is None:
                return
            after, found = page
            yield from found

    def track(self, track_id: int) -> Track:
        """Return one track.

        Raises
        ------
        StoreError
            If there is no such track.
        """
        with self._reading() as txn:
            track = tracks.get(txn, track_id)
        if track is None:
            raise self._unknown(track_id)
        return track

    def _unknown(self, track_id: int) -> StoreError:
        return StoreError(f"index {shown(self._path)} has no track {track_id}; see 'samaf index list'")

    def find_path(self, path: str | os.PathLike[str]) -> Track | None:
        """Return the track recorded from this file, or with this file as an alias."""
        with self._reading() as txn:
            return tracks.find(txn, tracks.PATH, os.path.abspath(path))

    def find_digest(self, digest: str) -> Track | None:
        """Return the track with this content digest."""
        with self._reading() as txn:
            return tracks.find(txn, tracks.DIGEST, digest) if digest else None

    def stats(self) -> IndexStats:
        """Measure the index."""
        with self._reading() as txn:
            state, removed = self._read_state(txn)
            forms = [segment.layout(getter(txn, number)) for number in state.segments]
        return IndexStats(
            n_tracks=state.n_tracks,
            n_removed=len(removed),
            n_hashes=sum(form.n_rows for form in forms),
            n_invalid=sum(form.n_invalid for form in forms),
            duration_s=state.duration_s,
            segments=tuple(SegmentStats(form.n_rows, form.width_bits) for form in forms),
            file_bytes=os.path.getsize(self._path),
            header=self._header,
        )

    def verify(self) -> VerifyReport:
        """Check every byte that is in use: LMDB's pages, checksums, tables, tracks and lookups."""
        from samaf.index.verify import verify

        with self._using() as env:
            return verify(env)

    def export_to(self, path: str | os.PathLike[str]) -> None:
        """Write header, tracks and hashes into one portable file (see `transfer`).

        Raises
        ------
        StoreError
            If the file cannot be written.
        """
        from samaf.index.transfer import export_to

        with self.snapshot() as snapshot:
            export_to(snapshot, path)

    # -- writing ---------------------------------------------------------------------------------------------

    def _need_writer(self) -> None:
        if self._writer is None and self._env is not None:
            raise StoreError(
                f"index {shown(self._path)} is open for reading only; open it with readonly=False"
            )

    @contextmanager
    def changing(self) -> Iterator[tuple[Snapshot, Change]]:
        """Make one change of what is stored (for the rooms of the index).

        Raises
        ------
        StoreError
            If the index is open for reading only, or its disk is full.
        """
        self._need_writer()
        with self.snapshot() as snapshot, changing(snapshot.env) as change:
            yield snapshot, change

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
        with self.changing() as (snapshot, change):
            return ingest(snapshot, change, full_segments(new), replacing)

    def remove(self, track_ids: Iterable[int]) -> int:
        """Take tracks out; ids that are not there are passed over.

        Their hashes stay in the file as dead rows until a merge or `compact` leaves them out.

        Returns
        -------
        int
            How many tracks were there.
        """
        with self.changing() as (_, change):
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
        with self.changing() as (_, change):
            track = tracks.get(change.txn, track_id)
            if track is None:
                raise self._unknown(track_id)
            tracks.change(change.txn, track_id, tracks.with_alias(track, alias))

    def drop_path(self, path: str | os.PathLike[str]) -> Track | None:
        """Forget a file. A track's own file gives way to its first alias; a track without another file is removed.

        Returns
        -------
        Track or None
            The track as it was, None if the file was not known.
        """
        name = os.path.abspath(path)
        with self.changing() as (_, change):
            track = tracks.find(change.txn, tracks.PATH, name)
            if track is not None:
                left = tracks.without_path(track, name)
                if left is None:
                    forget(change, track.track_id)
                else:
                    tracks.change(change.txn, track.track_id, left)
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
            with self.changing() as (snapshot, change):
                compact(snapshot, change)
            return
        self._need_writer()
        with self.snapshot() as snapshot, _new_file(self._path) as new:
            with making(new, replace(snapshot.state, segments=[], removed=[])) as change:
                compact(snapshot, change)
            shutil.copymode(self._path, new.path)
        with gate(self._path, exclusive=True):
            # The table of readers goes first: killed in between, we leave the old file with a fresh table;
            # the other way round the new file would inherit the old one's readers, and with them its
            # transaction numbers.
            _unlink(self._path + "-lock")
            _put_in_place(self._path)

    def import_from(self, path: str | os.PathLike[str]) -> ImportReport:
        """Store the tracks of a file that `export_to` wrote under new ids; known digests are skipped.

        Raises
        ------
        MismatchError
            If it was made with another model, bit count or hop.
        StoreError
            If it cannot be read or is damaged, or the disk is full; nothing is stored then.
        """
        from samaf.index.transfer import import_from

        return import_from(self, path)


def _new_name(path: str) -> str:
    return path + ".new"


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def _new_file(path: str) -> Iterator[Environment]:
    """Write a whole new index file beside `path`; on disk at the end of the block, gone where it raises."""
    _unlink(_new_name(path))
    try:
        env = Environment.create(_new_name(path), path)
        try:
            yield env
            env.sync()
        finally:
            env.release()
    except BaseException:
        _unlink(_new_name(path))
        raise


def _put_in_place(path: str) -> None:
    os.replace(_new_name(path), path)
    with suppress(OSError):  # some file systems cannot sync a folder
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
