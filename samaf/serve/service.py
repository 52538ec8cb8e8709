"""What the routes do: each request, from what is sent to the answer, by the calls of a library."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from samaf import settings
from samaf.errors import StoreError, shown
from samaf.files import digest, find_files
from samaf.fingerprint import Fingerprint, is_fingerprint_path
from samaf.index import Track
from samaf.ingest import Outcome
from samaf.match import Matches
from samaf.serve import metrics
from samaf.serve.bounds import Slots
from samaf.serve.engine import Engine
from samaf.serve.jobs import BATCH, FullError, Writer
from samaf.serve.options import Options
from samaf.serve.problems import CLOSE, ProblemError, busy, of_error, told_of
from samaf.serve.schemas import NDJSON
from samaf.serve.uploads import Upload, blocks, check_name, received
from samaf.settings import parse_speed
from samaf.untrusted import named, parse_json
from samaf.verdict import Limits

_MOST_PATHS_BYTES = 1 << 20
WATCH_S = 0.5
"""Between two looks at whether a client is still there."""


class SearchOptions(BaseModel):
    """The options of `samaf search`, under the same names."""

    model_config = ConfigDict(extra="forbid")

    min_probability: float = Field(
        settings.MIN_PROBABILITY, description="least probability of a match; 0: always answer"
    )
    prior: float = Field(
        settings.PRIOR, description="chance that the library holds the clip, before the search"
    )
    max_evalue: float | None = Field(
        None, description="largest expected number of matches this good by chance"
    )
    ber: float = Field(settings.BER, description="largest bit error rate of a match")
    top: int = Field(settings.TOP, le=100, description="matches per stretch of the clip")
    speed: str = Field("{:g}:{:g}".format(*settings.SPEED), description="LOW:HIGH, speeds that are tried")
    exhaustive: bool = Field(False, description="compare with every position of the index")
    name: str = Field("clip", max_length=200, description="what the clip is called in the answer")

    def checked(self) -> dict[str, Any]:
        """Arguments of `Library.search`; a `ProblemError` of status 422 if they are out of their ranges."""
        most = settings.MAX_EVALUE if self.max_evalue is None else self.max_evalue
        limits = {"min_probability": self.min_probability, "prior": self.prior, "max_evalue": most}
        limits |= {"ber": self.ber, "top": self.top}
        try:
            Limits(**limits)  # type: ignore[arg-type]
            return {**limits, "exhaustive": self.exhaustive, "speed": parse_speed(self.speed)}
        except ValueError as error:
            raise ProblemError(422, str(error), CLOSE) from None


class Service:
    """What the routes of one worker work with."""

    def __init__(self, options: Options, engine: Engine, worker: int) -> None:
        self.options, self.engine, self.worker = options, engine, worker
        self.slots = Slots(options.slots, options.bounds)
        self.writer = Writer(options)

    async def search(
        self, request: Request, options: SearchOptions, caller: str, *, is_print: bool
    ) -> Response:
        """Receive a clip, search for it, and answer as `samaf search --json` does."""
        limits = options.checked()
        library, bounds = self.engine.library, self.options.bounds
        with self.slots.taken(self.worker, caller):
            async with received(request, self.options.spool, bounds.n_bytes, options.name) as upload:
                began_s = time.perf_counter()
                is_print = is_print or is_fingerprint_path(upload.name)
                with told_of(upload.path, upload.name), _while_there(request) as still:
                    found: Matches = await self.engine.run(
                        lambda: library.search(
                            Fingerprint.load(upload.path) if is_print else upload.path,
                            **limits,
                            bounds=bounds.clip,
                            progress=still,
                        )
                    )
                elapsed_s = round(time.perf_counter() - began_s, 6)
        metrics.SEARCHES.labels("found" if found else "unknown").inc()
        return as_json({"query": upload.name, **found.to_json(), "elapsed_s": elapsed_s})

    async def add(self, request: Request, name: str, caller: str) -> Response:
        """Receive a recording, and have it added."""
        with self.slots.taken(self.worker, caller):
            async with received(request, self.options.spool, self.options.bounds.n_bytes, name) as upload:
                check_name(upload.name)
                content = await self.engine.run(lambda: self._known(upload))
                if isinstance(content, Track):
                    return as_json(Outcome(content.path, "skipped", content.track_id).to_json())
                kept = await self.engine.run(lambda: self._keep(upload, content))
                try:
                    outcome = [line async for line in self._added([os.fspath(kept)])][-1]
                except BaseException:
                    self._drop(kept)
                    raise
        if outcome["status"] == "failed":
            self._drop(kept)
            raise ProblemError(400, f"{shown(upload.name)}: {outcome['reason']}")
        return as_json(outcome, 201 if outcome["status"] in ("added", "updated") else 200)

    def _known(self, upload: Upload) -> Track | str:
        """The track that has the content of an upload already, or else the content's digest."""
        library = self.engine.library
        if is_fingerprint_path(upload.name):
            with told_of(upload.path, upload.name):
                made = Fingerprint.load(upload.path)
                library.index.check_fits(model_id=made.model_id)
                if made.bits < library.index.header.bits:
                    library.index.check_fits(bits=made.bits)
        content = digest(upload.path)
        return library.index.find_digest(content) or content

    def _keep(self, upload: Upload, content: str) -> Path:
        """Move an upload to where it stays."""
        kept = self.options.uploads / content[:32] / upload.name
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(upload.path, kept)
        except OSError as error:
            raise ProblemError(
                503, f"the upload cannot be kept ({error.strerror}); try again later"
            ) from None
        return kept

    def _drop(self, kept: Path) -> None:
        """Delete an upload that is not added after all, unless a track has come of it meanwhile."""
        if self.engine.library.index.find_path(kept) is None:
            kept.unlink(missing_ok=True)
            with suppress(OSError):
                kept.parent.rmdir()

    async def add_paths(self, request: Request, caller: str) -> Response:
        """Have files and folders of this machine added; tells what becomes of each as it is stored."""
        with self.slots.taken(self.worker, caller):
            places = [self._allowed(path) for path in await _asked_paths(request)]
        refused: list[Outcome] = []
        found = await self.engine.run(
            lambda: list(
                find_files(places, lambda path, why: refused.append(Outcome(path, "failed", None, why)))
            )
        )

        async def lines() -> AsyncIterator[bytes]:
            for outcome in refused:
                yield _line(outcome.to_json())
            for at in range(0, len(found), BATCH):
                batch = []
                for path in found[at : at + BATCH]:
                    if self._is_allowed(path):
                        batch.append(path)
                    else:
                        why = "is a link out of the folders that may be added; copy it"
                        yield _line(Outcome(path, "failed", None, why).to_json())
                try:
                    async for line in self._added(batch):
                        yield _line(line)
                except ProblemError as problem:
                    yield _line({"status": "failed", "reason": problem.detail})
                    return

        return StreamingResponse(lines(), media_type=NDJSON)

    async def _added(self, paths: list[str]) -> AsyncIterator[dict[str, Any]]:
        try:
            async for line in self.writer.add(paths):
                yield line
        except FullError as error:
            raise busy(503, str(error), 5) from None
        except StoreError as error:
            raise of_error(error) from None

    def _is_allowed(self, path: str) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(folder) for folder in self.options.allowed)

    def _allowed(self, path: Any) -> str:
        if not isinstance(path, str) or "\0" in path or not os.path.isabs(path):
            raise ProblemError(422, "each of the paths must be absolute, such as /music/song.flac")
        if not self._is_allowed(path):
            raise ProblemError(
                403, "a path is not in a folder that may be added; start the service with --allow FOLDER"
            )
        return path

    async def remove(self, track_id: int, caller: str) -> Response:
        """Have a track removed."""
        with self.slots.taken(self.worker, caller):
            try:
                there = await self.writer.remove(track_id)
            except FullError as error:
                raise busy(503, str(error), 5) from None
        if not there:
            raise _no_track(track_id)
        return Response(status_code=204)

    def track(self, track_id: int) -> Track:
        """One track."""
        with self.engine.library.index.snapshot() as snapshot:
            try:
                return snapshot.track(track_id)
            except KeyError:
                raise _no_track(track_id) from None

    def tracks(self, after: int, limit: int, text: str) -> dict[str, Any]:
        """A page of the tracks, and where the next one begins."""
        words = _plain(text).split()
        page: list[Track] = []
        damaged: list[str] = []
        for track in self.engine.library.index.tracks(lambda error: damaged.append(str(error)), after=after):
            told = _plain(f"{track.title} {track.tags.get('artist', '')} {track.path}")
            if all(word in told for word in words):
                page.append(track)
                if len(page) > limit:
                    break
        following = page[limit - 1].track_id if len(page) > limit else None
        warnings = {"warnings": damaged} if damaged else {}
        return {"tracks": [track.to_json() for track in page[:limit]], "next": following, **warnings}


