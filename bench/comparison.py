"""Systems side by side: the outcomes of one run or several, cut by clip length and condition.

Tables and charts take their numbers from here, so that they agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bench import metrics, results
from bench.metrics import Outcomes, Rate
from bench.results import Measured, Run, Trial

USUAL_LENGTH_S = 5.0
"""Clip length of the headline, or the nearest to it that there is."""
MOST_DRAWN = 8
"""Entrants that charts of curves can show; of more, each system's best one is shown."""


@dataclass(frozen=True)
class Measure:
    """A way to count a clip as named."""

    key: str
    title: str
    meaning: str
    rate: Callable[[Outcomes, float], Rate]
    """From outcomes and the system's threshold for 1 % false answers."""


AT_EQUAL_FALSE_ANSWERS = Measure(
    "fa1",
    "at 1 % false answers",
    "The right recording is named, and its score is above the level that at most 1 % of the clips out of the library "
    "exceed: the same strictness for every system.",
    metrics.hits_above,
)
BY_OWN_VERDICT = Measure(
    "own",
    "by its own verdict",
    "The right recording is named, and the system itself takes the match to be good enough. How often it then names "
    "clips that it cannot know stands beside it.",
    lambda outcomes, threshold: metrics.recall(outcomes),
)
BEST_CANDIDATE = Measure(
    "top1",
    "as best candidate (top-1)",
    "The system's best candidate is the right recording, however unsure it is.",
    lambda outcomes, threshold: metrics.top1(outcomes),
)
MEASURES = (AT_EQUAL_FALSE_ANSWERS, BY_OWN_VERDICT, BEST_CANDIDATE)


@dataclass(frozen=True)
class Group:
    """Clips of one kind and length."""

    kind: str
    length_s: float
    title: str

    @property
    def key(self) -> str:
        """Its name in a page: ``music-2.5``."""
        return f"{re.sub(r'[^A-Za-z0-9]', '-', self.kind)}-{self.length_s:g}"


class Entrant:
    """A system with the outcomes of its queries.

    Parameters
    ----------
    measured
        The system and its trials.
    style
        Its number among the entrants: colour and marker.
    """

    def __init__(self, measured: Measured, style: int) -> None:
        self.system, self.cost = measured.system, measured.cost
        self.trials, self.planned, self.style = measured.trials, measured.planned, style
        self.outcomes = results.outcomes(measured.trials)
        self.threshold = metrics.threshold_at(self.outcomes)
        self._conditions = np.array([query.condition for query, _ in measured.trials], object)
        self._kinds = np.array([query.kind for query, _ in measured.trials], object)
        self._lengths_s = np.array([query.length_s for query, _ in measured.trials], float)

    @property
    def label(self) -> str:
        """As a reader sees it."""
        return self.system.label

    def at(self, group: Group, condition: str | None = None) -> Outcomes:
        """Outcomes of a group's clips, of one condition or all."""
        mask = (self._kinds == group.kind) & (self._lengths_s == group.length_s)
        if condition is not None:
            mask &= self._conditions == condition
        return self.outcomes.where(mask)

    def rate(self, measure: Measure, group: Group, condition: str | None = None) -> Rate:
        """Share of clips named. Over all conditions, every clip counts alike."""
        return measure.rate(self.at(group, condition), self.threshold)

    @property
    def bytes_per_hour(self) -> float:
        """Size of its index by hour of audio; nan where it has none yet."""
        return metrics.bytes_per_hour(self.cost.index_bytes, self.cost.audio_s) if self.cost else np.nan

    def metrics(self, group: Group, condition: str | None = None) -> dict[str, Rate | float]:
        """All metrics of a group's clips, of one condition or all, and the system's costs."""
        costs = asdict(self.cost) if self.cost else {}
        costs.pop("system", None)
        return metrics.evaluate(self.at(group, condition), threshold=self.threshold, **costs)

    @cached_property
    def named(self) -> set[str]:
        """Names of the clips that it names rightly at 1 % false answers; at all, where that is not known."""
        right = self.outcomes.right
        if not np.isnan(self.threshold):
            right = right & (self.outcomes.evidence > self.threshold)
        return {query.query for (query, _), hit in zip(self.trials, right, strict=True) if hit}


