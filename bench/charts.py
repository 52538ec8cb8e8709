"""Charts as inline SVG: curves, a scatter plot, a histogram.

Nothing here knows what is drawn. Colours come from the page's style sheet (classes ``s0`` to ``s7``; ``currentColor``
for axes), so that a chart follows the page into its dark scheme. Every series has a marker of its own shape and its
label beside it: no one needs to tell colours apart. Each chart names and describes itself to a screen reader, and each
point shows its numbers when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from statistics import NormalDist

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 24, 14, 44
"""Margins; where labels of curves stand in the right one, it is wider."""
LINE, LETTER = 15, 7.0
"""Height of a line of text, and how wide a letter may be."""
COLOURS = 8
"""Number of colours in the style sheet; further series repeat them with dashed lines."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8L4.6 3.4H-4.6z",
    "M0-5L5 0L0 5L-5 0z",
    "M0 4.8L4.6-3.4H-4.6z",
    "M-4.5-1.5h3v-3h3v3h3v3h-3v3h-3v-3h-3z",
    "M0-5L1.5-1.5L5 0L1.5 1.5L0 5L-1.5 1.5L-5 0L-1.5-1.5z",
    "M-4.6-2.6L0-5L4.6-2.6V2.6L0 5L-4.6 2.6z",
)


@dataclass(frozen=True)
class Scale:
    """An axis: from `low` to `high`, with marks, evenly or as `warp` bends it.

    Attributes
    ----------
    title
        What it shows, with its unit.
    low, high
        What its ends stand for. Values beyond are drawn at the ends.
    ticks
        Values to mark, and what is written there.
    warp
        Rising function of the value, to which distances are proportional.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    warp: Callable[[float], float] = field(default=lambda value: value)

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        low, high = self.warp(self.low), self.warp(self.high)
        return (self.warp(min(max(value, self.low), self.high)) - low) / (high - low)


def shares(title: str) -> Scale:
    """0 to 100 %."""
    return Scale(title, 0.0, 1.0, [(i / 5, f"{20 * i} %") for i in range(6)])


def normal_deviate(title: str, low: float, high: float, marks: Sequence[float]) -> Scale:
    """Shares as a DET curve shows them: normal distributions of scores become straight lines."""
    return Scale(title, low, high, [(mark, f"{100 * mark:g} %") for mark in marks], NormalDist().inv_cdf)


def logarithmic(title: str, values: Sequence[float], written: Callable[[float], str]) -> Scale:
    """Whole powers of ten around positive values."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    decades = range(first, max(last, first + 1) + 1)
    ticks = [(10.0**decade, written(10.0**decade)) for decade in decades]
    return Scale(title, ticks[0][0], ticks[-1][0], ticks, math.log10)


@dataclass(frozen=True)
class Point:
    """A point, its interval in y, and what is said of it when it is pointed at."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one colour and marker, and their label."""

    label: str
    style: int
    points: Sequence[Point]


# -- charts -----------------------------------------------------------------------------------------------------------


