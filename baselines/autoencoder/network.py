"""The U-Net autoencoder of Singh (2025), figures 3 and 4, as Keras networks: an encoder and a decoder.

As listed there in PyTorch, layer by layer. What had to be read into it:

- Instance normalisation has neither scale nor offset, as in PyTorch by default. A group for each channel does it.
- PyTorch pads a convolution by 1 on each side; Keras' "same" pads an odd width of 47 by one more, which would give 24
  columns where PyTorch has 23, and a code of 384 values instead of 320.
- Text and listing differ on dropout: the text has it in the last two decoder layers, the listing in the first four.
  The listing is followed.
- The listing's "activation" is applied last.

The decoder is fed the code and the outputs of the five layers before it: these pass the code by.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from baselines.autoencoder.features import BANDS, FRAMES

ENCODER = (64, 128, 256, 256, 256, 64)
"""Channels of the encoder's layers; the last is the code."""
DECODER = (256, 256, 256, 128, 64)
DROPOUT = 0.3
FIRST_WITH_DROPOUT = 3
"""The encoder's layers from this one on have dropout; the decoder's have it but for the last."""
COLUMNS = 5
"""Of the code, whose one row has 64 channels: 320 values."""


def encoder(width: float = 1.0) -> keras.Model:
    """Spectrograms (n, 64, 376, 1) -> what each of the six layers gives; the last is the code, (n, 1, 5, 64).

    Parameters
    ----------
    width
        Multiplies the channels: 1 for the article's network.
    """
    x = spectrogram = keras.Input((BANDS, FRAMES, 1), name="spectrogram")
    found = []
    for number, channels in enumerate(ENCODER):
        x = layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(scaled(channels, width), 4, 2)(x)
        x = layers.LeakyReLU(0.2)(x)
        x = _normalised(x)
        if number >= FIRST_WITH_DROPOUT:
            x = layers.Dropout(DROPOUT)(x)
        found.append(x)
    return keras.Model(spectrogram, found, name="encoder")


def decoder(width: float = 1.0) -> keras.Model:
    """What :func:`encoder` gives -> spectrograms (n, 64, 376, 1)."""
    shapes = [shape[1:] for shape in encoder(width).output_shape]
    inputs = [keras.Input(shape) for shape in shapes]
    x = inputs[-1]
    for number, (channels, beside) in enumerate(zip(DECODER, inputs[-2::-1], strict=True)):
        size, padding = ((2, 3), "valid") if number < 3 else (4, "same")  # both as PyTorch has them
        x = layers.Conv2DTranspose(scaled(channels, width), size, 2, padding=padding)(x)
        x = _normalised(x)
        x = layers.LeakyReLU(0.3)(x)
        if number < len(DECODER) - 1:
            x = layers.Dropout(DROPOUT)(x)
        x = layers.Concatenate()([x, beside])
    x = layers.UpSampling2D(2)(x)
    x = layers.ZeroPadding2D(((2, 1), (2, 1)))(x)  # (1, 0) of its own, 1 of the convolution
    x = layers.Conv2D(1, 4)(x)
    return keras.Model(inputs, layers.LeakyReLU(0.3)(x), name="decoder")


def autoencoder(width: float = 1.0) -> keras.Model:
    """Spectrograms (n, 64, 376, 1) -> the same, rebuilt; its layers "encoder" and "decoder" are the two halves."""
    spectrogram = keras.Input((BANDS, FRAMES, 1), name="spectrogram")
    return keras.Model(spectrogram, decoder(width)(encoder(width)(spectrogram)), name="unet")


def scaled(channels: int, width: float) -> int:
    """Channels of a narrower network."""
    return max(1, round(channels * width))


def _normalised(x: Any) -> Any:
    return layers.GroupNormalization(groups=-1, center=False, scale=False, epsilon=1e-5)(x)
