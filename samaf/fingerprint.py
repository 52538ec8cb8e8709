"""Fingerprint: the hashes of one recording, and the file that keeps them.

File format, version 2, all numbers little-endian::

    6 bytes   b"SAMAFP"
    uint16    version
    uint32    length of the header
    header    JSON, UTF-8: bits, hop_s, model_id, duration_s, n_hashes, confidence (bool), start_s
    hashes    uint64 (n_hashes, bits / 64)
    valid     uint8 (n_hashes,), 0 or 1
    [confidence  float16 (n_hashes, bits)]
    known     float32 (n_hashes,)
    uint32    CRC-32 of all before it

Version 1 has neither `start_s` nor `known`; a fingerprint without rows that overhang is written in it.

A file may come from anybody, so that `Fingerprint.load` believes nothing: it has at most 256 MiB, a day's query at ten
hashes a second; its header has at most 4 KiB; the arrays that this tells of fill the file to the byte, which is known
before they are read; their windows cover the recording, give or take a hop and a second. What else the numbers may be,
`Fingerprint` says.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zlib
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samaf.atomic import atomic_write
from samaf.errors import FingerprintError, shown
from samaf.formats import FINGERPRINT_MAGIC, FINGERPRINT_SUFFIX
from samaf.settings import LONGEST_HOP_S, check_hop
from samaf.untrusted import named, number, opened, parse_json, text, whole, why

_VERSION, _OVERHANGING = 1, 2
_PREFIX = struct.Struct("<6sHI")
_CRC = struct.Struct("<I")
_MODEL_ID = re.compile(r"[0-9a-f]{64}")
_MOST_BITS = 1024
_MOST_FILE_BYTES = 1 << 28
_MOST_HEADER_BYTES = 1 << 12
_MOST_CONFIDENCE = np.float32(np.finfo(np.float16).max)


def is_fingerprint_path(path: str | os.PathLike[str]) -> bool:
    """Tell by its ending whether a file name is one of a saved fingerprint."""
    return os.path.splitext(os.fspath(path))[1].lower() == FINGERPRINT_SUFFIX


def mark_rows(hashes: NDArray[np.uint64], valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Make a zero row mean "no content here" and nothing else.

    Invalid rows become zero. A valid code that happens to be zero gets its bit 0 set: that costs one bit of
    distance, the same on both sides of a search, while taking it for silence would lose the window.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n, words)
    valid : ndarray of bool, shape (n,)

    Returns
    -------
    ndarray of uint64, shape (n, words)
        A new array.
    """
    marked: NDArray[np.uint64] = np.where(valid[:, None], hashes, np.uint64(0))
    marked[valid & ~marked.any(axis=1), 0] = 1
    return marked


