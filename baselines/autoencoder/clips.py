"""Recordings -> clips to train on: 4 s from anywhere in a recording, half of them with noise.

The article trains on the clean and noisy speech of Valentini-Botinhao (2017), and gives no more: here a clip in two
is noisy, at one of that collection's ratios for training, and what is to be rebuilt is always the clean one ("close
resemblance to that of original clean audio", section 4.3.1). The article takes the first 4 s of each file; here a clip
begins anywhere. Its split, 70, 15 and 15 %, is by recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from baselines import prepared
from baselines.autoencoder.features import CLIP, CLIP_S
from baselines.prepared import Int16, Int64, Progress
from samaf.audio import SAMPLE_RATE, read_audio
from samaf.errors import AudioError, shown
from samaf.model.augment import coloured_noise

PARTS = ("training", "validation", "test")
SHARES = (0.7, 0.15, 0.15)
NOISY = 0.5
"""Share of the clips that are noisy."""
TRAINING_SNRS = (0.0, 5.0, 10.0, 15.0)
"""Decibels of signal over noise, as in the collection that the article names."""
TEST_SNRS = (2.5, 7.5, 12.5, 17.5)
QUIET = 1e-3
"""RMS under which a clip is not trained on."""
_SYNTHETIC, _SYNTHETIC_S = 16, 30.0
_DRAWS = 20

Float32 = NDArray[np.float32]


def _prepared(path: Path) -> tuple[tuple[Int16], str]:
    """A recording at 16 kHz; empty, with the reason, where there is none of 4 s or more."""
    try:
        samples = read_audio(path)
    except AudioError as error:
        return (np.empty(0, np.int16),), str(error)
    if len(samples) < CLIP or not np.any(samples):
        return (np.empty(0, np.int16),), f"{shown(path)}: shorter than {CLIP_S:g} s, or silent"
    return (_rounded(samples),), ""


def _prepared_noise(path: Path) -> tuple[tuple[Int16], str]:
    """A recording of noise at 16 kHz, again and again to 4 s where it is shorter."""
    try:
        samples = read_audio(path)
    except AudioError as error:
        return (np.empty(0, np.int16),), str(error)
    if not np.any(samples):
        return (np.empty(0, np.int16),), f"{shown(path)}: silent"
    return (_rounded(samples if len(samples) > CLIP else np.resize(samples, CLIP + 1)),), ""


def _rounded(samples: Float32) -> Int16:
    return np.rint(samples.clip(-1.0, 1.0) * 32767).astype(np.int16)


def key_of(paths: Sequence[Path], noises: Sequence[Path]) -> str:
    """Tells one set of recordings and noises from another, by their names and sizes."""
    return prepared.key_of([*paths, *noises], ["16 kHz", len(noises)])


class Noises:
    """Noise to draw from: recordings, or where there are none, coloured noise.

    Parameters
    ----------
    samples, starts
        As :func:`baselines.prepared.prepare` gives them.
    """

    def __init__(self, samples: Int16, starts: Int64) -> None:
        self.samples, self.starts = samples, starts

    @classmethod
    def prepare(cls, paths: Sequence[Path], folder: Path, *, jobs: int, progress: Progress) -> Noises:
        """Those in files of audio, prepared in `folder`."""
        if not paths:
            rng, n = np.random.default_rng(0), round(_SYNTHETIC_S * SAMPLE_RATE)
            made = [coloured_noise(n, rng) for _ in range(_SYNTHETIC)]
            return cls(
                np.concatenate([_rounded(0.5 * x / np.abs(x).max()) for x in made]),
                n * np.arange(_SYNTHETIC + 1),
            )
        done = folder / f"noise-{prepared.key_of(paths, ['16 kHz'])}"
        [samples], starts = prepared.prepare(
            paths, _prepared_noise, ["noise"], done, least=1, jobs=jobs, progress=progress
        )
        return cls(samples, starts)

    def draw(self, rng: Generator) -> Float32:
        """Noise (64000,), of any level."""
        for _ in range(_DRAWS):
            k = int(rng.integers(len(self.starts) - 1))
            at = int(rng.integers(self.starts[k], self.starts[k + 1] - CLIP))
            noise = self.samples[at : at + CLIP].astype(np.float32) / np.float32(32768)
            if noise.any():
                return noise
        return rng.standard_normal(CLIP).astype(np.float32)


def with_noise(clip: Float32, noise: Float32, snr_db: float) -> Float32:
    """A clip with noise so many decibels under it, both (n,); a silent one as it is."""
    loudness, level = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (clip, noise))
    return clip + noise * np.float32(loudness / max(level, 1e-9) * 10.0 ** (-snr_db / 20.0))


@dataclass(frozen=True)
class Recordings:
    """Recordings at 16 kHz, one after the other, and noise.

    Attributes
    ----------
    samples : int16 (n,)
    starts : int64 (r + 1,)
        Where each recording starts, and the length of all.
    noises
    parts
        The numbers of the recordings in each of :data:`PARTS`.
    """

    samples: Int16
    starts: Int64
    noises: Noises
    parts: dict[str, Int64]

    @classmethod
    def prepare(
        cls,
        paths: Sequence[Path],
        noises: Sequence[Path],
        folder: Path,
        *,
        jobs: int,
        progress: Progress = lambda done, total, note: None,
    ) -> Recordings:
        """Those in files of audio, or what an earlier call with the same files left in `folder`.

        Raises
        ------
        ModelError
            If there are fewer than one for each part.
        """
        done = folder / f"clips-{prepared.key_of(paths, ['16 kHz'])}"
        [samples], starts = prepared.prepare(
            paths, _prepared, ["16khz"], done, least=len(PARTS), jobs=jobs, progress=progress
        )
        spoiling = Noises.prepare(noises, folder, jobs=jobs, progress=progress)
        return cls(samples, starts, spoiling, split(len(starts) - 1))

    def seconds(self, part: str) -> float:
        """Length of a part's recordings."""
        return float(np.diff(self.starts)[self.parts[part]].sum() / SAMPLE_RATE)


