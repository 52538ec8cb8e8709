"""Recordings -> batches of pairs: a second of audio as it is, and the same second spoilt.

What spoils it is the KAIST report's table 1: white noise of 0.1 to 0.3 of the signal's standard deviation (the report
calls this ratio an "SNR"), a copy that comes 100 to 300 ms later at half the strength (the report gives no strength;
this is that of the package it names), and SoX's reverb at a reverberance and a room size of 90 to 91 %. Each happens
to :data:`SHARE` of the seconds, which the report leaves open; so is how far apart the two may start: up to 200 ms, as
in Chang et al. 2021.

Other than in the report's queries, which are spoilt after they are cut, what was before a second is heard in it: its
copy and its reverberation, as in a room.

Reverb is the one slow step, and its settings hardly vary. So each recording is kept twice, dry and reverberant, at 8
kHz and 16 bits, in files that are mapped; all else is done for each batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from baselines import prepared
from baselines.encoders.features import SAMPLE_RATE, WINDOW, at_8_khz, log_mel
from baselines.prepared import Int16, Progress
from samaf.audio import read_audio
from samaf.errors import AudioError, ModelError, shown

NOISE_RATIO = (0.1, 0.3)
DELAY_S = (0.1, 0.3)
DELAYED = 0.5
"""Strength of the delayed copy."""
REVERBERANCE, ROOM_SIZE = 90.5, 90.5
SHARE = 0.7
"""Of the seconds that each distortion happens to."""
OFFSET_S = 0.2
"""How far from a second its twin may start."""
HELD_OUT = 20
"""Every so-manieth recording, or the last of fewer, is never trained on: it measures the training."""
QUIET = 1e-3
"""RMS under which a second is not trained on."""
GRID_S = 0.25
"""Distance of the seconds to draw from; where exactly one lies is drawn too."""
NOISE_S = 30.0
"""Length of the white noise that is reverberant."""

Float32 = NDArray[np.float32]


def reverberant(samples: Float32) -> Float32:
    """Samples at 8 kHz through SoX's reverb, as loud as they were."""
    from sox import Transformer

    loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if loudness == 0.0:
        return samples
    quiet = (samples * np.float32(0.05 / loudness)).clip(-0.5, 0.5)
    effect = Transformer().reverb(reverberance=REVERBERANCE, room_scale=ROOM_SIZE)
    wet = np.asarray(effect.build_array(input_array=quiet, sample_rate_in=SAMPLE_RATE), np.float64)
    wet = wet.reshape(len(wet), -1)[:, 0]
    wet = np.pad(wet, (0, max(0, len(samples) - len(wet))))[: len(samples)]
    return (wet * (loudness / max(float(np.sqrt(np.mean(np.square(wet)))), 1e-12))).astype(np.float32)


def _prepared(path: Path) -> tuple[tuple[Int16, Int16], str]:
    """A recording at 8 kHz, dry and reverberant; empty, with the reason, where there is none."""
    nothing = np.empty(0, np.int16)
    try:
        samples = at_8_khz(read_audio(path))
    except AudioError as error:
        return (nothing, nothing), str(error)
    if len(samples) < 2 * WINDOW or not np.any(samples):
        return (nothing, nothing), f"{shown(path)}: shorter than 2 s, or silent"
    both = np.stack([samples, reverberant(samples)])
    both *= np.float32(0.9 / np.abs(both).max())
    dry, wet = np.rint(both * 32767).astype(np.int16)
    return (dry, wet), ""


def key_of(paths: Sequence[Path]) -> str:
    """Tells one set of recordings from another, by their names and sizes."""
    return prepared.key_of(paths, [REVERBERANCE, ROOM_SIZE])


@dataclass(frozen=True)
class Recordings:
    """Recordings, dry and reverberant, one after the other in two files.

    Attributes
    ----------
    dry, wet : int16 (n,)
    starts : int64 (r + 1,)
        Where each recording starts, and the length of all.
    """

    dry: NDArray[np.int16]
    wet: NDArray[np.int16]
    starts: NDArray[np.int64]

    @classmethod
    def prepare(cls, paths: Sequence[Path], folder: Path, *, jobs: int, progress: Progress) -> Recordings:
        """Those in files of audio, or what an earlier call with the same files left in `folder`.

        Raises
        ------
        ModelError
            If there is nothing to train on.
        """
        (dry, wet), starts = prepared.prepare(
            paths, _prepared, ("dry", "wet"), folder / key_of(paths), least=2, jobs=jobs, progress=progress
        )
        return cls(dry, wet, starts)

    def places(self, held_out: bool) -> NDArray[np.int64]:
        """Samples at which seconds with content begin that leave room for a twin, (k,)."""
        step, margin = round(GRID_S * SAMPLE_RATE), round((OFFSET_S + GRID_S) * SAMPLE_RATE)
        found, every = [], min(HELD_OUT, len(self.starts) - 1)
        for k, (a, b) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            if (k % every == every - 1) != held_out:
                continue
            at = np.arange(a + margin, b - WINDOW - margin, step)
            power = np.add.reduceat(np.square(self.dry[a:b].astype(np.float32)), np.arange(0, b - a, step))
            total = np.concatenate([[0.0], np.cumsum(power, dtype=np.float64)])
            first = (at - a) // step
            last = np.minimum(first + WINDOW // step, len(power))
            loud = np.sqrt((total[last] - total[first]) / WINDOW) > QUIET * 32767
            found.append(at[loud])
        return np.concatenate(found) if found else np.empty(0, np.int64)


class Pairs:
    """Draws batches from recordings."""

    def __init__(self, recordings: Recordings, *, held_out: bool = False) -> None:
        self.recordings = recordings
        self.places = recordings.places(held_out)
        if not len(self.places):
            raise ModelError("no second of the audio has content to train on: give more files")
        white = np.random.default_rng(0).standard_normal(round(NOISE_S * SAMPLE_RATE)).astype(np.float32)
        self._noise = white, reverberant(white)

    def draw(self, pairs: int, rng: Generator) -> Float32:
        """Windows (2 pairs, 256, 32): seconds as they are, then the same ones spoilt."""
        cut = np.empty((2 * pairs, WINDOW), np.float32)
        grid, offset = round(GRID_S * SAMPLE_RATE), round(OFFSET_S * SAMPLE_RATE)
        for i, place in enumerate(self.places[rng.integers(len(self.places), size=pairs)]):
            at = int(place) + int(rng.integers(-grid, grid))
            cut[i] = self.recordings.dry[at : at + WINDOW]
            cut[pairs + i] = self._spoilt(at + int(rng.integers(-offset, offset + 1)), rng)
        return log_mel(cut)

    def _spoilt(self, at: int, rng: Generator) -> Float32:
        noisy, delayed, in_room = rng.random(3) < SHARE
        samples = self.recordings.wet if in_room else self.recordings.dry
        cut = samples[at : at + WINDOW].astype(np.float32)
        spread = float(cut.std())
        if noisy:
            noise = self._noise[int(in_room)]
            first = int(rng.integers(len(noise) - WINDOW))
            cut += np.float32(spread * rng.uniform(*NOISE_RATIO)) * noise[first : first + WINDOW]
        if delayed:
            delay = round(rng.uniform(*DELAY_S) * SAMPLE_RATE)
            starts = self.recordings.starts
            begin = int(starts[np.searchsorted(starts, at, side="right") - 1])
            before = samples[max(begin, at - delay) : max(begin, at - delay + WINDOW)]
            cut[WINDOW - len(before) :] += np.float32(DELAYED) * before
        return cut