@contextmanager
def _while_there(request: Request) -> Iterator[Callable[[float, float], None]]:
    """For the `progress` of a search: ends it when nobody waits for the answer any more."""
    has_gone = threading.Event()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(WATCH_S)
        has_gone.set()

    def still(done_s: float, all_s: float) -> None:
        if has_gone.is_set():
            raise ProblemError(400, "the connection was closed before the answer")

    watching = asyncio.create_task(watch())
    try:
        yield still
    finally:
        watching.cancel()


def _plain(text: str) -> str:
    """Text as it is compared: one form of each letter, none of them large."""
    return unicodedata.normalize("NFC", text).casefold()


async def _asked_paths(request: Request) -> list[Any]:
    """The `paths` of a JSON body of up to 1 MiB."""
    body = b"".join([block async for block in blocks(request, _MOST_PATHS_BYTES)])
    try:
        paths = named(parse_json(body), "paths")["paths"]
        if not isinstance(paths, list) or not paths:
            raise ValueError("paths are no list")
    except ValueError as error:
        raise ProblemError(
            422, f'the body is not {{"paths": ["/music", ...]}} ({shown(str(error))[:200]})'
        ) from None
    return paths


def _no_track(track_id: int) -> ProblemError:
    return ProblemError(404, f"there is no track {track_id}; see /v1/tracks")


def as_json(told: dict[str, Any], status: int = 200) -> Response:
    """An answer in JSON; names of files that are no text are escaped."""
    return Response(json.dumps(told, allow_nan=False).encode(), status, media_type="application/json")


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told, allow_nan=False).encode() + b"\n"
