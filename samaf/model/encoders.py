"""The networks of :mod:`samaf.bodies` as Keras layers, from windows (n, steps, inputs) to states (n, units).

Each knows its ``body``; gives the ``arrays`` that a weights file holds of it; can ``begin`` with those of one; and has
``matrices``, the variables whose arrays have two dimensions.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from samaf.bodies import Body, Cnn, Lstm
from samaf.features import WINDOW_FRAMES

Float32 = NDArray[np.float32]


class LstmLayer(keras.layers.LSTM):
    """An LSTM, which gives its last state."""

    def __init__(self, body: Lstm, **options: Any) -> None:
        super().__init__(body.units, **options)
        self.body = body

    def arrays(self) -> dict[str, Float32]:
        """What a weights file holds of it."""
        return dict(zip(self.body.shapes(), self.get_weights(), strict=True))

    def begin(self, arrays: dict[str, Float32]) -> None:
        """Take these arrays."""
        self.set_weights([arrays[name] for name in self.body.shapes()])

    def matrices(self) -> dict[str, keras.Variable]:
        """Both kernels."""
        return {"kernel": self.cell.kernel, "recurrent": self.cell.recurrent_kernel}


class CnnLayer(keras.layers.Layer):
    """Depthwise separable blocks.

    Parameters
    ----------
    body
        Its sizes.
    begun
        It takes arrays of a weights file, in which batch normalisation is a part of the weights, and so has none.
    """

    def __init__(self, body: Cnn, *, begun: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.body = body
        same: dict[str, Any] = {"padding": "same", "use_bias": begun}
        self.convolutions = {"stem": keras.layers.Conv2D(body.widths[0], 3, 2, **same)}
        for block in body.blocks():
            k = block.number
            self.convolutions[f"depthwise_{k}"] = keras.layers.DepthwiseConv2D(3, block.strides, **same)
            self.convolutions[f"pointwise_{k}"] = keras.layers.Conv2D(block.after, 1, **same)
        self.norms = {} if begun else {name: keras.layers.BatchNormalization() for name in self.convolutions}
        self.convolutions["whole"] = keras.layers.DepthwiseConv2D(body.last_image)

    def build(self, input_shape: Any) -> None:
        """Create all weights."""
        body = self.body
        given = {"stem": (None, WINDOW_FRAMES, body.bands, 1), "whole": (None, *body.last_image, body.units)}
        for block in body.blocks():
            given[f"depthwise_{block.number}"] = (None, *block.given, block.before)
            given[f"pointwise_{block.number}"] = (None, *block.made, block.before)
        for name, layer in self.convolutions.items():
            layer.build(given[name])
            if name in self.norms:
                self.norms[name].build(layer.compute_output_shape(given[name]))
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """Of the states."""
        return None, self.body.units

    def call(self, windows: Any, training: bool = False) -> Any:
        """States of windows."""

        def convolved(name: str, image: Any) -> Any:
            made = self.convolutions[name](image)
            return ops.relu(self.norms[name](made, training=training) if name in self.norms else made)

        image = convolved("stem", ops.reshape(windows, (-1, WINDOW_FRAMES, self.body.bands, 1)))
        for block in self.body.blocks():
            made = convolved(f"depthwise_{block.number}", image)
            made = convolved(f"pointwise_{block.number}", made)
            image = image + made if block.after == block.before else made
        return ops.reshape(self.convolutions["whole"](image), (-1, self.body.units))

    def arrays(self) -> dict[str, Float32]:
        """What a weights file holds of it, normalisation being a part of the weights."""
        shapes, arrays = self.body.shapes(), {}
        for name, layer in self.convolutions.items():
            kernel, *bias = (np.asarray(values) for values in layer.get_weights())
            arrays[name] = kernel.reshape(shapes[name])
            arrays[f"{name}_bias"] = bias[0] if bias else np.zeros(shapes[f"{name}_bias"], np.float32)
            if name in self.norms:
                norm = self.norms[name]
                gamma, beta, mean, variance = (np.asarray(values) for values in norm.get_weights())
                scale = gamma / np.sqrt(variance + norm.epsilon)
                arrays[name] = arrays[name] * scale
                arrays[f"{name}_bias"] = beta - mean * scale
        return arrays

    def begin(self, arrays: dict[str, Float32]) -> None:
        """Take these arrays."""
        for name, layer in self.convolutions.items():
            kernel = arrays[name].reshape(layer.get_weights()[0].shape)
            layer.set_weights([kernel, arrays[f"{name}_bias"]])

    def matrices(self) -> dict[str, keras.Variable]:
        """What mixes channels."""
        return {
            name: layer.kernel for name, layer in self.convolutions.items() if name.startswith("pointwise")
        }


def layer_of(body: Body, *, begun: bool = False, **options: Any) -> Any:
    """The layer of a body, not yet built; `begun` if it is to take arrays of a weights file."""
    if isinstance(body, Cnn):
        return CnnLayer(body, begun=begun, **options)
    assert isinstance(body, Lstm)
    return LstmLayer(body, **options)
