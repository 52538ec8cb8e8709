"""What went wrong with an index, in words for its user."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from samaf.errors import StoreError, shown
from samaf.index.codec import DamageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def explained(error: Exception, path: str) -> StoreError:
    """Put damage, or an error of the system, into words for the user of the index at `path`."""
    name = shown(path)
    code = getattr(error, "errno", None)
    if code in FULL:
        return StoreError(f"disk full: nothing was changed in index {name}; free some space and try again")
    if code == errno.ENOMEM:
        return StoreError(f"index {name} cannot be mapped into memory; raise 'ulimit -v'")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(
            f"index {name} cannot be written: permission denied; make it and its folder writable"
        )
    reason = "; ".join(str(error).split("\n"))
    return StoreError(
        f"index {name} is damaged ({reason}); run 'samaf index verify', restore a copy, or save what is left "
        "with 'samaf index verify --repair'"
    )


@contextmanager
def explaining(path: str) -> Iterator[None]:
    """Turn damage and a full disk inside the block into `StoreError`."""
    try:
        yield
    except DamageError as error:
        raise explained(error, path) from error
    except OSError as error:
        if error.errno in FULL:
            raise explained(error, path) from error
        raise