def confidence_of(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Confidence of real values, float32 of any shape: their magnitudes, to three digits and up to 65504."""
    magnitude = np.abs(values)
    return np.minimum(magnitude, _MOST_CONFIDENCE, out=magnitude).astype(np.float16)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The hashes of one recording.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n, bits // 64)
        Row i is the code of the second that starts at ``start_s + i * hop_s``; bit b is bit ``b % 64`` of word
        ``b // 64``.
    valid : ndarray of bool, shape (n,)
        False where a window has no content (silence, flat noise); such a row is zero, and no other row is.
    hop_s : float
        Seconds from one hash to the next, a multiple of 0.01 up to 10.
    bits : int
        Bits in a hash, a multiple of 64 up to 1024.
    model_id : str
        SHA-256 of the model's weights file, 64 lower-case hexadecimal digits.
    duration_s : float
        Length of the recording in seconds.
    confidence : ndarray of float16, shape (n, bits), optional
        Magnitude of each bit's real value before its sign was taken, times the clarity of its window; for queries.
        `confidence_of` makes it.
    start_s : float
        Where the window of row 0 starts; before the audio (negative) in a query, whose first windows overhang.
    known : ndarray of float32, shape (n,), optional
        Share of each window that lies in the audio, above 0; None: all of each.

    Raises
    ------
    ValueError
        The parts do not fit each other.
    """

    hashes: NDArray[np.uint64]
    valid: NDArray[np.bool_]
    hop_s: float
    bits: int
    model_id: str
    duration_s: float
    confidence: NDArray[np.float16] | None = None
    start_s: float = 0.0
    known: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        def convert(name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
            value = np.ascontiguousarray(getattr(self, name))
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
            value = value.astype(dtype, casting="same_kind", copy=False)
            object.__setattr__(self, name, value)
            return value

        if not 64 <= self.bits <= _MOST_BITS or self.bits % 64:
            raise ValueError(f"bits must be a multiple of 64 up to {_MOST_BITS}, got {self.bits}")
        check_hop(self.hop_s)
        if not (math.isfinite(self.duration_s) and self.duration_s >= 0):
            raise ValueError(f"duration_s must not be negative, got {self.duration_s}")
        if not _MODEL_ID.fullmatch(self.model_id):
            raise ValueError(f"model_id must be 64 lower-case hexadecimal digits, got {self.model_id!r}")
        n = len(self.hashes)
        hashes = convert("hashes", np.uint64, (n, self.bits // 64))
        valid = convert("valid", np.bool_, (n,))
        if self.confidence is not None:
            confidence = convert("confidence", np.float16, (n, self.bits))
            # a NaN fails both, and twelve hours' rows need no array of as many answers
            if n and not (confidence.min() >= 0 and confidence.max() < np.inf):
                raise ValueError(f"confidence must be from 0 to {_MOST_CONFIDENCE:g}")
        if not math.isfinite(self.start_s):
            raise ValueError(f"start_s must be finite, got {self.start_s}")
        if self.known is None and self.start_s != 0.0:
            raise ValueError("a fingerprint that does not start at 0 must say what of its windows is known")
        if self.known is not None:
            known = convert("known", np.float32, (n,))
            if not ((known > 0) & (known <= 1)).all():
                raise ValueError("known must be above 0 and at most 1")
        if (hashes.any(axis=1) != valid).any():
            raise ValueError(
                "a row of hashes must be zero where, and only where, valid is False: see mark_rows"
            )

    def __len__(self) -> int:
        return len(self.hashes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented

        def same(a: ArrayLike | None, b: ArrayLike | None) -> bool:
            return a is b or (a is not None and b is not None and np.array_equal(a, b))

        return (
            (self.hop_s, self.bits, self.model_id, self.duration_s, self.start_s)
            == (other.hop_s, other.bits, other.model_id, other.duration_s, other.start_s)
            and same(self.hashes, other.hashes)
            and same(self.valid, other.valid)
            and same(self.confidence, other.confidence)
            and same(self.known, other.known)
        )

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    def __repr__(self) -> str:
        return (
            f"<Fingerprint: {len(self)} hashes of {self.bits} bits ({int(self.valid.sum())} valid), "
            f"one every {self.hop_s:g} s of {self.duration_s:.2f} s, model {self.model_id[:12]}>"
        )

    @property
    def times_s(self) -> NDArray[np.float64]:
        """Start of each hash's window in seconds, shape (n,)."""
        return self.start_s + np.arange(len(self), dtype=np.float64) * self.hop_s

    @property
    def overhangs(self) -> bool:
        """Whether windows begin before the audio or end after it: what a query has, and a reference has not."""
        return self.known is not None

    def hex(self) -> list[str]:
        """Return each hash as ``bits // 4`` hexadecimal digits, the byte of bits 0 to 7 first.

        The first 16 digits of a longer code are its 64-bit code.
        """
        data = self.hashes.astype("<u8").tobytes().hex()
        digits = self.bits // 4
        return [data[i : i + digits] for i in range(0, len(data), digits)]

    def truncated(self, bits: int) -> Fingerprint:
        """Return the fingerprint of the first `bits` bits of each hash.

        Codes are nested: the prefix of a code is the code that the model gives at that length.

        Raises
        ------
        ValueError
            `bits` is no multiple of 64, or more than there are.
        """
        if bits < 64 or bits % 64 or bits > self.bits:
            raise ValueError(f"bits must be a multiple of 64 up to {self.bits}, got {bits}")
        if bits == self.bits:
            return self
        return replace(
            self,
            bits=bits,
            hashes=mark_rows(self.hashes[:, : bits // 64], self.valid),
            confidence=None if self.confidence is None else self.confidence[:, :bits],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fingerprint to a file, which then exists wholly or not at all.

        Raises
        ------
        FingerprintError
            The file cannot be written, or would be too large.
        ValueError
            The windows do not cover the recording.
        """
        parts = self._parts()
        n_bytes = sum(memoryview(part).nbytes for part in parts) + _CRC.size
        if n_bytes > _MOST_FILE_BYTES:
            raise FingerprintError(
                f"{shown(path)}: would have {n_bytes / 1e6:,.0f} MB, more than the {_MOST_FILE_BYTES / 1e6:,.0f} MB "
                "of a fingerprint file; encode the recording in parts, or with a longer hop"
            )
        crc = 0
        try:
            with atomic_write(path) as file:
                for part in parts:
                    file.write(part)
                    crc = zlib.crc32(part, crc)
                file.write(_CRC.pack(crc))
        except OSError as error:
            raise FingerprintError(
                f"{shown(path)}: cannot be written ({why(error)}); choose another folder or make room"
            ) from error

    def to_bytes(self) -> bytes:
        """What `save` writes into a file.

        Raises
        ------
        ValueError
            The windows do not cover the recording.
        """
        whole_file = b"".join(bytes(memoryview(part)) for part in self._parts())
        return whole_file + _CRC.pack(zlib.crc32(whole_file))

    def _parts(self) -> list[Any]:
        """What a file holds ahead of its checksum."""
        self._check_cover()
        header = {
            "bits": int(self.bits),
            "hop_s": float(self.hop_s),
            "model_id": self.model_id,
            "duration_s": float(self.duration_s),
            "n_hashes": len(self),
            "confidence": self.confidence is not None,
        }
        if self.known is not None:
            header["start_s"] = float(self.start_s)
        version = _VERSION if self.known is None else _OVERHANGING
        head = json.dumps(header).encode()
        parts: list[Any] = [_PREFIX.pack(FINGERPRINT_MAGIC, version, len(head)), head]
        parts += [self.hashes.astype("<u8", copy=False), self.valid.astype("u1")]
        if self.confidence is not None:
            parts.append(self.confidence.astype("<f2", copy=False))
        if self.known is not None:
            parts.append(self.known.astype("<f4", copy=False))
        return parts

    def _check_cover(self) -> None:
        """Refuse windows that do not reach from the beginning of the recording to its end, as those of a file do."""
        end_s = self.start_s + (len(self) - 1) * self.hop_s + 1.0
        if not (-1.0 < self.start_s <= 0.0 and abs(self.duration_s - end_s) <= self.hop_s + 1.0):
            raise ValueError(
                f"{len(self)} windows from {self.start_s:g} s on, one every {self.hop_s:g} s, "
                f"do not cover a recording of {self.duration_s:g} s"
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Fingerprint:
        """Read a fingerprint that `save` wrote.

        Raises
        ------
        FingerprintError
            The file is missing, unreadable, damaged, no fingerprint, or of an unknown version.
        """
        name = shown(path)
        try:
            with opened(path) as (file, size):
                return cls._read(file, size, name)
        except FileNotFoundError:
            raise FingerprintError(f"{name}: no such file; check the name") from None
        except (OSError, ValueError) as error:
            raise FingerprintError(f"{name}: cannot be read ({why(error)}); check the file") from error

    @classmethod
    def _read(cls, file: BufferedReader, size: int, name: str) -> Fingerprint:
        """Read an open file of some size; what is wrong with it is a `FingerprintError`."""
        prefix = file.read(_PREFIX.size)
        if not prefix.startswith(FINGERPRINT_MAGIC):
            raise FingerprintError(f"{name}: not a fingerprint file; make one with `samaf encode`")
        try:
            _, version, header_bytes = _PREFIX.unpack(prefix)
            if version in (_VERSION, _OVERHANGING):
                return cls._parsed(file, size, prefix, header_bytes, overhangs=version == _OVERHANGING)
        except (struct.error, ValueError) as error:
            raise FingerprintError(
                f"{name}: is damaged or cut off ({shown(str(error))}); make it again with `samaf encode`"
            ) from error
        raise FingerprintError(
            f"{name}: has format version {version}, this samaf reads versions 1 and {_OVERHANGING}; "
            "update samaf, or make the file again with `samaf encode`"
        )

    @classmethod
    def _parsed(
        cls, file: BufferedReader, size: int, prefix: bytes, header_bytes: int, *, overhangs: bool
    ) -> Fingerprint:
        """Take header and arrays apart; whatever does not fit is a `ValueError`."""
        if not header_bytes <= _MOST_HEADER_BYTES or not size <= _MOST_FILE_BYTES:
            raise ValueError(f"{size} bytes with a header of {header_bytes} are more than a fingerprint has")
        head = file.read(header_bytes)
        names = ("bits", "hop_s", "model_id", "duration_s", "n_hashes", "confidence")
        header = named(parse_json(head), *names, *["start_s"] * overhangs)
        bits = whole("bits", header["bits"], 64, _MOST_BITS)
        n, words = whole("n_hashes", header["n_hashes"], 0, size), bits // 64
        kept = header["confidence"]
        if type(kept) is not bool:
            raise ValueError("confidence is neither true nor false")
        layout = [("<u8", n * words), ("u1", n)] + [("<f2", n * bits)] * kept + [("<f4", n)] * overhangs
        n_bytes = sum(count * np.dtype(dtype).itemsize for dtype, count in layout)
        if len(prefix) + header_bytes + n_bytes + _CRC.size != size:
            raise ValueError(f"{n} hashes of {bits} bits do not fill it")
        crc, arrays = zlib.crc32(head, zlib.crc32(prefix)), []
        for dtype, count in layout:
            array: Any = np.empty(count, dtype)
            file.readinto(array)
            crc = zlib.crc32(array, crc)
            arrays.append(array)
        if file.read(_CRC.size) != _CRC.pack(crc):
            raise ValueError("its checksum does not fit")
        if (arrays[1] > 1).any():
            raise ValueError("valid is neither 0 nor 1")
        made = cls(
            hashes=arrays[0].astype(np.uint64, copy=False).reshape(n, words),
            valid=arrays[1].astype(np.bool_),
            hop_s=number("hop_s", header["hop_s"], 0.0, LONGEST_HOP_S),
            bits=bits,
            model_id=text("model_id", header["model_id"], 64),
            duration_s=number("duration_s", header["duration_s"], 0.0, LONGEST_HOP_S * size),
            confidence=arrays[2].astype(np.float16, copy=False).reshape(n, bits) if kept else None,
            start_s=number("start_s", header["start_s"], -1.0, 0.0) if overhangs else 0.0,
            known=arrays[-1].astype(np.float32, copy=False) if overhangs else None,
        )
        made._check_cover()
        return made
