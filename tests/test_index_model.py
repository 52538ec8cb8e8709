"""Any sequence of changes: an index holds, and finds, what a plain model of it says."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from codes import Model, activations, fingerprint, noisy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from samaf.index import Index, TrackInfo, change, segment
from samaf.search import Searcher

MODEL = Model.make()
MODEL_ID = MODEL.weights.model_id
RNG = np.random.default_rng(11)
RECORDINGS = [activations(20.3, RNG) for _ in range(10)]
SONGS = st.sets(st.integers(0, len(RECORDINGS) - 1), min_size=1, max_size=4)


def created(path: Path) -> Index:
    return Index.create(path, model_id=MODEL_ID, bits=128, hop_s=1.0, query_hop_s=0.1)


def item(song: int):  # type: ignore[no-untyped-def]
    info = TrackInfo(f"/m/{song}.wav", digest=f"{song:02}", size_bytes=song)
    return info, fingerprint(RECORDINGS[song], MODEL_ID, step=10)


class Changes(RuleBasedStateMachine):
    """Small tables and small transactions, so that short sequences meet all of what an index does."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patches = [
            patch.object(change, "TRANSACTION_BYTES", 600),
            patch.object(segment, "TABLE_ROWS", 70),
        ]
        for each in self.patches:
            each.start()
        self.index = created(self.folder / "x.db")
        self.tracks: dict[int, int] = {}  # id -> song
        self.aliases: dict[int, list[str]] = {}
        self.next_track = 1

    def teardown(self) -> None:
        self.index.close()
        for each in self.patches:
            each.stop()
        shutil.rmtree(self.folder)

    def _added(self, songs: list[int]) -> list[int]:
        ids = list(range(self.next_track, self.next_track + len(songs)))
        self.next_track += len(songs)
        self.tracks |= dict(zip(ids, songs, strict=True))
        return ids

    @rule(songs=SONGS)
    def add(self, songs: set[int]) -> None:
        new = sorted(songs - set(self.tracks.values()))
        assert self.index.add([item(song) for song in new]) == self._added(new)

    @precondition(lambda self: self.tracks)
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(sorted(self.tracks)))
        song = self.tracks.pop(old)
        self.aliases.pop(old, None)
        assert self.index.add([item(song)], replacing=[old]) == self._added([song])

    @rule(ids=st.sets(st.integers(-1, 30), max_size=6))
    def remove(self, ids: set[int]) -> None:
        known = ids & self.tracks.keys()
        assert self.index.remove(ids) == len(known)
        for number in known:
            del self.tracks[number]
            self.aliases.pop(number, None)

    @precondition(lambda self: self.tracks)
    @rule(data=st.data(), name=st.integers(0, 3))
    def add_alias(self, data: st.DataObject, name: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.tracks)))
        path = f"/alias/{number}/{name}"
        self.index.add_alias(number, path)
        others = [other for other in self.aliases.get(number, []) if other != path]
        self.aliases[number] = [*others, path]  # what is said again, is said last

    @precondition(lambda self: any(self.aliases.values()))
    @rule(data=st.data())
    def drop_alias(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(k for k, v in self.aliases.items() if v)))
        path = data.draw(st.sampled_from(self.aliases[number]))
        assert self.index.drop_path(path).track_id == number  # type: ignore[union-attr]
        self.aliases[number].remove(path)

    @rule(shrink=st.booleans())
    def compact(self, shrink: bool) -> None:
        self.index.compact(shrink=shrink)
        assert self.index.stats().n_removed == 0

    @rule(songs=SONGS)
    def import_others(self, songs: set[int]) -> None:
        known = set(self.tracks.values())
        with created(self.folder / "other.db") as other:
            other.add([item(song) for song in sorted(songs)])
            other.export_to(self.folder / "exported")
        (self.folder / "other.db").unlink()
        report = self.index.import_from(self.folder / "exported")
        assert report.n_skipped == len(songs & known)
        assert list(report.added) == self._added(sorted(songs - known))

    @rule()
    def open_again(self) -> None:
        self.index.close()
        self.index = Index.open(self.folder / "x.db", readonly=False)

    @rule(song=st.integers(0, len(RECORDINGS) - 1), start=st.integers(0, 120), exhaustive=st.booleans())
    def search(self, song: int, start: int, exhaustive: bool) -> None:
        values = noisy(RECORDINGS[song][start : start + 70], 0.4, np.random.default_rng(3))
        found = Searcher(self.index, MODEL.weights).search(
            fingerprint(values, MODEL_ID), exhaustive=exhaustive
        )
        assert [match.track_id for match in found] == [k for k, s in self.tracks.items() if s == song]

    @invariant()
    def holds_what_it_should(self) -> None:
        with Index.open(self.folder / "x.db") as reader:
            listed = {track.track_id: track for track in reader.tracks()}
            assert {number: track.size_bytes for number, track in listed.items()} == self.tracks
            for number, track in listed.items():
                assert [alias.path for alias in track.aliases] == self.aliases.get(number, [])
                assert reader.find_path(track.path) == track == reader.find_digest(track.digest)
            with reader.snapshot() as snapshot:
                held = {}
                for part in snapshot.segments:
                    for k, number in enumerate(part.track_ids.tolist()):
                        if number not in snapshot.removed:
                            held[number] = part.hashes[part.starts[k] : part.starts[k + 1]]
            assert held.keys() == self.tracks.keys()
            for number, song in self.tracks.items():
                assert (held[number] == item(song)[1].hashes).all()
            assert reader.verify().ok


Changes.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_changes = Changes.TestCase
