"""One LMDB file, opened safely: checks before LMDB maps it, one handle per process, errors in plain words.

LMDB trusts its file: a truncated one kills the process with SIGBUS at the first missing page, so the file is
looked at first. LMDB also forbids opening a file twice in one process; all users of a file in a process
share one `Environment`, counted. It does not survive a fork.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lmdb
from lmdb import verify as lmdb_verify

from samaf.errors import StoreError, shown
from samaf.index.codec import DamageError
from samaf.index.locks import gate

# Growing a map moves it under the views of running searches, so it is made huge at once: address space costs
# nothing. Systems that ration it (ulimit -v, some containers) get the largest they grant.
_MAP_BYTES = tuple(1 << power for power in (40, 38, 36, 34, 32, 30))
_MAX_READERS = 512

_PAGE_HEADER_BYTES = 16
_MAGIC = 0xBEEFC0DE
_FORMAT = 1

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _read_meta(fd: int, offset: int) -> tuple[int, int, int] | None:
    """Page size, last page and transaction number of the meta page at `offset`, or None if there is none."""
    data = os.pread(fd, 152, offset)
    if len(data) < 152:
        return None
    magic, version = struct.unpack_from("=II", data, _PAGE_HEADER_BYTES)
    if magic != _MAGIC or version != _FORMAT:
        return None
    # After magic, version, address and map size come two tables' records of 48 bytes each; the first one's
    # first word holds the page size. The last page in use and the transaction follow.
    (page_bytes,) = struct.unpack_from("=I", data, _PAGE_HEADER_BYTES + 24)
    last_page, transaction = struct.unpack_from("=QQ", data, _PAGE_HEADER_BYTES + 24 + 96)
    return page_bytes, last_page, transaction


def check_file(fd: int, path: str) -> None:
    """Refuse a file that LMDB would not survive.

    Raises
    ------
    StoreError
        If it is no LMDB file, or is cut short.
    """
    name = shown(path)
    if os.fstat(fd).st_size == 0:
        raise StoreError(f"{name} is empty, not an index; delete it, or name another file")
    first = _read_meta(fd, 0)
    if first is None or first[0] < 256 or first[0] & (first[0] - 1):
        raise StoreError(f"{name} is not an index of samaf, or its head is damaged; name another file")
    second = _read_meta(fd, first[0])
    if second is None:
        raise StoreError(f"index {name} is cut short or damaged; restore a copy or build it anew")
    page_bytes, last_page, _ = max(first, second, key=lambda meta: meta[2])
    # The size is read after the meta pages: a writer extends the file before it publishes its pages.
    if os.fstat(fd).st_size < (last_page + 1) * page_bytes:
        # Legal only if all the missing pages are free ones: rare, so the slow and sure way to tell will do.
        problems = structure(path)
        if problems:
            raise StoreError(f"index {name} is cut short; restore a copy or build it anew ({problems[0]})")


def structure(path: str) -> list[str]:
    """Walk the file's pages without mapping it; returns what is wrong with them, one line each."""
    try:
        return lmdb_verify.verify(path, subdir=False)  # type: ignore[no-untyped-call]
    except (lmdb_verify.VerifyError, OSError) as error:
        return [str(error)]


def explained(error: Exception, path: str) -> StoreError:
    """Put an error of LMDB or the system into words for the user of the index at `path`."""
    name = shown(path)
    code = getattr(error, "code", getattr(error, "errno", None))
    if isinstance(error, lmdb.DiskError) or code in _FULL:
        return StoreError(f"disk full: nothing was changed in index {name}; free some space and try again")
    if (
        code == errno.EIO
    ):  # LMDB's word for a write that ended early, which is what a full disk looks like first
        return StoreError(f"disk full or failing: nothing was changed in index {name}; free some space first")
    if isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
        return StoreError(f"index {name} has outgrown the memory map the system grants; raise 'ulimit -v'")
    if isinstance(error, lmdb.MemoryError):
        return StoreError(f"index {name} cannot be mapped into memory; raise 'ulimit -v'")
    if isinstance(error, lmdb.ReadersFullError):
        return StoreError(f"more than {_MAX_READERS} searches use index {name} at once; end some")
    if isinstance(error, lmdb.ReadonlyError) or code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(
            f"index {name} cannot be written: permission denied; make it and its folder writable"
        )
    reason = "; ".join(str(error).split("\n"))
    return StoreError(
        f"index {name} is damaged ({reason}); run 'samaf index verify', restore a copy or rebuild"
    )


