"""samaf's best answers to clips whose recordings its library holds or not, written down as they come.

A calibration is a folder::

    calibration.json      Setting: data, library, conditions, seed
    calibration.jsonl     Answered, one a line: a clip and the best answer of one library

Clips and libraries lie in the cache beside the folder, for other calibrations on the same data. Lines are only ever
appended, and a clip depends on no other: the same command goes on where a killed one stopped, and one that asks for
more clips adds to what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import soundfile

from bench import masked
from bench.clips import cache_folder
from bench.corpus import Recording
from bench.masked import Masked, label_of
from bench.protocol import RunError, alone, mend
from bench.results import Record, read_lines
from bench.unknowns import Cutter, Unknown
from samaf.atomic import atomic_write
from samaf.files import digest as file_digest
from samaf.places import index_path
from samaf.processes import CONTEXT, follow_parent
from samaf.weights import DEFAULT_PATH, Weights

SETTING, ANSWERS = "calibration.json", "calibration.jsonl"
LONG_S = 10.0
"""Longer clips are asked for in smaller numbers: they take longer."""

Progress = Callable[[str, int, int], None]
Copies = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Setting(Record):
    """What all lines of a calibration have in common; `weights` and `copies` are digests of files."""

    data: str
    library_tracks: int
    library_hours: float
    bits: int
    weights: str
    conditions: list[str]
    copies: str
    seed: int


@dataclass(frozen=True)
class Answered(Record):
    """A clip, and the best answer of one library to it.

    Attributes
    ----------
    query, kind, length_s, condition, tracks, artist
        The clip; see :class:`bench.unknowns.Unknown`.
    library
        Which library was asked: ``real``, ``real+10000``.
    held
        Whether it held the clip's recordings; else they and their copies were hidden.
    score, evalue, log_odds, named
        The answer; see :class:`bench.masked.Answer`.
    right
        Whether that is one of the clip's recordings, or a copy of one.
    """

    query: str
    kind: str
    length_s: float
    condition: str
    tracks: list[str]
    artist: str
    library: str
    held: bool
    score: float | None
    evalue: float | None
    log_odds: float | None
    named: str | None
    right: bool


@dataclass(frozen=True)
class Plan:
    """Which clips are wanted.

    Attributes
    ----------
    kinds, lengths_s
        Each kind at each length is a cell.
    per_cell, long_per_cell
        Clips of a cell, and of one whose clips are longer than :data:`LONG_S`.
    drawn
        Numbers of drawn tracks in the further libraries.
    """

    kinds: Sequence[str]
    lengths_s: Sequence[float]
    per_cell: int
    long_per_cell: int
    drawn: Sequence[int] = ()

    @property
    def libraries(self) -> list[str]:
        """Labels of all libraries."""
        return [label_of(n) for n in (0, *self.drawn)]

    @property
    def clips(self) -> list[tuple[str, float, int]]:
        """(kind, length, number) of all clips; the first of every cell, then the second of every cell."""
        cells = [
            (kind, length_s, self.long_per_cell if length_s > LONG_S else self.per_cell)
            for kind in self.kinds
            for length_s in self.lengths_s
        ]
        most = max((n for _, _, n in cells), default=0)
        return [(kind, length_s, i) for i in range(most) for kind, length_s, n in cells if i < n]


@dataclass(frozen=True)
class Work:
    """What every process that asks knows.

    Attributes
    ----------
    cutter
        Makes the clips.
    copies
        For a recording, those that hold the same audio.
    libraries
        Files of the libraries, by label.
    recordings
        Those of the library.
    model
        Weights file; None: the one that the library knows.
    """

    cutter: Cutter
    copies: Copies
    libraries: Mapping[str, Path]
    recordings: Sequence[Recording]
    model: str | None = None


def measure(
    cutter: Cutter,
    plan: Plan,
    out: Path,
    *,
    copies: Copies,
    bits: int,
    model: str | None = None,
    jobs: int = 1,
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Answered]:
    """Ask all libraries for all clips of a plan, or for the rest of them; returns the lines of the plan's cells.

    Parameters
    ----------
    cutter
        Makes the clips; its pool's library is the real one.
    out
        The folder; one of an earlier calibration on the same data is gone on with.
    copies
        For a recording, those that hold the same audio: they are hidden with it.
    bits, model
        Of the libraries.
    jobs
        Processes.
    progress, note
        Hear of what is done, and of what could not be.

    Raises
    ------
    RunError
        If the folder holds another calibration, or a process dies.
    """
    out = out.resolve()
    pool = cutter.pool
    weights = Path(model) if model else DEFAULT_PATH
    folder = cache_folder(out) / f"libraries-{_library_digest(cutter, bits, Weights.load(weights).model_id)}"
    for made in (out, folder):
        made.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        data="; ".join([pool.source, *pool.notes]),
        library_tracks=len(pool.library),
        library_hours=round(sum(track.duration_s for track in pool.library) / 3600, 3),
        bits=bits,
        weights=file_digest(weights)[:16],
        conditions=list(cutter.conditions),
        copies=_copies_digest(copies),
        seed=cutter.seed,
    )
    with alone(out):
        _write_setting(out / SETTING, setting)
        paths = {label: index_path(folder / label) for label in plan.libraries}
        real = paths[masked.REAL]
        with alone(folder):
            masked.make_real(
                real, pool.library, bits=bits, model=model, jobs=jobs, progress=progress, note=note
            )
            for n in plan.drawn:
                masked.make_drawn(paths[label_of(n)], real, n, progress=progress)
        _ = pool.materials.digest  # reckoned once, not in every process
        work = Work(cutter, copies, paths, pool.library, model)
        _ask_all(work, plan, out / ANSWERS, jobs, progress, note)
    return read(out, plan)


def read(out: Path, plan: Plan) -> list[Answered]:
    """The lines of a plan's cells, each clip and library once."""
    wanted = {(library, kind, s) for library in plan.libraries for kind in plan.kinds for s in plan.lengths_s}
    lines = {(line.library, line.query, line.held): line for line in read_lines(out / ANSWERS, Answered)}
    return [line for line in lines.values() if (line.library, line.kind, line.length_s) in wanted]


