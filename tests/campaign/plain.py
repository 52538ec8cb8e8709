"""A plain model of an index, changes of both, and what an index really holds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prints import info_of, new_index, print_of

from samaf.index import Index, change, segment

ROWS = 40
"""Hashes of each track whose content follows from its number."""


def small_pieces() -> None:
    """Have little indexes behave as large ones do: tables, several transactions in a change."""
    change.TRANSACTION_BYTES = 20_000
    segment.TABLE_ROWS = 2_000


@dataclass
class Plain:
    """What an index should hold: the number that each track's content follows from, and its other files."""

    tracks: dict[int, int] = field(default_factory=dict)
    aliases: dict[int, list[str]] = field(default_factory=dict)
    next_track: int = 1

    def copy(self) -> Plain:
        return Plain(dict(self.tracks), {k: list(v) for k, v in self.aliases.items()}, self.next_track)

    def add(self, seeds: list[int]) -> list[int]:
        ids = list(range(self.next_track, self.next_track + len(seeds)))
        self.tracks |= dict(zip(ids, seeds, strict=True))
        self.next_track += len(seeds)
        return ids

    def apply(self, step: dict[str, Any]) -> None:
        kind = step["kind"]
        if kind == "add":
            for number in step["replacing"]:
                self.tracks.pop(number, None)
                self.aliases.pop(number, None)
            self.add(step["seeds"])
        elif kind == "import":
            known = set(self.tracks.values())
            self.add([seed for seed in step["seeds"] if seed not in known])
        elif kind == "remove":
            for number in step["ids"]:
                self.tracks.pop(number, None)
                self.aliases.pop(number, None)
        elif kind == "alias":
            self.aliases.setdefault(step["id"], []).append(step["path"])

    def step(self, rng: random.Random, fresh: int) -> dict[str, Any]:
        """Draw the next change; `fresh` is the first number of which no track has been made."""
        kind = rng.choices(["add", "remove", "alias", "compact", "in place", "import"], [8, 3, 2, 1, 1, 1])[0]
        if kind in ("remove", "alias") and not self.tracks:
            kind = "add"
        ids = sorted(self.tracks)
        if kind == "add":
            replacing = [rng.choice(ids)] if ids and rng.random() < 0.2 else []
            return {
                "kind": kind,
                "seeds": list(range(fresh, fresh + rng.randint(1, 8))),
                "replacing": replacing,
            }
        if kind == "import":
            return {"kind": kind, "seeds": list(range(fresh, fresh + rng.randint(1, 8)))}
        if kind == "remove":
            return {"kind": kind, "ids": rng.sample(ids, min(len(ids), rng.randint(1, 4)))}
        if kind == "alias":
            return {"kind": kind, "id": rng.choice(ids), "path": f"/alias/{fresh}/{rng.random()}.wav"}
        return {"kind": kind}


def perform(index: Index, step: dict[str, Any], folder: Path) -> None:
    """Make one change."""
    kind = step["kind"]
    if kind == "add":
        index.add([(info_of(s), print_of(ROWS, s)) for s in step["seeds"]], replacing=step["replacing"])
    elif kind == "import":
        index.import_from(exported(step["seeds"], folder))
    elif kind == "remove":
        index.remove(step["ids"])
    elif kind == "alias":
        index.add_alias(step["id"], step["path"])
    else:
        index.compact(shrink=kind == "compact")


def exported(seeds: list[int], folder: Path) -> Path:
    """An exported file with these tracks."""
    other = folder / "other.db"
    with new_index(other) as index:
        index.add([(info_of(s), print_of(ROWS, s)) for s in seeds])
        index.export_to(folder / "exported")
    for path in folder.glob("other.db*"):
        path.unlink()
    return folder / "exported"


def held(path: Path) -> Plain:
    """What an index holds, every hash looked at; raises where it is not whole."""
    found = Plain()
    with Index.open(path) as index:
        report = index.verify()
        assert report.ok, report.problems
        seeds = {}
        for track in index.tracks():
            seeds[track.track_id] = track.size_bytes
            assert track.path == info_of(track.size_bytes).path, track
            if track.aliases:
                found.aliases[track.track_id] = [alias.path for alias in track.aliases]
            assert index.find_digest(track.digest) is not None, track
        with index.snapshot() as snapshot:
            for part in snapshot.segments:
                for k, track_id in enumerate(part.track_ids.tolist()):
                    if track_id in snapshot.removed:
                        continue
                    rows = part.hashes[part.starts[k] : part.starts[k + 1]]
                    assert (rows == print_of(ROWS, seeds[track_id]).hashes).all(), track_id
                    found.tracks[track_id] = seeds[track_id]
        assert found.tracks == seeds, "tracks without hashes, or the other way round"
    return found


def same(found: Plain, model: Plain) -> bool:
    return found.tracks == model.tracks and found.aliases == model.aliases


def plain_of(value: dict[str, Any]) -> Plain:
    return Plain(
        {int(k): v for k, v in value["tracks"].items()}, {int(k): v for k, v in value["aliases"].items()}
    )
