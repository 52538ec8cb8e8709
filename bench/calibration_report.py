"""What a calibration says: a table a library, as records, in a terminal and on a page with charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bench import charts, evalues, report, tables
from bench.calibration import Answered, Setting
from bench.charts import Point, Series
from bench.evalues import Floats, Level
from bench.figures import Figure
from bench.masked import REAL
from samaf.settings import MAX_EVALUE

PAGE = "calibration.html"
_LOWEST, _HIGHEST = 1e-4, 10.0  # E-values on the axis


@dataclass(frozen=True)
class Cell:
    """Clips of a kind and length put to one library.

    Attributes
    ----------
    library, kind, length_s
        Which cell.
    scores : (n,)
        Of the best answers; -inf where there is none.
    clusters
        How many artists or speakers the clips are of.
    levels
        What reaches which E-value.
    named
        The same at the largest E-value that samaf names a clip at by default.
    """

    library: str
    kind: str
    length_s: float
    scores: Floats
    clusters: int
    levels: list[Level]
    named: Level

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
            "max_evalue": self.named.evalue,
            "named": self.named.observed,
            "named_interval": _known(self.named.interval),
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
        of_cell = sorted(grouped[key], key=lambda line: line.query)
        scores = np.array([-math.inf if line.score is None else line.score for line in of_cell])
        artists = [line.artist for line in of_cell]
        levels = evalues.levels(scores, artists, seed)
        named = evalues.level(scores, artists, MAX_EVALUE, seed)
        found.append(Cell(*key, scores, len(set(artists)), levels, named))
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
    columns.append(f"Named, E ≤ {MAX_EVALUE:g}, %")
    rows = []
    for cell in of_library:
        texts = [tables.Cell(f"{n:,}", n) for n in (len(cell.scores), cell.clusters)]
        at = {level.evalue: level for level in cell.levels}
        for x in shown:
            texts += _level_cells(at[x]) if x in at else [tables.Cell(tables.UNKNOWN)] * 2
        low, high = cell.named.interval
        interval = "" if math.isnan(low) else f" ({tables.percent(low, 1)}–{tables.percent(high, 1)})"
        share = cell.named.observed
        rows.append(tables.Row(cell.title, [*texts, tables.Cell(tables.percent(share, 1) + interval, share)]))
    note = (
        "Share of unknown clips whose best answer has E up to x, over the share that is due, 1 − exp(−x). Below 1 "
        "E-values are cautious, above 1 they promise too much. In brackets 95 % intervals, artists resampled. A level "
        f"is left out where fewer than {evalues.FEWEST_DUE} clips are due."
    )
    return tables.Table(f"Library: {_said(of_library[0].library)}", columns, rows, note)


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
                note = f"{label}: {tables.percent(cell.named.observed, 1)} % at E ≤ {MAX_EVALUE:g}"
                lines.append(Series(label, style, points))
                marks.append(Point(MAX_EVALUE, cell.named.observed, note=note))
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
                "Share of the clips that have this E-value or a smaller one. Dashed: what is due. Above it, "
            )
            note += f"E-values promise too much. The marker is at E = {MAX_EVALUE:g}."
            yield Figure(_said(of_library[0].library), kind.capitalize(), note, Markup(svg))


def _power(value: float) -> str:
    return f"{value:g}"


def page(found: Sequence[Cell], setting: Setting, command: str) -> str:
    """The page, as HTML."""
    charts_of = list(figures(found))
    sections = [
        (table(of_library), [chart for chart in charts_of if chart.section == _said(of_library[0].library)])
        for of_library in by_library(found)
    ]
    template = report.environment().get_template("calibration.html")
    return template.render(sections=sections, setting=setting, command=command)


def write(found: Sequence[Cell], setting: Setting, command: str, out: Path) -> Path:
    """Write the page into a folder; returns its path."""
    path = out / PAGE
    path.write_text(page(found, setting, command), encoding="utf-8")
    return path
