"""The KAIST report's protocol: its tables 4, 5 and 6, with networks trained here.

Kim, Kim and Song, "Neural audio fingerprinting", sections 3 and 4. A query is a stretch of a recording that begins
where one of the stored windows does, at 8 kHz, spoilt at one of three levels (its table 3). The best place among all
windows is *exact* if it is the query's own, *near* if it lies within one window of it, *correct* if it lies in its
recording. The report searches among 100 recordings of 30 s; here the same is done, and in the whole library. Where the
material that is asked for has fewer, others of its kind make up the 100. The report's figures are multiples of .05, of
some 20 queries, so that each is uncertain by some .2. Our intervals are those of 1,000 queries, as if each were of a
recording of its own.

The report's own material is music that was held out of the training, its other material music from YouTube. Ours are
music of one split of a manifest, and of another split, and speech.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.contrastive import ContrastiveParameters, Embedding, embedding_of
from baselines.encoders.features import HOP, HOP_S, SAMPLE_RATE, WINDOW, at_8_khz
from baselines.networks import WEIGHTS
from baselines.vectors import Vectors
from bench.corpus import CorpusError, Recording
from bench.effects import KAIST, fitted, kaist, rms
from bench.metrics import wilson
from bench.tables import Table, plain_table
from samaf.atomic import atomic_write
from samaf.errors import AudioError

PIECES, PIECE_S = 100, 30.0
LENGTHS_S = (1, 2, 3, 5, 6, 10)
QUERIES = 1000
"""Of each cell."""
QUIET = 1e-3
"""RMS under which a stretch is no query."""
CASES = ("exact", "near", "correct")

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

TABLE_4 = {
    "cnn": {64: (0.8, 0.85, 0.8), 128: (0.9, 0.8, 0.65)},
    "lstm": {64: (0.9, 0.75, 0.75), 128: (0.85, 0.75, 0.8)},
    "attention-cnn": {64: (0.75, 0.7, 0.75), 128: (0.65, 0.8, 0.85)},
    "attention-lstm": {64: (0.6, 0.75, 0.75), 128: (0.55, 0.75, 0.85)},
    "resnet": {64: (0.85, 0.95, 0.8), 128: (0.95, 0.9, 0.9)},
}
"""The report's hit rates of 1 s, *correct*, at the levels low, mid and high, for each number of values."""
TABLE_5 = {
    "cnn": (0.6, 0.65, 0.75, 0.85, 0.95, 0.95),
    "lstm": (0.5, 0.75, 0.75, 0.8, 0.85, 0.95),
    "attention-cnn": (0.55, 0.7, 0.8, 0.85, 0.9, 0.9),
    "attention-lstm": (0.4, 0.65, 0.7, 0.85, 0.85, 0.9),
    "resnet": (0.65, 0.75, 0.8, 0.85, 0.9, 0.9),
}
"""Of 64 values, level mid, *exact*, at each of :data:`LENGTHS_S`."""
TABLE_6 = {
    "cnn": (0.45, 0.2),
    "lstm": (0.55, 0.2),
    "attention-cnn": (0.55, 0.3),
    "attention-lstm": (0.65, 0.55),
    "resnet": (0.65, 0.45),
}
"""Of 64 values, 1 s, level high, *near*: of the report's own material, and of YouTube's."""


@dataclass(frozen=True)
class Material:
    """Recordings of one sort.

    Attributes
    ----------
    name
        For the tables.
    recordings
        All of them; pieces are cut from those that are long enough.
    """

    name: str
    recordings: Sequence[Recording]


@dataclass(frozen=True)
class Piece:
    """30 s of a recording, from one of its windows on."""

    recording: Recording
    row: int

    def read(self) -> Float32:
        """At 8 kHz."""
        start_s = self.row * HOP_S
        return at_8_khz(self.recording.read(start_s, start_s + PIECE_S))


@dataclass(frozen=True)
class Questions:
    """Queries of one material at one level.

    Attributes
    ----------
    samples : float32 (n, samples)
        At 8 kHz.
    piece, row : int (n,)
        Where each was cut: the piece, and its row.
    """

    samples: Float32
    piece: NDArray[np.int64]
    row: NDArray[np.int64]


