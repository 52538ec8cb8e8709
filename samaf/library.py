"""A library: an index together with the model it was made with. The way to add recordings and to identify clips.

Adding is made for folders of any size and nights without supervision: files are encoded by a few threads ahead of the
index, stored in batches that survive a kill, and what cannot be read is reported and passed over.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from samaf.audio import stream_audio
from samaf.encoder import Encoder
from samaf.errors import AudioError, FingerprintError, MismatchError, ModelError, SamafError, shown
from samaf.features import FRAMES_PER_SECOND
from samaf.files import digest, find_files, read_tags, title_of
from samaf.fingerprint import Fingerprint, is_fingerprint_path
from samaf.index import Index, Track, TrackInfo
from samaf.search import DEFAULT_BER, DEFAULT_MAX_EVALUE, DEFAULT_TOP, Match, Searcher
from samaf.weights import DEFAULT_PATH, QUERY_HOP_S, REFERENCE_HOP_S, Weights

DEFAULT_BITS = 128

BATCH_TRACKS = 32
BATCH_S = 20.0
"""A batch is stored after this many tracks or seconds: what a kill can lose."""

LONGEST_HOP_S = 10.0

StrPath = str | os.PathLike[str]
Status = Literal["added", "updated", "alias", "skipped", "failed"]


def default_db() -> Path:
    """Where the index lies by default: ``$SAMAF_DB``, or ``samaf/index.samaf`` in the user's data folder."""
    named = os.environ.get("SAMAF_DB")
    if named:
        return Path(named)
    home = Path.home()
    if sys.platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return folder / "samaf" / "index.samaf"


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
    """

    path: str
    status: Status
    track_id: int | None = None
    reason: str = ""


@dataclass
class AddReport:
    """What `Library.add` did.

    Attributes
    ----------
    added, updated, aliases, skipped : int
        Files, by what became of them; see `Outcome`.
    failures : list of (path, reason)
    duration_s : float
        Audio added and updated, in seconds.
    """

    added: int = 0
    updated: int = 0
    aliases: int = 0
    skipped: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    duration_s: float = 0.0


class Library:
    """An index and the model that it was made with.

    Parameters
    ----------
    path : path-like, optional
        The index; by default `default_db()`.
    writable : bool
        Open it for adding, and make it if it is missing.
    model : path-like, optional
        Weights file. An existing index finds the model that it was made with by itself, unless the file has moved.
    bits, hop_s : optional
        Shape of a new index (default 128 bits, one hash a second); an existing one keeps its own.

    Attributes
    ----------
    index : Index
    encoder : Encoder

    Raises
    ------
    StoreError
        The index is missing (and not `writable`), damaged, or locked by another writer (`LockedError`).
    MismatchError
        `model`, `bits` or `hop_s` contradict the index.
    ModelError
        The model cannot be found or read, or has no code of that many bits.
    ValueError
        `hop_s` is not a multiple of 0.01 s up to 10 s.

    Examples
    --------
    >>> with Library("music.samaf", writable=True) as library:  # doctest: +SKIP
    ...     library.add(["music/"])
    ...     library.search("clip.wav")[0].title
    'Gymnopédie No. 1'
    """

    def __init__(
        self,
        path: StrPath | None = None,
        *,
        writable: bool = False,
        model: StrPath | None = None,
        bits: int | None = None,
        hop_s: float | None = None,
    ) -> None:
        self.path = default_db() if path is None else Path(path)
        if hop_s is not None:
            check_hop(hop_s)
        if writable and not os.path.lexists(self.path):
            self.encoder = Encoder(model, bits=DEFAULT_BITS if bits is None else bits)
            self.index = self._created(REFERENCE_HOP_S if hop_s is None else hop_s, model)
            return
        self.index = Index.open(self.path, readonly=not writable)
        try:
            self.index.check_fits(bits=bits, hop_s=hop_s)
            self.encoder = _encoder_of(self.index, model)
        except BaseException:
            self.index.close()
            raise

    def _created(self, hop_s: float, model: StrPath | None) -> Index:
        return Index.create(
            self.path,
            model_id=self.encoder.model_id,
            bits=self.encoder.bits,
            hop_s=hop_s,
            query_hop_s=_query_hop(hop_s),
            model_name=self.encoder.path.name,
            model_path="" if model is None else os.path.abspath(model),
        )

    @cached_property
    def searcher(self) -> Searcher:
        """What finds fingerprints in the index."""
        return Searcher(self.index, self.encoder.weights)

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Library {os.fspath(self.path)!r}>"

    def add(
        self,
        paths: Iterable[StrPath] | StrPath,
        *,
        progress: Callable[[int, int, str], None] | None = None,
        outcome: Callable[[Outcome], None] | None = None,
        jobs: int | None = None,
    ) -> AddReport:
        """Add files, folders with all that is in them, and fingerprint files.

        What is there already, with the same size and time, is skipped; a file with content that is there already is
        noted as another path of it; a file that has changed takes its former content's place. Stored batch by batch:
        after a kill, the same call goes on where the last batch ended.

        Parameters
        ----------
        paths
            Files and folders.
        progress
            Called with (files done, files, path of the last one).
        outcome
            Called with each file's `Outcome`, as soon as that is certain to last.
        jobs
            Files encoded at once; by default as many as there are processors.

        Returns
        -------
        AddReport

        Raises
        ------
        StoreError
            The index cannot be written, or the disk is full. What was stored before stays.
        """
        places = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        return _Adding(self, progress, outcome, jobs or os.cpu_count() or 1).run(places)

    def search(
        self,
        clip: StrPath | Fingerprint | NDArray[np.float32],
        *,
        ber: float = DEFAULT_BER,
        max_evalue: float = DEFAULT_MAX_EVALUE,
        top: int = DEFAULT_TOP,
        exhaustive: bool = False,
    ) -> list[Match]:
        """Identify a clip.

        Parameters
        ----------
        clip
            An audio file, a fingerprint or its file, or float32 (n,) samples at 16 kHz.
        ber
            Largest bit error rate of a match.
        max_evalue
            Largest expected number of false matches that good in the whole library; ``inf`` with ``ber=1`` always
            answers.
        top
            Matches per stretch of the clip.
        exhaustive
            Compare with every position instead of probing.

        Returns
        -------
        list of Match
            The best first; empty: unknown.

        Raises
        ------
        AudioError, FingerprintError
            The clip cannot be read, is shorter than 1 s, or has no content.
        MismatchError
            The fingerprint does not fit the index.
        """
        name = shown(clip) if isinstance(clip, (str, os.PathLike)) else "clip"
        print_ = self._query(clip, name)
        if not print_.valid.any():
            raise AudioError(f"{name}: is silent or steady noise throughout; give a clip with content")
        return self.searcher.search(print_, ber=ber, max_evalue=max_evalue, top=top, exhaustive=exhaustive)

    def _query(self, clip: StrPath | Fingerprint | NDArray[np.float32], name: str) -> Fingerprint:
        if isinstance(clip, (str, os.PathLike)):
            if not is_fingerprint_path(clip):
                return self.encoder.encode_stream(
                    stream_audio(clip), hop_s=self.index.header.query_hop_s, confidence=True, name=name
                )
            clip = Fingerprint.load(clip)
        if not isinstance(clip, Fingerprint):
            return self.encoder.encode(clip, hop_s=self.index.header.query_hop_s, confidence=True)
        self.index.check_fits(model_id=clip.model_id)
        return clip.truncated(min(clip.bits, self.index.header.bits))


def check_hop(hop_s: float) -> None:
    """Refuse a hop that the encoder cannot make with a `ValueError`."""
    frames = hop_s * FRAMES_PER_SECOND
    if not (0 < hop_s <= LONGEST_HOP_S and abs(frames - round(frames)) < 1e-6 and round(frames)):
        raise ValueError(f"a hop of {hop_s:g} s: must be a multiple of 0.01 s, up to {LONGEST_HOP_S:g} s")


def _query_hop(hop_s: float) -> float:
    """Query hop for a reference hop: the usual one, or the largest below it that divides the reference hop."""
    frames = round(hop_s * FRAMES_PER_SECOND)
    usual = round(QUERY_HOP_S * FRAMES_PER_SECOND)
    return next(k for k in range(usual, 0, -1) if frames % k == 0) / FRAMES_PER_SECOND


def _encoder_of(index: Index, model: StrPath | None) -> Encoder:
    """The encoder that an index was made with: from the file given, the one noted in it, or the one that ships."""
    header = index.header
    if model is not None:
        encoder = Encoder(model, bits=header.bits)
        index.check_fits(model_id=encoder.model_id)
        return encoder
    noted: list[StrPath] = [header.model_path] if header.model_path else []
    for path in [*noted, DEFAULT_PATH]:
        try:
            encoder = Encoder(path, bits=header.bits)
        except ModelError:
            continue
        if encoder.model_id == header.model_id:
            return encoder
    if header.model_path:
        raise ModelError(
            f"index {shown(index.path)} was made with the model {shown(header.model_path)}, which is not there any "
            "more; say where it is now with --model"
        )
    if not DEFAULT_PATH.exists():
        Weights.load(DEFAULT_PATH)  # says what is wrong with the installation
    raise MismatchError(
        f"index {shown(index.path)} was made with model {header.model_id[:12]}, which is not the one that ships with "
        "this samaf; give its weights with --model, or build the index anew"
    )


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


class _Adding:
    """One call of `Library.add`: the caller's thread digests and stores, others encode a few files ahead of it."""

    def __init__(
        self,
        library: Library,
        progress: Callable[[int, int, str], None] | None,
        outcome: Callable[[Outcome], None] | None,
        jobs: int,
    ) -> None:
        self.library, self.index, self.jobs = library, library.index, jobs
        self.progress = progress or (lambda done, total, path: None)
        self.outcome = outcome or (lambda outcome: None)
        self.report = AddReport()
        self.batch: list[tuple[_File, TrackInfo, Fingerprint]] = []
        self.twins: list[_File] = []
        self.deadline = math.inf
        self.ahead: set[str] = set()  # digests of files that are being encoded or wait in the batch
        self.broken: dict[str, str] = {}  # digests of files that could not be encoded, and why
        self.stopped = threading.Event()

    def run(self, places: list[StrPath]) -> AddReport:
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
                        self._take(*waiting.popleft())
                        self.progress(done, len(paths), path)
                while waiting:
                    done += 1
                    file, future = waiting.popleft()
                    self._take(file, future)
                    self.progress(done, len(paths), file.path)
                self._flush()
            except KeyboardInterrupt:
                self._flush()  # what is encoded already need not be lost
                raise
            finally:
                self.stopped.set()
                for _, future in waiting:
                    if future is not None:
                        future.cancel()
        return self.report

    def _failed(self, path: str, reason: str) -> None:
        self.report.failures.append((path, reason))
        self.outcome(Outcome(path, "failed", None, reason))

    def _prepared(self, path: str) -> _File | None:
        """Look at a file; None if nothing is left to do about it."""
        try:
            status = os.stat(path)
            known = self.index.find_path(path)
            if known is not None and (status.st_size, status.st_mtime_ns) == _noted(known, path):
                self.report.skipped += 1
                self.outcome(Outcome(path, "skipped", known.track_id))
                return None
            if not os.path.isfile(path):
                raise AudioError("is no regular file; name a file of audio")
            file = _File(path, digest(path), status.st_size, status.st_mtime_ns)
        except OSError as error:
            self._failed(
                path, f"cannot be read ({error.strerror or error}); check its permissions and the disk"
            )
            return None
        except AudioError as error:
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
        header = self.index.header
        if is_fingerprint_path(file.path):
            tags: dict[str, str] = {}
            print_ = _fitted(Fingerprint.load(file.path), self.index)
        else:
            tags = read_tags(file.path)
            blocks = self._until_stopped(stream_audio(file.path))
            print_ = self.library.encoder.encode_stream(blocks, hop_s=header.hop_s, name=shown(file.path))
        if not print_.valid.any():
            raise AudioError("is silent or steady noise throughout: there is nothing to find it by")
        status = os.stat(file.path)
        if (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            raise AudioError("changed while it was read; add it again")
        title = title_of(file.path, tags)
        info = TrackInfo(file.path, title, file.digest, file.size_bytes, file.mtime_ns, tags)
        return info, print_

    def _until_stopped(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
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
            self.broken[file.digest] = reason = _reason(error, file.path)
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
            for track_id, (file, _, print_) in zip(ids, batch, strict=True):
                self.ahead.discard(file.digest)
                self.report.duration_s += print_.duration_s
                if file.path in updated:
                    self.report.updated += 1
                else:
                    self.report.added += 1
                self.outcome(Outcome(file.path, "updated" if file.path in updated else "added", track_id))
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
        if former is not None and former.track_id == track.track_id:  # touched, not changed
            self.report.skipped += 1
            self.outcome(Outcome(file.path, "skipped", track.track_id))
        else:
            self.report.aliases += 1
            self.outcome(Outcome(file.path, "alias", track.track_id))


def _noted(track: Track, path: str) -> tuple[int, int]:
    """Size and time that a track notes for one of its files."""
    if path == track.path:
        return track.size_bytes, track.mtime_ns
    return next((alias.size_bytes, alias.mtime_ns) for alias in track.aliases if alias.path == path)


def _fitted(print_: Fingerprint, index: Index) -> Fingerprint:
    """Cut a fingerprint to an index's bits and hop, if it holds enough of both."""
    header = index.header
    index.check_fits(model_id=print_.model_id)
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
