"""Training of an encoder; :mod:`baselines.training` says how it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from baselines import training
from baselines.encoders import ENCODERS
from baselines.encoders.batches import Pairs, Recordings, key_of
from baselines.encoders.networks import Shape, macs, network
from baselines.prepared import Progress
from baselines.training import EpochDone
from samaf.model.checkpoints import Checkpoints
from samaf.model.fit import WarmUpThenCosine
from samaf.model.losses import hash_loss_contrast

TEMPERATURE = 0.05
"""Of the loss; the report gives none, this is that of Chang et al. 2021."""
EPOCH_STEPS = 50
HELD_OUT_PAIRS = 512
WARM_UP = 0.05
CLIP_NORM = 1.0

Float32 = NDArray[np.float32]


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

    def __init__(self, source: Source, pairs: int, seed: int, epoch: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=3)
        self.source, self.pairs, self.seed, self.epoch = source, pairs, seed, epoch

    def __len__(self) -> int:
        return EPOCH_STEPS

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        windows = self.source.draw(self.pairs, np.random.default_rng([self.seed, self.epoch, index]))
        return windows, np.zeros(len(windows), np.float32)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's batches."""
        self.epoch += 1


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
    audio: Path,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress = lambda done, total, note: None,
    epoch_done: EpochDone = lambda epoch, epochs, logs: None,
) -> keras.Model:
    """Train a network on recordings, and keep it in `folder`.

    Parameters
    ----------
    audio
        Where prepared audio is kept, for several networks to share.
    progress, epoch_done
        Called with (files prepared, files, note), and with (epoch, epochs, measures).

    Raises
    ------
    ModelError
        If there is nothing to train on, or the folder holds another training.
    """
    recordings = Recordings.prepare(paths, audio, jobs=jobs, progress=progress)
    sources = Pairs(recordings), Pairs(recordings, held_out=True)
    about = about_of(shape, recipe, seed, key_of(paths))
    return fit(sources, folder, shape, recipe, about, seed=seed, epoch_done=epoch_done)


def fit(
    sources: tuple[Source, Source],
    folder: Path,
    shape: Shape,
    recipe: Recipe,
    about: dict[str, Any],
    *,
    seed: int = 0,
    epoch_done: EpochDone = lambda epoch, epochs, logs: None,
) -> keras.Model:
    """Train a network on batches of one source, measured on another; goes on where an earlier call was stopped.

    Parameters
    ----------
    about
        What tells this training from others, see :func:`about_of`.

    Raises
    ------
    ModelError
        If the folder holds another training, or is in use.
    """
    keras.utils.set_random_seed(seed)
    with training.at_work(folder, about) as kept:
        model = _fitted(sources, kept, shape, recipe, seed, epoch_done)
        save(model, shape, folder, {**about, "history": kept.history})
    return model


def _fitted(
    sources: tuple[Source, Source],
    kept: Checkpoints,
    shape: Shape,
    recipe: Recipe,
    seed: int,
    epoch_done: EpochDone,
) -> keras.Model:
    """The network after all epochs."""
    model = network(shape)
    epochs = max(1, round(recipe.steps / EPOCH_STEPS))
    total = epochs * EPOCH_STEPS
    schedule = WarmUpThenCosine(recipe.rate, max(1, round(WARM_UP * total)), total)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=CLIP_NORM), loss=_loss, jit_compile=False
    )
    model.optimizer.build(model.trainable_variables)  # or a checkpoint's optimizer state would be passed over
    first = kept.restore(model)

    model.fit(
        Batches(sources[0], recipe.pairs, seed, first),
        epochs=epochs,
        initial_epoch=first,
        verbose=0,
        shuffle=False,
        callbacks=[HeldOut(sources[1]), training.reporter(kept, model, epochs, epoch_done)],
    )
    return model


def about_of(shape: Shape, recipe: Recipe, seed: int, data: str) -> dict[str, Any]:
    """What tells a training from others; `data` tells its recordings, see :func:`baselines.encoders.batches.key_of`."""
    return {
        **shape.to_json(),
        "pairs": recipe.pairs,
        "rate": recipe.rate,
        "steps": recipe.steps,
        "seed": seed,
        "data": data,
    }


def _loss(_: Any, embeddings: Any) -> Any:
    return hash_loss_contrast(embeddings, TEMPERATURE)


def save(model: keras.Model, shape: Shape, folder: Path, trained: dict[str, Any]) -> None:
    """Keep a network; one that is there is replaced."""
    training.save(model, folder, {"shape": shape.to_json(), "macs": macs(model), "training": trained})


def load(folder: Path) -> keras.Model:
    """The network that a folder keeps; a `ModelError` if there is none, or it is damaged."""
    return training.load(folder, lambda about: network(Shape(**about["shape"])))
