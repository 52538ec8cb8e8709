"""What a calibration says: a table a library, as records, in a terminal and on a page with charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bench import charts, evalues, reliability, report, tables
from bench.calibration import Answered, Setting
from bench.charts import Point, Series
from bench.evalues import Floats, Level
from bench.figures import Figure
from bench.masked import REAL
from bench.reliability import Bin
from samaf.settings import MIN_PROBABILITY
from samaf.verdict import log_odds_of

PAGE = "calibration.html"
RELIABLE_S = 30.0
"""Longest clips whose probabilities are compared with what came true."""
_LOWEST, _HIGHEST = 1e-4, 10.0  # E-values on the axis


@dataclass(frozen=True)
class Cell:
    """Clips of a kind and length put to one library.

    Attributes
    ----------
    library, kind, length_s
        Which cell.
    scores : (n,)
        Of the best answers to clips whose recordings are hidden; -inf where there is none.
    clusters
        How many artists or speakers the clips are of.
    levels
        What reaches which E-value.
    named, named_interval
        Share of these clips that samaf names by default.
    found, told
        Share of the clips whose recordings are not hidden whose best answer is right, and that samaf names rightly by
        default.
    """

    library: str
    kind: str
    length_s: float
    scores: Floats
    clusters: int
    levels: list[Level]
    named: float
    named_interval: evalues.Interval
    found: float
    told: float

    @property
    def title(self) -> str:
        """``music, 5 s``."""
        return f"{self.kind}, {self.length_s:g} s"

    def to_json(self) -> dict[str, Any]:
        """The numbers as a dict of JSON types; an interval of one cluster is null."""
        return {
            "library": self.library,
            "kind": self.kind,
            "length_s": self.length_s,
            "n": len(self.scores),
            "clusters": self.clusters,
            "levels": [
                {
                    "evalue": level.evalue,
                    "observed": level.observed,
                    "due": level.due,
                    "ratio": level.ratio,
                    "ratio_interval": _known(level.ratio_interval),
                }
                for level in self.levels
            ],
            "min_probability": MIN_PROBABILITY,
            "named": self.named,
            "named_interval": _known(self.named_interval),
            "found": self.found,
            "told": self.told,
        }


def _known(interval: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(interval[0]) else list(interval)


def cells(lines: Sequence[Answered], seed: int = 0) -> list[Cell]:
    """The cells of a calibration's lines, in the order of their kinds and lengths; `seed` is of the resampling."""
    grouped: dict[tuple[str, str, float], list[Answered]] = {}
    for line in lines:
        grouped.setdefault((line.library, line.kind, line.length_s), []).append(line)
    order = list(dict.fromkeys(line.library for line in lines))
    found = []
    for key in sorted(grouped, key=lambda key: (order.index(key[0]), *key[1:])):
        # in the order of the clips, not in that in which they came
        in_order = sorted(grouped[key], key=lambda line: line.query)
        unknown, known = ([line for line in in_order if line.held is held] for held in (False, True))
        scores = np.array([-math.inf if line.score is None else line.score for line in unknown])
        artists = [line.artist for line in unknown]
        named = np.array([_is_named(line) for line in unknown])
        found.append(
            Cell(
                *key,
                scores=scores,
                clusters=len(set(artists)),
                levels=evalues.levels(scores, artists, seed),
                named=float(named.mean()),
                named_interval=evalues.bootstrap(named, artists, seed),
                found=float(np.mean([line.right for line in known])),
                told=float(np.mean([line.right and _is_named(line) for line in known])),
            )
        )
    return found


def _is_named(line: Answered) -> bool:
    return line.log_odds is not None and line.log_odds >= log_odds_of(MIN_PROBABILITY)


@dataclass(frozen=True)
class Reliability:
    """How true the probabilities of one library's best answers are, of as many clips of each kind and length.

    Attributes
    ----------
    library
    bins
    brier
    """

    library: str
    bins: list[Bin]
    brier: float

    def to_json(self) -> dict[str, Any]:
        """The numbers as a dict of JSON types."""
        return {
            "library": self.library,
            "brier": self.brier,
            "bins": [
                {
                    "count": one.count,
                    "probability": one.probability,
                    "right": one.right,
                    "right_interval": _known(one.interval),
                }
                for one in self.bins
            ],
        }


