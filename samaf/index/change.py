"""Changes of an index: what is written, and when it becomes visible.

Every change ends in one LMDB commit: visible wholly or not at all, and kept when the process is killed. Values too
large for one transaction are written ahead, under a segment number that the state does not list; the commit
that lists it makes them visible, and what a kill leaves behind unlisted is deleted by the next writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.index import merge, segment, tracks
from samaf.index.codec import DamageError, encode
from samaf.index.environment import Environment, writing
from samaf.index.pages import Tree
from samaf.index.snapshot import Snapshot
from samaf.index.state import HEADER, STATE, IndexHeader, State, part_key, read_state, stored_segments
from samaf.index.tracks import Track

# A transaction holds what it writes on the heap until it commits.
TRANSACTION_BYTES = 64 << 20


class Change:
    """A change of an index in the making: first segments, however large, then all the rest in one commit.

    Parameters
    ----------
    env : Environment
    tree : Tree, optional
        The state that is changed, as readers see it; None in a new file.

    Attributes
    ----------
    txn : Transaction
        The present one; others may have been committed before it.
    state : State
        What will be visible.
    wrote_ahead : bool
        Whether there is something to be deleted if the change fails.
    """

    def __init__(self, env: Environment, tree: Tree | None = None) -> None:
        self.env, self.tree = env, tree
        self.txn = env.begin()
        self.state = State() if tree is None else read_state(self.txn)
        if tree is not None and tree.meta.transaction != self.txn.number - 1:
            self.txn.abort()
            raise DamageError(f"change {self.txn.number} does not follow {tree.meta.transaction}")
        self._visible = replace(self.state)
        self._dirty_bytes = 0
        self.wrote_ahead = False

    def _put_part(self, key: bytes, value: Any) -> None:
        if self._dirty_bytes and self._dirty_bytes + len(value) > TRANSACTION_BYTES:
            self._commit(self._visible)
            self.wrote_ahead = True
            self.txn = self.env.begin()
            self._dirty_bytes = 0
        self.txn.put(key, value)
        self._dirty_bytes += len(value)

    def _commit(self, state: State) -> None:
        self.txn.put(STATE, encode(asdict(replace(state, transaction=self.txn.number))))
        self.txn.commit()

    def add_segment(self, gathered: merge.Gathered) -> int:
        """Write one segment, not yet visible; returns its number. All segments come before anything else."""
        segment_id = self.state.next_segment
        self.state.next_segment += 1
        self.delete_segment(segment_id)  # what a failed change may have left under this number
        segment.write(lambda name, value: self._put_part(part_key(segment_id, name), value), *gathered)
        return segment_id

    def copy_segment(self, tree: Tree, segment_id: int) -> int:
        """Write a segment of another file as it is; returns its number here."""
        new_id = self.state.next_segment
        self.state.next_segment += 1
        prefix = part_key(segment_id)
        for key, place in tree.places(prefix):
            self._put_part(part_key(new_id, key[len(prefix) :]), tree.read(place))
        return new_id

    def delete_segment(self, segment_id: int) -> None:
        """Delete a segment's values, as far as the state before has them."""
        if self.tree is not None:
            for key, _ in self.tree.places(part_key(segment_id)):
                self.txn.delete(key)

    def commit(self) -> None:
        """Make everything visible at once."""
        self._commit(self.state)


def write_header(change: Change, header: IndexHeader) -> None:
    """Store the header of a new index."""
    change.txn.put(HEADER, encode(asdict(header)))


@contextmanager
def making(env: Environment, tree: Tree | None = None) -> Iterator[Change]:
    """Make one change of a file: committed at the end of the block, undone where it raises.

    What it has written ahead is left to `clean`.
    """
    with writing(env.name):
        change = Change(env, tree)
        try:
            yield change
            change.commit()
        except BaseException:
            change.txn.abort()
            raise


def clean(env: Environment, tree: Tree) -> None:
    """Delete the segments that a killed or failed change has left behind."""
    with writing(env.name):
        live = set(read_state(tree).segments)
        left = {number: keys for number, keys in stored_segments(tree).items() if number not in live}
    if left:
        with making(env, tree) as change:
            for keys in left.values():
                for key in keys:
                    change.txn.delete(key)


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
        new_segments.append(change.add_segment(merge.gather([*joined, own], dead, words)))
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
        former = tracks.put(change.txn, track_id, None)
    except KeyError:
        return False
    state = change.state
    state.removed.append(track_id)
    state.n_tracks -= 1
    state.duration_s = state.duration_s - former.duration_s if state.n_tracks else 0.0
    return True


def compact(snapshot: Snapshot, change: Change) -> None:
    """Join all segments, without removed tracks, in the same file or into an empty one."""
    same = change.tree is not None
    state, words = change.state, snapshot.header.words
    kept: list[int] = []
    if not same:
        change.state = state = replace(snapshot.state)
        tracks.copy_links(snapshot.tree, change.txn)
    for group in merge.groups([len(part) for part in snapshot.segments]):
        members = [snapshot.segments[i] for i in group]
        clean_already = not any(snapshot.removed.intersection(part.track_ids.tolist()) for part in members)
        if len(members) == 1 and clean_already:
            number = members[0].segment_id
            kept.append(number if same else change.copy_segment(snapshot.tree, number))
            continue
        joined = merge.gather(members, snapshot.removed, words)
        if len(joined.track_ids):
            kept.append(change.add_segment(joined))
    if same:
        drop(change, [part.segment_id for part in snapshot.segments if part.segment_id not in kept])
    else:
        write_header(change, snapshot.header)
        tracks.copy_pages(snapshot.tree, change.txn)
    state.segments, state.removed = kept, []
