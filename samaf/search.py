"""Search: a query through an index: candidates -> lines -> stretches -> verdict.

A short query is compared with every position of a small segment; in a large one its hashes' candidates from the
inverted tables vote for lines. A long query is taken in sections of some 10 s, whose candidates vote in small segments
too. The best lines are re-ranked with confidence and followed over the whole query; what their stretches are worth, and
which are matches, :mod:`samaf.verdict` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from samaf.alignment import (
    APART_S,
    Line,
    Lines,
    distinct,
    first_of_each,
    refine,
    scan,
    shifts_for,
    slopes_for,
    vote,
)
from samaf.errors import AudioError
from samaf.fingerprint import Fingerprint
from samaf.hamming import frozen
from samaf.index import Index, Snapshot
from samaf.index.probe import Candidates, candidates
from samaf.index.segment import Segment, count_valid
from samaf.match import CHANGED_TEMPO, Match, Matches
from samaf.query import Query
from samaf.resemblance import Judgement, Resemblance
from samaf.stretch import Stretch, best_stretch, grow
from samaf.verdict import Calibrated, Limits, Verdict, decide, power_of_ten

SECTION_S = 10.0
"""Length of the sections that a long query is searched by; they overlap by a quarter."""
PAGE_S = 125.0
"""Length of the query whose candidates are looked for, and held, at once."""
PROBES = 16
"""Buckets looked into per band and query hash."""
SCANNED_LINES = 600
FEWEST_LINES = 32
VOTED_LINES = 300
LONG_LINES = 100
"""Voted lines of a section in a segment without tables, whose candidates are all there are."""
TURNED_LINES = 16
"""Voted lines that are also tried at other slopes."""
SHARE_OF_TRACK = 0.25
"""Share of the scanned or voted lines that one track may have: one that repeats itself must not hide all others."""
JUDGED_LINES = 8
"""Lines of a section that are judged."""
SKETCHED_LINES = 2
"""Lines that are judged for each speed that is tried."""
JUDGED_LINES_OF_TRACK = 2
"""How many of them one track may have."""
SHIFT_S = 0.4
"""How far off a coarse line may lie."""
LEAST_LLR = 5.0
"""In a long query, stretches with a smaller sum of row log-likelihood ratios (nats) are not judged."""
LEAST_SHARE = 0.4
"""Nor are those with a smaller share of the best one's sum."""
USELESS_EVALUE = 100.0
"""Stretches with a greater E-value make no match, and are no rivals, unless an answer is asked for in any case."""
USELESS_IF_LONG = 10.0
"""The same in a long query, which has many."""
SURE_SCORE = 4.0
"""With a match of this score, at its own tempo, a clip is not tried at other speeds."""

_WINDOW_S = 1.0


class Restored(Protocol):
    """A clip as it was before it was played at another speed."""

    def sketches(self) -> Iterator[tuple[float, Fingerprint]]:
        """(speed, fingerprint) for each speed to try: near enough to tell which it was."""
        ...

    def at(self, speed: float) -> Fingerprint:
        """The fingerprint for one speed, exactly."""
        ...


