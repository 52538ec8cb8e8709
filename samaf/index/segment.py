"""One immutable part of an index: the packed hashes of some tracks and, once it is large, its band tables.

In LMDB a segment is a few values under its number: the hashes, the tracks' ids and row counts, and per band
an array of offsets and one of postings, each exactly the array that the kernels read; and a small record with
their sizes and checksums. Opening one copies nothing but the few bytes per track.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import frozen, kernel
from samaf.index.codec import DamageError, decode, encode

MAX_ROWS = 1 << 26  # 2 GiB of 256-bit hashes: an LMDB value ends below 4 GiB
TABLE_ROWS = 1 << 17  # below, a scan takes a millisecond and tables would outweigh the hashes
MIN_WIDTH, MAX_WIDTH = 8, 24

_PAGE_BYTES = 4096


@dataclass(frozen=True)
class BandTable:
    """Inverted table of one band: value v is that of the rows ``postings[offsets[v] : offsets[v + 1]]``.

    Attributes
    ----------
    band : int
    width_bits, first_bit : int
        The band is bits ``first_bit .. first_bit + width_bits - 1`` of the code.
    offsets : uint32 (2 ** width_bits + 1,)
    postings : uint32 (n_valid,)
        Rows, ascending within a bucket; invalid rows are in none.
    """

    band: int
    width_bits: int
    first_bit: int
    offsets: NDArray[np.uint32]
    postings: NDArray[np.uint32]


@dataclass(frozen=True)
class Segment:
    """Hashes of some tracks; the arrays are views of LMDB's memory and end with their snapshot.

    Attributes
    ----------
    segment_id : int
    hashes : uint64 (n, w), read-only
        A row of zeros is an invalid hash, which matches nothing and keeps its place on the time line.
    track_ids : int64 (t,)
    starts : int64 (t + 1,)
        Track k has rows ``starts[k] : starts[k + 1]``.
    tables : tuple of BandTable
        Empty in small segments, which are scanned.
    n_invalid : int
    """

    segment_id: int
    hashes: NDArray[np.uint64]
    track_ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    tables: tuple[BandTable, ...] = ()
    n_invalid: int = 0

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def width_bits(self) -> int:
        """Width of the bands in bits, 0 without tables."""
        return self.tables[0].width_bits if self.tables else 0

    def locate(self, rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which track of the segment (k, not its id) each row belongs to, and its place in it."""
        rows = np.asarray(rows, np.int64)
        k = np.searchsorted(self.starts, rows, side="right") - 1
        return k, rows - self.starts[k]


def table_width(n_rows: int) -> int:
    """Width of the bands of a segment, so that a bucket holds some 16 postings; 0 for no tables."""
    if n_rows < TABLE_ROWS:
        return 0
    return min(max(n_rows.bit_length() - 1 - 4, MIN_WIDTH), MAX_WIDTH)


@kernel
def band_value(hashes, row, first_bit, width_bits):  # type: ignore[no-untyped-def]
    """Return the band's bits of one code as a number, its lowest bit first."""
    word = first_bit >> 6
    shift = np.uint64(first_bit & 63)
    value = hashes[row, word] >> shift
    if (first_bit & 63) + width_bits > 64:
        value |= hashes[row, word + 1] << (np.uint64(64) - shift)
    return np.int64(value & np.uint64((1 << width_bits) - 1))


@kernel
def _is_valid(hashes, row):  # type: ignore[no-untyped-def]
    ones = np.uint64(0)
    for k in range(hashes.shape[1]):
        ones |= hashes[row, k]
    return ones != 0


@kernel
def count_valid(hashes):  # type: ignore[no-untyped-def]
    """Count the rows that are not all zero."""
    n = 0
    for row in range(hashes.shape[0]):
        n += _is_valid(hashes, row)
    return n


@kernel
def _sort_by_value(hashes, first_bit, width_bits, offsets, postings):  # type: ignore[no-untyped-def]
    """Counting sort of the valid rows; while they are put, offsets[v + 1] is the cursor of bucket v."""
    n = hashes.shape[0]
    offsets[:] = 0
    for row in range(n):
        if _is_valid(hashes, row):
            offsets[band_value(hashes, row, first_bit, width_bits) + 1] += 1
    total = np.uint32(0)
    for v in range(1, offsets.shape[0]):
        count = offsets[v]
        offsets[v] = total
        total += count
    for row in range(n):
        if _is_valid(hashes, row):
            v = band_value(hashes, row, first_bit, width_bits) + 1
            postings[offsets[v]] = row
            offsets[v] += 1