def curves(
    title: str,
    description: str,
    x: Scale,
    y: Scale,
    series: Sequence[Series],
    *,
    stairs: Sequence[Point] | None = None,
    guide: float | None = None,
    expected: Sequence[Point] = (),
) -> str:
    """Lines with markers and intervals at their points.

    Parameters
    ----------
    stairs
        Makes stairs of the lines, without intervals, and gives each its one marker.
    guide
        An x to be marked by a dashed line.
    expected
        A line to hold the others against, dashed.
    """
    frame = _Frame(x, y, right=max(80.0, 18 + LETTER * max(len(line.label) for line in series)))
    bodies: list[list[str]] = []
    ends: list[tuple[float, float]] = []
    for number, line in enumerate(series):
        # Neighbouring points of several series would hide each other's intervals.
        aside = 0.0 if stairs else 2.5 * (number - (len(series) - 1) / 2)
        at = [(frame.x(point.x) + aside, frame.y(point.y)) for point in line.points]
        marked = list(zip(at, line.points, strict=True))
        if stairs:
            marked = [((frame.x(stairs[number].x), frame.y(stairs[number].y)), stairs[number])]
        body = [f'<path class="line" {_dash(line.style)}d="{_stairs(at) if stairs else _path(at)}"/>']
        for (px, py), point in marked:
            body += [_interval(px, point, frame), _marker(px, py, line.style, point.note)]
        bodies.append(body)
        ends.append(at[-1])
    for line, body, end, height in zip(series, bodies, ends, _apart([y for _, y in ends]), strict=True):
        start = frame.right + 8
        if frame.right - end[0] < 40:  # a longer one would look like a curve
            body.append(f'<path class="leader" d="M{end[0] + 6:.1f} {end[1]:.1f}L{start:.1f} {height:.1f}"/>')
        body.append(f'<text x="{start + 3:.1f}" y="{height:.1f}" dy=".35em">{escape(line.label)}</text>')
    groups = [
        f'<g class="series s{line.style % COLOURS}">{"".join(body)}</g>'
        for line, body in zip(series, bodies, strict=True)
    ]
    if expected:
        path = _path([(frame.x(point.x), frame.y(point.y)) for point in expected])
        groups.insert(0, f'<path class="guide" fill="none" d="{path}"/>')
    if guide is not None:
        groups.insert(0, f'<path class="guide" d="M{frame.x(guide):.1f} {frame.top}V{frame.bottom}"/>')
    return _svg(title, description, frame.axes() + "".join(groups))


def scatter(title: str, description: str, x: Scale, y: Scale, chains: Sequence[Sequence[Series]]) -> str:
    """Labelled single points; those of one chain are joined by a line."""
    frame = _Frame(x, y)
    at = {
        id(series): (frame.x(series.points[0].x), frame.y(series.points[0].y))
        for chain in chains
        for series in chain
    }
    taken: list[Box] = [(px - 6, py - 6, px + 6, py + 6) for px, py in at.values()]
    lines, marks = [], []
    for chain in chains:
        if len(chain) > 1:
            path = _path([at[id(series)] for series in chain])
            lines.append(f'<path class="chain s{chain[0].style % COLOURS}" d="{path}"/>')
        for series in chain:
            (px, py), point = at[id(series)], series.points[0]
            anchor, tx, ty, box = _place(px, py, LETTER * len(series.label), taken, frame)
            taken.append(box)
            far = (
                f'<path class="leader" d="M{px:.1f} {py:.1f}L{tx:.1f} {ty:.1f}"/>'
                if abs(ty - py) > LINE
                else ""
            )
            marks.append(
                f'<g class="series s{series.style % COLOURS}">{far}{_interval(px, point, frame)}'
                f"{_marker(px, py, series.style, point.note)}"
                f'<text x="{tx:.1f}" y="{ty:.1f}" dy=".35em" text-anchor="{anchor}">{escape(series.label)}</text></g>'
            )
    return _svg(title, description, frame.axes() + "".join(lines + marks))


def histogram(
    title: str, description: str, x: Scale, y: Scale, edges: Sequence[float], bars: Sequence[Series]
) -> str:
    """Shares by bin, as filled outlines; of each series, point i is the bin from edge i to the next."""
    frame = _Frame(x, y)
    parts = []
    for series in bars:
        outline = [f"M{frame.x(edges[0]):.1f} {frame.y(0):.1f}"]
        for end, point in zip(edges[1:], series.points, strict=True):
            outline.append(f"V{frame.y(point.y):.1f}H{frame.x(end):.1f}")
        outline.append(f"V{frame.y(0):.1f}")
        top = max(series.points, key=lambda point: point.y)
        parts.append(
            f'<g class="series s{series.style % COLOURS}"><title>{escape(top.note)}</title>'
            f'<path class="area" {_dash(series.style)}d="{"".join(outline)}"/>'
            f'<text x="{frame.x(top.x):.1f}" y="{frame.y(top.y) - 9:.1f}" text-anchor="middle">'
            f"{escape(series.label)}</text></g>"
        )
    return _svg(title, description, frame.axes() + "".join(parts))


# -- parts ------------------------------------------------------------------------------------------------------------


