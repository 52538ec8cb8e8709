from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import lmdb
import lmdb.verify
import numpy as np
import pytest
from prints import MODEL, fill, info_of, new_index, print_of, stored

from samaf.errors import LockedError, MismatchError, StoreError
from samaf.index import Index, TrackInfo, change, segment, state
from samaf.index.codec import DamageError, decode, encode
from samaf.index.tracks import Alias, Track


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "music.samafdb"


def beside(path: Path) -> set[str]:
    return {p.name.removeprefix(path.name) for p in path.parent.iterdir()}


# -- what is stored comes back --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [64, 128, 256])
def test_add_and_read(path: Path, bits: int) -> None:
    with new_index(path, bits) as index:
        assert fill(index, range(3)) == [1, 2, 3]
        assert fill(index, range(3, 8)) == [4, 5, 6, 7, 8]
        assert fill(index, range(0)) == []
    with Index.open(path) as index:
        assert (index.header.bits, index.header.model_id, index.header.model_name) == (bits, MODEL, "test")
        for track_id, hashes in stored(index).items():
            assert np.array_equal(hashes, print_of(50, track_id - 1, bits).hashes)
        track = index.track(5)
        assert (track.path, track.title, track.n_hashes) == ("/music/4/4.flac", "4", 50)
        assert track.duration_s == print_of(50, 4).duration_s
        assert (track.size_bytes, track.mtime_ns, track.digest) == (4, 4 * 10**9, info_of(4).digest)
        assert [t.track_id for t in index.tracks()] == list(range(1, 9))
        stats = index.stats()
        assert (stats.n_tracks, stats.n_hashes, stats.n_removed) == (8, 400, 0)
        assert stats.n_invalid == sum((~print_of(50, seed, bits).valid).sum() for seed in range(8))
        assert stats.duration_s == pytest.approx(400 + 28 / 16000)
        assert stats.bytes_per_hour == pytest.approx(stats.file_bytes / stats.duration_s * 3600)
        assert index.verify().ok
        with index.snapshot() as snapshot:
            assert snapshot.track(5) == track
            assert (snapshot.n_hashes, snapshot.n_tracks) == (400, 8)
            with pytest.raises(KeyError):
                snapshot.track(99)
    assert beside(path) == {""}


