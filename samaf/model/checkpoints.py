"""The state of a training after each epoch, kept so that a kill at any moment leaves this one or the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras

from samaf.atomic import atomic_write

STATE = "state.json"


class Checkpoints:
    """Those of one training in its work folder.

    Parameters
    ----------
    folder
        Where they are kept.
    about
        JSON values that tell the training from others; they are written with each state.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.history: list[dict[str, float]] = []

    def last(self) -> dict[str, Any] | None:
        """What the last state tells: what it is about, and the history; None if there is none."""
        file = self.folder / STATE
        if not file.exists():
            return None
        state: dict[str, Any] = json.loads(file.read_text())
        return state if self._weights(len(state["history"])).exists() else None

    def restore(self, model: keras.Model) -> int:
        """Load the last state into a model whose optimizer is built; gives the number of epochs done."""
        state = self.last()
        if state is not None:
            model.load_weights(self._weights(len(state["history"])))
            self.history = state["history"]
        return len(self.history)

    def note(self, epoch: int, logs: dict[str, float] | None) -> dict[str, float]:
        """Add an epoch's measures to the history; `epoch` counts from 1."""
        self.history = self.history[: epoch - 1]
        self.history.append({"epoch": epoch, **{name: float(value) for name, value in (logs or {}).items()}})
        return self.history[-1]

    def save(self, model: keras.Model) -> None:
        """Keep the state after the last epoch that was noted."""
        kept = self._weights(len(self.history))
        model.save_weights(kept, overwrite=True)
        with atomic_write(self.folder / STATE) as file:
            file.write(json.dumps({**self.about, "history": self.history}).encode())
        for old in self.folder.glob("epoch-*.weights.h5"):
            if old != kept:
                old.unlink()

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}.weights.h5"
