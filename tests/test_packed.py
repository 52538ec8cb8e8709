"""Matrices in 8 and 4 bits."""

from __future__ import annotations

import numpy as np
import pytest

from samaf.packed import GROUP, Packed, groups


def matrix(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(size=outputs))
    return (rng.standard_normal((inputs, outputs)) * spread).astype(np.float32)


@pytest.mark.parametrize("inputs", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("width", [8, 4])
def test_each_weight_is_near_what_it_was(inputs: int, width: int) -> None:
    """By half a step, but for the largest, which may be cut off by up to 30 %."""
    wanted = matrix(inputs, 5)
    packed = Packed.of(wanted, width)
    got = packed.floats()
    assert packed.shape == got.shape == wanted.shape and got.dtype == np.float32
    assert packed.scales.shape == (groups(inputs, width), 5) and packed.scales.dtype == np.float16
    group = inputs if width == 8 else GROUP
    for at in range(0, inputs, group):
        rows = slice(at, at + group)
        step = packed.scales[at // group].astype(float)
        most = np.abs(wanted[rows]).max(axis=0)
        cut = np.abs(wanted[rows]) > step * (2 ** (width - 1) - 1)
        error = np.abs(got[rows] - wanted[rows])
        assert (error <= np.where(cut, 0.31 * most, 0.501 * step) + 1e-6).all()


def test_a_scale_leaves_less_error_than_the_largest_weight_would() -> None:
    wanted = matrix(256, 64)
    parts = wanted.reshape(8, 32, 64)
    scale = (np.abs(parts).max(axis=1, keepdims=True) / 7).astype(np.float16).astype(np.float32)
    plain = np.square(np.clip(np.rint(parts / scale), -7, 7) * scale - parts).sum()
    assert np.square(Packed.of(wanted, 4).floats() - wanted).sum() < 0.95 * plain


@pytest.mark.parametrize("width", [8, 4])
def test_zeros_stay_zeros(width: int) -> None:
    wanted = matrix(64, 6)
    wanted[:, 2] = 0
    wanted[::3] = 0
    assert (Packed.of(wanted, width).floats()[wanted == 0] == 0).all()


@pytest.mark.parametrize("inputs", [1, 2, 33, 64])
def test_codes_of_four_bits_are_stored_two_in_a_byte(inputs: int) -> None:
    codes = np.random.default_rng(0).integers(-8, 8, (inputs, 3)).astype(np.int8)
    packed = Packed(4, codes, np.ones((groups(inputs, 4), 3), np.float16))
    stored = packed.stored()
    assert stored.shape == ((inputs + 1) // 2, 3) and stored.dtype == np.uint8
    np.testing.assert_array_equal(stored[0] & 15, codes[0] & 15)
    if inputs > 1:
        np.testing.assert_array_equal(stored[0] >> 4, codes[1] & 15)
    np.testing.assert_array_equal(Packed.of_stored(stored, packed.scales, inputs).codes, codes)