def pieces_of(material: Material, crowd: Sequence[Recording], rng: np.random.Generator) -> list[Piece]:
    """Up to 100 pieces of as many recordings: those of the material first, which are asked for, then others."""
    found = []
    for recordings in (material.recordings, crowd):
        long = [one for one in recordings if one.duration_s >= PIECE_S]
        for k in rng.permutation(len(long))[: PIECES - len(found)]:
            spare = int((long[k].duration_s - PIECE_S) / HOP_S)
            found.append(Piece(long[k], int(rng.integers(spare + 1))))
    return found


def questions_of(
    pieces: Sequence[Piece], level: str, length_s: int, n: int, seed: Sequence[int], progress: Progress
) -> Questions:
    """Queries cut from pieces at windows of theirs, and spoilt."""
    rng = np.random.default_rng(seed)
    of = rng.integers(len(pieces), size=n)
    samples = np.zeros((n, length_s * SAMPLE_RATE), np.float32)
    row = np.zeros(n, np.int64)
    done = 0
    for k in np.unique(of):
        audio = pieces[k].read()
        starts = np.arange(0, len(audio) - length_s * SAMPLE_RATE + 1, HOP)
        loud = [
            start
            for start in starts
            if rms(audio[start : start + length_s * SAMPLE_RATE].astype(float)) > QUIET
        ]
        for i in np.flatnonzero(of == k):
            done += 1
            start = int(rng.choice(loud or starts))
            clean = audio[start : start + length_s * SAMPLE_RATE].astype(np.float64)
            spoilt = kaist(clean, rms(clean), KAIST[level], rng, SAMPLE_RATE)
            samples[i], row[i] = fitted(spoilt, len(clean)), start // HOP
            if done % 100 == 0:
                progress(f"queries of level {level}", done, n)
    return Questions(samples, of, row)


def kept(folder: Path, key: str, make: Callable[[], Questions]) -> Questions:
    """The questions of a key, as an earlier call left them in the folder, or made now."""
    file = folder / f"{key}.npz"
    if file.exists():
        with np.load(file) as arrays:
            return Questions(arrays["samples"].astype(np.float32), arrays["piece"], arrays["row"])
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    np.savez(whole, samples=made.samples.astype(np.float16), piece=made.piece, row=made.row)
    with atomic_write(file) as out:
        out.write(whole.getvalue())
    return kept(folder, key, make)


@dataclass(frozen=True)
class Trial:
    """One cell: queries of a material at a level and a length, in a library."""

    material: str
    level: str
    length_s: int
    library: str

    @property
    def key(self) -> str:
        """Its name in a file of results."""
        return f"{self.material}/{self.level}/{self.length_s}/{self.library}"


@dataclass(frozen=True)
class Hits:
    """How many of some queries were answered right."""

    n: int
    exact: int
    near: int
    correct: int

    def of(self, case: str) -> int:
        """Of one of :data:`CASES`."""
        return int(getattr(self, case))


def trials(materials: Sequence[Material]) -> list[Trial]:
    """All that the three tables need, of the first material as the report's own, and the others as its other one."""
    found = []
    for library in ("pieces", "whole"):
        own = materials[0].name
        found += [Trial(own, level, 1, library) for level in ("low", "high")]
        found += [Trial(own, "mid", length_s, library) for length_s in LENGTHS_S]
        found += [Trial(other.name, "high", 1, library) for other in materials[1:]]
    return found


