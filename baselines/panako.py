"""Panako: fingerprints of three event points that survive changes of speed, tempo and pitch.

Built from the description of Panako by Six and Leman ("Panako - a scalable acoustic fingerprinting system handling
time-scale and pitch modification", ISMIR 2014) and of its second version by Six ("Panako 2.0 - updates for an acoustic
fingerprinting system", ISMIR late-breaking demos 2021; "Panako: a scalable audio search system", Journal of Open
Source Software 2022). From the papers come the parts and their order:

- a constant-Q transform computed as a non-stationary Gabor transform, so that a change of pitch shifts the
  log-frequency axis and a change of tempo scales the time axis;
- event points, the transform's local maxima in time and frequency, found with a maximum filter;
- fingerprints of three event points, hashed by what neither shift nor scaling changes: the two frequency
  differences and the ratio of the time differences, with a coarse frequency of the first point;
- a store ordered by hash, in which a range of hashes is looked up, as noise moves points by a bin or a frame;
- matches that agree on one pitch shift and one line between query and reference time, whose slope is the time factor.

The sizes that the papers leave open are tuned; :class:`PanakoParameters` says which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, Float32, Match, Tables
from baselines.spectra import running_maximum
from samaf.hamming import frozen, kernel

_SAMPLE_RATE = 16000
_BLOCK = 1 << 17  # samples transformed at once: 8.2 s, whose bands fit the cache
_MARGIN = 1 << 13  # samples at both ends of a block that only serve as surroundings: 0.5 s
_SILENCE = 1e-5  # amplitude of a sine (-100 dBFS) under which a maximum is rounding noise
_NEUTRAL = 0.01  # factors that differ by less are the same: by a bin of pitch, or 50 ms in 5 s
_MOST_GROUPS = 100  # groups of matches whose lines are looked for
_ROUNDING = 1e-6  # frames
_FACTOR_STEP = 0.01  # between the time factors tried; half of it moves the ends of 5 s by 1.6 frames

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Float64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class PanakoParameters:
    """Settings of :class:`Panako`.

    The tuned ones were chosen on development music: 11 conditions of 5 s clips and 10 of 2 s clips, mostly the harder
    ones (noise down to -10 dB, rooms, re-recording, speed, tempo, pitch), 36 clips of each. In brackets stand the
    values tried, some with the mean top-1 at 5 s / 2 s that they gave in 10.6 hours; most steps move it by under two
    points. The store is held to about the size of the original's: 5.3 MB an hour against 4.8.

    Attributes
    ----------
    lowest_hz, octaves
        Range of the transform, 110 to 7040 Hz: six octaves are what 16 kHz hold. Not tuned.
    bins_per_octave
        Of the transform; 84 are 14 cents each. Tuned (48: 73 / 76 %, 60: 75 / 78 %, 84: 76 / 79 %).
    hop
        Samples between frames; 8 ms. Not tuned.
    bandwidth
        Standard deviation of a bin's Gaussian filter in distances of bins; 20 cents. Tuned (14, 20, 30, 40 cents).
    time_radius, frequency_radius
        An event point is the largest value up to so many frames and bins away; 96 ms and 5 semitones. Tuned (64, 96,
        144 ms; 3.6, 5, 7 semitones).
    shortest_gap, longest_gap
        Frames between successive points of a fingerprint. Tuned (2, 4, 8; 60, 90: 75 / 78 %, 120: 76 / 79 %).
    reach
        Bins between any two points of a fingerprint, at most; an octave. Tuned (2/3, 1, 5/4, 3/2 octaves).
    fan_out
        Following points with which a point is combined, two at a time. Tuned: 6 gives 78 / 82 % where 5 gives
        77 / 80 %, but takes 45 % more room.
    ratio_levels
        Quantisation of the ratio of time differences. Tuned (48, 64).
    ratio_tolerance, bin_tolerance
        Levels of the ratio, and bins of each frequency difference, that a lookup forgives. Near-exact hashing is
        Panako 2's; its width is tuned (0, 1, 2; 0, 1).
    slowest, fastest
        Range of time factors, and of pitch factors too. As the original was set for the comparison, 0.8 to 1.2.
    factor_tolerance
        Relative difference forgiven between a fingerprint's own time factor and the line's. Tuned (0.05, 0.1, none).
    line_tolerance
        Frames between a matching fingerprint and the line, at most. Tuned (3, 4, 6).
    minimum_aligned
        Points on the line from which on an answer is accepted. Tuned: 0, 0, 0 and 1.5 % of 200 clips of unknown music
        of 1, 2, 5 and 10 s are answered, where the original answers none.
    minimum_s
        Seconds that a clip must last: the shortest line that the original accepts.
    """

    lowest_hz: float = 110.0
    octaves: int = 6
    bins_per_octave: int = 84
    hop: int = 128
    bandwidth: float = 1.4
    time_radius: int = 12
    frequency_radius: int = 35
    shortest_gap: int = 2
    longest_gap: int = 120
    reach: int = 84
    fan_out: int = 5
    ratio_levels: int = 64
    ratio_tolerance: int = 1
    bin_tolerance: int = 1
    slowest: float = 0.8
    fastest: float = 1.2
    factor_tolerance: float = 0.1
    line_tolerance: float = 3.0
    minimum_aligned: int = 10
    minimum_s: float = 1.0

    def __post_init__(self) -> None:
        if _MARGIN % self.hop:
            raise ValueError(
                f"blocks are not cut at whole frames: hop must be a power of two up to {_MARGIN}"
            )
        if 2 * self.longest_gap > 255:
            raise ValueError("a byte holds spans of up to 255 frames: longest_gap is at most 127")
        if self.octaves * (2 * self.reach + 1) ** 2 * self.ratio_levels > 2**32:
            raise ValueError("hashes are of 32 bits: reach or ratio_levels is too large")

    @property
    def bins(self) -> int:
        """Bins of the transform."""
        return self.octaves * self.bins_per_octave

    @property
    def largest_shift(self) -> int:
        """Bins by which a change of pitch within the range of factors moves a point, at most."""
        largest = max(-math.log2(self.slowest), math.log2(self.fastest))
        return math.ceil(self.bins_per_octave * largest)


class EventPoints(NamedTuple):
    """Local maxima of the transform, in the order of time.

    Attributes
    ----------
    times : int32 (n,)
        Frames; frame i is centred at sample i * hop.
    bins : int32 (n,)
        Of log-frequency.
    """

    times: Int32
    bins: Int32


_NO_POINTS = EventPoints(np.empty(0, np.int32), np.empty(0, np.int32))


class Fingerprints(NamedTuple):
    """Triples of event points, a row each.

    A change of pitch adds a constant to :attr:`bins`; a change of tempo scales :attr:`times` and :attr:`spans`. The
    other parts stay.

    Attributes
    ----------
    times, bins : int32 (n,)
        Of the first point.
    steps : int32 (n, 2)
        Frequency differences in bins: second less first, third less second.
    ratios : int32 (n,)
        Time from the first to the second point over that from the first to the third, quantised.
    spans : int32 (n,)
        Frames from the first to the third point.
    """

    times: Int32
    bins: Int32
    steps: Int32
    ratios: Int32
    spans: Int32


class Panako(Baseline):
    """Fingerprints of three event points, of all tracks in the order of their hashes.

    The score is the number of the clip's event points that are the first of a fingerprint on the best line; a fraction
    breaks ties by the number of fingerprints.

    Parameters
    ----------
    parameters : PanakoParameters, optional
    """

    name: ClassVar[str] = "panako"
    sample_rate: ClassVar[int] = _SAMPLE_RATE
    Parameters: ClassVar[type] = PanakoParameters
    parameters: PanakoParameters

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self._starts: list[int] = []  # first frame of each track on the common time line
        self._end = 0  # frame after the last track
        self._stored = _columns(fingerprints(_NO_POINTS, self.parameters), self.parameters, 0)
        self._added: list[Tables] = []  # since the last sorting

    def add(self, track_id: str, samples: Float32) -> None:
        """Fingerprint a track and store it under `track_id`."""
        found = fingerprints(event_points(samples, self.parameters), self.parameters)
        self.tracks.append(track_id)
        self._starts.append(self._end)
        self._added.append(_columns(found, self.parameters, self._end))
        self._end += len(samples) // self.parameters.hop + 1

    def query(self, samples: Float32) -> Match | None:
        """The best candidate for a clip; None under the minimum length, and where no fingerprint is in the store."""
        p = self.parameters
        if len(samples) < p.minimum_s * self.sample_rate:
            return None
        line = _best_line(self._hits(fingerprints(event_points(samples, p), p)), p)
        if line is None:
            return None
        speed, tempo, pitch_cents = changes(line.factor, 2 ** (line.shift / p.bins_per_octave))
        return Match(
            track_id=self.tracks[line.track],
            offset_s=line.start * p.hop / self.sample_rate,
            score=line.score,
            accepted=line.score >= p.minimum_aligned,
            speed=speed,
            tempo=tempo,
            pitch_cents=pitch_cents,
        )

    def tables(self) -> Tables:
        """The columns of the fingerprints, in the order of the hashes, and the frames at which tracks start and end."""
        self.settle()
        return self._stored | {"starts": np.array([*self._starts, self._end], np.uint32)}

    def restore(self, tables: Tables) -> None:
        """Take back what :meth:`tables` gave."""
        *self._starts, self._end = map(int, tables["starts"])
        self._stored = {column: frozen(tables[column]) for column in self._stored}
        self._added = []

    def settle(self) -> None:
        """Sort in what has been added."""
        if self._added:
            parts = [self._stored, *self._added]
            columns = {column: np.concatenate([part[column] for part in parts]) for column in self._stored}
            order = np.argsort(columns["hashes"], kind="stable")
            self._stored = {column: frozen(values[order]) for column, values in columns.items()}
            self._added = []

    def _hits(self, clip: Fingerprints) -> _Hits:
        """All stored fingerprints that a clip's are taken for."""
        self.settle()
        p, stored = self.parameters, self._stored
        ranges = _ranges(
            stored["hashes"],
            clip,
            p.octaves,
            p.bins_per_octave,
            p.largest_shift,
            p.reach,
            p.ratio_levels,
            p.ratio_tolerance,
            p.bin_tolerance,
        )
        _, points = np.unique(clip.times.astype(np.int64) * p.bins + clip.bins, return_inverse=True)
        return _Hits(
            *_collect(
                *ranges,
                clip,
                points,
                stored["frames"],
                stored["bins"],
                stored["spans"],
                np.array(self._starts, np.int64),
                p.largest_shift,
                p.slowest * (1 - p.factor_tolerance),
                p.fastest * (1 + p.factor_tolerance),
            )
        )


