"""The records of the tracks, and how they are found by path or content.

Records lie in pages of up to 256 in order of their ids, deflated together: paths and tags of one folder
resemble each other, so that a track costs about a third of what it would alone. A page's key is at most its
first id.
"""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from samaf.index.codec import DamageError, decode, encode
from samaf.index.pages import Source, Tree
from samaf.index.segment import MAX_ROWS
from samaf.untrusted import check_json, number, text, whole

if TYPE_CHECKING:
    from samaf.index.environment import Transaction

PAGE_TRACKS = 256

PATH, DIGEST = b"p", b"d"

_PAGES, _LOOKUPS = b"t", b"l"  # first bytes of the keys
FIRST_PAGE = _PAGES

_LONGEST, _LONGEST_DIGEST = 4096, 256
_MOST_SECONDS = 1e9


@dataclass(frozen=True)
class TrackInfo:
    """What the index is told about a recording besides its fingerprint.

    Attributes
    ----------
    path : str
        File the recording came from; made absolute.
    title : str
        Default: the file's name without its suffix.
    digest : str
        Of the content, in whatever form the caller compares; "" for unknown.
    size_bytes, mtime_ns : int
        Of the file, to tell later whether it has changed.
    tags : mapping of str to JSON values
    warning : str
        What is wrong with the file, "" for nothing.
    """

    path: str
    title: str = ""
    digest: str = ""
    size_bytes: int = 0
    mtime_ns: int = 0
    tags: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""


