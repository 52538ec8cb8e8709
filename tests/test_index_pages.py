"""The file as readers see it, the check before writing, and who reads which state."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import lmdb
import lmdb.verify
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prints import fill, new_index, print_of, stored

from samaf.errors import StoreError
from samaf.hamming import distance
from samaf.index import Index, candidates, pins, segment, structure
from samaf.index.codec import DamageError
from samaf.index.pages import Tree, read_metas


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@contextmanager
def tree_of(path: Path) -> Iterator[tuple[Tree, mmap.mmap]]:
    fd = os.open(path, os.O_RDONLY)
    try:
        data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        yield Tree(data, read_metas(fd)[0]), data
    finally:
        os.close(fd)


def filled(path: Path, values: dict[bytes, bytes]) -> None:
    with (
        lmdb.open(str(path), subdir=False, lib_version=0, map_size=1 << 30, lock=False, sync=False) as env,
        env.begin(write=True) as txn,
    ):
        for key, value in values.items():
            txn.put(key, value)


KEYS = st.binary(min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(KEYS, st.integers(0, 9000), max_size=300), st.lists(KEYS, max_size=20))
def test_a_tree_reads_as_lmdb_does(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[bytes, int], asked: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("tree") / "x"
    values = {key: bytes([size % 251]) * size for key, size in sizes.items()}
    filled(path, values)
    ordered = sorted(values)
    with tree_of(path) as (tree, data):
        assert list(tree.items(b"")) == [(key, values[key]) for key in ordered]
        assert structure.problems(data, tree.meta) == []
        for key in [*asked, *ordered[::7]]:
            assert tree.get(key) == values.get(key)
            before = max((k for k in ordered if k <= key), default=None)
            assert tree.before(key) == (None if before is None else (before, values[before]))
            assert [k for k, _ in tree.places(key)] == [k for k in ordered if k.startswith(key)]


def test_what_lmdb_would_stumble_over_is_found_before(path: Path, tmp_path: Path) -> None:
    """Each bit of a tree's pages: where py-lmdb's own slow walk finds something in them, so do we."""
    with new_index(path) as index:
        for first in range(0, 600, 100):
            fill(index, range(first, first + 100), n=3)
        index.remove(range(50, 90))
    data = path.read_bytes()
    copy = tmp_path / "copy"
    rng = random.Random(1)
    with tree_of(path) as (tree, _):
        assert tree.meta.depth > 1
        pages = [n for n in range(2, len(data) // 4096) if data[n * 4096 + 10] in (1, 2)]
    # A value made smaller within one transaction keeps its pages, which that walk does not know.
    usual = set(lmdb.verify.verify(str(path), subdir=False))
    assert all("mp_pages" in line or "overflow" in line or "leak" in line for line in usual)
    found = 0
    for _ in range(300):
        damaged = bytearray(data)
        at = rng.choice(pages) * 4096 + (rng.randrange(16) if rng.random() < 0.3 else rng.randrange(4096))
        damaged[at] ^= 1 << rng.randrange(8)
        copy.write_bytes(damaged)
        theirs = set(lmdb.verify.verify(str(copy), subdir=False)) - usual
        with tree_of(copy) as (tree, mapped):
            ours = structure.problems(mapped, tree.meta)
            if all(any(word in line for word in ("out of order", "entries", "mp_pages")) for line in theirs):
                continue  # no danger to the process, and told from the contents
            assert ours, (at, theirs)
            found += bool(ours)
            with suppress(DamageError):
                list(tree.items(b""))
    assert found > 30


def test_a_damaged_index_is_not_opened_for_writing(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(300), n=2)
    data = bytearray(path.read_bytes())
    with tree_of(path) as (tree, _):
        root = tree.meta.root
    data[root * 4096 + 12] ^= 4
    path.write_bytes(data)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=r"damaged.*--repair"):
            Index.open(path, readonly=readonly)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_head_must_fit_the_state(path: Path) -> None:
    """A head that names an older state, itself whole, would bring back what was removed."""
    with new_index(path) as index:
        fill(index, range(5))
        index.remove([2])
    data = path.read_bytes()
    fd = os.open(path, os.O_RDONLY)
    newest, other = read_metas(fd)
    os.close(fd)
    for lie in (newest.transaction - 2, newest.transaction + 1, newest.transaction + 2):
        damaged = bytearray(data)
        at = (newest.transaction % 2) * 4096 + 16 + 128
        assert int.from_bytes(damaged[at : at + 8], "little") == newest.transaction
        damaged[at : at + 8] = lie.to_bytes(8, "little")
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            Index.open(path)
    damaged = bytearray(data)
    at = (newest.transaction % 2) * 4096 + 16 + 24 + 48 + 40  # the root of the tree of keys
    damaged[at : at + 8] = other.root.to_bytes(8, "little")
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="damaged"):
        Index.open(path)


def test_a_file_of_many_changes_is_sound(path: Path) -> None:
    """The lists of free pages are in order of their numbers, not of their bytes."""
    with new_index(path) as index:
        fill(index, range(3))
        with index.snapshot() as snapshot:
            for k in range(300):
                index.add_alias(1, f"/x{k}")
            assert snapshot.n_tracks == 3
            assert index.verify().ok
        assert index.verify().ok
    Index.open(path, readonly=False).close()


# -- pins -------------------------------------------------------------------------------------------------------------


def test_pins_are_seen_from_elsewhere_and_end_with_their_file(path: Path) -> None:
    path.touch()
    fds = [os.open(path, os.O_RDONLY) for _ in range(4)]
    assert pins.oldest(fds[3], 100) == 100
    for fd, transaction in zip(fds, (50, 7, 60), strict=False):
        assert pins.pin(fd, transaction)
    assert pins.oldest(fds[3], 100) == 7
    assert pins.oldest(fds[1], 100) == 50, "its own do not count"
    assert pins.oldest(fds[3], 5) == 5
    os.close(fds[1])
    assert pins.oldest(fds[3], 100) == 50
    for fd in (fds[0], fds[2], fds[3]):
        os.close(fd)


def test_a_state_older_than_the_writer_is_spared(path: Path) -> None:
    """The writer that comes next must know of readers that were there before it."""
    with new_index(path) as index:
        fill(index, range(10))
    with Index.open(path) as reader, reader.snapshot() as snapshot:
        before = [part.hashes.copy() for part in snapshot.segments]
        for seed in range(10, 40):
            with Index.open(path, readonly=False) as index:
                fill(index, range(seed, seed + 1))
                index.compact(shrink=False)
        for part, rows in zip(snapshot.segments, before, strict=True):
            assert (part.hashes == rows).all()
        assert snapshot.track(3).title == "2"


def test_pages_are_used_again_once_nobody_reads_them(path: Path) -> None:
    with new_index(path) as index, Index.open(path) as reader:
        fill(index, range(20))
        for _ in range(3):
            index.compact(shrink=False)
            index.add_alias(1, "/x")
        with reader.snapshot():
            size = path.stat().st_size
            for k in range(20):
                index.add_alias(1, f"/x{k}")
            assert path.stat().st_size > size
        size = path.stat().st_size
        for k in range(20, 40):
            index.drop_path(f"/x{k - 20}")
            index.add_alias(1, f"/x{k}")
        assert path.stat().st_size == size


def test_a_reader_needs_no_lock_file_and_writes_nothing(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(5))
    before = path.stat()
    with Index.open(path) as index:
        assert len(stored(index)) == 5
        assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_who_may_only_read_cannot_be_in_the_way(path: Path) -> None:
    """Locks on a file need no more than the right to read it; none that others can get is waited for."""
    with new_index(path) as index:
        fill(index, range(5))
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    pins.pin(fd, 0)
    with Index.open(path, readonly=False) as index:
        assert Path(f"{path}.writer").stat().st_mode & 0o077 == 0
        assert Path(f"{path}-lock").stat().st_mode & 0o077 == 0
        fill(index, range(5, 10))
        index.compact()
        assert len(stored(index)) == 10
    os.close(fd)


def test_compaction_keeps_owner_and_rights(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(5))
        path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        before = path.stat()
        index.compact()
        after = path.stat()
        assert after.st_ino != before.st_ino
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


# -- what was kept longer than it should be ---------------------------------------------------------------------------


def test_segments_outlive_their_index(path: Path) -> None:
    with new_index(path) as index:
        fill(index, range(60))
        with index.snapshot() as snapshot:
            (part,) = snapshot.segments
        for seed in range(60, 90):
            fill(index, range(seed, seed + 1))
            index.compact(shrink=False)
    assert (part.hashes[:50] == print_of(50, 0).hashes).all()
    with pytest.raises(StoreError, match="ended"):
        snapshot.segments  # noqa: B018
    with pytest.raises(StoreError, match="ended"):
        snapshot.track(1)
    with Index.open(path, readonly=False) as index:
        for seed in range(90, 120):
            fill(index, range(seed, seed + 1))
            index.compact(shrink=False)
    assert (part.hashes[:50] == print_of(50, 0).hashes).all()


def test_a_small_segment_moves_within_the_file(path: Path) -> None:
    """Values that lie in a page of the tree move with it: what is known of a segment must not say where."""
    with new_index(path) as index, Index.open(path) as reader:
        fill(index, range(1), n=20)
        for k in range(10):
            assert (stored(reader)[1] == print_of(20, 0).hashes).all()
            index.add_alias(1, f"/x{k}")
            index.drop_path(f"/x{k}")


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_share_a_writable_index(path: Path) -> None:
    with new_index(path) as index:
        ids: list[int] = []
        errors: list[BaseException] = []

        def add(first: int) -> None:
            try:
                for seed in range(first, first + 10):
                    ids.extend(fill(index, range(seed, seed + 1)))
                    if seed % 5 == 0:
                        index.compact(shrink=seed % 2 == 0)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=add, args=(100 * k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert sorted(ids) == list(range(1, 41))
        assert index.verify().ok
        assert len(stored(index)) == 40


def test_closing_waits_for_the_change_in_progress(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = new_index(path)
    begun, go = threading.Event(), threading.Event()
    plain = segment.write

    def slow(*args: object) -> None:
        begun.set()
        go.wait(20)
        plain(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(segment, "write", slow)
    adding = threading.Thread(target=fill, args=(index, range(3)))
    adding.start()
    assert begun.wait(20)
    closing = threading.Thread(target=index.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go.set()
    adding.join()
    closing.join()
    with Index.open(path) as reader:
        assert reader.stats().n_tracks == 3


# -- what opening costs -----------------------------------------------------------------------------------------------


def test_opening_touches_only_the_pages_it_uses(path: Path) -> None:
    with new_index(path) as index:
        for first in range(0, 40, 4):
            fill(index, range(first, first + 4), n=40_000)
        index.compact()
    assert path.stat().st_size > 60e6
    code = f"""
