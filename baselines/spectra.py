"""Power spectra of overlapping frames, and the running maximum that finds peaks in them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from baselines.base import Float32


def frame_count(n_samples: int, width: int, hop: int) -> int:
    """Number of whole frames of `width` samples, `hop` apart, in `n_samples`."""
    return max(0, 1 + (n_samples - width) // hop)


def power_spectra(samples: Float32, width: int, hop: int, first: int = 0, last: int | None = None) -> Float32:
    """Squared magnitudes of Hann-windowed frames, not scaled.

    Parameters
    ----------
    samples : float32 (n,)
    width, hop
        Length of a frame and distance between frames, in samples.
    first, last
        The range of frames; by default all. Overlapping frames take many times the room of their samples: a whole
        recording is better gone through in ranges.

    Returns
    -------
    float32 (frames, width // 2 + 1)
        Fewer than `last - first` frames where the samples end before.
    """
    if len(samples) < width:
        return np.zeros((0, width // 2 + 1), np.float32)
    frames = sliding_window_view(samples, width)[::hop][first:last]
    spectra = np.fft.rfft(frames * _hann(width))
    return np.asarray(spectra.real**2 + spectra.imag**2, np.float32)


@cache
def _hann(width: int) -> Float32:
    return np.hanning(width).astype(np.float32)


def running_maximum(x: Float32, radius: int, axis: int) -> Float32:
    """The largest of each value and its `radius` neighbours to both sides along an axis.

    Parameters
    ----------
    x : float32, any shape
    radius
        At least 0.
    axis
        Along which to look; what lies beyond the ends does not count.

    Returns
    -------
    float32, the shape of `x`
    """
    margin = [(0, 0)] * x.ndim
    margin[axis] = (radius, radius)
    x = np.moveaxis(np.pad(x, margin, constant_values=-np.inf), axis, 0)
    width, span = 2 * radius + 1, 1
    while span < width:  # each pass over the array doubles the span of the maxima
        step = min(span, width - span)
        x = np.maximum(x[:-step], x[step:])
        span += step
    return np.moveaxis(x, 0, axis)
