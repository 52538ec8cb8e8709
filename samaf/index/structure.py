"""Is an LMDB file sound enough to be written to? Every page of its trees is looked at, none of the values.

LMDB believes what pages say, and ends the process, or worse, where they are wrong; so the writer has them checked
first. The walk costs some milliseconds for a library of 100,000 tracks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import frozen, kernel
from samaf.index.pages import (
    BIG_VALUE,
    BRANCH,
    DEEPEST,
    LEAF,
    NODE_HEADER_BYTES,
    OVERFLOW,
    PAGE_HEADER_BYTES,
    Meta,
)

_LIVE, _FREE = 1, 2
_WORDS = (
    "",
    "lies outside the file",
    "is in use twice",
    "is not the page that should lie there",
    "has a node outside its bounds",
    "has keys out of order",
    "has a value that does not lie where it should",
    "makes the tree too deep",
    "lists free pages that cannot be",
    "lists free pages that are in use",
)
_OUTSIDE, _TWICE, _STRANGE, _NODE, _ORDER, _VALUE, _DEEP, _LIST, _LISTED = range(1, len(_WORDS))


@kernel
def _u16(halves, at):  # type: ignore[no-untyped-def]
    return np.int64(halves[at >> 1])


@kernel
def _u32(halves, at):  # type: ignore[no-untyped-def]
    return _u16(halves, at) | _u16(halves, at + 2) << 16


@kernel
def _u64(halves, at):  # type: ignore[no-untyped-def]
    """Eight bytes at an even place; what does not fit an int64 is -1, which is no page and no size."""
    high = _u32(halves, at + 4)
    if high >= 1 << 31:
        return np.int64(-1)
    return _u32(halves, at) | high << 32


@kernel
def _compare(data, a, a_bytes, b, b_bytes):  # type: ignore[no-untyped-def]
    """Whether the key at a comes before the one at b."""
    for k in range(min(a_bytes, b_bytes)):
        if data[a + k] != data[b + k]:
            return data[a + k] < data[b + k]
    return a_bytes < b_bytes


@kernel
def _walk(data, halves, size, root, depth, last_page, use, free_lists):  # type: ignore[no-untyped-def]
    """Mark every page of one tree; returns what is wrong and the page, (0, 0) for nothing.

    With `free_lists`, the values are lists of free pages, which are marked too.
    """
    n_bytes = data.shape[0]
    if depth == 0:
        return 0, 0
    if depth > DEEPEST:
        return _DEEP, root
    pages = np.empty(DEEPEST, np.int64)  # the way down
    nodes = np.zeros(DEEPEST, np.int64)  # the next node of each page on it
    pages[0] = root
    level = 0
    while level >= 0:
        number = pages[level]
        at = number * size
        leaf = level == depth - 1
        if nodes[level] == 0:  # not seen yet
            if number < 2 or number > last_page or at + size > n_bytes:
                return _OUTSIDE, number
            if use[number]:
                return _TWICE, number
            use[number] = _LIVE
            lower, upper = _u16(halves, at + 12), _u16(halves, at + 14)
            kind = LEAF if leaf else BRANCH
            if _u64(halves, at) != number or _u16(halves, at + 10) != kind:
                return _STRANGE, number
            if lower < PAGE_HEADER_BYTES or lower > upper or upper > size or lower & 1:
                return _STRANGE, number
        n = (_u16(halves, at + 12) - PAGE_HEADER_BYTES) >> 1
        if n < (1 if leaf else 2):
            return _STRANGE, number
        k = nodes[level]
        if k == n:
            level -= 1
            continue
        nodes[level] = k + 1
        node = _u16(halves, at + PAGE_HEADER_BYTES + 2 * k)
        if node & 1 or node < _u16(halves, at + 14) or node + NODE_HEADER_BYTES > size:
            return _NODE, number
        node += at
        key, key_bytes = node + NODE_HEADER_BYTES, _u16(halves, node + 6)
        start = key + key_bytes
        if start > at + size:
            return _NODE, number
        if free_lists and key_bytes != 8 and (leaf or k > 0):
            return _LIST, number
        if k > (0 if leaf else 1):
            before = at + _u16(halves, at + PAGE_HEADER_BYTES + 2 * (k - 1))
            before_key, before_bytes = before + NODE_HEADER_BYTES, _u16(halves, before + 6)
            if free_lists:  # numbers of transactions
                ordered = _u64(halves, before_key) < _u64(halves, key)
            else:
                ordered = _compare(data, before_key, before_bytes, key, key_bytes)
            if not ordered:
                return _ORDER, number
        if not leaf:
            level += 1
            pages[level] = _u32(halves, node) | _u16(halves, node + 4) << 32
            nodes[level] = 0
            continue
        value_bytes = _u32(halves, node)
        flags = _u16(halves, node + 4)
        if flags & ~BIG_VALUE:  # named tables and several values of a key, which an index has not
            return _NODE, number
        value = start
        if not flags & BIG_VALUE:
            if start + value_bytes > at + size:
                return _NODE, number
        else:
            if start + 8 > at + size:
                return _NODE, number
            first = np.int64(0)
            for b in range(7, -1, -1):  # it may lie at an odd place
                first = first << 8 | np.int64(data[start + b])
            value = first * size
            if first < 2 or first > last_page or value + size > n_bytes:
                return _OUTSIDE, first
            count = _u32(halves, value + 12)
            if _u64(halves, value) != first or _u16(halves, value + 10) != OVERFLOW:
                return _STRANGE, first
            if count * size < PAGE_HEADER_BYTES + value_bytes or first + count - 1 > last_page:
                return _VALUE, first
            if value + PAGE_HEADER_BYTES + value_bytes > n_bytes:
                return _OUTSIDE, first
            for page in range(first, first + count):
                if use[page]:
                    return _TWICE, page
                use[page] = _LIVE
            value += PAGE_HEADER_BYTES
        if free_lists:
            if value & 1 or value_bytes < 8:
                return _LIST, number
            listed = _u64(halves, value)
            if listed < 0 or 8 * (listed + 1) > value_bytes:
                return _LIST, number
            for j in range(listed):
                page = _u64(halves, value + 8 * (j + 1))
                if page < 2 or page > last_page:
                    return _LIST, number
                if use[page]:
                    return _LISTED, number
                use[page] = _FREE
    return 0, 0


def problems(data: Any, meta: Meta) -> list[str]:
    """Check the trees of one committed state.

    Parameters
    ----------
    data : buffer of bytes
        The file, mapped.
    meta : Meta
        Of a state that nobody overwrites meanwhile.

    Returns
    -------
    list of str
        What is wrong, one line each; empty for a sound file.
    """
    array: NDArray[np.uint8] = frozen(np.frombuffer(data, np.uint8))
    halves = frozen(array[: len(array) // 2 * 2].view(np.uint16))
    if meta.last_page * meta.page_bytes > 1 << 40:
        return [f"it claims to have {meta.last_page} pages"]
    use = np.zeros(meta.last_page + 1, np.uint8)
    for root, depth, free_lists in (
        (meta.root, meta.depth, False),
        (meta.free_root, meta.free_depth, True),
    ):
        root = min(root, 1 << 62)  # no tree at all has the largest number of 64 bits
        what, page = _walk(array, halves, meta.page_bytes, root, depth, meta.last_page, use, free_lists)
        if what:
            return [f"page {page} {_WORDS[what]}"]
    lost = int(np.count_nonzero(use[2:] == 0))
    return [f"{lost} pages are neither in use nor free"] if lost else []
