"""The training loop: renders the corpus, trains, checkpoints, resumes, reports.

A work folder beside the weights file holds the rendered frames, the checkpoint and the log, so that a killed
training goes on where its last epoch ended when the same command is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from samaf.atomic import atomic_write
from samaf.bodies import Lstm
from samaf.encoder import load_weights
from samaf.errors import ModelError, shown
from samaf.model.augment import Sources
from samaf.model.checkpoints import Checkpoints
from samaf.model.corpus import Corpus, find_audio
from samaf.model.export import LATEST, export_checkpoint, export_weights
from samaf.model.network import Autoencoder
from samaf.model.presets import Preset, preset_from_json, with_teacher
from samaf.model.slimming import narrowed, pruned
from samaf.model.twins import Twins
from samaf.picture import can_draw, drawing
from samaf.weights import Weights, check_body

STEPS_PER_EPOCH = 250
NEIGHBOURS_KEPT = 2
"""Epochs for which neighbours are kept, before the network, which has learnt meanwhile, is asked for others."""
HELD_OUT_PAIRS = 1024
DECODER_STEPS = 100
"""Steps of a fine-tuning in which the new decoder learns alone."""


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
    start: Path | None = None,
    prune: float | None = None,
    teacher: Path | None = None,
    calibration: Mapping[str, Any] | None = None,
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
    start
        Weights file whose encoder is trained further, with the preset that :func:`~samaf.model.presets.fine_tuning`
        makes; of an LSTM with more units than the preset's, the most important ones.
    prune
        Share of the weights of its matrices that are 0 from the start on, those nearest to 0.
    teacher
        Weights file whose codes the model is to come near, too; the preset is changed as
        :func:`~samaf.model.presets.with_teacher` says.
    calibration
        Options of :func:`~samaf.model.export.export_checkpoint`: other recordings to calibrate on.
    progress
        Called while rendering, see :meth:`Corpus.render`.
    epoch_done
        Called with (epoch, epochs, measures) after each epoch.

    Raises
    ------
    AudioError, ModelError
        If there is nothing to train on, the network is too large, or the start or the teacher does not fit.
    """
    try:
        check_body(preset.body, preset.bits)
    except ValueError as error:
        raise ModelError(
            f"{shown(out)}: a network of {preset.units} units is too large ({error}); give fewer --units"
        ) from None
    origin: dict[str, Any] = {}
    begun = master = None
    if start is not None:
        begun = load_weights(start)
        origin["from"] = begun.own_id
        begun = _begun(begun, start, preset, prune)
        if prune is not None:
            origin["prune"] = prune
    if teacher is not None:
        master, preset = _teacher(teacher, preset), with_teacher(preset)
        origin["teacher"] = master.own_id
    keras.utils.set_random_seed(seed)
    folder = out.with_name(out.name + ".work")
    paths = find_audio(data)
    sources = Sources(find_audio(noise or []), find_audio(rooms or []), paths)
    corpus = Corpus.render(paths, sources, preset, folder, seed=seed, jobs=jobs, progress=progress)

    def keep(model: Autoencoder, history: list[dict[str, float]]) -> None:
        export_weights(model, preset, folder / LATEST, training=history, origin=origin)

    model = Autoencoder(preset, start=begun, masked=prune is not None, teacher=master)
    history = fit(model, corpus, folder, origin=origin, seed=seed, keep=keep, epoch_done=epoch_done)
    export_checkpoint(folder, out, **(calibration or {}))
    if can_draw():
        plot_history(history, out.with_suffix(".png"))
    return out


def _begun(weights: Weights, start: Path, preset: Preset, prune: float | None) -> Weights:
    """The encoder to begin with, out of that of a file."""
    if preset.bits != weights.bits:
        raise ModelError(
            f"{shown(start)}: its codes have {', '.join(map(str, weights.bits))} bits, and a fine-tuning keeps them; "
            "leave --bits out"
        )
    if preset.units != weights.units:
        if preset.units > weights.units or not isinstance(weights.body, Lstm):
            raise ModelError(
                f"{shown(start)}: its {weights.body.kind} has {weights.units} units, and "
                f"{preset.units} of them cannot be taken; give --units {weights.units}, or fewer of an lstm"
            )
        weights = narrowed(weights, preset.units)
    return weights if prune is None else pruned(weights, prune)


def _teacher(path: Path, preset: Preset) -> Weights:
    """The model whose codes are to be learnt."""
    weights = load_weights(path)
    if weights.front_end != preset.front_end or weights.bits[-1] < preset.bits[-1]:
        raise ModelError(
            f"{shown(path)}: made of {weights.front_end} for {weights.bits[-1]} bits, which cannot teach a model of "
            f"{preset.front_end} with {preset.bits[-1]}; give another teacher, or another preset"
        )
    return weights


def fit(
    model: Autoencoder,
    corpus: Corpus,
    folder: Path,
    *,
    origin: dict[str, Any] | None = None,
    seed: int = 0,
    keep: Callable[[Autoencoder, list[dict[str, float]]], None] = lambda model, history: None,
    epoch_done: Callable[[int, int, dict[str, float]], None] = lambda epoch, epochs, logs: None,
) -> list[dict[str, float]]:
    """Train a model on a rendered corpus, or go on where an earlier call with the same folder was stopped.

    Parameters
    ----------
    folder
        Where the state after each epoch is kept.
    origin
        What the model was made from: a training goes on only if it is the same.
    keep
        Called with the model and the measures of all epochs before the state after each is kept.
    epoch_done
        Called with (epoch, epochs, measures) after it.

    Returns
    -------
    list of dict
        The measures of each epoch.
    """
    preset = model.preset
    training, held_out = corpus.split(seed)
    epochs = max(1, round(preset.steps / STEPS_PER_EPOCH))
    total = epochs * STEPS_PER_EPOCH
    about = {"preset": preset.to_json(), "seed": seed, "corpus": corpus.key, "origin": origin or {}}
    kept = Checkpoints(folder, about)
    goes_on = _same(kept.last(), about)
    twins = Twins(corpus, training)
    model.build(None)
    if model.start is not None and not goes_on:
        _fit_decoder(model, Batches(twins, preset, seed, epochs))
    schedule = WarmUpThenCosine(preset.learning_rate, max(1, int(preset.warm_up * total)), total)
    model.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0), jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # or a checkpoint's optimizer state would be passed over
    first = kept.restore(model) if goes_on else 0

    def report(epoch: int, logs: dict[str, float] | None) -> None:
        kept.note(epoch + 1, logs)
        keep(model, kept.history)
        kept.save(model)
        epoch_done(epoch + 1, epochs, logs or {})

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
    return kept.history


def _fit_decoder(model: Autoencoder, batches: Batches) -> None:
    """Train the decoder alone: what a new one knows nothing of would else spoil an encoder that is good already."""
    encoder = (model.encoder, model.code)
    for layer in encoder:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(model.preset.learning_rate), jit_compile=False)
    for k in range(DECODER_STEPS):
        model.train_on_batch(*batches[k])
    for layer in encoder:
        layer.trainable = True


def _same(state: dict[str, Any] | None, about: dict[str, Any]) -> bool:
    """Whether a state is of this training; the number of steps may change."""
    if state is None or state.get("corpus") != about["corpus"] or state.get("origin", {}) != about["origin"]:
        return False
    then, now = (replace(preset_from_json(some["preset"]), steps=0) for some in (state, about))
    return then == now


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
