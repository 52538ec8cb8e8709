"""LMDB, which writes: one file, opened by its only writer.

Before LMDB opens a file, its pages are checked, for LMDB ends the process where they are wrong. The file of LMDB's
locks belongs to the writer alone: it is made anew for each, in full before it is mapped (a full disk would end the
process at the first page of it that is touched), and goes with the writer. Its table of readers has a single entry,
which stands for all the readers that `pins` knows of.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lmdb

from samaf.errors import StoreError, shown
from samaf.index import pins
from samaf.index.explain import FULL, explained, explaining
from samaf.index.mapped import IndexFile

# Growing a map in use is an error, so it is made huge at once: address space costs nothing. Systems that ration it
# (ulimit -v, some containers) get the largest they grant.
_MAP_BYTES = tuple(1 << power for power in (40, 38, 36, 34, 32, 30))
_LOCK_FILE_BYTES = 4096
_LINE_BYTES = 64  # entries of the table of readers begin at multiples
_ENTRY = struct.Struct("=Qi")  # transaction, process


def _explained(error: lmdb.Error, path: str) -> StoreError:
    name, code = shown(path), getattr(error, "code", None)
    if isinstance(error, lmdb.DiskError) or code in FULL:
        return explained(OSError(errno.ENOSPC, "disk full"), path)
    if (
        code == errno.EIO
    ):  # LMDB's word for a write that ended early, which is what a full disk looks like first
        return StoreError(f"disk full or failing: nothing was changed in index {name}; free some space first")
    if isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
        return StoreError(f"index {name} has outgrown the memory map the system grants; raise 'ulimit -v'")
    if isinstance(error, lmdb.MemoryError):
        return explained(OSError(errno.ENOMEM, "no memory"), path)
    if isinstance(error, lmdb.ReadonlyError) or code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return explained(PermissionError(errno.EACCES, "read-only"), path)
    return explained(error, path)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn errors of LMDB, damage and a full disk inside the block into `StoreError`."""
    try:
        with explaining(path):
            yield
    except lmdb.Error as error:
        raise _explained(error, path) from error


class Transaction:
    """A transaction that writes; a `pages.Source` of what it has written so far."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn

    @property
    def number(self) -> int:
        """Number of the commit that this will be."""
        return self._txn.id()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if there is none."""
        return self._txn.get(key)

    def items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values from `first` on, ascending."""
        cursor = self._txn.cursor()
        if cursor.set_range(first):
            yield from cursor

    def before(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Return the last key up to this one, with its value."""
        cursor = self._txn.cursor()
        if (cursor.set_range(key) and cursor.key() == key) or (
            cursor.prev() if cursor.key() else cursor.last()
        ):
            return cursor.item()
        return None

    def put(self, key: bytes, value: Any, *, last: bool = False) -> None:
        """Store a value; `last`: the key is above all others."""
        self._txn.put(key, value, append=last)

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self._txn.delete(key)

    def commit(self) -> None:
        """Make all of it visible."""
        self._txn.commit()

    def abort(self) -> None:
        """Undo all of it."""
        with suppress(lmdb.Error):
            self._txn.abort()


class Environment:
    """An LMDB file open for writing.

    Parameters
    ----------
    path : str
    name : str
        Of the index, for messages; a new file at `path` is to be moved there.
    new : bool
        Make the file; nobody else knows of it until it is complete.

    Raises
    ------
    StoreError
        If the file is damaged, cannot be written, or the disk is full.
    """

    def __init__(self, path: str, *, name: str = "", new: bool = False) -> None:
        self.path = path
        self.name = name or path
        self._pid = os.getpid()
        self._new = new
        self._fds: list[int] = []
        try:
            with writing(self.name):
                if new:
                    self._env = self._map(lock=False)
                else:
                    self._check()
                    self._make_lock_file()
                    self._env = self._map(lock=True)
                    self._stand_for_readers()
        except BaseException:
            self._close_files()
            raise

    def _check(self) -> None:
        pinned = IndexFile(self.path).pin()
        problems = ["it is being replaced"] if pinned is None else pinned.problems()
        if problems:
            raise StoreError(
                f"index {shown(self.name)} is damaged ({problems[0]}); restore a copy, or save what is left with "
                "'samaf index verify --repair'"
            )

    def _make_lock_file(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path + "-lock")
        try:
            fd = os.open(self.path + "-lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._fds.append(fd)
            if os.pwrite(fd, bytes(_LOCK_FILE_BYTES), 0) < _LOCK_FILE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise explained(error, self.name) from None

    def _map(self, *, lock: bool) -> Any:
        sizes = list(_MAP_BYTES)
        while True:
            try:
                return lmdb.open(
                    os.fsencode(self.path),
                    subdir=False,
                    create=self._new,
                    map_size=sizes[0],
                    readahead=False,
                    mode=0o644,
                    lib_version=0,  # py-lmdb 3 bundles two formats and lets the environment choose
                    lock=lock,
                    sync=lock,  # a new file is synced once, when it is complete
                )
            except lmdb.MemoryError:
                if len(sizes) == 1:
                    raise
                del sizes[0]

    def _stand_for_readers(self) -> None:
        """Begin to read, for good, and find our entry in the table of readers."""
        self._proxy = self._env.begin()
        table, ours = os.pread(self._fds[0], _LOCK_FILE_BYTES, 0), _ENTRY.pack(self._proxy.id(), self._pid)
        places = [at for at in range(_LINE_BYTES, len(table), _LINE_BYTES) if table.startswith(ours, at)]
        if len(places) != 1:
            raise lmdb.Error("this build of LMDB keeps its readers otherwise than samaf expects")
        self._entry = places[0]
        self._fds.append(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))

    def begin(self) -> Transaction:
        """Start a transaction, in which no page of a state that somebody reads is used again.

        Raises
        ------
        StoreError
            If the process was forked since the file was opened.
        """
        if self._pid != os.getpid():
            raise StoreError(
                f"index {shown(self.name)} was opened for writing before a fork; open it anew in each process"
            )
        if not self._new:
            oldest = pins.oldest(self._fds[1], self._env.info()["last_txnid"])
            os.pwrite(self._fds[0], struct.pack("=Q", oldest), self._entry)
        return Transaction(self._env.begin(write=True))

    def sync(self) -> None:
        """Force what is written to the disk."""
        with writing(self.name):
            self._env.sync(True)

    def close(self) -> None:
        """Close the file; in a forked child, which has no part in it, do nothing."""
        if self._pid != os.getpid():
            return
        if not self._new:
            self._proxy.abort()
        self._env.close()
        self._close_files()

    def _close_files(self) -> None:
        # Not before LMDB is done with the lock file: closing it anywhere drops the process's locks on it.
        for fd in self._fds:
            os.close(fd)
        if self._fds:
            with suppress(OSError):
                os.unlink(self.path + "-lock")
        self._fds = []
