"""Trained network -> weights file of the run-time encoder (read by :mod:`samaf.weights`).

Each epoch leaves the bare encoder in the work folder; exporting fits its clarity, calibrates it and needs no
TensorFlow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samaf.bodies import Lstm
from samaf.errors import ModelError, shown
from samaf.model.augment import Sources
from samaf.model.calibrate import calibrate
from samaf.model.clarity import with_clarity
from samaf.model.corpus import Corpus
from samaf.model.presets import preset_from_json
from samaf.model.twins import Twins
from samaf.weights import Weights

if TYPE_CHECKING:
    from samaf.model.network import Autoencoder
    from samaf.model.presets import Preset


MOST_SEARCHED = 1000
"""Recordings of the training that calibration searches among."""
LATEST = "latest.npz"
"""The bare encoder of the last epoch, in a work folder."""


def export_checkpoint(folder: Path, out: Path) -> Path:
    """Write the weights file of a training, finished or not, from its work folder.

    Parameters
    ----------
    folder
        The work folder: the training's output path + ``.work``.
    out
        The weights file to write.

    Raises
    ------
    ModelError
        If the folder holds no training that has done an epoch.
    """
    try:
        state = json.loads((folder / "state.json").read_text())
        preset = preset_from_json(state["preset"])
        corpus = Corpus(folder, preset)
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{shown(folder)}: no training with a finished epoch here; give the .work folder that `samaf train` made"
        ) from None
    seed = state.get("seed", 0)
    chunks, held_out_chunks = corpus.split(seed)
    training, held_out = (
        [corpus.paths[k] for k in np.unique(corpus.files[some])] for some in (chunks, held_out_chunks)
    )
    latest = folder / LATEST
    with_clarity(Weights.load(latest), Twins(corpus, chunks), np.random.default_rng([seed, 98])).save(latest)
    library = [training[k] for k in np.unique(np.linspace(0, len(training) - 1, MOST_SEARCHED).astype(int))]
    sources = Sources(corpus.noises, corpus.rooms, held_out)
    calibrate(latest, [held_out], library, sources=sources, seed=seed).save(out)
    return out


def export_weights(
    model: Autoencoder, preset: Preset, path: Path, *, training: list[dict[str, float]]
) -> None:
    """Write the encoder half of `model`; the decoder served training alone.

    Parameters
    ----------
    training
        The log, a dict an epoch; its last row goes into the file.
    """
    names = ["kernel", "recurrent", "bias", "dense", "dense_bias"]
    arrays = dict(zip(names, [*model.encoder.get_weights(), *model.code.get_weights()], strict=True))
    facts: dict[str, Any] = {"preset": preset.to_json(), "last_epoch": training[-1] if training else {}}
    Weights(
        front_end=preset.front_end,
        stack=preset.stack,
        bits=preset.bits,
        body=Lstm(preset.n_inputs, preset.units),
        arrays=arrays,
        facts=facts,
    ).save(path)
