"""The tables of a comparison: one form, written as Markdown here and as HTML by :mod:`bench.report`.

The CSV is one long table of all metrics of every system, clip length and condition, a row each, for whoever wants to
compute something else.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.comparison import Comparison, Entrant, Group, Measure, describe
from bench.metrics import Rate

UNKNOWN = "–"
"""What stands for a number that there is not."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    text
        As a reader sees it.
    value
        What it is sorted by; nan sorts last.
    note
        Where the number comes from: counts and interval.
    interval
        The interval in short, "82–93"; empty where there is none.
    shade
        In [0, 1] where the column is a heat map.
    best
        Whether no other in its row, or column, is better.
    """

    text: str
    value: float = math.nan
    note: str = ""
    interval: str = ""
    shade: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its head, the cells, and whether it sums up the others."""

    head: str
    cells: list[Cell]
    note: str = ""
    total: bool = False
    style: int | None = None
    """The entrant whose row it is."""


@dataclass(frozen=True)
class Table:
    """A table with its title, its columns' titles (the first is that of the rows' heads), and its rows."""

    title: str
    columns: list[str]
    rows: list[Row]
    note: str = ""

    def markdown(self) -> str:
        """The table alone, in Markdown, its columns aligned so that it reads well in a terminal too."""
        lines = [self.columns] + [[row.head, *(cell.text for cell in row.cells)] for row in self.rows]
        lines = [[text.replace("|", "\\|") for text in line] for line in lines]
        widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(self.columns))]

        def written(line: Sequence[str]) -> str:
            cells = [line[0].ljust(widths[0])]
            cells += [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
            return f"| {' | '.join(cells)} |"

        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join([written(lines[0]), written(rule), *(written(line) for line in lines[1:])])


def plain_table(title: str, columns: list[str], rows: Sequence[Sequence[str]], note: str = "") -> Table:
    """A table of texts; the first of a row is its head."""
    return Table(
        title, list(columns), [Row(head, [Cell(text) for text in texts]) for head, *texts in rows], note
    )


# -- numbers as text --------------------------------------------------------------------------------------------------


def percent(share: float, digits: int = 0) -> str:
    """``88``, without the sign."""
    return UNKNOWN if math.isnan(share) else f"{100 * share:.{digits}f}"


def size(n_bytes: float) -> str:
    """``58 kB``, ``4.8 MB``, ``1 MB``: decimal prefixes."""
    if math.isnan(n_bytes):
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5 or unit == "GB":
            break
        n_bytes /= 1000
    digits = 1 if n_bytes < 9.95 else 0
    return f"{n_bytes:.{digits}f}".removesuffix(".0") + f" {unit}"


def duration(seconds: float) -> str:
    """``3.1 ms``, ``120 ms``, ``1.4 s``."""
    if math.isnan(seconds):
        return UNKNOWN
    if seconds < 0.9995:
        return f"{1000 * seconds:.{1 if seconds < 0.00995 else 0}f} ms"
    return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"


def times(factor: float) -> str:
    """``231 ×``."""
    return UNKNOWN if math.isnan(factor) else f"{factor:,.{1 if factor < 9.95 else 0}f} ×"


def macs(number: float) -> str:
    """``12 M``, ``4.8 M``: millions."""
    return UNKNOWN if math.isnan(number) else f"{number / 1e6:,.{1 if number < 9.95e6 else 0}f} M"


Better = Callable[..., float]
"""``max`` or ``min``."""


def rate_cell(rate: Rate, *, digits: int = 0, shade: bool = False) -> Cell:
    """A share in percent, with counts and Wilson interval as its note."""
    if not rate.n:
        return Cell(UNKNOWN, note="no clips")
    low, high = rate.interval
    return Cell(
        percent(rate.value, digits),
        rate.value,
        note=f"{rate.hits} of {rate.n}; 95 % interval {percent(low, 1)} to {percent(high, 1)} %",
        interval=f"{percent(low)}–{percent(high)}",
        shade=rate.value if shade else None,
    )


def _with_best(cells: Sequence[Cell], better: Better | None) -> list[Cell]:
    """The cells, the best of them marked, and whatever ties with it; none where there is nothing to compare."""
    values = [cell.value for cell in cells if not math.isnan(cell.value)]
    if better is None or len(values) < 2 or min(values) == max(values):
        return list(cells)
    return [replace(cell, best=cell.value == better(values)) for cell in cells]


@dataclass(frozen=True)
class _Column:
    """A column of a table whose rows are systems: a metric of :func:`bench.metrics.evaluate`."""

    title: str
    metric: str
    better: Better | None
    written: Callable[[float], str] = percent
    """For metrics that are no :class:`Rate`."""
    condition: str | None = None


def _by_system(
    title: str, group: Group, entrants: Sequence[Entrant], columns: Sequence[_Column], note: str
) -> Table:
    """A table with a row for each system."""

    def cell(entrant: Entrant, column: _Column) -> Cell:
        value = entrant.metrics(group, column.condition)[column.metric]
        if isinstance(value, Rate):
            return rate_cell(value, digits=1 if column.condition is None else 0)
        return Cell(column.written(value), value)

    filled = [
        _with_best([cell(entrant, column) for entrant in entrants], column.better) for column in columns
    ]
    rows = [
        Row(entrant.label, [cells[i] for cells in filled], style=entrant.style)
        for i, entrant in enumerate(entrants)
    ]
    return Table(title, ["System", *(column.title for column in columns)], rows, note)


# -- the tables -------------------------------------------------------------------------------------------------------


def overview(comparison: Comparison, group: Group) -> Table:
    """Who names how many clips, at what size, and how often wrongly; the best first."""
    return _by_system(
        f"Overview, clips of {group.title}",
        group,
        comparison.ranking(group),
        [
            _Column("Named at 1 % false answers, %", "hit_fa1", max),
            _Column("Named by its own verdict, %", "recall", None),
            _Column("Unknown clips it answers, %", "false_accepts", None),
            _Column("Index per hour", "index_bytes_per_hour", min, size),
            _Column("Indexing, real time", "ingest_x_real_time", max, times),
            _Column("Query, median", "query_median_s", min, duration),
        ],
        "All conditions together. Unknown clips are of recordings that are not in the library: any answer to one is "
        "false. A system's own verdict trades one for the other, so neither is marked as best.",
    )


def by_condition(comparison: Comparison, group: Group, measure: Measure) -> Table:
    """Share of clips named: a row a condition, a column a system."""

    def cells(condition: str | None) -> list[Cell]:
        digits = 1 if condition is None else 0
        rates = [entrant.rate(measure, group, condition) for entrant in comparison.entrants]
        return _with_best([rate_cell(rate, digits=digits, shade=True) for rate in rates], max)

    return Table(
        f"Clips of {group.title} named {measure.title}, %",
        ["Condition", *(entrant.label for entrant in comparison.entrants)],
        [
            Row("all conditions", cells(None), total=True),
            *(
                Row(describe(condition), cells(condition), note=condition)
                for condition in comparison.conditions(group)
            ),
        ],
        measure.meaning,
    )


def verdicts(comparison: Comparison, group: Group) -> Table:
    """The systems' own verdicts: precision, recall, F1 and false accepts."""
    return _by_system(
        f"Their own verdicts, clips of {group.title}, %",
        group,
        comparison.entrants,
        [
            _Column("Named rightly (recall)", "recall", max),
            _Column("Named wrongly", "wrong_accepts", min),
            _Column("Precision", "precision", max),
            _Column("F1", "f1", max, lambda value: percent(value, 1)),
            *(
                _Column(
                    f"Unknown clips answered ({describe(condition)})",
                    "false_accepts",
                    min,
                    percent,
                    condition,
                )
                for condition in comparison.conditions(group, in_library=False)
            ),
        ],
        "Recall and “named wrongly” are shares of the clips in the library. Precision is the share of right ones "
        "among all answers, those to unknown clips included. F1 is the harmonic mean of precision and recall.",
    )


def localisation(comparison: Comparison, group: Group) -> Table:
    """The three senses of top-1, and the offset errors."""
    return _by_system(
        f"The place in the track, clips of {group.title}",
        group,
        comparison.entrants,
        [
            _Column("Right track, %", "top1_correct", max),
            _Column("Near, %", "top1_near", max),
            _Column("Exact, %", "top1_exact", max),
            _Column("Offset error, median", "error_median_s", min, duration),
            _Column("Offset error, 95 %", "error_95_s", min, duration),
        ],
        "Best candidates, whatever their score. Near: within 500 ms of the right place; exact: within 250 ms. Errors "
        "are those of candidates of the right track.",
    )


def costs(comparison: Comparison, group: Group) -> Table:
    """Sizes, times and memory."""
    return _by_system(
        f"Size and speed, clips of {group.title}",
        group,
        comparison.entrants,
        [
            _Column("Index per hour", "index_bytes_per_hour", min, size),
            _Column("Indexing, real time", "ingest_x_real_time", max, times),
            _Column("Indexing, CPU time", "ingest_cpu_x_real_time", max, times),
            _Column("Query, median", "query_median_s", min, duration),
            _Column("Query, 95 %", "query_95_s", min, duration),
            _Column("Peak memory", "peak_memory_bytes", min, size),
            _Column("Network, MAC a second", "macs_per_s", None, macs),
        ],
        "1 kB is 1,000 bytes. Indexing: seconds of audio by second of wall-clock and of processor time, audio already "
        "decoded. Queries: from samples to answer. MAC: multiplications with addition, for a second of a track.",
    )


def all_tables(comparison: Comparison, group: Group) -> list[Table]:
    """Every table of a group."""
    return [
        overview(comparison, group),
        *(by_condition(comparison, group, measure) for measure in comparison.measures),
        verdicts(comparison, group),
        localisation(comparison, group),
        costs(comparison, group),
    ]


# -- files ------------------------------------------------------------------------------------------------------------


def csv_text(comparison: Comparison) -> str:
    """All metrics as CSV: a row for each system, kind, length and condition.

    The condition is empty in rows over all conditions. A share takes five columns: itself, ``_hits``, ``_n``,
    ``_low`` and ``_high`` (Wilson, 95 %). What is not known is empty.
    """
    rows = [
        {
            "system": entrant.label,
            "kind": group.kind,
            "length_s": f"{group.length_s:g}",
            "condition": condition or "",
            "queries": str(len(entrant.at(group, condition))),
            **_flat(entrant, group, condition),
        }
        for entrant in comparison.entrants
        for group in comparison.groups
        for condition in (
            None,
            *comparison.conditions(group),
            *comparison.conditions(group, in_library=False),
        )
    ]
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def _flat(entrant: Entrant, group: Group, condition: str | None) -> dict[str, str]:
    columns: dict[str, str] = {}
    for name, value in entrant.metrics(group, condition).items():
        if isinstance(value, Rate):
            low, high = value.interval
            columns |= {
                name: _plain(value.value),
                f"{name}_hits": str(value.hits),
                f"{name}_n": str(value.n),
                f"{name}_low": _plain(low),
                f"{name}_high": _plain(high),
            }
        else:
            columns[name] = _plain(value)
    return columns


def _plain(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
