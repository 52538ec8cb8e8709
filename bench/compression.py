"""Smaller models beside the one that ships: what they weigh, how fast they are, and what they lose.

Every model answers the same clips, in a process and with an index of its own (:mod:`bench.protocol`). What one loses
is told against the model that ships, clip by clip. A quantised model whose original takes part is also tried in an
index of the original (:mod:`samaf.model.compatible`).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import charts, kept, metrics, protocol, speed, tables
from bench.clips import Plan
from bench.comparison import Comparison, Entrant, Group
from bench.corpus import Corpus
from bench.metrics import Bools, Rate
from bench.protocol import Entry, Progress, entry, processor_name
from bench.resamples import Judgement, ahead_in_naming, written
from bench.speed import Speed
from bench.study import Picture, Study
from bench.tables import UNKNOWN, Table, plain_table
from samaf.audio import SAMPLE_RATE
from samaf.errors import ModelError, shown
from samaf.model.augment import Sources
from samaf.model.compatible import Loss, loss_of
from samaf.onnx_runtime import whole_products
from samaf.weights import DEFAULT_PATH, Weights

TITLE = "Smaller models: size, speed, and what is lost"
CLIPS = 20
"""Clips of the shortest length whose answers are timed."""


@dataclass(frozen=True)
class Model:
    """A weights file that takes part.

    Attributes
    ----------
    entry
        The engine with it.
    path
        The file.
    weights
        What it holds.
    """

    entry: Entry
    path: Path
    weights: Weights

    @property
    def name(self) -> str:
        """As a reader sees it."""
        return self.path.stem

    @property
    def array_bytes(self) -> int:
        """What the encoder's arrays take of the file, where those of a pruned model are deflated."""
        with zipfile.ZipFile(self.path) as archive:
            return sum(
                member.compress_size
                for member in archive.infolist()
                if Path(member.filename).stem.removesuffix("_scale") in self.weights.arrays
            )


@dataclass(frozen=True)
class Effort:
    """How much is measured besides the answers to the plan's clips.

    Attributes
    ----------
    minutes, rounds
        Audio that each model takes in to be timed, and how often.
    clips
        That quantised models search for in an index of their original.
    """

    minutes: float = 10.0
    rounds: int = 5
    clips: int = 2000


def models_of(files: Sequence[Path], bits: int) -> list[Model]:
    """The model that ships, then those of the files, each once.

    Raises
    ------
    ModelError
        If a file cannot be read, has no code of that length, or has the name of another.
    """
    models = []
    for path in each_once(files):
        option = {} if path == DEFAULT_PATH.resolve() else {"model": str(path)}
        models.append(Model(entry("samaf", bits=bits, **option), path, Weights.load(path)))
    return models


def each_once(files: Sequence[Path]) -> list[Path]:
    """The file of the model that ships, then the others, each once; they need not be there yet.

    Raises
    ------
    ModelError
        If one has the name of another.
    """
    paths: dict[str, Path] = {}
    for path in dict.fromkeys([DEFAULT_PATH.resolve(), *(file.resolve() for file in files)]):
        if path.stem in paths:
            raise ModelError(
                f"{shown(path)}: {shown(paths[path.stem])} has the same name; rename one of the files"
            )
        paths[path.stem] = path
    return list(paths.values())


