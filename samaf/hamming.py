"""Hamming distances between packed binary codes, as numba kernels.

A code of ``bits`` bits (64, 128 or 256) is a row of ``bits // 64`` words of ``uint64``; bit ``b`` of the code
is bit ``b % 64`` of word ``b // 64``. The kernels release the GIL, so a thread pool can run them side by
side, and are compiled once per array type and kept on disk; LLVM turns their popcounts into AVX-512 where the
CPU has it.
"""

from __future__ import annotations

import errno
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from samaf.errors import shown
from samaf.places import cache_folder, make_folder

__all__ = ["ber", "distance", "distance_matrix", "frozen", "kernel", "pack", "popcount", "unpack"]

# Rows whose words are turned into one contiguous run per word before all queries pass over them: 8 KiB per
# word, so that the runs of a 256-bit code still fit a 48 KiB first-level cache beside the output.
_BLOCK = 1024


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` without the GIL and keep the machine code on disk, where some folder is writable.

    It is kept in the user's cache folder, unless $NUMBA_CACHE_DIR names another: beside the source, numba's files would
    outlast an uninstalled package and be taken for it.
    """
    folder = _cache_folder()
    if folder is None or config.DISABLE_JIT:  # type: ignore[attr-defined]
        return njit(nogil=True)(function)
    given = config.CACHE_DIR  # type: ignore[attr-defined]
    config.CACHE_DIR = folder  # type: ignore[attr-defined]
    try:
        made: Any = njit(cache=True, nogil=True)(function)
    finally:
        config.CACHE_DIR = given  # type: ignore[attr-defined]
    keep = made._cache.save_overload

    def keep_if_there_is_room(*args: Any) -> None:
        try:
            keep(*args)
        except OSError as error:
            _warn(folder, error.strerror)

    made._cache.save_overload = keep_if_there_is_room
    return made


@cache
def _cache_folder() -> str | None:
    """Where machine code is kept; None if nothing can be written there."""
    folder = config.CACHE_DIR or cache_folder()  # type: ignore[attr-defined]
    try:
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "this user has no home folder")
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError as error:
        _warn(str(folder or "cache folder"), error.strerror)
        return None


@cache
def _warn(folder: str, why: str) -> None:
    warnings.warn(
        f"{shown(folder)}: compiled code cannot be kept there ({why}), which costs seconds at every start; set "
        "$NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only, C-contiguous view of `array` (a copy only where it is not contiguous).

    Numba compiles one kernel per array type, and read-only arrays (such as LMDB's memory) are a type of their
    own; what every kernel reads goes through here, so that there is a single one.
    """
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _popcount(typingctx: Any, word: Any) -> Any:
    """Number of ones in a uint64, as the CPU's own instruction (inside kernels only)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.ctpop", (ir.IntType(64),))
        return builder.call(function, args)

    return types.uint64(types.uint64), generate


popcount: Any = intrinsic(_popcount)


@kernel
def _distance(a, b, out):  # type: ignore[no-untyped-def]
    n, w = a.shape
    for i in range(n):
        d = np.uint64(0)
        for k in range(w):
            d += popcount(a[i, k] ^ b[i, k])
        out[i] = d


@kernel
def _errors(a, b, valid):  # type: ignore[no-untyped-def]
    n, w = a.shape
    errors = np.uint64(0)
    rows = 0
    for i in range(n):
        if valid[i]:
            rows += 1
            for k in range(w):
                errors += popcount(a[i, k] ^ b[i, k])
    return errors, rows


@kernel
def _matrix(q, r, out):  # type: ignore[no-untyped-def]
    m, w = q.shape
    n = r.shape[0]
    words = np.empty((w, _BLOCK), np.uint64)
    for start in range(0, n, _BLOCK):
        count = min(_BLOCK, n - start)
        for j in range(count):
            for k in range(w):
                words[k, j] = r[start + j, k]
        for i in range(m):
            row = out[i, start : start + count]
            if w == 1:
                a = q[i, 0]
                for j in range(count):
                    row[j] = popcount(a ^ words[0, j])
            elif w == 2:
                a = q[i, 0]
                b = q[i, 1]
                for j in range(count):
                    row[j] = popcount(a ^ words[0, j]) + popcount(b ^ words[1, j])
            else:
                a = q[i, 0]
                b = q[i, 1]
                c = q[i, 2]
                d = q[i, 3]
                for j in range(count):
                    row[j] = (popcount(a ^ words[0, j]) + popcount(b ^ words[1, j])) + (
                        popcount(c ^ words[2, j]) + popcount(d ^ words[3, j])
                    )


def _check(*codes: NDArray[np.uint64]) -> None:
    for code in codes:
        if code.dtype != np.uint64 or code.ndim != 2 or code.shape[1] not in (1, 2, 4):
            raise ValueError(f"codes must be uint64 of shape (n, 1|2|4), got {code.dtype} {code.shape}")
    if len({code.shape[1] for code in codes}) > 1:
        raise ValueError("codes of different numbers of bits cannot be compared")


def _check_rows(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> None:
    _check(a, b)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} codes cannot be compared row by row")


def distance(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Number of differing bits of aligned rows.

    Parameters
    ----------
    a, b : uint64 (n, w)
        Codes of ``64 * w`` bits.

    Returns
    -------
    int32 (n,)

    Raises
    ------
    ValueError
        If the shapes differ or are not those of codes.

    Examples
    --------
    >>> distance(np.array([[0b1011]], np.uint64), np.array([[0b0001]], np.uint64))
    array([2], dtype=int32)
    """
    _check_rows(a, b)
    out = np.empty(len(a), np.int32)
    _distance(frozen(a), frozen(b), out)
    return out


def ber(a: NDArray[np.uint64], b: NDArray[np.uint64], valid: NDArray[np.bool_] | None = None) -> float:
    """Bit error rate in [0, 1] over all aligned rows for which `valid` holds.

    Parameters
    ----------
    a, b : uint64 (n, w)
        Codes of ``64 * w`` bits.
    valid : bool (n,), optional
        Rows that count; default all.

    Returns
    -------
    float
        1.0 where no row counts: nothing was seen to agree.

    Raises
    ------
    ValueError
        If the shapes differ or are not those of codes.
    """
    _check_rows(a, b)
    mask = np.ones(len(a), np.bool_) if valid is None else np.asarray(valid, np.bool_)
    if mask.shape != (len(a),):
        raise ValueError(f"valid has shape {mask.shape}, not ({len(a)},)")
    errors, rows = _errors(frozen(a), frozen(b), frozen(mask))
    return int(errors) / (rows * 64 * a.shape[1]) if rows else 1.0


def distance_matrix(
    q: NDArray[np.uint64], r: NDArray[np.uint64], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Distances of every query code to every reference code: the exhaustive scan of hard bits.

    Parameters
    ----------
    q : uint64 (m, w)
    r : uint64 (n, w)
        Read once, block by block, for all queries; may be read-only.
    out : uint8 or uint16 (m, n), optional
        Written and returned; a new array by default.

    Returns
    -------
    uint8 (m, n), or uint16 for codes of 256 bits, whose distances do not fit a byte.

    Raises
    ------
    ValueError
        If the shapes are not those of codes, or `out` does not fit.
    """
    _check(q, r)
    dtype = np.uint16 if q.shape[1] == 4 else np.uint8
    if out is None:
        out = np.empty((len(q), len(r)), dtype)
    elif out.shape != (len(q), len(r)) or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"out must be a contiguous {np.dtype(dtype)} array of shape ({len(q)}, {len(r)})")
    _matrix(frozen(q), frozen(r), out)
    return out


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack bool (n, bits) into codes uint64 (n, bits // 64).

    Raises
    ------
    ValueError
        If `bits` is not two-dimensional or its width is no multiple of 64.
    """
    bits = np.asarray(bits, np.bool_)
    if bits.ndim != 2 or bits.shape[1] % 64 or not bits.shape[1]:
        raise ValueError(f"bits must have shape (n, 64 k), got {bits.shape}")
    octets = np.packbits(bits, axis=1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.bool_]:
    """Unpack the first `bits` bits of codes uint64 (n, w) into bool (n, bits).

    Raises
    ------
    ValueError
        If the codes are shorter than `bits`.
    """
    if hashes.ndim != 2 or bits > 64 * hashes.shape[1]:
        raise ValueError(f"codes of shape {hashes.shape} do not hold {bits} bits")
    octets = np.ascontiguousarray(hashes.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=bits, bitorder="little").view(np.bool_)
