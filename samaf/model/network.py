"""The sequence-to-sequence autoencoder and its training step.

Encoder: an LSTM over the steps of a window, or another network of :mod:`samaf.bodies`; its state goes through a dense
layer whose outputs are the code's real values (tanh in training, the sign at run time). Decoder: an LSTM that sees
the code at every step gives back the clean window (Baez-Suarez et al. 2020, section 3; denoising as in Vincent et al.
2008).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from samaf.model import losses
from samaf.model.encoders import layer_of
from samaf.model.presets import Preset
from samaf.weights import Weights


class Autoencoder(keras.Model):
    """The network of a :class:`~samaf.model.presets.Preset`.

    Called with windows (2 n, steps, inputs), twins n apart; returns codes (2 n, bits) and reconstructions of the
    windows' shape. Trained by ``fit`` on ``(windows, clean windows)`` batches.

    Parameters
    ----------
    preset
        Its sizes and losses.
    encoder
        Windows (n, steps, inputs) to vectors (n, any), in place of the preset's network: for comparisons.
    start
        The encoder begins as this one, and as large; the decoder is new.
    masked
        Weights of its matrices that are 0 at the start stay so.
    teacher
        The codes are to come near the beginning of this model's, too.
    """

    def __init__(
        self,
        preset: Preset,
        encoder: keras.layers.Layer | None = None,
        *,
        start: Weights | None = None,
        masked: bool = False,
        teacher: Weights | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.preset, self.start, self.masked = preset, start, masked
        body = preset.body if start is None else start.body
        self.encoder = encoder or layer_of(body, begun=start is not None, name="encoder")
        self.code = keras.layers.Dense(preset.bits[-1], name="code")
        self.decoder = keras.layers.LSTM(preset.decoder_units, return_sequences=True, name="decoder")
        self.frames = keras.layers.Dense(preset.n_inputs, name="frames")
        names = ["mse", "hash", "entropy", "balance", "ber", *(["distil"] if teacher else [])]
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.taught = None if teacher is None else _codes_of(teacher, preset)

    def build(self, input_shape: Any) -> None:
        """Create all weights."""
        windows = (None, self.preset.n_steps, self.preset.n_inputs)
        self.encoder.build(windows)
        self.code.build(self.encoder.compute_output_shape(windows))
        self.decoder.build((None, self.preset.n_steps, self.preset.bits[-1]))
        self.frames.build((None, self.preset.n_steps, self.preset.decoder_units))
        self.built = True
        if self.start is None:
            return
        floats = self.start.floats
        self.encoder.begin(floats)
        self.code.set_weights([floats["dense"], floats["dense_bias"]])
        if self.masked:
            for name, variable in {**self.encoder.matrices(), "dense": self.code.kernel}.items():
                variable.constraint = _Kept((floats[name] != 0).reshape(variable.shape))

    def call(self, windows: Any, training: bool = False) -> tuple[Any, Any]:
        """Codes and reconstructions."""
        codes = ops.tanh(self.code(self.encoder(windows, training=training)))
        repeated = ops.repeat(codes[:, None, :], self.preset.n_steps, axis=1)
        return codes, self.frames(self.decoder(repeated, training=training))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The composite loss of a batch; keeps each term for the log."""
        preset = self.preset
        codes, reconstruction = y_pred
        if preset.hash_loss == "contrast":

            def hash_loss(c: Any) -> Any:
                return losses.hash_loss_contrast(c, preset.temperature)
        else:
            flat = ops.reshape(x, (ops.shape(x)[0], -1))

            def hash_loss(c: Any) -> Any:
                return losses.hash_loss_pull(c, flat)

        terms = {
            "mse": losses.mean_squared_error(y, reconstruction),
            "hash": losses.over_prefixes(hash_loss, codes, preset.bits),
            "entropy": losses.bitwise_entropy_loss(codes),
            "balance": losses.balance_guard(codes),
        }
        total = (
            preset.mse_weight * terms["mse"]
            + preset.hash_weight * terms["hash"]
            + preset.entropy_weight * terms["entropy"]
            + preset.balance_weight * terms["balance"]
        )
        if self.taught is not None:
            terms["distil"] = losses.distillation(codes, self.taught(x))
            total += preset.distil_weight * terms["distil"]
        for name, value in terms.items():
            self.trackers[name].update_state(value)
        n = ops.shape(codes)[0] // 2
        self.trackers["ber"].update_state(ops.mean(ops.cast(codes[:n] * codes[n:] < 0, "float32")))
        return total


class _Kept(keras.constraints.Constraint):
    """Holds the weights of a pruned matrix at 0: the optimiser applies it after each step."""

    def __init__(self, mask: Any) -> None:
        self.mask = ops.convert_to_tensor(mask, "float32")

    def __call__(self, weights: Any) -> Any:
        return weights * self.mask


def _codes_of(weights: Weights, preset: Preset) -> Callable[[Any], Any]:
    """The codes that a trained model gives windows; a function, so that it is no part of the network in training."""
    shape = (preset.n_steps * preset.n_inputs // weights.n_inputs, weights.n_inputs)
    encoder, bits = layer_of(weights.body, begun=True, trainable=False), preset.bits[-1]
    encoder.build((None, *shape))
    encoder.begin(weights.floats)
    dense = ops.convert_to_tensor(weights.floats["dense"][:, :bits])
    bias = ops.convert_to_tensor(weights.floats["dense_bias"][:bits])

    def codes(windows: Any) -> Any:
        states = encoder(ops.reshape(windows, (-1, *shape)), training=False)
        return ops.stop_gradient(ops.tanh(ops.matmul(states, dense) + bias))

    return codes
