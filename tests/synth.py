"""Sounds made from nothing: the same at every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16000


def tune(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """A melody over a bass: changing notes, harmonics, envelopes, a little noise; float32, peak 0.5."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    out = np.zeros(n)
    scale = np.array([0, 2, 3, 5, 7, 8, 10, 12, 14, 15, 17, 19])
    root = 110.0 * 2 ** (rng.integers(0, 12) / 12)
    for octave, shortest, longest, level in ((1, 0.4, 1.2, 0.8), (2, 0.12, 0.5, 1.0), (4, 0.12, 0.4, 0.6)):
        weights = rng.dirichlet(np.ones(8)) * np.linspace(1.5, 0.3, 8)
        at = 0
        while at < n:
            length = int(rng.uniform(shortest, longest) * rate)
            t = np.arange(min(length, n - at)) / rate
            pitch = root * octave * 2 ** (rng.choice(scale) / 12)
            envelope = np.minimum(t / 0.01, 1) * np.exp(-t * rng.uniform(1, 6))
            phases = rng.uniform(0, 2 * np.pi, 8)
            note = sum(
                w * np.sin(2 * np.pi * pitch * k * t + phase)
                for k, (w, phase) in enumerate(zip(weights, phases, strict=True), start=1)
                if pitch * k < 0.45 * rate
            )
            out[at : at + len(t)] += level * envelope * note
            at += length
    out += 0.003 * rng.standard_normal(n)
    return (0.5 * out / max(np.abs(out).max(), 1e-9)).astype(np.float32) if n else out.astype(np.float32)


def bursts(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """Bursts of noise, each of a level and a colour of its own: unlike any tune; float32, peak 0.5."""
    rng = np.random.default_rng(seed)
    n, at = round(seconds * rate), 0
    out = np.zeros(n)
    while at < n:
        length = min(n - at, int(rng.uniform(0.05, 0.4) * rate))
        spectrum = np.fft.rfft(rng.standard_normal(length))
        hz = np.fft.rfftfreq(length, 1 / rate)
        spectrum *= np.exp(-(np.log2(np.maximum(hz, 20.0) / 200.0 / 2 ** rng.uniform(0, 4)) ** 2))
        out[at : at + length] = rng.exponential() * np.fft.irfft(spectrum, length) / np.sqrt(length)
        at += length
    return (0.5 * out / max(np.abs(out).max(), 1e-9)).astype(np.float32) if n else out.astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int = RATE, **options: str) -> Path:
    """Write samples (n,) or (n, channels) in the format of the name's ending; return the path."""
    if path.suffix == ".opus":
        options = {"format": "OGG", "subtype": "OPUS", **options}
    soundfile.write(path, samples, rate, **options)
    return path
