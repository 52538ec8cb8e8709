"""What of a recording its hashes tell: the speaker, music or speech, the collection, what was done to it.

Báez-Suárez et al. (2020, the SAMAF article) classify attributes of audio by its hashes; the document at hand tells no
more than that. So this experiment is ours. Each recording is described by the vectors of its seconds
(:mod:`bench.representations`); for the transformation, it is a clip of the recording under each of some conditions that
is described. Two classifiers learn from a part of the recordings what they say of the others:

- *nearest*: the class of the nearest vector. Of bits it is that of the smallest Hamming distance, to which the squared
  distance of vectors of +1 and -1 is proportional. Values that have units are scaled to variance 1.
- *linear*: logistic regression, L2 with C = 1, the classes weighted to count alike, all values scaled to mean 0 and
  variance 1 (which leaves balanced bits as they are).

Both are asked in three ways: for the class of each *second*; for that of the *mean* of a recording's (or clip's)
vectors, having learnt from such means; and for the class that most of its seconds *vote* for.

The recordings are split into five parts, each of which is asked once while the others are learnt from: no recording is
on both sides. Classes have two recordings or more, which lie in different parts. Speakers are told apart within one
collection at a time, as elsewhere the collection would give them away; the result is the mean over the collections that
have two such speakers. A collection of music lies on both sides too, so that it may help to tell the kind.

What is told is the *balanced accuracy*: the mean of the classes' recalls, in which each recording counts once, however
many seconds it has. By chance, or by always naming the largest class, it is 1 / classes. Its interval comes from
resamples of the recordings (bootstrap, 95 %), drawn among those of the same classes. Where all answers are right it has
no width, and a handful of recordings say less than it seems to.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bench.corpus import CorpusError, Pool
from bench.evalues import RESAMPLES, Interval
from bench.excerpts import WHOLE, Described, Excerpt, Listener, Progress
from bench.representations import Float32, Representation
from bench.resamples import middle, written
from bench.tables import Cell, Row, Table, percent

TRANSFORMATIONS = tuple(
    """
    clean white10 echo freeverb50 lowpass2000 highpass500 speed0.9 speed1.1 tempo0.9 tempo1.1 pitch-100 pitch+100
    compand flanger tremolo reverse
    """.split()
)
"""What SoX can do to a clip, as :mod:`bench.degrade` names it."""
TITLE = "What hashes tell of a recording"
REMARKS = (
    "After the SAMAF article (Báez-Suárez et al. 2020), which classifies attributes of recordings by their hashes.",
    "Balanced accuracy in %: the mean of the classes' recalls, each recording counting once; its 95 % interval by "
    "bootstrap over recordings, which has no width where all answers are right. Classifiers: the nearest neighbour "
    "(of bits, by Hamming distance), and logistic regression (linear), learnt from other recordings alone.",
)
"""What a reader of the tables must know."""
CLASSIFIERS = ("nearest", "linear")
ASKED = ("second", "mean", "vote")
FOLDS = 5
FEWEST = 2
"""Recordings of a class."""

_ITERATIONS = 5000

Floats = NDArray[np.float64]


# -- attributes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Excerpts of several classes.

    Attributes
    ----------
    name
        The collection that they are of; empty: of all.
    excerpts
        n of them.
    classes : (n,)
        What each of them is.
    """

    name: str
    excerpts: Sequence[Excerpt]
    classes: NDArray[np.str_]

    @cached_property
    def recording(self) -> NDArray[np.int64]:
        """Number of each excerpt's recording, (n,)."""
        numbers = {name: k for k, name in enumerate(dict.fromkeys(name for name, _ in self.excerpts))}
        return np.array([numbers[name] for name, _ in self.excerpts])

    @cached_property
    def alike(self) -> list[list[int]]:
        """Numbers of the recordings, those together whose excerpts are of the same classes."""
        found: dict[tuple[str, ...], list[int]] = {}
        for k in range(self.recording.max() + 1):
            found.setdefault(tuple(sorted(self.classes[self.recording == k])), []).append(k)
        return list(found.values())

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return sorted(set(self.classes.tolist()))

    @property
    def chance(self) -> float:
        """The balanced accuracy of a guess."""
        return 1.0 / len(self.names)

    @property
    def largest(self) -> float:
        """Share of the excerpts that are of the largest class."""
        return max(Counter(self.classes.tolist()).values()) / len(self.classes)


