"""Changes of an index: what is written, and when it becomes visible.

Every change is one LMDB commit: visible wholly or not at all, and kept when the process is killed. Values too
large for one transaction are written ahead, under a segment number that the state does not list; the commit
that lists it makes them visible, and what a kill leaves behind unlisted is deleted by the next writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from samaf.index import merge, segment, tracks
from samaf.index.codec import encode
from samaf.index.environment import Environment, explaining
from samaf.index.snapshot import Snapshot
from samaf.index.state import HEADER, STATE, IndexHeader, State, part_key, parts, read_state, stored_segments
from samaf.index.tracks import Track

# A transaction holds what it writes on the heap until it commits.
TRANSACTION_BYTES = 64 << 20


class Change:
    """A change of an index in the making: first segments, however large, then all the rest in one commit."""

    def __init__(self, env: Environment, state: State) -> None:
        self.env = env
        self.state = state
        self.txn = env.begin(write=True)
        self._dirty_bytes = 0

    def _put_part(self, key: bytes, value: Any) -> None:
        if self._dirty_bytes and self._dirty_bytes + len(value) > TRANSACTION_BYTES:
            self.txn.commit()
            self.txn = self.env.begin(write=True)
            self._dirty_bytes = 0
        self.txn.put(key, value)
        self._dirty_bytes += len(value)

    def add_segment(self, hashes: NDArray[np.uint64], track_ids: NDArray[Any], counts: NDArray[Any]) -> int:
        """Write one segment, not yet visible; returns its number. All segments come before anything else."""
        segment_id = self.state.next_segment
        self.state.next_segment += 1
        self.delete_segment(segment_id)  # what a failed change may have left under this number
        segment.write(
            lambda name, value: self._put_part(part_key(segment_id, name), value), hashes, track_ids, counts
        )
        return segment_id

    def copy_segment(self, txn: Any, segment_id: int) -> int:
        """Write a segment of another environment as it is; returns its number here."""
        new_id = self.state.next_segment
        self.state.next_segment += 1
        for name, value in parts(txn, segment_id):
            self._put_part(part_key(new_id, name), value)
        return new_id

    def delete_segment(self, segment_id: int) -> None:
        """Delete a segment's values."""
        for name in [name for name, _ in parts(self.txn, segment_id)]:
            self.txn.delete(part_key(segment_id, name))

    def commit(self) -> None:
        """Make everything visible at once."""
        self.txn.put(STATE, encode(asdict(self.state)))
        self.txn.commit()


def write_header(change: Change, header: IndexHeader) -> None:
    """Store the header of a new index."""
    change.txn.put(HEADER, encode(asdict(header)))


@contextmanager
def making(env: Environment, state: State) -> Iterator[Change]:
    """Make one change that ends in `state`: committed at the end of the block, undone where it raises."""
    with explaining(env.name):
        change = Change(env, state)
        try:
            yield change
            change.commit()
        except BaseException:
            with suppress(lmdb.Error):
                change.txn.abort()
            raise


@contextmanager
def changing(env: Environment) -> Iterator[Change]:
    """Make one change of what is visible now; see `making`."""
    with env.reading() as txn:
        state = read_state(txn)
    before = state.next_segment
    try:
        with making(env, state) as change:
            yield change
    except BaseException:
        if state.next_segment != before:
            with suppress(Exception):  # what cannot be deleted now, the next writer deletes
                clean(env)
        raise


def clean(env: Environment) -> None:
    """Delete the segments that a killed or failed change has left behind."""
    with explaining(env.name), env.reading() as txn:
        live = set(read_state(txn).segments)
        stored = stored_segments(txn)
    if stored - live:
        with changing(env) as change:
            for number in stored - live:
                change.delete_segment(number)


