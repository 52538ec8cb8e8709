"""Training of the U-Net autoencoder (Singh 2025, sections 3.4.1 and 3.5).

:mod:`baselines.training` says how it is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from baselines import training
from baselines.autoencoder.clips import NOISY, Clips, Recordings, key_of
from baselines.autoencoder.features import inputs_of
from baselines.autoencoder.network import autoencoder
from baselines.prepared import Progress
from baselines.training import EpochDone
from samaf.model.checkpoints import Checkpoints
from samaf.model.fit import WarmUpThenCosine

EPOCH_CLIPS = 2048
"""Clips from one kept state to the next; a multiple of a batch."""
HELD_OUT_CLIPS = 128
WARM_UP = 0.05
PASS_S = 2.5
"""Seconds of audio for each clip of one pass: an epoch of the article, which takes each of its clips once."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    width : float
        Of the network, see :func:`baselines.autoencoder.network.encoder`.
    batch, at_once
        Clips of a step of Adam, and how many of them go through the network at a time: all of a step take 100 MB each.
    rate
        Of Adam; with `decays`, its peak.
    decays
        Whether the rate rises and falls again; the article's stays.
    clips
        Clips in all. 0: as many as `passes` over the training's recordings take.
    passes
        Epochs of the article.
    """

    width: float
    batch: int
    at_once: int
    rate: float
    decays: bool
    clips: int = 0
    passes: int = 0

    def epochs(self, seconds: float) -> int:
        """Stretches of :data:`EPOCH_CLIPS` clips that the training takes with so many seconds of audio."""
        clips = self.clips or self.passes * seconds / PASS_S
        return max(1, round(clips / EPOCH_CLIPS))


RECIPES = {
    # as many clips as two cores do in some 35 minutes
    "small": dict.fromkeys(("normalised", "plain"), Recipe(1.0, 16, 16, 1e-3, True, clips=45_056)),
    "paper": {
        "normalised": Recipe(1.0, 128, 16, 1e-4, False, passes=20),
        "plain": Recipe(1.0, 128, 16, 1e-4, False, passes=60),
    },
}
"""For each preset and each of :data:`baselines.autoencoder.FEATURES`."""


class Batches(keras.utils.PyDataset):
    """Batches for `fit`; batch i of epoch e is the same in every run."""

    def __init__(
        self, clips: Clips, front_end: str, features: str, at_once: int, seed: int, epoch: int
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=3)
        self.clips, self.front_end, self.features = clips, front_end, features
        self.at_once, self.seed, self.epoch = at_once, seed, epoch

    def __len__(self) -> int:
        return EPOCH_CLIPS // self.at_once

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        clean, noisy = self.clips.draw(self.at_once, rng)
        given = np.where(rng.random((self.at_once, 1)) < NOISY, noisy, clean)
        given, clean = (inputs_of(x, self.front_end, self.features)[..., None] for x in (given, clean))
        return given, clean

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's batches."""
        self.epoch += 1


class HeldOut(keras.callbacks.Callback):
    """Adds to an epoch's log what recordings never trained on say, how fast it was, and how far the training is.

    ``val_loss`` is the MSE of clips rebuilt from their noisy versions; ``val_top1`` the share of the noisy ones whose
    nearest code among those of all clean ones is their own; ``passes`` how often the training has gone through as much
    audio as it has.
    """

    def __init__(self, clips: Clips, front_end: str, features: str, seconds: float) -> None:
        super().__init__()
        drawn = clips.draw(HELD_OUT_CLIPS, np.random.default_rng(1))
        self.clean, self.noisy = (inputs_of(x, front_end, features)[..., None] for x in drawn)
        self.seconds = seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the clock."""
        self.begun = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure it."""
        took_s = time.monotonic() - self.begun
        encoder, at_once = self.model.get_layer("encoder"), 16
        rebuilt = self.model.predict(self.noisy, batch_size=at_once, verbose=0)
        clean, noisy = (
            encoder.predict(x, batch_size=at_once, verbose=0)[-1].reshape(len(x), -1)
            for x in (self.clean, self.noisy)
        )
        apart = (
            np.sum(clean**2, axis=1) - 2.0 * noisy @ clean.T
        )  # the squared distance, but for a constant of the row
        if logs is not None:
            logs["val_loss"] = float(np.mean((rebuilt - self.clean) ** 2))
            logs["val_top1"] = float(np.mean(apart.argmin(axis=1) == np.arange(len(clean))))
            logs["passes"] = (epoch + 1) * EPOCH_CLIPS * PASS_S / self.seconds
            logs["clips_per_s"] = EPOCH_CLIPS / took_s


