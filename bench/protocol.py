"""A run: clips are made, each system takes in the library and answers every clip, and all of it is written down.

Every system works in a process of its own, so that its memory is its own and several can work side by side. What is
finished stays: a run that is started again with the same folder goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import queue
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

import baselines
from baselines.base import Baseline
from bench import clips
from bench.clip_cache import ClipCache
from bench.clips import Plan
from bench.corpus import Corpus, Recording
from bench.results import (
    COSTS,
    QUERIES,
    RUN,
    Answer,
    Configuration,
    Cost,
    Machine,
    Query,
    References,
    Run,
    System,
    answers_file,
    read_lines,
)
from samaf.atomic import atomic_write
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError, SamafError
from samaf.processes import CONTEXT, follow_parent

STORES = "stores"
"""Folder of a run with what each system saved."""
PACKAGES = (
    "samaf",
    "numpy",
    "numba",
    "scipy",
    "soxr",
    "soundfile",
    "onnxruntime",
    "lmdb",
    "tensorflow",
    "faiss-cpu",
)

USUALLY_ALIKE = ("values", "projection", "front_end", "features")
"""Options that stand in a label only where they are not a system's own choice."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how many are done, how many there are)."""


class RunError(SamafError):
    """A run that cannot go on."""


@dataclass(frozen=True)
class Entry:
    """A system that takes part.

    Attributes
    ----------
    system
        As it is written down.
    parameters
        What its class is made with.
    """

    system: System
    parameters: Any

    def open(self, folder: Path | None = None) -> Baseline:
        """An empty system, or the one saved in `folder`."""
        kind = baselines.system(self.system.name)
        return kind.load(folder) if folder else kind(self.parameters)


def entry(name: str, **options: Any) -> Entry:
    """A system with some parameters other than its own choice; they stand in its key and label.

    Raises
    ------
    ValueError
        If there is no such system.
    """
    kind = baselines.system(name)
    parameters = kind.Parameters(**options)
    kind.check(parameters)
    key, label = [name], [name]
    for option, value in options.items():
        if option == "weights":  # where a network lies makes no other system of it
            continue
        text = value if isinstance(value, str) else f"{value:g}"
        text = Path(text).stem if option == "model" else text
        key.append(re.sub(r"[^\w.-]", "_", text))
        if option in USUALLY_ALIKE and value == getattr(kind.Parameters, option):
            continue
        label.append(
            {
                "bits": f"{text} bits",
                "hop_s": f"hop {text} s",
                "encoder": text,
                "values": f"{text} values",
                "projection": f"{text} projection",
                "front_end": f"{text} front end",
                "features": text,
            }.get(option, f"{option} {text}")
        )
    return Entry(System("-".join(key), name, ", ".join(label), kind.identity(parameters)), parameters)