def test_lookups_by_path_digest_and_alias(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with new_index(path) as index:
        fill(index, range(5))
        index.add([(TrackInfo("here.wav", title="A title", tags={"artist": "é"}), print_of(9))])
        track = index.find_path("here.wav")
        assert track is not None
        assert (track.path, track.title, dict(track.tags)) == (
            str(path.parent / "here.wav"),
            "A title",
            {"artist": "é"},
        )
        assert index.find_digest("") is None
        assert index.find_digest("ff") is None
        assert index.find_path("/music/0/9.flac") is None
        index.add_alias(2, "copy.wav", 7, 8)
        index.add_alias(2, "copy.wav", 9, 10)
        index.add_alias(2, "/music/1/1.flac", 11, 12)
        found = index.find_path(path.parent / "copy.wav")
        assert found is not None
        assert found.track_id == 2
        assert found.aliases == ((str(path.parent / "copy.wav"), 9, 10),)
        assert (found.size_bytes, found.mtime_ns) == (11, 12)
        assert index.find_digest(info_of(1).digest) == found
        with pytest.raises(StoreError, match="no track 77"):
            index.add_alias(77, "x")
        with pytest.raises(StoreError, match="no track 77"):
            index.track(77)
        assert index.verify().ok


def test_dropping_a_file(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(2))
        index.add_alias(1, "/copy.wav", 7, 8)
        index.add_alias(1, "/other.wav", 9, 10)
        assert index.drop_path("/unknown.wav") is None
        assert index.drop_path("/other.wav").track_id == 1  # type: ignore[union-attr]
        assert index.find_path("/other.wav") is None
        assert index.drop_path(info_of(0).path).path == info_of(0).path  # type: ignore[union-attr]
        heir = index.track(1)
        assert (heir.path, heir.title, heir.size_bytes, heir.aliases) == ("/copy.wav", "copy", 7, ())
        assert index.find_path(info_of(0).path) is None
        assert index.drop_path("/copy.wav") == heir
        assert [t.track_id for t in index.tracks()] == [2]
        assert index.verify().ok


def test_two_tracks_of_one_path(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(1))
        fill(index, range(1))
        assert index.find_path(info_of(0).path).track_id == 2  # type: ignore[union-attr]
        index.remove([2])
        assert index.find_path(info_of(0).path).track_id == 1  # type: ignore[union-attr]
        assert index.find_digest(info_of(0).digest).track_id == 1  # type: ignore[union-attr]
        assert index.verify().ok


def test_names_that_are_no_text(path: Path) -> None:
    odd = os.fsdecode(b"/music/caf\xe9\n.wav")
    with new_index(path) as index:
        index.add([(TrackInfo(odd), print_of(3))])
        assert index.find_path(odd) == index.track(1)
        assert index.track(1).path == odd


def test_removal_merge_and_ids(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(20))
        assert index.remove([3, 4, 3, 99]) == 2
        assert index.remove([3]) == 0
        assert index.stats().n_removed == 2
        assert index.stats().n_tracks == 18
        assert index.find_path(info_of(2).path) is None
        with index.snapshot() as snapshot:
            assert snapshot.removed == {3, 4}
        assert index.verify().ok
        for seed in range(20, 24):
            fill(index, range(seed, seed + 1))
        assert index.stats().n_removed == 0, "a merge has purged them"
        assert index.stats().n_hashes == 22 * 50
        assert index.remove(range(1, 100)) == 22
        assert index.stats().duration_s == 0
        index.compact()
        assert index.stats().segments == ()
        assert index.verify().ok
        assert fill(index, range(2)) == [25, 26], "ids are never used twice"


def test_replacing_is_one_change(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(3))
        assert index.add([(info_of(1), print_of(70, 9))], replacing=[2, 50]) == [4]
        assert [t.track_id for t in index.tracks()] == [1, 3, 4]
        assert index.find_path(info_of(1).path).n_hashes == 70  # type: ignore[union-attr]
        assert index.verify().ok


def test_pages_of_tracks(path: Path) -> None:
    with new_index(path) as index:
        for first in range(0, 700, 100):
            fill(index, range(first, first + 100), n=1)
        assert [t.track_id for t in index.tracks()] == list(range(1, 701))
        index.remove(range(200, 520))
        assert [t.track_id for t in index.tracks()] == [*range(1, 200), *range(520, 701)]
        for after in (0, 1, 150, 199, 300, 519, 520, 600, 700, 10**30):
            expected = [one for one in (*range(1, 200), *range(520, 701)) if one > after]
            assert [t.track_id for t in index.tracks(after=after)] == expected
        for number in (1, 199, 520, 700):
            assert index.track(number).title == str(number - 1)
        for number in (0, 200, 300, 519, 701):
            with pytest.raises(StoreError):
                index.track(number)
        index.compact()
        assert [t.track_id for t in index.tracks()] == [*range(1, 200), *range(520, 701)]
        assert index.verify().ok


def test_a_track_s_record_of_any_age_can_be_read() -> None:
    """Before tracks had a warning, a record had 9 or 11 values."""
    track = Track(7, "/m/a.wav", "a", 5.0, 5, "d", 1, 2, added=3.0)
    tagged = replace(track, tags={"artist": "é"}, aliases=(Alias("/m/b.wav", 1, 2),))
    warned = replace(track, warning="is cut off")
    for one, length in ((track, 9), (tagged, 11), (warned, 12), (replace(tagged, warning="x"), 12)):
        record = json.loads(json.dumps(one.to_record()))
        assert len(record) == length and Track.from_record(record) == one
        with pytest.raises(DamageError):
            Track.from_record([*record, 1, 2])


def test_recordings_without_hashes_do_no_harm(path: Path) -> None:
    with new_index(path) as index:
        index.add(
            [(TrackInfo("a"), print_of(0)), (TrackInfo("b"), print_of(5)), (TrackInfo("c"), print_of(0))]
        )
        index.add([(TrackInfo("d"), print_of(0))])
        assert {k: len(v) for k, v in stored(index).items()} == {1: 0, 2: 5, 3: 0, 4: 0}
        index.remove([3])
        index.compact()
        assert sorted(stored(index)) == [1, 2, 4]
        assert index.verify().ok


def test_size_of_ten_hours(path: Path) -> None:
    with new_index(path) as index:
        for first in range(0, 532, 28):
            fill(index, range(first, first + 28), n=71)
        assert len(index.stats().segments) < 8
        index.compact()
        stats = index.stats()
        assert len(stats.segments) == 1
        assert stats.n_hashes == 37772
        assert stats.file_bytes < 700_000
        assert stats.file_bytes == path.stat().st_size


def test_tables_and_large_values(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "TRANSACTION_BYTES", 1 << 20)  # several transactions for each segment
    with new_index(path) as index:
        fill(index, range(2), n=70_000)
        with index.snapshot() as snapshot:
            (part,) = snapshot.segments
            assert part.width_bits == 13
            assert not part.hashes.flags.owndata
            assert not part.hashes.flags.writeable
        assert index.verify().ok
        fill(index, range(2, 4), n=70_000)
        index.remove([1])
        index.compact()
        assert index.stats().n_hashes == 210_000
        assert index.verify().ok
        assert np.array_equal(stored(index)[4], print_of(70_000, 3).hashes)


def test_segments_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MAX_ROWS", 120)
    with new_index(path) as index:
        fill(index, range(7))
        assert [s.rows for s in index.stats().segments] == [100, 100, 100, 50]
        index.compact()
        assert max(s.rows for s in index.stats().segments) <= 120
        assert len(stored(index)) == 7
        assert index.verify().ok


def test_compaction_within_the_file(path: Path) -> None:
    with new_index(path) as index:
        for seed in range(3):
            fill(index, range(10 * seed, 10 * seed + 10))
        index.remove([1, 11, 21])
        before = path.stat().st_ino
        index.compact(shrink=False)
        assert path.stat().st_ino == before
        assert len(index.stats().segments) == 1
        assert index.stats().n_hashes == 27 * 50
        assert index.verify().ok


# -- snapshots, several users ---------------------------------------------------------------------------------


def test_a_snapshot_does_not_move(path: Path) -> None:
    with new_index(path) as writer, Index.open(path) as reader:
        fill(writer, range(4))
        with reader.snapshot() as snapshot:
            for seed in range(4, 12):
                fill(writer, range(seed, seed + 1))
            writer.remove([1])
            writer.compact()
            fill(writer, range(12, 13))
            assert snapshot.n_tracks == 4
            assert snapshot.removed == frozenset()
            (part,) = snapshot.segments
            assert np.array_equal(part.hashes[50:100], print_of(50, 1).hashes)
            assert snapshot.track(1).title == "0"
        with reader.snapshot() as snapshot:
            assert snapshot.n_tracks == 12
        assert sorted(stored(reader)) == list(range(2, 14))


def test_a_reader_notices_another_index_in_its_place(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(4))
    with Index.open(path) as reader:
        path.unlink()
        with pytest.raises(StoreError, match="deleted"):
            reader.stats()
        with new_index(path, 64) as index:
            fill(index, range(1))
        assert reader.stats().n_tracks == 1
        assert reader.header.bits == 64


def test_threads_read_while_one_writes_and_compacts(path: Path) -> None:
    with new_index(path) as writer:
        fill(writer, range(4))
        stop, errors, seen = threading.Event(), [], []

        def search() -> None:
            try:
                with Index.open(path) as reader:
                    while not stop.is_set():
                        with reader.snapshot() as snapshot:
                            rows = sum(int(part.starts[-1]) for part in snapshot.segments)
                            assert rows == snapshot.n_hashes
                            assert snapshot.n_tracks <= rows / 50
                            for part in snapshot.segments:
                                int(part.hashes.sum())
                            seen.append(snapshot.n_tracks)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for seed in range(4, 40, 4):
            fill(writer, range(seed, seed + 4))
            if seed % 12 == 0:
                writer.remove([seed - 1])
                writer.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(set(seen)) > 1
        assert writer.verify().ok


def test_a_second_writer_is_refused_at_once(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(1))
        with pytest.raises(LockedError, match=rf"process {os.getpid()} is writing to index .*{path.name}"):
            Index.open(path, readonly=False)
        with pytest.raises(LockedError):
            new_index(path)
        code = f"from samaf.index import Index; Index.open({str(path)!r}, readonly=False)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert other.stderr.splitlines()[-1].startswith("samaf.errors.LockedError: process")
        with Index.open(path) as reader:
            assert reader.stats().n_tracks == 1
            with pytest.raises(StoreError, match="open for reading only"):
                reader.add([])
            with pytest.raises(StoreError, match="open for reading only"):
                reader.compact()
    with Index.open(path, readonly=False) as index:
        fill(index, range(1, 2))
    with pytest.raises(StoreError, match="closed"):
        index.stats()
    assert beside(path) == {""}


def test_a_fork_reads_but_does_not_write(path: Path) -> None:
    code = f"""
import os, sys, warnings
from samaf.errors import StoreError
from samaf.index import Index
warnings.simplefilter("ignore")
path = {str(path)!r}
index = Index.open(path, readonly=False)
child = os.fork()
if child == 0:
    try:
        index.remove([1])
    except StoreError as error:
        assert "fork" in str(error), error
        assert index.stats().n_tracks == Index.open(path).stats().n_tracks == 3
        with index.snapshot() as snapshot:
            assert snapshot.segments[0].hashes.any()
        index.close()
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists(path + ".writer")
index.remove([1])
assert index.verify().ok
"""
    with new_index(path) as index:
        fill(index, range(3))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- export and import ----------------------------------------------------------------------------------------


def test_export_and_import(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from samaf.index import transfer

    monkeypatch.setattr(transfer, "_SEGMENT_ROWS", 300)
    out = tmp_path / "out.idx"
    with new_index(path) as index:
        fill(index, range(20))
        index.add_alias(5, "/other/5.flac", 1, 2)
        index.remove([2])
        index.export_to(out)
        original = {t.path: t for t in index.tracks()}
        hashes = stored(index)
    assert beside(out) == {path.name, ""}
    with new_index(tmp_path / "b.db") as other:
        fill(other, range(3))
        report = other.import_from(out)
        assert report.n_skipped == 2
        assert report.added == tuple(range(4, 21))
        for number in report.added:
            track = other.track(number)
            twin = original[track.path]
            assert np.array_equal(stored(other)[number], hashes[twin.track_id])
            assert (track.title, track.duration_s, track.added) == (twin.title, twin.duration_s, twin.added)
        assert other.find_path("/other/5.flac").title == "4"  # type: ignore[union-attr]
        assert other.verify().ok
        assert other.import_from(out).n_skipped == 19
        before = stored(other)
        data = out.read_bytes()
        rng = np.random.default_rng(0)
        for place in [0, 9, 13, 40, *rng.integers(20, len(data), 20).tolist(), len(data) - 1]:
            damaged = bytearray(data)
            damaged[place] ^= 16
            out.write_bytes(damaged)
            with pytest.raises(StoreError, match=r"out\.idx"):
                other.import_from(out)
        for size in (0, 5, 30, len(data) // 2, len(data) - 1):
            out.write_bytes(data[:size])
            with pytest.raises(StoreError, match=r"out\.idx"):
                other.import_from(out)
        assert stored(other).keys() == before.keys()
        with pytest.raises(StoreError, match="cannot be read"):
            other.import_from(tmp_path / "missing")
        with pytest.raises(StoreError, match="directory"):
            other.export_to(tmp_path)
        with pytest.raises(StoreError, match="cannot be written"):
            other.export_to(tmp_path / "no" / "folder")
    out.write_bytes(data)
    with new_index(tmp_path / "c.db", 64) as other, pytest.raises(MismatchError, match="64 bits"):
        other.import_from(out)


# -- what does not fit, is damaged, or has no room ------------------------------------------------------------


def test_fingerprints_of_another_kind_are_refused(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(1))
        other_hop = print_of(5)
        object.__setattr__(other_hop, "hop_s", 0.5)
        for print_, message in (
            (print_of(5, model="b" * 64), "made with model test"),
            (print_of(5, bits=64), "--bits 128"),
            (other_hop, "--hop 1"),
        ):
            with pytest.raises(MismatchError, match=message) as caught:
                index.add([(info_of(1), print_of(5)), (info_of(2), print_)])
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)
        index.check_fits(model_id=MODEL, bits=128, hop_s=1.0)
        assert index.stats().n_tracks == 1


def test_a_change_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "TRANSACTION_BYTES", 1000)
    with new_index(path) as index:
        fill(index, range(2))
        with pytest.raises(ValueError, match="no value of JSON"):
            index.add([(TrackInfo("x", tags={"a": object()}), print_of(500))])  # after the hashes are written
        assert index.stats().n_tracks == 2
        with index.snapshot() as snapshot:
            assert state.stored_segments(snapshot.tree).keys() == set(snapshot.state.segments)
        assert fill(index, range(2, 4)) == [3, 4]
        assert index.verify().ok


def test_missing_and_existing(path: Path) -> None:
    for readonly in (True, False):
        with pytest.raises(StoreError, match=r"there is no index .*samaf index add"):
            Index.open(path, readonly=readonly)
    assert beside(path) == set()
    new_index(path.parent / "a" / "b" / "x.db").close()
    new_index(path).close()
    with pytest.raises(StoreError, match="exists already"):
        new_index(path)
    blocked = path.parent / "file"
    blocked.touch()
    with pytest.raises(StoreError, match="cannot be made"):
        new_index(blocked / "x.db")


def test_things_that_are_no_index(path: Path) -> None:
    def refused(message: str) -> None:
        for readonly in (True, False):
            with pytest.raises(StoreError, match=message) as caught:
                Index.open(path, readonly=readonly)
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)

    path.touch()
    refused("is empty")
    path.write_text("The quick brown fox.\n" * 2000)
    refused("is not an index")
    path.write_bytes(os.urandom(3))
    refused("is not an index")
    path.unlink()
    path.mkdir()
    refused("is a directory")
    path.rmdir()
    os.mkfifo(path)
    refused("no regular file")
    path.unlink()
    for version, message in ((0, "not an index of samaf"), (1, "is not an index")):
        with lmdb.open(str(path), subdir=False, lib_version=version) as env, env.begin(write=True) as txn:
            txn.put(b"a", b"b")
        refused(message)
        path.unlink()
        Path(str(path) + "-lock").unlink()


