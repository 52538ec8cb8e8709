"""One immutable part of an index: the packed hashes of some tracks and, once it is large, its band tables.

In the file a segment is a few values under its number: the hashes; the tracks' ids, row counts and checksums; per band
an array of offsets and one of postings, each exactly the array that the kernels read; and a small record with
their sizes and checksums. Opening one reads nothing but that record and the few bytes per track, and these are checked;
hashes are checked track by track, before they are copied and before a match with them is told. The tables are checked
by `problems` alone: whatever they say, the kernels stay inside their arrays, and what they find is compared in full.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from samaf.hamming import frozen, kernel
from samaf.index.codec import DamageError, decode, encode
from samaf.index.pages import Place, Tree

MAX_ROWS = 1 << 26  # 2 GiB of 256-bit hashes: an LMDB value ends below 4 GiB
TABLE_ROWS = 1 << 17  # below, a scan takes a millisecond and tables would outweigh the hashes
MIN_WIDTH, MAX_WIDTH = 8, 24


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
    """Hashes of some tracks; arrays of a stored one are views of the file, which stays as it is while they live.

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
    checksums : uint32 (t,), optional
        CRC-32 of each track's id and hashes.
    """

    segment_id: int
    hashes: NDArray[np.uint64]
    track_ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    tables: tuple[BandTable, ...] = ()
    n_invalid: int = 0
    checksums: NDArray[np.uint32] | None = None

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

    def is_sound(self, k: int) -> bool:
        """Whether the hashes of track k (not its id) are what was stored."""
        rows = self.hashes[self.starts[k] : self.starts[k + 1]]
        return self.checksums is None or checksum(rows, int(self.track_ids[k])) == int(self.checksums[k])

    def check(self, k: int) -> None:
        """Raise `DamageError` unless `is_sound`."""
        if not self.is_sound(k):
            raise DamageError(f"the hashes of track {self.track_ids[k]} fail their checksum")


def checksum(array: NDArray[Any], start: int = 0) -> int:
    """CRC-32 of an array's bytes; that of a track's hashes starts from its id, so that it fits no other track."""
    return zlib.crc32(array.reshape(-1).view(np.uint8).data if array.size else b"", start)


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
    return BandTable(band, width_bits, band * width_bits, frozen(offsets), frozen(postings))


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
    checksums = [
        checksum(hashes[a:b], k) for k, (a, b) in zip(track_ids, pairwise(starts.tolist()), strict=True)
    ]
    ids = np.array(track_ids, np.int64)
    return Segment(0, frozen(hashes), ids, starts, checksums=np.array(checksums, np.uint32))


def with_tables(part: Segment) -> Segment:
    """Return the segment with the band tables that its size asks for, in memory."""
    n_valid = count_valid(part.hashes)
    width = table_width(len(part))
    bands = 64 * part.hashes.shape[1] // width if width else 0
    tables = tuple(band_table(part.hashes, band, width, n_valid) for band in range(bands))
    return replace(part, tables=tables, n_invalid=len(part) - n_valid)


# Storage: names of the values, and the record that describes them.

RECORD, HASHES, TRACKS = b"r", b"h", b"t"
TRACK_ROWS = 3  # ids, counts, checksums


def _offsets_name(band: int) -> bytes:
    return b"o" + bytes([band])


def _postings_name(band: int) -> bytes:
    return b"p" + bytes([band])


@dataclass
class Layout:
    """The stored record of a segment: numbers of rows, width of the bands, CRC-32 of all values but the hashes."""

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
        sizes = {HASHES: 8 * self.words * self.n_rows, TRACKS: 4 * TRACK_ROWS * self.n_tracks}
        for band in range(self.bands):
            sizes[_offsets_name(band)] = 4 * ((1 << self.width_bits) + 1)
            sizes[_postings_name(band)] = 4 * (self.n_rows - self.n_invalid)
        return sizes


def write(
    put: Callable[[bytes, Any], None],
    hashes: NDArray[np.uint64],
    track_ids: NDArray[Any],
    counts: NDArray[Any],
    checksums: NDArray[Any],
) -> None:
    """Store a segment through ``put(name, value)``, one band table in memory at a time.

    Parameters
    ----------
    put : callable
    hashes : uint64 (n, w)
        Of all tracks, one after the other.
    track_ids, counts, checksums : int (t,)
        Ids, numbers of hashes, and CRC-32 as `checksum` gives it.
    """
    hashes = frozen(hashes)
    n_valid = count_valid(hashes)
    width = table_width(len(hashes))
    layout = Layout(len(hashes), len(track_ids), len(hashes) - n_valid, hashes.shape[1], width)

    def put_array(name: bytes, array: NDArray[Any]) -> None:
        layout.checksums[name.hex()] = checksum(array)
        put_plain(name, array)

    def put_plain(name: bytes, array: NDArray[Any]) -> None:
        put(name, array.reshape(-1).view(np.uint8).data if array.size else b"")

    put_plain(HASHES, hashes)
    put_array(TRACKS, np.stack([track_ids, counts, checksums]).astype(np.uint32))
    for band in range(layout.bands):
        table = band_table(hashes, band, width, n_valid)
        put_array(_offsets_name(band), table.offsets)
        put_array(_postings_name(band), table.postings)
    put(RECORD, encode(vars(layout)))


class Memory(Protocol):
    """What a segment's arrays are views of."""

    def array(self, place: Place, dtype: Any) -> NDArray[Any]:
        """Return a value as an array, read-only."""

    def fetch(self, place: Place) -> None:
        """Have a value read from the disk in one go."""


