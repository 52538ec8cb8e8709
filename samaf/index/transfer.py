"""An index as one portable file, and back.

Layout, integers little-endian: magic, uint32 format, uint64 length and JSON header, uint64 length and
deflated JSON list of the tracks' records, the hashes of these tracks one after the other as uint64, and the
CRC-32 of it all.

A file may come from anybody, so that nothing of it is stored before all of it is known to be sound: the checksum fits;
the header has at most 64 KiB, and is as `IndexHeader` says; the records inflate to at most 16 MiB, or eight times the
file, are as `Track` says, and have ascending ids; their hashes fill the file to the byte. Hashes are read a segment at
a time.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from samaf.atomic import atomic_write
from samaf.errors import MismatchError, StoreError, shown
from samaf.formats import EXPORT_MAGIC
from samaf.index import tracks
from samaf.index.codec import DamageError
from samaf.index.explain import explaining
from samaf.index.snapshot import Snapshot
from samaf.index.state import IndexHeader
from samaf.index.tracks import Track
from samaf.untrusted import opened, parse_json, parse_json_list

FORMAT_VERSION = 1

_HEAD = struct.Struct("<8sI")
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_BLOCK_BYTES = 1 << 22
_SEGMENT_ROWS = 1 << 22
_MOST_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class ImportReport:
    """Ids of the tracks that came in, and how many were there already."""

    added: tuple[int, ...]
    n_skipped: int


class _Summed:
    """A file to write to, with the checksum of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = 0

    def write(self, data: bytes | memoryview) -> None:
        self.checksum = zlib.crc32(data, self.checksum)
        self._file.write(data)


def export_to(snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
    """Write a snapshot to a file, which appears when it is complete; see `Index.export_to`."""
    try:
        with atomic_write(path) as file:
            _write(snapshot, file)
    except OSError as error:
        raise StoreError(
            f"{shown(path)} cannot be written: {error.strerror}; free some space or name another file"
        ) from None


def _write(snapshot: Snapshot, file: BinaryIO) -> None:
    out = _Summed(file)
    with explaining(snapshot.path):
        found = [track for _, page in tracks.pages(snapshot.tree) for track in page]
    header = json.dumps(asdict(snapshot.header)).encode()
    listed = json.dumps([track.to_record() for track in found], separators=(",", ":")).encode()
    records = zlib.compress(listed)
    size = len(header) + len(records) + 8 * snapshot.header.words * sum(track.n_hashes for track in found)
    if len(listed) > _most_inflated(size):
        raise StoreError(
            f"index {shown(snapshot.path)} has too much text in its tags for a portable file; copy the index itself"
        )
    out.write(_HEAD.pack(EXPORT_MAGIC, FORMAT_VERSION))
    for block in (header, records):
        out.write(_LENGTH.pack(len(block)))
        out.write(block)
    lies = {
        track_id: (part, k)
        for part in snapshot.segments
        for k, track_id in enumerate(part.track_ids.tolist())
    }
    for track in found:
        part, k = lies[track.track_id]
        snapshot.check(part, k)
        rows = part.hashes[part.starts[k] : part.starts[k + 1]]
        out.write(rows.astype("<u8", copy=False).tobytes())
    file.write(_CHECKSUM.pack(out.checksum))


def _most_inflated(size: int) -> int:
    """Bytes that the records in a file of some size may have."""
    return max(1 << 24, 8 * size)


class Exported:
    """The tracks of an exported file, which has been checked from end to end.

    Attributes
    ----------
    header : IndexHeader
        Of the index that was exported.
    tracks : list of Track
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(EXPORT_MAGIC):
            raise StoreError(f"{name} is not an exported index; name a file of 'samaf index export'")
        version = _HEAD.unpack(head)[1]
        if version != FORMAT_VERSION:
            raise MismatchError(
                f"{name} has format {version}, this samaf reads {FORMAT_VERSION}; export it with the same samaf"
            )
        size -= _CHECKSUM.size
        _check_sum(file, size)
        file.seek(_HEAD.size)
        try:
            self.header = IndexHeader.from_record(parse_json(_block(file, size, _MOST_HEADER_BYTES)))
            records = _inflated(_block(file, size, size), _most_inflated(size))
            self.tracks = [Track.from_record(record) for record in parse_json_list(records)]
        except (ValueError, zlib.error) as error:
            raise DamageError(f"its head cannot be read: {error}") from None
        ids = [0, *(track.track_id for track in self.tracks)]
        if any(former >= track_id for former, track_id in pairwise(ids)):
            raise DamageError("its tracks are out of order")
        self._file, self._row_bytes = file, 8 * self.header.words
        if file.tell() + self._row_bytes * sum(track.n_hashes for track in self.tracks) != size:
            raise DamageError("its size does not fit its tracks")

    def batches(self, known: Collection[int]) -> Iterator[list[tuple[Track, NDArray[np.uint64]]]]:
        """Read hashes, once, in runs of one segment each, passing over the known tracks."""
        batch: list[tuple[Track, NDArray[np.uint64]]] = []
        rows = 0
        for track in self.tracks:
            if track.track_id in known:
                self._file.seek(self._row_bytes * track.n_hashes, os.SEEK_CUR)
                continue
            data = self._file.read(self._row_bytes * track.n_hashes)
            if len(data) != self._row_bytes * track.n_hashes:
                raise DamageError("it was cut short while it was read")
            hashes = np.frombuffer(data, "<u8").astype(np.uint64, copy=False).reshape(-1, self.header.words)
            batch.append((track, hashes))
            rows += track.n_hashes
            if rows >= _SEGMENT_ROWS:
                yield batch
                batch, rows = [], 0
        if batch:
            yield batch


@contextmanager
def exported(path: str | os.PathLike[str]) -> Iterator[Exported]:
    """Open an exported file.

    Raises
    ------
    StoreError
        If it cannot be read, is damaged, or is no exported index.
    """
    name = shown(path)
    try:
        with opened(path) as (file, size):
            yield Exported(file, size, name)
    except DamageError as error:
        raise StoreError(f"{name} is damaged ({error}); export it anew") from None
    except OSError as error:
        raise StoreError(
            f"{name} cannot be read: {error.strerror}; name a file of 'samaf index export'"
        ) from None


def _check_sum(file: BinaryIO, size: int) -> None:
    file.seek(0)
    checksum, left = 0, size
    while left > 0:
        block = file.read(min(_BLOCK_BYTES, left))
        if not block:
            break
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    if left or file.read(_CHECKSUM.size) != _CHECKSUM.pack(checksum):
        raise DamageError("its checksum does not fit")


def _block(file: BinaryIO, size: int, most: int) -> bytes:
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\xff"))
    if file.tell() + length > size or length > most:
        raise DamageError("it is cut short")
    return file.read(length)


def _inflated(data: bytes, most: int) -> bytes:
    """Inflate data, if it has no more than so many bytes then."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, most)
    if not inflater.eof or inflater.unused_data:
        raise ValueError(f"the records are cut short, or more than {most} bytes")
    return text