def edit(path: Path, key: bytes, value: bytes | None) -> None:
    with (
        lmdb.open(str(path), subdir=False, lib_version=0, map_size=1 << 30, lock=False) as env,
        env.begin(write=True) as txn,
    ):
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)
        record = decode(txn.get(state.STATE)) | {"transaction": txn.id()}
        txn.put(state.STATE, encode(record))


def test_another_format_version(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(2))
    header = {"format_version": 99, "something": "new"}
    edit(path, state.HEADER, encode(header))
    with pytest.raises(MismatchError, match="format 99, this samaf reads 2"):
        Index.open(path)


def test_truncated_files(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(50))
    data = path.read_bytes()
    for size in (
        1,
        100,
        4095,
        4096,
        4200,
        8191,
        8192,
        12288,
        len(data) // 2,
        len(data) - 4096,
        len(data) - 1,
    ):
        path.write_bytes(data[:size])
        with pytest.raises(StoreError, match=path.name):
            Index.open(path)
    path.write_bytes(data)
    with Index.open(path) as index:
        assert index.verify().ok


def test_a_file_that_lacks_only_free_pages_is_whole(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(3))
    edit(path, b"z", bytes(100_000))
    for value in (None, b"", None, b"", None):  # the tree moves to the pages that the large value has left
        edit(path, b"z", value)
    page = os.sysconf("SC_PAGESIZE")
    whole = data = path.read_bytes()
    while not lmdb.verify.verify(str(path), subdir=False):
        path.write_bytes(data := data[:-page])
    path.write_bytes(whole[: len(data) + page])
    assert len(whole) - path.stat().st_size > 50_000
    with Index.open(path) as index:
        assert index.stats().n_tracks == 3
    path.write_bytes(data)
    with pytest.raises(StoreError, match="cut short"):
        Index.open(path)