@dataclass(frozen=True)
class Attribute:
    """Something that recordings differ in, told within each of its tasks; :func:`attribute_of` makes it."""

    name: str
    tasks: Sequence[Task]

    @property
    def chance(self) -> float:
        """The mean over the tasks."""
        return float(np.mean([task.chance for task in self.tasks]))

    @property
    def largest(self) -> float:
        """Share of the largest class, the mean over the tasks."""
        return float(np.mean([task.largest for task in self.tasks]))

    @property
    def size(self) -> str:
        """``38 classes, 76 recordings, 3 collections``."""
        recordings = sum(int(task.recording.max()) + 1 for task in self.tasks)
        told = f"{sum(len(task.names) for task in self.tasks)} classes, {recordings} recordings"
        return told if len(self.tasks) == 1 else f"{told}, {len(self.tasks)} collections"


def attribute_of(name: str, pool: Pool, excerpts: Sequence[Excerpt]) -> Attribute | None:
    """Excerpts of a pool and their classes; None where no two classes have two recordings.

    Parameters
    ----------
    name
        ``kind``, ``source``, ``speaker`` (of speech) or ``transformation``.
    """
    tracks = {track.id: track for track in pool.tracks}
    classes: dict[Excerpt, str] = {}
    collection: dict[Excerpt, str] = {}
    for excerpt in excerpts:
        recording, condition = excerpt
        track, source = tracks[recording], pool.sources.get(recording, "")
        if name == "transformation":
            if condition != WHOLE:
                classes[excerpt] = condition
        elif condition != WHOLE:
            continue
        elif name == "kind":
            classes[excerpt] = track.kind
        elif name == "source" and source:
            classes[excerpt] = source
        elif name == "speaker" and track.kind == "speech" and recording in pool.artists:
            classes[excerpt], collection[excerpt] = pool.artists[recording], source
    tasks = []
    for place in sorted(set(collection.values())) or [""]:
        here = [excerpt for excerpt in classes if collection.get(excerpt, "") == place]
        sizes = Counter(classes[excerpt] for excerpt in here)
        here = [excerpt for excerpt in here if sizes[classes[excerpt]] >= FEWEST]
        if len({classes[excerpt] for excerpt in here}) > 1:
            tasks.append(Task(place, here, np.array([classes[excerpt] for excerpt in here])))
    return Attribute(name, tasks) if tasks else None


# -- classification ----------------------------------------------------------------------------------------------------


def folds(task: Task, seed: int) -> NDArray[np.int64]:
    """The part, from 0 to :data:`FOLDS` - 1, that each excerpt (n,) is in.

    All excerpts of a recording are in one; the recordings of a class in as many as there can be.
    """
    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([rng.permutation(group) for group in task.alike])
    part = np.empty(len(order), np.int64)
    part[order] = np.arange(len(order)) % FOLDS
    return part[task.recording]


Scores = dict[tuple[str, str], Floats]
"""By classifier and way of asking, for each excerpt (n,), how much of the answer is right, from 0 to 1."""