def reliabilities(lines: Sequence[Answered], seed: int = 0) -> list[Reliability]:
    """The reliability of each library, of clips of up to :data:`RELIABLE_S`."""
    found = []
    for library in dict.fromkeys(line.library for line in lines):
        grouped: dict[tuple[str, float, bool], list[Answered]] = {}
        for line in sorted(lines, key=lambda line: line.query):
            if line.library == library and line.length_s <= RELIABLE_S and line.log_odds is not None:
                grouped.setdefault((line.kind, line.length_s, line.held), []).append(line)
        if not grouped:
            continue
        fewest = min(map(len, grouped.values()))
        some = [line for of_group in grouped.values() for line in of_group[:fewest]]
        log_odds = np.array([line.log_odds for line in some], np.float64)
        right = np.array([line.right for line in some])
        artists = [line.artist for line in some]
        found.append(
            Reliability(
                library, reliability.bins(log_odds, right, artists, seed), reliability.brier(log_odds, right)
            )
        )
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def table(of_library: Sequence[Cell]) -> tables.Table:
    """The cells of one library, a row each."""
    shown = [
        x for x in evalues.LEVELS if any(level.evalue == x for cell in of_library for level in cell.levels)
    ]
    columns = ["Unknown clips of", "Clips", "Artists"]
    for x in shown:
        columns += [f"E ≤ {x:g} (due {tables.percent(evalues.due(x), 1)} %)", "seen / due"]
    columns += ["Named, %", "Known: best answer right, %", "named rightly, %"]
    rows = []
    for cell in of_library:
        texts = [tables.Cell(f"{n:,}", n) for n in (len(cell.scores), cell.clusters)]
        at = {level.evalue: level for level in cell.levels}
        for x in shown:
            texts += _level_cells(at[x]) if x in at else [tables.Cell(tables.UNKNOWN)] * 2
        texts.append(_share_cell(cell.named, cell.named_interval))
        texts += [tables.Cell(tables.percent(share, 1), share) for share in (cell.found, cell.told)]
        rows.append(tables.Row(cell.title, texts))
    note = (
        "Share of unknown clips whose best answer has E up to x, over the share that is due, 1 − exp(−x). Below 1 "
        "E-values are cautious, above 1 they promise too much. In brackets 95 % intervals, artists resampled. A level "
        f"is left out where fewer than {evalues.FEWEST_DUE} clips are due. Named: with a probability of "
        f"{MIN_PROBABILITY:g} or more. Known: the same clips, nothing hidden."
    )
    return tables.Table(f"Library: {_said(of_library[0].library)}", columns, rows, note)


def reliability_table(of: Reliability) -> tables.Table:
    """The bins of one library, a row each."""
    rows = []
    for number, one in enumerate(of.bins, start=1):
        texts = [
            tables.Cell(f"{one.count:,}", one.count),
            tables.Cell(tables.percent(one.probability, 1), one.probability),
            _share_cell(one.right, one.interval),
        ]
        rows.append(tables.Row(str(number), texts))
    note = (
        "Best answers, half of them to clips whose recordings the library holds, as many of each kind and length up to "
        f"{RELIABLE_S:g} s, in bins of equal count. Brier score {of.brier:.4f}."
    )
    title = f"Probabilities, library: {_said(of.library)}"
    return tables.Table(title, ["Bin", "Answers", "Probability, %", "Right, %"], rows, note)


def _share_cell(share: float, interval: evalues.Interval) -> tables.Cell:
    """A share in per cent, with its interval where there is one."""
    low, high = interval
    text = "" if math.isnan(low) else f" ({tables.percent(low, 1)}–{tables.percent(high, 1)})"
    return tables.Cell(tables.percent(share, 1) + text, share)


def _level_cells(level: Level) -> list[tables.Cell]:
    low, high = level.ratio_interval
    interval = "" if math.isnan(low) else f" ({low:.2f}–{high:.2f})"
    return [
        tables.Cell(f"{tables.percent(level.observed, 1)} %", level.observed),
        tables.Cell(f"{level.ratio:.2f}{interval}", level.ratio),
    ]


def by_library(found: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each library."""
    names = dict.fromkeys(cell.library for cell in found)
    return [[cell for cell in found if cell.library == name] for name in names]


def _said(library: str) -> str:
    drawn = library.removeprefix(REAL).removeprefix("+")
    return f"the recordings and {int(drawn):,} drawn tracks" if drawn else "the recordings"


# -- the page ----------------------------------------------------------------------------------------------------------


def figures(found: Sequence[Cell]) -> Iterator[Figure]:
    """A chart for each library and kind: share of the clips that have E up to x, over x, a line a length."""
    for of_library in by_library(found):
        for kind in dict.fromkeys(cell.kind for cell in of_library):
            lines, marks, said = [], [], []
            for style, cell in enumerate(cell for cell in of_library if cell.kind == kind):
                points = [Point(*pair) for pair in evalues.ranked(cell.scores)]
                if not points:
                    continue
                label = f"{cell.length_s:g} s"
                note = f"{label}: {tables.percent(cell.named, 1)} % named"
                lines.append(Series(label, style, points))
                marks.append(Point(1.0, float(evalues.reach(cell.scores, 1.0).mean()), note=note))
                said.append(note)
            if not lines:
                continue
            due = [Point(x, evalues.due(x)) for x in np.geomspace(_LOWEST, _HIGHEST, 61).tolist()]
            svg = charts.curves(
                f"E-values of unknown clips, {kind}",
                "; ".join(said),
                charts.logarithmic("E-value of the best answer", (_LOWEST, _HIGHEST), _power),
                charts.logarithmic("share of clips", (_LOWEST, 1.0), _power),
                lines,
                stairs=marks,
                expected=due,
            )
            note = (
                "Share of the clips that have this E-value or a smaller one. Dashed: what is due. Above it, E-values "
                "promise too much. The marker is at E = 1."
            )
            yield Figure(_said(of_library[0].library), kind.capitalize(), note, Markup(svg))


def _power(value: float) -> str:
    return f"{value:g}"


def page(found: Sequence[Cell], trusted: Sequence[Reliability], setting: Setting, command: str) -> str:
    """The page, as HTML."""
    charts_of = list(figures(found))
    sections = [
        (table(of_library), [chart for chart in charts_of if chart.section == _said(of_library[0].library)])
        for of_library in by_library(found)
    ]
    sections += [(reliability_table(one), []) for one in trusted]
    template = report.environment().get_template("calibration.html")
    return template.render(sections=sections, setting=setting, command=command)


def write(
    found: Sequence[Cell], trusted: Sequence[Reliability], setting: Setting, command: str, out: Path
) -> Path:
    """Write the page into a folder; returns its path."""
    path = out / PAGE
    path.write_text(page(found, trusted, setting, command), encoding="utf-8")
    return path
