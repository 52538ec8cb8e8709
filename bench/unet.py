"""What Singh (2025) shows of a U-Net autoencoder with FAISS, measured: see :mod:`baselines.unet`.

The article (sections 3.6, 3.7.3 and 4) draws one random segment of 4 s of one of 235 songs and finds its song first,
without noise and with; says nothing of where the segment lies between the stored ones, which decides; and gives an
MSE and a PSNR of what is rebuilt, and plots of one clip. Here:

- *Naming*: many segments of 4 s of the recordings of a library, each once *aligned*, where a stored segment begins,
  and once at a *random* place, up to 1.25 s from the nearest; clean, and with noise of files that no network was
  trained with, at the ratios that the collection named in the article (Valentini-Botinhao 2017) has for tests. Top-1:
  the nearest code is of the right recording. Top-5: one of the five nearest is.
- *Rebuilding*: clips of the 15 % of the recordings that the network's training left for tests, clean and noisy;
  compared with the clean one. Once by the whole network, and once from the code's 320 values alone: the connections
  that pass the code by carry most of what the whole network rebuilds, so that its error tells little of the
  fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.autoencoder.clips import QUIET, TEST_SNRS, Clips, Noises, Recordings, with_noise
from baselines.autoencoder.features import CLIP, CLIP_S, TRANSFORMS, clips_of, normalised
from baselines.autoencoder.reconstruction import PICTURE_PEAK, mse, psnr, rebuilt, samples_of, span
from baselines.networks import WEIGHTS
from baselines.training import history_of
from baselines.unet import SEGMENT_HOP_S, Code, Store, UNetParameters, code_of
from bench.corpus import CorpusError, Recording
from bench.metrics import Rate
from samaf.atomic import atomic_write
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError
from samaf.settings import processors

HOP = round(SEGMENT_HOP_S * SAMPLE_RATE)
PLACED = ("aligned", "random")
CONDITIONS: dict[str, float | None] = {"clean": None, **{f"{snr:g} dB": snr for snr in reversed(TEST_SNRS)}}
"""Names of what is laid over a query, and the ratio of signal over noise."""
HEARD = 20
"""Of the clips that are rebuilt, so many are also made samples of."""
CLIPS = ("clean", "noisy")
GIVEN, WHOLE, CODE = ORIGINS = ("given", "rebuilt by the whole network", "rebuilt from the code alone")
"""What becomes of a clip."""
_DRAWS = 20

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
Pictures = Callable[[dict[str, tuple[Float32, Float32]], Path], None]
"""Called with samples (64000,) and spectrogram (64, 376) of each panel, by its title, and a place to draw to."""


@dataclass(frozen=True)
class Material:
    """What the protocol needs.

    Attributes
    ----------
    library
        Recordings that are searched among, and asked for.
    trained_on, trained_with
        The files that networks are trained on, of which some are left for tests, and their noise.
    noise
        Files of noise that spoil queries; without any, coloured noise is made.
    """

    library: Sequence[Recording]
    trained_on: Sequence[Path]
    trained_with: Sequence[Path]
    noise: Sequence[Path]


@dataclass(frozen=True)
class Questions:
    """Segments of 4 s of recordings of one kind.

    Attributes
    ----------
    aligned, random : float32 (n, 64000)
        Where a stored segment begins, and at a random place that this one is nearest to.
    track, segment : int (n,)
        The recording's number in the library, and the nearest stored segment's in the recording.
    offset_s : float (n,)
        How far the random place is from it.
    """

    aligned: Float32
    random: Float32
    track: NDArray[np.int64]
    segment: NDArray[np.int64]
    offset_s: Float64


@dataclass(frozen=True)
class Trial:
    """Queries of one kind of recordings under one condition."""

    kind: str
    condition: str
    placed: str

    @property
    def key(self) -> str:
        """Its name in a file of results."""
        return f"{self.kind}/{self.condition}/{self.placed}"


@dataclass(frozen=True)
class Answers:
    """What became of a trial's queries, each a list of n.

    Attributes
    ----------
    offset_s
        Distance from the stored grid, without sign.
    first, five
        Whether the nearest, and whether one of the five nearest, is of the right recording.
    segment
        Whether the nearest is the stored segment that the query is nearest to.
    """

    offset_s: list[float]
    first: list[bool]
    five: list[bool]
    segment: list[bool]

    def rate(self, what: str, low_s: float = 0.0, high_s: float = np.inf) -> Rate:
        """Share of the queries with one of :attr:`first`, :attr:`five`, :attr:`segment`, of some distances."""
        hits = [
            hit
            for hit, offset in zip(getattr(self, what), self.offset_s, strict=True)
            if low_s <= offset < high_s
        ]
        return Rate(sum(hits), len(hits))


@dataclass(frozen=True)
class Measures:
    """Means over clips, and half the widths of their intervals at 95 %.

    Attributes
    ----------
    mse, picture_psnr, psnr
        Of spectrograms in the network's own units; PSNR with a peak of 255, and with the original's range.
    samples_mse, samples_psnr
        Of the samples made of them; the peak is 1.
    """

    mse: tuple[float, float]
    picture_psnr: tuple[float, float]
    psnr: tuple[float, float]
    samples_mse: tuple[float, float]
    samples_psnr: tuple[float, float]

    @classmethod
    def of(cls, pairs: dict[str, Any]) -> Measures:
        """Those that a file of results holds."""
        return cls(**{name: tuple(pair) for name, pair in pairs.items()})


@dataclass(frozen=True)
class Found:
    """All that is known of a network.

    Attributes
    ----------
    answers
        Of each trial.
    rebuilt
        By one of :data:`CLIPS` and one of :data:`ORIGINS`.
    training
        The measures of its last epoch.
    """

    answers: dict[Trial, Answers]
    rebuilt: dict[tuple[str, str], Measures]
    training: dict[str, float]


class Protocol:
    """The queries and clips that all networks are asked.

    Parameters
    ----------
    folder
        Where results are kept.
    queries
        Of each kind of recordings.
    rebuilt
        Clips that are rebuilt.
    pictures
        Draws the first of them.
    """

    def __init__(
        self,
        material: Material,
        folder: Path,
        *,
        queries: int,
        rebuilt: int,
        seed: int = 1,
        progress: Progress = lambda what, done, total: None,
        pictures: Pictures | None = None,
    ) -> None:
        self.pictures = pictures
        self.material, self.folder = material, folder
        self.queries, self.rebuilt, self.seed, self.progress = queries, rebuilt, seed, progress
        self.kinds = [
            kind
            for kind in sorted({track.kind for track in material.library})
            if any(track.kind == kind and track.duration_s >= CLIP_S for track in material.library)
        ]
        if not self.kinds:
            raise CorpusError(
                f"no recording of the library has {CLIP_S:g} s or more; name another with --library"
            )
        about = [
            [[track.id, track.duration_s] for track in material.library],
            *(sorted(map(str, paths)) for paths in (material.trained_on, material.noise)),
            [queries, rebuilt, seed],
        ]
        self.key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        self.trials = [
            Trial(*parts) for parts in ((k, c, p) for k in self.kinds for c in CONDITIONS for p in PLACED)
        ]
        self._questions: dict[str, Questions] = {}

    def known(self, parameters: UNetParameters) -> Found | None:
        """What earlier calls found of a network; None if that is not all, or there is no such network."""
        if not (parameters.folder / WEIGHTS).exists():
            return None
        done = _done(self._file(parameters))
        if "rebuilt" not in done or any(trial.key not in done for trial in self.trials):
            return None
        return Found(
            {trial: Answers(**done[trial.key]) for trial in self.trials},
            {tuple(name.split("/")): Measures.of(pairs) for name, pairs in done["rebuilt"].items()},
            next(reversed(history_of(parameters.folder)), {}),
        )

    def measure(self, parameters: UNetParameters, go_on: Callable[[], bool] = lambda: True) -> None:
        """Ask a network all that it was not asked before, as long as `go_on` says so before each part.

        Raises
        ------
        ModelError
            If there is no such network.
        """
        file, name = self._file(parameters), parameters.title
        done = _done(file)
        wanted = [trial for trial in self.trials if trial.key not in done]
        if not wanted and "rebuilt" in done:
            return
        code = code_of(parameters)
        audio = parameters.folder.parent / "audio"
        noises = Noises.prepare(self.material.noise, audio, jobs=processors(), progress=lambda *_: None)
        store: Store | None = None
        for number, trial in enumerate(wanted):
            if not go_on():
                return
            self.progress(f"{name}: trials", number, len(wanted))
            store = store or self._library(code, name)
            done[trial.key] = asdict(self._answers(trial, code, store, noises))
            _keep(file, done)
        if wanted:
            self.progress(f"{name}: trials", len(wanted), len(wanted))
        if "rebuilt" not in done and go_on():
            recordings = Recordings.prepare(
                self.material.trained_on, self.material.trained_with, audio, jobs=processors()
            )
            clips = Clips(replace(recordings, noises=noises), "test")
            pair = clips.draw(self.rebuilt, np.random.default_rng(self.seed), TEST_SNRS)
            measures = self._rebuilt(dict(zip(CLIPS, pair, strict=True)), code, parameters)
            done["rebuilt"] = {"/".join(key): asdict(value) for key, value in measures.items()}
            _keep(file, done)

    def _file(self, parameters: UNetParameters) -> Path:
        return self.folder / f"{parameters.title}-{self.key}-{parameters.network[:16]}.json"

    def _library(self, code: Code, name: str) -> Store:
        """The codes of all recordings; a song's number is its place in the library."""
        store = Store(code.values)
        for number, track in enumerate(self.material.library):
            try:
                codes, has_content = code(clips_of(track.read(), HOP))
            except AudioError:
                continue
            store.add(number, np.flatnonzero(has_content), codes[has_content])
            self.progress(f"{name}: library", number + 1, len(self.material.library))
        return store

    def questions(self, kind: str) -> Questions:
        """Those of a kind."""
        if kind not in self._questions:
            rng = np.random.default_rng([self.seed, self.kinds.index(kind)])
            self._questions[kind] = questions_of(
                self.material.library, kind, self.queries, rng, self.progress
            )
        return self._questions[kind]

    def _answers(self, trial: Trial, code: Code, store: Store, noises: Noises) -> Answers:
        questions, snr = self.questions(trial.kind), CONDITIONS[trial.condition]
        samples: Float32 = getattr(questions, trial.placed)
        if snr is not None:
            rng = np.random.default_rng(
                [self.seed, self.kinds.index(trial.kind)]
            )  # the same noise at each ratio
            samples = np.stack([with_noise(clip, noises.draw(rng), snr) for clip in samples])
        _, songs, segments = store.nearest(code(samples)[0])
        right = songs == questions.track[:, None]
        offset_s = np.abs(questions.offset_s) if trial.placed == "random" else np.zeros(len(samples))
        return Answers(
            offset_s.tolist(),
            right[:, 0].tolist(),
            right.any(axis=1).tolist(),
            (right[:, 0] & (segments[:, 0] == questions.segment)).tolist(),
        )

    def _rebuilt(
        self, given: dict[str, Float32], code: Code, parameters: UNetParameters
    ) -> dict[tuple[str, str], Measures]:
        """How well clips are rebuilt; draws the first one."""
        shown: dict[tuple[str, str], Float32] = {}  # in the network's own units
        heard: dict[tuple[str, str], Float32] = {}
        for name, clips in given.items():
            plain = TRANSFORMS[parameters.front_end].log_mel(clips)
            inputs, mean, spread = normalised(plain)
            if parameters.features == "plain":
                inputs, mean, spread = plain, np.zeros_like(mean), np.ones_like(spread)
            for origin in ORIGINS:
                found = inputs
                if origin != GIVEN:
                    found = rebuilt(code.model, inputs, code_only=origin == CODE)
                shown[name, origin], made = found, []
                for number, one in enumerate((found * spread + mean)[:HEARD], start=1):
                    made.append(samples_of(one, parameters.front_end))
                    self.progress(
                        f"{parameters.title}: samples, {name}, {origin}", number, min(HEARD, len(found))
                    )
                heard[name, origin] = np.stack(made)
        if self.pictures is not None:
            firsts = {key: (given[key[0]] if key[1] == GIVEN else heard[key], shown[key]) for key in shown}
            panels = {f"{name}, {origin}": (x[0], y[0]) for (name, origin), (x, y) in firsts.items()}
            self.pictures(panels, self.folder / parameters.title)
        measures = {}
        clean, clips = shown["clean", GIVEN], given["clean"][:HEARD]
        for key, found in shown.items():
            error, samples_error = mse(clean, found), mse(clips, heard[key])
            measures[key] = Measures(
                _mean(error),
                _mean(psnr(error, PICTURE_PEAK)),
                _mean(psnr(error, span(clean))),
                _mean(samples_error),
                _mean(psnr(samples_error, 1.0)),
            )
        return measures


