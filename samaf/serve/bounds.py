"""How much at once: the requests that all workers together work on, and how many of them are one client's."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samaf.serve.options import Bounds
from samaf.serve.problems import busy

_ROW = struct.Struct("<QQ")  # worker + 1, client; zeros where nothing is worked on


class Slots:
    """A table in a file that all workers map, with a row for each request that may be worked on.

    A worker that dies leaves its rows behind; whoever notices frees them.

    Parameters
    ----------
    path
        The file, made by `make`.
    bounds
    """

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._bounds = bounds
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._rows = mmap.mmap(self._fd, bounds.requests * _ROW.size)

    @staticmethod
    def make(path: Path, bounds: Bounds) -> None:
        """Make the file, with all rows free."""
        path.write_bytes(bytes(bounds.requests * _ROW.size))

    @property
    def n_taken(self) -> int:
        """Requests that are being worked on."""
        return sum(worker != 0 for worker, _ in _ROW.iter_unpack(self._rows))

    @contextmanager
    def taken(self, worker: int, client: str) -> Iterator[None]:
        """Hold a row while a worker works on a client's request.

        Raises
        ------
        ProblemError
            429: the client has as many as it may; 503: so have all together.
        """
        key = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=8).digest(), "little")
        with self._alone():
            rows = list(_ROW.iter_unpack(self._rows))
            if sum(row[0] != 0 and row[1] == key for row in rows) >= self._bounds.requests_per_client:
                raise busy(
                    429, f"{self._bounds.requests_per_client} requests of yours are being worked on; wait"
                )
            free = next((k for k, row in enumerate(rows) if row[0] == 0), None)
            if free is None:
                raise busy(
                    503, f"{self._bounds.requests} requests are being worked on; try again in a second"
                )
            _ROW.pack_into(self._rows, free * _ROW.size, worker + 1, key)
        try:
            yield
        finally:
            _ROW.pack_into(self._rows, free * _ROW.size, 0, 0)

    def free(self, worker: int) -> None:
        """Free the rows of a worker that has died."""
        with self._alone():
            for k, row in enumerate(list(_ROW.iter_unpack(self._rows))):
                if row[0] == worker + 1:
                    _ROW.pack_into(self._rows, k * _ROW.size, 0, 0)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
