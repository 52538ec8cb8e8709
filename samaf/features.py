"""Samples -> frames: the 64-band log-mel front end and the 13-coefficient MFCC.

Both turn 16 kHz mono samples into one frame every 10 ms. Frame ``k`` of a front end is centred at
``10 (k + 1/2)`` ms with the edges zero-padded, so that ``T`` seconds give ``100 T`` frames and a window of
1 s has exactly 100. Beside its values, each frame has a *level*: the mean square of what the front end hears,
by which the encoder tells a window without content. Neither depends on how the samples come: a front end that is
pushed blocks of any sizes gives the same frames, bit for bit.

Examples
--------
>>> import numpy as np
>>> from samaf.features import log_mel
>>> frames, level = log_mel(np.zeros(16000, np.float32))
>>> frames.shape, level.shape
((100, 64), (100,))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE

HOP = SAMPLE_RATE // 100
"""Samples from one frame to the next: 10 ms."""
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
WINDOW_FRAMES = FRAMES_PER_SECOND
"""Frames of one hashed window: 1 s."""

MEL_BANDS = 64
MEL_FRAME = 1024
MEL_LOW_HZ = 150.0
MEL_HIGH_HZ = 7600.0
MEL_FLOOR = 1e-10
"""Added to band power before the logarithm: 28 dB under one band of noise at -75 dBFS."""

MFCC_COEFFICIENTS = 13
MFCC_FRAME = 400
MFCC_FFT = 512
MFCC_BANDS = 26
MFCC_LIFTER = 22
MFCC_PREEMPHASIS = 0.97

DYNAMIC_RANGE_NATS = 11.0
"""A window's values are floored this far below its maximum: 48 dB of power."""
NORMALISED_SCALE = 3.0

_CHUNK = 128
"""Frames transformed at once: they and their spectra stay in the second-level cache."""
_GROUP = 16
"""Filters multiplied at once."""

