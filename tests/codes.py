"""Tracks and queries made of random codes, for tests of the search without an encoder.

Each bit's real value wanders: it keeps its sign for about a second, as an encoder's does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samaf.background import RUN_ROWS
from samaf.bodies import Lstm
from samaf.fingerprint import Fingerprint, mark_rows
from samaf.hamming import pack
from samaf.weights import Weights

QUERY_HOP_S = 0.1


def activations(seconds: float, rng: np.random.Generator, bits: int = 128) -> np.ndarray:
    """Real values of a recording's codes every 0.1 s, float32 (n, bits)."""
    n = round((seconds - 1) / QUERY_HOP_S) + 1
    white = rng.standard_normal((n + 11, bits)).astype(np.float32)
    total = np.cumsum(white, axis=0)
    return (total[12:] - total[:-12])[:n] / np.float32(np.sqrt(12)) if n + 11 > 12 else white[:n]


def stretched(values: np.ndarray, slope: float) -> np.ndarray:
    """The codes of a recording played so that `slope` of its seconds pass in one."""
    at = np.arange(int((len(values) - 1) / slope) + 1) * slope
    return values[np.rint(at).astype(int)]


def fingerprint(
    values: np.ndarray, model_id: str, *, step: int = 1, valid: np.ndarray | None = None
) -> Fingerprint:
    """Every `step`-th row as a fingerprint; with confidence if step is 1."""
    duration_s = (len(values) - 1) * QUERY_HOP_S + 1.0
    values = values[::step]
    valid = np.ones(len(values), bool) if valid is None else valid[::step]
    return Fingerprint(
        hashes=mark_rows(pack(values > 0), valid),
        valid=valid,
        hop_s=QUERY_HOP_S * step,
        bits=values.shape[1],
        model_id=model_id,
        duration_s=duration_s,
        confidence=np.abs(values) if step == 1 else None,
    )


def noisy(values: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Values with noise of `amount` times their spread."""
    return values + np.float32(amount) * rng.standard_normal(values.shape).astype(np.float32)


@dataclass
class Model:
    """Weights that never encode, with a calibration that fits the random codes."""

    weights: Weights

    @classmethod
    def make(cls) -> Model:
        rng = np.random.default_rng(0)
        runs = np.stack([activations(25.0, rng, 256)[: 5 * RUN_ROWS : 5] for _ in range(160)])
        # what fit_tail makes of strangers of 1 to 30 s among 12 tracks of a minute
        rate = np.array([4.3, 3.6, 3.2, 2.8, 2.5, 2.2])
        log10_k = np.array([0.6, -1.3, -3.4, -5.6, -7.7, -9.9])
        log10_seen = np.minimum(-4.0, log10_k - rate / np.log(10))
        calibration = {
            "reliability": np.array([0.2, 2.5, 1.0]),
            "share": np.array(1.0),
            "background": pack(runs.reshape(-1, 256) > 0).reshape(*runs.shape[:2], 4),
            "hops": np.array([0.5, 1.0]),
            "tail_seconds": np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]),
        }
        for bits in (64, 128, 256):  # of one kind, at two hops
            calibration[f"kinds_{bits}"] = np.zeros((1, bits + 1))
            calibration[f"odds_{bits}"] = np.array([[-2.5, 1.5, -0.5, -0.3]] * 2)
            calibration[f"tail_{bits}"] = np.stack([[[rate, log10_k, log10_seen]]] * 2)
        small = np.zeros((1, 4))
        return cls(
            Weights(
                "log-mel",
                4,
                (64, 128, 256),
                Lstm(1, 1),
                {
                    "kernel": small,
                    "recurrent": small,
                    "bias": small[0],
                    "dense": small,
                    "dense_bias": small[0],
                },
                calibration=calibration,
            )
        )
