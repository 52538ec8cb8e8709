"""Trained network -> weights file of the run-time encoder (read by :mod:`samaf.weights`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaf.weights import Weights

if TYPE_CHECKING:
    from samaf.model.network import Autoencoder
    from samaf.model.presets import Preset


def export_weights(model: Autoencoder, preset: Preset, path: Path, *, training: list[dict[str, float]]) -> None:
    """Write the encoder half of `model`; the decoder served training alone.

    Parameters
    ----------
    training
        The log, a dict an epoch; its last row goes into the file.
    """
    kernel, recurrent, bias = (w.numpy() if hasattr(w, "numpy") else w for w in model.encoder.get_weights())
    dense, dense_bias = model.code.get_weights()
    facts: dict[str, Any] = {"preset": preset.to_json(), "last_epoch": training[-1] if training else {}}
    Weights(
        front_end=preset.front_end,
        stack=preset.stack,
        bits=preset.bits,
        kernel=kernel,
        recurrent=recurrent,
        bias=bias,
        dense=dense,
        dense_bias=dense_bias,
        facts=facts,
    ).save(path)
