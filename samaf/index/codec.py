"""Small records of the index as bytes: a CRC and deflated JSON."""

from __future__ import annotations

import json
import zlib
from typing import Any


class DamageError(Exception):
    """Stored bytes that are not what was written; becomes a `StoreError` that names the index."""


def encode(value: Any) -> bytes:
    """Turn a JSON value into bytes that `decode` can check."""
    body = zlib.compress(json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii"), 9)
    return zlib.crc32(body).to_bytes(4, "little") + body


def decode(data: bytes | memoryview) -> Any:
    """Give back what `encode` was given.

    Raises
    ------
    DamageError
        If the bytes have changed.
    """
    if len(data) < 5 or int.from_bytes(data[:4], "little") != zlib.crc32(data[4:]):
        raise DamageError("a record fails its checksum")
    try:
        return json.loads(zlib.decompress(data[4:]))
    except (zlib.error, ValueError, RecursionError) as error:
        raise DamageError(f"a record cannot be read ({error})") from None
