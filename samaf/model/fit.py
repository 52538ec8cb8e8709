"""The training loop: renders the corpus, trains, checkpoints, resumes, reports.

A work folder beside the weights file holds the rendered frames, the checkpoint and the log, so that a killed
training goes on where its last epoch ended when the same command is given again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from samaf.atomic import atomic_write
from samaf.model.augment import Sources
from samaf.model.corpus import Corpus, find_audio
from samaf.model.export import LATEST, export_checkpoint, export_weights
from samaf.model.network import Autoencoder
from samaf.model.presets import Preset
from samaf.model.twins import Twins
from samaf.picture import can_draw, drawing

STEPS_PER_EPOCH = 250
NEIGHBOURS_KEPT = 2
"""Epochs for which neighbours are kept, before the network, which has learnt meanwhile, is asked for others."""
HELD_OUT_PAIRS = 1024


@keras.saving.register_keras_serializable(package="samaf")
class WarmUpThenCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear rise over the first `warm` steps, half a cosine down to 0 at `total`."""

    def __init__(self, peak: float, warm: int, total: int) -> None:
        self.peak, self.warm, self.total = peak, warm, total

    def __call__(self, step: Any) -> Any:
        """Learning rate of a step, counted from 0."""
        step = keras.ops.cast(step, "float32")
        rise = (step + 1.0) / self.warm
        done = keras.ops.clip((step - self.warm) / max(1, self.total - self.warm), 0.0, 1.0)
        fall = 0.5 * (1.0 + keras.ops.cos(np.pi * done))
        return self.peak * keras.ops.minimum(rise, fall)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make the schedule again."""
        return {"peak": self.peak, "warm": self.warm, "total": self.total}


class Batches(keras.utils.PyDataset):
    """Twins for `fit`; batch i of epoch e is the same in every run."""

    def __init__(self, twins: Twins, preset: Preset, seed: int, epoch: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        self.twins, self.preset, self.seed, self.epoch = twins, preset, seed, epoch

    def __len__(self) -> int:
        return STEPS_PER_EPOCH

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        return self.twins.draw(self.preset.pairs, rng)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's batches."""
        self.epoch += 1


class Neighbours(keras.callbacks.Callback):
    """Looks for the seconds that the network confuses, before every :data:`NEIGHBOURS_KEPT`-th epoch.

    They are kept in the work folder, so that a training that goes on has the same ones.
    """

    def __init__(self, twins: Twins, preset: Preset, folder: Path) -> None:
        super().__init__()
        self.twins, self.bits, self.file = twins, min(128, preset.bits[-1]), folder / "neighbours.npy"

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Find them, or take those found before."""
        if epoch % NEIGHBOURS_KEPT == 0 or (self.twins.neighbours is None and not self.file.exists()):
            found = self.twins.find_neighbours(self._encode)
            with atomic_write(self.file) as file:
                np.save(file, found)
        elif self.twins.neighbours is None:
            self.twins.neighbours = np.load(self.file)

    def _encode(self, windows: np.ndarray) -> np.ndarray:
        return self.model.predict_on_batch(windows)[0][:, : self.bits] > 0


class HeldOut(keras.callbacks.Callback):
    """Measures each epoch on held-out files: BER of twins, BER of strangers, unique hashes, top-1 among pairs."""

    def __init__(self, corpus: Corpus, chunks: np.ndarray, preset: Preset) -> None:
        super().__init__()
        self.windows, _ = Twins(corpus, chunks, plain=True).draw(HELD_OUT_PAIRS, np.random.default_rng(1))
        self.bits = min(128, preset.bits[-1])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the measures to the epoch's log."""
        codes = self.model.predict(self.windows, batch_size=256, verbose=0)[0][:, : self.bits]
        if logs is not None:
            logs.update(code_quality(codes > 0))


def code_quality(bits: np.ndarray) -> dict[str, float]:
    """How good binary codes of twins are.

    Parameters
    ----------
    bits
        bool (2 n, bits); rows i and n + i are twins.

    Returns
    -------
    dict
        ``val_ber`` of twins, ``val_stranger_ber``, ``val_unique`` (share of distinct hashes among the clean ones),
        ``val_top1`` (share of distorted windows whose nearest clean window is their twin).
    """
    n = len(bits) // 2
    signs = np.where(bits, np.float32(1), np.float32(-1))
    ber = 0.5 - 0.5 * (signs[n:] @ signs[:n].T) / bits.shape[1]
    twins = np.diag(ber)
    return {
        "val_ber": float(twins.mean()),
        "val_stranger_ber": float((ber.sum() - twins.sum()) / max(1, n * (n - 1))),
        "val_unique": len(np.unique(np.packbits(bits[:n], axis=1), axis=0)) / n,
        "val_top1": float(np.mean(ber.argmin(axis=1) == np.arange(n))),
    }


