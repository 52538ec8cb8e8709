"""Several threads, processes and users at once, and what is kept for longer."""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from codes import Model, activations, fingerprint, noisy
from plain import ROWS, small_pieces
from prints import info_of, new_index, print_of
from processes import Child, Log, alone, scratch

from samaf.index import Index, TrackInfo, candidates, segment
from samaf.search import Searcher


def threads(log: Log, seed: int, _: int, minutes: float) -> None:
    """Eight threads share one index: four write, four search; nothing is wrong, stale or in the way."""
    with scratch() as folder:
        ended = Child(lambda say: _threads(folder / "x.db", seed, minutes)).end(60 * minutes + 120)
        if ended.fault:
            log.fault(f"threads: {ended.fault}", trace=ended.trace)
            return
        log.write(part="threads", seed=seed, **ended.value)
        for error in ended.value.pop("errors"):
            log.fault("threads", error=error)
        for what, n in ended.value.items():
            log.count(what, n)


def _threads(path: Path, seed: int, minutes: float) -> dict[str, Any]:
    small_pieces()
    model = Model.make()
    model_id = model.weights.model_id
    rng = np.random.default_rng(seed)
    recordings = [activations(40.3, rng) for _ in range(6)]
    errors: list[str] = []
    counts = {"changes by threads": 0, "searches by threads": 0}
    guard = threading.Lock()
    committed: dict[int, int] = {}  # track -> number
    until = time.monotonic() + 60 * minutes
    with Index.create(path, model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        index.add(
            [(TrackInfo(f"/m/{k}.wav"), fingerprint(r, model_id, step=10)) for k, r in enumerate(recordings)]
        )
        searcher = Searcher(index, model.weights)

        def writer(me: int) -> None:
            mine: list[int] = []
            fresh = 1_000_000 * (me + 1)
            draw = random.Random(f"{seed}/{me}")
            while time.monotonic() < until and not errors:
                kind = draw.choices(["add", "remove", "compact", "in place"], [20, 8, 1, 1])[0]
                if kind == "add":
                    numbers = range(fresh, fresh + draw.randint(1, 3))
                    fresh = numbers.stop
                    ids = index.add([(info_of(s), print_of(ROWS, s, model=model_id)) for s in numbers])
                    with guard:
                        assert not committed.keys() & set(ids), "an id twice"
                        committed.update(zip(ids, numbers, strict=True))
                    mine += ids
                    assert index.track(ids[-1]).size_bytes == numbers[-1], "stale"
                elif kind == "remove" and len(mine) > 40:
                    gone = [mine.pop(draw.randrange(len(mine))) for _ in range(draw.randint(1, 30))]
                    assert index.remove(gone) == len(gone)
                    with guard:
                        for number in gone:
                            del committed[number]
                elif kind in ("compact", "in place"):
                    index.compact(shrink=kind == "compact")
                with guard:
                    counts["changes by threads"] += 1

        def search(me: int) -> None:
            draw = np.random.default_rng(seed + me)
            while time.monotonic() < until and not errors:
                k = int(draw.integers(len(recordings)))
                at = int(draw.integers(0, 300))
                query = fingerprint(noisy(recordings[k][at : at + 60], 0.4, draw), model_id)
                names = [match.path for match in searcher.search(query)]
                assert names == [f"/m/{k}.wav"], (names, k, at)
                with index.snapshot() as snapshot:
                    for part in snapshot.segments:
                        j = int(draw.integers(len(part.track_ids)))
                        track_id = int(part.track_ids[j])
                        rows = part.hashes[part.starts[j] : part.starts[j + 1]]
                        if track_id > len(recordings) and track_id not in snapshot.removed:
                            number = snapshot.track(track_id).size_bytes
                            assert (rows == print_of(ROWS, number, model=model_id).hashes).all(), track_id
                with guard:
                    counts["searches by threads"] += 1

        def guarded(run: Callable[[int], None], me: int) -> None:
            try:
                run(me)
            except BaseException:
                errors.append(traceback.format_exc())

        workers = [threading.Thread(target=guarded, args=(writer, k)) for k in range(4)]
        workers += [threading.Thread(target=guarded, args=(search, k)) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        report = index.verify()
        errors += report.problems
        held_ids = {t.track_id: t.size_bytes for t in index.tracks() if t.track_id > len(recordings)}
        if held_ids != committed:
            errors.append(f"{len(held_ids)} tracks instead of {len(committed)}")
    return {"errors": errors, **counts}


def users(log: Log, seed: int, _: int, minutes: float) -> None:
    """Eight processes of a user who may only read search beside a busy writer: no error, nothing wrong or stale."""
    if os.geteuid() != 0:
        log.count("not the superuser")
        return
    with scratch() as folder:
        path = folder / "x.db"
        model = Model.make()
        model_id = model.weights.model_id
        rng = np.random.default_rng(seed)
        recordings = [activations(40.3, rng) for _ in range(6)]
        with Index.create(path, model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
            index.add(
                [
                    (TrackInfo(f"/m/{k}.wav"), fingerprint(r, model_id, step=10))
                    for k, r in enumerate(recordings)
                ]
            )
            # Compiled code is kept where the other user may not look: have it all loaded before.
            Searcher(index, model.weights).search(fingerprint(recordings[0][:60], model_id))
            index.verify()
            part = segment.with_tables(segment.plain([np.ones((1 << 17, 2), np.uint64)], [1], 2))
            candidates(part, np.ones((1, 2), np.uint64))
        path.chmod(0o644)
        newest = folder / "newest"  # number of the last track that was certainly stored
        newest.write_text("0\n")
        until = time.monotonic() + 60 * minutes

        def read(me: int) -> int:
            os.setgid(65534)
            os.setuid(65534)
            draw = np.random.default_rng(seed + me)
            n = 0
            with Index.open(path) as index:
                searcher = Searcher(index, model.weights)
                while time.monotonic() < until:
                    if n % 50 == 49:
                        index.close()
                        index = Index.open(path)
                        searcher = Searcher(index, model.weights)
                    stored = int(newest.read_text() or 0)
                    with index.snapshot() as snapshot:
                        last = snapshot.state.next_track - 1
                        assert last >= stored, f"stale: {last} < {stored}"
                        for part in snapshot.segments:
                            for j in draw.integers(0, len(part.track_ids), 3).tolist():
                                track_id = int(part.track_ids[j])
                                rows = part.hashes[part.starts[j] : part.starts[j + 1]].copy()
                                if track_id > len(recordings) and track_id not in snapshot.removed:
                                    time.sleep(0.002 * float(draw.random()))
                                    number = snapshot.track(track_id).size_bytes
                                    right = print_of(ROWS, number, model=model_id).hashes
                                    assert (rows == right).all(), f"track {track_id} has other hashes"
                    k, at = int(draw.integers(len(recordings))), int(draw.integers(0, 300))
                    query = fingerprint(noisy(recordings[k][at : at + 60], 0.4, draw), model_id)
                    names = [match.path for match in searcher.search(query)]
                    assert names == [f"/m/{k}.wav"], (names, k, at)
                    n += 1
            return n

        readers = [Child(lambda say, me=me: read(me)) for me in range(8)]  # type: ignore[misc]

        def write(say: Callable[[Any], None]) -> int:
            small_pieces()
            draw = random.Random(seed)
            fresh, n, mine = 0, 0, []
            with Index.open(path, readonly=False) as index:
                while time.monotonic() < until:
                    kind = draw.choices(["add", "remove", "compact", "in place"], [20, 8, 1, 1])[0]
                    if kind == "add":
                        numbers = range(fresh, fresh + draw.randint(1, 5))
                        fresh = numbers.stop
                        mine += index.add([(info_of(s), print_of(ROWS, s, model=model_id)) for s in numbers])
                        (folder / "next").write_text(f"{mine[-1]}\n")
                        os.replace(folder / "next", newest)
                    elif kind == "remove" and len(mine) > 200:
                        gone = draw.sample(mine[:-1], 100)
                        index.remove(gone)
                        mine = sorted(set(mine) - set(gone))
                    elif kind in ("compact", "in place"):
                        index.compact(shrink=kind == "compact")
                    n += 1
                assert index.verify().ok
            return n

        ended = Child(write).end(60 * minutes + 60)
        if ended.fault:
            log.fault(f"writer beside other users: {ended.fault}", trace=ended.trace)
        else:
            log.count("changes beside other users", ended.value)
        for reader in readers:
            ended = reader.end(60)
            if ended.fault:
                log.fault(f"another user's search: {ended.fault}", trace=ended.trace[-3000:])
            else:
                log.count("searches of another user", ended.value)


def kept(log: Log, seed: int, count: int, _: float) -> None:
    """Segments that are kept after their index was closed, while others write: they stay what they were."""
    for number in range(count):
        with scratch() as folder:
            ended = alone(lambda folder=folder, number=number: _kept(folder / "x.db", seed + number))  # type: ignore[misc]
            if ended.fault:
                log.fault(f"a segment kept: {ended.fault}", trace=ended.trace, seed=seed + number)
            log.count("segments kept")


def _kept(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    with new_index(path) as index:
        index.add([(info_of(s), print_of(ROWS, s)) for s in range(draw.randint(1, 300))])
    with Index.open(path) as index, index.snapshot() as snapshot:
        parts = [(part, part.hashes.copy()) for part in snapshot.segments]
    for k in range(12):
        with Index.open(path, readonly=False) as index:
            index.add([(info_of(s), print_of(ROWS, s)) for s in range(1000 * k, 1000 * k + 20)])
            index.compact(shrink=False)
    for part, rows in parts:
        assert (part.hashes == rows).all(), "a segment changed"
