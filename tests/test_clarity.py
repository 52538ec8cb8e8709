"""Clarity: how sure a window's bits are, told from the state of the network."""

from __future__ import annotations

import numpy as np
import pytest

from samaf.model.clarity import fit_clarity


@pytest.fixture(scope="module")
def windows() -> dict[str, np.ndarray]:
    """States of which two values tell how sure the bits are, and bits that are right as often."""
    rng = np.random.default_rng(0)
    states = (rng.standard_normal((6000, 12)) * np.linspace(0.2, 2.0, 12) + 1.0).astype(np.float32)
    activations = rng.standard_normal((6000, 64)).astype(np.float32)
    factor = np.exp(0.8 * (states[:, 3] - 1.0) - 0.4 * (states[:, 7] - 1.0) + 0.3)
    odds = np.abs(activations) * factor[:, None]
    return {
        "states": states,
        "activations": activations,
        "right": rng.random(odds.shape) < 1.0 / (1.0 + np.exp(-odds)),
        "factor": factor,
    }


def test_the_factors_that_bits_were_drawn_with_are_found(windows: dict[str, np.ndarray]) -> None:
    found = fit_clarity(*(windows[name] for name in ("states", "activations", "right")))
    assert found.shape == (13,) and found.dtype == np.float32
    told = np.exp(windows["states"] @ found[:-1] + found[-1])
    np.testing.assert_allclose(told, windows["factor"], rtol=0.25)
    assert np.corrcoef(np.log(told), np.log(windows["factor"]))[0, 1] > 0.99


def test_states_that_tell_nothing_leave_one_factor(windows: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    odds = 1.7 * np.abs(windows["activations"])
    right = rng.random(odds.shape) < 1.0 / (1.0 + np.exp(-odds))
    found = fit_clarity(windows["states"], windows["activations"], right)
    told = np.exp(windows["states"] @ found[:-1] + found[-1])
    np.testing.assert_allclose(told, 1.7, rtol=0.1)


def test_bits_that_are_all_right_or_all_wrong_give_finite_values(windows: dict[str, np.ndarray]) -> None:
    for right in (np.ones_like(windows["right"]), np.zeros_like(windows["right"])):
        assert np.isfinite(fit_clarity(windows["states"], windows["activations"], right)).all()
