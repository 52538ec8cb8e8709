"""The networks of :mod:`samaf.bodies` as Keras layers: they are trained as these, and begun from a weights file."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from samaf.bodies import Body, Lstm

Float32 = NDArray[np.float32]


class Encoder(Protocol):
    """A Keras layer from windows (n, steps, inputs) to states (n, units)."""

    body: Body

    def arrays(self) -> dict[str, Float32]:
        """What a weights file holds of it."""
        ...

    def begin(self, arrays: dict[str, Float32]) -> None:
        """Take these arrays; the layer is built."""
        ...

    def matrices(self) -> dict[str, keras.Variable]:
        """Variables whose arrays have two dimensions."""
        ...


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


def layer_of(body: Body, *, begun: bool = False, **options: Any) -> Any:
    """The layer of a body, not yet built; `begun` if it is to take arrays of a weights file."""
    assert isinstance(body, Lstm)
    return LstmLayer(body, **options)