def run(
    corpus: Corpus,
    entries: Sequence[Entry],
    plan: Plan,
    out: Path,
    *,
    command: str,
    jobs: int = 1,
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Do a run, or the rest of it.

    Parameters
    ----------
    out
        The run's folder; one of an earlier run with the same data, plan and seed is gone on with.
    command
        What to type to repeat the run; written down.
    jobs
        Processes: clips made at once, systems at work at once.
    progress, note
        Hear of what is done, and of what could not be.

    Raises
    ------
    RunError
        If the folder holds another run, or a system fails.
    """
    cells, skipped = cells_of(corpus, plan)
    for cell in skipped:
        note(f"{cell.condition}: left out: {cell.reason}")
    out = out.resolve()  # paths of clips are relative to it
    out.mkdir(parents=True, exist_ok=True)
    configuration = Configuration(
        systems=[entry.system for entry in entries],
        lengths_s=list(plan.lengths_s),
        conditions=list(plan.conditions),
        per_cell=plan.per_cell,
        seed=plan.seed,
        data="; ".join([corpus.source, *corpus.notes]),
    )
    library = corpus.library
    record = Run(
        name=out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        configuration=configuration,
        skipped=skipped,
        packages={name: _version(name) for name in PACKAGES},
        machine=_machine(),
        references=References(len(library), sum(track.duration_s for track in library) / 3600),
    )
    with alone(out):
        _write_run(out / RUN, record, note)
        work = clips.Work(cells, plan, corpus.materials, ClipCache(clips.cache_folder(out)))
        queries = _make_clips(work, out, jobs, progress, note)
        mend(out / COSTS)
        _answer(entries, library, queries, out, jobs, progress, note)


def cells_of(corpus: Corpus, plan: Plan) -> tuple[list[clips.Cell], list[clips.Skipped]]:
    """See :func:`bench.clips.cells`; a `RunError` if none can be made."""
    cells, skipped = clips.cells(corpus, plan)
    if not cells:
        raise RunError(f"no clip can be made: {skipped[0].condition}: {skipped[0].reason}")
    return cells, skipped


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder, so that no second run writes into it."""
    with open(out / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"{out}: another run is at work here; wait for it, or give another folder with --out"
            ) from None
        yield


def _write_run(path: Path, record: Run, note: Callable[[str], None]) -> None:
    """Write what is done here, unless the folder belongs to something else; systems may be added to a run."""
    if path.exists():
        try:
            earlier = Run.from_json(path.read_text(encoding="utf-8"))
        except ValueError:
            raise RunError(f"{path}: is damaged; remove the folder or give another with --out") from None
        same = replace(earlier.configuration, systems=[]) == replace(record.configuration, systems=[])
        if not (same and earlier.references == record.references):
            raise RunError(
                f"{path.parent}: holds a run on other data or with other conditions; give another folder with --out"
            )
        systems = {system.key: system for system in earlier.configuration.systems}
        for system in record.configuration.systems:
            if systems.setdefault(system.key, system) != system:
                raise RunError(
                    f"{path.parent}: holds a run of {system.label} set otherwise; give another folder with --out"
                )
        changed = [name for name in PACKAGES if earlier.packages.get(name) != record.packages[name]]
        if changed or earlier.machine != record.machine:
            note(
                f"{path.parent}: was begun with another {', '.join(changed) or 'machine'}; times may not compare"
            )
        known = {system.key for system in earlier.configuration.systems}
        added = any(system.key not in known for system in record.configuration.systems)
        record = replace(
            record,
            created=earlier.created,
            command=f"{earlier.command} && {record.command}" if added else earlier.command,
            configuration=replace(record.configuration, systems=list(systems.values())),
        )
    with atomic_write(path) as file:
        file.write((record.to_json() + "\n").encode())


def _make_clips(
    work: clips.Work, out: Path, jobs: int, progress: Progress, note: Callable[[str], None]
) -> list[Query]:
    """All clips of the plan; those that an earlier start made, and that are still there, stay as they are."""
    mend(out / QUERIES)
    queries = {query.query: query for query in read_lines(out / QUERIES, Query)}
    done = {name for name, query in queries.items() if (out / query.audio).exists()}
    _ = work.materials.digest  # reckoned once, not in every process
    progress("clips", len(done), work.total)
    with open(out / QUERIES, "a", encoding="utf-8") as file:
        try:
            for number, query in enumerate(clips.make(work, done=done, jobs=jobs), start=len(done) + 1):
                progress("clips", number, work.total)
                if isinstance(query, str):
                    note(query)
                    continue
                done.add(query.query)
                query = replace(query, audio=os.path.relpath(query.audio, out))
                if queries.get(query.query) != query:
                    queries[query.query] = query
                    file.write(query.to_json() + "\n")
                    file.flush()
        except (BrokenProcessPool, soundfile.SoundFileError) as error:
            raise RunError(
                f"{work.cache.folder}: no clip can be written ({error}); is there room and memory?"
            ) from None
    return [query for name, query in queries.items() if name in done]


def mend(path: Path) -> None:
    """Cut off the line that a killed run had begun."""
    if path.exists():
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.truncate(path, whole)


# -- the systems' processes -------------------------------------------------------------------------------------------


def _answer(
    entries: Sequence[Entry],
    library: Sequence[Recording],
    queries: Sequence[Query],
    out: Path,
    jobs: int,
    progress: Progress,
    note: Callable[[str], None],
) -> None:
    """Let all systems take in the library and answer, `jobs` of them at a time."""
    news: Queue[tuple[str, Any]] = CONTEXT.Queue()
    waiting, failed = list(entries), list[str]()
    working: dict[str, BaseProcess] = {}
    while waiting or working:
        while waiting and len(working) < jobs:
            next_ = waiting.pop(0)
            process = CONTEXT.Process(target=_work, args=(next_, library, queries, out, news), daemon=True)
            process.start()
            working[next_.system.key] = process
        what, *rest = _next(news, working)
        if what == "progress":
            progress(*rest)
        elif what == "note":
            note(*rest)
        else:  # a system has ended, its work done or not
            key, trouble = rest
            working.pop(key).join()
            if trouble:
                failed.append(f"{key}: {trouble}")
    if failed:
        raise RunError("; ".join(failed) + "; what is done is kept: the same command goes on")


def _next(news: Queue[tuple[Any, ...]], working: dict[str, BaseProcess]) -> tuple[Any, ...]:
    """The next piece of news; the end of a process that died without a word is news too."""
    while True:
        try:
            return news.get(timeout=1.0)
        except queue.Empty:
            for key, process in working.items():
                if not process.is_alive() and news.empty():
                    return "end", key, f"its process ended with status {process.exitcode}"


def _work(
    entry: Entry, library: Sequence[Recording], queries: Sequence[Query], out: Path, news: Queue[Any]
) -> None:
    """What a system's process does."""
    follow_parent()
    key, label = entry.system.key, entry.system.label
    trouble = ""
    try:
        path = out / answers_file(key)
        mend(path)
        done = {answer.query for answer in read_lines(path, Answer)}
        open_queries = [query for query in queries if query.query not in done]
        if open_queries:
            system = _taken_in(entry, library, out, news)
            answer(system, open_queries[0], out)  # the first answer may take longer
            with open(path, "a", encoding="utf-8") as file:
                for number, query in enumerate(open_queries, start=len(queries) - len(open_queries) + 1):
                    file.write(answer(system, query, out).to_json() + "\n")
                    file.flush()
                    if number % 10 == 0 or number == len(queries):
                        news.put(("progress", f"{label}: clips", number, len(queries)))
    except (SamafError, OSError) as error:
        trouble = str(error) or repr(error)
    except BaseException:
        trouble = traceback.format_exc(limit=-3).strip().replace("\n", " | ")
    news.put(("end", key, trouble))


def _taken_in(entry: Entry, library: Sequence[Recording], out: Path, news: Queue[Any]) -> Baseline:
    """The system with the library in it: as saved, or made now."""
    key, store = entry.system.key, out / STORES / entry.system.key
    warm_up(entry)
    taken_in = any(cost.system == key for cost in read_lines(out / COSTS, Cost))
    if taken_in and (store / "system.json").exists():
        return entry.open(store)
    system = entry.open()
    audio_s = wall_s = cpu_s = 0.0

    def timed(step: Callable[[], None]) -> None:
        nonlocal wall_s, cpu_s
        began, began_cpu = time.perf_counter(), time.process_time()
        try:
            step()
        finally:
            wall_s += time.perf_counter() - began
            cpu_s += time.process_time() - began_cpu

    for number, track in enumerate(library, start=1):
        try:
            samples = at_rate(track.read(), system.sample_rate)
            timed(partial(system.add, track.id, samples))
            audio_s += len(samples) / system.sample_rate
        except AudioError as error:
            news.put(("note", f"{entry.system.label} goes without {track.id}: {error}"))
        news.put(("progress", f"{entry.system.label}: library", number, len(library)))
    timed(system.settle)
    peak = peak_memory_bytes()
    cost = Cost(
        system=key,
        ingest_s=wall_s,
        ingest_cpu_s=cpu_s,
        audio_s=audio_s,
        index_bytes=system.save(store),
        peak_memory_bytes=peak,
        macs_per_s=system.macs_per_s,
    )
    with open(out / COSTS, "a", encoding="utf-8") as file:
        file.write(cost.to_json() + "\n")
    return system


def answer(system: Baseline, query: Query, folder: Path) -> Answer:
    """What a system says to a clip; the time is that of the system alone, without reading and resampling."""
    audio, rate = soundfile.read(folder / query.audio, dtype="float32")
    samples = at_rate(audio, system.sample_rate, rate)
    began = time.perf_counter()
    match = system.query(samples)
    elapsed_s = time.perf_counter() - began
    if match is None:
        return Answer(query.query, elapsed_s)
    fields = asdict(match)
    return Answer(query=query.query, elapsed_s=elapsed_s, track=fields.pop("track_id"), **fields)


def at_rate(samples: np.ndarray, rate: int, came_at: int = SAMPLE_RATE) -> np.ndarray:
    """Samples at a system's own rate."""
    return samples if rate == came_at else soxr.resample(samples, came_at, rate)


def warm_up(entry: Entry) -> None:
    """Have everything compiled that a system compiles at first use, on an instance that is thrown away."""
    system = entry.open()
    noise = np.random.default_rng(0).standard_normal(12 * system.sample_rate).astype(np.float32) / 10
    system.add("noise", noise)
    system.query(noise[: 6 * system.sample_rate])


def peak_memory_bytes() -> int:
    """The most memory that this process has held."""
    try:  # what getrusage tells may be that of the process that started this one
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


# -- where a run was made ---------------------------------------------------------------------------------------------


def _machine() -> Machine:
    import psutil

    return Machine(
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        platform=platform.platform(),
        python=platform.python_version(),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "not installed"


def processor_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
