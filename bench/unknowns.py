"""Clips whose recordings are hidden from the library that is asked, so that every answer to them is false.

Clip i of a kind and length is the same however many there are: all draws come from a generator seeded with the seed,
the kind, the length and i. Its condition is one of those given, each as often as every other. A clip is cut out of
one recording; one longer than :data:`LONGEST_PIECE_S`, or than most recordings are, is joined from pieces of several.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.clip_cache import ClipCache
from bench.corpus import Pool, Recording
from bench.degrade import Condition, parse
from bench.effects import rms
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError

LONGEST_PIECE_S = 60.0
"""A longer clip is joined from pieces."""
FEWEST_RECORDINGS = 20
"""So many must be long enough, or half of all; otherwise clips are joined from shorter pieces."""

_QUIET = 1e-3  # RMS under which a stretch is drawn again
_TRIES = 20
_MARGIN_S = 0.1

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Unknown:
    """A clip that nobody should be able to name.

    Attributes
    ----------
    name
        ``music_5_00012``.
    kind, length_s, condition
        What it is.
    tracks
        Ids of the recordings it was cut from.
    artist
        Who is heard in the first of them; the recording's id where that is not known.
    audio
        The file.
    """

    name: str
    kind: str
    length_s: float
    condition: str
    tracks: tuple[str, ...]
    artist: str
    audio: str


@dataclass(frozen=True)
class Cutter:
    """Cuts clips out of the tracks of a pool.

    Attributes
    ----------
    pool
        Tracks, noise and rooms.
    conditions
        Names of what happens to the clips.
    cache
        Where they are kept.
    seed
        Of all draws.
    """

    pool: Pool
    conditions: Sequence[str]
    cache: ClipCache
    seed: int = 1

    @cached_property
    def _tracks(self) -> Mapping[str, list[Recording]]:
        by_kind: dict[str, list[Recording]] = {}
        for track in self.pool.tracks:
            by_kind.setdefault(track.kind, []).append(track)
        return by_kind

    def condition(self, kind: str, length_s: float, i: int) -> Condition:
        """Condition of clip `i`: in every run of as many clips as there are conditions, each comes once."""
        turn, place = divmod(i, len(self.conditions))
        order = np.random.default_rng([self.seed, _number(f"order/{kind}/{length_s:g}"), turn])
        return parse(self.conditions[order.permutation(len(self.conditions))[place]])

    def pieces(self, kind: str, length_s: float, factor: float = 1.0) -> tuple[int, list[Recording]]:
        """How many pieces make a clip, and the recordings that are long enough for one.

        Parameters
        ----------
        kind, length_s
            Of the clip.
        factor
            Seconds of the recordings in one second of it.

        Raises
        ------
        ValueError
            If there are fewer recordings than pieces, however short these are.
        """
        tracks = self._tracks.get(kind, [])
        enough = min(FEWEST_RECORDINGS, -(-len(tracks) // 2))
        for count in range(max(1, math.ceil(length_s / LONGEST_PIECE_S)), len(tracks) + 1):
            fit = [track for track in tracks if track.duration_s > length_s * factor / count + _MARGIN_S]
            if len(fit) >= max(count, enough):
                return count, fit
        raise ValueError(f"{len(tracks)} recordings of {kind} make no clip of {length_s:g} s")

    def cut(self, kind: str, length_s: float, i: int) -> Unknown | str:
        """Clip `i`; or, in words, why it could not be made."""
        name = f"{kind}_{length_s:g}_{i:05d}"
        condition = self.condition(kind, length_s, i)
        n = condition.clean_samples(round(length_s * SAMPLE_RATE))
        seed = [self.seed, _number(f"{kind}/{length_s:g}"), i]
        rng = np.random.default_rng(seed)
        try:
            count, fit = self.pieces(kind, length_s, condition.factor)
            chosen, parts = list[Recording](), list[Float32]()
            before = np.zeros(0, np.float32)
            for size in np.diff(np.linspace(0, n, count + 1).round().astype(int)).tolist():
                run_in_s = 0.0 if chosen else condition.run_in_s
                track, run_in, part = _piece([t for t in fit if t not in chosen], size, run_in_s, rng)
                before = before if chosen else run_in
                chosen.append(track)
                parts.append(part)
            path = self.cache.clip(np.concatenate(parts), before, condition, self.pool.materials, seed)
        except (AudioError, ValueError) as error:
            return f"{name}: no clip could be cut ({error})"
        tracks = tuple(track.id for track in chosen)
        artist = self.pool.artists.get(tracks[0], tracks[0])
        return Unknown(name, kind, length_s, condition.name, tracks, artist, os.fspath(path))


def _piece(
    tracks: Sequence[Recording], n: int, run_in_s: float, rng: np.random.Generator
) -> tuple[Recording, Float32, Float32]:
    """A recording, and `n` samples of it that are not silent, with those right before them."""
    reason: Exception = ValueError("nothing but silence")
    for _ in range(_TRIES):
        track = tracks[int(rng.integers(len(tracks)))]
        start = int(rng.uniform(0.0, track.duration_s - n / SAMPLE_RATE - _MARGIN_S / 2) * SAMPLE_RATE)
        run_in = min(start, round(run_in_s * SAMPLE_RATE))
        try:
            audio = track.read((start - run_in) / SAMPLE_RATE, (start + n) / SAMPLE_RATE)
        except AudioError as error:
            reason = error
            continue
        part = audio[run_in:]
        if len(part) == n and rms(part.astype(np.float64)) >= _QUIET:
            return track, audio[:run_in], part
    raise ValueError(str(reason))


def _number(text: str) -> int:
    return zlib.crc32(text.encode())
