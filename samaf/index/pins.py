"""Who reads which state: a reader holds a lock that the writer can see, and the writer spares what is read.

A reader pins a state by a shared lock on one byte of the index file, far beyond its end, whose place is the number of
the transaction that made the state. Such a lock needs no more than the right to read, is gone with the process that
held it, however that ends, and cannot make the writer wait: all that it can do is keep the pages of one state from
being used again. Before each transaction the writer asks for the lowest such lock.

Why this way and not LMDB's table of readers: each reader must write to that table, so everybody who may search would
have to be allowed to write a file with the writer's own mutex in it, and could stop it for good.

The locks belong to an open file and not to a process (``F_OFD_SETLK``), for a process drops all its own locks on a file
as soon as it closes the file anywhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from typing import NamedTuple

_FIRST = 1 << 62  # place of transaction 0; no file is that long

if sys.platform == "darwin":  # xnu's fcntl.h and its order of the fields
    _SET, _GET = 90, 92
    _FLOCK = struct.Struct("@qqihh")
else:
    _SET, _GET = getattr(fcntl, "F_OFD_SETLK", 37), getattr(fcntl, "F_OFD_GETLK", 36)
    _FLOCK = struct.Struct("@hhqqi4x")

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class _Lock(NamedTuple):
    kind: int
    start: int
    n_bytes: int

    def pack(self) -> bytes:
        if sys.platform == "darwin":
            return _FLOCK.pack(self.start, self.n_bytes, 0, self.kind, os.SEEK_SET)
        return _FLOCK.pack(self.kind, os.SEEK_SET, self.start, self.n_bytes, 0)

    @classmethod
    def unpack(cls, data: bytes) -> _Lock:
        if sys.platform == "darwin":
            start, n_bytes, _, kind, _ = _FLOCK.unpack(data)
        else:
            kind, _, start, n_bytes, _ = _FLOCK.unpack(data)
        return cls(kind, start, n_bytes)


def pin(fd: int, transaction: int) -> bool:
    """Pin a state for as long as the open file lives; False where the file system has no such locks."""
    try:
        fcntl.fcntl(fd, _SET, _Lock(fcntl.F_RDLCK, _FIRST + transaction, 1).pack())
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def oldest(fd: int, newest: int) -> int:
    """Return the oldest state up to `newest` that somebody reads, or `newest` if nobody reads an older one.

    `fd` is an open file of the caller's own, whose own pins do not count.
    """
    while newest > 0:
        asked = _Lock(fcntl.F_WRLCK, _FIRST, newest)  # all states before
        found = _Lock.unpack(fcntl.fcntl(fd, _GET, asked.pack()))
        if found.kind == fcntl.F_UNLCK:
            return newest
        newest = max(0, found.start - _FIRST)
    return 0