def classify(task: Task, described: Described, *, has_units: bool = False, seed: int = 1) -> Scores:
    """Tell the class of every excerpt of a task from those of other recordings.

    Parameters
    ----------
    described
        Vectors (k, values), k > 0, of each excerpt.
    has_units
        See :class:`bench.representations.Representation`.
    seed
        Of the split, and of the order in which vectors that are equally near are taken.
    """
    vectors = [described[excerpt].astype(np.float32) for excerpt in task.excerpts]
    means = [rows.mean(axis=0, keepdims=True) for rows in vectors]
    part = folds(task, seed)
    scores = {(how, way): np.zeros(len(vectors)) for how in CLASSIFIERS for way in ASKED}
    with threadpool_limits(1):  # the order of equally near ones is that of one thread
        for fold in np.unique(part):
            learnt, tested = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
            for how in CLASSIFIERS:
                seconds = _answers(how, vectors, task.classes, learnt, tested, has_units, seed)
                whole = _answers(how, means, task.classes, learnt, tested, has_units, seed)
                for k, of_seconds, of_whole in zip(tested, seconds, whole, strict=True):
                    scores[how, "second"][k] = np.mean(of_seconds == task.classes[k])
                    scores[how, "mean"][k] = of_whole[0] == task.classes[k]
                    scores[how, "vote"][k] = _vote(of_seconds) == task.classes[k]
    return scores


def _answers(
    how: str,
    vectors: Sequence[Float32],
    classes: NDArray[np.str_],
    learnt: NDArray[np.int64],
    tested: NDArray[np.int64],
    has_units: bool,
    seed: int,
) -> list[NDArray[np.str_]]:
    """The class that a classifier names for each vector of each excerpt that is tested."""
    rows = np.concatenate([vectors[k] for k in learnt])
    right = np.repeat(classes[learnt], [len(vectors[k]) for k in learnt])
    order = np.random.default_rng([seed, 2]).permutation(len(rows))
    if how == "linear":
        model = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=_ITERATIONS)
        )
    else:
        nearest = KNeighborsClassifier(1, algorithm="brute")
        model = make_pipeline(StandardScaler(), nearest) if has_units else nearest
    model.fit(rows[order], right[order])
    named = model.predict(np.concatenate([vectors[k] for k in tested]))
    return np.split(named, np.cumsum([len(vectors[k]) for k in tested])[:-1])


def _vote(named: NDArray[np.str_]) -> str:
    """The most frequent one; of several such, the one that was named first."""
    return str(Counter(named.tolist()).most_common(1)[0][0])


# -- results -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How well a classifier tells an attribute from a representation.

    Attributes
    ----------
    attribute, representation, classifier, asked
        What was asked of what, and how.
    balanced_accuracy
        Mean of the classes' recalls, and over the tasks.
    interval
        At 95 %.
    accuracy
        Share of the excerpts whose answer is right, mean over the tasks.
    recalls
        Of each class of each task.
    """

    attribute: str
    representation: str
    classifier: str
    asked: str
    balanced_accuracy: float
    interval: Interval
    accuracy: float
    recalls: dict[str, dict[str, float]]


def recalls(task: Task, scores: Floats) -> dict[str, float]:
    """Mean score of the excerpts (n,) of each class."""
    return {name: float(scores[task.classes == name].mean()) for name in task.names}


def resampled(task: Task, scores: Floats, seed: int) -> Floats:
    """Balanced accuracies (resamples,) of recordings drawn anew among those of the same classes.

    Parameters
    ----------
    scores
        Of each excerpt, (n,).
    """
    rng = np.random.default_rng([seed, 3, zlib.crc32(task.name.encode())])
    weights = np.zeros((RESAMPLES, task.recording.max() + 1))
    for group in task.alike:
        drawn = rng.integers(len(group), size=(RESAMPLES, len(group)))
        np.add.at(weights, (np.arange(RESAMPLES)[:, None], np.array(group)[drawn]), 1.0)
    found = []
    for name in task.names:
        of_class = task.classes == name
        counts = weights[:, task.recording[of_class]]
        found.append(counts @ scores[of_class] / counts.sum(axis=1))
    return np.mean(found, axis=0)


def balanced(tasks: Sequence[Task], scores: Sequence[Floats]) -> float:
    """Balanced accuracy, the mean over tasks, of each one's scores (n,)."""
    found = [list(recalls(task, one).values()) for task, one in zip(tasks, scores, strict=True)]
    return float(np.mean([np.mean(values) for values in found]))


