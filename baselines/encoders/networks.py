"""Six encoders and two projections, as Keras networks: a window's log-mel spectrogram in, a vector of length 1 out.

The networks of Kim, Kim and Song, "Neural audio fingerprinting" (KAIST, section 2), after Chang et al. (ICASSP 2021)
and Singh et al. (ISMIR 2022). The report names its parts without sizes; what it leaves open is chosen here:

- *Fully connected*: the flattened window of 8192 values, layers of 512 and 256 ("8192, 512, 256" counts the input).
- *Separable CNN*: Chang et al., section 3.1: eight blocks, each a convolution over time and one over frequency, each
  halving its axis until nothing is left to halve, layer normalisation and ReLU after each.
- *LSTM*: over the window's frames; its last state.
- *Attention*: softmax over time of ``X^T w_time`` (F values meet each frame), softmax over frequency of ``X
  w_spectrum``. The report prints the transpose in both of its equations 3 and 4, which cannot be meant: with one of
  them the shapes do not fit. The outer product of both, times the number of values so that its mean is 1 (the
  report's "scaling"), multiplies the window. Both start at 0, where every value counts alike.
- *ResNet*: four stages of two basic blocks (He et al. 2016) with batch normalisation; the mean over time, then a layer.
- *Divide and encode* (Chang et al., section 3.2): the encoder's vector is cut into d parts, each of which has a small
  network of its own for one value (32 units, ELU). In its place: one fully connected layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import ops

from baselines.encoders import ENCODERS, PROJECTIONS

_DIVIDED_UNITS = 32


@dataclass(frozen=True)
class Shape:
    """What shapes a network.

    Attributes
    ----------
    encoder, projection
        One of :data:`baselines.encoders.ENCODERS`, one of ``PROJECTIONS``.
    values : int
        Of an embedding: d.
    bands, frames : int
        Of a window.
    width : int
        1 for the networks of the papers; a fraction for narrower ones. Of convolutions it divides the channels.
    """

    encoder: str
    projection: str = "divided"
    values: int = 64
    bands: int = 256
    frames: int = 32
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ValueError(f"no encoder is called {self.encoder!r}; there are {', '.join(ENCODERS)}")
        if self.projection not in PROJECTIONS:
            raise ValueError(
                f"no projection is called {self.projection!r}; there are {', '.join(PROJECTIONS)}"
            )
        if min(self.values, self.bands, self.frames) < 1 or self.width <= 0:
            raise ValueError("values, bands, frames and width must be above 0")

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return asdict(self)

    def scaled(self, size: int) -> int:
        """A size of the paper's network at this width."""
        return max(1, round(size * self.width))

    def divisible(self, size: int) -> int:
        """The same, up to the next multiple of the values, so that divide and encode can cut it."""
        return self.values * math.ceil(self.scaled(size) / self.values)


def network(shape: Shape) -> keras.Model:
    """Windows (n, bands, frames) -> embeddings (n, values) of length 1."""
    window = keras.Input((shape.bands, shape.frames), name="window")
    x = window
    kind = shape.encoder
    if kind.startswith("attention-") or kind == "resnet":
        x = Attention(name="attention")(x)
    x = BODIES[kind.removeprefix("attention-")](x, shape)
    if shape.projection == "divided":
        if x.shape[-1] % shape.values:
            x = keras.layers.Dense(shape.divisible(x.shape[-1]), name="fit")(x)
        x = Divided(shape.values, name="projection")(x)
    else:
        x = keras.layers.Dense(shape.values, name="projection")(x)
    return keras.Model(window, keras.layers.UnitNormalization(name="length")(x), name=kind)


