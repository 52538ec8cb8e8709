"""An index as one portable file, and back.

Layout, integers little-endian: magic, uint32 format, uint64 length and JSON header, uint64 length and
deflated JSON list of the tracks' records, the hashes of these tracks one after the other as uint64, and the
CRC-32 of it all.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from samaf.errors import MismatchError, StoreError, shown
from samaf.index import tracks
from samaf.index.change import ingest
from samaf.index.codec import DamageError
from samaf.index.environment import explaining
from samaf.index.snapshot import Snapshot
from samaf.index.tracks import Track

if TYPE_CHECKING:
    from samaf.index.store import Index

MAGIC = b"SAMAFIDX"
FORMAT_VERSION = 1

_HEAD = struct.Struct("<8sI")
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_BLOCK_BYTES = 1 << 22
_SEGMENT_ROWS = 1 << 22


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
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise StoreError(f"{shown(path)} is a directory; name a file to export to")
    temporary = target + ".part"
    try:
        try:
            with open(temporary, "wb") as file:
                _write(snapshot, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise StoreError(
            f"{shown(path)} cannot be written: {error.strerror}; free some space or name another file"
        ) from None


def _write(snapshot: Snapshot, file: BinaryIO) -> None:
    out = _Summed(file)
    with explaining(snapshot.env.name):
        found = [track for _, page in tracks.pages(snapshot.txn) for track in page]
    header = json.dumps(asdict(snapshot.header)).encode()
    records = zlib.compress(
        json.dumps([track.to_record() for track in found], separators=(",", ":")).encode()
    )
    out.write(_HEAD.pack(MAGIC, FORMAT_VERSION))
    for block in (header, records):
        out.write(_LENGTH.pack(len(block)))
        out.write(block)
    rows = {
        track_id: part.hashes[part.starts[k] : part.starts[k + 1]]
        for part in snapshot.segments
        for k, track_id in enumerate(part.track_ids.tolist())
    }
    for track in found:
        out.write(rows[track.track_id].astype("<u8", copy=False).tobytes())
    file.write(_CHECKSUM.pack(out.checksum))


def import_from(index: Index, path: str | os.PathLike[str]) -> ImportReport:
    """Store the tracks of an exported file; see `Index.import_from`."""
    name = shown(path)
    try:
        with open(path, "rb") as file:
            return _import(index, file, name)
    except DamageError as error:
        raise StoreError(f"{name} is damaged ({error}); export it anew") from None
    except OSError as error:
        raise StoreError(
            f"{name} cannot be read: {error.strerror}; name a file of 'samaf index export'"
        ) from None


def _import(index: Index, file: BinaryIO, name: str) -> ImportReport:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        raise StoreError(f"{name} is not an exported index; name a file of 'samaf index export'")
    version = _HEAD.unpack(head)[1]
    if version != FORMAT_VERSION:
        raise MismatchError(
            f"{name} has format {version}, this samaf reads {FORMAT_VERSION}; export it with the same samaf"
        )
    size = os.fstat(file.fileno()).st_size - _CHECKSUM.size
    _check_sum(file, size)
    file.seek(_HEAD.size)
    try:
        header = json.loads(_block(file, size))
        index.check_fits(model_id=header["model_id"], bits=header["bits"], hop_s=header["hop_s"])
        found = [Track.from_record(record) for record in json.loads(zlib.decompress(_block(file, size)))]
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise DamageError(f"its head cannot be read: {error}") from None
    row_bytes = 8 * index.header.words
    if file.tell() + row_bytes * sum(track.n_hashes for track in found) != size:
        raise DamageError("its size does not fit its tracks")
    known = {track.track_id for track in found if index.find_digest(track.digest)}
    with index.changing() as (snapshot, change):
        added = ingest(snapshot, change, _batches(file, found, known, index.header.words))
    return ImportReport(tuple(added), len(known))


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


def _block(file: BinaryIO, size: int) -> bytes:
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\xff"))
    if file.tell() + length > size:
        raise DamageError("it is cut short")
    return file.read(length)


def _batches(
    file: BinaryIO, found: list[Track], known: set[int], words: int
) -> Iterator[list[tuple[Track, NDArray[np.uint64]]]]:
    """Read hashes in runs of one segment each, passing over the known tracks."""
    batch: list[tuple[Track, NDArray[np.uint64]]] = []
    rows = 0
    for track in found:
        data: Any = file.read(8 * words * track.n_hashes)
        if track.track_id in known:
            continue
        batch.append((track, np.frombuffer(data, "<u8").astype(np.uint64, copy=False).reshape(-1, words)))
        rows += track.n_hashes
        if rows >= _SEGMENT_ROWS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch
