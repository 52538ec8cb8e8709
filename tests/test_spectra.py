"""Spectra are those of each frame, and the running maximum is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.spectra import frame_count, power_spectra, running_maximum


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 12), st.integers(1, 15), st.integers(1, 15), st.integers(0, 1), st.integers(0, 2**32 - 1)
)
def test_running_maximum(radius: int, rows: int, columns: int, axis: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    lines = np.moveaxis(x, axis, 0)
    naive = [lines[max(0, i - radius) : i + radius + 1].max(axis=0) for i in range(len(lines))]
    assert np.array_equal(running_maximum(x, radius, axis), np.moveaxis(np.array(naive), 0, axis))


@pytest.mark.parametrize("n_samples", [0, 63, 64, 79, 80, 200])
def test_spectra_are_those_of_each_frame(n_samples: int) -> None:
    samples = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    spectra = power_spectra(samples, 64, 16)
    starts = range(0, n_samples - 63, 16)
    assert spectra.shape == (frame_count(n_samples, 64, 16), 33) == (len(starts), 33)
    assert spectra.dtype == np.float32
    for start, spectrum in zip(starts, spectra, strict=True):
        expected = np.abs(np.fft.rfft(samples[start : start + 64].astype(float) * np.hanning(64))) ** 2
        np.testing.assert_allclose(spectrum, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(power_spectra(samples, 64, 16, 1, 3), spectra[1:3])
