"""Corpus x conditions x lengths -> clips, and the truth about each.

Clip ``i`` of a cell (condition, length) is the same however many clips the cell has, and whichever other cells there
are: every draw comes from a generator seeded with the seed, the cell and ``i``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bench.clip_cache import ClipCache
from bench.corpus import Corpus, Materials, Recording
from bench.degrade import Condition, missing, parse
from bench.effects import rms
from bench.results import Query, Skipped
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError
from samaf.processes import CONTEXT, follow_parent

EVALUATION = tuple(
    """
    clean noise10 noise5 noise0 noise-5 noise-10 reverb noise5_reverb mp3_32 opus_16 gsm bandpass echo
    speed0.95 speed1.05 speed0.9 speed1.1 tempo0.95 tempo1.05 tempo0.9 tempo1.1 pitch-100 pitch-50 pitch+50 pitch+100
    rerecord
    """.split()
)
"""The conditions that systems are compared under if nothing else is said."""
OUTSIDE = ("ool_clean", "ool_noise5")
"""Conditions of clips that are in no library."""
TRIES = 20
"""How often a stretch is drawn before there is none."""

_QUIET = 1e-3
"""RMS under which a stretch is drawn again."""


@dataclass(frozen=True)
class Plan:
    """Which clips are wanted.

    Attributes
    ----------
    conditions
        Names as :func:`bench.degrade.parse` reads them.
    lengths_s
        Clip lengths.
    per_cell
        Clips for each condition and length.
    seed
        Of all draws.
    """

    conditions: Sequence[str]
    lengths_s: Sequence[float]
    per_cell: int
    seed: int = 1


@dataclass(frozen=True)
class Cell:
    """A condition at a length, and the tracks that are long enough for it."""

    name: str
    condition: Condition
    length_s: float
    tracks: Sequence[Recording]
    outside: bool


@dataclass(frozen=True)
class Work:
    """What every process that makes clips knows.

    Attributes
    ----------
    cells
        Those of the plan that can be made.
    plan
        How many clips of each, and the seed.
    materials
        Noise and rooms.
    cache
        Where the clips are kept.
    """

    cells: Sequence[Cell]
    plan: Plan
    materials: Materials
    cache: ClipCache

    @property
    def total(self) -> int:
        """Number of clips."""
        return self.plan.per_cell * len(self.cells)


def cells(corpus: Corpus, plan: Plan) -> tuple[list[Cell], list[Skipped]]:
    """The cells that can be made, and the conditions that cannot, each with the reason.

    Raises
    ------
    ValueError
        If a condition has an unknown name.
    """
    made, skipped = [], []
    for name in (*plan.conditions, *OUTSIDE):
        outside = name in OUTSIDE
        condition = parse(name.removeprefix("ool_"))
        reason = missing(condition, corpus.materials)
        if reason:
            skipped.append(Skipped(name, reason))
            continue
        for length_s in plan.lengths_s:
            pool = corpus.outsiders if outside else corpus.references
            tracks = [track for track in pool if track.duration_s > length_s * condition.factor + 0.1]
            if tracks:
                made.append(Cell(name, condition, length_s, tracks, outside))
            else:
                skipped.append(Skipped(name, f"not at {length_s:g} s, as no track is long enough"))
    return made, skipped


def make(work: Work, *, done: Collection[str] = (), jobs: int = 1) -> Iterator[Query | str]:
    """Make the clips, several at once; yields each clip's record, or why one could not be made.

    Parameters
    ----------
    done
        Names of clips that need not be made again.
    jobs
        Processes.
    """
    wanted = (
        (which, number)
        for which, cell in enumerate(work.cells)
        for number in range(work.plan.per_cell)
        if clip_name(cell.name, cell.length_s, number) not in done
    )
    with ProcessPoolExecutor(jobs, CONTEXT, _begin, (work,)) as pool:
        waiting = [pool.submit(_make, *one) for one in islice(wanted, 4 * jobs)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(_make, *one) for one in islice(wanted, 1)]


_work: list[Work] = []
"""In a process that makes clips, its work."""


def _begin(work: Work) -> None:
    follow_parent()
    _work[:] = [work]


def clip_name(condition: str, length_s: float, number: int) -> str:
    """Name of a clip: ``noise5_5_012``."""
    return f"{condition}_{length_s:g}_{number:03d}"


def _make(which: int, number: int) -> Query | str:
    """Clip `number` of a cell; the reason, where no track of several gave one."""
    [work] = _work
    cell = work.cells[which]
    name = clip_name(cell.name, cell.length_s, number)
    seed = [work.plan.seed, zlib.crc32(f"{cell.name}/{cell.length_s:g}".encode()), number]
    rng = np.random.default_rng(seed)
    n = cell.condition.clean_samples(round(cell.length_s * SAMPLE_RATE))
    reason = "nothing but silence"
    for _ in range(TRIES):
        track = cell.tracks[int(rng.integers(len(cell.tracks)))]
        start = int(rng.uniform(0.0, track.duration_s - n / SAMPLE_RATE - 0.05) * SAMPLE_RATE)
        try:
            path = spoiled(track, start, n, cell.condition, work.materials, work.cache, seed)
        except AudioError as error:
            reason = str(error)
            continue
        if path is None:
            continue
        # nobody shall find what runs backwards
        unknown = cell.outside or any(step.effect.word == "reverse" for step in cell.condition.steps)
        return Query(
            query=name,
            condition=cell.name,
            length_s=cell.length_s,
            kind=track.kind,
            track=None if unknown else track.id,
            offset_s=None if unknown else start / SAMPLE_RATE,
            factor=cell.condition.factor,
            audio=os.fspath(path),
        )
    return f"{name}: no clip could be cut ({reason})"


def spoiled(
    track: Recording,
    start: int,
    n: int,
    condition: Condition,
    materials: Materials,
    cache: ClipCache,
    seed: Sequence[int],
) -> Path | None:
    """The file of `n` samples of a track from the sample `start` on, under a condition.

    None where they are quiet, or the track ends before.

    Raises
    ------
    AudioError
        If the track, or what spoils it, cannot be read.
    """
    run_in = min(start, round(condition.run_in_s * SAMPLE_RATE))
    audio = track.read((start - run_in) / SAMPLE_RATE, (start + n) / SAMPLE_RATE)
    clean = audio[run_in : run_in + n]
    if len(clean) < n or rms(clean.astype(np.float64)) < _QUIET:
        return None
    return cache.clip(clean, audio[:run_in], condition, materials, seed)


def cache_folder(out: Path) -> Path:
    """Where runs beside each other keep the clips they share."""
    return out.parent / "cache"