def questions_of(
    library: Sequence[Recording], kind: str, n: int, rng: np.random.Generator, progress: Progress
) -> Questions:
    """Segments with content of the recordings of a kind.

    Raises
    ------
    CorpusError
        If no recording of the kind has content.
    """
    long = [k for k, track in enumerate(library) if track.kind == kind and track.duration_s >= CLIP_S]
    track = rng.choice(long, size=n)
    samples = np.zeros((2, n, CLIP), np.float32)
    segment, offset_s = np.zeros(n, np.int64), np.zeros(n)
    usable = np.zeros(n, np.bool_)
    for k in np.unique(track):
        try:
            audio = library[k].read()
        except AudioError:
            continue
        for i in np.flatnonzero(track == k):
            for _ in range(_DRAWS):
                last = (len(audio) - CLIP) // HOP
                start = int(rng.integers(last * HOP + 1))
                segment[i] = round(start / HOP)
                offset_s[i] = (start - segment[i] * HOP) / SAMPLE_RATE
                samples[0, i] = audio[segment[i] * HOP :][:CLIP]
                samples[1, i] = audio[start : start + CLIP]
                usable[i] = bool((np.sqrt(np.mean(np.square(samples[:, i]), axis=1)) > QUIET).all())
                if usable[i]:
                    break
        progress(f"queries of {kind}", int(usable.sum()), n)
    if not usable.any():
        raise CorpusError(f"no recording of {kind} in the library has content; name another with --library")
    return Questions(samples[0, usable], samples[1, usable], track[usable], segment[usable], offset_s[usable])


def _mean(values: Float64) -> tuple[float, float]:
    """The mean of clips' values, and half the width of its interval at 95 %, which is nothing's of a single clip."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(half)


def _keep(file: Path, done: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as out:
        out.write(json.dumps(done).encode())


def _done(file: Path) -> dict[str, Any]:
    """What a file of results holds; nothing where there is none."""
    return dict(json.loads(file.read_text())) if file.exists() else {}
