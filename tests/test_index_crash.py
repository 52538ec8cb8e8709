"""Killed at any moment, an index is what its last commit made it; and readers never see less."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from prints import fill, new_index, print_of

from samaf.index import Index

HERE = str(Path(__file__).parent)

# Adds batches of five for ever, says so after each commit, and removes, merges and compacts now and then.
WRITER = f"""
import sys
sys.path.insert(0, {HERE!r})
from prints import fill
from samaf.index import Index, change, segment
change.TRANSACTION_BYTES = 20_000   # several transactions for each segment
segment.TABLE_ROWS = 2_000
with Index.open(sys.argv[1], readonly=False) as index:
    while True:
        first = index.stats().n_tracks + index.stats().n_removed
        ids = fill(index, range(first, first + 5))
        print("added", ids[-1], flush=True)
        if ids[-1] % 3 == 0:
            index.compact()
"""

READER = f"""
import sys
sys.path.insert(0, {HERE!r})
import numpy as np
from prints import print_of
from samaf.index import Index
seen = 0
with Index.open(sys.argv[1]) as index:
    print("open", flush=True)
    while seen < int(sys.argv[2]):
        with index.snapshot() as snapshot:
            assert snapshot.n_tracks >= seen, "a commit was lost"
            seen = snapshot.n_tracks
            assert snapshot.n_hashes == 50 * seen and seen % 5 == 0, "half a batch"
            for part in snapshot.segments:
                for k in np.random.default_rng(seen).integers(0, len(part.track_ids), 3):
                    rows = part.hashes[part.starts[k] : part.starts[k + 1]]
                    track_id = int(part.track_ids[k])
                    assert np.array_equal(rows, print_of(50, track_id - 1).hashes), track_id
                    assert snapshot.track(track_id).n_hashes == 50
"""


def run(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True)


def check(path: Path, at_least: int) -> int:
    with Index.open(path, readonly=False) as index:  # takes the lock that the dead process left
        report = index.verify()
        assert report.ok, report.problems
        assert report.n_tracks >= at_least
        assert report.n_tracks % 5 == 0
        assert [t.track_id for t in index.tracks()] == list(range(1, report.n_tracks + 1))
        with index.snapshot() as snapshot:
            for part in snapshot.segments:
                for k, track_id in enumerate(part.track_ids.tolist()):
                    rows = part.hashes[part.starts[k] : part.starts[k + 1]]
                    assert (rows == print_of(50, track_id - 1).hashes).all()
    return report.n_tracks


def test_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    new_index(path).close()
    moments = random.Random(7)
    committed = 0
    for _ in range(6):
        with run(WRITER, str(path)) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]  # past the start of the interpreter
            time.sleep(moments.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        said = max(int(line.split()[1]) for line in lines if line.endswith("\n") and line.startswith("added"))
        committed = check(path, max(said, committed))
    with Index.open(path, readonly=False) as index:
        assert fill(index, range(committed, committed + 5))[-1] == committed + 5
        index.compact()
        assert index.verify().ok
    leftovers = {p.name for p in tmp_path.iterdir()} - {"x.db"}
    assert not leftovers


def test_readers_in_other_processes_see_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with new_index(path) as index:
        fill(index, range(5))
        readers = [run(READER, str(path), "60") for _ in range(3)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "open\n"
        for first in range(5, 60, 5):
            fill(index, range(first, first + 5))
            if first % 20 == 0:
                index.compact()
            time.sleep(0.02)
        for reader in readers:
            reader.communicate(timeout=30)
            assert reader.returncode == 0


def test_a_killed_reader_does_not_pin_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    code = READER.replace(
        "while seen <", "with index.snapshot() as held: print('held', flush=True); input()\n    while seen <"
    )
    with new_index(path) as index:
        fill(index, range(5))
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(path), "9"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert [reader.stdout.readline(), reader.stdout.readline()] == ["open\n", "held\n"]
    reader.kill()
    reader.communicate()
    with Index.open(path, readonly=False) as index:
        for round_ in range(12):
            fill(index, range(5 + 5 * round_, 10 + 5 * round_))
            index.compact(shrink=False)
        grown = path.stat().st_size
        for _ in range(12):
            index.compact(shrink=False)
            index.add_alias(1, "/x")
        assert path.stat().st_size == grown
