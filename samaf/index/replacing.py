"""A whole new index file, written beside its place by LMDB."""

from __future__ import annotations

import os
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
