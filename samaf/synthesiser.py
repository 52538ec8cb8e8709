"""A synthesiser: pieces of music from recipes, the same each time, with numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """A sound with a pitch: strengths of its partials, how they are tuned, how a note begins and dies away."""

    partials: tuple[float, ...]
    stretch: float = 0.0  # 0: harmonic; bells and bars have partials further apart
    attack_s: float = 0.01
    decay_s: float = 0.5
    vibrato: float = 0.0

    def note(self, pitch_hz: float, length_s: float, rng: np.random.Generator) -> Samples:
        """One note, with phases of its own."""
        t = np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE
        envelope = np.minimum(t / self.attack_s, 1) * np.exp(-t / self.decay_s)
        envelope *= np.minimum((length_s - t) / 0.02, 1)
        wobble = self.vibrato * np.sin(2 * np.pi * 5.5 * t) / 5.5
        out = np.zeros(len(t))
        for k, strength in enumerate(self.partials, start=1):
            hz = pitch_hz * k ** (1 + self.stretch)
            if hz < 0.47 * SAMPLE_RATE:
                fading = np.exp(-t * 0.6 * (k - 1) / self.decay_s / 4)
                out += strength * fading * np.sin(2 * np.pi * hz * (t + wobble) + rng.uniform(0, 2 * np.pi))
        return envelope * out


PIANO = Voice((1, 0.6, 0.4, 0.25, 0.2, 0.12, 0.08, 0.05), 0.004, 0.004, 0.7)
ORGAN = Voice((1, 0.8, 0.1, 0.6, 0.05, 0.3, 0.02, 0.4), 0.0, 0.03, 6.0)
BELL = Voice((0.6, 1.0, 0.5, 0.7, 0.3, 0.4, 0.2), 0.17, 0.002, 1.4)
MARIMBA = Voice((1, 0.1, 0.05, 0.4), 0.0, 0.003, 0.18)
STRINGS = Voice(tuple(1 / k for k in range(1, 16)), 0.0, 0.12, 4.0, 0.006)
BRASS = Voice((0.7, 1, 0.95, 0.8, 0.6, 0.45, 0.3, 0.22, 0.15, 0.1), 0.0, 0.05, 2.0, 0.003)
FLUTE = Voice((1, 0.25, 0.08, 0.03), 0.0, 0.06, 3.0, 0.005)
REED = Voice((1, 0.02, 0.75, 0.03, 0.5, 0.02, 0.35, 0.02, 0.2), 0.0, 0.04, 3.0, 0.003)
PLUCK = Voice(tuple(0.85**k for k in range(12)), 0.0, 0.003, 0.35)
BASS = Voice((1, 0.7, 0.4, 0.2, 0.1), 0.0, 0.01, 0.8)

MAJOR, MINOR, PENTATONIC, WHOLE = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 4, 7, 9),
    (0, 2, 4, 6, 8, 10),
)


@dataclass(frozen=True)
class Piece:
    """A recipe: voices over a scale, notes per second, drums."""

    title: str
    lead: Voice
    chords: Voice
    scale: tuple[int, ...]
    root_hz: float
    pace: float
    drums: float = 0.0
    length_s: float = 25.0

    def play(self) -> Samples:
        """The piece, the same each time."""
        rng = np.random.default_rng([ord(c) for c in self.title])
        out = np.zeros(round(self.length_s * SAMPLE_RATE))
        self._melody(out, rng, self.lead, 2.0, self.pace, 1.0)
        self._melody(out, rng, BASS, 0.5, self.pace / 3, 0.9)
        at = 0.0
        while at < self.length_s:
            length = float(rng.choice([1.0, 1.5, 2.0])) * 2.5 / self.pace
            start = int(rng.integers(len(self.scale)))
            for step in (0, 2, 4, 6)[: int(rng.integers(3, 5))]:
                _mix(out, at, 0.3 * self.chords.note(self._pitch(start + step), length, rng))
            at += length
        if self.drums:
            self._beat(out, rng)
        room = echo(out, 0.031, 0.25) + echo(out, 0.073, 0.18) - out
        return 0.6 * room / np.abs(room).max()

    def _pitch(self, step: int) -> float:
        octave, degree = divmod(step, len(self.scale))
        return float(self.root_hz * 2 ** (octave + self.scale[degree] / 12))

    def _melody(
        self, out: Samples, rng: np.random.Generator, voice: Voice, height: float, pace: float, level: float
    ) -> None:
        at, step = 0.0, 0
        while at < self.length_s:
            length = float(rng.choice([0.5, 1.0, 1.0, 1.5, 2.0])) / pace
            step = int(np.clip(step + rng.integers(-3, 4), -4, 9))
            if rng.random() > 0.1:
                note = voice.note(height * self._pitch(step), 1.2 * length, rng)
                _mix(out, at, level * float(rng.uniform(0.6, 1)) * note)
            at += length

    def _beat(self, out: Samples, rng: np.random.Generator) -> None:
        t = np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
        kick = np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t * 30)))) * np.exp(-t * 14)
        for beat in range(int(self.length_s * self.pace)):
            at = beat / self.pace + float(rng.normal(0, 0.004))
            if beat % 4 in (0, 2) and rng.random() < 0.9:
                _mix(out, max(at, 0), 1.5 * self.drums * kick)
            if rng.random() < 0.7:
                hiss = np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-t * rng.uniform(20, 70))
                _mix(out, max(at, 0), 0.25 * self.drums * hiss)


def echo(x: Samples, delay_s: float, level: float) -> Samples:
    """The samples and one echo of them."""
    n = round(delay_s * SAMPLE_RATE)
    return x + level * np.concatenate([np.zeros(n), x[:-n]])


def _mix(out: Samples, at_s: float, sound: Samples) -> None:
    start = round(at_s * SAMPLE_RATE)
    part = sound[: max(0, len(out) - start)]
    out[start : start + len(part)] += part
