"""A whole new index file, written beside its place and put there at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from samaf.index.environment import Environment


def new_name(path: str) -> str:
    """Where the new file is written before it is put in place."""
    return path + ".new"


def unlink(path: str) -> None:
    """Delete a file that may be missing."""
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def new_file(path: str) -> Iterator[Environment]:
    """Write a whole new index file beside `path`; on disk at the end of the block, gone where it raises."""
    unlink(new_name(path))
    try:
        env = Environment(new_name(path), name=path, new=True)
        try:
            yield env
            env.sync()
        finally:
            env.close()
    except BaseException:
        unlink(new_name(path))
        raise


def as_before(path: str, new: str) -> None:
    """Let a file have the owner and the rights of the one whose place it takes."""
    status = os.stat(path)
    with suppress(PermissionError):  # only the superuser may give files away
        os.chown(new, status.st_uid, status.st_gid)
    shutil.copymode(path, new)


def put_in_place(path: str) -> None:
    """Let the new file take the place of the old one, for good."""
    os.replace(new_name(path), path)
    with suppress(OSError):  # some file systems cannot sync a folder
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
