"""What is left of a damaged or truncated index, as a new one.

A track is saved if its record and its hashes are as they were stored: both have checksums. They are looked for in the
tree of keys as far as it can be followed, from the newest state and then from the one before; then in all pages that
look like a leaf of such a tree, which may be older than what is lost.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.atomic import put_in_place
from samaf.errors import LockedError, MismatchError, StoreError, shown
from samaf.index import segment, tracks
from samaf.index.change import making, write_header
from samaf.index.codec import DamageError, decode
from samaf.index.locks import WriterLock
from samaf.index.merge import Gathered
from samaf.index.pages import BRANCH, DEEPEST, LEAF, PAGE_HEADER_BYTES, Meta, Place, Tree, read_meta
from samaf.index.replacing import new_file, new_name
from samaf.index.state import STATE, IndexHeader, State, is_record, part_key, read_header, segment_of
from samaf.index.tracks import Track

_SIZES = tuple(1 << power for power in range(12, 17))  # of pages


@dataclass(frozen=True)
class RepairReport:
    """Ids of the tracks that were saved, and a line for each thing that was lost."""

    saved: tuple[int, ...]
    lost: tuple[str, ...]


class _Wreck:
    """All values that can be found in a damaged file, by key, the most trustworthy first.

    Attributes
    ----------
    transaction : int
        Of the newest state, as the file's head tells it.
    is_whole : bool
        Whether all that the newest state names was found.
    """

    def __init__(self, fd: int, data: mmap.mmap) -> None:
        self._data = data
        self._places: dict[bytes, list[Place]] = {}
        self._seen: set[int] = set()
        self.is_whole = True
        metas = sorted(_metas(fd), key=lambda meta: -meta.transaction)
        size = metas[0].page_bytes if metas else mmap.PAGESIZE
        self.transaction = metas[0].transaction if metas else 0
        # What the head says of the end of the file may be wrong.
        last_page = max([len(data) // size, *(meta.last_page for meta in metas)])
        for meta in metas:
            self._collect(Tree(data, meta._replace(last_page=last_page)), meta.root, DEEPEST)
            records = [key for key in self._places if is_record(key)]
            self.is_whole = self.is_whole and all(self.get(key) is not None for key in records)
            if self.is_whole:
                return
        tree = Tree(data, Meta(size, 0, 0, 0, 0, last_page, 0))
        for number in _pages(data, size, LEAF):
            self._collect(tree, number, 1)

    def _collect(self, tree: Tree, number: int, depth: int) -> None:
        if number in self._seen:
            return
        self._seen.add(number)
        for kind in (LEAF, BRANCH):
            try:
                page, n = tree.page(number, kind)
                break
            except DamageError:
                continue
        else:
            self.is_whole = False
            return
        for k in range(n):
            try:
                if kind == LEAF:
                    known = self._places.setdefault(tree.node(page, k)[3], [])
                    place = tree.place(number, page, k, whole=False)
                    if place not in known:
                        known.append(place)
                elif depth > 1:
                    self._collect(tree, tree.child(page, k), depth - 1)
            except DamageError:
                self.is_whole = False

    def keys(self, prefix: bytes) -> list[bytes]:
        """All keys that begin with `prefix`, ascending."""
        return sorted(key for key in self._places if key.startswith(prefix))

    def values(self, key: bytes) -> Iterator[bytes]:
        """What may be the value of a key, cut where the file is."""
        for place in self._places.get(key, ()):
            yield bytes(self._data[place.offset : place.offset + place.n_bytes])

    def records(self, key: bytes) -> Iterator[Any]:
        """What may be the record under a key, as far as it passes its checksum."""
        for value in self.values(key):
            try:
                yield decode(value)
            except DamageError:
                continue

    def get(self, key: bytes) -> bytes | None:
        """The first value whose record passes its checksum (`pages.Source`)."""
        for value in self.values(key):
            try:
                decode(value)
            except DamageError:
                continue
            return value
        return None

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `first` on, with `get` (`pages.Source`)."""
        for key in sorted(key for key in self._places if key >= first):
            value = self.get(key)
            if value is not None:
                yield key, value

    def before(self, key: bytes) -> tuple[bytes, bytes] | None:
        """The last key up to this one, with `get` (`pages.Source`)."""
        found = max((k for k in self._places if k <= key), default=None)
        value = None if found is None else self.get(found)
        return None if found is None or value is None else (found, value)


def _metas(fd: int) -> list[Meta]:
    """What can be read of the first two pages."""
    found = [read_meta(fd, 0), *(read_meta(fd, size) for size in _SIZES)]
    return [meta for meta in found if meta is not None]


def _pages(data: mmap.mmap, size: int, kind: int) -> list[int]:
    """Numbers of all pages of a kind."""
    n = len(data) // size
    heads = np.frombuffer(data, np.uint8)[: n * size].reshape(n, size)[:, :PAGE_HEADER_BYTES].copy()
    own = heads[:, :8].copy().view(np.uint64)[:, 0] == np.arange(n, dtype=np.uint64)
    return np.flatnonzero(own & (heads[:, 10:12].copy().view(np.uint16)[:, 0] == kind)).tolist()


