"""The weights file: what the run-time encoder needs of a trained network, and the models that ship.

A weights file is an ``.npz`` archive: the arrays of the encoder as float16, and a JSON object of facts. A model's
*id* is the SHA-256 of everything that shapes its hashes; facts and calibration may change without changing it.
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

from samaf.errors import ModelError

FORMAT_VERSION = 1
DEFAULT_PATH = Path(__file__).parent / "samaf-1.npz"
"""The nested 64/128/256-bit model that ships; its card lies beside it."""

REFERENCE_HOP_S = 1.0
"""Default seconds from hash to hash in an index."""
QUERY_HOP_S = 0.1
"""Default seconds from hash to hash in a query."""

Float32 = NDArray[np.float32]

_ARRAYS = ("kernel", "recurrent", "bias", "dense", "dense_bias")


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
    null : dict
        Arrays of the null model (see :mod:`samaf.significance`); empty before calibration.
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
    null: dict[str, NDArray] = field(default_factory=dict)
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
        path = Path(path)
        header = {
            "version": FORMAT_VERSION,
            "front_end": self.front_end,
            "stack": self.stack,
            "bits": list(self.bits),
            "facts": self.facts,
        }
        arrays = {name: np.asarray(getattr(self, name), "<f2") for name in _ARRAYS}
        arrays |= {f"null_{name}": value for name, value in self.null.items()}
        new = path.with_name(path.name + ".new")
        try:
            with open(new, "wb") as f:
                np.savez(f, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
            os.replace(new, path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise ModelError(f"{path}: cannot write the weights file: {error.strerror}") from None

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
            with np.load(path, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                if header["version"] != FORMAT_VERSION:
                    raise ModelError(
                        f"{path}: weights of format {header['version']}, this samaf reads format {FORMAT_VERSION}; "
                        "export the model again"
                    )
                arrays = {name: archive[name].astype(np.float32) for name in _ARRAYS}
                null = {name[5:]: archive[name] for name in archive.files if name.startswith("null_")}
        except FileNotFoundError:
            raise ModelError(f"{path}: no such weights file; {remedy}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            raise ModelError(f"{path}: not a weights file, or damaged; {remedy}") from None
        return cls(
            front_end=header["front_end"],
            stack=header["stack"],
            bits=tuple(header["bits"]),
            **arrays,
            null=null,
            facts=header["facts"],
        )
