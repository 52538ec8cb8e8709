"""What the tables of an index hold: header, state, and the keys of the segments' values.

The tables are ranges of keys of LMDB's one main database, told apart by their first byte: ``l`` lookups and
``t`` pages of tracks (see `tracks`), ``m`` header and state, ``s`` the values of segments under number and
name (see `segment`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from samaf.errors import MismatchError, StoreError, shown
from samaf.index.codec import DamageError, decode
from samaf.index.pages import Source, Tree
from samaf.index.segment import RECORD
from samaf.settings import LONGEST_HOP_S, check_hop
from samaf.untrusted import named, number, text, whole

FORMAT_VERSION = 2

HEADER, STATE = b"mheader", b"mstate"
_SEGMENTS = b"s"


@dataclass(frozen=True)
class IndexHeader:
    """What an index is made for; fixed when it is created.

    Like a track's, its record may have been made by anybody: `from_record` takes texts of up to 4,096 characters, 64,
    128 or 256 bits, and hops that are multiples of 0.01 s up to 10 s.

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

    @classmethod
    def from_record(cls, record: Any) -> IndexHeader:
        """Undo `dataclasses.asdict`.

        Raises
        ------
        ValueError
            No index is like that.
        """
        known = named(record, *_FIELDS)
        if len(known) > len(_FIELDS):
            raise ValueError("it has more fields than a header")
        whole("format_version", known["format_version"], 0, 1 << 32)
        for name in ("model_id", "model_name", "model_path"):
            text(name, known[name], 4096)
        if whole("bits", known["bits"], 64, 256) not in (64, 128, 256):
            raise ValueError(f"bits are {known['bits']}")
        for name in ("hop_s", "query_hop_s"):
            check_hop(number(name, known[name], 0.0, LONGEST_HOP_S))
        number("created", known["created"], 0.0, 1e12)
        return cls(**known)

    @property
    def words(self) -> int:
        """Words of 64 bits per hash."""
        return self.bits // 64


_FIELDS = tuple(field.name for field in fields(IndexHeader))


@dataclass
class State:
    """What is visible: the live segments, the removed tracks whose hashes still lie in them, counters.

    `transaction` is that of LMDB that wrote the state. Every transaction writes one, so that what the file's first
    pages say can be held against it.
    """

    segments: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    next_segment: int = 1
    next_track: int = 1
    n_tracks: int = 0
    duration_s: float = 0.0
    transaction: int = 0


def part_key(segment_id: int, name: bytes = b"") -> bytes:
    """Key of a segment's value; without a name, the prefix of them all."""
    return _SEGMENTS + segment_id.to_bytes(4, "big") + name


def segment_of(key: bytes) -> int:
    """Return the number of the segment that a key's value belongs to."""
    return int.from_bytes(key[1:5], "big")


def is_record(key: bytes) -> bool:
    """Whether what lies under a key has been made by `codec.encode`."""
    return key[:1] in (b"m", b"t") or (key.startswith(_SEGMENTS) and key[5:] == RECORD)


def read_header(source: Source, path: str) -> IndexHeader:
    """Read the header of the index at `path`.

    Raises
    ------
    StoreError
        If there is none.
    MismatchError
        If it is of another format version.
    """
    data = source.get(HEADER)
    if data is None:
        raise StoreError(f"{shown(path)} is an LMDB file but not an index of samaf; name another file")
    record = decode(data)
    version = record.get("format_version") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise MismatchError(
            f"index {shown(path)} has format {version}, this samaf reads {FORMAT_VERSION}; "
            "export it with the samaf that made it and import that, or build it anew"
        )
    try:
        return IndexHeader.from_record(record)
    except ValueError as error:
        raise DamageError(f"the header cannot be read ({error})") from None


def read_state(source: Source) -> State:
    """Read what is visible."""
    data = source.get(STATE)
    try:
        return State(**decode(data or b""))
    except TypeError as error:
        raise DamageError(f"the state cannot be read ({error})") from None


def check_turn(tree: Tree) -> State | None:
    """Return the state of a tree, None for an empty tree.

    Raises
    ------
    DamageError
        If it was written by another transaction than the tree is said to be of.
    """
    if not tree.meta.depth:
        return None
    state = read_state(tree)
    if state.transaction != tree.meta.transaction:
        raise DamageError(f"the state is of change {state.transaction}, not {tree.meta.transaction}")
    return state


def stored_segments(tree: Tree) -> dict[int, list[bytes]]:
    """Return the numbers under which anything is stored, visible or not, and the keys."""
    keys: dict[int, list[bytes]] = {}
    for key, _ in tree.places(_SEGMENTS):
        keys.setdefault(segment_of(key), []).append(key)
    return keys
