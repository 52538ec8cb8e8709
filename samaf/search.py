"""Search: a query -> aligned, verified candidates -> matches.

A query is taken in sections of some 10 s. Each section's candidate lines come from the inverted tables (hits that
vote for a line) or, in small segments and exhaustive mode, from a scan of every position. The best are re-ranked with
confidence, grown over the whole query as far as their bits agree, and held against the null model. Which of them
are matches, :mod:`samaf.match` decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samaf import settings
from samaf.alignment import DRIFT_S, Line, first_of_each, refine, scan, slopes_for
from samaf.errors import AudioError
from samaf.fingerprint import Fingerprint
from samaf.hamming import distance, frozen
from samaf.index import Index, Snapshot
from samaf.index.probe import Candidates, candidates
from samaf.index.segment import Segment, count_valid
from samaf.match import Match, check_limits, decide, power_of_ten
from samaf.significance import Competition, NullModel
from samaf.weights import Weights

SECTION_S = 10.0
"""Length of the sections that a long query is searched by; they overlap by half."""
PROBES = 16
"""Buckets looked into per band and query hash."""
SCANNED_LINES = 1000
FEWEST_LINES = 32
VOTED_LINES = 300
SHARE_OF_TRACK = 0.25
"""Share of the scanned or voted lines that one track may have: one that repeats itself must not hide all others."""
EVALUATED_LINES = 8
"""Lines of a section that are held against the null model."""
EVALUATED_LINES_OF_TRACK = 2
"""How many of them one track may have."""
CUT_BER = 0.42
"""Rows that agree better than this belong to a match when its ends are looked for."""
ALIKE = 5.0
"""Alignments that count as one test: neighbouring offsets share most of their evidence."""
RARER = 6.0
"""A changed tempo is this much rarer than an unchanged one: its E-value counts so often, and once per slope tried."""
VOTE_BIN_S = 0.5
SHIFT_S = 0.4
"""How far off a coarse line may lie."""
APART_S = 0.5
"""Lines of one track that lie no further apart are one."""

_WINDOW_S = 1.0


@dataclass(frozen=True)
class _Found:
    """A line with its verdict."""

    segment: Segment
    line: Line
    first_i: int
    last_i: int
    ber: float
    log10_evalue: float

    def runs_along(self, segment: Segment, line: Line, section: slice, query: _Query) -> bool:
        """Whether this match covers a section on the same line."""
        middle = (section.start + section.stop) / 2
        return (
            self.segment is segment
            and self.line.first == line.first
            and self.first_i <= section.start + query.ratio
            and self.last_i >= section.stop - 2 * query.ratio
            and abs(self.line.at(middle) - line.at(middle)) <= APART_S / query.hop_s
        )


class Searcher:
    """Searches one index, with the null model of its weights.

    Parameters
    ----------
    index
        Open index.
    weights
        The model the index was made with.

    Raises
    ------
    MismatchError
        If the index was made with another model.
    ModelError
        If the model was never calibrated.
    """

    def __init__(self, index: Index, weights: Weights) -> None:
        index.check_fits(model_id=weights.model_id)
        self.index = index
        self.null = NullModel(weights, index.header.bits)

    def search(
        self,
        query: Fingerprint,
        *,
        ber: float = settings.BER,
        max_evalue: float = settings.MAX_EVALUE,
        top: int = settings.TOP,
        exhaustive: bool = False,
    ) -> list[Match]:
        """Matches of a query, best first; none if nothing is good enough.

        Parameters
        ----------
        query
            With confidence and a hop that is a small part of the index's (``Encoder.encode_query``).
        ber
            Largest sequence BER of a match.
        max_evalue
            Largest expected number of matches by chance.
        top
            Largest number of matches for any stretch of the query.
        exhaustive
            Look at every position instead of the inverted tables' candidates.

        Returns
        -------
        list of Match
            One track may match several stretches of the query; its matches do not overlap.

        Raises
        ------
        MismatchError
            If the query was made with another model, or has fewer bits than the index.
        AudioError
            If no hash of the query is valid.
        """
        check_limits(ber, max_evalue, top)
        found = self.candidates(query, max_evalue=max_evalue, top=top, exhaustive=exhaustive)
        return decide(found, ber=ber, max_evalue=max_evalue, top=top)

    def candidates(
        self, query: Fingerprint, *, max_evalue: float, top: int, exhaustive: bool = False
    ) -> list[Match]:
        """What a query resembles, for :func:`samaf.match.decide` to choose from; arguments and errors as for `search`.

        Each is held against chance, not yet against the others; those that `max_evalue` will turn down are among
        them as far as they can be rivals of others.
        """
        header = self.index.header
        if query.bits > header.bits:
            query = query.truncated(header.bits)
        self.index.check_fits(model_id=query.model_id, bits=query.bits)
        if not query.valid.any():
            raise AudioError(
                "nothing to identify: the audio is silent, or has no content that a hash could hold"
            )
        work = _Query(query, self.null, header.hop_s)
        with self.index.snapshot() as snapshot:
            live = [_Live(segment, snapshot.removed) for segment in snapshot.segments if len(segment)]
            tests = work.ratio * sum(part.n_valid for part in live)
            found: list[_Found] = []
            limit = math.log10(max(1.0, max_evalue))
            for section in work.sections():
                judged = self._section(work, section, live, tests, exhaustive, top, found)
                found += [f for f in judged if f.log10_evalue <= limit]
            return [self._match(work, f, snapshot) for f in found]

    def _section(
        self,
        work: _Query,
        section: slice,
        live: list[_Live],
        tests: float,
        exhaustive: bool,
        top: int,
        known: list[_Found],
    ) -> list[_Found]:
        """Lines of one section, grown over the query and judged, less those that a known match runs along."""
        part = work.part(section)
        slopes = slopes_for(part.n, part.hop_s)
        lines: list[tuple[Segment, Line]] = []
        scores: list[float] = []
        n_rows = sum(len(of.segment) for of in live)

        def share(segment: Segment) -> int:
            """How many of the scanned lines a segment gets: an index of many small ones costs no more than one."""
            return max(FEWEST_LINES, SCANNED_LINES * len(segment) // n_rows)

        for of in live:
            segment = of.segment
            if exhaustive or not segment.tables:
                coarse = scan(
                    segment.hashes,
                    segment.starts,
                    part.hashes,
                    part.valid,
                    part.ratio,
                    slopes,
                    share(segment),
                    most=math.ceil(SHARE_OF_TRACK * share(segment)),
                    is_live=of.is_live,
                )
                turns = np.zeros(1)
            else:
                coarse, turns = _vote(of, part), slopes - 1.0
            fine = refine(
                coarse,
                segment.hashes,
                part.signed,
                part.ratio,
                shifts=_shifts(SHIFT_S, part.hop_s),
                turns=turns,
            )
            lines += [(segment, line) for line in _distinct(fine, part, 2 * EVALUATED_LINES)]
            best_of_track: dict[int, float] = {}
            for line in fine:
                best_of_track.setdefault(line.first, line.score)
            scores += best_of_track.values()
        competition = Competition(scores)
        lines.sort(key=lambda pair: -pair[1].score)
        whole = [
            (
                segment,
                Line(line.first, line.last, line.offset - line.slope * section.start, line.slope, line.score),
            )
            for segment, line in lines[: max(EVALUATED_LINES, 2 * top)]
        ]
        whole = [pair for pair in whole if not any(f.runs_along(*pair, section, work) for f in known)]
        tests /= ALIKE
        stretched = RARER * len(slopes)
        judged = (
            work.judge(segment, work.grow(segment, line, section), tests, stretched, competition)
            for segment, line in whole
        )
        return [f for f in judged if f is not None]

    def _match(self, work: _Query, found: _Found, snapshot: Snapshot) -> Match:
        line, hop_s = found.line, work.hop_s
        k = int(found.segment.locate(np.array([line.first]))[0][0])
        snapshot.check(found.segment, k)
        track = snapshot.track(int(found.segment.track_ids[k]))
        # rows tell where a match begins and ends to within a reference hop; at the ends of the query, of the
        # track and between rows it may reach further than the last row that agrees
        reach = work.ratio / line.slope
        first, last = float(found.first_i), float(found.last_i)
        if first - reach < 0:
            first = max(0.0, -line.offset / line.slope)
        if last + reach > work.n - 1:
            last = work.n - 1
        query_start_s, query_end_s = first * hop_s, last * hop_s + _WINDOW_S
        if last == work.n - 1:
            query_end_s = work.duration_s
        track_start_s = max(0.0, line.at(first) * hop_s)
        track_end_s = track_start_s + (query_end_s - query_start_s) * line.slope
        if track_end_s > track.duration_s:
            query_end_s -= (track_end_s - track.duration_s) / line.slope
            track_end_s = track.duration_s
        return Match(
            track_id=track.track_id,
            path=track.path,
            title=track.title,
            ber=found.ber,
            evalue=power_of_ten(found.log10_evalue),
            score=-found.log10_evalue,
            query_start_s=round(float(query_start_s), 3),
            query_end_s=round(float(query_end_s), 3),
            track_start_s=round(float(track_start_s), 3),
            track_end_s=round(float(track_end_s), 3),
            tempo=round(line.slope, 4),
        )


class _Query:
    """A query's rows with their weights, and what is done with lines through it."""

    def __init__(self, query: Fingerprint, null: NullModel, reference_hop_s: float) -> None:
        self.hashes = query.hashes
        self.valid = query.valid
        self.hop_s = query.hop_s
        self.reference_hop_s = reference_hop_s
        self.duration_s = query.duration_s
        self.ratio = reference_hop_s / query.hop_s
        self.n = len(query.hashes)
        self.null = null
        self.confidence = query.confidence
        self.signed = null.weigh(query.hashes, query.confidence, query.valid)

    def part(self, section: slice) -> _Query:
        """The rows of a section, as a query of its own."""
        part = object.__new__(_Query)
        part.__dict__.update(self.__dict__)
        for name in ("hashes", "valid", "signed", "confidence"):
            value = getattr(self, name)
            setattr(part, name, None if value is None else value[section])
        part.n = len(part.hashes)
        return part

    def sections(self) -> list[slice]:
        """Overlapping sections with content; a query of up to 1.5 sections is one."""
        length = max(1, round(SECTION_S / self.hop_s))
        if self.n <= 1.5 * length:
            return [slice(0, self.n)]
        starts = range(0, self.n - length // 2, max(1, length // 2))
        cut = [slice(a, min(a + length, self.n)) for a in starts]
        return [s for s in cut if self.valid[s].any()]

    def grow(self, segment: Segment, line: Line, section: slice) -> Line:
        """Follow a line over the rest of the query, its slope the finer the further it holds."""
        low, high = section.start, section.stop
        # the track is met between these query rows, a few more for what the line may turn
        first = max(0, int(-line.offset / line.slope) - round(1 / self.hop_s))
        end = self.ratio * (line.last - line.first) - line.offset
        stop = min(self.n, int(end / line.slope) + round(1 / self.hop_s))
        while low > first or high < stop:
            span = high - low
            new_low, new_high = max(first, low - span), min(stop, high + span)
            part = self.part(slice(new_low, new_high))
            moved = Line(line.first, line.last, line.at(new_low), line.slope, line.score)
            step = DRIFT_S / max(part.n * self.hop_s, 1e-9)
            turns = step * np.arange(-4.0, 5.0)
            [best] = refine(
                [moved],
                segment.hashes,
                part.signed,
                self.ratio,
                shifts=_shifts(SHIFT_S / 2, self.hop_s),
                turns=turns,
            ) or [moved]
            line = Line(line.first, line.last, best.offset - best.slope * new_low, best.slope, line.score)
            query_i, _, errors = self.rows(segment, line)
            extent = _extent(errors)
            low, high = new_low, new_high
            if not extent.stop or (
                query_i[extent.start] > new_low + self.ratio
                and query_i[extent.stop - 1] < new_high - self.ratio
            ):
                break
        return line

    def rows(
        self, segment: Segment, line: Line
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """(query rows, segment rows, BER of each) on a line, rows without content left out."""
        query_i, rows = line.rows(self.n, self.ratio)
        stored = segment.hashes[rows]
        real = self.valid[query_i] & stored.any(axis=1)
        query_i, rows = query_i[real], rows[real]
        errors = distance(self.hashes[query_i], stored[real]) / self.null.bits
        return query_i, rows, errors

    def judge(
        self, segment: Segment, line: Line, tests: float, stretched: float, competition: Competition
    ) -> _Found | None:
        """The stretch of a line that agrees, its BER and its E-value."""
        query_i, rows, errors = self.rows(segment, line)
        extent = _extent(errors)
        query_i, rows, errors = query_i[extent], rows[extent], errors[extent]
        if len(rows) == 0:
            return None
        signed = self.signed[query_i]
        agreement = self.null.agreement(signed, segment.hashes[rows])
        chance = self.null.log10_chance(agreement, signed, self.reference_hop_s)
        evalue = competition.log10_evalue(line.score, chance + math.log10(max(tests, 1.0)))
        if abs(line.slope - 1.0) > 0.5 * DRIFT_S / max(self.n * self.hop_s, 1.0):
            evalue += math.log10(stretched)
        return _Found(segment, line, int(query_i[0]), int(query_i[-1]), float(errors.mean()), evalue)


def _extent(errors: NDArray[np.float64]) -> slice:
    """The stretch of rows whose BER lies furthest, in sum, under :data:`CUT_BER` (all rows if none does)."""
    if len(errors) == 0:
        return slice(0, 0)
    total = np.concatenate([[0.0], np.cumsum(CUT_BER - errors)])
    gain = total - np.minimum.accumulate(total)
    stop = int(gain.argmax())
    if gain[stop] <= 0.0:
        return slice(0, len(errors))
    return slice(int(total[: stop + 1].argmin()), stop)


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


def _vote(of: _Live, part: _Query) -> list[Line]:
    """Lines of slope 1 that most hits of the inverted tables lie on."""
    segment = of.segment
    hits = candidates(segment, part.hashes, part.confidence, part.valid, PROBES)
    k, track_i = segment.locate(hits.row)
    if of.is_live is not None:
        live = of.is_live[k]
        k, track_i = k[live], track_i[live]
        hits = Candidates(hits.query_i[live], hits.row[live], hits.distance[live])
    if len(k) == 0:
        return []
    offset = part.ratio * track_i - hits.query_i
    width = VOTE_BIN_S / part.hop_s
    bins = np.floor(offset / width).astype(np.int64)
    weight = 32.0 * part.hashes.shape[1] - hits.distance
    low = int(bins.min())
    span = int(bins.max()) - low + 2
    key = k * span + bins - low
    keys, place = np.unique(key, return_inverse=True)
    votes = np.bincount(place, weight)
    centre = np.bincount(place, weight * offset) / votes
    order = np.argsort(-votes, kind="stable")
    top = order[first_of_each(keys[order] // span, math.ceil(SHARE_OF_TRACK * VOTED_LINES))][:VOTED_LINES]
    tracks = keys[top] // span
    return [
        Line(int(segment.starts[t]), int(segment.starts[t + 1]), float(np.rint(c)), 1.0, float(v))
        for t, c, v in zip(tracks, centre[top], votes[top], strict=True)
    ]


def _shifts(reach_s: float, hop_s: float) -> NDArray[np.float64]:
    """Offsets to try, in query hops: nine at most, to about `reach_s` each way."""
    reach = reach_s / hop_s
    steps = min(round(reach), 4)
    return np.linspace(-reach, reach, 2 * steps + 1) if steps else np.zeros(1)


def _distinct(lines: list[Line], part: _Query, count: int) -> list[Line]:
    """The first `count` lines that do not run beside one of the same track before them, a few of each track."""
    kept: list[Line] = []
    of_track: dict[int, list[Line]] = {}
    middle = part.n / 2
    for line in lines:
        others = of_track.setdefault(line.first, [])
        if len(others) < EVALUATED_LINES_OF_TRACK and all(
            abs(line.at(middle) - other.at(middle)) > APART_S / part.hop_s for other in others
        ):
            others.append(line)
            kept.append(line)
            if len(kept) == count:
                break
    return kept
