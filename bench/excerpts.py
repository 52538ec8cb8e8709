"""Recordings and clips of them -> vectors, made once and kept.

Of each recording there are excerpts: the recording as it is, up to a length, and one clip of it, the same stretch under
each of some conditions.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.clip_cache import RECIPE, ClipCache
from bench.clips import TRIES, spoiled
from bench.corpus import Pool, Recording
from bench.degrade import Condition
from bench.representations import Float32, Representation, Vectors
from samaf.atomic import atomic_write
from samaf.audio import SAMPLE_RATE, read_audio
from samaf.errors import AudioError, shown
from samaf.files import digest

WHOLE = "whole"
"""In place of a condition: the recording as it is."""
_MARGIN_S = 0.1  # of a recording that is longer than its clip

Excerpt = tuple[str, str]
"""(id of the recording, condition)."""
Described = Mapping[Excerpt, Vectors]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is described of each recording.

    Attributes
    ----------
    conditions
        What is done to its clip; none: there are no clips.
    longest_s
        Of the recording as it is, so much from its start.
    clip_s
        Length of the clip.
    seed
        Of where clips are cut, and of what spoils them.
    """

    conditions: Sequence[Condition]
    longest_s: float = 60.0
    clip_s: float = 5.0
    seed: int = 1


class Listener:
    """Describes the recordings of a pool once for each representation; what is done is kept.

    Parameters
    ----------
    pool
        The recordings, and what spoils their clips.
    folder
        Where vectors are kept: a file for each representation and recording.
    clips
        Where clips are.
    note
        Hears of recordings that cannot be used.
    """

    def __init__(
        self, pool: Pool, plan: Plan, folder: Path, clips: ClipCache, note: Callable[[str], None]
    ) -> None:
        self.pool, self.plan, self.folder, self.clips, self.note = pool, plan, folder, clips, note

    def described(self, representations: Sequence[Representation], progress: Progress) -> list[Described]:
        """The vectors of all excerpts, for each representation the same ones.

        A recording of which any representation has no vectors, as it is quiet, is left out for all.
        """
        found: list[dict[Excerpt, Vectors]] = [{} for _ in representations]
        opened: dict[str, Callable[[Float32], Vectors]] = {}
        tracks = self.pool.tracks
        for number, track in enumerate(tracks, start=1):
            try:
                made = self._of_recording(track, representations, opened)
                if not all(len(vectors) for one in made for vectors in one.values()):
                    raise AudioError(f"{shown(track.path)}: has no content, or too little of it")
            except AudioError as error:
                self.note(f"left out: {error}")
            else:
                for known, one in zip(found, made, strict=True):
                    known |= {(track.id, name): vectors for name, vectors in one.items()}
            progress("recordings described", number, len(tracks))
        return list(found)

    def _of_recording(
        self,
        track: Recording,
        representations: Sequence[Representation],
        opened: dict[str, Callable[[Float32], Vectors]],
    ) -> list[dict[str, Vectors]]:
        """The vectors of its excerpts, by their names, for each representation."""
        key = self._key(track)
        files = [self.folder / one.key / f"{key}.npz" for one in representations]
        known = [_kept(file) for file in files]
        excerpts: dict[str, Float32] = {}
        for k, (one, file) in enumerate(zip(representations, files, strict=True)):
            if known[k] is None:
                excerpts = excerpts or self._excerpts(track)
                if one.key not in opened:
                    opened[one.key] = one.open()
                made = {name: opened[one.key](samples) for name, samples in excerpts.items()}
                _keep(file, made)
                known[k] = made
        return [one for one in known if one is not None]

    def _key(self, track: Recording) -> str:
        """What all of its excerpts are made of."""
        plan = self.plan
        shape = [
            RECIPE,
            [track.id, digest(track.path)],
            [condition.name for condition in plan.conditions],
            [plan.longest_s, plan.clip_s, plan.seed],
            self.pool.materials.digest if any(condition.draws for condition in plan.conditions) else "",
        ]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:24]

    def _excerpts(self, track: Recording) -> dict[str, Float32]:
        """The recording, and the same clip of it under each condition, unless it is too short for one."""
        found = {WHOLE: track.read(0.0, self.plan.longest_s)}
        n = round(self.plan.clip_s * SAMPLE_RATE)
        lengths = [condition.clean_samples(n) for condition in self.plan.conditions]
        spare_s = track.duration_s - max(lengths, default=0) / SAMPLE_RATE - _MARGIN_S
        rng = np.random.default_rng([self.plan.seed, zlib.crc32(track.id.encode())])
        for _ in range(TRIES if spare_s >= 0 else 0):
            start = int(rng.uniform(0.0, spare_s) * SAMPLE_RATE)
            clips: dict[str, Float32] = {}
            for condition, length in zip(self.plan.conditions, lengths, strict=True):
                seed = [self.plan.seed, zlib.crc32(f"{track.id}/{condition.name}".encode())]
                path = spoiled(track, start, length, condition, self.pool.materials, self.clips, seed)
                if path is None:
                    break
                clips[condition.name] = read_audio(path)
            else:
                return found | clips
        return found


def _kept(file: Path) -> dict[str, Vectors] | None:
    """The vectors that :func:`_keep` wrote; None where there are none, or the file is damaged."""
    try:
        with open(file, "rb") as kept, np.load(kept) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _keep(file: Path, vectors: Mapping[str, Vectors]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    np.savez_compressed(whole, **vectors)  # type: ignore[arg-type]  # its stubs see an option in them
    with atomic_write(file) as out:
        out.write(whole.getvalue())