def test_flipped_bytes_are_found(path: Path, tmp_path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(40))
        index.compact()
        needles = [bytes(hashes[:4]) for hashes in list(stored(index).values())[::8]]
    data = path.read_bytes()
    for i, needle in enumerate(needles):
        copy = tmp_path / f"copy{i}"
        damaged = bytearray(data)
        damaged[data.index(needle) + 7] ^= 1
        copy.write_bytes(damaged)
        with Index.open(copy) as index:
            report = index.verify()
            assert not report.ok
            assert "checksum" in report.problems[0]


def test_flipped_bytes_anywhere_never_crash(path: Path, tmp_path: Path) -> None:
    """Each byte of the tree and the records matters; the free ones do not."""
    with new_index(path) as index:
        fill(index, range(3), n=4)
        index.compact()
    code = """
import sys
import numpy as np
from samaf.errors import StoreError
from samaf.index import Index
data = open(sys.argv[1], "rb").read()
rng = np.random.default_rng(0)
found = 0
for i, place in enumerate(rng.integers(0, len(data), 300)):
    path = f"{sys.argv[1]}.{i}"
    damaged = bytearray(data)
    damaged[place] ^= 1 << int(rng.integers(8))
    open(path, "wb").write(damaged)
    try:
        with Index.open(path) as index:
            found += not index.verify().ok
            with index.snapshot() as snapshot:
                [int(part.hashes.sum()) for part in snapshot.segments]
            list(index.tracks())
    except StoreError:
        found += 1
print(found)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


@pytest.mark.parametrize("what", ["track", "lookup", "state", "segment", "record", "tracks"])
def test_tables_that_contradict_each_other_are_found(path: Path, what: str) -> None:
    with new_index(path) as index:
        fill(index, range(5))
        with index.snapshot() as snapshot:
            number = snapshot.state.segments[0]
            values = dict(snapshot.tree.items(b""))
    page = next(key for key in values if key[:1] == b"t")
    if what == "track":
        edit(path, page, encode(decode(values[page])[1:]))
    elif what == "tracks":
        edit(path, page, values[page][:-1])
    elif what == "lookup":
        edit(path, next(key for key in values if key[:1] == b"l"), None)
    elif what == "state":
        edit(path, state.STATE, encode(decode(values[state.STATE]) | {"removed": [1]}))
    elif what == "segment":
        edit(path, state.part_key(number, b"h"), values[state.part_key(number, b"h")][:-16])
    else:
        edit(path, state.part_key(number, b"r"), None)
    with Index.open(path) as index:
        report = index.verify()
        assert report.problems
        if what in ("segment", "record"):
            with pytest.raises(StoreError, match="damaged"), index.snapshot():
                pass


def test_a_full_disk_changes_nothing(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(20))
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from prints import fill, stored
from samaf.errors import StoreError
from samaf.index import Index, change

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

path = {str(path)!r}
with Index.open(path, readonly=False) as index:
    for transaction_bytes in (change.TRANSACTION_BYTES, 1000):
        change.TRANSACTION_BYTES = transaction_bytes
        for size, use in (
            (300_000, lambda: fill(index, range(100, 110), n=5000)),
            (300_000, lambda: fill(index, range(100, 300), n=500)),
            (10_000, lambda: index.compact()),
            (10_000, lambda: index.export_to(path + ".out")),
        ):
            limit(size)
            try:
                use()
            except StoreError as error:
                assert "disk full" in str(error) or "File too large" in str(error), error
            else:
                sys.exit("no error")
            limit(resource.RLIM_INFINITY)
            assert sorted(stored(index)) == list(range(1, 21))
            assert index.verify().ok, index.verify()
    fill(index, range(20, 30))
    assert index.verify().ok
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with Index.open(path) as index:
        assert index.stats().n_tracks == 30
    assert beside(path) == {""}


def test_a_system_that_rations_address_space(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(20))
    code = f"""
