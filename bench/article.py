"""The SAMAF article's experiment, as far as its abstract tells of it, repeated.

A. Báez-Suárez, N. Shah, J. A. Nolazco-Flores, S.-H. S. Huang, O. Gnawali and W. Shi, "SAMAF: Sequence-to-sequence
autoencoder model for audio fingerprinting", ACM Trans. Multimedia Comput. Commun. Appl. 16(2), 2020. Speech, under what
SoX can do to it; the model at 128 and 256 bits a second against Dejavu, RAFS and Panako, in identification and in the
classification of attributes. The abstract gives claims and no figures. Here each claim is judged, for the article's
configuration trained here (``--preset paper``) and for the model that ships.

A claim is that of two systems one is ahead: its rate is higher, by more than resamples of the recordings (bootstrap,
95 %) leave open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import attributes, kept, tables
from bench.attributes import Attribute, Floats, Task
from bench.comparison import AT_EQUAL_FALSE_ANSWERS, BEST_CANDIDATE, Comparison, Group
from bench.corpus import Pool
from bench.protocol import Entry
from bench.resamples import Judgement, ahead_in_naming, middle, written
from bench.retrieved import CLIP_S, CLIPS, retrieved
from bench.tables import Table, percent, plain_table

TITLE = "Báez-Suárez et al.: SAMAF, sequence-to-sequence autoencoder model for audio fingerprinting (2020)"
RIVALS = ("dejavu", "rafs", "panako")
BITS = (128, 256)
TRANSFORMATIONS = tuple(name for name in attributes.TRANSFORMATIONS if name != "reverse")
BY_SEARCH = ("speaker", "source", "kind")
"""Attributes that any system can tell by search."""
BY_HASH = ("speaker", "kind", "source", "transformation")
"""Attributes that are classified by hashes."""
REMARKS = (
    "The document is the article's abstract: it names the claims, the rivals, the data (a part of VoxCeleb1) and the "
    "sizes of hashes, and no figures. What was done to the audio, and how attributes were told, is ours.",
    "“Paper” is the article's configuration (13 MFCC, an LSTM of 128 units each way, its three losses), trained on the "
    "speech of the training split, without any distortion of the audio. The others are the model that ships: other "
    "features, more units, trained on distorted copies of music and speech. Both are searched by the same engine, each "
    "with a calibration of its own.",
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scores:
    """How one system does in one thing, by recording.

    Attributes
    ----------
    label
        The system's.
    scores : (n,)
        Of each clip or recording, the same ones in the same order for every system.
    """

    label: str
    scores: Floats


def by_search(
    pool: Pool, wanted: Sequence[str], entries: Sequence[Entry], folder: Path, seed: int, progress: Progress
) -> list[tuple[Attribute, list[list[Scores]]]]:
    """Attributes told by search: for each, and each of its tasks, every system's scores.

    Parameters
    ----------
    folder
        What it has is not done again.
    """
    excerpts = [(track.id, attributes.WHOLE) for track in pool.tracks]
    found = []
    for name in wanted:
        attribute = attributes.attribute_of(name, pool, excerpts)
        if attribute is None:
            continue
        told = []
        for number, task in enumerate(attribute.tasks):
            scores = []
            for entry in entries:
                file = folder / f"{name}-{number}-{entry.system.key}-{seed}.json"
                identity = [entry.system.parameters, task.excerpts, task.classes.tolist(), CLIPS, CLIP_S]
                values = kept.read(file, identity)
                if values is None:
                    what = f"{name}, {entry.system.label}"
                    made = retrieved(
                        task, entry, pool.tracks, seed, lambda done, n, what=what: progress(what, done, n)
                    )
                    values = made.tolist()
                    kept.write(file, identity, values)
                scores.append(Scores(entry.system.label, np.array(values)))
            told.append(scores)
        found.append((attribute, told))
    return found


# -- judging -----------------------------------------------------------------------------------------------------------


def ahead_in(
    tasks: Sequence[Task], first: Sequence[Floats], second: Sequence[Floats], seed: int = 0
) -> Judgement:
    """Judge by balanced accuracies, the mean over an attribute's tasks."""
    lead = attributes.balanced(tasks, first) - attributes.balanced(tasks, second)
    again = [attributes.balanced_again(tasks, scores, seed) for scores in (first, second)]
    return Judgement(lead, middle(again[0] - again[1]))


# -- tables ------------------------------------------------------------------------------------------------------------


def identification(comparison: Comparison, group: Group) -> list[Table]:
    """Who names how many clips, by transformation, and at what size."""
    return [
        tables.by_condition(comparison, group, measure)
        for measure in (BEST_CANDIDATE, AT_EQUAL_FALSE_ANSWERS)
        if measure in comparison.measures
    ] + [tables.costs(comparison, group)]


def searched(found: Sequence[tuple[Attribute, list[list[Scores]]]]) -> Table:
    """Attributes told by search: a row for each system."""
    columns = [f"{attribute.name} ({attribute.size})" for attribute, _ in found]
    rows = [["chance", *(percent(attribute.chance, 1) for attribute, _ in found)]]
    labels = [scores.label for scores in found[0][1][0]] if found else []
    for k, label in enumerate(labels):
        row = [label]
        for attribute, told in found:
            values = [scores[k].scores for scores in told]
            interval = middle(attributes.balanced_again(attribute.tasks, values, 0))
            row.append(written(attributes.balanced(attribute.tasks, values), interval))
        rows.append(row)
    return plain_table(
        "Attributes by search, balanced accuracy, %",
        ["System", *columns],
        rows,
        f"The class of the best candidate's recording, where the clip's own is not in the library: {CLIPS} "
        f"clips of {CLIP_S:g} s of each recording.",
    )


def claims(
    comparison: Comparison, group: Group, found: Sequence[tuple[Attribute, list[list[Scores]]]]
) -> Table:
    """Each claim, judged for each of samaf's models against each rival."""
    entrants = {entrant.label: entrant for entrant in comparison.entrants}
    ours = [entrant for entrant in comparison.entrants if entrant.system.name == "samaf"]
    rivals = [label for label in RIVALS if label in entrants]
    rows = []
    for entrant in ours:
        rows.append(
            [
                f"identification, {entrant.label}",
                *(
                    ahead_in_naming(entrant, entrants[rival], lambda one: one.outcomes.right, group).words
                    for rival in rivals
                ),
            ]
        )
    for attribute, told in found:
        by: Mapping[str, list[Floats]] = {
            scores.label: [some[k].scores for some in told] for k, scores in enumerate(told[0])
        }
        for entrant in ours:
            rows.append(
                [
                    f"{attribute.name}, {entrant.label}",
                    *(ahead_in(attribute.tasks, by[entrant.label], by[rival]).words for rival in rivals),
                ]
            )
    return plain_table(
        "The claims: samaf is ahead",
        ["Claim", *(f"of {rival}" for rival in rivals)],
        rows,
        "In brackets the lead in points, and its 95 % interval. Identification: best candidates for clips of "
        f"{group.title}, all transformations together. Attributes: by search.",
    )
