"""What samaf raises when something outside the program is wrong.

::

    SamafError
    ├── AudioError          a file or signal that cannot be read as audio
    ├── FingerprintError    a fingerprint file that cannot be read or written
    ├── ModelError          a weights file that cannot be read, or does not fit
    ├── ServiceError        a service that cannot be reached, or refuses what it is asked
    └── StoreError          the index cannot be opened, is damaged, or has no room left
        ├── MismatchError   the index was made with another model, bit count or hop
        └── LockedError     another process is writing to the index

Each message is one line that names the file and says what helps, fit to be shown to a user as it is. A wrong
argument (a negative time, an array of the wrong shape) is a mistake of the caller and raises the usual
`ValueError` or `TypeError` instead.
"""

from __future__ import annotations

import os


class SamafError(Exception):
    """Anything that samaf reports about files, models and indexes; catch this one to catch them all."""


class AudioError(SamafError):
    """A file or signal that cannot be read as audio."""


class FingerprintError(SamafError):
    """A fingerprint file that cannot be read or written, or is of an unknown version."""


class ModelError(SamafError):
    """A weights file that cannot be read, or does not fit the task."""


class ServiceError(SamafError):
    """A service that cannot be reached, or refuses what it is asked.

    Attributes
    ----------
    status : int
        Of its answer; 0: there is none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[ServiceError], tuple[str, int]]:
        return type(self), (str(self), self.status)


class StoreError(SamafError):
    """An index that cannot be opened, is damaged, unreadable, or has no room left on its disk."""


class MismatchError(StoreError):
    """An index made with another model, bit count, hop or format version."""


class LockedError(StoreError):
    """An index that another process is writing to."""


def shown(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    r"""Return a file name as it can stand in a message: on one line and printable.

    Names on disk are bytes: they may hold line breaks, or bytes that are no text, which a terminal or a JSON
    writer would refuse.

    Examples
    --------
    >>> shown(b"caf\xe9.wav")
    'caf\\udce9.wav'
    """
    text = os.fsdecode(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
