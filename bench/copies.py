"""Which recordings of a manifest hold the same audio: found by comparing waveforms, without any fingerprint.

``python bench/copies.py MANIFEST OUT.csv`` compares every piece of music and speech with every other, in two steps.

*Finding* looks at the low band, 50 to 450 Hz at 1 kHz, which codecs leave alone. Every 10 s a probe of 4 s is cut out
of each recording, and its normalised cross-correlation with all those at least as long is taken at every lag. With
those of the same source or artist, which may share a single sentence or loop, probes of 1 s are compared too. Bass
notes, vowels and hum of one pitch agree there as well: of the lags found, few are of copies.

*Confirming* looks at what is above 500 Hz, second by second at the lags found. Two recordings are copies if one second
is the same, or if several are alike, as where a voice or an instrument was added to the same backing.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import scipy.fft
import soxr
from numba import njit
from numpy.typing import NDArray
from scipy.signal import butter, correlate, sosfilt, sosfiltfilt

from bench.corpus import ARTIST_COLUMNS, TRACK_KINDS, CorpusError, read_rows
from samaf.audio import SAMPLE_RATE, read_audio
from samaf.errors import AudioError, SamafError, shown

RATE = 1000
"""Samples per second of what is compared."""
BAND_HZ = (50.0, 450.0)
"""What copies are found in."""
HIGH_HZ = 500.0
"""They are confirmed by what is above."""
SAME = 0.8
"""Correlation of a second that is the same in both recordings. Seconds that only share a click reach 0.64."""
LIKE, FEWEST = 0.4, 5
"""So many seconds, each half a second after the one before, that correlate so well are enough. In 14 hours of music
and speech, pairs that share a loop or a backing had nine and more, all others none."""
SLACK_S = 0.01
"""How far from the lag a second may lie."""
COLUMNS = ("path_a", "path_b", "share", "lag_s", "alike")
TITLE_COLUMNS = ("title", "title_or_label")
"""Columns of a manifest with titles."""
SOURCE_COLUMNS = ("source", "source_repo")
"""Columns of a manifest that tell where a recording comes from."""

_BLOCK = 2**15
_TOGETHER = 8  # transforms at a time: they share the processor's vector registers
_APART = RATE // 4  # of near hits, only the best is kept
_LAGS, _LAGS_WHOLE = (
    40,
    3,
)  # of a pair, at most, are looked at under the probes, and along the whole recordings
_FAINT = 0.03  # of a recording's mean energy: fainter stretches are no probes, and agree with none

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Probes:
    """What is cut out of a recording and looked for in others.

    Attributes
    ----------
    length_s
        Of a probe.
    every_s
        From the start of one to that of the next.
    found
        Correlation of a probe, or its negative, at which a lag is looked at.
    """

    length_s: float
    every_s: float
    found: float

    @property
    def size(self) -> int:
        """Samples of a probe."""
        return round(self.length_s * RATE)


ANYWHERE = Probes(4.0, 10.0, 0.6)
"""Compared with all recordings."""
NEARBY = Probes(1.0, 0.5, 0.7)
"""Compared with those of the same source or artist."""


@dataclass(frozen=True)
class Copy:
    """Two recordings that hold the same audio; the columns of a table of copies.

    Attributes
    ----------
    path_a, path_b
        As in the manifest; `path_a` comes first in the alphabet.
    share
        Of the seconds of the shorter recording in which anything is heard, the share that is alike at the lag.
    lag_s
        What sounds in `path_a` at t sounds in `path_b` at t + lag_s.
    alike
        What the manifest says of both alike: ``title``, ``artist``, ``title artist`` or nothing. Only a hint.
    """

    path_a: str
    path_b: str
    share: float
    lag_s: float
    alike: str = ""


def read_copies(path: Path) -> dict[str, frozenset[str]]:
    """For each recording of a table of copies, all its copies.

    Raises
    ------
    CorpusError
        If the file cannot be read, or is no such table.
    """
    found: dict[str, set[str]] = defaultdict(set)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                found[row["path_a"]].add(row["path_b"])
                found[row["path_b"]].add(row["path_a"])
    except OSError as error:
        raise CorpusError(f"{shown(path)}: cannot be read ({error.strerror}); check the name") from None
    except (KeyError, UnicodeDecodeError, csv.Error):
        raise CorpusError(f"{shown(path)}: is no table of copies; make one with bench/copies.py") from None
    return {name: frozenset(others) for name, others in found.items()}


def write_copies(copies: Sequence[Copy], path: Path) -> None:
    """Write a table of copies."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(copy) for copy in copies)