def train(
    data: list[str],
    *,
    noise: list[str] | None = None,
    rooms: list[str] | None = None,
    out: Path,
    preset: Preset,
    seed: int = 0,
    jobs: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    epoch_done: Callable[[int, int, dict[str, float]], None] = lambda epoch, epochs, logs: None,
) -> Path:
    """Train a model on folders of audio; write its weights file, and a plot of the training where matplotlib is there.

    Parameters
    ----------
    data, noise, rooms
        Folders or files: training audio, noises, impulse responses. Without noises or impulse responses,
        synthetic ones are used, and babble comes from the training audio.
    out
        The weights file. ``out`` + ``.work`` is the work folder.
    progress
        Called while rendering, see :meth:`Corpus.render`.
    epoch_done
        Called with (epoch, epochs, measures) after each epoch.

    Raises
    ------
    AudioError, ModelError
        If there is nothing to train on.
    """
    keras.utils.set_random_seed(seed)
    folder = out.with_name(out.name + ".work")
    paths = find_audio(data)
    sources = Sources(find_audio(noise or []), find_audio(rooms or []), paths)
    corpus = Corpus.render(paths, sources, preset, folder, seed=seed, jobs=jobs, progress=progress)
    training, held_out = corpus.split(seed)
    epochs = max(1, round(preset.steps / STEPS_PER_EPOCH))
    total = epochs * STEPS_PER_EPOCH
    model = Autoencoder(preset)
    model.build(None)
    schedule = WarmUpThenCosine(preset.learning_rate, max(1, int(preset.warm_up * total)), total)
    model.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0), jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # or a checkpoint's optimizer state would be passed over
    state = _State(folder, preset, seed)
    first = state.restore(model)

    def report(epoch: int, logs: dict[str, float] | None) -> None:
        state.save(model, epoch + 1, logs or {})
        epoch_done(epoch + 1, epochs, logs or {})

    twins = Twins(corpus, training)
    model.fit(
        Batches(twins, preset, seed, first),
        epochs=epochs,
        initial_epoch=first,
        verbose=0,
        shuffle=False,
        callbacks=[
            *([Neighbours(twins, preset, folder)] if preset.neighbours else []),
            HeldOut(corpus, held_out, preset),
            keras.callbacks.LambdaCallback(on_epoch_end=report),
        ],
    )
    export_checkpoint(folder, out)
    if can_draw():
        plot_history(state.history, out.with_suffix(".png"))
    return out


class _State:
    """What a work folder keeps of a training: checkpoint, preset and log; replaced as a whole each epoch."""

    def __init__(self, folder: Path, preset: Preset, seed: int) -> None:
        self.folder, self.preset, self.seed = folder, preset, seed
        self.history: list[dict[str, float]] = []

    def _checkpoint(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}.weights.h5"

    def _corpus_key(self) -> str:
        """Digest of the audio, the distortions and the seed that the frames were rendered with."""
        return str(json.loads((self.folder / "corpus.json").read_text())["key"])

    def restore(self, model: Autoencoder) -> int:
        """Load the last checkpoint of a training with the same preset; return the number of epochs done."""
        path = self.folder / "state.json"
        if not path.exists():
            return 0
        state = json.loads(path.read_text())
        checkpoint = self._checkpoint(len(state["history"]))
        same = {**state["preset"], "steps": 0} == {**self.preset.to_json(), "steps": 0}  # steps may change
        same = same and state.get("corpus") == self._corpus_key()
        if not same or not checkpoint.exists():
            return 0
        model.load_weights(checkpoint)
        self.history = state["history"]
        return len(self.history)

    def save(self, model: Autoencoder, epoch: int, logs: dict[str, float]) -> None:
        """Keep this epoch; a kill at any moment leaves this one or the one before."""
        self.history = [
            *self.history[: epoch - 1],
            {"epoch": epoch, **{k: float(v) for k, v in logs.items()}},
        ]
        model.save_weights(self._checkpoint(epoch), overwrite=True)
        export_weights(model, self.preset, self.folder / LATEST, training=self.history)
        state = {
            "preset": self.preset.to_json(),
            "seed": self.seed,
            "corpus": self._corpus_key(),
            "history": self.history,
        }
        with atomic_write(self.folder / "state.json") as file:
            file.write(json.dumps(state).encode())
        for old in self.folder.glob("epoch-*.weights.h5"):
            if old != self._checkpoint(epoch):
                old.unlink()


def plot_history(history: list[dict[str, float]], path: Path) -> None:
    """Two panels over the epochs: the loss and its terms; BER of twins and strangers, unique hashes, top-1."""
    pyplot = drawing()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axis, names in (
        (left, ("loss", "mse", "hash", "entropy", "balance")),
        (right, ("val_ber", "val_stranger_ber", "val_unique", "val_top1")),
    ):
        for name in names:
            axis.plot(
                epochs, [row[name] for row in history], label=name.removeprefix("val_").replace("_", " ")
            )
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    left.set_yscale("log")
    left.set_title("training loss and its terms")
    right.set_title("held-out files")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
