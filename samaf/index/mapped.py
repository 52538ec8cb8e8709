"""An index file as its readers hold it: mapped into memory, one state of it pinned at a time.

Nothing of this needs more than the right to read the file, and nothing is written.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from samaf.errors import StoreError, shown
from samaf.hamming import frozen
from samaf.index import pins, structure
from samaf.index.codec import DamageError
from samaf.index.explain import explained
from samaf.index.pages import Meta, Place, Tree, read_metas

_TRIES = 1000  # a writer would have to commit between any two of our steps

_pinned: WeakSet[Pinned]


class _View:
    """Bytes of the map as numpy takes them; an array of them keeps their state pinned."""

    def __init__(self, owner: Pinned, address: int, n_bytes: int) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": (n_bytes,),
            "typestr": "|u1",
            "data": (address, True),
        }


class Pinned:
    """One committed state, which the writer spares as long as this object or an array of it lives.

    Attributes
    ----------
    tree : Tree
    """

    def __init__(self, fd: int, data: mmap.mmap, metas: tuple[Meta, Meta]) -> None:
        self._fd = fd
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        newest, self._previous = metas
        self.tree = Tree(data, newest)
        _pinned.add(self)

    def before(self) -> Tree:
        """Return the state before, whose pages are spared as well."""
        return Tree(self._data, self._previous)

    def array(self, place: Place, dtype: Any) -> NDArray[Any]:
        """Return a value in pages of its own as a read-only array, a view of the file."""
        view = _View(self, self._bytes.ctypes.data + place.offset, place.n_bytes)
        return frozen(np.asarray(view).view(dtype))

    def fetch(self, place: Place) -> None:
        """Have a value read from the disk in one go: it will be needed whole."""
        start = place.offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._data.madvise(mmap.MADV_WILLNEED, start, place.offset + place.n_bytes - start)

    def problems(self) -> list[str]:
        """Say what is wrong with the pages of the two trees; see `structure`."""
        return structure.problems(self._data, self.tree.meta)

    def forget(self) -> None:
        """Leave the pin to the process that this one was forked from."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = forget


_pinned = WeakSet()


def _forget_all() -> None:
    for pinned in list(_pinned):
        pinned.forget()


os.register_at_fork(after_in_child=_forget_all)


class IndexFile:
    """An index file, open for reading; any number of threads may use one.

    Parameters
    ----------
    path : str

    Raises
    ------
    StoreError
        If it is missing, unreadable, cut short, or no index.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._guard = threading.Lock()
        first = None
        while first is None:  # again where it is replaced in this very moment
            self.key: tuple[int, int] | None = None
            fd = self._open()
            try:
                self.key = _key(fd)
                self._data = self._map(fd)
            finally:
                os.close(fd)
            first = self.pin()
        meta = first.tree.meta
        # A file may rightly end before pages that are free.
        if len(self._data) < meta.n_bytes:
            problems = first.problems()
            if problems:
                raise StoreError(
                    f"index {shown(path)} is cut short ({problems[0]}); restore a copy, or save what is left with "
                    "'samaf index verify --repair'"
                )

    def _open(self) -> int:
        name = shown(self.path)
        try:
            fd = os.open(
                self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )  # a pipe must not keep us waiting
        except (FileNotFoundError, NotADirectoryError):
            if self.key is not None:
                raise StoreError(f"index {name} has been deleted; open another") from None
            raise StoreError(f"there is no index {name}; make one with 'samaf index add'") from None
        except PermissionError:
            raise StoreError(
                f"index {name} cannot be read: permission denied; ask its owner for access"
            ) from None
        except OSError as error:
            raise StoreError(f"index {name} cannot be opened: {error.strerror}") from None
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            os.close(fd)
            what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise StoreError(f"{name} is {what}, not an index; name the index file itself")
        return fd

    def _map(self, fd: int) -> mmap.mmap:
        size = os.fstat(fd).st_size
        if size == 0:
            raise StoreError(f"{shown(self.path)} is empty, not an index; delete it, or name another file")
        try:
            data = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise StoreError(
                f"index {shown(self.path)} cannot be mapped into memory ({error.strerror}); raise 'ulimit -v'"
            ) from None
        data.madvise(mmap.MADV_RANDOM)  # probes hop about; what is scanned is fetched in one go
        return data

    def _metas(self, fd: int) -> tuple[Meta, Meta]:
        tries = 0
        while True:
            try:
                return read_metas(fd)
            except ValueError:
                raise StoreError(
                    f"{shown(self.path)} is not an index of samaf, or its head is damaged; name another file"
                ) from None
            except DamageError as error:
                tries += 1
                if tries == 20:  # not a writer who passed us by
                    raise explained(error, self.path) from None

    def pin(self) -> Pinned | None:
        """Pin the newest state; None if another file lies at the path now.

        Raises
        ------
        StoreError
            If the file has been deleted, is damaged, or its states cannot be pinned.
        """
        for _ in range(_TRIES):
            fd = self._open()
            try:
                if _key(fd) != self.key:
                    os.close(fd)
                    return None
                metas = self._metas(fd)
                if not pins.pin(fd, metas[0].transaction) and not _is_read_only(fd):
                    raise StoreError(
                        f"the file system of index {shown(self.path)} cannot keep what is read from being "
                        "overwritten; copy the index to a local disk"
                    )
                # A writer who has seen no pin before his next change may have begun it already.
                if self._metas(fd)[0] == metas[0]:
                    data = self._mapped(os.fstat(fd).st_size)
                    if data is not None:
                        return Pinned(fd, data, metas)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise StoreError(f"index {shown(self.path)} changes too fast to be read; try again")

    def _mapped(self, n_bytes: int) -> mmap.mmap | None:
        """Return a map of the whole file, None if another lies at the path now."""
        with self._guard:
            if len(self._data) < n_bytes:
                fd = self._open()  # a map keeps a copy of its descriptor, which must not be one that pins
                try:
                    if _key(fd) != self.key:
                        return None
                    self._data = self._map(fd)
                finally:
                    os.close(fd)
            return self._data


def _key(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _is_read_only(fd: int) -> bool:
    try:
        return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return False
        raise
