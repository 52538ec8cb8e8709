"""Smaller networks out of a trained one: fewer units, or fewer weights. Both want a short fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samaf.bodies import Lstm
from samaf.weights import Weights

Float32 = NDArray[np.float32]


def narrowed(weights: Weights, units: int) -> Weights:
    """The same LSTM with its most important units alone.

    A unit is as important as what it sends on is large: the length of its rows of the recurrent and the dense matrix,
    each against that of the mean row. Neither clarity nor calibration holds for what is left.

    Raises
    ------
    ValueError
        If it has fewer units, or is no LSTM.
    """
    if not isinstance(weights.body, Lstm) or not 1 <= units <= weights.units:
        raise ValueError(f"units must be from 1 to the {weights.units} of an LSTM")
    floats = weights.floats
    rows = [np.square(floats[name]).sum(axis=1) for name in ("recurrent", "dense")]
    importance = sum(row / max(float(row.mean()), np.finfo(np.float32).tiny) for row in rows)
    kept = np.sort(np.argsort(-importance, kind="stable")[:units])

    def gates(array: Float32) -> Float32:
        return np.concatenate([gate[..., kept] for gate in np.split(array, 4, axis=-1)], axis=-1)

    arrays = {
        "kernel": gates(floats["kernel"]),
        "recurrent": gates(floats["recurrent"][kept]),
        "bias": gates(floats["bias"]),
        "dense": floats["dense"][kept],
        "dense_bias": floats["dense_bias"],
    }
    return replace(
        weights, body=replace(weights.body, units=units), arrays=arrays, clarity=None, calibration={}
    )


def pruned(weights: Weights, share: float) -> Weights:
    """The same network with a share of each matrix's weights, the smallest, at 0; those that are 0 already count."""
    arrays = {}
    for name, array in weights.floats.items():
        if array.ndim == 2:
            least = np.argsort(np.abs(array), axis=None, kind="stable")[: round(share * array.size)]
            array = array.copy()
            array.flat[least] = 0.0
        arrays[name] = array
    return replace(weights, arrays=arrays, clarity=None, calibration={})