class _Frame:
    """The area between the axes, in pixels."""

    def __init__(self, x: Scale, y: Scale, right: float = RIGHT) -> None:
        self._x, self._y = x, y
        self.left, self.right, self.top, self.bottom = LEFT, WIDTH - right, TOP, HEIGHT - BOTTOM

    def x(self, value: float) -> float:
        return self.left + self._x.at(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - self._y.at(value) * (self.bottom - self.top)

    def axes(self) -> str:
        """Grid, ticks and titles."""
        parts = []
        for value, text in self._y.ticks:
            at = self.y(value)
            parts.append(f'<path class="grid" d="M{self.left} {at:.1f}H{self.right}"/>')
            parts.append(
                f'<text x="{self.left - 7}" y="{at:.1f}" dy=".35em" text-anchor="end">{escape(text)}</text>'
            )
        for value, text in self._x.ticks:
            at = self.x(value)
            parts.append(f'<path class="tick" d="M{at:.1f} {self.bottom}v4"/>')
            parts.append(
                f'<text x="{at:.1f}" y="{self.bottom + 17}" text-anchor="middle">{escape(text)}</text>'
            )
        parts.append(f'<path class="axis" d="M{self.left} {self.bottom}H{self.right}"/>')
        parts.append(
            f'<text x="{(self.left + self.right) / 2:.1f}" y="{HEIGHT - 6}" '
            f'text-anchor="middle">{escape(self._x.title)}</text>'
        )
        return f'<g class="axes" aria-hidden="true">{"".join(parts)}</g>'


def _svg(title: str, description: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {escape(description)}">'
        f"{body}</svg>"
    )


def _dash(style: int) -> str:
    return f'stroke-dasharray="{5 - style // COLOURS} 3" ' if style >= COLOURS else ""


def _marker(x: float, y: float, style: int, note: str) -> str:
    shape = _MARKERS[style % len(_MARKERS)]
    return (
        f'<path class="marker" transform="translate({x:.1f} {y:.1f})" d="{shape}">'
        f"<title>{escape(note)}</title></path>"
    )


def _interval(x: float, point: Point, frame: _Frame) -> str:
    if math.isnan(point.low):
        return ""
    return f'<path class="interval" d="M{x:.1f} {frame.y(point.low):.1f}V{frame.y(point.high):.1f}"/>'


def _path(at: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)


def _stairs(at: Sequence[tuple[float, float]]) -> str:
    """Along x first, then along y; steps too small to see are left out."""
    parts, (x, y) = [f"M{at[0][0]:.1f} {at[0][1]:.1f}"], at[0]
    for next_x, next_y in at[1:]:
        if abs(next_x - x) + abs(next_y - y) >= 0.5 or (next_x, next_y) == at[-1]:
            parts.append(f"H{next_x:.1f}V{next_y:.1f}")
            x, y = next_x, next_y
    return "".join(parts)


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights of labels, moved as little as keeps them a line apart and between top and bottom."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + LINE)
    lowest = HEIGHT - BOTTOM + 2.0
    for i in reversed(order):
        placed[i] = min(placed[i], lowest)
        lowest = placed[i] - LINE
    return placed


def _place(
    px: float, py: float, width: float, taken: Sequence[Box], frame: _Frame
) -> tuple[str, float, float, Box]:
    """The nearest free place for the label of a point: its anchor, x and y, and the box that it fills."""
    places: list[tuple[str, float, float, Box]] = []
    for lines in (0, -1, 1, -2, 2, -3, 3, -4, 4, -5, 5):
        ty = py + lines * LINE
        for anchor, tx in (("start", px + 9), ("middle", px), ("end", px - 9)):
            left = {"start": tx, "middle": tx - width / 2, "end": tx - width}[anchor]
            places.append((anchor, tx, ty, (left, ty - LINE / 2, left + width, ty + LINE / 2)))
    for place in places:
        left, top, right, bottom = place[3]
        inside = left >= frame.left and right <= WIDTH and top >= 0 and bottom <= frame.bottom
        if inside and not any(_overlap(place[3], other) for other in taken):
            return place
    return places[0]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
