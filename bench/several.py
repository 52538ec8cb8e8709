"""What samaf says of clips that hold more than one recording of its library, or none.

Four trials on the recordings of one split, among a library of all::

    python bench/several.py --manifest audio/manifest.csv --split check --copies bench/copies.csv

- *Copies*: altered copies of some recordings join the library. Clips of 5 s of the originals should name both, as
  copies of each other, and call nothing else a copy.
- *Mixes*: two recordings at once. Both should be named, and nothing else.
- *Pieces*: long programmes are searched as a whole and cut every 10 s. What is told of a piece with a probability of
  0.99 or more should be told of that part of the whole; if a recording repeats itself, perhaps at another place of it.
- *Sounds*: noise, hum, tones, sweeps, clicks and drum loops. None should be named.

A recording that holds the same audio as one that is heard, by the table of copies, is neither right nor wrong.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

os.environ |= {"OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout without installation

import numpy as np
import soundfile
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from bench.copies import read_copies
from bench.corpus import TRACK_KINDS, Materials, Pool, Recording, read_pool
from bench.degrade import apply, parse
from bench.effects import rms
from samaf import Library, Match, SamafError
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError
from samaf.settings import processors

CLIP_S = 5.0
PLANTED_CONDITIONS = ("clean", "noise5")
ALTERED = ("encoded", "trimmed", "louder", "faster")
TRIMMED_S = (0.1, 0.9)
SPEED = 0.01
LOUDER = 2.0
MIX_LENGTHS_S, MIX_DB = (5.0, 10.0), (0.0, 3.0, 6.0)
PIECE_S, PARTS, PART_S = 10.0, 8, (15.0, 45.0)
PROGRAMME_CONDITION = "noise10"
SURE = 0.99
WITHIN_S = 1.0
"""By as much a match may reach over one that it lies in."""
SOUND_LENGTHS_S = (2.0, 5.0, 10.0)

Float32 = NDArray[np.float32]
Copies = Mapping[str, Collection[str]]
Task = TypeVar("Task")


@dataclass(frozen=True)
class Setup:
    """What the trials have in common; `names` are the recordings' ids by the library's track ids."""

    library: Library
    names: Mapping[int, str]
    pool: Pool
    copies: Copies
    jobs: int

    def same(self, name: str) -> set[str]:
        """A recording and all that hold the same audio."""
        return {name, *self.copies.get(name, ())}

    def search(self, samples: Float32) -> list[tuple[str, Match]]:
        """(recording, match) of all that is named; nothing where samaf refuses to search."""
        try:
            return [(self.names[match.track_id], match) for match in self.library.search(samples)]
        except AudioError:
            return []

    def excerpt(self, track: Recording, length_s: float, rng: Generator) -> Float32:
        """So many seconds that are not silent, or anything after twenty tries."""
        for _ in range(20):
            start_s = float(rng.uniform(1.0, track.duration_s - length_s - 1.0))
            x = track.read(start_s, start_s + length_s)
            if rms(x.astype(np.float64)) > 1e-3:
                break
        return x

    def long(self, length_s: float, rng: Generator) -> list[Recording]:
        """Recordings of the split in which such an excerpt can be moved, in random order."""
        fit = [track for track in self.pool.tracks if track.duration_s > length_s + 3.0]
        return [fit[k] for k in rng.permutation(len(fit))]


def planted(setup: Setup, originals: Sequence[Recording], per_copy: int, seed: int) -> Iterator[str]:
    """Both of a recording and its planted copy, told as copies."""
    tasks = list(product(range(len(originals)), range(per_copy), PLANTED_CONDITIONS))

    def ask(task: tuple[int, int, str]) -> tuple[str, Sequence[int]]:
        k, number, condition = task
        original = originals[k]
        clip = setup.excerpt(original, CLIP_S, np.random.default_rng([seed, 1, k, number]))
        found = setup.search(_spoilt(clip, condition, setup.pool.materials, [seed, 2, k, number]))
        named = dict(found)
        both = {original.id, _copy_of(original.id)}
        tied = any(named[name].copies_of is not None for name in both & named.keys())
        own = {*setup.same(original.id), _copy_of(original.id)}
        false = [match for name, match in found if name not in own]
        return condition, [
            both <= named.keys(),
            both <= named.keys() and tied,
            any(match.copies_of is not None for match in false),
        ]

    yield f"{'copies':10}{'clips':>7}{'both named':>12}{'as copies':>11}{'another called a copy':>23}"
    for condition, values in _by_group(setup.jobs, ask, tasks):
        both, tied, false = values.mean(axis=0)
        yield f"{condition:10}{len(values):7}{both:12.1%}{tied:11.1%}{int(values[:, 2].sum()):10} ({false:.2%})"


def mixes(setup: Setup, per_cell: int, seed: int) -> Iterator[str]:
    """Two recordings at once."""
    tasks = list(product(MIX_LENGTHS_S, MIX_DB, range(per_cell)))

    def ask(task: tuple[float, float, int]) -> tuple[str, Sequence[int]]:
        length_s, decibel, number = task
        rng = np.random.default_rng([seed, 3, round(length_s), round(decibel), number])
        tracks = setup.long(length_s, rng)
        first = tracks[0]
        second = next(track for track in tracks if track.id not in setup.same(first.id))
        a, b = (setup.excerpt(track, length_s, rng) for track in (first, second))
        quiet = 10.0 ** (-decibel / 20.0) * (rms(a.astype(np.float64)) / max(rms(b.astype(np.float64)), 1e-9))
        named = {name for name, _ in setup.search((0.5 * (a + np.float32(quiet) * b)).astype(np.float32))}
        heard = [bool(named & setup.same(track.id)) for track in (first, second)]
        other = bool(named - setup.same(first.id) - setup.same(second.id))
        return f"{length_s:g} s, {decibel:g} dB", [all(heard), heard[0], heard[1], other]

    yield f"{'mixes':14}{'clips':>7}{'both named':>12}{'the louder':>12}{'the quieter':>13}{'another':>9}"
    for cell, values in _by_group(setup.jobs, ask, tasks):
        both, louder, quieter, other = values.mean(axis=0)
        yield f"{cell:14}{len(values):7}{both:12.1%}{louder:12.1%}{quieter:13.1%}{other:9.1%}"


def pieces(setup: Setup, programmes: int, seed: int) -> Iterator[str]:
    """A programme as a whole, and cut every 10 s."""

    def ask(number: int) -> tuple[str, Sequence[int]]:
        rng = np.random.default_rng([seed, 4, number])
        tracks = setup.long(PART_S[0], rng)[:PARTS]
        parts = [
            setup.excerpt(track, min(float(rng.uniform(*PART_S)), track.duration_s - 3.0), rng)
            for track in tracks
        ]
        whole = _spoilt(np.concatenate(parts), PROGRAMME_CONDITION, setup.pool.materials, [seed, 5, number])
        of_whole = [match for _, match in setup.search(whole)]
        step = round(PIECE_S * SAMPLE_RATE)
        told = [
            shifted(match, at / SAMPLE_RATE)
            for at in range(0, len(whole) - step + 1, step)
            for _, match in setup.search(whole[at : at + step])
            if match.probability >= SURE
        ]
        inside = [any(lies_in(match, other) for other in of_whole) for match in told]
        in_place = [any(lies_in(match, other, in_track=True) for other in of_whole) for match in told]
        return "", [len(told), sum(inside), sum(in_place)]

    yield f"{'pieces':10}{'programmes':>11}{'sure matches':>14}{'inside':>9}{'at its place':>14}"
    for _, values in _by_group(setup.jobs, ask, range(programmes)):
        _, inside, in_place = values.sum(axis=0) / max(values[:, 0].sum(), 1)
        yield f"{'':10}{len(values):11}{values[:, 0].sum():14}{inside:9.1%}{in_place:14.1%}"


def shifted(match: Match, seconds: float) -> Match:
    """The same match in a query that began so much earlier."""
    start_s, end_s = match.query_start_s + seconds, match.query_end_s + seconds
    return replace(match, query_start_s=start_s, query_end_s=end_s)


def lies_in(match: Match, whole: Match, *, in_track: bool = False) -> bool:
    """Whether a match lies inside another of the same recording; if it is to, at the same place of the recording."""
    lags_s = [one.track_start_s - one.query_start_s for one in (match, whole)]
    return (
        match.track_id == whole.track_id
        and whole.query_start_s - WITHIN_S <= match.query_start_s
        and match.query_end_s <= whole.query_end_s + WITHIN_S
        and not (in_track and abs(lags_s[0] - lags_s[1]) > WITHIN_S)
    )


def sounds(setup: Setup, per_sort: int, seed: int) -> Iterator[str]:
    """Sounds of apparatus."""
    tasks = list(product(SOUNDS, SOUND_LENGTHS_S, range(per_sort)))

    def ask(task: tuple[str, float, int]) -> tuple[str, Sequence[int]]:
        sort, length_s, number = task
        rng = np.random.default_rng([seed, 6, list(SOUNDS).index(sort), round(length_s), number])
        x = SOUNDS[sort](round(length_s * SAMPLE_RATE), rng)
        return sort, [bool(setup.search((0.3 * x / np.abs(x).max()).astype(np.float32)))]

    yield f"{'sounds':10}{'clips':>7}{'named':>7}"
    for sort, values in _by_group(setup.jobs, ask, tasks):
        yield f"{sort:10}{len(values):7}{int(values.sum()):7}"


# These sounds are drawn otherwise than those that calibration searches for (samaf.model.sounds): what is measured here
# was not tuned on.


def _noise(n: int, rng: Generator) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.fft.irfft(spectrum * np.maximum(1, np.arange(len(spectrum))) ** -rng.uniform(0.0, 1.0), n)


def _hum(n: int, rng: Generator) -> NDArray[np.float64]:
    t, hz = np.arange(n) / SAMPLE_RATE, rng.choice([50.0, 60.0, 100.0, 120.0])
    hiss = rng.choice([0.0, 0.02]) * rng.standard_normal(n)
    return sum(np.sin(2 * np.pi * hz * k * t + k) / k for k in range(1, 12)) + hiss


def _sweep(n: int, rng: Generator) -> NDArray[np.float64]:
    ends = [rng.uniform(80.0, 500.0), rng.uniform(1000.0, 6000.0)][:: int(rng.choice([-1, 1]))]
    hz = ends[0] * (ends[1] / ends[0]) ** (np.arange(n) / n)
    return np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE) + 0.001 * rng.standard_normal(n)


def _tone(n: int, rng: Generator) -> NDArray[np.float64]:
    t, hz = np.arange(n) / SAMPLE_RATE, rng.uniform(80.0, 3000.0)
    fifth = rng.choice([0.0, 0.5]) * np.sin(2 * np.pi * 1.5 * hz * t)
    return np.sin(2 * np.pi * hz * t) + fifth + rng.choice([0.0, 0.01, 0.1]) * rng.standard_normal(n)


def _clicks(n: int, rng: Generator) -> NDArray[np.float64]:
    x = 0.0005 * rng.standard_normal(n)
    x[:: int(SAMPLE_RATE / rng.uniform(1.0, 20.0))] += 1.0
    return x


def _drums(n: int, rng: Generator) -> NDArray[np.float64]:
    t = np.arange(SAMPLE_RATE // 5) / SAMPLE_RATE
    hits = (
        np.sin(2 * np.pi * (50.0 * t + 2.0 * (1.0 - np.exp(-20.0 * t)))) * np.exp(-18.0 * t),
        0.6 * rng.standard_normal(len(t)) * np.exp(-25.0 * t),
        0.3 * np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-60.0 * t),
    )
    step, pattern = (
        15.0 / rng.uniform(80.0, 160.0) * SAMPLE_RATE,
        rng.random((3, 16)) < [[0.25], [0.25], [0.5]],
    )
    pattern[0, 0] = True
    x = np.zeros(n + len(t))
    for k, (hit, plays) in product(range(int(n / step) + 1), zip(hits, pattern, strict=True)):
        if plays[k % 16]:
            x[int(k * step) : int(k * step) + len(t)] += hit
    return x[:n]


SOUNDS: Mapping[str, Callable[[int, Generator], NDArray[np.float64]]] = {
    "noise": _noise,
    "hum": _hum,
    "sweep": _sweep,
    "tone": _tone,
    "clicks": _clicks,
    "drums": _drums,
}


def altered(clean: Float32, how: str, rng: Generator) -> Float32:
    """A copy as other people keep it: each way a step of its own, and half of the others at random."""
    x = clean
    if how == "trimmed" or rng.random() < 0.5:
        x = x[int(rng.uniform(*TRIMMED_S) * SAMPLE_RATE) :]
    if how == "faster":
        x = soxr.resample(
            x, SAMPLE_RATE, SAMPLE_RATE * (1.0 + float(rng.choice([-SPEED, SPEED]))), quality="HQ"
        )
    if how == "louder":
        x = np.clip(LOUDER * x, -1.0, 1.0)
    if how != "trimmed" or rng.random() < 0.5:
        file = io.BytesIO()
        soundfile.write(file, x, SAMPLE_RATE, format="OGG", subtype="VORBIS")
        file.seek(0)
        x, _ = soundfile.read(file, dtype="float32")
    return x


def _spoilt(clean: Float32, condition: str, materials: Materials, seed: list[int]) -> Float32:
    rng = np.random.default_rng(seed)
    return apply(clean, np.zeros(0, np.float32), parse(condition), materials, rng)


def _by_group(
    jobs: int, ask: Callable[[Task], tuple[str, Sequence[int]]], tasks: Iterable[Task]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The answers to all tasks, (n, values) by group."""
    groups: dict[str, list[Sequence[int]]] = defaultdict(list)
    with ThreadPoolExecutor(jobs) as pool:
        for group, values in pool.map(ask, tasks):
            groups[group].append(values)
    for group, rows in groups.items():
        yield group, np.array(rows, np.int64)


