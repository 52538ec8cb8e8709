"""An LMDB file as its readers see it: the two meta pages and the tree of keys, read without LMDB, every step checked.

LMDB trusts its file, and a damaged or truncated one kills the process; its table of readers wants each reader to have
write access; and its Python binding touches every page of a value that it returns. So LMDB only writes here, and
what reads goes through this room: it follows no pointer out of the file, and takes from a large value only its place.

The format is that of LMDB 0.9 (``MDB_DATA_VERSION`` 1) on a 64-bit machine, in the machine's byte order: see the
comments on ``MDB_page``, ``MDB_node`` and ``MDB_meta`` in its source. A page starts with its number, its kind and, in
a page of the tree, the bounds of its free space; then come 16-bit pointers to the nodes, in order of their keys. A
value that does not fit a page of the tree lies in whole pages of its own, one after the other.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from samaf.formats import LMDB_MAGIC, LMDB_MAGIC_AT
from samaf.index.codec import DamageError

PAGE_HEADER_BYTES = LMDB_MAGIC_AT
BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG_VALUE = 1  # a node's flag: its value lies in pages of its own
NODE_HEADER_BYTES = 8
DEEPEST = 32

_FORMAT = 1
_PAGE = struct.Struct("=QHHHH")  # number, padding, kind, lower and upper bound of the free space
_BIG_PAGE = struct.Struct("=QHHI")  # number, padding, kind, how many pages
_NODE = struct.Struct("=HHHH")  # low and high half of the value's size, flags, size of the key
_NUMBER = struct.Struct("=Q")
# Magic, version, address and map size; then of the tables of free pages and of keys: page size, flags, depth, numbers
# of branch, leaf and overflow pages and of entries, root; then the last page in use, and the transaction.
_META = struct.Struct("=IIQQ" + 2 * "IHHQQQQQ" + "QQ")


class Meta(NamedTuple):
    """What a meta page says: one committed state of the file."""

    page_bytes: int
    free_depth: int
    free_root: int
    depth: int
    root: int
    last_page: int
    transaction: int

    @property
    def n_bytes(self) -> int:
        """Size of a file that holds every page ever used."""
        return (self.last_page + 1) * self.page_bytes


class Place(NamedTuple):
    """Where in the file a value lies; one in pages of its own stays there as long as it lives, others move."""

    offset: int
    n_bytes: int
    is_fixed: bool = True


class Source(Protocol):
    """What records are read from: a committed state (`Tree`), or a change in the making."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key."""

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values from `first` on, ascending."""

    def before(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Return the last key up to this one, with its value."""


def read_meta(fd: int, offset: int) -> Meta | None:
    """Return what the meta page at `offset` says, None if none lies there."""
    data = os.pread(fd, PAGE_HEADER_BYTES + _META.size, offset)
    if len(data) < PAGE_HEADER_BYTES + _META.size:
        return None
    magic, version, _, _, *rest = _META.unpack_from(data, PAGE_HEADER_BYTES)
    if magic != LMDB_MAGIC or version != _FORMAT:
        return None
    (
        page_bytes,
        _,
        free_depth,
        _,
        _,
        _,
        _,
        free_root,
        _,
        _,
        depth,
        _,
        _,
        _,
        _,
        root,
        last_page,
        transaction,
    ) = rest
    if not 256 <= page_bytes <= 1 << 16 or page_bytes & (page_bytes - 1):
        return None
    return Meta(page_bytes, free_depth, free_root, depth, root, last_page, transaction)


def read_metas(fd: int) -> tuple[Meta, Meta]:
    """Return the newest state of an LMDB file and the one before it.

    Raises
    ------
    ValueError
        If this is not an LMDB file, or its head is damaged.
    DamageError
        If one of the two is missing.
    """
    first = read_meta(fd, 0)
    if first is None:
        raise ValueError("no LMDB file")
    second = read_meta(fd, first.page_bytes)
    if second is None or second.page_bytes != first.page_bytes:
        raise DamageError("its second page is damaged or missing")
    newest, other = (first, second) if first.transaction > second.transaction else (second, first)
    # The even transactions write the first of them, the odd ones the second; a new file has 0 in both.
    if newest.transaction:
        in_turn = newest is (first, second)[newest.transaction % 2]
        if newest.transaction - other.transaction != 1 or not in_turn:
            raise DamageError(f"its first pages tell of changes {first.transaction} and {second.transaction}")
    return newest, other