@keras.saving.register_keras_serializable(package="baselines")
class Attention(keras.layers.Layer):
    """Weights each value of a window by its frame and its band (the report, section 2.5; Wang et al. 2019)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """One weight for each band, and one for each frame."""
        _, bands, frames = input_shape
        self.of_bands = self.add_weight(shape=(bands,), initializer="zeros", name="time")
        self.of_frames = self.add_weight(shape=(frames,), initializer="zeros", name="spectrum")

    def call(self, window: Any) -> Any:
        """Windows of the same shape."""
        time = ops.softmax(ops.einsum("nft,f->nt", window, self.of_bands), axis=-1)
        spectrum = ops.softmax(ops.einsum("nft,t->nf", window, self.of_frames), axis=-1)
        scale = float(self.of_bands.shape[0] * self.of_frames.shape[0])
        return window * (scale * spectrum[:, :, None] * time[:, None, :])


@keras.saving.register_keras_serializable(package="baselines")
class Divided(keras.layers.Layer):
    """Divide and encode: each part of a vector makes one value (Chang et al. 2021, section 3.2)."""

    def __init__(self, values: int, **options: Any) -> None:
        super().__init__(**options)
        self.values = values

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Two small layers for each part."""
        part = int(input_shape[-1] or 0) // self.values
        wide, narrow = (self.values, part, _DIVIDED_UNITS), (self.values, _DIVIDED_UNITS)
        initial = keras.initializers.VarianceScaling(mode="fan_avg", distribution="uniform")
        self.kernel = self.add_weight(shape=wide, initializer=initial, name="kernel")
        self.bias = self.add_weight(shape=narrow, initializer="zeros", name="bias")
        self.last = self.add_weight(shape=narrow, initializer="glorot_uniform", name="last")
        self.last_bias = self.add_weight(shape=(self.values,), initializer="zeros", name="last_bias")

    def call(self, x: Any) -> Any:
        """(n, values) of (n, values * part)."""
        parts = ops.reshape(x, (-1, self.values, x.shape[-1] // self.values))
        inner = ops.elu(ops.einsum("nvp,vpu->nvu", parts, self.kernel) + self.bias)
        return ops.einsum("nvu,vu->nv", inner, self.last) + self.last_bias

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make the layer again."""
        return {**super().get_config(), "values": self.values}


def _connected(x: Any, shape: Shape) -> Any:
    x = keras.layers.Flatten()(x)
    for size in (512, 256):
        x = keras.layers.Dense(
            shape.divisible(size) if size == 256 else shape.scaled(size), activation="relu"
        )(x)
    return x


def _cnn(x: Any, shape: Shape) -> Any:
    x = keras.layers.Reshape((shape.bands, shape.frames, 1))(x)
    for size in (128, 128, 256, 256, 512, 512, 1024, 1024):
        channels = shape.divisible(size) if size == 1024 else shape.scaled(size)
        for kernel, axis in (((1, 3), 2), ((3, 1), 1)):
            strides = tuple(2 if k > 1 and x.shape[axis] > 1 else 1 for k in kernel)
            x = keras.layers.Conv2D(channels, kernel, strides, padding="same")(x)
            x = keras.layers.LayerNormalization()(x)
            x = keras.layers.ReLU()(x)
    return keras.layers.Flatten()(x)


def _lstm(x: Any, shape: Shape) -> Any:
    x = keras.layers.Permute((2, 1))(x)
    return keras.layers.LSTM(shape.divisible(1024))(x)


def _resnet(x: Any, shape: Shape) -> Any:
    x = keras.layers.Reshape((shape.bands, shape.frames, 1))(x)
    x = _normalised(x, shape.scaled(64), 7, 2)
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, size in enumerate((64, 128, 256, 512)):
        for block in range(2):
            channels, strides = shape.scaled(size), 2 if stage and not block else 1
            y = _normalised(x, channels, 3, strides)
            y = _normalised(y, channels, 3, 1, activation=None)
            if x.shape[1:] != y.shape[1:]:
                x = _normalised(x, channels, 1, strides, activation=None)
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.Lambda(_mean_over_time, output_shape=(x.shape[1], x.shape[3]), name="time")(x)
    return keras.layers.Dense(shape.divisible(1024), activation="relu")(keras.layers.Flatten()(x))


@keras.saving.register_keras_serializable(package="baselines")
def _mean_over_time(x: Any) -> Any:
    return ops.mean(x, axis=2)


def _normalised(x: Any, channels: int, size: int, strides: int, activation: str | None = "relu") -> Any:
    x = keras.layers.Conv2D(channels, size, strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.Activation(activation)(x) if activation else x


BODIES: dict[str, Callable[[Any, Shape], Any]] = {
    "connected": _connected,
    "cnn": _cnn,
    "lstm": _lstm,
    "resnet": _resnet,
}
"""What makes a vector of a window (n, bands, frames), its attention apart."""


def macs(model: keras.Model) -> int:
    """Multiplications with addition that one window costs: those of products and convolutions."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, high, wide, _ = layer.output.shape
            total += high * wide * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.LSTM):
            cell = layer.cell
            total += layer.input.shape[1] * (
                math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)
            )
        elif isinstance(layer, Divided):
            total += math.prod(layer.kernel.shape) + math.prod(layer.last.shape)
        elif isinstance(layer, Attention):
            total += 3 * math.prod(layer.input.shape[1:])
    return total
