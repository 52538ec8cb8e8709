"""Files of samaf's formats with parts that somebody has changed, their checksums made to fit."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MEANT = {"@infinite@": "1e999", "@deep@": "[" * 100_000 + "]" * 100_000, "@digits@": "1" * 5000}
"""What no JSON writer writes, by what stands for it here."""


def hostile(rng: np.random.Generator) -> Any:
    """A value that hardly belongs where it is put."""
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        7,
        "",
        "1",
        "x" * 10_000,
        "\ud800",
        "a\0b",
        "a\nb",
        [],
        [1],
        {},
    ]
    values += [{"a": [[1]]}, 0.5, 1e-12, 5e-324, 1e300, 1e308, float("nan"), float("inf"), -0.0, -1e9]
    values += [10**400, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 1 << 26, *MEANT]
    return values[rng.integers(len(values))]


def dumps(value: Any) -> bytes:
    """JSON, or nearly."""
    text = json.dumps(value, separators=(",", ":"))
    for name, meant in MEANT.items():
        text = text.replace(f'"{name}"', meant)
    return text.encode()


def sealed(body: bytes) -> bytes:
    """Bytes with their CRC-32 behind them."""
    return body + struct.pack("<I", zlib.crc32(body))


def flipped(data: bytes, rng: np.random.Generator, n: int = 4) -> bytes:
    """Some bits changed."""
    changed = bytearray(data)
    for at in rng.integers(len(changed), size=n):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def fingerprint(data: bytes, header: Callable[[dict[str, Any]], Any], version: int | None = None) -> bytes:
    """A fingerprint file with another header."""
    magic, old, length = struct.unpack_from("<6sHI", data)
    text = dumps(header(json.loads(data[12 : 12 + length])))
    head = struct.pack("<6sHI", magic, old if version is None else version, len(text))
    return sealed(head + text + data[12 + length : -4])


def exported(
    data: bytes,
    header: Callable[[Any], Any] = lambda header: header,
    records: Callable[[Any], Any] = lambda records: records,
    deflated: bytes = b"",
) -> bytes:
    """An exported index with another header and other records."""
    (length,) = struct.unpack_from("<Q", data, 12)
    at = 20 + length
    (n_bytes,) = struct.unpack_from("<Q", data, at)
    head = dumps(header(json.loads(data[20:at])))
    listed = records(json.loads(zlib.decompress(data[at + 8 : at + 8 + n_bytes])))
    block = deflated or zlib.compress(dumps(listed))
    parts = [data[:12], struct.pack("<Q", len(head)), head, struct.pack("<Q", len(block)), block]
    return sealed(b"".join(parts) + data[at + 8 + n_bytes : -4])


def bomb(text: bytes, n_bytes: int) -> bytes:
    """Deflated: an opening bracket, then this text over and over; the sum of it all is wrong."""
    deflate = zlib.compressobj()
    first = deflate.compress(b"[") + deflate.flush(zlib.Z_FULL_FLUSH)
    many = text * ((1 << 20) // len(text))
    block = deflate.compress(many) + deflate.flush(zlib.Z_FULL_FLUSH)
    return first + block * (n_bytes // len(many)) + b"\x03\x00\0\0\0\0"


def weights(
    source: Path,
    head: Callable[[Any], Any] = lambda header: header,
    compression: int = zipfile.ZIP_STORED,
    **arrays: np.ndarray | bytes | None,
) -> bytes:
    """A weights file with another header, and other arrays, or bytes in place of them, or without them."""
    out = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", compression) as new:
        members: dict[str, Any] = {name.removesuffix(".npy"): old.read(name) for name in old.namelist()}
        text = dumps(head(json.loads(np.load(io.BytesIO(members["header"])).tobytes())))
        for name, value in (members | {"header": np.frombuffer(text, np.uint8)} | arrays).items():
            if isinstance(value, np.ndarray):
                file = io.BytesIO()
                np.save(file, value)
                value = file.getvalue()
            if value is not None:
                new.writestr(name + ".npy", value)
    return out.getvalue()