def find_copies(
    names: Iterable[str],
    read: Callable[[str], Float32],
    progress: Progress = lambda what, done, total: None,
    *,
    akin: Iterable[Collection[str]] = (),
) -> list[Copy]:
    """The copies among recordings.

    Parameters
    ----------
    names
        Of the recordings.
    read
        Gives the samples of one, at 16 kHz; called several times for some.
    progress
        Called with (what is done, how many are, how many there are).
    akin
        Groups of recordings that may share short pieces.
    """
    names = list(names)
    bands = {}
    for number, name in enumerate(names, start=1):
        bands[name] = low_band(read(name))
        progress("recordings", number, len(names))
    names.sort(key=lambda name: (len(bands[name]), name))
    hits: dict[tuple[str, str], dict[int, _Hit]] = defaultdict(dict)
    searches = [(names, ANYWHERE)] + [([name for name in names if name in group], NEARBY) for group in akin]
    for some, probes in searches:
        for hit in _hits([bands[name] for name in some], probes, progress):
            of_pair = hits[some[hit.shorter], some[hit.longer]]
            if hit.lag not in of_pair or of_pair[hit.lag].height < hit.height:
                of_pair[hit.lag] = hit
    found = []
    for number, ((shorter, longer), of_pair) in enumerate(sorted(hits.items()), start=1):
        x, y = high_band(read(shorter)), high_band(read(longer))
        lag, heights = max(
            ((lag, at_lag(x, y, lag / RATE)) for lag in _likely(of_pair.values(), x, y)),
            key=lambda pair: _weight(pair[1]),
            default=(0, np.zeros(0, np.float32)),
        )
        if _weight(heights)[0]:
            share, lag_s = round(float((heights >= LIKE).mean()), 3), lag / RATE
            found.append(
                Copy(shorter, longer, share, lag_s)
                if shorter < longer
                else Copy(longer, shorter, share, -lag_s)
            )
        progress("pairs", number, len(hits))
    return sorted(found, key=lambda copy: (copy.path_a, copy.path_b))