def balanced_again(tasks: Sequence[Task], scores: Sequence[Floats], seed: int) -> Floats:
    """The same (resamples,) of recordings drawn anew in each task."""
    return np.mean([resampled(task, one, seed) for task, one in zip(tasks, scores, strict=True)], axis=0)


def results(
    attribute: Attribute, representation: Representation, described: Described, seed: int = 1
) -> Iterator[Result]:
    """What each classifier makes of an attribute in each way of asking."""
    scores = [
        classify(task, described, has_units=representation.has_units, seed=seed) for task in attribute.tasks
    ]
    for how in CLASSIFIERS:
        for way in ASKED:
            each = [one[how, way] for one in scores]
            yield Result(
                attribute.name,
                representation.label,
                how,
                way,
                balanced(attribute.tasks, each),
                middle(balanced_again(attribute.tasks, each, seed)),
                float(np.mean([one.mean() for one in each])),
                {task.name: recalls(task, one) for task, one in zip(attribute.tasks, each, strict=True)},
            )


def measure(
    listener: Listener,
    representations: Sequence[Representation],
    wanted: Sequence[str],
    *,
    progress: Progress,
) -> list[tuple[Attribute, list[Result]]]:
    """Describe a pool's recordings, and tell attributes from that.

    An attribute that too few recordings differ in is left out, and the listener's note says so.

    Raises
    ------
    CorpusError
        If that is so of all.
    """
    described = listener.described(representations, progress)
    excerpts = list(described[0]) if described else []
    found = []
    for name in wanted:
        attribute = attribute_of(name, listener.pool, excerpts)
        if attribute is None:
            listener.note(f"{name}: left out: there are no two classes of two recordings each")
            continue
        told: list[Result] = []
        for number, (one, vectors) in enumerate(zip(representations, described, strict=True), start=1):
            told += results(attribute, one, vectors, listener.plan.seed)
            progress(f"{name} told", number, len(representations))
        found.append((attribute, told))
    if not found:
        raise CorpusError(
            f"{listener.pool.source}: too few recordings to tell anything; check --split and --kind"
        )
    return found


def record(found: Sequence[tuple[Attribute, Sequence[Result]]]) -> list[dict[str, Any]]:
    """All of it as JSON values, an object for each attribute."""
    return [
        {
            "attribute": attribute.name,
            "chance": attribute.chance,
            "largest": attribute.largest,
            "tasks": [
                {"name": task.name, "classes": dict(Counter(task.classes.tolist()))}
                for task in attribute.tasks
            ],
            "results": [asdict(result) for result in told],
        }
        for attribute, told in found
    ]


def table(attribute: Attribute, found: Sequence[Result]) -> Table:
    """The results of one attribute: a row for each representation, after that of chance."""
    columns = [(how, way) for how in CLASSIFIERS for way in ASKED]
    rows = [Row("chance", [Cell(percent(attribute.chance, 1), attribute.chance) for _ in columns])]
    for label in dict.fromkeys(result.representation for result in found):
        by = {(one.classifier, one.asked): one for one in found if one.representation == label}
        rows.append(Row(label, [_cell(by[column]) for column in columns]))
    whole = "clip" if attribute.name == "transformation" else "recording"
    titles = {"second": "one second", "mean": f"mean of the {whole}", "vote": f"vote of the {whole}"}
    return Table(
        f"{attribute.name.capitalize()}: {attribute.size}",
        ["", *(f"{how}, {titles[way]}" for how, way in columns)],
        rows,
        f"Chance is 1 / classes, also for who always names the largest class, which has {percent(attribute.largest)} % "
        f"of the {whole}s{' (means over the collections)' if len(attribute.tasks) > 1 else ''}.",
    )


def _cell(result: Result) -> Cell:
    return Cell(written(result.balanced_accuracy, result.interval), result.balanced_accuracy)
