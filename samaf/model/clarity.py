"""Clarity: how sure a window's bits are, told from the state of the network that has heard it.

A bit's activation says how far it lies from the other value, but hardly how much noise or echo was in the window: the
network learns to give a second of audio the same activations in all conditions. The state, from which they
are made, tells more. Once the network is trained, a linear function of the state is fitted to the logarithm of a factor
with which the activations become the log-odds that their bits are right. Hashes stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samaf.encoder import Network
from samaf.model.twins import Twins
from samaf.weights import Weights

PAIRS = 15_000
"""Twins that it is fitted to. Bits of other recordings cost 0.494 nats without it, 0.478 with 7,500 twins, 0.477 with
15,000, and with 40,000 hardly less."""
RIDGE = 1e-3
"""Penalty on the squares of the weights of standardised states, against nats a bit."""

_PAIRS_AT_ONCE = 256

Float32 = NDArray[np.float32]


def with_clarity(weights: Weights, twins: Twins, rng: np.random.Generator) -> Weights:
    """The same weights with a clarity fitted to :data:`PAIRS` twins."""
    units = weights.units
    bare = {"dense": np.eye(units, dtype=np.float32), "dense_bias": np.zeros(units, np.float32)}
    dense, dense_bias = weights.floats["dense"], weights.floats["dense_bias"]
    states_of = Network(
        replace(weights, arrays={**weights.arrays, **bare}, bits=(units,), clarity=None),
        units,
    )
    states, activations, right = [], [], []
    for at in range(0, PAIRS, _PAIRS_AT_ONCE):
        n = min(_PAIRS_AT_ONCE, PAIRS - at)
        state = states_of(twins.draw(n, rng)[0])
        activation = state @ dense + dense_bias
        states.append(state[n:])
        activations.append(activation[n:])
        right.append((activation[:n] > 0) == (activation[n:] > 0))
    found = fit_clarity(np.concatenate(states), np.concatenate(activations), np.concatenate(right))
    return replace(weights, clarity=found)


def fit_clarity(states: Float32, activations: Float32, right: NDArray[np.bool_]) -> Float32:
    """The most likely weights and constant (units + 1,), by L-BFGS.

    Parameters
    ----------
    states : (n, units)
        Of the network.
    activations : (n, bits)
        What the dense layer made of them, before the sign.
    right : (n, bits)
        Which of the bits are those of the clean twin.
    """
    from scipy.optimize import minimize

    mean, spread = states.mean(axis=0), states.std(axis=0) + np.float32(1e-6)
    standard = (states - mean) / spread
    toward = np.where(right, np.abs(activations), -np.abs(activations)).astype(np.float32)

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        u, constant = values[:-1].astype(np.float32), np.float32(values[-1])
        odds = toward * np.exp(np.clip(standard @ u + constant, -8.0, 8.0))[:, None]
        nats = np.logaddexp(np.float32(0), -odds).mean(dtype=np.float64)
        # slope of the nats over the logarithm of each row's factor
        per_row = (-odds / (1.0 + np.exp(np.minimum(odds, 60.0)))).sum(axis=1) / toward.size
        gradient = np.append(standard.T @ per_row + 2.0 * RIDGE * u, per_row.sum())
        return float(nats + RIDGE * np.sum(u.astype(np.float64) ** 2)), gradient.astype(np.float64)

    start = np.zeros(states.shape[1] + 1)
    start[-1] = -np.log(np.abs(activations).mean())
    values = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    u = values[:-1] / spread
    return np.append(u, values[-1] - float(u @ mean)).astype(np.float32)