import mmap, resource
import numpy as np
from samaf.index import Index, candidates, segment

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

part = segment.with_tables(segment.plain([np.ones((1 << 17, 2), np.uint64)], [1], 2))
candidates(part, np.ones((1, 2), np.uint64))  # compiled before
index = Index.open({str(path)!r})
before = faults()
index.close()
index = Index.open({str(path)!r})
with index.snapshot() as snapshot:
    (part,) = snapshot.segments
    found = candidates(part, np.array(part.hashes[777_000:777_002]))
    assert {{777_000, 777_001}} <= set(found.row.tolist())
    assert snapshot.track(5).title == "4"
print(faults() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) < 2000  # the file has more than 15,000 pages


@pytest.mark.parametrize("value", [0xFFFFFFFF, 1 << 20])
def test_damaged_tables_do_not_lead_out_of_the_arrays(value: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(1, 2**64, (1 << 17, 2), dtype=np.uint64, endpoint=False)
    part = segment.with_tables(segment.plain([hashes], [1], 2))
    queries = hashes[:50].copy()
    for name in ("offsets", "postings"):
        tables = []
        for table in part.tables:
            array = getattr(table, name).copy()
            array[rng.integers(0, len(array), 30_000)] = value
            tables.append(replace(table, **{name: array}))
        found = candidates(replace(part, tables=tuple(tables)), queries)
        assert found.row.max() < len(part)
        assert (found.distance == distance(queries[found.query_i], hashes[found.row])).all()


# -- file systems without locks, and cuts ------------------------------------------------------------------------------


def test_without_locks_reading_is_refused_unless_nobody_can_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_index(path) as index:
        fill(index, range(3))
    monkeypatch.setattr(pins, "pin", lambda fd, transaction: False)
    with pytest.raises(StoreError, match="cannot keep what is read") as caught:
        Index.open(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    monkeypatch.setattr("samaf.index.mapped._is_read_only", lambda fd: True)
    with Index.open(path) as index:
        assert len(stored(index)) == 3


def test_every_cut_of_a_file_that_was_not_compacted(path: Path) -> None:
    """Each is refused, or all that is in use is there still."""
    with new_index(path) as index:
        for first in range(0, 60, 6):
            fill(index, range(first, first + 6))
        index.remove([4, 9])
        whole = stored(index)
    data = path.read_bytes()
    code = """
import sys
from samaf.errors import StoreError
from samaf.index import Index
path, data = sys.argv[1], open(sys.argv[1], "rb").read()
refused = 0
for size in range(0, len(data), 2048):
    open(path + ".cut", "wb").write(data[:size])
    try:
        with Index.open(path + ".cut") as index, index.snapshot() as snapshot:
            assert sum(int(part.hashes.sum()) for part in snapshot.segments) == int(sys.argv[2])
            assert index.verify().ok
    except StoreError as error:
        assert str(error).count("\\n") == 0
        refused += 1
print(refused)
"""
    with Index.open(path) as index, index.snapshot() as snapshot:
        total = sum(int(part.hashes.sum()) for part in snapshot.segments)
    assert len(whole) == 58
    done = subprocess.run([sys.executable, "-c", code, str(path), str(total)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0.8 * len(data) / 2048
