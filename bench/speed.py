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
from bench.protocol import Entry, at_rate, warm_up
from samaf.audio import SAMPLE_RATE

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
