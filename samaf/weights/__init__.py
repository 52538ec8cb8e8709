"""The weights file: what the run-time encoder needs of a trained network, and the models that ship.

A weights file is an ``.npz`` archive: the arrays of the encoder as float16, and a JSON object of facts. A model's
*id* is the SHA-256 of everything that shapes its hashes; facts and calibration may change without changing it.

A file may come from anybody, so that `Weights.load` believes nothing: it has at most 32 MiB, and so have its arrays
together; they have the names, types and shapes of one network, which their headers tell before any is read; the header
has at most 64 KiB of JSON; code lengths are ascending multiples of 64 up to 1024, no number is greater than 100,000.
What the arrays of the calibration may hold, :class:`samaf.verdict.Verdict` says.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.atomic import atomic_write
from samaf.errors import ModelError, shown
from samaf.untrusted import named, opened, parse_json, text, whole, why
from samaf.weights.arrays import Arrays

FORMAT_VERSION = 1
DEFAULT_PATH = Path(__file__).parent / "samaf-4.npz"
"""The nested 64/128/256-bit model that ships; its card lies beside it."""

Float32 = NDArray[np.float32]

_ARRAYS = ("kernel", "recurrent", "bias", "dense", "dense_bias")
_CALIBRATION = "calibration_"
_MOST_BYTES = 1 << 25
_MOST_BITS = 1024
_MOST_HEADER_BYTES = 1 << 16
_LARGEST = 1e5


@dataclass(frozen=True, eq=False)
class Weights:
    """An encoder's arrays and facts.

    Attributes
    ----------
    front_end
        A name in :data:`samaf.features.FRONT_ENDS`.
    stack
        Frames that one LSTM step sees.
    bits
        Code lengths, ascending.
    kernel, recurrent, bias
        LSTM, gates in the order i, f, c, o: (inputs, 4 units), (units, 4 units), (4 units,).
    dense, dense_bias
        (units, bits[-1]), (bits[-1],).
    clarity : (units + 1,), optional
        Weights of the LSTM's last state, and a constant, in the logarithm of what a window's activations are
        multiplied by to tell how sure its bits are (see :mod:`samaf.model.clarity`). It shapes no hash.
    calibration : dict
        Arrays of the calibration (see :mod:`samaf.verdict`), no part of the model's identity; empty before it.
    facts
        How the model came to be: preset, training measures.
    """

    front_end: str
    stack: int
    bits: tuple[int, ...]
    kernel: Float32
    recurrent: Float32
    bias: Float32
    dense: Float32
    dense_bias: Float32
    clarity: Float32 | None = None
    calibration: dict[str, NDArray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Size of the LSTM."""
        return self.recurrent.shape[0]

    @cached_property
    def model_id(self) -> str:
        """SHA-256, in hex, of all that shapes the hashes."""
        digest = hashlib.sha256(
            json.dumps([FORMAT_VERSION, self.front_end, self.stack, list(self.bits)]).encode()
        )
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name), "<f2").tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, at once or not at all."""
        header = {
            "version": FORMAT_VERSION,
            "front_end": self.front_end,
            "stack": self.stack,
            "bits": list(self.bits),
            "facts": self.facts,
        }
        arrays: dict[str, NDArray[Any]] = {name: np.asarray(getattr(self, name), "<f2") for name in _ARRAYS}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        if self.clarity is not None:
            arrays["clarity"] = np.asarray(self.clarity, "<f4")
        arrays |= {_CALIBRATION + name: value for name, value in self.calibration.items()}
        try:
            with atomic_write(path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs see an option in them
        except OSError as error:
            raise ModelError(
                f"{shown(path)}: cannot be written ({why(error)}); choose another folder or make room"
            ) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str] = DEFAULT_PATH) -> Weights:
        """Read a weights file.

        Raises
        ------
        ModelError
            If there is none, it is damaged, or it is of another version.
        """
        name, remedy = shown(path), "give a file written by `samaf train` or `samaf export`"
        try:
            with opened(path) as (file, size):
                if size > _MOST_BYTES:
                    raise ValueError(f"it has {size} bytes")
                with zipfile.ZipFile(file) as archive:
                    return cls._read(Arrays(archive), name)
        except ModelError:
            raise
        except FileNotFoundError:
            raise ModelError(f"{name}: no such weights file; {remedy}") from None
        except PermissionError:
            raise ModelError(f"{name}: may not be read; check its permissions") from None
        except Exception as error:  # half a dozen kinds, from zipfile and from the decompressor under it
            reason = f" ({shown(str(error))})" if isinstance(error, ValueError) else ""
            raise ModelError(f"{name}: not a weights file, or damaged{reason}; {remedy}") from None

    @classmethod
    def _read(cls, arrays: Arrays, name: str) -> Weights:
        """Take the arrays of a file apart; whatever does not fit is a `ValueError`."""
        if arrays.shape("header", 1)[0] > _MOST_HEADER_BYTES:
            raise ValueError(f"its header has more than {_MOST_HEADER_BYTES} bytes")
        header = named(parse_json(arrays.read("header", "|u1").tobytes()), "version")
        if header["version"] != FORMAT_VERSION:
            raise ModelError(
                f"{name}: weights of format {shown(str(header['version'])[:20])}, this samaf reads format "
                f"{FORMAT_VERSION}; update samaf, or export the model again"
            )
        named(header, "front_end", "stack", "bits", "facts")
        bits = header["bits"]
        if not isinstance(bits, list) or not bits:
            raise ValueError("bits are no list of code lengths")
        if any(whole("bits", n, 64, _MOST_BITS) % 64 for n in bits) or bits != sorted(set(bits)):
            raise ValueError("bits are no ascending multiples of 64")
        inputs, units, code = arrays.shape("kernel", 2)[0], arrays.shape("recurrent", 2)[0], bits[-1]
        shapes = [(inputs, 4 * units), (units, 4 * units), (4 * units,), (units, code), (code,)]
        made = {
            array: arrays.read(array, "<f2", shape).astype(np.float32)
            for array, shape in zip(_ARRAYS, shapes, strict=True)
        }
        if "clarity" in arrays:
            made["clarity"] = arrays.read("clarity", "<f4", (units + 1,))
        for array, values in made.items():
            if not (np.abs(values) <= _LARGEST).all():
                raise ValueError(f"{array} holds NaN, infinity, or more than {_LARGEST:g}")
        return cls(
            front_end=text("front_end", header["front_end"], 64),
            stack=whole("stack", header["stack"], 1, 1000),
            bits=tuple(bits),
            **made,
            calibration={
                array.removeprefix(_CALIBRATION): arrays.read(array)
                for array in arrays
                if array.startswith(_CALIBRATION)
            },
            facts=named(header["facts"]),
        )
