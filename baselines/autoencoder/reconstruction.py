"""What the autoencoder rebuilds: spectrograms, the samples heard in them, and how far both are from the original.

The article inverts the mel scale and leaves the phase to Griffin and Lim. A normalised spectrogram has lost each
band's mean and spread: those of the clip that was given, 128 further numbers, are put back, as the article must have
done.

PSNR is 10 log10(peak^2 / MSE). The article gives 51.16 dB at an MSE of .4976, which takes a peak of 255, that of
pictures of 8 bits: :data:`PICTURE_PEAK`. The usual peak is the range of the original's values: :func:`span`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from baselines.autoencoder.features import CLIP, FFT, FLOOR, FRAMES, TAPER, TRANSFORMS
from samaf.audio import SAMPLE_RATE

PICTURE_PEAK = 255.0
_AT_ONCE = 16
_INVERSIONS, _PHASES, _MOMENTUM = 100, 32, 0.99

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def rebuilt(model: Any, inputs: Float32, *, code_only: bool = False) -> Float32:
    """What a network makes of inputs (n, 64, 376).

    Parameters
    ----------
    model
        As :func:`baselines.autoencoder.network.autoencoder` makes it.
    code_only
        From the code's 320 values alone: what passes it by on its way to the decoder is set to zero.

    Returns
    -------
    float32 (n, 64, 376)
    """
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    out = np.empty_like(inputs)
    for at in range(0, len(inputs), _AT_ONCE):
        *beside, code = encoder(inputs[at : at + _AT_ONCE, :, :, None], training=False)
        if code_only:
            beside = [0.0 * x for x in beside]
        out[at : at + _AT_ONCE] = np.asarray(decoder([*beside, code], training=False))[..., 0]
    return out


def mse(original: Float32, other: Float32) -> Float64:
    """Mean squared error of each of n arrays, (n,)."""
    axes = tuple(range(1, original.ndim))
    return np.mean(np.square(original - other, dtype=np.float64), axis=axes)


def span(original: Float32) -> Float64:
    """Range of the values of each of n arrays, (n,)."""
    axes = tuple(range(1, original.ndim))
    return (original.max(axis=axes) - original.min(axis=axes)).astype(np.float64)


def psnr(error: Float64, peak: Float64 | float) -> Float64:
    """Peak signal-to-noise ratio in decibels."""
    return 10.0 * np.log10(np.square(peak) / np.maximum(error, 1e-20))


def samples_of(spectrogram: Float32, front_end: str, seed: int = 0) -> Float32:
    """Samples (64000,) at 16 kHz whose log-mel spectrogram is close to one given, (64, 376), not normalised.

    The power of the transform's bins is the smallest error's by multiplications that keep it above 0 (Lee and Seung
    2001); phases are those of the fast Griffin-Lim algorithm (Perraudin et al. 2013), from random ones on.
    """
    transform = TRANSFORMS[front_end]
    heard = np.maximum(np.exp(spectrogram.astype(np.float64)) - FLOOR, 0.0)
    filters = transform.filters.astype(np.float64)  # (513, 64)
    power = np.ones((FFT // 2 + 1, FRAMES))
    gathered, weights = filters @ heard, filters @ filters.T
    for _ in range(_INVERSIONS):
        power *= gathered / np.maximum(weights @ power, 1e-12)
    samples = _with_phases(np.sqrt(power.T), transform.hop, np.random.default_rng(seed))
    if transform.rate != SAMPLE_RATE:
        samples = soxr.resample(samples, transform.rate, SAMPLE_RATE)
    return np.pad(samples, (0, max(0, CLIP - len(samples))))[:CLIP].astype(np.float32)


def _with_phases(magnitudes: Float64, hop: int, rng: np.random.Generator) -> Float64:
    """Samples of magnitudes (frames, bins), the first and last half of a window cut off."""
    taper = TAPER.astype(np.float64)
    overlap = _added(np.broadcast_to(np.square(taper), (len(magnitudes), FFT)), hop)

    def samples(spectrum: NDArray[np.complex128]) -> Float64:
        return _added(irfft(spectrum) * taper, hop) / np.maximum(overlap, 1e-3)

    def spectrum(heard: Float64) -> NDArray[np.complex128]:
        return rfft(np.lib.stride_tricks.sliding_window_view(heard, FFT)[::hop] * taper)

    before = np.zeros(magnitudes.shape, complex)
    phases = np.exp(2j * np.pi * rng.random(magnitudes.shape))
    for _ in range(_PHASES):
        now = spectrum(samples(magnitudes * phases))
        phases = now + _MOMENTUM * (now - before)
        phases /= np.maximum(np.abs(phases), 1e-12)
        before = now
    return samples(magnitudes * phases)[FFT // 2 : -FFT // 2]


def _added(frames: Float64, hop: int) -> Float64:
    """The sum of frames (n, 1024), each `hop` samples after the one before."""
    out = np.zeros(hop * (len(frames) - 1) + FFT)
    for number, frame in enumerate(frames):
        out[number * hop : number * hop + FFT] += frame
    return out
