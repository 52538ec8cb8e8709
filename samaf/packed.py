"""Matrices of weights in 8 or 4 bits: whole numbers times scales.

A matrix (inputs, outputs) becomes codes, symmetric about 0, and scales in float16. In 8 bits each output has one scale;
in 4 bits each run of 32 inputs of an output has its own, as 15 levels are too few for all of them. What they stand for
is the product of both, to the last bit the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTHS = {"int8": 8, "int4": 4}
"""Bits of a code, by name."""
GROUP = 32
"""Inputs that share a scale in 4 bits."""

_SHRUNK = np.linspace(1.0, 0.7, 16)
"""Largest code's value over the largest weight: cutting the largest off a little may leave less error in all."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix in few bits.

    Attributes
    ----------
    width
        8 or 4.
    codes : int8 (inputs, outputs)
        Of 4 bits, -8 to 7.
    scales : float16 (groups, outputs)
        One group of all inputs in 8 bits; one for each 32 of them, the last perhaps of fewer, in 4.
    """

    width: int
    codes: NDArray[np.int8]
    scales: NDArray[np.float16]

    @classmethod
    def of(cls, matrix: Float32, width: int) -> Packed:
        """The nearest to a matrix: each scale is that with the least squared error of some."""
        inputs, outputs = matrix.shape
        group, largest = (inputs if width == 8 else GROUP), 2 ** (width - 1) - 1
        filled = np.zeros((groups(inputs, width) * group, outputs))
        filled[:inputs] = matrix
        parts = filled.reshape(-1, group, outputs)
        most = np.abs(parts).max(axis=1)
        best, codes = np.full(most.shape, np.inf), np.zeros(parts.shape)
        scales = np.zeros(most.shape, np.float16)
        for shrunk in _SHRUNK:
            scale = (most * shrunk / largest).astype(np.float16)
            wide = scale[:, None].astype(np.float64)
            code = np.clip(np.rint(parts / np.where(wide > 0, wide, np.inf)), -largest, largest)
            error = np.square(code * wide - parts).sum(axis=1)
            better = error < best
            best = np.where(better, error, best)
            scales = np.where(better, scale, scales)
            codes = np.where(better[:, None], code, codes)
        return cls(width, codes.reshape(-1, outputs)[:inputs].astype(np.int8), scales)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return self.codes.shape

    def floats(self) -> Float32:
        """What it stands for."""
        rows = np.repeat(
            self.scales.astype(np.float32), GROUP if self.width == 4 else len(self.codes), axis=0
        )
        return self.codes * rows[: len(self.codes)]

    def stored(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        """Its codes as a file holds them: of 4 bits two in a byte, that of the even input in the lower half."""
        if self.width == 8:
            return self.codes
        even, odd = self.codes[::2], self.codes[1::2]
        out = even.view(np.uint8) & np.uint8(15)
        out[: len(odd)] |= odd.view(np.uint8) << np.uint8(4)
        return out

    @classmethod
    def of_stored(cls, stored: NDArray[np.uint8], scales: NDArray[np.float16], inputs: int) -> Packed:
        """The matrix whose :meth:`stored` codes of 4 bits these are."""
        both = np.stack([stored << np.uint8(4), stored], axis=1).reshape(-1, stored.shape[1])[:inputs]
        return cls(4, both.view(np.int8) >> np.int8(4), scales)  # shifted as signed numbers, the sign is kept


Stored = Mapping[str, Float32 | Packed]
"""Arrays of a network by name, some of them packed."""


def groups(inputs: int, width: int) -> int:
    """Scales that each output has."""
    return 1 if width == 8 else -(-inputs // GROUP)


def unpacked(array: Float32 | Packed) -> Float32:
    """The array itself, in float32."""
    return array.floats() if isinstance(array, Packed) else array