class Protocol:
    """The queries and libraries that all networks are asked.

    Parameters
    ----------
    materials
        The report's own first.
    crowd
        Further recordings of the whole library.
    folder
        Where queries and results are kept.
    """

    def __init__(
        self,
        materials: Sequence[Material],
        crowd: Sequence[Recording],
        folder: Path,
        *,
        queries: int = QUERIES,
        seed: int = 1,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.materials, self.folder, self.queries, self.seed = materials, folder, queries, seed
        self.progress = progress
        whole = {track.id: track for material in materials for track in material.recordings}
        self.library = list((whole | {track.id: track for track in crowd}).values())
        self.pieces, self.asked = dict[str, list[Piece]](), dict[str, int]()
        for k, material in enumerate(materials):
            own = {track.id for track in material.recordings}
            kinds = {track.kind for track in material.recordings}
            others = [track for track in self.library if track.kind in kinds and track.id not in own]
            pieces = pieces_of(material, others, np.random.default_rng([seed, k]))
            self.pieces[material.name] = pieces
            self.asked[material.name] = sum(piece.recording.id in own for piece in pieces)
            if not self.asked[material.name]:
                raise CorpusError(f"{material.name}: holds no recording of {PIECE_S:g} s or more to ask for")
        listing = [[track.id, track.duration_s] for track in self.library]
        about = [listing, queries, seed, self.asked]
        self.key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def questions(self, trial: Trial) -> Questions:
        """Those of a trial."""
        k = [material.name for material in self.materials].index(trial.material)
        return kept(
            self.folder / "queries",
            f"{self.key}-{trial.material}-{trial.level}-{trial.length_s}",
            lambda: questions_of(
                self.pieces[trial.material][: self.asked[trial.material]],
                trial.level,
                trial.length_s,
                self.queries,
                [self.seed, k, trial.length_s, list(KAIST).index(trial.level)],
                self.progress,
            ),
        )

    def known(self, parameters: ContrastiveParameters) -> dict[Trial, Hits] | None:
        """What earlier calls found of a network; None if that is not all, or there is no such network."""
        if not (parameters.folder / WEIGHTS).exists():
            return None
        done, wanted = _done(self._file(parameters)), trials(self.materials)
        return (
            {trial: Hits(*done[trial.key]) for trial in wanted}
            if all(t.key in done for t in wanted)
            else None
        )

    def measure(self, parameters: ContrastiveParameters, go_on: Callable[[], bool] = lambda: True) -> None:
        """Ask a network all that it was not asked before, as long as `go_on` says so before each trial.

        Raises
        ------
        ModelError
            If there is no such network.
        """
        file = self._file(parameters)
        done = _done(file)
        wanted = [trial for trial in trials(self.materials) if trial.key not in done]
        if not wanted:
            return
        embed = embedding_of(parameters)
        what = f"{parameters.encoder}, {parameters.values} values"
        libraries: dict[str, tuple[Vectors, dict[str, int]]] = {}
        clips: dict[tuple[str, str, int], Float32] = {}
        for number, trial in enumerate(wanted):
            if not go_on():
                return
            self.progress(f"{what}: trials", number, len(wanted))
            name = trial.material if trial.library == "pieces" else "whole"
            if name not in libraries:
                libraries[name] = self._library(name, embed, what)
            questions, asked = self.questions(trial), (trial.material, trial.level, trial.length_s)
            if asked not in clips:
                rows = np.lib.stride_tricks.sliding_window_view(questions.samples, WINDOW, axis=1)[:, ::HOP]
                clips[asked] = embed.of_windows(rows.reshape(-1, WINDOW)).reshape(*rows.shape[:2], -1)
            hits = self._hits(trial, questions, clips[asked], *libraries[name])
            done[trial.key] = [hits.n, hits.exact, hits.near, hits.correct]
            with atomic_write(file) as out:
                out.write(json.dumps(done).encode())
        self.progress(f"{what}: trials", len(wanted), len(wanted))

    def _file(self, parameters: ContrastiveParameters) -> Path:
        return self.folder / f"{parameters.folder.name}-{self.key}-{parameters.network[:16]}.json"

    def _library(self, name: str, embed: Embedding, what: str) -> tuple[Vectors, dict[str, int]]:
        """Vectors of a material's pieces or of the whole library, and the number of each track in it."""
        found, numbers = Vectors(embed.values), dict[str, int]()
        if name == "whole":
            for number, track in enumerate(self.library, start=1):
                try:
                    found.add(embed(at_8_khz(track.read())))
                except AudioError:
                    continue
                numbers[track.id] = len(numbers)
                self.progress(f"{what}: library", number, len(self.library))
        else:
            for number, piece in enumerate(self.pieces[name]):
                found.add(embed(piece.read()))
                numbers[str(number)] = number
        found.settle()
        return found, numbers

    def _hits(
        self, trial: Trial, questions: Questions, clips: Float32, library: Vectors, numbers: dict[str, int]
    ) -> Hits:
        counts = dict.fromkeys(CASES, 0)
        pieces = self.pieces[trial.material]
        for k, row, clip in zip(questions.piece, questions.row, clips, strict=True):
            place = library.search(clip)
            if place is None:
                continue
            piece = pieces[int(k)]
            name, begin = (str(k), 0) if trial.library == "pieces" else (piece.recording.id, piece.row)
            if place.track == numbers.get(name):
                apart = abs(round(place.row - begin - row))
                counts["correct"] += 1
                counts["near"] += apart <= 1
                counts["exact"] += apart == 0
        return Hits(len(clips), **counts)


def _done(file: Path) -> dict[str, list[int]]:
    """What a file of results holds, by the keys of trials; nothing where there is none."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def cell(hits: Hits, case: str, report: float | None) -> str:
    """``.83 [.80, .85] (.85)``: the rate, its interval, and the report's value, if it has one."""
    low, high = wilson(hits.of(case), hits.n)

    def short(value: float) -> str:
        return f"{value:.2f}".removeprefix("0")

    told = f"{short(hits.of(case) / hits.n)} [{short(low)}, {short(high)}]"
    return told if report is None else f"{told} ({short(report)})"


Results = dict[ContrastiveParameters, dict[Trial, Hits]]


def tables(results: Results, materials: Sequence[Material], library: str, size: str) -> Iterator[Table]:
    """The report's tables 4, 5 and 6, of one library; a row for each network.

    Parameters
    ----------
    library, size
        ``"pieces"`` or ``"whole"``, and what there is in it, in words.
    """
    own = materials[0].name

    def table(
        title: str,
        case: str,
        report: Mapping[str, Any],
        columns: Mapping[str, Trial],
    ) -> Table:
        rows = []
        for parameters, hits in results.items():
            values = _of_report(report, parameters) if library == "pieces" else ()
            name = f"{parameters.encoder}, d = {parameters.values}"
            if parameters.projection != "divided":
                name += f", {parameters.projection} projection"
            # of material, the report has one that is its own and one other
            told = [values[min(k, len(values) - 1)] if values else None for k in range(len(columns))]
            rows.append(
                [
                    name,
                    *(
                        cell(hits[trial], case, value)
                        for trial, value in zip(columns.values(), told, strict=True)
                    ),
                ]
            )
        among = f"{PIECES} recordings" if library == "pieces" else "the whole library"
        return plain_table(f"{title}; among {among}", ["Network", *columns], rows, f"Among {size}.")

    yield table(
        f"Table 4: {own}, 1 s, correct, by level of distortion",
        "correct",
        TABLE_4,
        {level: Trial(own, level, 1, library) for level in KAIST},
    )
    yield table(
        f"Table 5: {own}, level mid, exact, by length",
        "exact",
        TABLE_5,
        {f"{length_s} s": Trial(own, "mid", length_s, library) for length_s in LENGTHS_S},
    )
    yield table(
        "Table 6: 1 s, level high, near, by material",
        "near",
        TABLE_6,
        {material.name: Trial(material.name, "high", 1, library) for material in materials},
    )


def _of_report(table: Mapping[str, Any], parameters: ContrastiveParameters) -> Sequence[float]:
    """A row of one of the report's tables; nothing where it has none for such a network."""
    values = table.get(parameters.encoder, ())
    if not isinstance(values, dict):
        values = {64: values}
    return values.get(parameters.values, ()) if parameters.projection == "divided" else ()


TITLE = "Kim, Kim and Song: Neural audio fingerprinting (KAIST)"
REMARKS = (
    "Each value is ours with its 95 % interval and, in brackets, the report's. The report's values are multiples of "
    ".05, of some 20 queries, and so uncertain by .2 either way; ours are of 1,000 queries a cell, as if each were of "
    "a recording of its own. Its tables leave the fully connected encoder out.",
    "The report's material is music that was held out of the training, and music from YouTube. Ours is music of "
    "splits that the networks were not trained on, and speech, of which they heard none. Queries "
    "begin where one of the stored windows does, as in the report: what a clip's offset between windows costs, "
    "`bench run` tells.",
    "The report trained on 10,000 clips of 30 s and gives neither the temperature nor the sizes of layers, so that it "
    "cannot be told why most of ours are above its values.",
)
