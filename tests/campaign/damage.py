"""Damaged and truncated copies: read, written to, and repaired."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from codes import Model, activations, fingerprint, noisy
from prints import info_of, print_of
from processes import Log, alone, scratch

from samaf.errors import SamafError
from samaf.index import Index, TrackInfo, segment
from samaf.search import Searcher


class Victim:
    """An index to be damaged, queries for it, and what the whole index answers."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = folder / f"{kind}.db"
        self.model = Model.make()
        model_id = self.model.weights.model_id
        rng = np.random.default_rng(1)
        self.recordings = [activations(60.3, rng) for _ in range(12)]
        if kind == "tables":
            segment.TABLE_ROWS = 400
        filler = 3000 if kind == "large" else 30
        with Index.create(self.path, model_id=model_id, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
            for first in range(0, 12, 3):
                index.add(
                    [
                        (TrackInfo(f"/m/{k}.wav"), fingerprint(self.recordings[k], model_id, step=10))
                        for k in range(first, first + 3)
                    ]
                )
                index.add(
                    [
                        (info_of(s), print_of(50, s, model=model_id))
                        for s in range(first * filler, (first + 3) * filler // 2)
                    ]
                )
            index.remove([index.find_path("/m/11.wav").track_id])  # type: ignore[union-attr]
            if kind == "compact":
                index.compact()
            index.add_alias(1, "/m/alias.wav")
            self.tracks = {t.track_id: t.path for t in index.tracks()}
        segment.TABLE_ROWS = 1 << 17
        for lock in folder.glob("*.db-lock"):
            lock.unlink()
        self.data = self.path.read_bytes()
        strangers = [activations(6.0, rng) for _ in range(2)]
        parts = [self.recordings[k][37 + 20 * k : 97 + 20 * k] for k in (0, 1, 5, 7, 10, 11)]
        self.queries = [
            fingerprint(noisy(part, 0.4, np.random.default_rng(3)), model_id) for part in parts + strangers
        ]
        self.answers = self.answer(self.path)
        assert [sorted(names) for names in self.answers] == [
            [f"/m/{k}.wav"] for k in (0, 1, 5, 7, 10)
        ] + 3 * [[]]

    def answer(self, path: Path) -> list[set[str]]:
        """What each query is named; None where an error is reported."""
        with Index.open(path) as index:
            searcher = Searcher(index, self.model.weights)
            return [self._named(searcher, query) for query in self.queries]

    @staticmethod
    def _named(searcher: Searcher, query: Any) -> Any:
        try:
            return {match.path for match in searcher.search(query)}
        except SamafError as error:
            assert "\n" not in str(error)
            return None


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A copy with some damage, and what it is."""
    out = bytearray(data)
    pages = len(data) // 4096
    kind = rng.choice(
        ["bits", "bits", "head", "zeros", "page", "exchange", "stale", "tail", "cut", "cut page"]
    )
    if kind == "bits":
        for _ in range(rng.choice([1, 1, 3, 30])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == "head":
        out[rng.randrange(2) * 4096 + rng.randrange(152)] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        at = rng.randrange(len(out) // 512) * 512
        out[at : at + 512] = bytes(512)
    elif kind == "page":
        at = rng.randrange(pages) * 4096
        out[at : at + 4096] = rng.randbytes(4096)
    elif kind == "exchange":
        a, b = (rng.randrange(pages) * 4096 for _ in range(2))
        out[a : a + 4096], out[b : b + 4096] = data[b : b + 4096], data[a : a + 4096]
    elif kind == "stale":  # a page with the content of another, as if a write had gone astray
        a, b = (rng.randrange(2, pages) * 4096 for _ in range(2))
        out[a : a + 4096] = data[b : b + 4096]
    elif kind == "tail":
        at = rng.randrange(4096, len(out))
        out[at:] = bytes(len(out) - at)
    elif kind == "cut":
        del out[rng.randrange(len(out)) :]
    else:
        del out[rng.randrange(pages) * 4096 :]
    return kind, bytes(out)


def damage(log: Log, seed: int, count: int, _: float) -> None:
    """Damaged and truncated copies: no death, no traceback, no hang, no name that the whole index would not give."""
    with scratch() as folder:
        victims = [Victim(folder, kind) for kind in ("small", "compact", "tables", "large")]
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            victim = rng.choice(victims)
            kind, data = damaged(victim.data, rng)
            context = {"number": number, "seed": seed, "index": victim.path.name, "kind": kind}
            copy = folder / "copy" / "x.db"
            for name, use in (("reading", _read), ("writing", _write), ("repair", _repair)):
                shutil.rmtree(copy.parent, ignore_errors=True)
                copy.parent.mkdir()
                copy.write_bytes(data)
                ended = alone(lambda use=use, copy=copy, victim=victim: use(victim, copy))  # type: ignore[misc]
                log.write(part="damage", use=name, **context, found=ended.value)
                if ended.fault:
                    log.fault(f"{name} a damaged copy: {ended.fault}", trace=ended.trace, **context)
                elif ended.value.get("wrong"):
                    log.fault(f"{name} a damaged copy: a wrong answer", wrong=ended.value["wrong"], **context)
                else:
                    log.count(f"{name}: {ended.value['said']}")
            log.count("damaged copies")
            log.count(f"damage: {kind}")


def _wrong(victim: Victim, path: Path) -> tuple[str, list[Any]]:
    names = victim.answer(path)
    wrong = [
        (i, sorted(given - right))
        for i, (given, right) in enumerate(zip(names, victim.answers, strict=True))
        if given is not None and given - right
    ]
    if None in names:
        return "an error is reported", wrong
    lost = sum(given != right for given, right in zip(names, victim.answers, strict=True))
    return "answers are missing" if lost else "all answers are there", wrong


def _read(victim: Victim, path: Path) -> dict[str, Any]:
    try:
        said, wrong = _wrong(victim, path)
    except SamafError as error:
        assert "\n" not in str(error)
        said, wrong = "opening is refused", []
    with suppress(SamafError), Index.open(path) as index:
        problems = index.verify().problems
        if said == "answers are missing" and not problems:
            wrong.append("answers are missing, but the index is said to be whole")
        for use in (lambda: list(index.tracks()), index.stats, lambda: index.export_to(f"{path}.out")):
            with suppress(SamafError):
                use()
    return {"said": said, "wrong": wrong}


def _write(victim: Victim, path: Path) -> dict[str, Any]:
    said = "refused"
    model_id = victim.model.weights.model_id
    with suppress(SamafError), Index.open(path, readonly=False) as index:
        said = "allowed"
        for use in (
            lambda: index.add([(info_of(9000), print_of(50, 9000, model=model_id))]),
            lambda: index.remove([5, 20]),
            lambda: index.add([(info_of(s), print_of(50, s, model=model_id)) for s in range(9001, 9060)]),
            lambda: index.compact(shrink=False),
            lambda: index.compact(),
        ):
            try:
                use()
            except SamafError as error:
                assert "\n" not in str(error)
                said = "begun"
    wrong: list[Any] = []
    with suppress(SamafError):
        wrong = _wrong(victim, path)[1]
    return {"said": said, "wrong": wrong}


def _repair(victim: Victim, path: Path) -> dict[str, Any]:
    try:
        from samaf.index.repair import repair
    except ImportError:
        return {"said": "there is none", "wrong": []}
    new = path.with_name("new.db")
    try:
        report = repair(path, new)
    except SamafError as error:
        assert "\n" not in str(error)
        return {"said": "nothing can be saved", "wrong": []}
    with Index.open(new) as index:
        problems = index.verify().problems
        assert not problems, problems
        saved = {track.track_id: track.path for track in index.tracks()}
    may_be_stale = any("list of what is in use" in line for line in report.lost)
    wrong: list[Any] = [
        pair for pair in saved.items() if victim.tracks.get(pair[0]) != pair[1] and not may_be_stale
    ]
    if not report.lost and saved != victim.tracks:
        wrong.append("tracks are lost, but it does not say so")
    if not may_be_stale:
        wrong += _wrong(victim, new)[1]
    return {"said": "all is saved" if saved == victim.tracks else "some is saved", "wrong": wrong}