@contextmanager
def explaining(path: str) -> Iterator[None]:
    """Turn errors of LMDB, damage and a full disk inside the block into `StoreError`."""
    try:
        yield
    except (lmdb.Error, DamageError) as error:
        raise explained(error, path) from error
    except OSError as error:
        if error.errno in _FULL:
            raise explained(error, path) from error
        raise


_open: dict[tuple[int, int], Environment] = {}
_open_lock = threading.RLock()


class Environment:
    """An open LMDB file, shared by everything in this process that uses it; get it with `acquire`."""

    def __init__(
        self, path: str, *, key: tuple[int, int] = (0, 0), create: bool = False, name: str = ""
    ) -> None:
        self.path = path
        self.name = name or path  # in messages
        self.key = key
        self._pid = os.getpid()
        self._users = 1
        self.readonly = False
        with explaining(self.name):
            self._env = self._map(create)

    def _map(self, create: bool) -> Any:
        # A new file is private until it is complete, so it needs neither LMDB's locks nor a sync per
        # transaction.
        lock = sync = not create
        sizes = list(_MAP_BYTES)
        while True:
            try:
                return lmdb.open(
                    self.path,
                    subdir=False,
                    create=create,
                    map_size=sizes[0],
                    max_readers=_MAX_READERS,
                    readahead=False,  # probes hop about; scans are read ahead by the CPU and the page cache
                    mode=0o644,
                    lib_version=0,  # py-lmdb 3 bundles two formats and lets the environment choose
                    readonly=self.readonly,
                    lock=lock,
                    sync=sync,
                )
            except lmdb.MemoryError:
                if len(sizes) == 1:
                    raise
                del sizes[0]
            except lmdb.Error as error:
                if "already open" in str(error):
                    raise StoreError(
                        f"index {shown(self.name)} is open in the process this one was forked from; "
                        "start workers with 'spawn', or open the index after the fork only"
                    ) from None
                # Who may not write can still read. Where not even the file of LMDB's locks can be made, reading is
                # safe as long as nobody writes meanwhile; who could write is then somebody else's matter.
                if create or not lock or error.code not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                lock = not self.readonly
                self.readonly = True

    @classmethod
    def acquire(cls, path: str) -> Environment:
        """Open the index file at `path`, or join those who have it open in this process.

        Raises
        ------
        StoreError
            If it is missing, damaged, unreadable or not an index.
        """
        with gate(path) as fd, _open_lock:
            status = os.fstat(fd)
            key = status.st_dev, status.st_ino
            env = _open.get(key)
            if env is not None and env._pid == os.getpid():
                env._users += 1
                return env
            check_file(fd, path)
            env = _open[key] = cls(path, key=key)
            return env

    @classmethod
    def create(cls, path: str, name: str) -> Environment:
        """Make a new file at `path`, to be moved to its place `name` when complete."""
        return cls(path, create=True, name=name)

    def retain(self) -> Environment:
        """Count one more user."""
        with _open_lock:
            self._users += 1
        return self

    def release(self) -> None:
        """Count one user less; the last one closes the file."""
        if self._pid != os.getpid():
            return  # closing it here would clear the parent's entries in the table of readers
        with _open_lock:
            self._users -= 1
            if self._users == 0:
                _open.pop(self.key, None)
                self._env.close()

    def begin(self, *, write: bool = False) -> Any:
        """Start a transaction whose values are views of LMDB's memory.

        Raises
        ------
        StoreError
            If the process was forked since the file was opened, or may not write to it.
        """
        if self._pid != os.getpid():
            raise StoreError(
                f"index {shown(self.name)} was opened before a fork; open it anew in each process"
            )
        if write and self.readonly:
            raise explained(PermissionError(errno.EACCES, "read-only"), self.name)
        with explaining(self.name):
            return self._env.begin(write=write, buffers=True)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """One short read transaction; what is read must be copied."""
        with explaining(self.name):
            txn = self.begin()
            try:
                yield txn
            finally:
                txn.abort()

    def last_transaction(self) -> int:
        """Return the number of the last commit."""
        with explaining(self.name):
            return self._env.info()["last_txnid"]

    def forget_dead_readers(self) -> None:
        """Free the pages that killed readers have pinned."""
        with explaining(self.name):
            self._env.reader_check()

    def sync(self) -> None:
        """Force what is written to the disk."""
        with explaining(self.name):
            self._env.sync(True)