def repair(path: str | os.PathLike[str], new: str | os.PathLike[str]) -> RepairReport:
    """Write every intact track of a damaged or truncated index into a new one, under the id it had.

    Parameters
    ----------
    path : path-like
        The damaged index, which stays as it is. Nobody must write to it meanwhile.
    new : path-like
        The new one; nothing may lie there.

    Raises
    ------
    StoreError
        If the file is no index or not even its header can be read, or the new one cannot be written.
    LockedError
        If somebody writes to the index.
    """
    name, target = os.path.realpath(path), os.path.realpath(new)
    if os.path.lexists(target):
        raise StoreError(f"{shown(target)} exists already; name another file for what is saved")
    try:
        lock = WriterLock(name) if os.path.isfile(name) else None
    except LockedError:
        raise
    except StoreError:  # on a medium that cannot be written, nobody does
        lock = None
    try:
        with open(name, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return _saved(_Wreck(file.fileno(), data), name, target)
    except ValueError:
        raise StoreError(f"{shown(name)} is empty; there is nothing to save") from None
    except OSError as error:
        raise StoreError(f"index {shown(name)} cannot be read: {error.strerror}") from None
    finally:
        if lock is not None:
            lock.release()


def _saved(wreck: _Wreck, path: str, target: str) -> RepairReport:
    try:
        header = read_header(wreck, path)
    except MismatchError:
        raise
    except (StoreError, DamageError):
        raise StoreError(
            f"{shown(path)} is no index, or has lost its header, which tells what its hashes are; nothing can be saved"
        ) from None
    state, lost = _state(wreck)
    if not wreck.is_whole:
        lost.append(
            "some pages of the tree of keys: what was last told of a recording, such as its other paths"
        )
    damaged: list[DamageError] = []  # their tracks are told below as lost
    named = {
        track.track_id: track for _, page in tracks.pages(wreck, damaged=damaged.append) for track in page
    }
    for key in wreck.keys(tracks.FIRST_PAGE):
        if wreck.get(key) is None:
            lost.append("up to 256 recordings: the page of their names is damaged")
    saved: dict[int, Track] = {}
    lock = WriterLock(target)
    try:
        with new_file(target) as env, making(env) as change:
            for number in state.segments:
                sound: dict[int, NDArray[np.uint64]] = {}
                for track_id, hashes in _tracks_of(wreck, number, header, lost):
                    track = named.get(track_id)
                    if track_id in state.removed or track_id in saved:
                        continue
                    if track is None:
                        lost.append(f"track {track_id}: its name is damaged")
                    elif track.n_hashes == len(hashes):
                        sound[track_id] = hashes
                        saved[track_id] = track
                if sound:
                    part = segment.plain(list(sound.values()), list(sound), header.words)
                    counts = np.diff(part.starts)
                    assert part.checksums is not None
                    change.add_segment(Gathered(part.hashes, part.track_ids, counts, part.checksums))
            kept = [saved[track_id] for track_id in sorted(saved)]
            change.state = replace(
                change.state,
                segments=list(range(1, change.state.next_segment)),
                next_track=max([state.next_track, *(track_id + 1 for track_id in saved)]),
                n_tracks=len(kept),
                duration_s=sum(track.duration_s for track in kept),
            )
            write_header(change, header)
            tracks.append(change.txn, kept)
        put_in_place(new_name(target), target)
    finally:
        lock.release()
    lost += [
        f"track {track_id} ({shown(track.path)}): its hashes are damaged"
        for track_id, track in sorted(named.items())
        if track_id not in saved and track_id not in state.removed
    ]
    return RepairReport(tuple(sorted(saved)), tuple(lost))


def _state(wreck: _Wreck) -> tuple[State, list[str]]:
    """The newest state; where none can be read, one of all segments that there are."""
    states = [State(**record) for record in wreck.records(STATE)]
    if not states:
        numbers = sorted({segment_of(key) for key in wreck.keys(part_key(0)[:1])}, reverse=True)
        return State(segments=numbers), [
            "the list of what is in use: recordings that were removed may be back"
        ]
    newest = max(states, key=lambda state: state.transaction)
    if newest.transaction == wreck.transaction:
        return newest, []
    lost = "the newest list of what is in use: it may lack recordings, or hold some that were removed"
    return newest, [f"{lost} (change {wreck.transaction}; used is that of {newest.transaction})"]


def _tracks_of(
    wreck: _Wreck, number: int, header: IndexHeader, lost: list[str]
) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Ids and hashes of a segment's sound tracks."""
    for record in wreck.records(part_key(number, segment.RECORD)):
        layout = segment.Layout(**record)
        break
    else:
        lost.append(f"the tracks of segment {number}: its record is damaged")
        return
    row_bytes = 8 * header.words
    found = set()
    for listed in wreck.values(part_key(number, segment.TRACKS)):
        if len(listed) != layout.sizes()[segment.TRACKS]:
            continue
        track_ids, counts, checksums = np.frombuffer(listed, np.uint32).reshape(segment.TRACK_ROWS, -1)
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).tolist()
        for data in wreck.values(part_key(number, segment.HASHES)):
            for k, track_id in enumerate(track_ids.tolist()):
                rows = data[row_bytes * starts[k] : row_bytes * starts[k + 1]]
                if track_id in found or len(rows) < row_bytes * int(counts[k]):
                    continue
                hashes = np.frombuffer(rows, np.uint64).reshape(-1, header.words)
                if segment.checksum(hashes, track_id) == int(checksums[k]):
                    found.add(track_id)
                    yield track_id, hashes