def answers(clip: Unknown, libraries: Mapping[str, Masked], copies: Copies) -> Iterator[Answered]:
    """What libraries answer to a clip, and what they answer if its recordings and their copies are hidden from them."""
    samples, _ = soundfile.read(clip.audio, dtype="float32")
    own = set(clip.tracks).union(*(copies.get(track, ()) for track in clip.tracks))
    for (label, library), held in product(libraries.items(), (True, False)):
        answer = library.ask(samples, () if held else own)
        yield Answered(
            query=clip.name,
            kind=clip.kind,
            length_s=clip.length_s,
            condition=clip.condition,
            tracks=list(clip.tracks),
            artist=clip.artist,
            library=label,
            held=held,
            score=answer.score,
            evalue=answer.evalue,
            log_odds=answer.log_odds,
            named=answer.named,
            right=answer.named in own,
        )


def _ask_all(
    work: Work, plan: Plan, path: Path, jobs: int, progress: Progress, note: Callable[[str], None]
) -> None:
    """Ask for what no line tells yet."""
    mend(path)
    done: dict[tuple[str, float, int], set[tuple[str, bool]]] = defaultdict(set)
    for line in read_lines(path, Answered):
        done[line.kind, line.length_s, int(line.query.rpartition("_")[2])].add((line.library, line.held))
    tasks = [
        (clip, [label for label in plan.libraries if not {(label, True), (label, False)} <= done[clip]])
        for clip in plan.clips
    ]
    total = len(tasks)
    tasks = [task for task in tasks if task[1]]
    progress("clips", total - len(tasks), total)
    try:
        with (
            open(path, "a", encoding="utf-8") as file,
            ProcessPoolExecutor(jobs, CONTEXT, _begin, (work,)) as pool,
        ):
            waiting = [pool.submit(_ask, *task) for task in islice(tasks, 4 * jobs)]
            rest = iter(tasks[4 * jobs :])
            for number in range(total - len(tasks) + 1, total + 1):
                lines = waiting.pop(0).result()
                waiting += [pool.submit(_ask, *task) for task in islice(rest, 1)]
                progress("clips", number, total)
                if isinstance(lines, str):
                    note(lines)
                    continue
                file.write("".join(line.to_json() + "\n" for line in lines))
                file.flush()
    except BrokenProcessPool:
        raise RunError(
            f"{path.parent}: a process died; is there memory? What is done is kept: the same command goes on"
        ) from None
    except soundfile.SoundFileError as error:
        raise RunError(
            f"{work.cutter.cache.folder}: no clip can be written ({error}); is there room?"
        ) from None


_here: list[tuple[Work, dict[str, Masked]]] = []
"""In a process that asks, its work and its libraries."""


def _begin(work: Work) -> None:
    follow_parent()
    _here[:] = [(work, {})]


def _ask(clip: tuple[str, float, int], labels: Collection[str]) -> list[Answered] | str:
    [(work, libraries)] = _here
    if not libraries:
        libraries |= masked.opened(work.libraries, work.recordings, work.model)
    cut = work.cutter.cut(*clip)
    if isinstance(cut, str):
        return cut
    return list(answers(cut, {label: libraries[label] for label in labels}, work.copies))


def read_setting(out: Path) -> Setting:
    """The setting of the calibration in a folder."""
    return Setting.from_json((out / SETTING).read_text(encoding="utf-8"))


def _write_setting(path: Path, setting: Setting) -> None:
    """Write what is done here, unless the folder belongs to something else."""
    if path.exists():
        try:
            earlier = Setting.from_json(path.read_text(encoding="utf-8"))
        except ValueError:
            raise RunError(f"{path}: is damaged; remove the folder or give another with --out") from None
        if earlier != setting:
            raise RunError(
                f"{path.parent}: holds a calibration on other data or set otherwise; give another folder with --out"
            )
        return
    with atomic_write(path) as file:
        file.write((setting.to_json() + "\n").encode())


def _library_digest(cutter: Cutter, bits: int, model_id: str) -> str:
    """What tells the libraries of one calibration from those of another."""
    return _digest([[track.id, os.path.abspath(track.path)] for track in cutter.pool.library], bits, model_id)


def _copies_digest(copies: Copies) -> str:
    """What tells one table of copies from another; empty where there is none."""
    return _digest(sorted([path, *sorted(others)] for path, others in copies.items())) if copies else ""


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
