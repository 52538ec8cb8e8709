"""Distortions for training: what happens to audio between the record and the query.

A chunk goes the way of a real recording: played faster or slower, through a room, among noise, into a microphone
with its own colour, clipped, coded, at some level. Each step is drawn with its probability; every draw comes
from the generator handed in, so that a rendering is reproducible.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE, probe, read_audio
from samaf.errors import AudioError

Float32 = NDArray[np.float32]

SLOWEST = 0.93
"""The smallest factor of speed and tempo drawn."""
_SILENCE = 1e-5
"""RMS under which a stretch of noise is taken for silence and drawn again."""


def rms(x: Float32) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)) + 1e-20))


def fast_length(n: int) -> int:
    """The smallest length >= n that has no prime factor above 5: transforms of it are fast."""
    best = 1 << (n - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            rest = -(-n // three)
            best = min(best, three << (rest - 1).bit_length())
            three *= 3
        five *= 5
    return best


@dataclass(frozen=True)
class Sources:
    """Recordings that spoil a chunk. An empty list is replaced by synthetic noise or rooms.

    Attributes
    ----------
    noise, rooms
        Audio files with noise, and with impulse responses of rooms and devices.
    voices
        Audio files for babble: usually the training audio itself.
    """

    noise: Sequence[Path] = field(default_factory=list)
    rooms: Sequence[Path] = field(default_factory=list)
    voices: Sequence[Path] = field(default_factory=list)


def excerpt(path: Path, n: int, rng: Generator) -> Float32:
    """`n` samples of a file from a random place, repeated where the file is shorter."""
    duration_s = probe(path).duration_s or 0.0
    need_s = n / SAMPLE_RATE
    start_s = float(rng.uniform(0.0, max(0.0, duration_s - need_s - 0.1)))
    x = read_audio(path, start_s=start_s, end_s=start_s + need_s)
    if len(x) < n:
        x = np.roll(np.resize(x, n), int(rng.integers(n)))
    return x[:n]


def coloured_noise(n: int, rng: Generator) -> Float32:
    """Noise whose power falls by 0 (white) to 6 (brown) dB per octave."""
    spectrum = np.fft.rfft(rng.standard_normal(n).astype(np.float32))
    slope = rng.uniform(0.0, 1.0)
    spectrum *= np.maximum(1.0, np.arange(len(spectrum))).astype(np.float32) ** np.float32(-slope)
    return np.fft.irfft(spectrum, n).astype(np.float32)


def draw_noise(n: int, sources: Sources, rng: Generator) -> Float32:
    """A stretch of recorded noise, babble of 2-5 voices, or coloured noise."""
    kind = rng.random()
    for _ in range(4):
        x = None
        try:
            if kind < 0.7 and sources.noise:
                x = excerpt(sources.noise[int(rng.integers(len(sources.noise)))], n, rng)
            elif kind < 0.9 and sources.voices:
                x = np.zeros(n, np.float32)
                for _ in range(int(rng.integers(2, 6))):
                    voice = excerpt(sources.voices[int(rng.integers(len(sources.voices)))], n, rng)
                    x += voice / np.float32(max(rms(voice), _SILENCE))
        except AudioError:
            continue
        if x is None:
            break
        if rms(x) > _SILENCE:
            return x
    return coloured_noise(n, rng)


def draw_room(sources: Sources, rng: Generator) -> Float32:
    """An impulse response with the direct sound first, at most 2 s; synthetic where there are no recordings."""
    if len(sources.rooms):
        try:
            h = read_audio(sources.rooms[int(rng.integers(len(sources.rooms)))])
            h = h[int(np.argmax(np.abs(h))) :][: 2 * SAMPLE_RATE]
            if rms(h) > 0:
                return h / np.abs(h).max()
        except AudioError:
            pass
    decay_s = rng.uniform(0.1, 1.0)
    t = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(t)) * 10.0 ** (-3.0 * t / decay_s) * rng.uniform(0.02, 0.2)
    tail[0] = 1.0
    return tail.astype(np.float32)


def draw_colour(bins: int, rng: Generator) -> Float32:
    """Gain over frequency (0 to 8 kHz) of a microphone or a line: ripple, tilt, and often a narrow band."""
    hz = np.linspace(0.0, SAMPLE_RATE / 2, bins)
    octave = np.log2(np.maximum(hz, 50.0) / 1000.0)
    knots = np.linspace(octave[0], octave[-1], 8)
    decibel = np.interp(octave, knots, rng.uniform(-6.0, 6.0, len(knots))) + rng.uniform(-3.0, 3.0) * octave
    if rng.random() < 0.5:
        low, high = rng.uniform(60.0, 500.0), rng.uniform(2500.0, 7500.0)
        steep = rng.uniform(12.0, 48.0)
        decibel -= steep * np.maximum(0.0, np.log2(low / np.maximum(hz, 1.0)))
        decibel -= steep * np.maximum(0.0, np.log2(np.maximum(hz, 1.0) / high))
    return (10.0 ** (np.maximum(decibel, -80.0) / 20.0)).astype(np.float32)


def filtered(
    x: Float32, response: Float32 | None, colour_rng: Generator | None, echo: tuple[float, float] | None
) -> Float32:
    """Convolution with an impulse response, a colour and an echo, in one transform. Length and RMS stay."""
    tail = (len(response) if response is not None else 0) + (int(echo[0] * SAMPLE_RATE) if echo else 0)
    size = fast_length(len(x) + max(tail, 2048))
    spectrum = np.fft.rfft(x, size)
    if response is not None:
        spectrum *= np.fft.rfft(response, size)
    if colour_rng is not None:
        gain = draw_colour(2049, colour_rng)
        spectrum *= np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(gain)), gain).astype(
            np.float32
        )
    if echo:
        delay = int(echo[0] * SAMPLE_RATE)
        turn = np.exp(-2j * np.pi * delay * np.arange(len(spectrum)) / size)
        spectrum *= (1.0 + echo[1] * turn).astype(np.complex64)
    y = np.fft.irfft(spectrum, size)[: len(x)].astype(np.float32)
    return y * np.float32(rms(x) / max(rms(y), 1e-9))


_CODECS = (
    ("WAV", "GSM610", 8000),
    ("WAV", "ULAW", 8000),
    ("WAV", "IMA_ADPCM", 8000),
    ("OGG", "OPUS", 16000),
    ("OGG", "VORBIS", 16000),
    ("MP3", "MPEG_LAYER_III", 16000),
)


def coded(x: Float32, rng: Generator) -> Float32:
    """Through a lossy codec at a low rate; GSM, mu-law and ADPCM at 8 kHz. Length stays."""
    container, subtype, rate = _CODECS[rng.integers(len(_CODECS))]
    peak = max(1.0, float(np.abs(x).max()) / 0.9)
    narrow = soxr.resample(x / peak, SAMPLE_RATE, rate, quality="MQ") if rate != SAMPLE_RATE else x / peak
    buffer = io.BytesIO()
    level = {} if container == "WAV" else {"compression_level": float(rng.uniform(0.7, 0.99))}
    soundfile.write(buffer, narrow, rate, format=container, subtype=subtype, **level)
    buffer.seek(0)
    y, rate = soundfile.read(buffer, dtype="float32")
    if rate != SAMPLE_RATE:
        y = soxr.resample(y, rate, SAMPLE_RATE, quality="MQ")
    if len(y) < len(x):
        y = np.concatenate([y, np.zeros(len(x) - len(y), np.float32)])
    return y[: len(x)] * np.float32(peak)


def draw_factors(rng: Generator) -> tuple[float, float]:
    """(speed, tempo) of a rendering: half the time none, else speed, pitch (speed undone by tempo) or tempo."""
    kind = rng.random()
    if kind < 0.45:
        return 1.0, 1.0
    if kind < 0.8:
        return float(rng.uniform(0.94, 1.06)), 1.0
    if kind < 0.9:
        speed = float(2.0 ** (rng.uniform(-80.0, 80.0) / 1200.0))
        return speed, 1.0 / speed
    return 1.0, float(rng.uniform(SLOWEST, 2.0 - SLOWEST))


def distort(clean: Float32, speed: float, sources: Sources, rng: Generator) -> Float32:
    """One distorted rendering of a chunk, played `speed` times as fast (time and pitch together)."""
    x = clean
    if speed != 1.0:
        x = soxr.resample(x, SAMPLE_RATE * speed, SAMPLE_RATE, quality="MQ")
    loudness = rms(x)
    if loudness < _SILENCE:
        return x
    x = x / np.float32(loudness)
    if rng.random() < 0.5:
        echo = (rng.uniform(0.05, 0.4), rng.uniform(0.2, 0.7)) if rng.random() < 0.15 else None
        x = filtered(x, draw_room(sources, rng), None, echo)
    if rng.random() < 0.85:
        noise = draw_noise(len(x), sources, rng)
        x = x + noise * np.float32(10.0 ** (-rng.uniform(-8.0, 20.0) / 20.0) / max(rms(noise), _SILENCE))
    if rng.random() < 0.6:
        x = filtered(x, draw_room(sources, rng) if rng.random() < 0.2 else None, rng, None)
    if rng.random() < 0.15:
        limit = np.float32(rms(x) * rng.uniform(0.5, 2.5))
        x = np.clip(x, -limit, limit)
    if rng.random() < 0.15:
        x = coded(x * np.float32(0.1), rng)
    level = 10.0 ** (rng.uniform(-45.0, -12.0) / 20.0)
    return (x * np.float32(level / max(rms(x), _SILENCE))).astype(np.float32)
