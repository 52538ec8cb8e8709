"""Adding files to an index: for folders of any size, and nights without supervision.

Files are encoded by a few threads ahead of the index and stored in batches that survive a kill; what cannot be read is
reported and passed over. Audio is decoded in child processes, one for each of the threads (`samaf.isolated`).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samaf.encoder import Encoder
from samaf.errors import AudioError, FingerprintError, SamafError, shown
from samaf.files import check_kind, digest, find_files, title_of
from samaf.fingerprint import Fingerprint, is_fingerprint_path
from samaf.index import Index, Track, TrackInfo
from samaf.isolated import AudioBounds, IsolatedStream

BATCH_TRACKS = 32
BATCH_S = 20.0
"""A batch is stored after this many tracks or seconds: what a kill can lose."""

StrPath = str | os.PathLike[str]
Status = Literal["added", "updated", "alias", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes
    ----------
    path : str
        Absolute.
    status
        ``"added"``; ``"updated"``: its earlier content gave way; ``"alias"``: its content is there already, under
        another path; ``"skipped"``: it is there already; ``"failed"``.
    track_id : int or None
    reason : str
        Why it failed, one line.
    warning : str
        What is wrong with a file that is in the index now, one line: less could be read than it says that it holds.
    """

    path: str
    status: Status
    track_id: int | None = None
    reason: str = ""
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict of JSON types; notes only where there are any."""
        notes = {"reason": self.reason, "warning": self.warning}
        told = {name: note for name, note in notes.items() if note}
        return {"path": self.path, "status": self.status, "track_id": self.track_id, **told}


@dataclass
class AddReport:
    """What `Library.add` did.

    Attributes
    ----------
    added, updated, aliases, skipped : int
        Files, by what became of them; see `Outcome`.
    failures : list of (path, reason)
    warnings : list of (path, warning)
    duration_s : float
        Audio added and updated, in seconds.
    """

    added: int = 0
    updated: int = 0
    aliases: int = 0
    skipped: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    duration_s: float = 0.0


class _ChangedError(AudioError):
    """A file is not any more what it was when it was looked at."""


class _StoppedError(Exception):
    """The caller has given up: threads end early."""


@dataclass(frozen=True)
class _File:
    """One file on its way into the index; `twin`: a file before it has the same content."""

    path: str
    digest: str
    size_bytes: int
    mtime_ns: int
    twin: bool = False


class Adding:
    """One call of `Library.add`: the caller's thread digests and stores, others encode a few files ahead of it."""

    def __init__(
        self,
        index: Index,
        encoder: Encoder,
        progress: Callable[[int, int, str], None] | None,
        outcome: Callable[[Outcome], None] | None,
        jobs: int,
        bounds: AudioBounds,
    ) -> None:
        self.index, self.encoder, self.jobs, self.bounds = index, encoder, jobs, bounds
        self.progress = progress or (lambda done, total, path: None)
        self.outcome = outcome or (lambda outcome: None)
        self.report = AddReport()
        self.batch: list[tuple[_File, TrackInfo, Fingerprint]] = []
        self.twins: list[_File] = []
        self.deadline = math.inf
        self.ahead: set[str] = set()  # digests of files that are being encoded or wait in the batch
        self.broken: dict[str, str] = {}  # digests of files that could not be encoded, and why
        self.stopped = threading.Event()
        self.streams: set[IsolatedStream] = set()

    def run(self, places: list[StrPath]) -> AddReport:
        """Add what lies at `places`; see `samaf.library.Library.add`."""
        paths = list(find_files(places, self._failed))
        waiting: deque[tuple[_File, Future[tuple[TrackInfo, Fingerprint]] | None]] = deque()
        done = 0
        with ThreadPoolExecutor(self.jobs, "samaf-encode") as pool:
            try:
                for path in paths:
                    file = self._prepared(path)
                    if file is None:
                        done += 1
                        self.progress(done, len(paths), path)
                        continue
                    waiting.append((file, None if file.twin else pool.submit(self._encoded, file)))
                    if len(waiting) >= 2 * self.jobs:
                        done += 1
                        self._take(*waiting[0])
                        self.progress(done, len(paths), waiting.popleft()[0].path)
                while waiting:
                    done += 1
                    self._take(*waiting[0])
                    self.progress(done, len(paths), waiting.popleft()[0].path)
                self._flush()
                for file in self.twins:
                    self._failed(
                        file.path, "has the content of a file that changed while it was read; add it again"
                    )
            except KeyboardInterrupt:
                self._flush()  # what is encoded already need not be lost
                raise
            finally:
                self.stopped.set()
                for _, future in waiting:
                    if future is not None:
                        future.cancel()
                for stream in list(self.streams):
                    stream.abort()
        return self.report

    def _failed(self, path: str, reason: str) -> None:
        self.report.failures.append((path, reason))
        self.outcome(Outcome(path, "failed", None, reason))

    def _done(self, path: str, status: Status, track_id: int, warning: str = "") -> None:
        if warning:
            self.report.warnings.append((path, warning))
        self.outcome(Outcome(path, status, track_id, warning=warning))

    def _prepared(self, path: str) -> _File | None:
        """Look at a file; None if nothing is left to do about it."""
        try:
            status = os.stat(path)
            known = self.index.find_path(path)
            if known is not None and (status.st_size, status.st_mtime_ns) == _noted(known, path):
                self._replace_gone(known, path)
                self.report.skipped += 1
                self._done(path, "skipped", known.track_id)
                return None
            check_kind(path)
            file = _File(path, digest(path), status.st_size, status.st_mtime_ns)
        except OSError as error:
            self._failed(
                path, f"cannot be read ({error.strerror or error}); check its permissions and the disk"
            )
            return None
        except (AudioError, FingerprintError) as error:
            self._failed(path, str(error))
            return None
        there = self.index.find_digest(file.digest)
        if there is not None:
            self._alias(file, there)
            return None
        if file.digest in self.broken:
            self._failed(path, self.broken[file.digest])
            return None
        if file.digest in self.ahead:
            return replace(file, twin=True)
        self.ahead.add(file.digest)
        return file

    def _encoded(self, file: _File) -> tuple[TrackInfo, Fingerprint]:
        """Fingerprint a file; runs in a thread of the pool."""
        tags: Mapping[str, str] = {}
        warning = ""
        if is_fingerprint_path(file.path):
            print_ = _fitted(Fingerprint.load(file.path), self.index)
        else:
            stream = IsolatedStream(file.path, self.bounds)
            self.streams.add(stream)
            try:
                print_ = self.encoder.encode_stream(
                    self._until_stopped(stream), hop_s=self.index.header.hop_s, name=shown(file.path)
                )
            finally:
                self.streams.discard(stream)
            tags, warning = stream.tags, stream.warning
        if not print_.valid.any():
            raise AudioError("is silent or steady noise throughout: there is nothing to find it by")
        try:
            status = os.stat(file.path)
        except OSError as error:
            raise _ChangedError("was moved or deleted while it was read; add it again") from error
        if (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            raise _ChangedError("changed while it was read; add it again")
        title = title_of(file.path, tags)
        info = TrackInfo(file.path, title, file.digest, file.size_bytes, file.mtime_ns, tags, warning)
        return info, print_

    def _until_stopped(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        for block in blocks:
            if self.stopped.is_set():
                raise _StoppedError
            yield block

    def _take(self, file: _File, future: Future[tuple[TrackInfo, Fingerprint]] | None) -> None:
        """Put a file into the batch, storing the batch when it is time."""
        if future is None:
            self.twins.append(file)
        else:
            self._collect(file, future)
        if len(self.batch) + len(self.twins) >= BATCH_TRACKS or time.monotonic() >= self.deadline:
            self._flush()

    def _collect(self, file: _File, future: Future[tuple[TrackInfo, Fingerprint]]) -> None:
        """Wait for a fingerprint and put it into the batch."""
        while not wait([future], max(0.0, min(self.deadline - time.monotonic(), 1e6))).done:
            self._flush()  # a long file is no reason to leave the short ones before it in danger
        try:
            info, print_ = future.result()
        except Exception as error:
            self.ahead.discard(file.digest)
            reason = _reason(error, file.path)
            if not isinstance(error, _ChangedError):  # else the content itself is sound, under another path
                self.broken[file.digest] = reason
            self._failed(file.path, reason)
        else:
            if not self.batch:
                self.deadline = time.monotonic() + BATCH_S
            self.batch.append((file, info, print_))

    def _flush(self) -> None:
        """Store the batch, then the other paths of what it holds."""
        batch, self.batch, self.deadline = self.batch, [], math.inf
        if batch:
            replacing, updated = [], set()
            for file, _, _ in batch:
                former = self.index.find_path(file.path)
                if former is None:
                    continue
                updated.add(file.path)
                if former.aliases:
                    self.index.drop_path(file.path)  # other files still have the former content
                else:
                    replacing.append(former.track_id)
            ids = self.index.add([(info, print_) for _, info, print_ in batch], replacing=replacing)
            for track_id, (file, info, print_) in zip(ids, batch, strict=True):
                self.ahead.discard(file.digest)
                self.report.duration_s += print_.duration_s
                if file.path in updated:
                    self.report.updated += 1
                else:
                    self.report.added += 1
                self._done(file.path, "updated" if file.path in updated else "added", track_id, info.warning)
        twins, self.twins = self.twins, []
        for file in twins:
            track = self.index.find_digest(file.digest)
            if track is not None:
                self._alias(file, track)
            elif file.digest in self.broken:
                self._failed(file.path, self.broken[file.digest])
            else:
                self.twins.append(file)  # the first of them is still on its way

    def _alias(self, file: _File, track: Track) -> None:
        """Note that a file has the content of a track."""
        former = self.index.find_path(file.path)
        if former is not None and former.track_id != track.track_id:
            self.index.drop_path(file.path)
        self.index.add_alias(track.track_id, file.path, file.size_bytes, file.mtime_ns)
        self._replace_gone(track, file.path)
        if former is not None and former.track_id == track.track_id:  # touched, not changed
            self.report.skipped += 1
            self._done(file.path, "skipped", track.track_id)
        else:
            self.report.aliases += 1
            self._done(file.path, "alias", track.track_id, track.warning)

    def _replace_gone(self, track: Track, path: str) -> None:
        """Forget those files of a track that are gone, now that one of it is known to be there."""
        for other in (*(alias.path for alias in track.aliases), track.path):
            if other != path and _is_gone(other):
                self.index.drop_path(other)


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # out of reach, which may pass
        return False
    return False


def _noted(track: Track, path: str) -> tuple[int, int]:
    """Size and time that a track notes for one of its files."""
    if path == track.path:
        return track.size_bytes, track.mtime_ns
    return next((alias.size_bytes, alias.mtime_ns) for alias in track.aliases if alias.path == path)


def _fitted(print_: Fingerprint, index: Index) -> Fingerprint:
    """Cut a fingerprint to an index's bits and hop, if it holds enough of both."""
    header = index.header
    index.check_fits(model_id=print_.model_id)
    if print_.overhangs:
        raise FingerprintError("was made for searching; encode it again without --confidence")
    if print_.bits < header.bits:
        raise FingerprintError(
            f"has {print_.bits} bits a hash, the index {header.bits}; encode it again with --bits {header.bits}"
        )
    step = round(header.hop_s / print_.hop_s)
    if step < 1 or abs(step * print_.hop_s - header.hop_s) > 1e-6:
        raise FingerprintError(
            f"has a hash every {print_.hop_s:g} s, the index every {header.hop_s:g} s; encode it again with "
            f"--hop {header.hop_s:g}"
        )
    print_ = print_.truncated(header.bits)
    return replace(
        print_, hashes=print_.hashes[::step], valid=print_.valid[::step], hop_s=header.hop_s, confidence=None
    )


def _reason(error: Exception, path: str) -> str:
    """Why a file failed, in one line, without its name."""
    if isinstance(error, SamafError):
        return str(error).removeprefix(f"{shown(path)}: ")
    # A decoder's bug at one file must not end a night's run.
    return shown(f"cannot be encoded ({type(error).__name__}: {error}); leave it out, or convert it to WAV")
