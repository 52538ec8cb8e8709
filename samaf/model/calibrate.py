"""Calibration: what a model's bits are worth, what unrelated audio gives, and how rare evidence is by chance.

Needs a trained encoder, recordings that it was *not* trained on, and a library to search among. Everything is measured
through the real encoder and the real search:

- reliability: how often bits are right, by confidence and known share, in clips of the recordings that were distorted;
- share: how much of the agreement that this leads to expect the median clip has;
- background: runs of the library's hashes;
- kinds: which of the kinds of recordings given a clip is of, or whether it is of none, told from its bits;
- tail: the evidence that searches for clips find by chance, the clip's own recording and its copies left out, and for
  each kind the rate and constant of the E-value with which the shares of clips that reach it are those due;
- odds: how often the best answer is right, of as many clips whose recordings the library holds as it does not.

Sounds that are no recording of anything (:mod:`samaf.model.sounds`) are one more kind, the last.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE, read_audio
from samaf.background import HOP_S, RUN_ROWS, Background
from samaf.encoder import Encoder
from samaf.errors import AudioError, ModelError, shown
from samaf.fingerprint import Fingerprint, mark_rows
from samaf.hamming import unpack
from samaf.index import Index, TrackInfo
from samaf.model.augment import Sources, distort
from samaf.model.estimates import KNOTS_S, fit_kinds, fit_odds, fit_reliability, fit_tail
from samaf.model.sounds import draw_sound
from samaf.query import Query, Reliability, signed_weights
from samaf.rarity import Tail, log10_of_kinds, mean_bits
from samaf.resemblance import LEAST_SCORE, Judgement, Resemblance
from samaf.search import Searcher
from samaf.settings import QUERY_HOP_S, processors
from samaf.stretch import agreement
from samaf.verdict import CalibratedModel
from samaf.weights import Weights

HOPS_S = (0.5, 1.0)
"""Hops of an index for which rates are fitted; others take those of the nearest."""
RUNS = 640
"""Background runs; half as many separate music of 1 s and speech of 5 s less well."""
FEWEST_RUNS = 8
TWINS = 1500
"""Clips of which each bit is held against the recording's own."""
TWIN_S = 4.0
LENGTHS_S = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Lengths of the clips that are searched for."""
QUERIES = 200
"""Clips of each length up to 10 s, of each kind; a third as many of longer ones."""
SOUNDS = 0.03
"""How much rarer a clip of a sound is than one of a kind of recordings."""
DISTORTED = 0.7
"""Share of the clips that are distorted."""
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
StrPath = str | os.PathLike[str]
T = TypeVar("T")


@dataclass(frozen=True)
class _Recording:
    """One recording: its samples are read when they are asked for. Those of the library have no kind."""

    path: Path
    print_: Fingerprint
    kind: int | None

    def clip(self, start_s: float, length_s: float) -> Float32:
        return read_audio(self.path, start_s=start_s, end_s=start_s + length_s)


class Encodes(Protocol):
    """What makes fingerprints: an :class:`~samaf.encoder.Encoder`, or what gives other codes in its way."""

    bits: int
    model_id: str

    def encode(self, audio: StrPath, *, hop_s: float) -> Fingerprint:
        """Of a recording."""
        ...

    def encode_query(self, audio: Float32) -> Fingerprint:
        """Of a clip."""
        ...


def calibrate(
    path: Path, held_out: Sequence[Sequence[Path]], library: Sequence[Path], **options: Any
) -> Weights:
    """The weights of a file with a new calibration; see :func:`calibration_of`."""
    base = Weights.load(path)
    encoder = Encoder(path, bits=base.bits[-1])
    return replace(base, calibration=calibration_of(encoder, base.bits, held_out, library, **options))


def calibration_of(
    encoder: Encodes,
    lengths: Sequence[int],
    held_out: Sequence[Sequence[Path]],
    library: Sequence[Path],
    *,
    sources: Sources | None = None,
    copies: Mapping[Path, Collection[Path]] | None = None,
    queries: int | None = None,
    jobs: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, NDArray]:
    """A calibration of what an encoder gives, as :class:`samaf.verdict.Verdict` takes it.

    Parameters
    ----------
    encoder
        Of the longest codes.
    lengths
        Code lengths, ascending; each shorter code is the beginning of the longer ones.
    held_out
        Recordings that the model was not trained on, by their kind: clips of them are searched for. E-values hold for
        each kind by itself, and for sounds that are no recording.
    library
        Recordings to search among, besides `held_out`; those that the model was trained on will do.
    sources
        Noise and rooms for the distortions; default synthetic ones.
    copies
        For a recording, others that hold the same audio: they are left out of the searches for its clips.
    queries
        Clips of each length; default :data:`QUERIES`, or as many as there are seconds to cut them from.
    jobs
        Files encoded, and clips searched for, at once; by default as many as it may use processors.
    progress
        Called with (steps done, steps, note); a note names a file that could not be used.

    Raises
    ------
    ModelError
        If there is too little to calibrate on.
    """
    rng = np.random.default_rng([seed, 99])
    sources = sources or Sources()
    places: list[tuple[Path, int | None]] = [
        (one, kind) for kind, some in enumerate(held_out) for one in some
    ]
    places += [(one, None) for one in library]
    steps = _Steps(len(places) + TWINS, progress)
    with ThreadPoolExecutor(jobs or processors()) as pool:
        recordings = _there(pool.map(lambda place: _read(encoder, place[0], place[1], steps), places))
        clips = [one for one in recordings if one.kind is not None and one.print_.duration_s > TWIN_S + 1.0]
        background = _background(recordings, rng)
        empty = set(range(len(held_out))) - {one.kind for one in recordings}
        if not clips or empty or len(background) < FEWEST_RUNS:
            raise ModelError(
                "too little audio to calibrate on; give half an hour of each kind, of many recordings of 6 s or more"
            )
        wanted = _wanted(recordings, len(held_out), queries)
        steps.total += (1 + len(lengths) * len(HOPS_S)) * len(wanted)
        twins = _there(pool.map(lambda k: _twin(encoder, clips, sources, [seed, 1, k], steps), range(TWINS)))
        known = {"background": background, **_reliability(twins, background, encoder.bits)}
        strange = replace(sources, voices=())  # babble of recordings that are searched among would be found
        drawn = _there(
            pool.map(lambda which: _unknown(encoder, recordings, strange, which, seed, steps), wanted)
        )
        kinds = range(len(held_out) + 1)
        reliability = Reliability(*known["reliability"])
        for bits in lengths:
            heard = np.stack([_heard(clip.print_.truncated(bits), reliability) for clip in drawn])
            told = fit_kinds(heard, np.array([clip.kind for clip in drawn]), len(kinds))
            told[-1, -1] += np.log(SOUNDS)
            known[f"kinds_{bits}"] = told
        known |= {"hops": np.array(HOPS_S), "tail_seconds": KNOTS_S}
        begin = CalibratedModel(encoder.model_id, known | _flat(lengths, len(kinds)))
        found = _searched_all(begin, lengths, recordings, drawn, copies or {}, pool, steps)
    lengths_s = [clip.length_s for clip in drawn]
    for bits in lengths:
        tails, odds = [], []
        for hop_s in HOPS_S:
            answers = found[bits, hop_s]
            fitted = [_tail_of_kind(answers, drawn, kind) for kind in kinds]
            tails.append(fitted)
            odds.append(_odds_of(answers, lengths_s, [Tail(KNOTS_S, *tail) for tail in fitted]))
        known[f"tail_{bits}"], known[f"odds_{bits}"] = np.stack(tails), np.stack(odds)
    return known


def _wanted(
    recordings: Sequence[_Recording], kinds: int, queries: int | None
) -> list[tuple[int, float, int]]:
    """(kind, length, number) of the clips to search for; of sounds, as many as of the kind with most."""
    counts = []
    for kind in range(kinds):
        seconds = sum(one.print_.duration_s for one in recordings if one.kind == kind)
        counts.append(queries or min(QUERIES, round(seconds)))
    return [
        (kind, length_s, k)
        for kind, n in enumerate([*counts, max(counts)])
        for length_s in LENGTHS_S
        for k in range(n if length_s <= 10.0 else n // 3)
    ]


def _there(found: Iterable[T | None]) -> list[T]:
    return [one for one in found if one is not None]


def _flat(lengths: Sequence[int], kinds: int) -> dict[str, NDArray]:
    """Rates, constants and odds to begin with."""
    tail = np.stack([np.full(len(KNOTS_S), 1.5), np.zeros(len(KNOTS_S)), np.full(len(KNOTS_S), -0.5)])
    flat = {f"tail_{bits}": np.tile(tail, (len(HOPS_S), kinds, 1, 1)) for bits in lengths}
    return flat | {f"odds_{bits}": np.tile([0.0, 1.0, 0.0, 0.0], (len(HOPS_S), 1)) for bits in lengths}


def read_copies(path: StrPath) -> dict[Path, set[Path]]:
    """For each file, those that hold the same audio, from a CSV of pairs ``path_a``, ``path_b`` relative to it."""
    folder = Path(path).parent
    copies: dict[Path, set[Path]] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            pairs = [(folder / row["path_a"], folder / row["path_b"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as error:
        raise ModelError(f"{shown(path)}: no CSV with columns path_a and path_b ({error})") from None
    for a, b in pairs:
        copies.setdefault(a, set()).add(b)
        copies.setdefault(b, set()).add(a)
    return copies


class _Steps:
    """Counts what is done, from several threads."""

    def __init__(self, total: int, progress: Callable[[int, int, str], None]) -> None:
        self.total, self.count, self.progress = total, 0, progress

    def done(self, steps: int, note: str) -> None:
        self.count += steps
        self.progress(min(self.count, self.total), self.total, note)


def _read(encoder: Encodes, path: Path, kind: int | None, steps: _Steps) -> _Recording | None:
    try:
        found = _Recording(path, encoder.encode(path, hop_s=HOP_S), kind)
    except AudioError as error:
        steps.done(1, str(error))
        return None
    steps.done(1, "")
    return found


def _background(recordings: Sequence[_Recording], rng: Generator) -> NDArray[np.uint64]:
    """Runs of valid hashes (runs, rows, words), of recordings of the library, or of all if they give too few."""
    strangers = [one for one in recordings if one.kind is None]
    for rows in (RUN_ROWS, RUN_ROWS // 2, RUN_ROWS // 4):  # short recordings give short runs
        for some in (strangers, recordings):
            runs = [
                one.print_.hashes[a : a + rows]
                for one in some
                for a in range(0, len(one.print_) - rows + 1, rows + 1)
                if one.print_.valid[a : a + rows].all()
            ]
            if len(runs) >= FEWEST_RUNS:
                return np.stack([runs[k] for k in np.sort(rng.permutation(len(runs))[:RUNS])])
    return np.empty((0, RUN_ROWS, 0), np.uint64)


Twin = tuple[Fingerprint, NDArray[np.int64], NDArray[np.uint64]]
"""A distorted clip, those of its rows that meet stored ones, and these."""


def _twin(
    encoder: Encodes, clips: Sequence[_Recording], sources: Sources, seed: list[int], steps: _Steps
) -> Twin | None:
    rng = np.random.default_rng(seed)
    one = clips[int(rng.integers(len(clips)))]
    start_s = float(rng.uniform(0.0, one.print_.duration_s - TWIN_S))
    steps.done(1, "")
    try:
        print_ = encoder.encode_query(_spoilt(one.clip(start_s, TWIN_S), sources, rng))
    except AudioError:
        return None
    stored = np.arange(len(one.print_))
    query_i = np.rint((stored * HOP_S - start_s - print_.start_s) / print_.hop_s).astype(np.int64)
    meet = (query_i >= 0) & (query_i < len(print_))
    query_i, stored = query_i[meet], stored[meet]
    real = print_.valid[query_i] & one.print_.valid[stored]
    return (print_, query_i[real], one.print_.hashes[stored[real]]) if real.any() else None


def _spoilt(clean: Float32, sources: Sources, rng: Generator) -> Float32:
    """A clip, most often distorted, at its own speed."""
    return distort(clean, 1.0, sources, rng) if rng.random() < DISTORTED else clean


def _reliability(twins: Sequence[Twin], runs: NDArray[np.uint64], bits: int) -> dict[str, NDArray]:
    """Odds of bits, by a logistic fit; share of the expected agreement that clips have, their median."""
    confidence = np.concatenate(
        [print_.confidence[i] for print_, i, _ in twins if print_.confidence is not None]
    )
    known = np.concatenate([print_.known[i] for print_, i, _ in twins if print_.known is not None])
    right = np.concatenate(
        [unpack(print_.hashes[i], bits) == unpack(stored, bits) for print_, i, stored in twins]
    )
    reliability = fit_reliability(confidence, known, right)
    background = Background(runs, bits, 1.0)
    shares = []
    for print_, i, stored in twins:
        query = Query.of(print_, reliability, background, 1.0)
        whole = query.known[i] > 0.999
        rows = i[whole][::2]  # stored rows 1 s apart
        if len(rows):
            mean, _ = background.of_stretch(query.weights(rows))
            total = float(agreement(query.weights(rows), stored[whole][::2]).sum())
            shares.append((total - mean) / max(float(query.expected[rows].sum()) - mean, 1.0))
    return {
        "reliability": np.array([reliability.intercept, reliability.slope, reliability.power]),
        "share": np.asarray(np.median(shares)),
    }


@dataclass(frozen=True)
class _Unknown:
    """A clip to be searched for, and the recordings that it comes from, if any."""

    print_: Fingerprint
    kind: int
    length_s: float
    paths: tuple[Path, ...]


def _unknown(
    encoder: Encodes,
    recordings: Sequence[_Recording],
    sources: Sources,
    which: tuple[int, float, int],
    seed: int,
    steps: _Steps,
) -> _Unknown | None:
    kind, length_s, number = which
    rng = np.random.default_rng([seed, 2, kind, round(100 * length_s), number])
    steps.done(1, "")
    try:
        clean, paths = _clean(recordings, kind, length_s, rng)
        print_ = encoder.encode_query(_spoilt(clean, sources, rng))
    except AudioError:
        return None
    return _Unknown(print_, kind, length_s, paths) if print_.valid.any() else None


def _clean(
    recordings: Sequence[_Recording], kind: int, length_s: float, rng: Generator
) -> tuple[Float32, tuple[Path, ...]]:
    """A clip of a kind, and the recordings that it comes from: several where all are shorter; none for a sound."""
    held = [one for one in recordings if one.kind == kind]
    if not held:
        return draw_sound(round(length_s * SAMPLE_RATE), rng), ()
    long = [one for one in held if one.print_.duration_s >= length_s + 0.1]
    if long:
        one = long[int(rng.integers(len(long)))]
        return one.clip(float(rng.uniform(0.0, one.print_.duration_s - length_s)), length_s), (one.path,)
    paths, samples, missing = [], [], round(length_s * SAMPLE_RATE)
    for at in rng.permutation(len(held)):
        paths.append(held[at].path)
        samples.append(held[at].clip(0.0, length_s)[:missing])
        missing -= len(samples[-1])
        if missing <= 0:
            break
    return np.concatenate(samples), tuple(paths)


OfTracks = list[tuple[int, Judgement]]
"""What stretches are worth, each with the id of its track."""


@dataclass(frozen=True)
class _Answers:
    """What a clip finds.

    Attributes
    ----------
    own
        Ids of the clip's own recordings, and their copies; none for a sound.
    known
        Among all recordings; nothing for a sound.
    unknown
        Among all but its own.
    """

    own: set[int]
    known: OfTracks
    unknown: OfTracks


def _of_tracks(found: Sequence[Resemblance]) -> OfTracks:
    return [(one.match.track_id, one.worth) for one in found]


def _searched_all(
    model: CalibratedModel,
    lengths: Sequence[int],
    recordings: Sequence[_Recording],
    drawn: Sequence[_Unknown],
    copies: Mapping[Path, Collection[Path]],
    pool: Executor,
    steps: _Steps,
) -> dict[tuple[int, float], list[_Answers]]:
    """What each clip finds, by bits and hop."""
    found = {}
    for bits in lengths:
        for hop_s in HOPS_S:
            with (
                tempfile.TemporaryDirectory() as folder,
                Index.create(
                    Path(folder) / "index",
                    model_id=model.model_id,
                    bits=bits,
                    hop_s=hop_s,
                    query_hop_s=QUERY_HOP_S,
                ) as index,
            ):
                batch = [(TrackInfo(str(one.path)), _at_hop(one.print_, bits, hop_s)) for one in recordings]
                ids = dict(zip((one.path for one in recordings), index.add(batch), strict=True))
                searcher = Searcher(index, model)

                def search(clip: _Unknown) -> _Answers:
                    paths = {*clip.paths, *(copy for path in clip.paths for copy in copies.get(path, ()))}
                    own = {ids[path] for path in paths if path in ids}  # noqa: B023
                    print_ = clip.print_.truncated(bits)  # noqa: B023
                    steps.done(1, "")
                    return _Answers(
                        own,
                        known=_of_tracks(searcher.resembled(print_)) if own else [],  # noqa: B023
                        unknown=_of_tracks(searcher.resembled(print_, without=own)),  # noqa: B023
                    )

                found[bits, hop_s] = list(pool.map(search, drawn))
    return found


def _at_hop(print_: Fingerprint, bits: int, hop_s: float) -> Fingerprint:
    stride = round(hop_s / HOP_S)
    valid = print_.valid[::stride]
    return replace(
        print_, hashes=mark_rows(print_.hashes[::stride], valid), valid=valid, hop_s=hop_s
    ).truncated(bits)


def _heard(print_: Fingerprint, reliability: Reliability) -> Float32:
    """Mean bits of a clip, from rows as far apart as those of a stretch."""
    rows = np.flatnonzero(print_.valid)[:: round(1.0 / print_.hop_s)]
    return mean_bits(signed_weights(print_, reliability, rows))


def _tail_of_kind(answers: Sequence[_Answers], drawn: Sequence[_Unknown], kind: int) -> Float64:
    """The tail of the clips of a kind, which are to have what is due at each length."""
    mine = [k for k, clip in enumerate(drawn) if clip.kind == kind]
    strangers = [[worth for _, worth in answers[k].unknown] for k in mine]
    return fit_tail(strangers, [drawn[k].length_s for k in mine])


def _odds_of(answers: Sequence[_Answers], lengths: Sequence[float], tails: Sequence[Tail]) -> Float64:
    """The odds of the best answers, half of them of clips that the library holds; each length counts as much.

    Sounds, which no library holds, are left out: their E-values tell.
    """
    rows, right, of_length = [], [], []
    for one, length_s in zip(answers, lengths, strict=True):
        for found in (one.known, one.unknown):
            top = _top(found, one.own, tails)
            if one.own and top is not None:
                rows.append(top[:3])
                right.append(top[3])
                of_length.append(length_s)
    counts = {length_s: of_length.count(length_s) for length_s in set(of_length)}
    weights = np.array([1.0 / counts[length_s] for length_s in of_length])
    return fit_odds(np.array(rows), np.array(right), weights / weights.mean())


def _top(
    found: OfTracks, own: Collection[int], tails: Sequence[Tail]
) -> tuple[float, float, float, bool] | None:
    """(score, expected, rival's score, whether it is right) of the best answer."""
    best: dict[int, tuple[float, float]] = {}
    for track_id, j in found:
        score = -log10_of_kinds(tails, j.log_kinds, j.evidence, j.known_s, j.log10_tests)
        best[track_id] = max(best.get(track_id, (score, j.expected)), (score, j.expected))
    if not best:
        return None
    track_id = max(best, key=lambda track_id: best[track_id])
    right = track_id in own
    rivals = [
        score for other, (score, _) in best.items() if other != track_id and not (right and other in own)
    ]
    return *best[track_id], max(rivals, default=LEAST_SCORE), right
