"""The files of a run: what was asked, what each system answered, and what that took.

A run is a folder::

    run.json              Run: name, command, configuration, versions, machine
    queries.jsonl         Query, one a line: a clip and the truth about it
    systems.jsonl         Cost, one a line: what taking in the library cost each system
    results-KEY.jsonl     Answer, one a line: the answers of the system with this key

Lines are only ever appended, so a run that was killed is the beginning of a run: :func:`read` takes what is there.
Figures and tables are drawn from these files alone, today or years later. The records read and write themselves as
JSON; numbers that JSON does not have (nan, infinity) become null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from bench.metrics import Outcomes
from samaf.errors import SamafError

RUN, QUERIES, COSTS = "run.json", "queries.jsonl", "systems.jsonl"
"""Files of a run's folder; see also :func:`answers_file`."""


class ResultsError(SamafError, ValueError):
    """A folder that is none of a run, or a file of one that is damaged."""


@dataclass(frozen=True)
class Record:
    """A dataclass that is one JSON object, its fields under their own names."""

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(_finite(asdict(self)), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If `text` is no JSON object with the record's fields.
        """
        try:
            return cls.of(json.loads(text))
        except (TypeError, KeyError) as error:
            raise ValueError(f"no {cls.__name__.lower()}: {error}") from None

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The record with these fields; overridden where fields are records themselves."""
        return cls(**fields)


@dataclass(frozen=True)
class System(Record):
    """A system with its settings.

    Attributes
    ----------
    key
        Its name within the run, good for a file name: ``samaf-128``.
    name
        What it is, however it is set: ``samaf``. Systems of one name are drawn as one curve.
    label
        As a reader sees it: ``samaf, 128 bits``. Runs are joined by it.
    parameters
        Its settings.
    """

    key: str
    name: str
    label: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Configuration(Record):
    """What a run was asked to do."""

    systems: list[System]
    lengths_s: list[float]
    conditions: list[str]
    per_cell: int
    seed: int
    data: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The record with these fields."""
        return cls(**{**fields, "systems": [System.of(system) for system in fields["systems"]]})


@dataclass(frozen=True)
class Skipped(Record):
    """A condition that could not be made, and why."""

    condition: str
    reason: str


@dataclass(frozen=True)
class Machine(Record):
    """Where a run was made."""

    processor: str
    cores: int
    memory_bytes: int
    platform: str
    python: str


@dataclass(frozen=True)
class References(Record):
    """The library that the systems were given."""

    count: int
    hours: float


@dataclass(frozen=True)
class Run(Record):
    """A run as a whole. `created` is an ISO 8601 time, `command` what to type to repeat it."""

    name: str
    created: str
    command: str
    configuration: Configuration
    skipped: list[Skipped]
    packages: dict[str, str]
    machine: Machine
    references: References

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The record with these fields."""
        return cls(
            **{
                **fields,
                "configuration": Configuration.of(fields["configuration"]),
                "skipped": [Skipped.of(skipped) for skipped in fields["skipped"]],
                "machine": Machine.of(fields["machine"]),
                "references": References.of(fields["references"]),
            }
        )


@dataclass(frozen=True)
class Query(Record):
    """A clip, and the truth about it.

    Attributes
    ----------
    query
        Its name, unique within the run.
    condition
        What was done to it: ``noise5``, ``speed0.95``.
    length_s
        Its length.
    kind
        What it is: ``music``, ``speech``.
    track, offset_s
        The recording, and the place in it of the clip's first sample; both None for a clip out of the library.
    factor
        Seconds of the recording by second of the clip.
    audio
        The clip, a file of 16 kHz; relative to the run's folder, or absolute. :func:`read` resolves it.
    """

    query: str
    condition: str
    length_s: float
    kind: str
    track: str | None
    offset_s: float | None
    factor: float
    audio: str


@dataclass(frozen=True)
class Cost(Record):
    """What it took the system with the key `system` to take in the library.

    `macs_per_s` are the multiplications of its network for a second of audio; None where it has no network.
    """

    system: str
    ingest_s: float
    ingest_cpu_s: float
    audio_s: float
    index_bytes: int
    peak_memory_bytes: int
    macs_per_s: float | None = None


@dataclass(frozen=True)
class Answer(Record):
    """What a system answered to a query; see :class:`baselines.base.Match`. All but `query` and `elapsed_s` may miss.

    Attributes
    ----------
    query
        Name of the clip.
    elapsed_s
        Seconds that the answer took.
    track, offset_s, score
        The best candidate; None where the system had none.
    accepted
        The system's own verdict on it.
    speed, tempo, pitch_cents
        What the system says was done to the clip.
    ber
        Bit error rate of the alignment; None for systems without.
    """

    query: str
    elapsed_s: float
    track: str | None = None
    offset_s: float | None = None
    score: float | None = None
    accepted: bool = False
    speed: float = 1.0
    tempo: float = 1.0
    pitch_cents: float = 0.0
    ber: float | None = None


AnyRecord = TypeVar("AnyRecord", bound=Record)
Trial = tuple[Query, Answer]


@dataclass(frozen=True)
class RunFolder:
    """What a run's folder holds; `costs` and `answers` by the system's key."""

    path: Path
    run: Run
    queries: list[Query]
    costs: dict[str, Cost]
    answers: dict[str, list[Answer]]


@dataclass(frozen=True)
class Measured:
    """A system, and all that was measured of it in one run or several.

    Attributes
    ----------
    system
        As the latest run has it.
    cost
        None until a library was taken in.
    trials
        Queries with their answers.
    planned
        Number of queries put to it; there are fewer trials while a run is unfinished.
    """

    system: System
    cost: Cost | None
    trials: list[Trial]
    planned: int


def answers_file(key: str) -> str:
    """Name of the file with a system's answers."""
    return f"results-{key}.jsonl"


def read_lines(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """The records of a file; none where there is no file.

    A last line without an end is what a killed run had begun to write: it is left out.

    Raises
    ------
    ResultsError
        If another line is no such record.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            records.append(kind.from_json(line))
        except ValueError as error:
            raise ResultsError(f"{path}, line {number}: {error}; remove the line") from None
    return records


def read(folder: Path) -> RunFolder:
    """Everything in a run's folder.

    Raises
    ------
    ResultsError
        If `folder` is not one of a run, or a file of it is damaged.
    """
    try:
        run = Run.from_json((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{folder}: no folder of a run, it has no {RUN}") from None
    except ValueError as error:
        raise ResultsError(f"{folder / RUN}: {error}") from None
    # a clip that was made anew has a later line
    queries = list({query.query: query for query in read_lines(folder / QUERIES, Query)}.values())
    return RunFolder(
        path=folder,
        run=run,
        queries=[replace(query, audio=str(folder / query.audio)) for query in queries],
        costs={cost.system: cost for cost in read_lines(folder / COSTS, Cost)},
        answers={
            system.key: read_lines(folder / answers_file(system.key), Answer)
            for system in run.configuration.systems
        },
    )


def merge(folders: Sequence[RunFolder]) -> list[Measured]:
    """The systems of several runs, those of one label as one.

    Systems of one name stand together, in the order of the numbers in their labels: 64, 128, 256 bits. A clip that
    several runs have in common (same data and seed, and all that is said of it) counts once, with the answer of the
    last of them.
    """
    found: dict[str, Measured] = {}
    trials: dict[str, dict[Any, Trial]] = {}
    planned: dict[str, set[Any]] = {}
    for folder in folders:
        configuration = folder.run.configuration
        # Where the clip's file lies says nothing of what it is.
        clips = {
            query.query: (query, (configuration.data, configuration.seed, replace(query, audio="")))
            for query in folder.queries
        }
        for system in configuration.systems:
            label, earlier = system.label, found.get(system.label)
            cost = folder.costs.get(system.key) or (earlier.cost if earlier else None)
            found[label] = Measured(system, cost, [], 0)
            planned.setdefault(label, set()).update(same for _, same in clips.values())
            for answer in folder.answers[system.key]:
                if clip := clips.get(answer.query):
                    trials.setdefault(label, {})[clip[1]] = (clip[0], answer)
    names = list(dict.fromkeys(measured.system.name for measured in found.values()))
    labels = sorted(found, key=lambda label: (names.index(found[label].system.name), _natural(label)))
    return [
        replace(found[label], trials=list(trials.get(label, {}).values()), planned=len(planned[label]))
        for label in labels
    ]


def outcomes(trials: Iterable[Trial]) -> Outcomes:
    """The columns that :mod:`bench.metrics` works on, a row a trial."""
    rows = [
        (
            query.track is not None,
            answer.track is not None,
            right := answer.track is not None and answer.track == query.track,
            answer.accepted and answer.track is not None,
            _number(answer.score),
            _number(answer.offset_s) - _number(query.offset_s) if right else math.nan,
            _number(answer.ber),
            answer.elapsed_s,
        )
        for query, answer in trials
    ]
    types = (bool, bool, bool, bool, float, float, float, float)
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    return Outcomes(*(np.array(column, kind) for column, kind in zip(columns, types, strict=True)))


def _natural(label: str) -> list[tuple[float, str]]:
    """Key that sorts "64 bits" before "128 bits"."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part) if i % 2 else 0.0, "" if i % 2 else part) for i, part in enumerate(parts)]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    """The same, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
