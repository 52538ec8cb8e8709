"""Training of an encoder, and the folder that keeps it.

A folder holds ``network.json`` (what the network is and how it was trained) and ``network.weights.h5``; while it is
trained, also ``work``: the prepared audio, and the state after each epoch, from which the same command goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from baselines.encoders import ENCODERS, NETWORK, WEIGHTS
from baselines.encoders.batches import Pairs, Progress, Recordings
from baselines.encoders.networks import Shape, macs, network
from samaf.atomic import atomic_write
from samaf.errors import ModelError, shown
from samaf.model.fit import WarmUpThenCosine
from samaf.model.losses import hash_loss_contrast

TEMPERATURE = 0.05
"""Of the loss; the report gives none, this is that of Chang et al. 2021."""
EPOCH_STEPS = 50
HELD_OUT_PAIRS = 512
WARM_UP = 0.05
CLIP_NORM = 1.0

Float32 = NDArray[np.float32]
EpochDone = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    width : float
        Of the network, see :class:`~baselines.encoders.networks.Shape`.
    pairs, steps, rate
        Pairs of a step, steps, peak learning rate of Adam.
    """

    width: float
    pairs: int
    steps: int
    rate: float


RECIPES = {
    "full": dict.fromkeys(ENCODERS, Recipe(1.0, 320, 100_000, 1e-4)),
    # as many steps as two cores do in some 18 minutes
    "small": {
        "connected": Recipe(1.0, 320, 2500, 1e-3),
        "cnn": Recipe(0.125, 320, 1200, 1e-3),
        "lstm": Recipe(0.25, 320, 2500, 1e-3),
        "attention-cnn": Recipe(0.125, 320, 1000, 1e-3),
        "attention-lstm": Recipe(0.25, 320, 2000, 1e-3),
        "resnet": Recipe(0.25, 320, 1200, 1e-3),
    },
}
"""For each preset and encoder. The batch of 640 is 320 pairs, as in Chang et al. 2021, whose rate "full" has."""


def preset(name: str, encoder: str, values: int, projection: str) -> tuple[Shape, Recipe]:
    """A network of a preset, and how it is trained."""
    recipe = RECIPES[name][encoder]
    return Shape(encoder, projection, values, width=recipe.width), recipe


class Source(Protocol):
    """What draws batches."""

    def draw(self, pairs: int, rng: Generator) -> Any:
        """Windows (2 pairs, bands, frames), or what begins with them; rows i and pairs + i are the same second."""
        ...


class Batches(keras.utils.PyDataset):
    """Batches for `fit`; batch i of epoch e is the same in every run."""

    def __init__(self, source: Source, pairs: int, seed: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=3)
        self.source, self.pairs, self.seed, self.epoch = source, pairs, seed, 0

    def __len__(self) -> int:
        return EPOCH_STEPS

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        windows = self.source.draw(self.pairs, np.random.default_rng([self.seed, self.epoch, index]))
        return windows, np.zeros(len(windows), np.float32)


class HeldOut(keras.callbacks.Callback):
    """Adds to an epoch's log how many spoilt seconds, of recordings never trained on, find their own among others."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.windows = source.draw(HELD_OUT_PAIRS, np.random.default_rng(1))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure it."""
        found = self.model.predict(self.windows, batch_size=128, verbose=0)
        clean, spoilt = np.split(found, 2)
        if logs is not None:
            logs["val_top1"] = float(np.mean((spoilt @ clean.T).argmax(axis=1) == np.arange(len(clean))))


def train(
    paths: Sequence[Path],
    folder: Path,
    shape: Shape,
    recipe: Recipe,
    *,
    audio: Path | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress = lambda done, total, note: None,
    epoch_done: EpochDone = lambda epoch, epochs, logs: None,
) -> keras.Model:
    """Train a network on recordings, and keep it in `folder`.

    Parameters
    ----------
    audio
        Where prepared audio is kept, for several networks to share; by default in the folder's ``work``.
    progress, epoch_done
        Called with (files prepared, files, note), and with (epoch, epochs, measures).

    Raises
    ------
    ModelError
        If there is nothing to train on.
    """
    recordings = Recordings.prepare(paths, audio or folder / "work", jobs=jobs, progress=progress)
    sources = Pairs(recordings), Pairs(recordings, held_out=True)
    return fit(sources, folder, shape, recipe, seed=seed, epoch_done=epoch_done)


