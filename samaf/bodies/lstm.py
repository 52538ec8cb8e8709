"""An LSTM over the steps of a window; its last state counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from samaf.onnx_graph import MICROSOFT, Part, node
from samaf.packed import Packed, Stored, unpacked
from samaf.untrusted import named, whole

_MOST = 1 << 16


@dataclass(frozen=True)
class Lstm:
    """Arrays: kernel (inputs, 4 units), recurrent (units, 4 units), bias (4 units,); gates in the order i, f, c, o."""

    values: int
    """Of a step."""
    units: int

    kind: ClassVar[str] = "lstm"
    batch: ClassVar[int] = 128
    """The gates of all steps at once take 150 kB a window."""

    def inputs(self, stack: int) -> int:
        """Values of a step."""
        return self.values

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Arrays by name."""
        gates = 4 * self.units
        return {"kernel": (self.values, gates), "recurrent": (self.units, gates), "bias": (gates,)}

    def macs(self, n_steps: int) -> int:
        """Multiplications with addition for one window."""
        return n_steps * 4 * self.units * (self.values + self.units)

    def graph(self, arrays: Stored) -> Part:
        """Nodes and constants; with products of whole numbers where both matrices have 8 bits.

        Those measure the input and the state anew in each step and batch, and round them to 8 bits too, so that a
        window's values depend a little on what else is in its batch.
        """
        kernel, recurrent = arrays["kernel"], arrays["recurrent"]
        bias = _reordered(unpacked(arrays["bias"]))
        constants = {
            "bias": np.concatenate([bias, np.zeros_like(bias)])[None],  # one for each matrix
            "one_direction": np.zeros(1, np.int64),
        }
        before = node("Transpose", ["windows"], ["steps"], perm=[1, 0, 2])
        after = node("Squeeze", ["last", "one_direction"], ["state"])
        lstm: dict[str, Any] = {"outputs": ["", "last"], "hidden_size": self.units}
        if (
            isinstance(kernel, Packed)
            and isinstance(recurrent, Packed)
            and kernel.width == recurrent.width == 8
        ):
            names = []
            for name, matrix in {"kernel": kernel, "recurrent": recurrent}.items():
                constants |= {
                    name: _reordered(matrix.codes)[None],
                    f"{name}_scale": _reordered(matrix.scales.astype(np.float32)),
                    f"{name}_zero": np.zeros((1, 4 * self.units), np.int8),
                }
                names += [f"{name}_scale", f"{name}_zero"]
            inputs = ["steps", "kernel", "recurrent", "bias", "", "", "", "", *names]
            middle = node("DynamicQuantizeLSTM", inputs, domain=MICROSOFT, **lstm)
        else:
            constants["kernel"] = _reordered(unpacked(kernel)).T[None]
            constants["recurrent"] = _reordered(unpacked(recurrent)).T[None]
            middle = node("LSTM", ["steps", "kernel", "recurrent", "bias"], **lstm)
        return Part([before, middle, after], constants)

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, sizes: dict[str, Any]) -> Lstm:
        """The body of such sizes."""
        named(sizes, "values", "units")
        return cls(whole("values", sizes["values"], 1, _MOST), whole("units", sizes["units"], 1, _MOST))


def _reordered(gates: NDArray[Any]) -> NDArray[Any]:
    """The gates as ONNX has them: i, o, f, c."""
    i, f, c, o = np.split(gates, 4, axis=-1)
    return np.concatenate([i, o, f, c], axis=-1)