class Stored:
    """A segment in the file: where its values lie, and which tracks it has.

    Parameters
    ----------
    tree : Tree
    segment_id : int
    prefix : bytes
        With which the keys of its values begin.

    Raises
    ------
    DamageError
        If a value is missing or of the wrong size, or the record or the list of tracks is damaged.
    """

    def __init__(self, tree: Tree, segment_id: int, prefix: bytes) -> None:
        self.segment_id = segment_id
        self.places: dict[bytes, Place] = {}
        self._small: dict[bytes, bytes] = {}
        for key, place in tree.places(prefix):
            name = key[len(prefix) :]
            self.places[name] = place
            if not place.is_fixed:
                self._small[name] = tree.read(place)
        record = self.places.get(RECORD)
        if record is None:
            raise DamageError(f"segment {segment_id} has lost its record")
        try:
            self.layout = Layout(**decode(tree.read(record)))
            sizes = self.layout.sizes()
        except (TypeError, ValueError) as error:
            raise DamageError(f"the record of segment {segment_id} cannot be read ({error})") from None
        for name, size in sizes.items():
            found = self.places.get(name)
            if found is None or found.n_bytes != size:
                has = "is missing" if found is None else f"has {found.n_bytes} bytes, not {size}"
                raise DamageError(f"value {name!r} of segment {segment_id} {has}")
        data = np.frombuffer(tree.read(self.places[TRACKS]), np.uint32)
        if not self._is_sound(TRACKS, data):
            raise DamageError(f"the tracks of segment {segment_id} fail their checksum")
        track_ids, counts, self.checksums = data.reshape(TRACK_ROWS, -1)
        self.track_ids = track_ids.astype(np.int64)
        self.starts = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=self.starts[1:])
        if self.starts[-1] != self.layout.n_rows:
            raise DamageError(
                f"segment {segment_id} has {self.layout.n_rows} rows, its tracks {self.starts[-1]}"
            )

    def _array(self, memory: Memory, name: bytes, dtype: Any) -> NDArray[Any]:
        small = self._small.get(name)
        if small is None:
            return memory.array(self.places[name], dtype)
        return frozen(np.frombuffer(small, dtype))

    def _is_sound(self, name: bytes, data: NDArray[Any]) -> bool:
        return checksum(data) == self.layout.checksums.get(name.hex())

    def segment(self, memory: Memory) -> Segment:
        """Return the segment, its hashes and tables views of `memory`."""
        form = self.layout
        return Segment(
            self.segment_id,
            self._array(memory, HASHES, np.uint64).reshape(form.n_rows, form.words),
            self.track_ids,
            self.starts,
            tuple(
                BandTable(
                    band,
                    form.width_bits,
                    band * form.width_bits,
                    self._array(memory, _offsets_name(band), np.uint32),
                    self._array(memory, _postings_name(band), np.uint32),
                )
                for band in range(form.bands)
            ),
            form.n_invalid,
            self.checksums,
        )

    def fetch(self, memory: Memory) -> None:
        """Have the hashes read from the disk in one go."""
        if HASHES not in self._small:
            memory.fetch(self.places[HASHES])

    def problems(self, memory: Memory) -> Iterator[str]:
        """Check every byte: checksums, then whether the tables say what the hashes say."""
        segment = self.segment(memory)
        damaged = False
        for k in range(len(segment.track_ids)):
            try:
                segment.check(k)
            except DamageError as error:
                damaged = True
                yield f"segment {self.segment_id}: {error}"
        for name in self.layout.sizes():
            if name != HASHES and not self._is_sound(name, self._array(memory, name, np.uint8)):
                damaged = True
                yield f"segment {self.segment_id}: value {name!r} fails its checksum"
        if damaged:
            return
        n_valid = count_valid(segment.hashes)
        if n_valid != len(segment) - segment.n_invalid:
            counted = len(segment) - segment.n_invalid
            yield f"segment {self.segment_id}: {n_valid} valid hashes instead of {counted}"
        for table in segment.tables:
            if not check_table(
                segment.hashes, table.first_bit, table.width_bits, table.offsets, table.postings
            ):
                yield f"segment {self.segment_id}: the table of band {table.band} does not fit its hashes"
