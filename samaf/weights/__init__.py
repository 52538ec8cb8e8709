"""The weights file: what the run-time encoder needs of a trained network, and the models that ship.

A weights file is an ``.npz`` archive: the arrays of the encoder, and a JSON object of facts. Arrays are float16; a
matrix may have codes of 8 bits (int8) or 4 (two in a uint8) with scales beside it (:mod:`samaf.packed`). A model's *id*
is the SHA-256 of everything that shapes its hashes; facts and calibration may change without changing it.

Format 1 is that of an LSTM in float16. Format 2 is that of all else: its header tells the network's sizes (``body``),
and may tell the id of another model whose indexes this one shares (``compatible_with``).

A file may come from anybody, so that `Weights.load` believes nothing: it has at most 32 MiB, and so have its arrays
together; they have the names, types and shapes of one network, of at most 2^24 weights, which the header and their own
heads tell before any is read; the header has at most 64 KiB of JSON; code lengths are ascending multiples of 64 up to
1024, no number is greater than 100,000. What sizes a network may have, :mod:`samaf.bodies` says; what the arrays of the
calibration may hold, :class:`samaf.verdict.Verdict`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.atomic import atomic_write
from samaf.bodies import Body, Lstm, body_of
from samaf.errors import ModelError, shown
from samaf.packed import WIDTHS, Packed, groups, unpacked
from samaf.untrusted import named, opened, parse_json, text, whole, why
from samaf.weights.arrays import Arrays

FORMAT_VERSIONS = (1, 2)
DEFAULT_PATH = Path(__file__).parent / "samaf-4.npz"
"""The nested 64/128/256-bit model that ships; its card lies beside it."""

Float32 = NDArray[np.float32]

_CALIBRATION = "calibration_"
_SCALE = "_scale"
_MOST_BYTES = 1 << 25
_MOST_BITS = 1024
_MOST_HEADER_BYTES = 1 << 16
_MOST_WEIGHTS = 15 << 20
"""They leave room for a calibration."""
_LARGEST = 1e5
_SPARSE = 0.2
"""Share of zeros from which on matrices are deflated: they were pruned."""


@dataclass(frozen=True, eq=False)
class Weights:
    """An encoder's arrays and facts.

    Attributes
    ----------
    front_end
        A name in :data:`samaf.features.FRONT_ENDS`.
    stack
        Frames that one step of a window holds.
    bits
        Code lengths, ascending.
    body
        The network that makes a window's state.
    arrays
        Those of the body, and of the layer that makes the code's values of the state: dense (units, bits[-1]) and
        dense_bias (bits[-1],). Matrices may be packed.
    clarity : (units + 1,), optional
        Weights of the state, and a constant, in the logarithm of what a window's activations are
        multiplied by to tell how sure its bits are (see :mod:`samaf.model.clarity`). It shapes no hash.
    calibration : dict
        Arrays of the calibration (see :mod:`samaf.verdict`), no part of the model's identity; empty before it.
    facts
        How the model came to be: preset, training measures.
    compatible_with
        Id of the model whose indexes this one shares, as if it were that.
    """

    front_end: str
    stack: int
    bits: tuple[int, ...]
    body: Body
    arrays: Mapping[str, Float32 | Packed]
    clarity: Float32 | None = None
    calibration: dict[str, NDArray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    compatible_with: str | None = None

    @property
    def units(self) -> int:
        """Values of a state."""
        return self.body.units

    @property
    def n_inputs(self) -> int:
        """Values of one step of a window."""
        return self.body.inputs(self.stack)

    @cached_property
    def floats(self) -> dict[str, Float32]:
        """The arrays in float32."""
        return {name: unpacked(array) for name, array in self.arrays.items()}

    @cached_property
    def model_id(self) -> str:
        """SHA-256, in hex, of all that shapes the hashes; or the id of the model that this one is compatible with."""
        return self.compatible_with or self.own_id

    @property
    def own_id(self) -> str:
        """SHA-256, in hex, of all that shapes the hashes."""
        stored = self._stored()
        shape: list[Any] = [self._version, self.front_end, self.stack, list(self.bits)]
        if self._version > 1:
            listing = [[name, array.dtype.str, array.shape] for name, array in stored.items()]
            shape += [_body_json(self.body), listing]
        digest = hashlib.sha256(json.dumps(shape).encode())
        for array in stored.values():
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def is_packed(self) -> bool:
        """Whether any matrix has codes of few bits."""
        return any(isinstance(array, Packed) for array in self.arrays.values())

    @property
    def _version(self) -> int:
        plain = isinstance(self.body, Lstm) and not self.is_packed and self.compatible_with is None
        return 1 if plain else 2

    def _stored(self) -> dict[str, NDArray[Any]]:
        """The network's arrays as the file holds them."""
        stored: dict[str, NDArray[Any]] = {}
        for name in _shapes(self.body, self.bits):
            array = self.arrays[name]
            if isinstance(array, Packed):
                stored[name] = array.stored()
                stored[name + _SCALE] = np.ascontiguousarray(array.scales, "<f2")
            else:
                stored[name] = np.ascontiguousarray(array, "<f2")
        return stored

    def quantised(self, storage: str) -> Weights:
        """The same network with its matrices in fewer bits, ``"int8"`` or ``"int4"``; not calibrated.

        Its facts tell the id of this one, its original.
        """
        arrays = {
            name: Packed.of(array, WIDTHS[storage]) if array.ndim == 2 else array
            for name, array in self.floats.items()
        }
        facts = {**self.facts, "quantised": storage, "original": self.own_id}
        return replace(self, arrays=arrays, calibration={}, facts=facts, compatible_with=None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, at once or not at all."""
        header = {
            "version": self._version,
            "front_end": self.front_end,
            "stack": self.stack,
            "bits": list(self.bits),
            "facts": self.facts,
        }
        if self._version > 1:
            header["body"] = _body_json(self.body)
        if self.compatible_with is not None:
            header["compatible_with"] = self.compatible_with
        arrays = self._stored()
        matrices = [array for array in self.floats.values() if array.ndim == 2]
        zeros = sum(array.size - np.count_nonzero(array) for array in matrices)
        sparse = zeros >= _SPARSE * sum(array.size for array in matrices)
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        if self.clarity is not None:
            arrays["clarity"] = np.asarray(self.clarity, "<f4")
        arrays |= {_CALIBRATION + name: value for name, value in self.calibration.items()}
        try:
            with atomic_write(path) as file:
                (np.savez_compressed if sparse else np.savez)(file, **arrays)  # type: ignore[arg-type]  # not options
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
            If there is none, it is damaged, or it is of a version that is not known.
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
        version = header["version"]
        if version not in FORMAT_VERSIONS or type(version) is not int:
            raise ModelError(
                f"{name}: weights of format {shown(str(version)[:20])}, this samaf reads formats "
                f"{' and '.join(map(str, FORMAT_VERSIONS))}; update samaf, or export the model again"
            )
        named(header, "front_end", "stack", "bits", "facts")
        bits = header["bits"]
        if not isinstance(bits, list) or not bits:
            raise ValueError("bits are no list of code lengths")
        if any(whole("bits", n, 64, _MOST_BITS) % 64 for n in bits) or bits != sorted(set(bits)):
            raise ValueError("bits are no ascending multiples of 64")
        body: Body
        if version == 1:
            body = Lstm(arrays.shape("kernel", 2)[0], arrays.shape("recurrent", 2)[0])
        else:
            body = body_of(named(header, "body")["body"])
        shapes = _shapes(body, bits)
        _check_size(shapes)
        made = {array: _read_array(arrays, array, shape, version > 1) for array, shape in shapes.items()}
        clarity = arrays.read("clarity", "<f4", (body.units + 1,)) if "clarity" in arrays else None
        for array, values in {**made, "clarity": clarity}.items():
            if values is not None and not (np.abs(unpacked(values)) <= _LARGEST).all():
                raise ValueError(f"{array} holds NaN, infinity, or more than {_LARGEST:g}")
        compatible_with = header.get("compatible_with") if version > 1 else None
        if compatible_with is not None and not _ID.fullmatch(text("compatible_with", compatible_with, 64)):
            raise ValueError("compatible_with is no model's id")
        return cls(
            front_end=text("front_end", header["front_end"], 64),
            stack=whole("stack", header["stack"], 1, 1000),
            bits=tuple(bits),
            body=body,
            arrays=made,
            clarity=clarity,
            calibration={
                array.removeprefix(_CALIBRATION): arrays.read(array)
                for array in arrays
                if array.startswith(_CALIBRATION)
            },
            facts=named(header["facts"]),
            compatible_with=compatible_with,
        )


_ID = re.compile("[0-9a-f]{64}")


def check_body(body: Body, bits: Sequence[int]) -> None:
    """Refuse a network that is too large for a weights file, by a `ValueError`."""
    body_of(_body_json(body))
    _check_size(_shapes(body, bits))


def _check_size(shapes: Mapping[str, tuple[int, ...]]) -> None:
    if sum(map(math.prod, shapes.values())) > _MOST_WEIGHTS:
        raise ValueError(f"it has more than {_MOST_WEIGHTS} weights")


def _body_json(body: Body) -> dict[str, Any]:
    return {"kind": body.kind, **body.to_json()}


def _shapes(body: Body, bits: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The arrays of a network by name."""
    return {**body.shapes(), "dense": (body.units, bits[-1]), "dense_bias": (bits[-1],)}


def _read_array(arrays: Arrays, name: str, shape: tuple[int, ...], may_be_packed: bool) -> Float32 | Packed:
    """An array of a network, its type told by that of what is stored; what does not fit is a `ValueError`."""
    width = {"|i1": 8, "|u1": 4}.get(arrays.dtype(name)) if may_be_packed and len(shape) == 2 else None
    if width is None:
        return arrays.read(name, "<f2", shape).astype(np.float32)
    inputs, outputs = shape
    scales = arrays.read(name + _SCALE, "<f2", (groups(inputs, width), outputs))
    if not np.isfinite(scales).all():
        raise ValueError(f"{name + _SCALE} holds NaN or infinity")
    if width == 8:
        return Packed(8, arrays.read(name, "|i1", shape), scales)
    return Packed.of_stored(arrays.read(name, "|u1", ((inputs + 1) // 2, outputs)), scales, inputs)