class Comparison:
    """All entrants of one run or several.

    Parameters
    ----------
    folders
        The runs; systems with the same label are joined.
    """

    def __init__(self, folders: Sequence[results.RunFolder]) -> None:
        self.runs: list[Run] = [folder.run for folder in folders]
        self.entrants = [Entrant(measured, style) for style, measured in enumerate(results.merge(folders))]
        trials = [trial for entrant in self.entrants for trial in entrant.trials]
        kinds = sorted({query.kind for query, _ in trials})
        self.groups = [
            Group(kind, length_s, f"{length_s:g} s" if len(kinds) == 1 else f"{length_s:g} s of {kind}")
            for kind in kinds
            for length_s in sorted({query.length_s for query, _ in trials if query.kind == kind})
        ]
        self._order = list(
            dict.fromkeys(
                [condition for run in self.runs for condition in run.configuration.conditions]
                + [query.condition for query, _ in trials]
            )
        )

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Comparison:
        """The comparison of the runs in these folders.

        Raises
        ------
        ValueError
            If a folder is not one of a run, or a file in it is damaged.
        """
        return cls([results.read(folder) for folder in folders])

    @property
    def lead(self) -> Group | None:
        """The group of the headline; None where nothing has been answered yet."""
        return min(self.groups, key=lambda group: abs(group.length_s - USUAL_LENGTH_S), default=None)

    @property
    def knows_false_answers(self) -> bool:
        """Whether any entrant was asked clips out of the library."""
        return any(not np.isnan(entrant.threshold) for entrant in self.entrants)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that can be had at all, the fairest first."""
        return MEASURES if self.knows_false_answers else MEASURES[1:]

    def conditions(self, group: Group, *, in_library: bool = True) -> list[str]:
        """Conditions of a group's clips in the library, or out of it, in the order of the configuration."""
        return [name for name in self._order if (group.kind, group.length_s, name, in_library) in self._cells]

    @cached_property
    def _cells(self) -> set[tuple[str, float, str, bool]]:
        return {
            (query.kind, query.length_s, query.condition, query.track is not None)
            for entrant in self.entrants
            for query, _ in entrant.trials
        }

    @cached_property
    def drawn(self) -> list[Entrant]:
        """The entrants that charts of curves show: see :data:`MOST_DRAWN`; the best in the headline's group."""
        if len(self.entrants) <= MOST_DRAWN or self.lead is None:
            return self.entrants
        best: dict[str, Entrant] = {}
        for entrant in self.ranking(self.lead):
            best.setdefault(entrant.system.name, entrant)
        return [entrant for entrant in self.entrants if entrant is best[entrant.system.name]]

    def ranking(self, group: Group) -> list[Entrant]:
        """Entrants from the best to the worst by the fairest measure there is."""
        measure = self.measures[0]
        return sorted(
            self.entrants, key=lambda entrant: -np.nan_to_num(entrant.rate(measure, group).value, nan=-1.0)
        )


# -- conditions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sweep:
    """Conditions that differ in one number only.

    Attributes
    ----------
    title, unit
        What the number is: "Signal-to-noise ratio", "dB".
    points
        The number and its condition, rising. A number of None is the clip as it is, where no number of the scale says
        so: the signal-to-noise ratio of a clean clip.
    """

    title: str
    unit: str
    points: list[tuple[float | None, str]]


