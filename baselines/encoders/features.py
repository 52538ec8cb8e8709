"""Samples at 8 kHz -> windows of a log-power mel spectrogram, as the KAIST report has them (its table 2).

Hann windows of 1024 samples every 256, 256 bands from 300 to 4000 Hz, 1 s at a time every 0.5 s. With that many
bands, the lowest lie closer than the transform's bins; a band is as wide as two bins at least, so that none is empty.
A window's values are decibels under its loudest, to -80, brought to the range -1 to 1 (Chang et al. 2021 do so too).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.sparse import csr_array

from samaf.audio import SAMPLE_RATE as READ_RATE

SAMPLE_RATE = 8000
WINDOW = SAMPLE_RATE
"""Samples of a window."""
HOP = WINDOW // 2
"""Samples from window to window."""
HOP_S = HOP / SAMPLE_RATE
BANDS = 256
LOW_HZ, HIGH_HZ = 300.0, 4000.0
FFT, FRAME_HOP = 1024, 256
FRAMES = 1 + WINDOW // FRAME_HOP
"""Frames of a window, the first centred on its first sample."""
RANGE_DB = 80.0
_AT_ONCE = 64

Float32 = NDArray[np.float32]


def mel(hz: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mel of frequencies (O'Shaughnessy 1987)."""
    return 1127.0 * np.log1p(hz / 700.0)


@cache
def filters() -> Float32:
    """Weights of the transform's bins in each band, (513, 256)."""
    edges = 700.0 * np.expm1(np.linspace(mel(np.array(LOW_HZ)), mel(np.array(HIGH_HZ)), BANDS + 2) / 1127.0)
    bins = np.arange(FFT // 2 + 1) * (SAMPLE_RATE / FFT)
    centre, bin_hz = edges[1:-1], SAMPLE_RATE / FFT
    low = np.minimum(edges[:-2], centre - bin_hz)
    high = np.maximum(edges[2:], centre + bin_hz)
    rise = (bins[:, None] - low) / (centre - low)
    fall = (high - bins[:, None]) / (high - centre)
    return np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)


def at_8_khz(samples: Float32) -> Float32:
    """Samples of the engine's rate, 16 kHz, brought to 8 kHz."""
    return soxr.resample(samples, READ_RATE, SAMPLE_RATE).astype(np.float32)


def windows_of(samples: Float32) -> Float32:
    """The windows of a recording every half second, (n, 8000); a view. None where it is shorter than one."""
    if len(samples) < WINDOW:
        return np.empty((0, WINDOW), np.float32)
    return np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]


def log_mel(windows: Float32) -> Float32:
    """Spectrograms (n, 256, 32) of windows (n, 8000)."""
    out = np.empty((len(windows), BANDS, FRAMES), np.float32)
    taper, weights = np.hanning(FFT + 1)[:-1].astype(np.float32), csr_array(filters().T)
    for at in range(0, len(windows), _AT_ONCE):
        padded = np.pad(windows[at : at + _AT_ONCE], ((0, 0), (FFT // 2, FFT // 2)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, FFT, axis=1)[:, ::FRAME_HOP][:, :FRAMES]
        spectrum = rfft(frames * taper)  # numpy's takes three times as long
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        bands = (weights @ power.reshape(-1, FFT // 2 + 1).T).reshape(BANDS, len(frames), FRAMES)
        decibel = np.float32(10.0) * np.log10(np.maximum(bands.swapaxes(0, 1), np.float32(1e-10)))
        decibel -= decibel.max(axis=(1, 2), keepdims=True)
        np.maximum(decibel, np.float32(-RANGE_DB), out=decibel)
        out[at : at + _AT_ONCE] = decibel * np.float32(2.0 / RANGE_DB) + np.float32(1.0)
    return out