Float32 = NDArray[np.float32]


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mel scale of O'Shaughnessy (1987), as HTK and python_speech_features use it."""
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of :func:`hz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


class FrontEnd(Protocol):
    """A streaming front end: samples in, frames out as soon as they are complete."""

    n_values: int
    lookahead: int
    """Samples after a frame's own 10 ms that it hears: it is complete when they are there."""

    def push(self, samples: Float32) -> tuple[Float32, Float32]:
        """Take any number of samples; return the newly complete ``(frames (k, n_values), levels (k,))``."""
        ...

    def finish(self) -> tuple[Float32, Float32]:
        """Pad the end with zeros and return the last frames. The stream takes no samples after it."""
        ...


class _Framer:
    """Cuts a stream of samples into overlapping frames of `length` samples every :data:`HOP` samples.

    `lead` zeros go before the first sample. At the end, zeros complete every frame whose centre lies in the
    signal (``n // HOP`` frames in all for ``lead = length / 2 - HOP / 2``).
    """

    def __init__(self, length: int, lead: int, dtype: type) -> None:
        self.length = length
        self.rest: NDArray = np.zeros(lead, dtype)
        self.n_samples = 0
        self.n_frames = 0

    def push(self, samples: NDArray) -> NDArray:
        """New complete frames, a strided read-only view of shape (k, length)."""
        data = np.concatenate([self.rest, samples.astype(self.rest.dtype, copy=False)])
        self.n_samples += len(samples)
        return self._cut(data, max(0, (len(data) - self.length) // HOP + 1))

    def finish(self, n_frames: int) -> NDArray:
        """The frames still missing to `n_frames`, completed with zeros."""
        missing = max(0, n_frames - self.n_frames)
        short = max(0, (missing - 1) * HOP + self.length - len(self.rest)) if missing else 0
        return self._cut(np.concatenate([self.rest, np.zeros(short, self.rest.dtype)]), missing)

    def _cut(self, data: NDArray, count: int) -> NDArray:
        if count == 0:
            self.rest = data
            return np.empty((0, self.length), data.dtype)
        self.rest = data[count * HOP :].copy()
        self.n_frames += count
        return np.lib.stride_tricks.sliding_window_view(data, self.length)[::HOP][:count]


class _Filters:
    """A bank of filters over spectra, in order of frequency.

    Filters that are neighbours hear the same part of the spectrum, so a group of them is multiplied with that part: a
    fraction of the whole product, and small enough to stay on this thread (see :mod:`samaf.products`). Each spectrum is
    multiplied by itself: in a product of matrices, a row's last digits depend on how many rows there are.

    Parameters
    ----------
    filters : (bins, n)
        Zero where a filter hears nothing.
    """

    def __init__(self, filters: NDArray) -> None:
        self._groups = []
        for at in range(0, filters.shape[1], _GROUP):
            group = slice(at, at + _GROUP)
            heard = np.flatnonzero(filters[:, group].any(axis=1))
            bins = slice(heard[0], heard[-1] + 1)
            self._groups.append((bins, group, np.ascontiguousarray(filters[bins, group])))

    def apply(self, power: NDArray, out: NDArray) -> None:
        """Write what each filter hears of power spectra (k, bins) to `out` (k, n)."""
        for bins, group, filters in self._groups:
            np.matmul(power[:, None, bins], filters, out=out[:, None, group])


@cache
def _mel_tables() -> tuple[Float32, _Filters, slice, Float32]:
    """Analysis window (1024,); filters; in-band bins, and weights by which they sum up to the samples' mean square."""
    window = np.hanning(MEL_FRAME + 1)[:-1]
    edges = mel_to_hz(
        np.linspace(hz_to_mel(np.array(MEL_LOW_HZ)), hz_to_mel(np.array(MEL_HIGH_HZ)), MEL_BANDS + 2)
    )
    bins = np.arange(MEL_FRAME // 2 + 1) * SAMPLE_RATE / MEL_FRAME
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rise, fall))
    in_band = slice(*np.searchsorted(bins, [MEL_LOW_HZ, MEL_HIGH_HZ]))
    weights = np.full(in_band.stop - in_band.start, 2.0 / (MEL_FRAME * np.sum(window**2)), np.float32)
    return window.astype(np.float32), _Filters(triangles.astype(np.float32)), in_band, weights


class LogMel:
    """Streaming 64-band log-mel front end: 150-7600 Hz, 64 ms Hann window, 10 ms hop, natural logarithm."""

    n_values = MEL_BANDS
    lookahead = MEL_FRAME // 2 - HOP // 2

    def __init__(self) -> None:
        self._framer = _Framer(MEL_FRAME, self.lookahead, np.float32)

    def push(self, samples: Float32) -> tuple[Float32, Float32]:
        """See :meth:`FrontEnd.push`."""
        return self._transform(self._framer.push(samples))

    def finish(self) -> tuple[Float32, Float32]:
        """See :meth:`FrontEnd.finish`."""
        return self._transform(self._framer.finish(self._framer.n_samples // HOP))

    @staticmethod
    def _transform(cut: NDArray) -> tuple[Float32, Float32]:
        window, filters, in_band, weights = _mel_tables()
        values, level = np.empty((len(cut), MEL_BANDS), np.float32), np.empty(len(cut), np.float32)
        for a in range(0, len(cut), _CHUNK):
            spectrum = np.fft.rfft(cut[a : a + _CHUNK] * window)
            parts = spectrum.view(np.float32)
            np.multiply(parts, parts, out=parts)
            power = parts[:, 0::2] + parts[:, 1::2]
            filters.apply(power, values[a : a + _CHUNK])
            np.vecdot(power[:, in_band], weights, out=level[a : a + _CHUNK])
        values += np.float32(MEL_FLOOR)
        return np.log(values, out=values), level


@cache
def _mfcc_tables() -> tuple[_Filters, NDArray[np.float64]]:
    """Filters, and the cosine transform with lifter (26, 13)."""
    mel = np.linspace(0.0, hz_to_mel(np.array(SAMPLE_RATE / 2)), MFCC_BANDS + 2)
    edges = np.floor((MFCC_FFT + 1) * mel_to_hz(mel) / SAMPLE_RATE)
    bins = np.arange(MFCC_FFT // 2 + 1)
    filters = np.zeros((len(bins), MFCC_BANDS))
    for j in range(MFCC_BANDS):
        low, mid, high = edges[j : j + 3]
        rising = (bins >= low) & (bins < mid)
        falling = (bins >= mid) & (bins < high)
        filters[rising, j] = (bins[rising] - low) / (mid - low)
        filters[falling, j] = (high - bins[falling]) / (high - mid)
    band = np.arange(MFCC_BANDS)
    order = np.arange(MFCC_COEFFICIENTS)
    cosines = np.cos(np.pi * order * (2 * band[:, None] + 1) / (2 * MFCC_BANDS)) * np.sqrt(2.0 / MFCC_BANDS)
    cosines[:, 0] /= np.sqrt(2.0)
    lifter = 1.0 + MFCC_LIFTER / 2.0 * np.sin(np.pi * order / MFCC_LIFTER)
    return _Filters(filters), cosines * lifter


class Mfcc:
    """Streaming 13-coefficient MFCC front end, the one of the SAMAF paper (Baez-Suarez et al. 2020).

    The arithmetic is that of ``python_speech_features.mfcc`` with its defaults (25 ms frames, 10 ms hop,
    26 bands, 512-point transform, pre-emphasis 0.97, lifter 22, first coefficient the log energy).

    Parameters
    ----------
    centred
        Frame ``k`` is centred at 10 (k + 1/2) ms, as the engine wants it. ``False`` starts it at 10 k ms and
        pads the end as python_speech_features does.
    """

    n_values = MFCC_COEFFICIENTS

    def __init__(self, *, centred: bool = True) -> None:
        self.centred = centred
        lead = MFCC_FRAME // 2 - HOP // 2 if centred else 0
        self.lookahead = MFCC_FRAME - HOP - lead
        self._framer = _Framer(MFCC_FRAME, lead, np.float64)
        self._last = 0.0

    def push(self, samples: Float32) -> tuple[Float32, Float32]:
        """See :meth:`FrontEnd.push`."""
        if len(samples) == 0:
            return self._transform(self._framer.push(samples))
        data = samples.astype(np.float64)
        emphasised = data - MFCC_PREEMPHASIS * np.concatenate([[self._last], data[:-1]])
        self._last = float(data[-1])
        return self._transform(self._framer.push(emphasised))

    def finish(self) -> tuple[Float32, Float32]:
        """See :meth:`FrontEnd.finish`."""
        n = self._framer.n_samples
        frames = n // HOP if self.centred else 1 + max(0, -(-(n - MFCC_FRAME) // HOP))
        return self._transform(self._framer.finish(frames))

    @staticmethod
    def _transform(cut: NDArray) -> tuple[Float32, Float32]:
        filters, cosines = _mfcc_tables()
        values = np.empty((len(cut), MFCC_COEFFICIENTS), np.float32)
        level = np.empty(len(cut), np.float32)
        tiny = np.finfo(np.float64).eps
        for a in range(0, len(cut), _CHUNK):
            chunk = cut[a : a + _CHUNK]
            spectrum = np.fft.rfft(chunk, MFCC_FFT)
            power = (spectrum.real**2 + spectrum.imag**2) / MFCC_FFT
            energy = power.sum(axis=1)
            bands = np.empty((len(power), MFCC_BANDS))
            filters.apply(power, bands)
            coefficients = (np.log(np.where(bands == 0.0, tiny, bands))[:, None] @ cosines)[:, 0]
            coefficients[:, 0] = np.log(np.where(energy == 0.0, tiny, energy))
            values[a : a + _CHUNK] = coefficients
            level[a : a + _CHUNK] = np.mean(chunk**2, axis=1)
        return values, level


def frames_of(front_end: FrontEnd, samples: Float32) -> tuple[Float32, Float32]:
    """Run a fresh front end over a whole signal; return ``(frames (n, n_values), levels (n,))``."""
    head, tail = front_end.push(samples), front_end.finish()
    return np.concatenate([head[0], tail[0]]), np.concatenate([head[1], tail[1]])


def log_mel(samples: Float32) -> tuple[Float32, Float32]:
    """Log-mel frames of a whole signal.

    Parameters
    ----------
    samples
        16 kHz mono, float32, shape (n,).

    Returns
    -------
    frames : float32 (n // 160, 64)
        Natural logarithm of band power.
    level : float32 (n // 160,)
        Mean square of the samples between 150 and 7600 Hz, over the frame's 64 ms.
    """
    return frames_of(LogMel(), samples)


def restored_log_mel(frames: Float32, levels: Float32, speed: float) -> tuple[Float32, Float32]:
    """Log-mel frames of audio that was played at a speed, as they would be at its own, without decoding it anew.

    Time is stretched and bands are shifted, both by linear interpolation. What lies beyond the outermost bands is
    taken to be as loud as they are. Near enough to tell whether a speed is worth a closer look.

    Parameters
    ----------
    frames, levels
        As :func:`log_mel` gives them, (n, 64) and (n,).
    speed
        1.05 for audio that was played 5 % faster.

    Returns
    -------
    frames, levels
        Of ``round(speed n)`` frames.
    """
    at = np.clip((np.arange(round(speed * len(frames))) + 0.5) / speed - 0.5, 0, len(frames) - 1)
    left = np.minimum(at.astype(np.int64), max(0, len(frames) - 2))
    part = (at - left).astype(np.float32)[:, None]
    right = np.minimum(left + 1, len(frames) - 1)
    low, high = hz_to_mel(np.array([MEL_LOW_HZ, MEL_HIGH_HZ]))
    step = (high - low) / (MEL_BANDS + 1)
    hz = mel_to_hz(low + step * np.arange(1, MEL_BANDS + 1))
    band = np.clip((hz_to_mel(hz * speed) - low) / step - 1.0, 0, MEL_BANDS - 1)
    below = np.minimum(band.astype(np.int64), MEL_BANDS - 2)
    share = (band - below).astype(np.float32)
    shifted = frames[:, below] * (1 - share) + frames[:, below + 1] * share
    return shifted[left] * (1 - part) + shifted[right] * part, levels[np.rint(at).astype(np.int64)]


def mfcc(samples: Float32) -> Float32:
    """Thirteen MFCC of a whole signal, equal to ``python_speech_features.mfcc(samples, 16000)``.

    Returns
    -------
    float32 (1 + ceil((n - 400) / 160), 13)
    """
    return frames_of(Mfcc(centred=False), samples)[0]


def fill_missing(windows: Float32, known: NDArray[np.bool_]) -> Float32:
    """Windows whose missing frames are the mean of their known ones.

    Parameters
    ----------
    windows
        float32 (n, frames, values); what missing frames hold does not count.
    known
        bool (n, frames): which frames are known. A window of which none is becomes 0.
    """
    counts = np.maximum(known.sum(axis=1, dtype=np.float32), np.float32(1))
    total = np.einsum("nfv,nf->nv", windows, known.astype(np.float32))
    return np.where(known[:, :, None], windows, (total / counts[:, None])[:, None, :])


def normalise_log_mel(windows: Float32) -> tuple[Float32, Float32]:
    """Make windows of log-mel frames independent of level and of what lies far below their maximum.

    Each window is floored 11 nats below its maximum; its mean is taken off; the rest is divided by 3.

    Parameters
    ----------
    windows
        float32 (n, frames, bands).

    Returns
    -------
    normalised : float32 (n, frames, bands)
    spread : float32 (n,)
        Standard deviation of a normalised window; near 0 where the spectrum is flat over time and band.
    """
    top = windows.max(axis=(1, 2), keepdims=True)
    out = np.maximum(windows, top - np.float32(DYNAMIC_RANGE_NATS))
    out -= out.mean(axis=(1, 2), keepdims=True)
    out *= np.float32(1.0 / NORMALISED_SCALE)
    spread = np.sqrt(np.einsum("nfb,nfb->n", out, out) / np.float32(out.shape[1] * out.shape[2]))
    return out, spread


def normalise_mfcc(windows: Float32) -> tuple[Float32, Float32]:
    """Take off each coefficient's mean over the window and divide the window by its standard deviation.

    Same parameters and returns as :func:`normalise_log_mel`; here `spread` is measured before the division.
    """
    out = windows - windows.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.mean(out * out, axis=(1, 2)))
    return out / np.maximum(spread, 1e-6)[:, None, None], spread


FRONT_ENDS: dict[str, tuple[type[LogMel] | type[Mfcc], Callable[[Float32], tuple[Float32, Float32]]]] = {
    "log-mel": (LogMel, normalise_log_mel),
    "mfcc": (Mfcc, normalise_mfcc),
}
"""Name in a weights file -> (streaming front end, window normalisation)."""