def split(n: int) -> dict[str, Int64]:
    """The numbers of `n` recordings, three or more, in each of :data:`PARTS`; the same at every call."""
    order = np.random.default_rng(0).permutation(n)
    rest = [max(1, round(share * n)) for share in SHARES[1:]]
    parts = np.split(order, [n - sum(rest), n - rest[1]])
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}


class Clips:
    """Draws clips from one part of the recordings."""

    def __init__(self, recordings: Recordings, part: str) -> None:
        self.recordings = recordings
        numbers = recordings.parts[part]
        self._starts = recordings.starts[:-1][numbers]
        self._ends = np.cumsum(np.diff(recordings.starts)[numbers] - CLIP + 1)

    def draw(self, n: int, rng: Generator, snrs: Sequence[float] = TRAINING_SNRS) -> tuple[Float32, Float32]:
        """Clips as they are, and the same with noise at one of some ratios in decibels; each (n, 64000)."""
        clean, noisy = np.empty((2, n, CLIP), np.float32)
        for i in range(n):
            clean[i] = self._one(rng)
            noisy[i] = with_noise(clean[i], self.recordings.noises.draw(rng), float(rng.choice(snrs)))
        return clean, noisy

    def _one(self, rng: Generator) -> Float32:
        """A clip with content, if some draws find one; longer recordings are drawn from more often."""
        for _ in range(_DRAWS):
            place = int(rng.integers(self._ends[-1]))
            k = int(np.searchsorted(self._ends, place, side="right"))
            at = int(self._starts[k]) + place - (int(self._ends[k - 1]) if k else 0)
            clip = self.recordings.samples[at : at + CLIP].astype(np.float32) / np.float32(32768)
            if np.sqrt(np.mean(np.square(clip))) > QUIET:
                break
        return clip