def fit(
    sources: tuple[Source, Source],
    folder: Path,
    shape: Shape,
    recipe: Recipe,
    *,
    seed: int = 0,
    epoch_done: EpochDone = lambda epoch, epochs, logs: None,
) -> keras.Model:
    """Train a network on batches of one source, measured on another; goes on where an earlier call was stopped."""
    keras.utils.set_random_seed(seed)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    about = _about(shape, recipe, seed)
    _begin(work, about)
    model = network(shape)
    epochs = max(1, round(recipe.steps / EPOCH_STEPS))
    total = epochs * EPOCH_STEPS
    schedule = WarmUpThenCosine(recipe.rate, max(1, round(WARM_UP * total)), total)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=CLIP_NORM), loss=_loss, jit_compile=False
    )
    history: list[dict[str, float]] = _history(work)
    batches = Batches(sources[0], recipe.pairs, seed)

    def begin(epoch: int, logs: dict[str, float] | None) -> None:
        batches.epoch = epoch

    def note(epoch: int, logs: dict[str, float] | None) -> None:
        history[epoch:] = [{name: float(value) for name, value in (logs or {}).items()}]
        with atomic_write(work / "history.json") as file:
            file.write(json.dumps(history).encode())

    def report(epoch: int, logs: dict[str, float] | None) -> None:
        epoch_done(epoch + 1, epochs, history[epoch])

    model.fit(
        batches,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=begin),
            HeldOut(sources[1]),
            keras.callbacks.LambdaCallback(on_epoch_end=note),
            keras.callbacks.BackupAndRestore(work / "state", double_checkpoint=True, delete_checkpoint=False),
            keras.callbacks.LambdaCallback(on_epoch_end=report),  # who hears of an epoch may stop after it
        ],
    )
    save(model, shape, folder, {**about, "history": history})
    shutil.rmtree(work, ignore_errors=True)
    return model


def is_trained(folder: Path, shape: Shape, recipe: Recipe, seed: int) -> bool:
    """Whether a folder keeps this network, trained so."""
    try:
        training = json.loads((folder / NETWORK).read_text())["training"]
    except (OSError, ValueError, KeyError):
        return False
    return {**training, "history": None} == {**_about(shape, recipe, seed), "history": None}


def _about(shape: Shape, recipe: Recipe, seed: int) -> dict[str, Any]:
    return {
        **shape.to_json(),
        "pairs": recipe.pairs,
        "rate": recipe.rate,
        "steps": recipe.steps,
        "seed": seed,
    }


def _loss(_: Any, embeddings: Any) -> Any:
    return hash_loss_contrast(embeddings, TEMPERATURE)


def _begin(work: Path, about: dict[str, Any]) -> None:
    """Forget the state of a training that was another one."""
    file = work / "recipe.json"
    if not file.exists() or json.loads(file.read_text()) != about:
        shutil.rmtree(work / "state", ignore_errors=True)
        (work / "history.json").unlink(missing_ok=True)
        with atomic_write(file) as out:
            out.write(json.dumps(about).encode())


def _history(work: Path) -> list[dict[str, float]]:
    file = work / "history.json"
    return list(json.loads(file.read_text())) if file.exists() else []


def save(model: keras.Model, shape: Shape, folder: Path, training: dict[str, Any]) -> None:
    """Keep a network; one that is there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / ("new." + WEIGHTS)
    model.save_weights(new, overwrite=True)
    os.replace(new, folder / WEIGHTS)
    about = {"shape": shape.to_json(), "macs": macs(model), "training": training}
    with atomic_write(folder / NETWORK) as file:
        file.write((json.dumps(about, indent=1) + "\n").encode())


def load(folder: Path) -> tuple[keras.Model, Shape]:
    """The network that a folder keeps.

    Raises
    ------
    ModelError
        If there is none, or it is damaged.
    """
    try:
        shape = Shape(**json.loads((folder / NETWORK).read_text())["shape"])
        model = network(shape)
        model.load_weights(folder / WEIGHTS)
    except FileNotFoundError:
        raise ModelError(f"{shown(folder)}: holds no trained network") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{shown(folder)}: holds a damaged network ({error}); train it again") from error
    return model, shape