import resource
from samaf.index import Index
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
with Index.open({str(path)!r}) as index:
    assert index.verify().ok
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_folder_that_cannot_be_written(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(5))
    for name in beside(path) - {""}:
        Path(str(path) + name).unlink()
    code = """
import os, sys
from samaf.errors import StoreError
from samaf.index import Index
path = sys.argv[1]
if os.geteuid() == 0:
    import numpy as np  # before the rights go, and with them perhaps the interpreter's own files
    from samaf.index import segment
    part = segment.plain([np.ones((1, 2), np.uint64)], [1], 2)
    segment.with_tables(part)
    Index.open(path).verify()
    os.setgid(65534); os.setuid(65534)
with Index.open(path) as index:
    assert index.verify().ok
    assert index.stats().n_tracks == 5
try:
    Index.open(path, readonly=False)
except StoreError as error:
    assert "cannot be written" in str(error), error
else:
    sys.exit("opened")
try:
    Index.create(path + "2", model_id="", bits=64, hop_s=1, query_hop_s=1)
except StoreError as error:
    assert "cannot be" in str(error), error
else:
    sys.exit("created")
os.chdir("/")
"""
    shared = Path("/tmp") / f"samaf-test-{os.getpid()}"
    shared.mkdir()
    try:
        shutil.copy(path, shared / "x.db")
        (shared / "x.db").chmod(0o444)
        shared.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", code, str(shared / "x.db")], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    finally:
        shared.chmod(0o755)
        shutil.rmtree(shared)


def test_an_unreadable_file(path: Path) -> None:
    new_index(path).close()
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("the superuser may read everything")
    with pytest.raises(StoreError, match="permission denied"):
        Index.open(path)
