"""Where things lie when nobody says otherwise, and folders for them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from samaf.errors import StoreError
from samaf.formats import FORMER_INDEX_SUFFIX, INDEX_SUFFIX


def index_path(stem: Path) -> Path:
    """Where the index of a name without an ending lies: an old one of it keeps the ending that it has."""
    new, old = (stem.with_name(stem.name + suffix) for suffix in (INDEX_SUFFIX, FORMER_INDEX_SUFFIX))
    return old if os.path.lexists(old) and not os.path.lexists(new) else new


def default_db() -> Path:
    """Where the index lies by default: ``$SAMAF_DB``, or ``samaf/index.samafdb`` in the user's data folder.

    Raises
    ------
    StoreError
        If the user has no such folder.
    """
    named = os.environ.get("SAMAF_DB")
    if named:
        return Path(named)
    from platformdirs import user_data_path

    folder = _users(user_data_path)
    if folder is None:
        raise StoreError("this user has no home folder to keep an index in; name one with --db or $SAMAF_DB")
    return index_path(folder / "index")


def cache_folder() -> Path | None:
    """The user's folder for what can be made again; None if there is none."""
    from platformdirs import user_cache_path

    return _users(user_cache_path)


def _users(kind: Callable[..., Path]) -> Path | None:
    try:
        folder = kind("samaf", appauthor=False)
    except RuntimeError:  # nobody knows where the user is at home
        return None
    return folder if folder.is_absolute() else None


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, with those above it, if it is missing.

    Other than `os.makedirs`, at any depth.

    Raises
    ------
    OSError
        If it cannot be made, or something else has its name.
    """
    missing = []
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        missing.append(at)
        at = os.path.dirname(at)
    for folder in reversed(missing):
        with suppress(FileExistsError):  # made meanwhile
            os.mkdir(folder)
    if not os.path.isdir(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
