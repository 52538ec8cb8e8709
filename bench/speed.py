"""How fast each system takes in and answers: side by side on one core, in turns, medians of several rounds.

Machines are never quiet. So the systems take turns within each round, and what counts is how they stand to each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline
from bench.corpus import Corpus
from bench.protocol import Entry, at_rate, warm_up
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds.

    Attributes
    ----------
    label
        The system.
    ingest
        Times real time that it takes audio in, samples in memory to its store.
    query_s
        Seconds that an answer takes, samples in memory to its best candidate.
    ingest_ratio, query_ratio
        Of its time to that of the first system in the same round: 2 is twice as slow.
    """

    label: str
    ingest: float
    query_s: float
    ingest_ratio: float
    query_ratio: float


def material(
    corpus: Corpus,
    *,
    minutes: float,
    length_s: float,
    clips: int,
    seed: int,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[tuple[str, Float32]], list[Float32]]:
    """What :func:`measure` takes: the first minutes of a library, and clips of it with some noise.

    Parameters
    ----------
    minutes, length_s, clips
        Audio to take in, at most, in pieces of 1 s or more; length of the clips, and how many.
    note
        Hears of recordings that cannot be read.

    Raises
    ------
    AudioError
        If no recording is as long as a clip.
    """
    rng = np.random.default_rng(seed)
    wanted = round(length_s * SAMPLE_RATE)
    library: list[tuple[str, Float32]] = []
    left = round(60.0 * minutes * SAMPLE_RATE)
    for track in corpus.library:
        if left < SAMPLE_RATE:  # too short for a hash
            break
        try:
            library.append((track.id, track.read(0.0, left / SAMPLE_RATE)))
        except AudioError as error:
            note(f"left out: {error}")
            continue
        left -= len(library[-1][1])
    long_enough = [x for _, x in library if len(x) >= wanted]
    if not long_enough:
        raise AudioError(f"no track is as long as a clip of {length_s:g} s; give shorter clips")
    spoiled = []
    for _ in range(clips):
        x = long_enough[int(rng.integers(len(long_enough)))]
        start = int(rng.integers(len(x) - wanted + 1))
        noise = rng.standard_normal(wanted) * 0.3 * x[start : start + wanted].std()
        spoiled.append((x[start : start + wanted] + noise).astype(np.float32))
    return library, spoiled


def measure(
    entries: Sequence[Entry],
    library: Sequence[tuple[str, Float32]],
    clips: Sequence[Float32],
    *,
    rounds: int = 5,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Speed]:
    """Time systems.

    Parameters
    ----------
    library
        (track, samples at 16 kHz) that each system takes in anew every round.
    clips
        Samples at 16 kHz that it then names.
    rounds
        Times that all is done, after everything has been compiled.
    """
    ingest_s, query_s = np.empty((2, rounds, len(entries)))
    systems = [entry.open() for entry in entries]
    tracks = [[(track, at_rate(x, system.sample_rate)) for track, x in library] for system in systems]
    queries = [[at_rate(x, system.sample_rate) for x in clips] for system in systems]
    for entry in entries:
        warm_up(entry)
    for k in range(rounds):
        for i, entry in enumerate(entries):
            system = entry.open()
            ingest_s[k, i] = _timed(system, tracks[i])
            taken = []
            for clip in queries[i]:
                began = time.perf_counter()
                system.query(clip)
                taken.append(time.perf_counter() - began)
            query_s[k, i] = np.median(taken)
        progress("rounds", k + 1, rounds)
    audio_s = sum(len(x) for _, x in library) / SAMPLE_RATE
    return [
        Speed(
            label=entry.system.label,
            ingest=float(audio_s / np.median(ingest_s[:, i])),
            query_s=float(np.median(query_s[:, i])),
            ingest_ratio=float(np.median(ingest_s[:, i] / ingest_s[:, 0])),
            query_ratio=float(np.median(query_s[:, i] / query_s[:, 0])),
        )
        for i, entry in enumerate(entries)
    ]


def _timed(system: Baseline, tracks: Sequence[tuple[str, Float32]]) -> float:
    began = time.perf_counter()
    for track, samples in tracks:
        system.add(track, samples)
    system.settle()
    return time.perf_counter() - began
