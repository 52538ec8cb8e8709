"""Who may write to an index, and who may replace its file.

Two advisory locks (``flock``: the system drops them with the process that held them, however it ends):

- the *writer lock*, on ``PATH.writer``, held as long as an index is open for writing;
- the *gate*, on the index file itself: shared for the moment of opening it, exclusive for the moment in which
  compaction puts another file in its place. Without it, a reader could pair the new file with the old file's
  table of readers, which LMDB keeps beside it under a fixed name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from samaf.errors import LockedError, StoreError, shown

# File systems without flock (some network mounts): go on without.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


def _same_file(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


@contextmanager
def gate(path: str, *, exclusive: bool = False) -> Iterator[int]:
    """Hold the index file in its place; yields a descriptor of it, open for reading.

    Raises
    ------
    StoreError
        If there is no such file or it cannot be read.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not keep us waiting
        except OSError as error:
            raise _unopened(path, error) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                what = "a directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "no regular file"
                raise StoreError(f"{shown(path)} is {what}, not an index; name the index file itself")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            if _same_file(fd, path):
                yield fd
                return
        finally:
            os.close(fd)


def _unopened(path: str, error: OSError) -> StoreError:
    name = shown(path)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StoreError(f"there is no index {name}; make one with 'samaf index add'")
    if isinstance(error, PermissionError):
        return StoreError(f"index {name} cannot be read: permission denied; ask its owner for access")
    return StoreError(f"index {name} cannot be opened: {error.strerror}")


class WriterLock:
    """The right to write to one index; raises `LockedError` at once where another holds it."""

    def __init__(self, path: str) -> None:
        self._path = path + ".writer"
        self._pid = os.getpid()
        self._fd: int | None = None
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise StoreError(
                    f"index {shown(path)} cannot be written: {shown(self._path)}: {error.strerror}; "
                    "make its folder writable, or copy the index to one that is"
                ) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                if error.errno in _NO_LOCKS:
                    raise StoreError(
                        f"the file system of index {shown(path)} has no locks; keep it on a local disk"
                    ) from None
                who = f"process {holder}" if holder.isdigit() else "another process"
                raise LockedError(
                    f"{who} is writing to index {shown(path)}; wait until it is done, or stop it"
                ) from None
            # The file goes with the lock, so the one locked here may have gone while we came.
            if _same_file(fd, self._path):
                break
            os.close(fd)
        self._fd = fd
        with suppress(OSError):  # the number only helps to find the process: a full disk must not matter
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the right back; a forked child of the holder leaves it alone."""
        if self._fd is None:
            return
        if self._pid == os.getpid():
            with suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)
        self._fd = None