def full_segments(
    new: Sequence[tuple[Track, NDArray[np.uint64]]],
) -> Iterator[list[tuple[Track, NDArray[np.uint64]]]]:
    """Split tracks into runs that fit one segment each."""
    run: list[tuple[Track, NDArray[np.uint64]]] = []
    rows = 0
    for track, hashes in new:
        if len(hashes) > segment.MAX_ROWS:
            raise ValueError(f"a track of {len(hashes)} hashes does not fit a segment")
        if run and rows + len(hashes) > segment.MAX_ROWS:
            yield run
            run, rows = [], 0
        run.append((track, hashes))
        rows += len(hashes)
    if run:
        yield run


def ingest(
    snapshot: Snapshot,
    change: Change,
    batches: Iterable[Sequence[tuple[Track, NDArray[np.uint64]]]],
    replacing: Iterable[int] = (),
) -> list[int]:
    """Store tracks under new ids, a segment per batch, which swallows the old ones that the policy names.

    Parameters
    ----------
    snapshot : Snapshot
        The state before the change.
    change : Change
    batches : iterable of sequences of (Track, uint64 (n, w))
        The tracks' own ids are ignored.
    replacing : iterable of int
        Tracks to take out in the same moment.

    Returns
    -------
    list of int
        The new ids, in order.
    """
    state, words = change.state, snapshot.header.words
    outgoing = set(replacing)
    dead = snapshot.removed | outgoing
    live = list(snapshot.segments)
    new_segments: list[int] = []
    added: list[Track] = []
    for batch in batches:
        named = [replace(track, track_id=state.next_track + i) for i, (track, _) in enumerate(batch)]
        state.next_track += len(named)
        added += named
        own = segment.plain([hashes for _, hashes in batch], [track.track_id for track in named], words)
        chosen = merge.plan([len(part) for part in live], len(own))
        joined = [live[i] for i in chosen]
        live = [part for i, part in enumerate(live) if i not in chosen]
        new_segments.append(change.add_segment(*merge.gather([*joined, own], dead, words)))
    # From here on, all is in the one transaction that `commit` ends.
    for track_id in sorted(outgoing):
        forget(change, track_id)
    staying = {part.segment_id for part in live}
    drop(change, [part.segment_id for part in snapshot.segments if part.segment_id not in staying])
    state.segments = [part.segment_id for part in live] + new_segments
    if state.removed:  # those whose rows the merge has left out are gone for good
        buried = {track_id for part in live for track_id in part.track_ids.tolist()}
        state.removed = sorted(buried.intersection(state.removed))
    tracks.append(change.txn, added)
    state.n_tracks += len(added)
    state.duration_s += sum(track.duration_s for track in added)
    return [track.track_id for track in added]


def drop(change: Change, segment_ids: Iterable[int]) -> None:
    """Delete segments whose tracks have moved to others."""
    for number in segment_ids:
        change.delete_segment(number)


def forget(change: Change, track_id: int) -> bool:
    """Take a track out, its hashes staying as dead rows until a merge; False if there is no such track."""
    try:
        former = tracks.change(change.txn, track_id, None)
    except KeyError:
        return False
    state = change.state
    state.removed.append(track_id)
    state.n_tracks -= 1
    state.duration_s = state.duration_s - former.duration_s if state.n_tracks else 0.0
    return True


def compact(snapshot: Snapshot, change: Change) -> None:
    """Join all segments, without removed tracks, in the same environment or into an empty one."""
    same = change.env is snapshot.env
    state, words = change.state, snapshot.header.words
    kept: list[int] = []
    if not same:
        tracks.copy_links(snapshot.txn, change.txn)
    for group in merge.groups([len(part) for part in snapshot.segments]):
        members = [snapshot.segments[i] for i in group]
        clean_already = not any(snapshot.removed.intersection(part.track_ids.tolist()) for part in members)
        if len(members) == 1 and clean_already:
            number = members[0].segment_id
            kept.append(number if same else change.copy_segment(snapshot.txn, number))
            continue
        joined = merge.gather(members, snapshot.removed, words)
        if len(joined[1]):
            kept.append(change.add_segment(*joined))
    if same:
        drop(change, [part.segment_id for part in snapshot.segments if part.segment_id not in kept])
    else:
        write_header(change, snapshot.header)
        tracks.copy_pages(snapshot.txn, change.txn)
    state.segments, state.removed = kept, []
