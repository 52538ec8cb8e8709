"""The weights file: what the run-time encoder needs of a trained network, and the models that ship.

A weights file is an ``.npz`` archive: the arrays of the encoder as float16, and a JSON object of facts. A model's
*id* is the SHA-256 of everything that shapes its hashes; facts and calibration may change without changing it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.atomic import atomic_write
from samaf.errors import ModelError, shown

FORMAT_VERSION = 1
DEFAULT_PATH = Path(__file__).parent / "samaf-4.npz"
"""The nested 64/128/256-bit model that ships; its card lies beside it."""

Float32 = NDArray[np.float32]

_ARRAYS = ("kernel", "recurrent", "bias", "dense", "dense_bias")
_CALIBRATION = "calibration_"


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
            why = error.strerror or str(error)
            raise ModelError(
                f"{shown(path)}: cannot be written ({why}); choose another folder or make room"
            ) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str] = DEFAULT_PATH) -> Weights:
        """Read a weights file.

        Raises
        ------
        ModelError
            If there is none, it is damaged, or it is of another version.
        """
        remedy = "give a file written by `samaf train` or `samaf export`"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                if header["version"] != FORMAT_VERSION:
                    raise ModelError(
                        f"{shown(path)}: weights of format {header['version']}, this samaf reads format "
                        f"{FORMAT_VERSION}; update samaf, or export the model again"
                    )
                weights = cls(
                    front_end=header["front_end"],
                    stack=int(header["stack"]),
                    bits=tuple(header["bits"]),
                    **{name: archive[name].astype(np.float32) for name in _ARRAYS},
                    clarity=archive["clarity"].astype(np.float32) if "clarity" in archive.files else None,
                    calibration={
                        name.removeprefix(_CALIBRATION): archive[name]
                        for name in archive.files
                        if name.startswith(_CALIBRATION)
                    },
                    facts=header["facts"],
                )
        except ModelError:
            raise
        except FileNotFoundError:
            raise ModelError(f"{shown(path)}: no such weights file; {remedy}") from None
        except PermissionError:
            raise ModelError(f"{shown(path)}: may not be read; check its permissions") from None
        except Exception:  # a dozen kinds, from zipfile, from numpy and from the parsers under it
            raise ModelError(f"{shown(path)}: not a weights file, or damaged; {remedy}") from None
        if not weights._fits_together():
            raise ModelError(f"{shown(path)}: the arrays do not fit each other or hold NaN; {remedy}")
        return weights

    def _fits_together(self) -> bool:
        """Whether the arrays have the shapes of one network and hold nothing but numbers."""
        inputs, units, code = len(self.kernel), len(self.recurrent), len(self.dense_bias)
        shapes: list[tuple[int, ...]] = [
            (inputs, 4 * units),
            (units, 4 * units),
            (4 * units,),
            (units, code),
            (code,),
        ]
        arrays = [getattr(self, name) for name in _ARRAYS]
        if self.clarity is not None:
            arrays.append(self.clarity)
            shapes.append((units + 1,))
        return (
            [array.shape for array in arrays] == shapes
            and all(np.isfinite(array).all() for array in arrays)
            and self.bits[-1:] == (code,)
        )
