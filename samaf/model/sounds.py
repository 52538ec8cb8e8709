"""Sounds that are no recording of anything: noise, hum, tones, sweeps, clicks and the loops of a drum machine.

Apparatus makes them, and each holds so little that some place of a library resembles it well. Calibration searches for
them as for any other kind of audio.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE
from samaf.model.augment import coloured_noise

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

Sort = Callable[[int, Generator], Float64]
"""Gives so many samples, at any level."""

MAINS_HZ = (50.0, 60.0)
HIT_S = 0.25
"""Length of a hit on a drum."""
STEPS = 16
"""Sixteenths in the bar of a drum machine."""


def draw_sound(n: int, rng: Generator) -> Float32:
    """`n` samples of a sound of any of these sorts."""
    sort = SORTS[int(rng.integers(len(SORTS)))]
    x = sort(n, rng) + _floor(n, rng)
    return (x * (10.0 ** (rng.uniform(-40.0, -6.0) / 20.0) / max(float(np.abs(x).max()), 1e-9))).astype(
        np.float32
    )


def noise(n: int, rng: Generator) -> Float64:
    """White to brown."""
    return coloured_noise(n, rng).astype(np.float64)


def hum(n: int, rng: Generator) -> Float64:
    """Harmonics of the mains, or of a motor."""
    hz = (
        MAINS_HZ[int(rng.integers(2))] * rng.integers(1, 3)
        if rng.random() < 0.5
        else rng.uniform(30.0, 200.0)
    )
    count, falls = int(rng.integers(3, 20)), rng.uniform(0.5, 2.0)
    harmonics = np.arange(1.0, count + 1.0)
    return _tones(n, hz * harmonics, harmonics**-falls, rng)


def tone(n: int, rng: Generator) -> Float64:
    """One to three tones that stand, or that stop at times, as signals of telephones do."""
    count = int(rng.integers(1, 4))
    x = _tones(n, 60.0 * 2.0 ** rng.uniform(0.0, 6.5, count), rng.uniform(0.2, 1.0, count), rng)
    if rng.random() < 0.3:
        period, on = rng.uniform(0.2, 3.0), rng.uniform(0.2, 0.9)
        x *= (np.arange(n) / SAMPLE_RATE % period) < on * period
    return x


def _tones(n: int, hz: NDArray[np.floating], levels: NDArray[np.floating], rng: Generator) -> Float64:
    t = np.arange(n) / SAMPLE_RATE
    x = np.zeros(n)
    for one, level in zip(hz, levels, strict=True):
        x += level * np.sin(2.0 * np.pi * one * t + rng.uniform(0.0, 2.0 * np.pi))
    return x


def sweep(n: int, rng: Generator) -> Float64:
    """Up or down, once or again and again."""
    low, high = rng.uniform(50.0, 600.0), rng.uniform(800.0, 7000.0)
    period = n if rng.random() < 0.5 else max(1, int(rng.uniform(0.5, 5.0) * SAMPLE_RATE))
    at = np.arange(n) % period / period
    hz = low * (high / low) ** (at if rng.random() < 0.5 else 1.0 - at)
    return np.sin(2.0 * np.pi * np.cumsum(hz) / SAMPLE_RATE)


def clicks(n: int, rng: Generator) -> Float64:
    """At even steps or at random, of a sample or of some milliseconds."""
    x = np.zeros(n)
    step = SAMPLE_RATE / rng.uniform(0.7, 25.0)
    places = np.arange(rng.uniform(0.0, min(step, n)), n, step)
    if rng.random() < 0.3:
        places = rng.uniform(0, n, len(places))
    x[places.astype(int)] = rng.uniform(0.5, 1.0, len(places))
    if rng.random() < 0.5:
        length = int(rng.uniform(0.001, 0.02) * SAMPLE_RATE)
        t = np.arange(length) / length
        x = np.convolve(x, np.sin(2.0 * np.pi * rng.uniform(1.0, 20.0) * t) * np.exp(-5.0 * t))[:n]
    return x


def drums(n: int, rng: Generator) -> Float64:
    """Bass drum, snare drum and hi-hat, one bar again and again."""
    t = np.arange(int(HIT_S * SAMPLE_RATE)) / SAMPLE_RATE
    low, falls = rng.uniform(40.0, 70.0), rng.uniform(8.0, 25.0)
    bass = np.sin(2.0 * np.pi * (low * t + rng.uniform(1.0, 3.0) * (1.0 - np.exp(-20.0 * t)))) * np.exp(
        -falls * t
    )
    snare = rng.uniform(0.3, 0.8) * rng.standard_normal(len(t)) * np.exp(-rng.uniform(15.0, 35.0) * t)
    hat = (
        np.diff(rng.standard_normal(len(t) + 1))
        * rng.uniform(0.1, 0.4)
        * np.exp(-rng.uniform(30.0, 90.0) * t)
    )
    step = 60.0 / rng.uniform(70.0, 180.0) / 4.0 * SAMPLE_RATE
    bar = rng.random((3, STEPS)) < np.array([[0.25], [0.2], [0.5]])
    bar[0, 0] = True
    x = np.zeros(n + len(t))
    for k in range(int(n / step) + 1):
        a = int(k * step)
        for hit, plays in zip((bass, snare, hat), bar[:, k % STEPS], strict=True):
            if plays:
                x[a : a + len(t)] += hit
    return x[:n]


def _floor(n: int, rng: Generator) -> Float64:
    """Noise of the apparatus, 30 to 80 dB under full scale."""
    return 10.0 ** (-rng.uniform(30.0, 80.0) / 20.0) * rng.standard_normal(n)


SORTS: tuple[Sort, ...] = (noise, hum, tone, sweep, clicks, drums)
"""All sorts, equally likely."""