_NUMBERED = re.compile(r"([a-z]+?)([+-]?\d+(?:\.\d+)?)")
_SCALES: dict[str, tuple[str, str, float | None]] = {
    # title, unit, the number of a clean clip
    "noise": ("Noise", "SNR in dB", None),
    "white": ("White noise", "SNR in dB", None),
    "pink": ("Pink noise", "SNR in dB", None),
    "babble": ("Babble", "SNR in dB", None),
    "speed": ("Speed", "factor", 1.0),
    "tempo": ("Tempo", "factor", 1.0),
    "pitch": ("Pitch", "cents", 0.0),
}
_WORDS = {
    "noise": "noise, {} dB",
    "white": "white noise, {} dB",
    "pink": "pink noise, {} dB",
    "babble": "babble, {} dB",
    "speed": "speed × {}",
    "tempo": "tempo × {}",
    "pitch": "pitch, {} cents",
    "lowpass": "low-pass, {} Hz",
    "highpass": "high-pass, {} Hz",
    "clip": "clipping, {} %",
    "level": "level, {} dB",
    "mp3_": "MP3, {} kbit/s",
    "opus_": "Opus, {} kbit/s",
    "aac_": "AAC, {} kbit/s",
    "gsm": "GSM",
    "bandpass": "band-pass",
    "freeverb": "synthetic reverb, {} %",
    "truncate_silence": "pauses shortened",
    "rerecord": "re-recorded",
    "rerecord2": "re-recorded twice",
    "kaist_low": "KAIST level low",
    "kaist_mid": "KAIST level mid",
    "kaist_high": "KAIST level high",
}
CLEAN = "clean"


def sweeps(conditions: Sequence[str]) -> list[Sweep]:
    """The sweeps among conditions: at least two different numbers of one scale, and the clean clip."""
    found: dict[str, list[tuple[float | None, str]]] = {}
    for condition in conditions:
        numbered = _NUMBERED.fullmatch(condition)
        if numbered and numbered[1] in _SCALES:
            found.setdefault(numbered[1], []).append((float(numbered[2]), condition))
    made = []
    for stem, points in found.items():
        title, unit, neutral = _SCALES[stem]
        if len(points) < 2:
            continue
        if CLEAN in conditions:
            points.append((neutral, CLEAN))
        points.sort(key=lambda point: np.inf if point[0] is None else point[0])
        made.append(Sweep(title, unit, points))
    return made


def describe(condition: str) -> str:
    """A condition's name in words; effects that are not known keep their names."""
    parts = condition.removeprefix("ool_").split("_")
    words = []
    while parts:
        # Underscores join effects, but some have one in their own name: the longest that is known comes first.
        for n in range(len(parts), 0, -1):
            word = _in_words("_".join(parts[:n]))
            if word or n == 1:
                words.append(word or parts[0])
                parts = parts[n:]
                break
    return ", ".join(words)


def _in_words(effect: str) -> str | None:
    if effect in _WORDS:
        return _WORDS[effect]
    numbered = re.fullmatch(r"([a-z]+|[a-z]+\d?_)([+-]?\d+(?:\.\d+)?)", effect)
    if numbered and numbered[1] in _WORDS:
        return _WORDS[numbered[1]].format(numbered[2].replace("-", "−"))
    return None


def missed(comparison: Comparison, entrant: Entrant, group: Group, most: int) -> list[Trial]:
    """Clips of the library that `entrant` does not name by the fairest measure there is, for a listener to judge.

    One a condition at most, those of the conditions that it finds easiest first: they are the most telling ones.
    Clips that another system names come before those that none does.
    """
    measure = comparison.measures[0]
    by_others = set().union(*(other.named for other in comparison.entrants if other is not entrant))
    at: dict[str, list[Trial]] = {condition: [] for condition in comparison.conditions(group)}
    for query, answer in entrant.trials:
        missing = query.track is not None and query.query not in entrant.named
        if missing and (query.kind, query.length_s) == (group.kind, group.length_s):
            at[query.condition].append((query, answer))
    easiest = sorted(at, key=lambda condition: -entrant.rate(measure, group, condition).value)
    return [
        min(at[condition], key=lambda trial: trial[0].query not in by_others)
        for condition in easiest
        if at[condition]
    ][:most]
