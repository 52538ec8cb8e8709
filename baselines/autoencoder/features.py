"""Clips of 4 s at 16 kHz -> log-mel spectrograms of 64 bands and 376 frames, as Singh (2025) has them (section 3.2).

The article's front end, ``paper``, is at 48 kHz: Hann windows of 1024 samples every 512, 64 bands up to 24 kHz. Its
text counts 374 frames, its network is fed 376: those of a transform whose first window is centred on the first
sample, the ends mirrored. So is this one. ``16k`` takes a window every 170 samples at 16 kHz, which makes 376 frames
too (the 377th is left out), and so the article's five columns of code. At 512 it would be 126 frames and one column,
which instance normalisation sets to zero.

Open in the article and chosen here: triangles of the usual mel scale (O'Shaughnessy 1987), power, the natural
logarithm, and what is added before it. The bench gives 16 kHz; ``paper`` interpolates, and its bands over 8 kHz hear
nothing.

*Normalised* takes off each band's mean over the clip and divides by its standard deviation (section 3.4.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import rfft

from baselines.encoders.features import mel
from samaf.audio import SAMPLE_RATE

CLIP_S = 4.0
CLIP = round(CLIP_S * SAMPLE_RATE)
"""Samples of a clip."""
BANDS, FRAMES = 64, 376
FFT = 1024
FLOOR = 1e-6
"""Added to a band's power, which is 65536 for a sine at full scale."""
LEAST_SPREAD = 0.1
"""A band's standard deviation over the clip counts as this much at least: a band that hears nothing stays at 0."""
_AT_ONCE = 8

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class FrontEnd:
    """A transform.

    Attributes
    ----------
    rate
        Samples per second that it works at.
    hop
        Samples from window to window.
    """

    rate: int
    hop: int

    @cached_property
    def filters(self) -> Float32:
        """Weights of the transform's bins in each band, (513, 64)."""
        edges = 700.0 * np.expm1(np.linspace(0.0, mel(np.array(self.rate / 2)), BANDS + 2) / 1127.0)
        bins = np.arange(FFT // 2 + 1)[:, None] * (self.rate / FFT)
        low, centre, high = edges[:-2], edges[1:-1], edges[2:]
        triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
        return np.maximum(0.0, triangles).astype(np.float32)

    def log_mel(self, clips: Float32) -> Float32:
        """Spectrograms (n, 64, 376), natural logarithms of power, of clips (n, 64000) at 16 kHz."""
        out = np.empty((len(clips), BANDS, FRAMES), np.float32)
        for at in range(0, len(clips), _AT_ONCE):
            samples = clips[at : at + _AT_ONCE]
            if self.rate != SAMPLE_RATE:
                samples = np.stack([soxr.resample(clip, SAMPLE_RATE, self.rate) for clip in samples])
            padded = np.pad(samples, ((0, 0), (FFT // 2, FFT // 2)), mode="reflect")
            frames = np.lib.stride_tricks.sliding_window_view(padded, FFT, axis=1)[:, :: self.hop]
            spectrum = rfft(frames[:, :FRAMES] * TAPER)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            out[at : at + _AT_ONCE] = np.log(power @ self.filters + np.float32(FLOOR)).swapaxes(1, 2)
        return out


TAPER = np.hanning(FFT + 1)[:-1].astype(np.float32)
"""The window of the transform."""
TRANSFORMS = {"16k": FrontEnd(SAMPLE_RATE, 170), "paper": FrontEnd(48000, 512)}
"""By the names of :data:`baselines.autoencoder.FRONT_ENDS`."""


def normalised(spectrograms: Float32) -> tuple[Float32, Float32, Float32]:
    """Spectrograms (n, 64, 376) whose bands have mean 0 and spread 1, and their means and spreads, (n, 64, 1)."""
    mean = spectrograms.mean(axis=2, keepdims=True)
    spread = np.maximum(spectrograms.std(axis=2, keepdims=True), np.float32(LEAST_SPREAD))
    return (spectrograms - mean) / spread, mean, spread


def inputs_of(clips: Float32, front_end: str, features: str) -> Float32:
    """What a network is fed, (n, 64, 376), of clips (n, 64000)."""
    spectrograms = TRANSFORMS[front_end].log_mel(clips)
    return normalised(spectrograms)[0] if features == "normalised" else spectrograms


def clips_of(samples: Float32, hop: int) -> Float32:
    """The clips of a recording every `hop` samples, (n, 64000); a view. None where it is shorter than one."""
    if len(samples) < CLIP:
        return np.empty((0, CLIP), np.float32)
    return np.lib.stride_tricks.sliding_window_view(samples, CLIP)[::hop]
