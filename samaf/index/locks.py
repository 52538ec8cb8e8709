"""Who may write to an index: one process, and in it one `Index`.

An advisory lock (``flock``: the system drops it with the process that held it, however it ends) on ``PATH.writer``,
held as long as an index is open for writing. Only who may write to the file can lock it, so nobody else can keep a
writer out.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from samaf.errors import LockedError, StoreError, shown

# File systems without flock (some network mounts).
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class WriterLock:
    """The right to write to one index; raises `LockedError` at once where another holds it."""

    def __init__(self, path: str) -> None:
        self._path = path + ".writer"
        self._pid = os.getpid()
        self._fd: int | None = None
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except PermissionError:
                if os.path.exists(self._path):
                    raise LockedError(
                        f"another user is writing to index {shown(path)}, or was killed at it: then delete "
                        f"{shown(self._path)}"
                    ) from None
                raise self._unwritable(path, errno.EACCES) from None
            except OSError as error:
                raise self._unwritable(path, error.errno) from None
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

    def _unwritable(self, path: str, code: int | None) -> StoreError:
        return StoreError(
            f"index {shown(path)} cannot be written: {shown(self._path)}: {os.strerror(code or 0)}; "
            "make its folder writable, or copy the index to one that is"
        )

    def release(self) -> None:
        """Give the right back; a forked child of the holder leaves it alone."""
        if self._fd is None:
            return
        if self._pid == os.getpid():
            with suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)
        self._fd = None


def _same_file(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