class Tree:
    """The keys and values of one committed state.

    Parameters
    ----------
    data : buffer of bytes
        The file, mapped; it may be shorter than the pages in use, and is trusted in nothing.
    meta : Meta
    """

    def __init__(self, data: Any, meta: Meta) -> None:
        self._data, self._n_bytes = data, len(data)
        self.meta = meta

    # -- pages ---------------------------------------------------------------------------------------------------

    def page(self, number: int, kind: int) -> tuple[bytes, int]:
        """Return a page of the tree and how many nodes it has."""
        size = self.meta.page_bytes
        offset = number * size
        if not 2 <= number <= self.meta.last_page or offset + size > self._n_bytes:
            raise DamageError(f"page {number} lies outside the file")
        page = self._data[offset : offset + size]
        own, _, flags, lower, upper = _PAGE.unpack_from(page)
        if own != number or flags != kind or not PAGE_HEADER_BYTES <= lower <= upper <= size or lower & 1:
            raise DamageError(f"page {number} is not the page of the tree that should lie there")
        return page, (lower - PAGE_HEADER_BYTES) // 2

    @staticmethod
    def node(page: bytes, k: int) -> tuple[int, int, int, bytes, int]:
        """Low and high half of the size, flags, key and start of the value of a node."""
        (at,) = struct.unpack_from("=H", page, PAGE_HEADER_BYTES + 2 * k)
        if at + NODE_HEADER_BYTES > len(page):
            raise DamageError("a node lies outside its page")
        low, high, flags, key_bytes = _NODE.unpack_from(page, at)
        start = at + NODE_HEADER_BYTES + key_bytes
        if start > len(page):
            raise DamageError("a key lies outside its page")
        return low, high, flags, page[at + NODE_HEADER_BYTES : start], start

    def _key(self, page: bytes, k: int) -> bytes:
        return self.node(page, k)[3]

    def child(self, page: bytes, k: int) -> int:
        """Number of the page that a branch's node leads to."""
        low, high, flags, _, _ = self.node(page, k)
        return low | high << 16 | flags << 32

    def place(self, number: int, page: bytes, k: int, *, whole: bool = True) -> Place:
        """Where the value of a leaf's node lies; a large one may be cut or damaged unless it shall be `whole`."""
        low, high, flags, _, start = self.node(page, k)
        n_bytes = low | high << 16
        size = self.meta.page_bytes
        if not flags & BIG_VALUE:
            if start + n_bytes > size:
                raise DamageError("a value lies outside its page")
            return Place(number * size + start, n_bytes, is_fixed=False)
        if start + _NUMBER.size > size:
            raise DamageError("a value lies outside its page")
        (first,) = _NUMBER.unpack_from(page, start)
        offset = first * size + PAGE_HEADER_BYTES
        if not 2 <= first <= self.meta.last_page or (whole and offset + n_bytes > self._n_bytes):
            raise DamageError("a value lies outside the file")
        if not whole:
            return Place(offset, n_bytes)
        own, _, kind, pages = _BIG_PAGE.unpack(self._data[first * size : offset])
        if own != first or kind != OVERFLOW or pages * size < PAGE_HEADER_BYTES + n_bytes:
            raise DamageError("a large value does not lie where it should")
        return Place(offset, n_bytes)

    # -- keys ----------------------------------------------------------------------------------------------------

    def _walk(self, number: int, depth: int, start: bytes, step: int) -> Iterator[tuple[bytes, Place]]:
        """Nodes from `start` on, ascending or descending."""
        page, n = self.page(number, LEAF if depth == 1 else BRANCH)
        nodes = range(n)
        if depth == 1:
            if step > 0:
                nodes = range(bisect_left(nodes, start, key=lambda k: self._key(page, k)), n)
            else:
                nodes = range(bisect_right(nodes, start, key=lambda k: self._key(page, k)) - 1, -1, -1)
            for k in nodes:
                yield self._key(page, k), self.place(number, page, k)
            return
        # The first key of a branch is not stored: it is below all others.
        k = bisect_right(range(1, n), start, key=lambda k: self._key(page, k))
        for child in range(k, n) if step > 0 else range(k, -1, -1):
            yield from self._walk(self.child(page, child), depth - 1, start, step)

    def _nodes(self, start: bytes, step: int) -> Iterator[tuple[bytes, Place]]:
        if not self.meta.depth:
            return
        if self.meta.depth > DEEPEST:
            raise DamageError("the tree is too deep")
        previous = None
        for key, place in self._walk(self.meta.root, self.meta.depth, start, step):
            if previous is not None and (key <= previous if step > 0 else key >= previous):
                raise DamageError("keys are out of order")
            previous = key
            yield key, place

    def places(self, prefix: bytes) -> Iterator[tuple[bytes, Place]]:
        """Yield the keys that begin with `prefix` and where their values lie, ascending."""
        for key, place in self._nodes(prefix, 1):
            if not key.startswith(prefix):
                return
            yield key, place

    def read(self, place: Place) -> bytes:
        """Return a copy of a value."""
        return bytes(self._data[place.offset : place.offset + place.n_bytes])

    def get(self, key: bytes) -> bytes | None:
        """Return a copy of a key's value, None if there is none."""
        found, place = next(self._nodes(key, 1), (None, None))
        return self.read(place) if place is not None and found == key else None

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and copies of their values from `first` on, ascending."""
        for key, place in self._nodes(first, 1):
            yield key, self.read(place)

    def before(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Return the last key up to this one, with a copy of its value."""
        found = next(self._nodes(key, -1), None)
        return None if found is None else (found[0], self.read(found[1]))