@kernel
def check_table(hashes, first_bit, width_bits, offsets, postings):  # type: ignore[no-untyped-def]
    """Whether every posting lies in its bucket, once."""
    if offsets[0] != 0 or offsets[-1] != postings.shape[0]:
        return False
    for v in range(offsets.shape[0] - 1):
        if offsets[v] > offsets[v + 1] or offsets[v + 1] > postings.shape[0]:
            return False
        previous = np.int64(-1)
        for i in range(offsets[v], offsets[v + 1]):
            row = np.int64(postings[i])
            if row <= previous or row >= hashes.shape[0] or not _is_valid(hashes, row):
                return False
            if band_value(hashes, row, first_bit, width_bits) != v:
                return False
            previous = row
    return True


def band_table(hashes: NDArray[np.uint64], band: int, width_bits: int, n_valid: int) -> BandTable:
    """Build one inverted table.

    Parameters
    ----------
    hashes : uint64 (n, w)
    band : int
        Bands lie side by side from bit 0 on.
    width_bits : int
    n_valid : int
        As `count_valid` gives it.
    """
    offsets = np.empty((1 << width_bits) + 1, np.uint32)
    postings = np.empty(n_valid, np.uint32)
    _sort_by_value(frozen(hashes), band * width_bits, width_bits, offsets, postings)
    return BandTable(band, width_bits, band * width_bits, offsets, postings)


def plain(arrays: Sequence[NDArray[np.uint64]], track_ids: Sequence[int], words: int) -> Segment:
    """Make a segment without tables in memory.

    Parameters
    ----------
    arrays : sequence of uint64 (n, words)
        The hashes of each track.
    track_ids : sequence of int
    words : int
        Per hash.

    Raises
    ------
    ValueError
        If an array has another shape or type.
    """
    for array in arrays:
        if array.dtype != np.uint64 or array.ndim != 2 or array.shape[1] != words:
            raise ValueError(f"hashes must be uint64 of shape (n, {words}), got {array.dtype} {array.shape}")
    hashes = np.concatenate(arrays) if arrays else np.zeros((0, words), np.uint64)
    starts = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    return Segment(0, frozen(hashes), np.array(track_ids, np.int64), starts)


def with_tables(part: Segment) -> Segment:
    """Return the segment with the band tables that its size asks for, in memory."""
    n_valid = count_valid(part.hashes)
    width = table_width(len(part))
    bands = 64 * part.hashes.shape[1] // width if width else 0
    tables = tuple(band_table(part.hashes, band, width, n_valid) for band in range(bands))
    return replace(part, tables=tables, n_invalid=len(part) - n_valid)


# Storage: names of the values, and the record that describes them.

_RECORD, _HASHES, _TRACKS = b"r", b"h", b"t"


def _offsets_name(band: int) -> bytes:
    return b"o" + bytes([band])


def _postings_name(band: int) -> bytes:
    return b"p" + bytes([band])


@dataclass
class Layout:
    """The stored record of a segment: numbers of rows, width of the bands, CRC-32 of every value by name."""

    n_rows: int
    n_tracks: int
    n_invalid: int
    words: int
    width_bits: int
    checksums: dict[str, int] = field(default_factory=dict)

    @property
    def bands(self) -> int:
        """Number of band tables."""
        return 64 * self.words // self.width_bits if self.width_bits else 0

    def sizes(self) -> dict[bytes, int]:
        """Bytes of every value by name."""
        sizes = {_HASHES: 8 * self.words * self.n_rows, _TRACKS: 8 * self.n_tracks}
        for band in range(self.bands):
            sizes[_offsets_name(band)] = 4 * ((1 << self.width_bits) + 1)
            sizes[_postings_name(band)] = 4 * (self.n_rows - self.n_invalid)
        return sizes