def _copy_of(name: str) -> str:
    return f"copy of {name}"


def _plant(library: Library, originals: Sequence[Recording], folder: Path, seed: int) -> dict[str, str]:
    """Add an altered copy of each recording to the library; their ids by path."""
    paths = {}
    for k, original in enumerate(originals):
        x = altered(original.read(), ALTERED[k % len(ALTERED)], np.random.default_rng([seed, 0, k]))
        path = folder / f"{k}.flac"
        soundfile.write(path, x, SAMPLE_RATE)
        paths[os.path.abspath(path)] = _copy_of(original.id)
    library.add(list(paths))
    return paths


def main() -> int:
    """Run the trials."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="a CSV with columns path, kind and split"
    )
    parser.add_argument("--split", help="the split that clips are cut from (all)")
    parser.add_argument("--copies", type=Path, help="a table of copies, as bench/copies.py writes it")
    parser.add_argument("--model", help="weights of samaf (default: those that ship)")
    parser.add_argument("--planted", type=int, default=200, metavar="N", help="planted copies (200)")
    parser.add_argument("--clips", type=int, default=3, metavar="N", help="clips for each and condition (3)")
    parser.add_argument(
        "--mixes", type=int, default=100, metavar="N", help="mixes of each length and level (100)"
    )
    parser.add_argument("--programmes", type=int, default=40, metavar="N", help="programmes (40)")
    parser.add_argument(
        "--sounds", type=int, default=12, metavar="N", help="sounds of each sort and length (12)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all draws (1)")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for line in _trials(args, Path(folder)):
                print(line, flush=True)
    except SamafError as error:
        print(f"several: {error}", file=sys.stderr)
        return 2
    return 0


def _trials(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    pool = read_pool(args.manifest, folder, split=args.split, kinds=TRACK_KINDS)
    paths = {os.path.abspath(track.path): track.id for track in pool.library}
    long = [track for track in pool.tracks if track.duration_s > CLIP_S + 3.0]
    drawn = np.random.default_rng([args.seed, 7]).permutation(len(long))[: args.planted]
    originals = [long[k] for k in drawn]
    with Library(folder / "whole.samafdb", writable=True, model=args.model) as library:
        library.add(list(paths))

        def setup() -> Setup:
            names = {track.track_id: paths[track.path] for track in library.index.tracks()}
            copies = read_copies(args.copies) if args.copies else {}
            return Setup(library, names, pool, copies, processors())

        yield from mixes(setup(), args.mixes, args.seed)
        yield from pieces(setup(), args.programmes, args.seed)
        yield from sounds(setup(), args.sounds, args.seed)
        paths |= _plant(library, originals, folder, args.seed)
        yield from planted(setup(), originals, args.clips, args.seed)


if __name__ == "__main__":
    sys.exit(main())
