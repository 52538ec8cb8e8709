"""What the tables of an index hold: header, state, and the keys of the segments' values.

The tables are ranges of keys of LMDB's one main database, told apart by their first byte: ``l`` lookups and
``t`` pages of tracks (see `tracks`), ``m`` header and state, ``s`` the values of segments under number and
name (see `segment`). Named databases of LMDB would cost each reader the writer's mutex when it opens them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from samaf.errors import MismatchError, StoreError, shown
from samaf.index.codec import DamageError, decode
from samaf.index.environment import Environment

FORMAT_VERSION = 1

HEADER, STATE = b"mheader", b"mstate"
_SEGMENTS = b"s"


@dataclass(frozen=True)
class IndexHeader:
    """What an index is made for; fixed when it is created.

    Attributes
    ----------
    format_version : int
    model_id : str
        SHA-256 of the weights that made the hashes.
    bits : int
    hop_s, query_hop_s : float
        Between stored hashes, and between those of a query.
    model_name, model_path : str
        For messages; the path where the weights lie if they are not the shipped ones.
    created : float
        Seconds since 1970.
    """

    format_version: int
    model_id: str
    bits: int
    hop_s: float
    query_hop_s: float
    model_name: str = ""
    model_path: str = ""
    created: float = 0.0

    @property
    def words(self) -> int:
        """Words of 64 bits per hash."""
        return self.bits // 64


@dataclass
class State:
    """What is visible: the live segments, the removed tracks whose hashes still lie in them, counters."""

    segments: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    next_segment: int = 1
    next_track: int = 1
    n_tracks: int = 0
    duration_s: float = 0.0


def part_key(segment_id: int, name: bytes = b"") -> bytes:
    """Key of a segment's value; without a name, the prefix of them all."""
    return _SEGMENTS + segment_id.to_bytes(4, "big") + name


def getter(txn: Any, segment_id: int) -> Callable[[bytes], memoryview | None]:
    """Return the function through which `segment.read` sees one segment."""
    return lambda name: txn.get(part_key(segment_id, name))


def read_header(env: Environment, txn: Any) -> IndexHeader:
    """Read the header.

    Raises
    ------
    StoreError
        If there is none.
    MismatchError
        If it is of another format version.
    """
    data = txn.get(HEADER)
    if data is None:
        raise StoreError(f"{shown(env.path)} is an LMDB file but not an index of samaf; name another file")
    record = decode(data)
    version = record.get("format_version") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise MismatchError(
            f"index {shown(env.path)} has format {version}, this samaf reads {FORMAT_VERSION}; "
            "use the samaf that made it, or build it anew"
        )
    try:
        return IndexHeader(**record)
    except TypeError as error:
        raise DamageError(f"the header cannot be read ({error})") from None


def read_state(txn: Any) -> State:
    """Read what is visible."""
    data = txn.get(STATE)
    try:
        return State(**decode(data or b""))
    except TypeError as error:
        raise DamageError(f"the state cannot be read ({error})") from None


def parts(txn: Any, segment_id: int) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and value of all that is stored under a segment's number."""
    prefix = part_key(segment_id)
    cursor = txn.cursor()
    if cursor.set_range(prefix):
        for key, value in cursor:
            if bytes(key[: len(prefix)]) != prefix:
                return
            yield bytes(key[len(prefix) :]), value


def stored_segments(txn: Any) -> set[int]:
    """Return the numbers under which there is anything, visible or not."""
    numbers: set[int] = set()
    cursor = txn.cursor()
    found = cursor.set_range(_SEGMENTS)
    while found and bytes(cursor.key()[:1]) == _SEGMENTS:
        number = int.from_bytes(cursor.key()[1:5], "big")
        numbers.add(number)
        found = cursor.set_range(part_key(number + 1))
    return numbers