def write(
    put: Callable[[bytes, Any], None],
    hashes: NDArray[np.uint64],
    track_ids: NDArray[Any],
    counts: NDArray[Any],
) -> None:
    """Store a segment through ``put(name, value)``, one band table in memory at a time.

    Parameters
    ----------
    put : callable
    hashes : uint64 (n, w)
        Of all tracks, one after the other.
    track_ids, counts : int (t,)
        Ids and numbers of hashes.
    """
    hashes = frozen(hashes)
    n_valid = count_valid(hashes)
    width = table_width(len(hashes))
    layout = Layout(len(hashes), len(track_ids), len(hashes) - n_valid, hashes.shape[1], width)

    def put_array(name: bytes, array: NDArray[Any]) -> None:
        data = array.reshape(-1).view(np.uint8).data if array.size else b""
        layout.checksums[name.hex()] = zlib.crc32(data)
        put(name, data)

    put_array(_HASHES, hashes)
    put_array(_TRACKS, np.stack([track_ids, counts]).astype(np.uint32))
    for band in range(layout.bands):
        table = band_table(hashes, band, width, n_valid)
        put_array(_offsets_name(band), table.offsets)
        put_array(_postings_name(band), table.postings)
    put(_RECORD, encode(vars(layout)))


def layout(get: Callable[[bytes], memoryview | None]) -> Layout:
    """Read a segment's record through ``get(name)``."""
    record = get(_RECORD)
    if record is None:
        raise DamageError("a segment has lost its record")
    try:
        return Layout(**decode(record))
    except TypeError as error:
        raise DamageError(f"a segment's record cannot be read ({error})") from None


def _array(get: Callable[[bytes], memoryview | None], name: bytes, size: int, dtype: Any) -> NDArray[Any]:
    data = get(name)
    if data is None or len(data) != size:
        raise DamageError(
            f"a segment's value {name!r} has {0 if data is None else len(data)} bytes, not {size}"
        )
    # A small value lies inside a page of the tree, at any address.
    return frozen(np.frombuffer(bytes(data) if size < _PAGE_BYTES else data, dtype))


def read(get: Callable[[bytes], memoryview | None], segment_id: int) -> Segment:
    """Open a segment through ``get(name)``, without copying its hashes and tables.

    Raises
    ------
    DamageError
        If a value is missing or of the wrong size. (Contents are checked by `problems` only.)
    """
    form = layout(get)
    sizes = form.sizes()
    hashes = _array(get, _HASHES, sizes[_HASHES], np.uint64).reshape(form.n_rows, form.words)
    track_ids, counts = _array(get, _TRACKS, sizes[_TRACKS], np.uint32).reshape(2, -1).astype(np.int64)
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    if starts[-1] != form.n_rows:
        raise DamageError(f"segment {segment_id} has {form.n_rows} rows, its tracks {starts[-1]}")
    tables = tuple(
        BandTable(
            band,
            form.width_bits,
            band * form.width_bits,
            _array(get, _offsets_name(band), sizes[_offsets_name(band)], np.uint32),
            _array(get, _postings_name(band), sizes[_postings_name(band)], np.uint32),
        )
        for band in range(form.bands)
    )
    return Segment(segment_id, hashes, track_ids, starts, tables, form.n_invalid)


def problems(get: Callable[[bytes], memoryview | None], segment_id: int) -> Iterator[str]:
    """Check every byte of a segment: checksums, then whether the tables say what the hashes say."""
    try:
        form = layout(get)
        segment = read(get, segment_id)
    except DamageError as error:
        yield f"segment {segment_id}: {error}"
        return
    damaged = False
    for name in form.sizes():
        if zlib.crc32(get(name) or b"") != form.checksums.get(name.hex()):
            damaged = True
            yield f"segment {segment_id}: value {name!r} fails its checksum"
    if damaged:
        return
    n_valid = count_valid(segment.hashes)
    if n_valid != len(segment) - segment.n_invalid:
        yield f"segment {segment_id}: {n_valid} valid hashes instead of {len(segment) - segment.n_invalid}"
    for table in segment.tables:
        if not check_table(segment.hashes, table.first_bit, table.width_bits, table.offsets, table.postings):
            yield f"segment {segment_id}: the table of band {table.band} does not fit its hashes"
