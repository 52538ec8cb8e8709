"""Is an index whole? Every byte in use is looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from samaf.errors import StoreError
from samaf.index import segment, tracks
from samaf.index.codec import DamageError
from samaf.index.environment import Environment, structure
from samaf.index.state import State, getter, read_state

_TRIES = 3


@dataclass(frozen=True)
class VerifyReport:
    """What `Index.verify` found: one line per problem, none for a whole index."""

    problems: tuple[str, ...]
    n_tracks: int
    n_segments: int
    n_hashes: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(env: Environment) -> VerifyReport:
    """Check an open index; others may search and write meanwhile."""
    found = _structure(env)
    if found:  # LMDB itself may stumble over such pages, so nothing is read through it
        return VerifyReport(tuple(found), 0, 0, 0)
    state, rows = State(), 0
    try:
        with env.reading() as txn:
            state = read_state(txn)
            for number in state.segments:
                found.extend(segment.problems(getter(txn, number), number))
            if not found:
                forms = [segment.read(getter(txn, number), number) for number in state.segments]
                rows = sum(map(len, forms))
                counted = [
                    (track_id, count)
                    for form in forms
                    for track_id, count in zip(
                        form.track_ids.tolist(), (form.starts[1:] - form.starts[:-1]).tolist(), strict=True
                    )
                ]
                found.extend(_tracks(txn, state, counted))
    except StoreError as error:
        found.append(str(error))
    return VerifyReport(tuple(found), state.n_tracks, len(state.segments), rows)


def _structure(env: Environment) -> list[str]:
    """Walk the pages; a writer that commits meanwhile moves them, which looks like damage, so then again."""
    for _ in range(_TRIES):
        before = env.last_transaction()
        found = structure(env.path)
        if not found or env.last_transaction() == before:
            return found
    return []


def _tracks(txn: Any, state: State, counted: list[tuple[int, int]]) -> Iterator[str]:
    rows = dict(counted)
    if len(rows) != len(counted):
        yield "a track lies in several segments"
    removed = set(state.removed)
    for track_id in sorted(removed - rows.keys()):
        yield f"track {track_id} is marked as removed but lies in no segment"
    expected: dict[bytes, set[int]] = defaultdict(set)
    known: set[int] = set()
    previous, duration_s = 0, 0.0
    try:
        for _, page in tracks.pages(txn):
            for track in page:
                number = track.track_id
                if not previous < number < state.next_track:
                    yield f"track {number} is out of order"
                previous = number
                known.add(number)
                duration_s += track.duration_s
                if number in removed:
                    yield f"track {number} is marked as removed but has a record"
                if rows.get(number) != track.n_hashes:
                    yield f"track {number} has {rows.get(number, 'no')} hashes instead of {track.n_hashes}"
                for way in track.links():
                    expected[tracks.link_key(*way)].add(number)
    except DamageError as error:
        yield f"tracks: {error}"
        return
    for number in sorted(rows.keys() - known - removed):
        yield f"track {number} has hashes but no record"
    if len(known) != state.n_tracks or abs(duration_s - state.duration_s) > 1e-3 + 1e-9 * duration_s:
        counters = f"{state.n_tracks} of {state.duration_s:.3f} s"
        yield f"{len(known)} tracks of {duration_s:.3f} s instead of {counters}"
    stored = {key: set(numbers) for key, numbers in tracks.all_links(txn)}
    wrong = sum(stored.get(key) != expected.get(key) for key in stored.keys() | expected.keys())
    if wrong:
        yield f"{wrong} lookups by path or content do not fit the tracks"
