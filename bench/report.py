"""The report: one page that needs nothing but itself, and its tables as Markdown and CSV.

Tables come from :mod:`bench.tables`, charts from :mod:`bench.figures`; here are the words around them.
The page works from a file, without a network and, but for sorting, without JavaScript.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import soundfile

from bench import tables
from bench.comparison import AT_EQUAL_FALSE_ANSWERS, Comparison, Entrant, Group, describe, missed
from bench.figures import figures
from bench.results import Answer, Query, ResultsError
from bench.study import STUDY, Study

PAGE, MARKDOWN, CSV = "index.html", "results.md", "results.csv"
"""Files that :func:`build` writes."""
EXAMPLES = 6
"""Most misses to listen to."""


def build(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the report on some runs, and on documents' own experiments.

    Parameters
    ----------
    folders
        Of runs, finished or not; systems of the same label are taken together. And of studies (:mod:`bench.study`).
    out
        Folder for the files; made where it is missing.

    Returns
    -------
    written
        The page, the Markdown, the CSV.

    Raises
    ------
    ResultsError
        If a folder is of neither, a file of it is damaged, or no run has an answer yet.
    """
    studies = [Study.read(folder) for folder in folders if (folder / STUDY).exists()]
    runs = [folder for folder in folders if not (folder / STUDY).exists()]
    comparison = Comparison.read(runs)
    if comparison.lead is None:
        raise ResultsError(
            f"nothing has been answered yet in {', '.join(str(run) for run in runs)}"
            if runs
            else "a report needs a run beside the documents' own experiments; name the folder of one"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (
        (PAGE, page(comparison, studies)),
        (MARKDOWN, markdown(comparison, studies)),
        (CSV, tables.csv_text(comparison)),
    ):
        (out / name).write_text(text, encoding="utf-8")
        written.append(out / name)
    return written


def markdown(comparison: Comparison, studies: Sequence[Study] = ()) -> str:
    """All tables in Markdown, with what they were made from."""
    summary = f"**{headline(comparison)}** {runners_up(comparison)}".rstrip()
    parts = [f"# {title(comparison)}", summary, setting(comparison), *notices(comparison)]
    for group in comparison.groups:
        for table in tables.all_tables(comparison, group):
            parts += [f"## {table.title}", table.markdown(), table.note]
    parts += [study.markdown().rstrip() for study in studies]
    parts.append("# Made by")
    parts += [f"`{run.command}` ({run.created}, {run.machine.processor})" for run in comparison.runs]
    return "\n\n".join(parts) + "\n"


def environment() -> jinja2.Environment:
    """The templates of the bench's pages, with the filters that they use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("bench"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"size": tables.size, "describe": describe, "unbroken": unbroken}
    return made


def page(comparison: Comparison, studies: Sequence[Study] = ()) -> str:
    """The page, as HTML."""
    csv_text = tables.csv_text(comparison)
    template = environment().get_template("report.html")
    return template.render(
        comparison=comparison,
        title=title(comparison),
        headline=headline(comparison),
        runners_up=runners_up(comparison),
        setting=setting(comparison),
        notices=notices(comparison),
        figures=list(figures(comparison)),
        tables=tables,
        examples=examples(comparison),
        studies=studies,
        csv=base64.b64encode(csv_text.encode()).decode(),
    )


# -- words ------------------------------------------------------------------------------------------------------------


def title(comparison: Comparison) -> str:
    """Names of the runs."""
    return f"Audio identification: {', '.join(dict.fromkeys(run.name for run in comparison.runs))}"


def headline(comparison: Comparison) -> str:
    """The outcome in a sentence, for the usual clip length."""
    ranked = _ranked(comparison)
    if not ranked:
        return "No clip of the library has been answered yet."
    best, fair = ranked[0], comparison.measures[0] is AT_EQUAL_FALSE_ANSWERS
    size = tables.size(best.bytes_per_hour)
    index = "" if size == tables.UNKNOWN else f" with an index of {size} per hour of audio"
    how = "answering at most 1 % of the clips that it cannot know" if fair else "by its own verdict"
    share, clips = _share(comparison, best), _lead(comparison).title
    return f"{best.label} names {share} of the clips of {clips}{index}, {how}."


def runners_up(comparison: Comparison) -> str:
    """The next best, and the one with the smallest index where that is another one; or nothing."""
    ranked = _ranked(comparison)
    if len(ranked) < 2:
        return ""

    def claim(entrant: Entrant) -> str:
        size = tables.size(entrant.bytes_per_hour)
        return _share(comparison, entrant) + ("" if size == tables.UNKNOWN else f" with {size} per hour")

    said = f"Next is {ranked[1].label}: {claim(ranked[1])}."
    sized = [entrant for entrant in ranked if not math.isnan(entrant.bytes_per_hour)]
    smallest = min(sized, key=lambda entrant: entrant.bytes_per_hour, default=ranked[0])
    if smallest not in ranked[:2]:
        said += f" The smallest index is that of {smallest.label}: {claim(smallest)}."
    return said


def _ranked(comparison: Comparison) -> list[Entrant]:
    """Entrants of which there is a rate, from the best to the worst."""
    measure, group = comparison.measures[0], _lead(comparison)
    return [entrant for entrant in comparison.ranking(group) if entrant.rate(measure, group).n]


def _share(comparison: Comparison, entrant: Entrant) -> str:
    return f"{tables.percent(entrant.rate(comparison.measures[0], _lead(comparison)).value)} %"


def setting(comparison: Comparison) -> str:
    """What was done, in the words of someone who has never seen such a test."""
    group = _lead(comparison)
    run = comparison.runs[-1]
    count, outside = len(comparison.conditions(group)), comparison.conditions(group, in_library=False)
    lengths = [f"{length_s:g}" for length_s in sorted({group.length_s for group in comparison.groups})]
    said = (
        f"Each system was given a library of {run.references.count:,} recordings ({run.references.hours:.1f} hours), "
        f"then clips of {_listed(lengths, 'or')} s, spoilt in up to {count} ways: noise, rooms, codecs, other speeds. "
        "It had to name each clip’s recording, or say that it does not know it."
    )
    if outside:
        said += (
            " Other clips, of recordings that are not in the library, show how often it invents an answer."
        )
    return said


def notices(comparison: Comparison) -> list[str]:
    """What a reader must know before believing the numbers."""
    said = []
    late = [entrant for entrant in comparison.entrants if len(entrant.trials) < entrant.planned]
    if late:
        done = [f"{entrant.label} {len(entrant.trials):,} of {entrant.planned:,} clips" for entrant in late]
        said.append(
            f"Not finished: {_listed(done)} answered. Rates of systems that answered different clips do not compare."
        )
    libraries = {(run.references.count, round(run.references.hours, 2)) for run in comparison.runs}
    if len(libraries) > 1:
        sizes = [f"{count:,} recordings ({hours:g} hours)" for count, hours in sorted(libraries)]
        said.append(f"The runs differ in their libraries: {_listed(sizes)}.")
    outside = {entrant.label: int((~entrant.outcomes.in_library).sum()) for entrant in comparison.entrants}
    if unasked := [label for label, count in outside.items() if count == 0]:
        said.append(
            f"No clip out of the library was put to {_listed(unasked)}: the rate at 1 % false answers is not known."
        )
    elif min(outside.values()) < 100:
        said.append(
            f"Of only {min(outside.values())} clips out of the library, 1 % is less than one: at “1 % false answers” "
            "none of them is answered."
        )
    skipped = {skipped.condition: skipped.reason for run in comparison.runs for skipped in run.skipped}
    said += [f"Left out: {describe(condition)} ({reason})." for condition, reason in skipped.items()]
    return said


def unbroken(text: str) -> str:
    """The text, with its numbers and their units kept on one line."""
    return re.sub(r"(?<=\d) (?=(%|s|ms|B|kB|MB|GB|dB)\b|%)|(?<=,) (?=%)", "\u00a0", text)


def _listed(items: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _lead(comparison: Comparison) -> Group:
    """The group of the headline; there is one in whatever :func:`build` reports on."""
    assert comparison.lead is not None
    return comparison.lead


# -- misses to listen to ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a system made of an example, in words, and whether that was right."""

    label: str
    style: int
    said: str
    right: bool


@dataclass(frozen=True)
class Example:
    """A clip that was missed: its sound as a data URI, empty where the file is gone; the answers."""

    query: Query
    place: str
    audio: str
    verdicts: list[Verdict]


def examples(comparison: Comparison) -> list[Example]:
    """Clips that the best system misses, with what all systems say to them."""
    group = _lead(comparison)
    best = comparison.ranking(group)[0]
    found = []
    for query, _ in missed(comparison, best, group, EXAMPLES):
        verdicts = [
            _verdict(entrant, query, answer)
            for entrant in comparison.entrants
            for other, answer in entrant.trials
            if other.query == query.query and other.track == query.track
        ]
        found.append(Example(query, _place(query.offset_s), _opus(Path(query.audio)), verdicts))
    return found


def _verdict(entrant: Entrant, query: Query, answer: Answer) -> Verdict:
    """In terms of the fairest measure there is."""
    if answer.track is None:
        return Verdict(entrant.label, entrant.style, "no answer", False)
    sure = math.isnan(entrant.threshold) or (answer.score is not None and answer.score > entrant.threshold)
    if answer.track == query.track:
        return Verdict(entrant.label, entrant.style, "right" if sure else "right, but unsure", sure)
    said = f"{answer.track}{_place(answer.offset_s)}" if sure else f"unknown; guess: {answer.track}"
    return Verdict(entrant.label, entrant.style, said, False)


def _place(offset_s: float | None) -> str:
    if offset_s is None:
        return ""
    minutes, tenths = divmod(round(10 * abs(offset_s)), 600)
    return f" at {'−' if offset_s < 0 else ''}{minutes}:{tenths / 10:04.1f}"


def _opus(path: Path) -> str:
    """A clip as a data URI, small; empty where the file cannot be read."""
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.SoundFileError):
        return ""
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, format="OGG", subtype="OPUS")
    return f"data:audio/ogg;base64,{base64.b64encode(packed.getvalue()).decode()}"
