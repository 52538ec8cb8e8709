"""Matrix products on the thread that calls, and no other.

Files are encoded, and clips searched, side by side on threads of our own. Threads that numpy's products start inside
them would only wait for each other: with two processors and other work on them, that costs up to twenty times the time.
Their number belongs to the whole process and may be set by one thread alone, so a library cannot bound it. But
OpenBLAS, which numpy brings along, uses none for a small product (``GEMM_MULTITHREAD_THRESHOLD`` in its
``Makefile.rule``), and small ones that lie in the caches take hardly longer than a large one: 10 % with a dozen rows,
half as much again with hundreds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALL = 4 * 65536
"""Multiplications of a product of matrices up to which no thread is started."""
SMALL_OF_VECTOR = 4 * 2304
"""The same of a vector and a matrix."""
_ROWS = 32

Float32 = NDArray[np.float32]


def product(a: Float32, b: Float32) -> Float32:
    """The matrix product of ``a`` (m, k) and ``b`` (k, n), float32 (m, n), as products that are small."""
    inner, n = b.shape
    out = np.empty((len(a), n), np.float32)
    for first in range(0, len(a), _ROWS):
        rows = a[first : first + _ROWS]
        columns = (SMALL // len(rows) if len(rows) > 1 else SMALL_OF_VECTOR) // inner
        for at in range(0, n, columns):
            np.matmul(rows, b[:, at : at + columns], out=out[first : first + _ROWS, at : at + columns])
    return out
