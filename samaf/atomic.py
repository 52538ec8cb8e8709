"""Files that are written wholly or not at all.

What is written lies beside its place until it is complete and on the disk, and takes the place in one step: a reader,
a kill or a power cut finds the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

StrPath = str | os.PathLike[str]


@contextmanager
def atomic_write(path: StrPath) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` at the end of the block; where the block raises, nothing changes.

    A link stays, and what it names is replaced. A file that is replaced leaves its owner and its rights to the new one.

    Raises
    ------
    OSError
        The file cannot be written, or `path` is a folder, a device or a pipe.
    """
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        code = errno.EISDIR if os.path.isdir(target) else errno.EEXIST
        raise OSError(
            code, "is a directory" if code == errno.EISDIR else "is no regular file", os.fspath(path)
        )
    # The name keeps out of the way of others who write here, and within the length that file systems allow.
    new = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.part")
    try:
        with open(new, "xb") as file:
            inherit(target, new)
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(new, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def inherit(path: str, new: str) -> None:
    """Give a file the owner and the rights of the one whose place it will take, if there is one."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # only the superuser may give files away
        os.chown(new, status.st_uid, status.st_gid)
    shutil.copymode(path, new)


def put_in_place(new: str, path: str) -> None:
    """Let a file, which is on the disk, take the place of another, for good."""
    os.replace(new, path)
    with suppress(OSError):  # some file systems cannot sync a folder
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