class Alias(NamedTuple):
    """Another file with the content of a track."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Track:
    """One recording of the index; `added` is in seconds since 1970, ids are never used twice.

    Records may have been made by anybody (see `transfer`). What `to_record` gives and `from_record` takes has ids of 32
    bits; paths, titles and warnings of up to 4,096 characters and digests of up to 256, all such as a file name can
    have; up to 2^26 hashes, and a billion seconds; sizes of up to 63 bits and times of up to 70; tags that are JSON.
    """

    track_id: int
    path: str
    title: str
    duration_s: float
    n_hashes: int
    digest: str = ""
    size_bytes: int = 0
    mtime_ns: int = 0
    aliases: tuple[Alias, ...] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)
    added: float = 0.0
    warning: str = ""

    @classmethod
    def new(cls, track_id: int, info: TrackInfo, duration_s: float, n_hashes: int, added: float) -> Track:
        """Join what the caller says about a recording with what its fingerprint says."""
        path = os.path.abspath(info.path)
        return cls(
            track_id=track_id,
            path=path,
            title=info.title or PurePath(path).stem,
            duration_s=round(float(duration_s), 7),  # whole samples at 16 kHz are multiples of 0.0000625 s
            n_hashes=n_hashes,
            digest=info.digest,
            size_bytes=info.size_bytes,
            mtime_ns=info.mtime_ns,
            tags=dict(info.tags),
            added=round(added, 3),
            warning=info.warning,
        )

    def to_record(self) -> list[Any]:
        """Return the track as a JSON list, without the names that would be stored with each.

        Raises
        ------
        ValueError
            No track is like that.
        """
        self._check()
        title = None if self.title == PurePath(self.path).stem else self.title
        record: list[Any] = [self.track_id, self.path, title, self.duration_s, self.n_hashes, self.digest]
        record += [self.size_bytes, self.mtime_ns, self.added]
        if self.aliases or self.tags or self.warning:
            record += [self.aliases, self.tags]
        if self.warning:
            record.append(self.warning)
        return record

    @classmethod
    def from_record(cls, record: Any) -> Track:
        """Undo `to_record`.

        Raises
        ------
        DamageError
            No track is like that.
        """
        try:
            track_id, path, title, duration_s, n_hashes, digest, size_bytes, mtime_ns, added, *rest = record
            aliases, tags, *more = rest or ((), {})
            (warning,) = more or ("",)
            track = cls(
                track_id,
                path,
                PurePath(text("path", path, _LONGEST)).stem if title is None else title,
                duration_s,
                n_hashes,
                digest,
                size_bytes,
                mtime_ns,
                tuple(Alias(*alias) for alias in aliases),
                tags,
                added,
                warning,
            )
            track._check()
            return track
        except (TypeError, ValueError) as error:
            which = reprlib.repr(record[0]) if isinstance(record, list) and record else "?"
            reason = "its parts are of other kinds" if isinstance(error, TypeError) else error
            raise DamageError(f"the record of track {which} cannot be right: {reason}") from None

    def _check(self) -> None:
        """Refuse, with a `ValueError`, what no track is like."""
        whole("its number", self.track_id, 0, (1 << 32) - 1)
        for file in (Alias(self.path, self.size_bytes, self.mtime_ns), *self.aliases):
            text("path", file.path, _LONGEST)
            whole("size_bytes", file.size_bytes, 0, (1 << 63) - 1)
            whole("mtime_ns", file.mtime_ns, -(1 << 70), 1 << 70)
        text("title", self.title, _LONGEST)
        text("warning", self.warning, _LONGEST)
        number("duration_s", self.duration_s, 0.0, _MOST_SECONDS)
        whole("n_hashes", self.n_hashes, 0, MAX_ROWS)
        text("digest", self.digest, _LONGEST_DIGEST)
        number("added", self.added, 0.0, 1e12)
        if not isinstance(self.tags, Mapping):
            raise ValueError(f"tags are {reprlib.repr(self.tags)}, no JSON object")
        if self.tags:
            check_json(dict(self.tags))

    def to_json(self) -> dict[str, Any]:
        """What is told of a track, as a dict of JSON types; `warning` only where there is one."""
        warning = {"warning": self.warning} if self.warning else {}
        return {
            "track_id": self.track_id,
            "path": self.path,
            "title": self.title,
            "duration_s": self.duration_s,
            "n_hashes": self.n_hashes,
            "digest": self.digest,
            "size_bytes": self.size_bytes,
            "aliases": [alias.path for alias in self.aliases],
            "tags": dict(self.tags),
            "added": self.added,
            **warning,
        }

    def links(self) -> Iterator[tuple[bytes, str]]:
        """Yield all that the track can be found by."""
        yield PATH, self.path
        for alias in self.aliases:
            yield PATH, alias.path
        if self.digest:
            yield DIGEST, self.digest


def page_key(track_id: int) -> bytes:
    """Key under which a page that begins with this track is stored."""
    return _PAGES + track_id.to_bytes(8, "big")


def link_key(kind: bytes, text: str) -> bytes:
    """Key under which a path or digest is looked up; several texts may share one."""
    return _LOOKUPS + kind + hashlib.blake2b(os.fsencode(text), digest_size=6).digest()


def _page_of(source: Source, track_id: int) -> tuple[bytes, list[list[Any]]] | None:
    """Key and records of the page that would hold a track."""
    if not 0 < track_id < 1 << 63:
        return None
    found = source.before(page_key(track_id))
    if found is None or not found[0].startswith(_PAGES):
        return None
    return found[0], decode(found[1])


def key_ahead_of(source: Source, track_id: int) -> bytes:
    """Key behind which `pages` begins with the page that would hold a track."""
    found = source.before(page_key(track_id)) if 0 < track_id < 1 << 63 else None
    if found is None or not found[0].startswith(_PAGES):
        return FIRST_PAGE
    return page_key(max(0, int.from_bytes(found[0][len(_PAGES) :], "big") - 1))


def pages(
    source: Source, after: bytes = FIRST_PAGE, damaged: Callable[[DamageError], None] | None = None
) -> Iterator[tuple[bytes, list[Track]]]:
    """Yield key and tracks of all pages behind the key `after`, in order of ids.

    Records that cannot be right are told to `damaged` and passed over; without it, the error is raised.
    """
    for key, value in source.items(after + b"\0"):
        if not key.startswith(_PAGES):
            return
        found = []
        for record in decode(value):
            try:
                found.append(Track.from_record(record))
            except DamageError as error:
                if damaged is None:
                    raise
                damaged(error)
        yield key, found


def get(source: Source, track_id: int) -> Track | None:
    """Return one track, None if there is no such track (any more)."""
    page = _page_of(source, track_id)
    for record in page[1] if page else ():
        if record[0] == track_id:
            return Track.from_record(record)
    return None


def find(source: Source, kind: bytes, text: str) -> Track | None:
    """Return the track of a path or digest, the latest if there are several."""
    for track_id in reversed(_linked(source.get(link_key(kind, text)))):
        track = get(source, track_id)
        if track is not None and (kind, text) in track.links():
            return track
    return None


def append(txn: Transaction, tracks: Sequence[Track]) -> None:
    """Store new tracks, whose ids must be above all others and ascend."""
    if not tracks:
        return
    records = [track.to_record() for track in tracks]
    key = page_key(tracks[0].track_id)
    last = _page_of(txn, tracks[0].track_id)
    if last is not None and len(last[1]) < PAGE_TRACKS:
        key, records = last[0], last[1] + records
    for start in range(0, len(records), PAGE_TRACKS):
        page = records[start : start + PAGE_TRACKS]
        txn.put(page_key(page[0][0]) if start else key, encode(page))
    for track in tracks:
        link(txn, track.track_id, track.links())


def put(txn: Transaction, track_id: int, track: Track | None) -> Track:
    """Put `track` in the place of the one with this id, or take that one out; returns the former one.

    Raises
    ------
    KeyError
        If there is no such track.
    """
    page = _page_of(txn, track_id)
    position = next((i for i, record in enumerate(page[1]) if record[0] == track_id), None) if page else None
    if page is None or position is None:
        raise KeyError(track_id)
    key, records = page
    former = Track.from_record(records[position])
    records[position : position + 1] = [] if track is None else [track.to_record()]
    if records:
        txn.put(key, encode(records))
    else:
        txn.delete(key)
    unlink(txn, track_id, former.links())
    if track is not None:
        link(txn, track_id, track.links())
    return former


def with_alias(track: Track, alias: Alias) -> Track:
    """Return the track with one more file of its content, in place of an older record of that file."""
    if alias.path == track.path:
        return replace(track, size_bytes=alias.size_bytes, mtime_ns=alias.mtime_ns)
    kept = tuple(other for other in track.aliases if other.path != alias.path)
    return replace(track, aliases=(*kept, alias))


def without_path(track: Track, path: str) -> Track | None:
    """Return the track without one of its files, None if that was the only one."""
    if path != track.path:
        return replace(track, aliases=tuple(alias for alias in track.aliases if alias.path != path))
    if not track.aliases:
        return None
    heir, *others = track.aliases
    title = "" if track.title == PurePath(path).stem else track.title
    return replace(
        track,
        path=heir.path,
        title=title or PurePath(heir.path).stem,
        size_bytes=heir.size_bytes,
        mtime_ns=heir.mtime_ns,
        aliases=tuple(others),
    )


def _linked(value: bytes | None) -> list[int]:
    data = value or b""
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


def _packed(track_ids: Iterable[int]) -> bytes:
    return b"".join(track_id.to_bytes(4, "little") for track_id in track_ids)


def _put_links(txn: Transaction, key: bytes, track_ids: Iterable[int]) -> None:
    value = _packed(track_ids)
    if value:
        txn.put(key, value)
    else:
        txn.delete(key)


def link(txn: Transaction, track_id: int, links: Iterable[tuple[bytes, str]]) -> None:
    """Let a track be found by paths and digest."""
    for key in {link_key(*way) for way in links}:
        known = _linked(txn.get(key))
        if track_id not in known:
            _put_links(txn, key, [*known, track_id])


def unlink(txn: Transaction, track_id: int, links: Iterable[tuple[bytes, str]]) -> None:
    """Undo `link`."""
    for key in {link_key(*way) for way in links}:
        known = _linked(txn.get(key))
        if track_id in known:
            _put_links(txn, key, [other for other in known if other != track_id])


def all_links(source: Source) -> Iterator[tuple[bytes, list[int]]]:
    """Yield every lookup key with the tracks behind it, in order of keys."""
    for key, value in source.items(_LOOKUPS):
        if not key.startswith(_LOOKUPS):
            return
        yield key, _linked(value)


def copy_links(tree: Tree, out: Transaction) -> None:
    """Copy all lookups into an empty database, so that its pages are filled to the brim."""
    for key, track_ids in all_links(tree):
        out.put(key, _packed(track_ids), last=True)


def copy_pages(tree: Tree, out: Transaction) -> None:
    """Copy all tracks into another database, in full pages."""
    waiting: list[list[Any]] = []

    def flush() -> None:
        page = waiting[:PAGE_TRACKS]
        del waiting[:PAGE_TRACKS]
        out.put(page_key(page[0][0]), encode(page))

    for _, found in pages(tree):
        waiting += [track.to_record() for track in found]
        if len(waiting) >= PAGE_TRACKS:
            flush()
    if waiting:
        flush()
