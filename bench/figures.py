"""The charts of a comparison: which there are, of what numbers, under which words; :mod:`bench.charts` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from bench import charts, metrics, tables
from bench.charts import Point, Series
from bench.comparison import Comparison, Entrant, Group, Measure, Sweep, describe, sweeps
from bench.metrics import Rate

FALSE_ANSWER_MARKS = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
MISS_MARKS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.95)
"""Marks of the axes of DET curves."""
BACKGROUND_STYLE = 6
"""Style of false alignments: grey."""


@dataclass(frozen=True)
class Figure:
    """A chart and where it belongs.

    Attributes
    ----------
    section
        Part of the page: ``overview``, ``robustness``, ``verdict``, ``ber``.
    title, note
        What it shows.
    svg
        The chart.
    group, measure
        Whose it is; None where it is shown with all of them.
    """

    section: str
    title: str
    note: str
    svg: Markup
    group: Group | None = None
    measure: Measure | None = None


def figures(comparison: Comparison) -> Iterator[Figure]:
    """All charts for which there are numbers."""
    for measure in comparison.measures:
        for group in comparison.groups:
            for sweep in sweeps(comparison.conditions(group)):
                yield from _sweep(comparison, group, measure, sweep)
            yield from _size(comparison, group, measure)
        for kind in dict.fromkeys(group.kind for group in comparison.groups):
            alike = [group for group in comparison.groups if group.kind == kind]
            yield from _lengths(comparison, alike, measure)
    for group in comparison.groups:
        yield from _det(comparison, group)
        for entrant in comparison.entrants:
            yield from _ber(entrant, group)


def _whose(comparison: Comparison) -> str:
    return "" if comparison.drawn == comparison.entrants else "; of each system, its best"


def _point(x: float, rate: Rate, what: str) -> Point:
    low, high = rate.interval
    return Point(
        x, rate.value, low, high, f"{what}: {tables.percent(rate.value)} %, {tables.rate_cell(rate).note}"
    )


def _sweep(comparison: Comparison, group: Group, measure: Measure, sweep: Sweep) -> Iterator[Figure]:
    """Over the number in which a sweep's conditions differ."""
    numbers = [number for number, _ in sweep.points if number is not None]
    step = (numbers[-1] - numbers[0]) / max(1, len(numbers) - 1)
    places = [number if number is not None else numbers[-1] + step for number, _ in sweep.points]
    ticks = [
        (place, "clean" if number is None else f"{number:g}".replace("-", "−"))
        for place, (number, _) in zip(places, sweep.points, strict=True)
    ]
    lines = []
    for entrant in comparison.drawn:
        rates = [entrant.rate(measure, group, condition) for _, condition in sweep.points]
        points = [
            _point(place, rate, f"{entrant.label}, {describe(condition)}")
            for place, rate, (_, condition) in zip(places, rates, sweep.points, strict=True)
            if rate.n
        ]
        if points:
            lines.append(Series(entrant.label, entrant.style, points))
    if not lines:
        return
    scale = charts.Scale(sweep.unit, places[0] - step / 3, places[-1] + step / 3, ticks)
    caption = f"{sweep.title}, clips of {group.title}"
    svg = charts.curves(caption, _ends(lines), scale, charts.shares("named"), lines)
    yield Figure(
        "robustness",
        caption,
        f"Clips named {measure.title}{_whose(comparison)}.",
        Markup(svg),
        group,
        measure,
    )


def _lengths(comparison: Comparison, groups: Sequence[Group], measure: Measure) -> Iterator[Figure]:
    """Over clip lengths, for the conditions that all of them have."""
    common = [
        condition
        for condition in comparison.conditions(groups[0])
        if all(condition in comparison.conditions(group) for group in groups)
    ]
    if len(groups) < 2 or not common:
        return
    lines = []
    for entrant in comparison.drawn:
        points = []
        for group in groups:
            rates = [entrant.rate(measure, group, condition) for condition in common]
            rate = Rate(sum(rate.hits for rate in rates), sum(rate.n for rate in rates))
            if rate.n:
                points.append(_point(group.length_s, rate, f"{entrant.label}, {group.title}"))
        if points:
            lines.append(Series(entrant.label, entrant.style, points))
    if not lines:
        return
    ticks = [(group.length_s, f"{group.length_s:g}") for group in groups]
    scale = charts.Scale("clip length in s", 0.0, groups[-1].length_s * 1.05, ticks)
    several = len({group.kind for group in comparison.groups}) > 1
    caption = f"Clip length, {groups[0].kind}" if several else "Clip length"
    svg = charts.curves(caption, _ends(lines), scale, charts.shares("named"), lines)
    note = f"Clips named {measure.title}, over the {len(common)} conditions that all lengths have{_whose(comparison)}."
    yield Figure("overview", caption, note, Markup(svg), None, measure)


