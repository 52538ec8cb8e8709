"""The training of a network into a folder: alone, going on where it was stopped, and kept whole or not at all.

While a network is trained, its folder (see :mod:`baselines.networks`) holds ``work``: the state after each epoch,
from which the same command goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from baselines.networks import NETWORK, WEIGHTS
from samaf.atomic import atomic_write
from samaf.errors import ModelError, shown
from samaf.model.checkpoints import Checkpoints

EpochDone = Callable[[int, int, dict[str, float]], None]
"""Called with (epoch, epochs, measures)."""


@contextmanager
def at_work(folder: Path, about: dict[str, Any]) -> Iterator[Checkpoints]:
    """The states of a training in the work folder, which is removed at the end.

    Parameters
    ----------
    about
        JSON values that tell this training from others.

    Raises
    ------
    ModelError
        If the folder holds another training, or is in use.
    """
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ModelError(f"{shown(work)}: another training is at work here; wait for it") from None
        kept = Checkpoints(work, about)
        begun = kept.last()
        if begun is not None and {**begun, "history": None} != {**about, "history": None}:
            raise ModelError(
                f"{shown(work)}: holds an unfinished training with other settings or audio; finish that one, or remove "
                "the folder"
            )
        yield kept
        shutil.rmtree(work, ignore_errors=True)


def reporter(
    kept: Checkpoints, model: keras.Model, epochs: int, epoch_done: EpochDone
) -> keras.callbacks.Callback:
    """What keeps the state after each epoch, then tells of it."""

    def report(epoch: int, logs: dict[str, float] | None) -> None:
        measures = kept.note(epoch + 1, logs)
        kept.save(model)
        epoch_done(epoch + 1, epochs, measures)  # who hears of an epoch may stop after it

    return keras.callbacks.LambdaCallback(on_epoch_end=report)


def training_of(folder: Path) -> dict[str, Any] | None:
    """How the network that a folder keeps was trained, without its history; None if there is none."""
    training = _training_of(folder)
    return (
        None if training is None else {name: value for name, value in training.items() if name != "history"}
    )


def history_of(folder: Path) -> list[dict[str, float]]:
    """The measures of each epoch of the network that a folder keeps; none if it is not known."""
    return list((_training_of(folder) or {}).get("history", []))


def _training_of(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / NETWORK).read_text())["training"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(model: keras.Model, folder: Path, about: dict[str, Any]) -> None:
    """Keep a network, and in JSON what it is; one that is there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / ("new." + WEIGHTS)
    model.save_weights(new, overwrite=True)
    os.replace(new, folder / WEIGHTS)
    with atomic_write(folder / NETWORK) as file:
        file.write((json.dumps(about, indent=1) + "\n").encode())


def load(folder: Path, make: Callable[[dict[str, Any]], keras.Model]) -> keras.Model:
    """The network that a folder keeps.

    Parameters
    ----------
    make
        An untrained network of the kind that the JSON tells.

    Raises
    ------
    ModelError
        If there is none, or it is damaged.
    """
    try:
        model = make(json.loads((folder / NETWORK).read_text()))
        model.load_weights(folder / WEIGHTS)
    except FileNotFoundError:
        raise ModelError(f"{shown(folder)}: holds no trained network") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{shown(folder)}: holds a damaged network ({error}); train it again") from error
    return model