def _likely(hits: Iterable[_Hit], x: Float32, y: Float32) -> list[int]:
    """Lags of a pair that the high bands under the probes do not rule out, the likeliest first."""
    under = {}
    for hit in sorted(hits, key=lambda hit: -hit.height)[:_LAGS]:
        start, stop = (SAMPLE_RATE * at // RATE for at in (hit.start, hit.start + hit.size))
        # the window of the band and that of the seconds need not lie alike: half a second more
        start = max(0, start - SAMPLE_RATE // 4)
        heights = at_lag(x[start : stop + SAMPLE_RATE // 4], y, hit.lag / RATE + start / SAMPLE_RATE)
        under[hit.lag] = float(heights.max(initial=0.0))
    return [lag for lag in sorted(under, key=lambda lag: -under[lag])[:_LAGS_WHOLE] if under[lag] >= LIKE]


def _weight(heights: Float32) -> tuple[bool, int, float]:
    """Whether seconds that correlate so well make copies; how many are alike; how well the best of them correlates."""
    count, best = int((heights >= LIKE).sum()), float(heights.max(initial=0.0))
    return best >= SAME or count >= FEWEST, count, best


def high_band(samples: Float32) -> Float32:
    """What is above the band that copies are found in, its treble raised, of 16 kHz samples."""
    if len(samples) < SAMPLE_RATE:
        return np.zeros(0, np.float32)
    high = sosfilt(butter(4, HIGH_HZ, "highpass", fs=SAMPLE_RATE, output="sos"), samples)
    return np.diff(high).astype(np.float32)


def at_lag(x: Float32, y: Float32, lag_s: float) -> Float32:
    """How well each second of a recording correlates with what lies `lag_s` further in another.

    Parameters
    ----------
    x, y
        Of both, the :func:`high_band`.
    lag_s
        May be wrong by :data:`SLACK_S`.

    Returns
    -------
    ndarray of float32, shape (n,)
        A value each half a second of `x` in which anything is heard; 0 where `y` has not begun or has ended.
    """
    second, slack, lag = SAMPLE_RATE, round(SLACK_S * SAMPLE_RATE), round(lag_s * SAMPLE_RATE)
    floors = [_FAINT * second * _mean_square(samples) + 1e-9 for samples in (x, y)]
    heights = []
    for start in range(0, len(x) - second + 1, second // 2):
        part = x[start : start + second]
        energy = float(part @ part)
        if energy < floors[0]:
            continue
        other = y[max(0, start + lag - slack) : max(0, start + lag + slack + second)]
        if len(other) < second:
            heights.append(0.0)
            continue
        total = np.concatenate([[0.0], np.cumsum(np.square(other, dtype=np.float64))])
        scale = np.sqrt(energy * np.maximum(total[second:] - total[:-second], floors[1]))
        heights.append(float(np.max(np.abs(correlate(other, part, "valid", "fft")) / scale)))
    return np.array(heights, np.float32)


def low_band(samples: Float32) -> Float32:
    """What is compared of 16 kHz samples: float32 at :data:`RATE`; nothing of less than a second."""
    low = soxr.resample(samples, SAMPLE_RATE, RATE, quality="HQ")
    if len(low) < RATE:
        return np.zeros(0, np.float32)
    return sosfiltfilt(butter(4, BAND_HZ, "bandpass", fs=RATE, output="sos"), low).astype(np.float32)


def probe_starts(band: Float32, probes: Probes) -> list[int]:
    """Where the probes of a recording begin: but where it is faint."""
    floor = _FAINT * probes.size * _mean_square(band) + 1e-9
    starts = range(0, len(band) - probes.size + 1, round(probes.every_s * RATE))
    parts = (band[start : start + probes.size] for start in starts)
    return [start for start, part in zip(starts, parts, strict=True) if float(part @ part) > floor]


def _mean_square(samples: Float32) -> float:
    return float(samples @ samples) / max(len(samples), 1)


# -- every probe against everything ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hit:
    """A probe of a recording agrees with what lies a lag further in one at least as long."""

    shorter: int
    longer: int
    start: int
    size: int
    lag: int
    height: float


class _Row:
    """Recordings one after another, each followed by silence as long as a probe, cut into transformed blocks.

    Attributes
    ----------
    starts
        First sample of each recording.
    scale
        One by the root of the energy of what lies under a probe that begins here.
    step
        Samples from the start of a block to that of the next, which it overlaps by a probe.
    spectra
        Of the blocks, by half.
    """

    def __init__(self, signals: Sequence[Float32], probe: int) -> None:
        self.step = _BLOCK - probe
        sizes = np.array([len(signal) + probe for signal in signals])
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        n_blocks = -(-int(sizes.sum()) // self.step)
        samples = np.zeros(n_blocks * self.step + probe, np.float32)
        floor = np.full(len(samples), np.inf)
        for start, signal in zip(self.starts.tolist(), signals, strict=True):
            samples[start : start + len(signal)] = signal
            floor[start : start + len(signal)] = max(_FAINT * probe * _mean_square(signal), 1e-9)
        total = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
        energy = (total[probe:] - total[:-probe])[: n_blocks * self.step]
        self.scale = (1.0 / np.sqrt(np.maximum(energy, floor[: len(energy)]))).astype(np.float32)
        blocks = [samples[k * self.step : k * self.step + _BLOCK] for k in range(n_blocks)]
        self.spectra = np.stack([scipy.fft.rfft(block) for block in blocks])


def _hits(signals: Sequence[Float32], probes: Probes, progress: Progress) -> Iterator[_Hit]:
    """All places where probes are found; `signals` from the shortest to the longest."""
    if len(signals) < 2:
        return
    row = _Row(signals, probes.size)
    cut = [(i, start) for i, signal in enumerate(signals[:-1]) for start in probe_starts(signal, probes)]
    products = np.empty((_TOGETHER, _BLOCK), np.complex64)
    place = np.empty(_BLOCK // _APART + 2, np.int64)
    height = np.empty(len(place), np.float32)
    for done in range(0, len(cut), 2 * _TOGETHER):
        group = cut[done : done + 2 * _TOGETHER]
        spectra = _reversed_spectra([signals[i][start : start + probes.size] for i, start in group])
        # only longer recordings are searched: each pair is met once
        first = [int(row.starts[i + 1]) for i, _ in group]
        for block in range(first[0] // row.step, len(row.spectra)):
            _multiply(row.spectra[block], spectra, products)
            both = scipy.fft.ifft(products, overwrite_x=True)
            begin = block * row.step
            scale = row.scale[begin : begin + row.step]
            for k, (i, start) in enumerate(group):
                part = both[k // 2].imag if k % 2 else both[k // 2].real
                for n in range(_peaks(part, scale, first[k] - begin, probes.found, _APART, place, height)):
                    at = begin + int(place[n])
                    j = int(np.searchsorted(row.starts, at, side="right")) - 1
                    yield _Hit(i, j, start, probes.size, at - int(row.starts[j]) - start, float(height[n]))
        progress(f"probes of {probes.length_s:g} s", min(done + 2 * _TOGETHER, len(cut)), len(cut))


def _reversed_spectra(probes: Sequence[Float32]) -> NDArray[np.complex64]:
    """Of probes of length 1, two in each row: one as the real part and one as the imaginary part of its signal."""
    pairs = np.zeros((_TOGETHER, _BLOCK), np.complex64)
    for k, probe in enumerate(probes):
        pairs[k // 2, -np.arange(len(probe))] += (1j if k % 2 else 1.0) * probe / np.sqrt(probe @ probe)
    return scipy.fft.fft(pairs)


@njit(cache=True, fastmath=True)
def _multiply(spectrum, probes, out):  # type: ignore[no-untyped-def]
    """Products of the spectrum of a real block, given by half, with those of complex signals."""
    n = out.shape[1]
    for b in range(out.shape[0]):
        for k in range(n // 2 + 1):
            out[b, k] = spectrum[k] * probes[b, k]
        for k in range(1, n // 2):
            out[b, n - k] = np.conj(spectrum[k]) * probes[b, n - k]


@njit(cache=True)
def _peaks(correlation, scale, first, least, apart, place, height):  # type: ignore[no-untyped-def]
    """Find where `correlation` reaches `least` from `first` on; of near ones, the best. Returns their number."""
    count, last = 0, 0
    for i in range(max(first, 0), len(scale)):
        value = abs(correlation[i]) * scale[i]
        if value >= least:
            if count and i - last < apart:
                if value > height[count - 1]:
                    place[count - 1], height[count - 1], last = i, value, i
            else:
                place[count], height[count], last = i, value, i
                count += 1
    return count


# -- the command -------------------------------------------------------------------------------------------------------


def _alike(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    """What two lines of a manifest have in common."""

    def same(columns: Sequence[str]) -> bool:
        return any(a.get(name) and a.get(name, "").lower() == b.get(name, "").lower() for name in columns)

    return " ".join(
        word for word, columns in (("title", TITLE_COLUMNS), ("artist", ARTIST_COLUMNS)) if same(columns)
    )


def _akin(rows: Mapping[str, Mapping[str, str]]) -> list[set[str]]:
    """Recordings of one source or artist, where the manifest tells them."""
    groups: dict[str, set[str]] = defaultdict(set)
    for columns in (SOURCE_COLUMNS, ARTIST_COLUMNS):
        for name, row in rows.items():
            label = next((row[column] for column in columns if row.get(column)), "")
            if label:
                groups[f"{columns[0]} {label.lower()}"].add(name)
    return list(groups.values())


def compare(manifest: Path, progress: Progress = lambda what, done, total: None) -> list[Copy]:
    """The copies among the music and speech of a manifest.

    Raises
    ------
    CorpusError
        If it cannot be read or lacks a column.
    """
    rows = {row["path"]: row for row in read_rows(manifest) if row["kind"] in TRACK_KINDS}

    def read(name: str) -> Float32:
        try:
            return read_audio(manifest.parent / name)
        except AudioError as error:
            print(f"left out: {error}", file=sys.stderr)
            return np.zeros(0, np.float32)

    return [
        replace(copy, alike=_alike(rows[copy.path_a], rows[copy.path_b]))
        for copy in find_copies(rows, read, progress, akin=_akin(rows))
    ]


def _show(what: str, done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{what}: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)


def main() -> int:
    """Compare, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help="a CSV with columns path, kind and split"
    )
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="the table to write")
    args = parser.parse_args()
    try:
        found = compare(args.manifest, _show)
    except SamafError as error:
        print(f"copies: {error}", file=sys.stderr)
        return 2
    write_copies(found, args.out)
    print(f"{len(found)} pairs of copies", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