def _size(comparison: Comparison, group: Group, measure: Measure) -> Iterator[Figure]:
    """Share of clips named over the size of the index; systems of one name make a curve."""
    chains: dict[str, list[Series]] = {}
    for entrant in comparison.entrants:
        per_hour, rate = entrant.bytes_per_hour, entrant.rate(measure, group)
        if rate.n and per_hour > 0:
            point = _point(per_hour, rate, f"{entrant.label}, {tables.size(per_hour)} per hour")
            chains.setdefault(entrant.system.name, []).append(Series(entrant.label, entrant.style, [point]))
    drawn = [series for chain in chains.values() for series in chain]
    if not drawn:
        return
    for chain in chains.values():
        chain.sort(key=lambda series: series.points[0].x)
    scale = charts.logarithmic(
        "index per hour of audio", [series.points[0].x for series in drawn], tables.size
    )
    caption = f"Size and accuracy, clips of {group.title}"
    svg = charts.scatter(caption, _ends(drawn), scale, charts.shares("named"), list(chains.values()))
    note = f"Clips named {measure.title}, over the size of the index. Best is top left."
    yield Figure("overview", caption, note, Markup(svg), group, measure)


def _det(comparison: Comparison, group: Group) -> Iterator[Figure]:
    """Misses over false answers as the score threshold moves."""
    lines, verdicts = [], []
    for entrant in comparison.drawn:
        outcomes = entrant.at(group)
        curve = metrics.operating_points(outcomes)
        if np.isnan(curve.false_answer_rate).any() or np.isnan(curve.hit_rate).any():
            continue
        # Of equal rates of false answers, only the fewest misses.
        fewest: dict[float, float] = {}
        for false_answers, misses in zip(curve.false_answer_rate, curve.miss_rate, strict=True):
            fewest[float(false_answers)] = min(float(misses), fewest.get(float(false_answers), 1.0))
        points = [Point(*pair) for pair in sorted(fewest.items())]
        lines.append(Series(entrant.label, entrant.style, points))
        accepted, named = metrics.false_accepts(outcomes).value, metrics.recall(outcomes).value
        note = f"{entrant.label}, own verdict: {tables.percent(1 - named, 1)} % missed, "
        note += f"{tables.percent(accepted, 1)} % of unknown clips answered"
        verdicts.append(Point(accepted, 1 - named, note=note))
    if not lines:
        return
    caption = f"Misses against false answers, clips of {group.title}"
    svg = charts.curves(
        caption,
        "; ".join(point.note for point in verdicts),
        charts.normal_deviate("unknown clips answered", 0.004, 0.97, FALSE_ANSWER_MARKS),
        charts.normal_deviate("missed", 0.01, 0.97, MISS_MARKS),
        lines,
        stairs=verdicts,
        guide=metrics.FALSE_ANSWER_RATE,
    )
    note = (
        "A system can be made stricter: it then answers fewer clips that it cannot know (to the left) and misses more "
        "that it could (upwards). A curve shows all that is possible with one score threshold for clips of this "
        "length; lower left is better. The marker is the system’s own verdict, the dashed line 1 % false answers. "
        "Both axes are scaled by normal deviates, as is usual for detection error tradeoff (DET) curves."
    )
    yield Figure("verdict", caption, note, Markup(svg), group)


def _ber(entrant: Entrant, group: Group) -> Iterator[Figure]:
    """Bit error rates of true and of false alignments."""
    outcomes = entrant.at(group)
    series, top, end = [], 0.0, 0.5
    kinds = (
        ("true", metrics.true_alignments(outcomes), entrant.style),
        ("false", metrics.false_alignments(outcomes), BACKGROUND_STYLE),
    )
    for label, mask, style in kinds:
        ber = outcomes.ber[mask]
        edges, shares = metrics.ber_histogram(ber)
        if not shares.any():
            continue
        end = max(end, float(edges[1:][shares > 0].max()))
        top = max(top, float(shares.max()))
        known = ber[~np.isnan(ber)]
        note = f"{label}: median {np.median(known):.2f} over {len(known):,}"
        middles = (edges[:-1] + edges[1:]) / 2
        series.append((label, style, [Point(x, y, note=note) for x, y in zip(middles, shares, strict=True)]))
    if not series:
        return
    bins = int(np.searchsorted(edges, end - 1e-9))
    bars = [Series(label, style, points[:bins]) for label, style, points in series]
    x = charts.Scale(
        "bit error rate", 0.0, end, [(i / 10, f"{i / 10:g}") for i in range(math.floor(10 * end) + 1)]
    )
    # One of two scales, so that systems can be held against each other.
    step = 0.1 if top <= 0.46 else 0.2
    y = charts.Scale("share", 0.0, 5 * step, [(i * step, f"{100 * i * step:.0f} %") for i in range(6)])
    caption = f"{entrant.label}, clips of {group.title}"
    said = "; ".join(points[0].note for _, _, points in series)
    svg = charts.histogram(caption, said, x, y, edges[: bins + 1].tolist(), bars)
    yield Figure("ber", caption, f"Bit error rates, {said}.", Markup(svg), group)


def _ends(lines: Sequence[Series]) -> str:
    """The chart for who cannot see it: where each series begins and ends."""
    said = []
    for line in lines:
        first, last = line.points[0], line.points[-1]
        to = f" to {tables.percent(last.y)} %" if len(line.points) > 1 else ""
        said.append(f"{line.label} {tables.percent(first.y)} %{to}")
    return "; ".join(said)