def constant_q(samples: Float32, parameters: PanakoParameters) -> Float32:
    """Magnitudes of a constant-Q transform, as a non-stationary Gabor transform.

    Each bin is the spectrum of the whole block under a Gaussian, folded to the length that one value a hop needs, and
    transformed back (Velasco, Holighaus, Dörfler and Grill, "Constructing an invertible constant-Q transform with
    non-stationary Gabor frames", DAFx 2011; the transform that Panako 2 uses). The block is taken as periodic.

    Parameters
    ----------
    samples : float32 (n,)
        At 16 kHz; `n` a multiple of the hop.
    parameters
        Range, resolution and hop of the transform.

    Returns
    -------
    float32 (bins, n / hop)
        A sine of amplitude 1 has magnitude 1. Frame i is centred at sample i * hop.
    """
    p = parameters
    steps = np.arange(p.bins) / p.bins_per_octave
    centres = p.lowest_hz * 2**steps * len(samples) / _SAMPLE_RATE
    widths = centres * (2 ** (1 / p.bins_per_octave) - 1) * p.bandwidth
    spectrum = np.fft.rfft(samples) * np.float32(2 / p.hop)
    folded = np.zeros((p.bins, len(samples) // p.hop), np.complex64)
    _filter_bank(spectrum, centres, widths, folded)
    return np.abs(np.fft.ifft(folded, axis=1))


def event_points(samples: Float32, parameters: PanakoParameters) -> EventPoints:
    """Local maxima of the constant-Q transform of `samples`, float32 (n,) at 16 kHz."""
    p = parameters
    step = _BLOCK - 2 * _MARGIN
    found = [_NO_POINTS]
    for start in range(0, len(samples), step):
        before = min(start, _MARGIN)
        chunk = samples[start - before : start + step + _MARGIN]
        block = np.zeros(_BLOCK, np.float32)
        block[_MARGIN - before : _MARGIN - before + len(chunk)] = chunk
        values = constant_q(block, p)
        highest = running_maximum(running_maximum(values, p.frequency_radius, axis=0), p.time_radius, axis=1)
        peaks = (values == highest) & (values > _SILENCE)
        inner = peaks[:, _MARGIN // p.hop : (_MARGIN + min(step, len(samples) - start) - 1) // p.hop + 1]
        times, bins = np.nonzero(inner.T)
        found.append(EventPoints((times + start // p.hop).astype(np.int32), bins.astype(np.int32)))
    return EventPoints(*map(np.concatenate, zip(*found, strict=True)))


def fingerprints(points: EventPoints, parameters: PanakoParameters) -> Fingerprints:
    """Combine event points, in the order of time, into threes.

    Each point is combined, two at a time, with the first points that follow it within the longest gaps and in reach,
    where the third point is in reach of the second too.
    """
    p = parameters
    threes = np.empty((len(points.times) * math.comb(p.fan_out, 2), 3), np.int64)
    count = _combine(points, p.shortest_gap, p.longest_gap, p.reach, p.fan_out, threes)
    return describe(points, threes[:count], p)


def describe(points: EventPoints, threes: Int64, parameters: PanakoParameters) -> Fingerprints:
    """The fingerprints of given threes: rows of positions in `points`, int64 (n, 3), in the order of time."""
    times, bins = points.times[threes], points.bins[threes]
    spans = times[:, 2] - times[:, 0]
    ratios = (times[:, 1] - times[:, 0]) * parameters.ratio_levels // spans
    return Fingerprints(times[:, 0].copy(), bins[:, 0].copy(), np.diff(bins, axis=1), ratios, spans)


def changes(time_factor: float, pitch_factor: float) -> tuple[float, float, float]:
    """Speed, tempo and pitch in cents that explain two factors with the fewest values off neutral."""

    def same(a: float, b: float) -> bool:
        return abs(math.log(a / b)) <= _NEUTRAL

    if same(time_factor, pitch_factor) and not (same(time_factor, 1) and same(pitch_factor, 1)):
        return time_factor, 1.0, 0.0
    tempo = 1.0 if same(time_factor, 1) else time_factor
    pitch_cents = 0.0 if same(pitch_factor, 1) else 1200 * math.log2(pitch_factor)
    return 1.0, tempo, pitch_cents


class _Hits(NamedTuple):
    """Stored fingerprints that a clip's were taken for, a row each."""

    tracks: NDArray[np.int64]
    shifts: Int64  # bins by which the clip's lies higher
    factors: Float64  # span of the stored one over that of the clip's
    clip_times: Float64  # frames
    track_times: Float64  # frames from the track's start
    points: Int64  # first event point of the clip's fingerprint


class _Line(NamedTuple):
    """A straight line in the plane of clip time and track time on which hits lie."""

    track: int
    start: float  # frame of the track at the clip's first sample
    factor: float
    shift: float  # bins
    score: float


def _best_line(hits: _Hits, p: PanakoParameters) -> _Line | None:
    """The line with the most points of the clip, over all tracks and pitch shifts; None without hits.

    Hits of one line share their shift up to a bin to either side. Such groups are tried from the largest down to the
    one that could not win any more.
    """
    groups = hits.tracks * (2 * p.largest_shift + 3) + hits.shifts  # no two tracks' groups are neighbours
    order = np.argsort(groups, kind="stable")
    hits = _Hits._make(column[order] for column in hits)
    groups = groups[order]
    centres = np.unique(groups)
    first = np.searchsorted(groups, centres - 1, side="left")
    last = np.searchsorted(groups, centres + 1, side="right")
    best = None
    for i in np.argsort(first - last, kind="stable")[:_MOST_GROUPS]:
        if best is not None and last[i] - first[i] <= best.score:
            break
        line = _line(_Hits._make(column[first[i] : last[i]] for column in hits), p)
        if line is not None and (best is None or line.score > best.score):
            best = line
    return best


def _line(hits: _Hits, p: PanakoParameters) -> _Line | None:
    """The line through one track's hits of nearly one shift that passes the most points of the clip.

    The score counts these points, not hits: music repeats itself, and a point that is the first of many fingerprints
    is but one observation. The hits give a fraction that breaks ties. None where no hit agrees with a factor tried.
    """
    count = round((p.fastest - p.slowest) / _FACTOR_STEP) + 1
    factors = np.linspace(p.slowest, p.fastest, count)
    points, factor, lowest = _scan_lines(hits, factors, p.factor_tolerance, 2 * p.line_tolerance)
    if not points:
        return None
    rest = hits.track_times - factor * hits.clip_times
    agree = np.abs(hits.factors / factor - 1) <= p.factor_tolerance
    on = agree & (np.abs(rest - lowest - p.line_tolerance) <= p.line_tolerance + _ROUNDING)
    times = hits.clip_times[on]
    spread = times.var()
    steeper = np.mean((times - times.mean()) * rest[on]) / spread if spread > 0 else 0.0  # least squares
    slope = factor + min(max(steeper, -_FACTOR_STEP), _FACTOR_STEP)  # a short line says little of its slope
    return _Line(
        track=int(hits.tracks[0]),
        start=float(np.mean(hits.track_times[on] - slope * times)),
        factor=float(slope),
        shift=float(np.mean(hits.shifts[on])),
        score=float(points + 1 - points / np.count_nonzero(on)),
    )


def _columns(found: Fingerprints, p: PanakoParameters, start: int) -> Tables:
    """What is stored of a track's fingerprints, which starts at frame `start` of the common time line."""
    return {
        "hashes": _hashes(found, p.bins_per_octave, p.reach, p.ratio_levels),
        "frames": (found.times.astype(np.int64) + start).astype(np.uint32),
        "bins": found.bins.astype(np.uint16),
        "spans": found.spans.astype(np.uint8),
    }


@kernel
def _filter_bank(spectrum, centres, widths, out):  # type: ignore[no-untyped-def]
    bands, frames = out.shape
    for band in range(bands):
        reach = 3.5 * widths[band]
        first = max(0, int(centres[band] - reach))
        last = min(len(spectrum), int(centres[band] + reach) + 2)
        for k in range(first, last):
            z = (k - centres[band]) / widths[band]
            out[band, k % frames] += spectrum[k] * np.float32(np.exp(-0.5 * z * z))


@kernel
def _combine(points, shortest, longest, reach, fan_out, out):  # type: ignore[no-untyped-def]
    times, bins = points
    count = 0
    near = np.empty(fan_out, np.int64)
    for i in range(len(times)):
        found = 0
        for j in range(i + 1, len(times)):
            gap = times[j] - times[i]
            if gap > 2 * longest or found == fan_out:
                break
            if gap >= shortest and abs(bins[j] - bins[i]) <= reach:
                near[found] = j
                found += 1
        for a in range(found):
            j = near[a]
            if times[j] - times[i] > longest:
                break
            for k in near[a + 1 : found]:
                if shortest <= times[k] - times[j] <= longest and abs(bins[k] - bins[j]) <= reach:
                    out[count, 0] = i
                    out[count, 1] = j
                    out[count, 2] = k
                    count += 1
    return count


@kernel
def _hash(octave, step, next_step, ratio, reach, levels):  # type: ignore[no-untyped-def]
    # The ratio comes last: its neighbours are then a range of hashes.
    side = 2 * reach + 1
    return ((octave * side + step + reach) * side + next_step + reach) * levels + ratio


@kernel
def _position(hashes, value):  # type: ignore[no-untyped-def]
    first = 0
    last = len(hashes)
    while first < last:
        middle = (first + last) // 2
        if hashes[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def _hashes(found, octave, reach, levels):  # type: ignore[no-untyped-def]
    out = np.empty(len(found.bins), np.uint32)
    for i in range(len(out)):
        step, next_step = found.steps[i]
        out[i] = _hash(found.bins[i] // octave, step, next_step, found.ratios[i], reach, levels)
    return out


@kernel
def _ranges(hashes, clip, octaves, octave, shift, reach, levels, ratio_tolerance, bin_tolerance):  # type: ignore[no-untyped-def]
    cells = 2 * shift // octave + 2
    most = len(clip.bins) * cells * (2 * bin_tolerance + 1) ** 2
    firsts = np.empty(most, np.int64)
    lasts = np.empty(most, np.int64)
    rows = np.empty(most, np.int64)
    count = 0
    for i in range(len(clip.bins)):
        low = max(clip.ratios[i] - ratio_tolerance, 0)
        high = min(clip.ratios[i] + ratio_tolerance, levels - 1)
        step, next_step = clip.steps[i]
        lowest = max(clip.bins[i] - shift, 0) // octave
        highest = min((clip.bins[i] + shift) // octave, octaves - 1)
        for cell in range(lowest, highest + 1):
            for a in range(max(step - bin_tolerance, -reach), min(step + bin_tolerance, reach) + 1):
                for b in range(
                    max(next_step - bin_tolerance, -reach), min(next_step + bin_tolerance, reach) + 1
                ):
                    first = _position(hashes, _hash(cell, a, b, low, reach, levels))
                    last = _position(hashes, _hash(cell, a, b, high, reach, levels) + 1)
                    if last > first:
                        firsts[count] = first
                        lasts[count] = last
                        rows[count] = i
                        count += 1
    return firsts[:count], lasts[:count], rows[:count]


@kernel
def _collect(  # type: ignore[no-untyped-def]
    firsts,
    lasts,
    rows,
    clip,
    points,
    stored_frames,
    stored_bins,
    stored_spans,
    starts,
    shift,
    slowest,
    fastest,
):
    most = (lasts - firsts).sum()
    tracks = np.empty(most, np.int64)
    shifts = np.empty(most, np.int64)
    factors = np.empty(most, np.float64)
    clip_times = np.empty(most, np.float64)
    track_times = np.empty(most, np.float64)
    seen = np.empty(most, np.int64)
    count = 0
    for r in range(len(rows)):
        row = rows[r]
        for at in range(firsts[r], lasts[r]):
            higher = clip.bins[row] - np.int64(stored_bins[at])
            factor = stored_spans[at] / clip.spans[row]
            if abs(higher) <= shift and slowest <= factor <= fastest:
                frame = np.int64(stored_frames[at])
                track = np.searchsorted(starts, frame, side="right") - 1
                tracks[count] = track
                shifts[count] = higher
                factors[count] = factor
                clip_times[count] = clip.times[row]
                track_times[count] = frame - starts[track]
                seen[count] = points[row]
                count += 1
    return (
        tracks[:count],
        shifts[:count],
        factors[:count],
        clip_times[:count],
        track_times[:count],
        seen[:count],
    )


@kernel
def _scan_lines(hits, factors, factor_tolerance, width):  # type: ignore[no-untyped-def]
    """The factor and the lower edge of the band of lines, `width` wide, that holds the most distinct points.

    Of several the one whose hits need the narrowest band.
    """
    n = len(hits.points)
    most = 0
    narrowest = np.inf
    best_factor = 1.0
    best_edge = 0.0
    present = np.zeros(hits.points.max() + 1, np.int64)  # hits of each point in the band
    rest = np.empty(n, np.float64)
    rows = np.empty(n, np.int64)
    for factor in factors:
        agreeing = 0
        for i in range(n):
            if abs(hits.factors[i] / factor - 1) <= factor_tolerance:
                rest[agreeing] = hits.track_times[i] - factor * hits.clip_times[i]
                rows[agreeing] = hits.points[i]
                agreeing += 1
        if agreeing < most:
            continue
        order = np.argsort(rest[:agreeing])
        low = 0
        distinct = 0
        for high in order:
            present[rows[high]] += 1
            distinct += present[rows[high]] == 1
            while rest[high] - rest[order[low]] > width:
                present[rows[order[low]]] -= 1
                distinct -= present[rows[order[low]]] == 0
                low += 1
            needed = rest[high] - rest[order[low]]
            if distinct > most or (distinct == most and needed < narrowest):
                most = distinct
                narrowest = needed
                best_factor = factor
                best_edge = rest[order[low]]
        for i in rows[:agreeing]:
            present[i] = 0
    return most, best_factor, best_edge
