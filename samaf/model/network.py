"""The sequence-to-sequence LSTM autoencoder and its training step.

Encoder: LSTM over the steps of a window; its last state goes through a dense layer whose outputs are the code's
real values (tanh in training, the sign at run time). Decoder: an LSTM that sees the code at every step gives
back the clean window (Baez-Suarez et al. 2020, section 3; denoising as in Vincent et al. 2008).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from samaf.model import losses
from samaf.model.presets import Preset


class Autoencoder(keras.Model):
    """The network of a :class:`~samaf.model.presets.Preset`.

    Called with windows (2 n, steps, inputs), twins n apart; returns codes (2 n, bits) and reconstructions of the
    windows' shape. Trained by ``fit`` on ``(windows, clean windows)`` batches.

    Parameters
    ----------
    preset
        Its sizes and losses.
    encoder
        Windows (n, steps, inputs) to vectors (n, any), in place of the preset's LSTM: for comparisons.
    """

    def __init__(self, preset: Preset, encoder: keras.layers.Layer | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.preset = preset
        self.encoder = encoder or keras.layers.LSTM(preset.units, name="encoder")
        self.code = keras.layers.Dense(preset.bits[-1], name="code")
        self.decoder = keras.layers.LSTM(preset.decoder_units, return_sequences=True, name="decoder")
        self.frames = keras.layers.Dense(preset.n_inputs, name="frames")
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("mse", "hash", "entropy", "balance", "ber")
        }

    def build(self, input_shape: Any) -> None:
        """Create all weights."""
        windows = (None, self.preset.n_steps, self.preset.n_inputs)
        self.encoder.build(windows)
        self.code.build(self.encoder.compute_output_shape(windows))
        self.decoder.build((None, self.preset.n_steps, self.preset.bits[-1]))
        self.frames.build((None, self.preset.n_steps, self.preset.decoder_units))
        self.built = True

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
        for name, value in terms.items():
            self.trackers[name].update_state(value)
        n = ops.shape(codes)[0] // 2
        self.trackers["ber"].update_state(ops.mean(ops.cast(codes[:n] * codes[n:] < 0, "float32")))
        return (
            preset.mse_weight * terms["mse"]
            + preset.hash_weight * terms["hash"]
            + preset.entropy_weight * terms["entropy"]
            + preset.balance_weight * terms["balance"]
        )
