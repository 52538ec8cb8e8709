"""Is an index whole? Every byte in use is looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from samaf.errors import StoreError
from samaf.index import tracks
from samaf.index.codec import DamageError
from samaf.index.explain import explaining
from samaf.index.mapped import Pinned
from samaf.index.pages import Tree
from samaf.index.segment import Stored
from samaf.index.state import State, check_turn, part_key


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


def verify(pinned: Pinned, path: str) -> VerifyReport:
    """Check the index at `path` in one state; others may search and write meanwhile."""
    found = pinned.problems()
    state, rows = State(), 0
    counted: list[tuple[int, int]] = []
    try:
        with explaining(path):
            state = check_turn(pinned.tree) or State()
            for number in state.segments:
                try:
                    stored = Stored(pinned.tree, number, part_key(number))
                except DamageError as error:
                    found.append(str(error))
                    continue
                found += stored.problems(pinned)
                rows += stored.layout.n_rows
                counts = (stored.starts[1:] - stored.starts[:-1]).tolist()
                counted += zip(stored.track_ids.tolist(), counts, strict=True)
            found += _tracks(pinned.tree, state, counted)
    except StoreError as error:
        found.append(str(error))
    return VerifyReport(tuple(found), state.n_tracks, len(state.segments), rows)


def _tracks(tree: Tree, state: State, counted: list[tuple[int, int]]) -> Iterator[str]:
    rows = dict(counted)
    if len(rows) != len(counted):
        yield "a track lies in several segments"
    removed = set(state.removed)
    for track_id in sorted(removed - rows.keys()):
        yield f"track {track_id} is marked as removed but lies in no segment"
    expected: dict[bytes, set[int]] = defaultdict(set)
    known: set[int] = set()
    previous, duration_s = 0, 0.0
    damaged: list[DamageError] = []
    try:
        for _, page in tracks.pages(tree, damaged=damaged.append):
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
    yield from map(str, damaged)
    for number in sorted(rows.keys() - known - removed):
        yield f"track {number} has hashes but no record"
    if len(known) != state.n_tracks or abs(duration_s - state.duration_s) > 1e-3 + 1e-9 * duration_s:
        counters = f"{state.n_tracks} of {state.duration_s:.3f} s"
        yield f"{len(known)} tracks of {duration_s:.3f} s instead of {counters}"
    stored = {key: set(numbers) for key, numbers in tracks.all_links(tree)}
    wrong = sum(stored.get(key) != expected.get(key) for key in stored.keys() | expected.keys())
    if wrong:
        yield f"{wrong} lookups by path or content do not fit the tracks"
