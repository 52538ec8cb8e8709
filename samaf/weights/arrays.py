"""The arrays of an ``.npz`` file that somebody else may have made.

Only what numpy writes for arrays of numbers is read: no pickles, no text is evaluated, and nothing is larger than the
archive says.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 1 << 25
"""Of all arrays of a file."""
MOST_ARRAYS = 64

_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY\x01\x00"
_HEAD_BYTES = 128
"""Of an array's head, as numpy pads it where there are few dimensions."""
_HEAD = re.compile(
    re.escape(_MAGIC) + rb"v\0\{'descr': '([<|](?:f[248]|u[1248]|i1))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,9}, )*(?:\d{1,9},?)?)\), \} *\n"
)


class _Head(NamedTuple):
    dtype: str
    order: Any  # "C" or "F"
    shape: tuple[int, ...]


class Arrays:
    """Names, types and shapes of the arrays of an archive; each is read when it is asked for.

    Parameters
    ----------
    archive
        At most :data:`MOST_ARRAYS` arrays, of at most :data:`MOST_BYTES` together.

    Raises
    ------
    ValueError
        It holds anything else.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        infos = archive.infolist()
        if len(infos) > MOST_ARRAYS or sum(info.file_size for info in infos) > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_ARRAYS} arrays, or {MOST_BYTES} bytes of them")
        self._archive = archive
        self._infos = {info.filename.removesuffix(_SUFFIX): info for info in infos}
        self._heads = {name: self._head(name) for name in self._infos}

    def _head(self, name: str) -> _Head:
        info = self._infos[name]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed in a way that numpy does not know")
        with self._archive.open(info) as member:
            head = _HEAD.fullmatch(member.read(_HEAD_BYTES))
        if head is None:
            raise ValueError(f"{name} is no array of numbers")
        dtype, order, shape = (group.decode() for group in head.groups())
        return _Head(dtype, "F" if order == "True" else "C", tuple(map(int, re.findall(r"\d+", shape))))

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def shape(self, name: str, dimensions: int | None = None) -> tuple[int, ...]:
        """Shape of an array that is there, has so many dimensions and is not empty; else a `ValueError`."""
        if name not in self._heads:
            raise ValueError(f"{name} is missing")
        shape = self._heads[name].shape
        if not all(shape) or dimensions not in (None, len(shape)):
            raise ValueError(f"{name} has shape {shape}")
        return shape

    def dtype(self, name: str) -> str:
        """Type of an array that is there, as numpy writes it; else a `ValueError`."""
        self.shape(name)
        return self._heads[name].dtype

    def read(self, name: str, dtype: str = "", shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """Read an array if it has this type and this shape, where one is given; else a `ValueError`."""
        own, head = self.shape(name), self._heads[name]
        if (dtype or head.dtype, own if shape is None else shape) != (head.dtype, own):
            raise ValueError(f"{name} has type {head.dtype} and shape {own}")
        n_bytes = math.prod(own) * np.dtype(head.dtype).itemsize
        if _HEAD_BYTES + n_bytes != self._infos[name].file_size:
            raise ValueError(f"{name} does not fill its place")
        data = self._archive.read(self._infos[name])  # all of it, so that its checksum is looked at
        return np.frombuffer(data, head.dtype, offset=_HEAD_BYTES).reshape(own, order=head.order)