def train(
    paths: Sequence[Path],
    noises: Sequence[Path],
    folder: Path,
    front_end: str,
    features: str,
    recipe: Recipe,
    *,
    audio: Path,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress = lambda done, total, note: None,
    epoch_done: EpochDone = lambda epoch, epochs, logs: None,
) -> keras.Model:
    """Train a network on recordings, and keep it in `folder`; goes on where an earlier call was stopped.

    Parameters
    ----------
    noises
        Recordings of noise; without any, coloured noise is made.
    front_end, features
        See :data:`baselines.autoencoder.FRONT_ENDS` and ``FEATURES``.
    audio
        Where prepared audio is kept, for several networks to share.
    progress, epoch_done
        Called with (files prepared, files, note), and with (epoch, epochs, measures).

    Raises
    ------
    ModelError
        If there is too little to train on, or the folder holds another training or is in use.
    """
    recordings = Recordings.prepare(paths, noises, audio, jobs=jobs, progress=progress)
    about = about_of(front_end, features, recipe, seed, key_of(paths, noises))
    keras.utils.set_random_seed(seed)
    with training.at_work(folder, about) as kept:
        model = _fitted(recordings, kept, front_end, features, recipe, seed, epoch_done)
        training.save(model, folder, {"width": recipe.width, "training": {**about, "history": kept.history}})
    return model


def _fitted(
    recordings: Recordings,
    kept: Checkpoints,
    front_end: str,
    features: str,
    recipe: Recipe,
    seed: int,
    epoch_done: EpochDone,
) -> keras.Model:
    """The network after all epochs."""
    model, seconds = autoencoder(recipe.width), recordings.seconds("training")
    epochs, gathered = recipe.epochs(seconds), recipe.batch // recipe.at_once
    total = epochs * (EPOCH_CLIPS // recipe.at_once)
    rate = (
        WarmUpThenCosine(recipe.rate, max(1, round(WARM_UP * total)), total) if recipe.decays else recipe.rate
    )
    optimizer = keras.optimizers.Adam(rate, gradient_accumulation_steps=gathered if gathered > 1 else None)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # or a checkpoint's optimizer state would be passed over
    first = kept.restore(model)
    model.fit(
        Batches(Clips(recordings, "training"), front_end, features, recipe.at_once, seed, first),
        epochs=epochs,
        initial_epoch=first,
        verbose=0,
        shuffle=False,
        callbacks=[
            HeldOut(Clips(recordings, "validation"), front_end, features, seconds),
            training.reporter(kept, model, epochs, epoch_done),
        ],
    )
    return model


def about_of(front_end: str, features: str, recipe: Recipe, seed: int, data: str) -> dict[str, Any]:
    """What tells a training from others; `data` tells its audio, see :func:`baselines.autoencoder.clips.key_of`."""
    return {
        "front_end": front_end,
        "features": features,
        "width": recipe.width,
        "batch": recipe.batch,
        "rate": recipe.rate,
        "decays": recipe.decays,
        "clips": recipe.clips,
        "passes": recipe.passes,
        "seed": seed,
        "data": data,
    }


def load(folder: Path) -> keras.Model:
    """The network that a folder keeps; a `ModelError` if there is none, or it is damaged."""
    return training.load(folder, lambda about: autoencoder(about["width"]))