class Searcher:
    """Searches one index, with the calibration of its model.

    Parameters
    ----------
    index
        Open index.
    model
        The one the index was made with.

    Raises
    ------
    MismatchError
        If the index was made with another model.
    ModelError
        If the model was never calibrated.
    """

    def __init__(self, index: Index, model: Calibrated) -> None:
        index.check_fits(model_id=model.model_id)
        self.index = index
        self.verdict = Verdict(model, index.header.bits, index.header.hop_s)

    def search(
        self,
        query: Fingerprint,
        *,
        limits: Limits | None = None,
        exhaustive: bool = False,
        without: Collection[int] = (),
        restored: Restored | None = None,
        progress: Callable[[float, float], None] | None = None,
    ) -> Matches:
        """Matches of a query, best first; none if nothing is good enough.

        Parameters
        ----------
        query
            With confidence, overhanging rows and a hop that is a small part of the index's
            (:meth:`samaf.encoder.Encoder.encode_query`).
        limits
            What is told.
        exhaustive
            Look at every position instead of the inverted tables' candidates.
        without
            Ids of tracks that count as not stored.
        restored
            Makes the same clip as it was before it was played at another speed: tried unless the query as it is has a
            sure match.
        progress
            Called with (seconds of the query searched, seconds).

        Returns
        -------
        Matches
            A list, best first. One track may match several stretches of the query; its matches do not overlap.

        Raises
        ------
        MismatchError
            If the query was made with another model, or has fewer bits than the index.
        AudioError
            If no hash of the query is valid.
        """
        limits = limits or Limits()
        if not query.valid.any():
            raise AudioError(
                "nothing to identify: the audio is silent, or has no content that a hash could hold"
            )
        query = self._fitting(query)
        with self.index.snapshot() as snapshot:
            live = _live(snapshot, without)
            is_asked = limits.min_probability == 0 and limits.max_evalue > USELESS_EVALUE
            max_evalue = math.inf if is_asked else USELESS_EVALUE

            def found_in(print_: Fingerprint, count: int = max(limits.top, JUDGED_LINES)) -> list[_Found]:
                heard = progress if print_ is query else None  # of the clip as it is, not of each speed tried
                work = self.verdict.query(print_)
                changed = print_ is not query
                return self._judged(work, live, exhaustive, count, max_evalue, heard, restored=changed)

            found = found_in(query)
            like = [self._resemblance(one, snapshot) for one in found]
            if restored is not None and not _is_sure(found):
                sketched = [
                    (_best(found_in(sketch, SKETCHED_LINES)), speed)
                    for speed, sketch in restored.sketches()
                    if sketch.valid.any()
                ]
                score, speed = max(sketched, default=(-math.inf, 1.0))
                if score > max(_best(found), 0.0 if limits.min_probability > 0 else -math.inf):
                    like += [
                        self._resemblance(one, snapshot).played_at(speed)
                        for one in found_in(restored.at(speed))
                    ]
        return Matches(decide(like, self.verdict.odds, limits, query.duration_s), query.duration_s)

    def resembled(self, query: Fingerprint, *, without: Collection[int] = ()) -> list[Resemblance]:
        """All stretches that a query resembles: what calibration learns from."""
        with self.index.snapshot() as snapshot:
            work = self.verdict.query(self._fitting(query))
            found = self._judged(work, _live(snapshot, without), False, JUDGED_LINES, math.inf)
            return [self._resemblance(one, snapshot) for one in found]

    def _fitting(self, print_: Fingerprint) -> Fingerprint:
        header = self.index.header
        if print_.bits > header.bits:
            print_ = print_.truncated(header.bits)
        self.index.check_fits(model_id=print_.model_id, bits=print_.bits)
        return print_

    def _judged(
        self,
        query: Query,
        live: list[_Live],
        exhaustive: bool,
        count: int,
        max_evalue: float,
        progress: Callable[[float, float], None] | None = None,
        *,
        restored: bool = False,
    ) -> list[_Found]:
        """What the query resembles, as far as its E-value may be within the limit."""
        n_stored = sum(of.n_valid for of in live)
        sections = _sections(query)
        is_long = len(sections) > 1
        limit = min(max_evalue, USELESS_IF_LONG) if is_long and math.isfinite(max_evalue) else max_evalue
        found: list[_Found] = []
        of_track: dict[tuple[int, int], list[_Found]] = {}
        for section, part, lines in _lines(query, sections, live, exhaustive):
            stretches: list[tuple[_Live, Stretch]] = []
            for of, line in _best_lines(lines, part, max(3, count // 2) if is_long else count):
                hashes = of.segment.hashes
                if is_long:
                    here = best_stretch(line, part, hashes)
                    if here is None or here.llr < LEAST_LLR:
                        continue
                line = line.from_row(-section.start)
                known = of_track.get((of.segment.segment_id, line.first), ())
                if any(one.stretch.runs_along(line, section, query, APART_S / query.hop_s) for one in known):
                    continue
                stretch = best_stretch(grow(line, query, section, hashes), query, hashes)
                if stretch is not None:
                    stretches.append((of, stretch))
            least = LEAST_SHARE * max((stretch.llr for _, stretch in stretches), default=0.0)
            for of, stretch in stretches:
                worth = None
                if stretch.llr >= least:
                    worth = self.verdict.judge(query, stretch, n_stored, restored=restored, max_evalue=limit)
                if worth is not None:
                    one = _Found(query, of.segment, stretch, worth)
                    found.append(one)
                    of_track.setdefault((of.segment.segment_id, stretch.line.first), []).append(one)
            if progress is not None and section is not sections[-1]:
                progress(min(section.stop * query.hop_s, query.duration_s), query.duration_s)
        if progress is not None:
            progress(query.duration_s, query.duration_s)
        return found

    def _resemblance(self, found: _Found, snapshot: Snapshot) -> Resemblance:
        """A stretch in the times of clip and track, which end where the audio does."""
        query, segment, line = found.query, found.segment, found.stretch.line
        k = int(np.searchsorted(segment.starts, line.first, side="right") - 1)
        snapshot.check(segment, k)
        track = snapshot.track(int(segment.track_ids[k]))
        first, last = int(found.stretch.query_i[0]), int(found.stretch.query_i[-1])
        first_s = query.start_s + first * query.hop_s
        ahead_s = line.at(first) * query.hop_s - line.slope * first_s  # the track's time at the clip's start
        start_s = max(0.0, first_s, -ahead_s / line.slope)
        end_s = min(
            query.start_s + last * query.hop_s + _WINDOW_S,
            query.duration_s,
            (track.duration_s - ahead_s) / line.slope,
        )
        match = Match(
            track_id=track.track_id,
            path=track.path,
            title=track.title,
            ber=found.stretch.ber,
            evalue=power_of_ten(-found.score),
            score=found.score,
            query_start_s=round(float(start_s), 3),
            query_end_s=round(float(end_s), 3),
            track_start_s=round(float(max(0.0, ahead_s + line.slope * start_s)), 3),
            track_end_s=round(float(ahead_s + line.slope * end_s), 3),
            tempo=round(line.slope, 4),
            bits=query.bits * len(found.stretch.rows),
            wrong_bits=found.stretch.wrong_bits,
        )
        return Resemblance(
            match=match,
            worth=found.worth,
            meets_s=np.asarray(query.start_s + found.stretch.query_i * query.hop_s, np.float64),
            stored=segment.hashes[found.stretch.rows],
        )


@dataclass(frozen=True)
class _Found:
    """A stretch of a query in a segment, with its verdict."""

    query: Query
    segment: Segment
    stretch: Stretch
    worth: Judgement

    @property
    def score(self) -> float:
        """``-log10`` of its E-value."""
        return -self.worth.log10_evalue


def _is_sure(found: list[_Found]) -> bool:
    """Whether nothing better can be expected at another speed: what is told as another tempo may be one."""
    best = max(found, key=lambda one: one.score, default=None)
    return (
        best is not None and best.score >= SURE_SCORE and abs(best.stretch.line.slope - 1.0) <= CHANGED_TEMPO
    )


def _best(found: list[_Found]) -> float:
    """The highest score."""
    return max((one.score for one in found), default=-math.inf)


def _live(snapshot: Snapshot, without: Collection[int]) -> list[_Live]:
    gone = snapshot.removed.union(without)
    return [_Live(segment, gone) for segment in snapshot.segments if len(segment)]


class _Live:
    """A segment and which of its tracks can be found.

    Attributes
    ----------
    segment : Segment
    is_live : bool (t,) or None
        None where all can be found.
    n_valid : int
        Hashes that can be found.
    """

    def __init__(self, segment: Segment, removed: frozenset[int]) -> None:
        self.segment = segment
        self.n_valid = len(segment) - segment.n_invalid
        self.is_live: NDArray[np.bool_] | None = None
        if removed:
            gone = np.isin(segment.track_ids, np.fromiter(removed, np.int64, len(removed)))
            if gone.any():
                self.is_live = ~gone
                for k in np.flatnonzero(gone):
                    self.n_valid -= count_valid(
                        frozen(segment.hashes[segment.starts[k] : segment.starts[k + 1]])
                    )


def _sections(query: Query) -> list[slice]:
    """Overlapping sections with content; a query of up to 1.5 sections is one."""
    n = len(query)
    length = max(1, round(SECTION_S / query.hop_s))
    if n <= 1.5 * length:
        return [slice(0, n)]
    starts = range(0, max(1, n - length // 4), max(1, 3 * length // 4))
    cut = [slice(a, min(a + length, n)) for a in starts]
    return [s for s in cut if query.valid[s].any()]


def _lines(
    query: Query, sections: list[slice], live: list[_Live], exhaustive: bool
) -> Iterator[tuple[slice, Query, list[tuple[_Live, Lines]]]]:
    """Each section, its rows, and its lines, best first, in each segment; some sections' candidates at a time."""
    n_rows = sum(len(of.segment) for of in live)
    for _, group in groupby(sections, key=lambda section: int(section.start * query.hop_s / PAGE_S)):
        page = list(group)
        whole = slice(page[0].start, page[-1].stop)
        rows = query.slice(whole)
        rows.table, rows.power  # noqa: B018  # made once for all sections
        hits: list[Candidates | None] = []
        for of in live:
            scanned = exhaustive or not (of.segment.tables or len(sections) > 1)
            hits.append(None if scanned else _hits(of, rows))
        for section in page:
            part = rows.slice(slice(section.start - whole.start, section.stop - whole.start))
            slopes = slopes_for(part)
            found = []
            for of, near in zip(live, hits, strict=True):
                if near is None:
                    # an index of many small segments costs no more than one
                    share = max(FEWEST_LINES, SCANNED_LINES * len(of.segment) // n_rows)
                    lines: Lines | None = _scanned(of, part, slopes, share)
                else:
                    lines = _voted(of, part, slopes, near, section.start - whole.start)
                if lines is not None:
                    found.append((of, lines))
            yield section, part, found


def _scanned(of: _Live, part: Query, slopes: NDArray[np.float64], count: int) -> Lines:
    segment = of.segment
    most = math.ceil(SHARE_OF_TRACK * count)
    lines = scan(segment.hashes, segment.starts, part, slopes, count, most=most, is_live=of.is_live)
    return refine(lines, segment.hashes, part, shifts=shifts_for(SHIFT_S, part), turns=np.zeros(1))


def _hits(of: _Live, part: Query) -> Candidates:
    """Stored hashes near those of the query, in order of the query's rows."""
    hits = candidates(of.segment, part.hashes, part.confidence, part.valid, PROBES)
    if of.is_live is None:
        return hits
    live = of.is_live[of.segment.locate(hits.row)[0]]
    return Candidates(hits.query_i[live], hits.row[live], hits.distance[live])


def _voted(of: _Live, part: Query, slopes: NDArray[np.float64], hits: Candidates, first: int) -> Lines | None:
    """Lines through a part whose row 0 is the row `first` of those that the hits count from."""
    a, b = np.searchsorted(hits.query_i, [first, first + len(part)])
    if a == b:
        return None
    segment = of.segment
    count = VOTED_LINES if segment.tables else LONG_LINES
    near = (hits.query_i[a:b] - first, hits.row[a:b], hits.distance[a:b])
    lines = vote(part, segment.starts, *near, count, math.ceil(SHARE_OF_TRACK * count))
    lines = refine(lines, segment.hashes, part, shifts=shifts_for(SHIFT_S, part), turns=np.zeros(1))
    most = first_of_each(lines.first, math.ceil(SHARE_OF_TRACK * TURNED_LINES))
    turned = np.flatnonzero(most)[:TURNED_LINES]
    rest = np.setdiff1d(np.arange(len(lines)), turned)
    best = refine(
        lines.take(turned),
        segment.hashes,
        part,
        shifts=shifts_for(SHIFT_S / 2, part),
        turns=slopes - 1.0,
    )
    return best.joined(lines.take(rest)).ordered()


def _best_lines(lines: list[tuple[_Live, Lines]], part: Query, count: int) -> list[tuple[_Live, Line]]:
    """The best lines of all segments."""
    pairs = [
        (of, line) for of, found in lines for line in distinct(found, part, 2 * count, JUDGED_LINES_OF_TRACK)
    ]
    return sorted(pairs, key=lambda pair: -pair[1].score)[:count]