def compare(
    models: Sequence[Model],
    corpus: Corpus,
    plan: Plan,
    out: Path,
    effort: Effort,
    *,
    command: str,
    jobs: int = 1,
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Study:
    """Have models answer, time them, and tell what they lose.

    Parameters
    ----------
    models
        The first is the one that the others are held against.
    corpus, plan, command, jobs, progress, note
        As for :func:`bench.protocol.run`.
    out
        Folder for raw answers and measures; what it has of the same models is not done again, but for timing.
    effort
        How much else is measured.
    """
    entries = [model.entry for model in models]
    protocol.run(corpus, entries, plan, out / "run", command=command, jobs=jobs, progress=progress, note=note)
    taken_in, clips = speed.material(
        corpus, minutes=effort.minutes, length_s=min(plan.lengths_s), clips=CLIPS, seed=plan.seed, note=note
    )
    speeds = speed.measure(entries, taken_in, clips, rounds=effort.rounds, progress=progress)
    losses = in_originals(models, corpus, out / "originals", effort.clips, plan.seed, progress, note)
    comparison = Comparison.read([out / "run"])
    by_label = {entrant.label: entrant for entrant in comparison.entrants}
    found = [
        Measured(model, by_label[model.entry.system.label], timed)
        for model, timed in zip(models, speeds, strict=True)
    ]
    minutes = sum(len(samples) for _, samples in taken_in) / SAMPLE_RATE / 60
    made = [overview(found, comparison)]
    if len(comparison.groups) > 1:
        made += [in_group(found, group) for group in comparison.groups]
    if losses:
        made.append(of_originals(losses))
    return Study(
        TITLE,
        command,
        [
            f"{'; '.join([corpus.source, *corpus.notes])}. {len(corpus.library)} recordings in the library, "
            f"{len(found[0].entrant.trials):,} clips under {len(plan.conditions)} conditions, "
            f"{models[0].entry.parameters.bits} bits.",
            f"Processor: {processor_name()}, {'with' if whole_products() else 'without'} VNNI or what does the same: "
            f"models of 8 bits {'multiply whole numbers' if whole_products() else 'are unpacked as they are loaded'}. "
            f"One core, in turns, medians of {effort.rounds} rounds over {minutes:.3g} minutes of audio.",
        ],
        made,
        [picture(found)],
    )


# -- in an index of the original ---------------------------------------------------------------------------------------


def in_originals(
    models: Sequence[Model],
    corpus: Corpus,
    folder: Path,
    clips: int,
    seed: int,
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, tuple[str, Loss]]:
    """By the names of quantised models whose original takes part: its name, and what is lost in its index.

    Parameters
    ----------
    folder
        What it has is not done again.
    """
    held_out = [track.path for track in corpus.references]
    library = [track.path for track in corpus.crowd]
    noises, rooms = ([one.path for one in some] for some in (corpus.materials.noises, corpus.materials.rooms))
    found = {}
    for model in models:
        of_id = model.weights.facts.get("original")
        original = next((one for one in models if one.weights.own_id == of_id), None)
        if original is None:
            continue
        file = folder / f"{model.name}.json"
        of = [model.entry.system.parameters, original.entry.system.parameters, clips, seed]
        of += [[str(path) for path in paths] for paths in (held_out, library, noises, rooms)]
        loss = _known(file, of)
        if loss is None:
            what = f"{model.name} in an index of {original.name}"
            try:
                loss = loss_of(
                    model.path,
                    original.path,
                    model.weights.calibration,
                    held_out,
                    library,
                    sources=Sources(noises, rooms),
                    clips=clips,
                    seed=seed,
                    progress=lambda done, total, _, what=what: progress(what, done, total),
                )
            except ModelError as error:
                note(f"{what}: left out: {error}")
                continue
            kept.write(file, of, loss.to_json())
        found[model.name] = original.name, loss
    return found


def _known(file: Path, of: Sequence[object]) -> Loss | None:
    try:
        return Loss(**kept.read(file, of))
    except TypeError:  # there is none, or an older samaf found it
        return None


# -- tables ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A model with its answers and times."""

    model: Model
    entrant: Entrant
    speed: Speed

    def lost(self, hits: Callable[[Entrant], Bools], against: Measured, group: Group | None) -> Judgement:
        """What it loses against another model."""
        return ahead_in_naming(against.entrant, self.entrant, hits, group)


def best_candidates(entrant: Entrant) -> Bools:
    """Trials whose best candidate is right, (n,)."""
    return entrant.outcomes.right


def at_equal_false_answers(entrant: Entrant) -> Bools:
    """Trials that are named rightly at 1 % false answers, (n,)."""
    return entrant.outcomes.right & (entrant.outcomes.evidence > entrant.threshold)


_RATES = (
    "Best candidate, %",
    "Lost, points",
    "At 1 % false answers, %",
    "Lost at 1 %, points",
    "Accuracy, %",
    "Precision, %",
    "Recall, %",
    "F1, %",
    "Unknown clips named, %",
)
_MEANING = (
    "In brackets 95 % intervals. Lost: against the first model, of the same clips; its interval is that of resamples "
    "of the recordings. At 1 % false answers: named rightly, above the score that 1 % of a model's unknown clips "
    "exceed. The columns after that are of the model's own verdict, as `samaf search` gives it: accuracy is the share "
    "of all clips that are named rightly, or unknown and not named; precision that of right ones among the answers; "
    "recall that of the library's clips that are named rightly."
)


def _rates(one: Measured, first: Measured, group: Group | None) -> list[str]:
    outcomes = one.entrant.outcomes if group is None else one.entrant.at(group)
    lost = [
        UNKNOWN if one is first else one.lost(hits, first, group).points
        for hits in (best_candidates, at_equal_false_answers)
    ]
    if math.isnan(one.entrant.threshold):
        lost[1] = UNKNOWN
    return [
        _written(metrics.top1(outcomes)),
        lost[0],
        _written(metrics.hits_above(outcomes, one.entrant.threshold)),
        lost[1],
        *(_written(rate(outcomes)) for rate in (metrics.accuracy, metrics.precision, metrics.recall)),
        tables.percent(metrics.f1(outcomes), 1),
        _written(metrics.false_accepts(outcomes)),
    ]


def _written(rate: Rate) -> str:
    return written(rate.value, rate.interval, 1)


def overview(found: Sequence[Measured], comparison: Comparison) -> Table:
    """A line a model: size, speed, memory, and how it does over all clips."""
    first = found[0]
    rows = []
    for one in found:
        model, cost = one.model, one.entrant.cost
        rows.append(
            [
                model.name,
                tables.size(model.array_bytes),
                tables.percent(model.array_bytes / first.model.array_bytes),
                tables.size(model.path.stat().st_size),
                tables.macs(math.nan if cost is None or cost.macs_per_s is None else cost.macs_per_s),
                *_rates(one, first, None),
                f"{1000 / one.speed.ingest:.3f}",
                tables.times(one.speed.ingest),
                f"{one.speed.ingest_ratio:.2f}",
                tables.duration(one.speed.query_s),
                tables.size(math.nan if cost is None else cost.peak_memory_bytes),
            ]
        )
    columns = ["Model", "Arrays", "Of the first's, %", "File", "MAC a second", *_RATES]
    columns += ["Takes in a second, ms", "Real time", "Time / first's", "Answers in", "Peak memory"]
    groups = ", ".join(group.title for group in comparison.groups)
    return plain_table(
        f"Models, clips of {groups}",
        columns,
        rows,
        f"{_MEANING} Arrays: those of the encoder, as the file has them. MAC: multiplications with addition. Taking "
        "in: features, network and index. Answers: to clips of the shortest length. Memory: the most that a process "
        "held that had taken in the library.",
    )


def in_group(found: Sequence[Measured], group: Group) -> Table:
    """How models do with clips of one kind and length."""
    rows = [[one.model.name, *_rates(one, found[0], group)] for one in found]
    return plain_table(f"Clips of {group.title}", ["Model", *_RATES], rows)


def of_originals(losses: Mapping[str, tuple[str, Loss]]) -> Table:
    """What quantised models lose in indexes of their originals."""
    rows = [
        [
            name,
            original,
            tables.percent(loss.ber, 2),
            f"{loss.clips:,}",
            tables.percent(loss.right_of_original / loss.clips, 1),
            tables.percent(loss.right / loss.clips, 1),
            f"{loss.points:+.2f} ± {loss.standard_error:.2f}",
            "yes" if loss.bearable else "no",
        ]
        for name, (original, loss) in losses.items()
    ]
    return plain_table(
        "Codes of quantised models in an index of the original",
        [
            "Model",
            "Original",
            "Bits that differ, %",
            "Clips",
            "Original's right, %",
            "Its own right, %",
            "Lost, points",
            "May pass for it",
        ],
        rows,
        "Distorted clips of 2 and 5 s, the shortest codes; right: the best candidate. Lost: give or take a standard "
        "error.",
    )


def picture(found: Sequence[Measured]) -> Picture:
    """Best candidates that are right over the size of the arrays."""
    title = "Size and accuracy"
    sized: list[tuple[int, Rate, Measured]] = [
        (one.model.array_bytes, metrics.top1(one.entrant.outcomes), one) for one in found
    ]
    worst = min((rate.interval[0] for _, rate, _ in sized), default=0.0)
    low = math.floor(20 * worst) / 20
    marks = [(mark, f"{100 * mark:.0f} %") for mark in np.linspace(low, 1.0, 6).tolist()]
    series = [
        charts.Series(
            one.model.name,
            style,
            [charts.Point(size, rate.value, *rate.interval, f"{one.model.name}: {_written(rate)} %")],
        )
        for style, (size, rate, one) in enumerate(sized)
        if rate.n
    ]
    x = charts.logarithmic("the encoder's arrays", [size for size, _, _ in sized], tables.size)
    y = charts.Scale("best candidate is right", low, 1.0, marks)
    said = "; ".join(one.points[0].note for one in series)
    return Picture(title, charts.scatter(title, said, x, y, [[one] for one in series]))
