"""Trained network -> weights file of the run-time encoder (read by :mod:`samaf.weights`).

Each epoch leaves the bare encoder in the work folder; exporting fits its clarity, calibrates it and needs no
TensorFlow. A model may be quantised on the way, or later, from its weights file; it is calibrated as what it is then.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samaf.errors import ModelError, shown
from samaf.model.augment import Sources
from samaf.model.calibrate import calibrate
from samaf.model.clarity import with_clarity
from samaf.model.compatible import MOST_LOST, loss_of
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


def export_checkpoint(
    folder: Path,
    out: Path,
    *,
    held_out: Sequence[Sequence[Path]] | None = None,
    library: Sequence[Path] | None = None,
    sources: Sources | None = None,
    queries: int | None = None,
    storage: str | None = None,
    compatible: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Path:
    """Write the weights file of a training, finished or not, from its work folder.

    Parameters
    ----------
    folder
        The work folder: the training's output path + ``.work``.
    out
        The weights file to write.
    held_out, library, sources
        See :func:`samaf.model.calibrate.calibration_of`; by default they are the training's own, its held-out
        recordings as one kind.
    queries, storage, compatible
        See :func:`export_quantised`; by default the model is not quantised.
    progress
        Called with (steps done, steps, note).

    Raises
    ------
    ModelError
        If the folder holds no training that has done an epoch, or the quantised model is not compatible.
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
    training, own = (
        [corpus.paths[k] for k in np.unique(corpus.files[some])] for some in (chunks, held_out_chunks)
    )
    latest = folder / LATEST
    with_clarity(Weights.load(latest), Twins(corpus, chunks), np.random.default_rng([seed, 98])).save(latest)
    if library is None:
        library = [
            training[k] for k in np.unique(np.linspace(0, len(training) - 1, MOST_SEARCHED).astype(int))
        ]
    held_out = [own] if held_out is None else held_out
    known: dict[str, Any] = {
        "sources": sources or Sources(corpus.noises, corpus.rooms, own),
        "queries": queries,
        "seed": seed,
        "progress": progress,
    }
    if storage is not None:
        return export_quantised(
            latest, out, held_out, library, storage=storage, compatible=compatible, **known
        )
    calibrate(latest, held_out, library, **known).save(out)
    return out


def export_quantised(
    source: Path,
    out: Path,
    held_out: Sequence[Sequence[Path]],
    library: Sequence[Path],
    *,
    storage: str,
    compatible: bool = False,
    sources: Sources | None = None,
    copies: Mapping[Path, Collection[Path]] | None = None,
    queries: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Path:
    """Write a model's weights file with its matrices in fewer bits, calibrated as what it is then.

    Parameters
    ----------
    source
        The model's weights file.
    out
        The weights file to write.
    held_out, library, sources, copies, queries, seed, progress
        See :func:`samaf.model.calibrate.calibration_of`.
    storage
        ``"int8"`` or ``"int4"``.
    compatible
        Keep the source's id, so that its indexes take this model too. What that loses is measured first, and written
        into the file's facts (:mod:`samaf.model.compatible`).

    Raises
    ------
    ModelError
        If there is too little to calibrate on, or it is to be compatible and loses too much; then nothing is written.
    """
    original = Weights.load(source)
    if compatible and original.compatible_with is not None:
        raise ModelError(
            f"{shown(source)}: passes for another model already; quantise that one, or leave --compatible out"
        )
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / out.name
        original.quantised(storage).save(bare)
        told: dict[str, Any] = {"sources": sources, "copies": copies, "seed": seed, "progress": progress}
        made = calibrate(bare, held_out, library, queries=queries, **told)
        if compatible:
            every = [path for kind in held_out for path in kind]
            loss = loss_of(bare, source, made.calibration, every, library, **told)
            if not loss.bearable:
                raise ModelError(
                    f"{shown(out)}: not written, as it is not compatible: of {loss.clips} clips it loses "
                    f"{loss.points:.2f} points in an index of the original, give or take {loss.standard_error:.2f}, "
                    f"and may lose less than {MOST_LOST:g}; leave --compatible out, and give it an index of its own"
                )
            facts = {**made.facts, "compatible": loss.to_json()}
            made = replace(made, compatible_with=original.model_id, facts=facts)
    made.save(out)
    return out


def export_weights(
    model: Autoencoder,
    preset: Preset,
    path: Path,
    *,
    training: list[dict[str, float]],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write the encoder half of `model`; the decoder served training alone.

    Parameters
    ----------
    training
        The log, a dict an epoch; its last row goes into the file.
    origin
        What it was made from (see :func:`samaf.model.fit.train`).
    """
    dense, dense_bias = model.code.get_weights()
    facts: dict[str, Any] = {"preset": preset.to_json(), "last_epoch": training[-1] if training else {}}
    if origin:
        facts["origin"] = dict(origin)
    Weights(
        front_end=preset.front_end,
        stack=preset.stack,
        bits=preset.bits,
        body=model.encoder.body,
        arrays={**model.encoder.arrays(), "dense": dense, "dense_bias": dense_bias},
        facts=facts,
    ).save(path)
