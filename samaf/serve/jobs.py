"""Changes of the index: one process writes, and takes one job after the other from a queue.

A worker asks over a socket: a line of JSON there, and lines of JSON back, one for each file of a job as soon as what
became of it is certain to last, and one at the end. The index is open for writing while there is something to write,
and a second longer: `samaf index` can change it, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from samaf.errors import LockedError, MismatchError, SamafError, StoreError
from samaf.ingest import Outcome
from samaf.library import Library
from samaf.serve.engine import warm
from samaf.serve.options import Options

WAITING = 64
"""Jobs that may wait."""
BATCH = 32
"""Files that are added at once, of however many jobs."""
IDLE_S = 1.0
POLL_S = 0.25
NICENESS = 5
"""Adding gives way to searching."""

_ERRORS: dict[str, type[SamafError]] = {
    kind.__name__: kind for kind in (SamafError, StoreError, LockedError, MismatchError)
}
_LINE_BYTES = 1 << 20


class FullError(SamafError):
    """As many jobs wait as may."""


# -- in a worker -------------------------------------------------------------------------------------------------------


class Writer:
    """What a worker has changes made by."""

    def __init__(self, options: Options) -> None:
        self._socket = str(options.writer)

    async def add(self, paths: list[str]) -> AsyncIterator[dict[str, Any]]:
        """Add files; yields what became of each, as `samaf.ingest.Outcome.to_json` tells it.

        Raises
        ------
        FullError, StoreError
        """
        async for line in self._asked({"add": paths}):
            yield line

    async def remove(self, track_id: int) -> bool:
        """Remove a track, and what was uploaded of it; returns whether it was there.

        Raises
        ------
        FullError, StoreError
        """
        return any([line["removed"] async for line in self._asked({"remove": track_id})])

    async def _asked(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LINE_BYTES)
        except OSError as error:
            raise LockedError(f"the index cannot be changed now ({error.strerror}); try again") from None
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            while line := await reader.readline():
                told = json.loads(line)
                if "end" in told:
                    return
                if told.get("full"):
                    raise FullError(f"{WAITING} changes are waiting; try again in some seconds")
                if "error" in told:
                    raise _ERRORS.get(told["error"], SamafError)(told["message"])
                yield told
            raise LockedError("the process that changes the index has ended; try again")
        except ConnectionError:
            raise LockedError("the process that changes the index has ended; try again") from None
        finally:
            writer.close()


# -- in the writer -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Job:
    """What is asked on a connection; its answers go there as long as somebody is there to hear them."""

    connection: socket.socket
    add: list[str] = field(default_factory=list)
    remove: int | None = None

    def tell(self, **line: Any) -> None:
        with suppress(OSError):
            self.connection.sendall(json.dumps(line).encode() + b"\n")

    def end(self, **line: Any) -> None:
        self.tell(**(line or {"end": True}))
        self.connection.close()

    def fail(self, error: SamafError) -> None:
        kind = next(name for name in (one.__name__ for one in type(error).__mro__) if name in _ERRORS)
        self.end(error=kind, message=str(error))


class WriterProcess:
    """Takes jobs, and does them one after the other, until SIGTERM; what has begun is ended."""

    def __init__(self, options: Options, listener: socket.socket) -> None:
        self._options, self._listener = options, listener
        self._jobs: queue.Queue[_Job] = queue.Queue(WAITING)
        self._next: _Job | None = None  # taken from the queue already
        self._library: Library | None = None
        self._last_s = 0.0
        self._is_stopped = False

    def run(self) -> None:
        """Work until the end."""
        with suppress(OSError):
            os.nice(NICENESS)
        signal.signal(signal.SIGTERM, self._stop)
        threading.Thread(target=self._listen, daemon=True).start()
        with suppress(SamafError), Library(self._options.db, model=self._options.model) as library:
            warm(library, self._options.folder)  # else the first job would take seconds
        while not self._is_stopped:
            job = self._taken(POLL_S)
            if job is not None:
                self._do(job)
                self._last_s = time.monotonic()
            elif time.monotonic() > self._last_s + IDLE_S:
                self._close()
        self._close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopped = True

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        connection.settimeout(60.0)
        job = _Job(connection)
        try:
            with connection.makefile("rb") as lines:
                asked = json.loads(lines.readline(_LINE_BYTES))
            job.add, job.remove = asked.get("add", []), asked.get("remove")
            self._jobs.put_nowait(job)
        except queue.Full:
            job.end(full=True)
        except (OSError, ValueError):
            connection.close()  # the worker has gone

    def _taken(self, within_s: float) -> _Job | None:
        job, self._next = self._next, None
        if job is None:
            with suppress(queue.Empty):
                job = self._jobs.get(timeout=within_s) if within_s else self._jobs.get_nowait()
        return job

    def _do(self, job: _Job) -> None:
        """Do a job, together with the additions that wait behind it."""
        jobs = [job]
        try:
            library = self._opened()
            if job.remove is not None:
                job.tell(removed=self._removed(library, job.remove))
            else:
                jobs += self._additions(BATCH - len(job.add))
                self._add(library, jobs)
            for one in jobs:
                one.end()
        except SamafError as error:
            self._close()
            for one in jobs:
                one.fail(error)

    def _additions(self, n_files: int) -> Iterator[_Job]:
        """Additions that wait next, of up to so many files."""
        while n_files > 0 and (job := self._taken(0)) is not None:
            if job.remove is not None or len(job.add) > n_files:
                self._next = job
                return
            n_files -= len(job.add)
            yield job

    def _add(self, library: Library, jobs: list[_Job]) -> None:
        asked: dict[str, list[_Job]] = {}
        for job in jobs:
            for path in job.add:
                asked.setdefault(os.path.abspath(path), []).append(job)

        def outcome(told: Outcome) -> None:
            for job in asked.get(told.path, []):
                job.tell(**told.to_json())

        library.add(list(asked), outcome=outcome, bounds=self._options.bounds.recording)

    def _removed(self, library: Library, track_id: int) -> bool:
        with library.index.snapshot() as snapshot:
            try:
                track = snapshot.track(track_id)
            except KeyError:
                return False
        there = library.index.remove([track_id]) > 0
        for path in (track.path, *(alias.path for alias in track.aliases)):
            folder = os.path.dirname(os.path.normpath(path))
            if os.path.dirname(folder) == os.fspath(self._options.uploads):
                shutil.rmtree(folder, ignore_errors=True)
        return there

    def _opened(self) -> Library:
        if self._library is None:
            self._library = Library(self._options.db, writable=True, model=self._options.model)
        return self._library

    def _close(self) -> None:
        library, self._library = self._library, None
        if library is not None:
            library.close()
