"""Clients of a service (`samaf serve`), with the answers of a `Library`; they need httpx, of the extra `serve`.

Fingerprints are made here, so that no audio leaves this machine, unless `upload` asks for it. A clip that was played at
another speed is told as well as hashes bear it, some 3 %: other speeds are tried on audio alone.

What is asked and what is made of the answers is the same for both clients, and stands in `_Calls`; a call there is a
generator that yields what is to be done, `_Send` or seconds to wait, and gets the answers.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast

from samaf.errors import AudioError, MismatchError, SamafError, ServiceError, shown
from samaf.fingerprint import Fingerprint, is_fingerprint_path
from samaf.match import Matches
from samaf.settings import check_speed
from samaf.untrusted import named, number, opened, parse_json, text, whole, why

if TYPE_CHECKING:
    import httpx

    from samaf.encoder import Encoder

TIMEOUT_S = 60.0
RETRIES = 5
LONGEST_WAIT_S = 30.0
_MOST_BYTES = 1 << 26
_PAGE = 1000

StrPath = str | os.PathLike[str]
T = TypeVar("T")


class SearchOptions(TypedDict, total=False):
    """The options of `samaf.Library.search` that a service takes; what is left out is as the service has it."""

    min_probability: float
    prior: float
    max_evalue: float
    ber: float
    top: int
    exhaustive: bool
    speed: tuple[float, float]


@dataclass(frozen=True)
class _Send:
    """A request; a file goes along under its name."""

    method: str
    path: str
    query: dict[str, Any] | None = None
    content: bytes | None = None
    file: StrPath | None = None
    name: str = ""
    takes_long: bool = False


@dataclass(frozen=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes


Call = Generator[_Send | float, Any, T]


class _Calls:
    """What can be asked of a service, whatever sends it."""

    def __init__(self, url: str, model: StrPath | None, upload: bool, retries: int) -> None:
        self.url, self.retries = url.rstrip("/"), retries
        self._model, self._upload = model, upload
        self._encoder: Encoder | None = None
        self._hop_s = 0.0

    def search(self, clip: StrPath | Fingerprint, options: SearchOptions) -> Call[Matches]:
        """See `Client.search`."""
        unknown = sorted(set(options) - set(SearchOptions.__annotations__))
        if unknown:
            raise TypeError(f"search has no option {unknown[0]!r}")
        query: dict[str, Any] = dict(options)
        if "speed" in options:
            check_speed(*options["speed"])
            query["speed"] = "{!r}:{!r}".format(*options["speed"])
        name = "clip" if isinstance(clip, Fingerprint) else Path(clip).name
        if self._upload and not isinstance(clip, Fingerprint) and not is_fingerprint_path(clip):
            told = yield from self._asked(_Send("POST", "/v1/search", query, file=clip, name=name))
        else:
            content = (yield from self._print(clip, is_query=True)).to_bytes()
            query["name"] = name[:200]
            told = yield from self._asked(_Send("POST", "/v1/search/fingerprint", query, content))
        try:
            return Matches.from_json(told)
        except ValueError as error:
            raise self._strange(error) from None

    def add(self, recording: StrPath) -> Call[dict[str, Any]]:
        """See `Client.add`."""
        name = Path(recording).name
        if self._upload or is_fingerprint_path(recording):
            told = yield from self._asked(
                _Send("POST", "/v1/tracks", file=recording, name=name, takes_long=True)
            )
        else:
            content = (yield from self._print(recording, is_query=False)).to_bytes()
            query = {"name": f"{Path(recording).stem}.samaf"}
            told = yield from self._asked(_Send("POST", "/v1/tracks", query, content, takes_long=True))
        return told

    def remove(self, track_id: int) -> Call[None]:
        """See `Client.remove`."""
        yield from self._asked(_Send("DELETE", f"/v1/tracks/{track_id:d}"))

    def track(self, track_id: int) -> Call[dict[str, Any]]:
        """See `Client.track`."""
        return (yield from self._asked(_Send("GET", f"/v1/tracks/{track_id:d}")))

    def page(self, after: int, words: str) -> Call[tuple[list[dict[str, Any]], int | None]]:
        """Tracks behind one, and behind which the next page begins."""
        told = yield from self._asked(
            _Send("GET", "/v1/tracks", {"after": after, "limit": _PAGE, "text": words})
        )
        try:
            found, following = named(told, "tracks", "next")["tracks"], told["next"]
            if not isinstance(found, list):
                raise ValueError("tracks are no list")
            if following is not None:
                whole("next", following, after + 1, (1 << 63) - 1)
        except ValueError as error:
            raise self._strange(error) from None
        return found, following

    def stats(self) -> Call[dict[str, Any]]:
        """See `Client.stats`."""
        return (yield from self._asked(_Send("GET", "/v1/stats")))

    def _print(self, audio: StrPath | Fingerprint, *, is_query: bool) -> Call[Fingerprint]:
        """A fingerprint that fits the service's index."""
        if isinstance(audio, Fingerprint):
            return audio
        if is_fingerprint_path(audio):
            return Fingerprint.load(audio)
        if self._encoder is None:
            told = yield from self.stats()
            self._encoder = self._fitting(told)
        if is_query:
            return self._encoder.encode_query(audio)
        return self._encoder.encode(audio, hop_s=self._hop_s)

    def _fitting(self, told: Any) -> Encoder:
        """The encoder that the service's index was made with."""
        from samaf.encoder import Encoder

        try:
            header = named(
                named(told, "header")["header"], "model_id", "model_name", "bits", "hop_s", "query_hop_s"
            )
            bits = whole("bits", header["bits"], 64, 256)
            hop_s = number("query_hop_s", header["query_hop_s"], 0.01, 10.0)
            self._hop_s = number("hop_s", header["hop_s"], 0.01, 10.0)
            model_id = text("model_id", header["model_id"], 64)
            model_name = text("model_name", header["model_name"], 4096)
        except ValueError as error:
            raise self._strange(error) from None
        encoder = Encoder(self._model, bits=bits, query_hop_s=hop_s)
        if encoder.model_id != model_id:
            raise MismatchError(
                f"{self.url}: its index was made with model {shown(model_name or model_id[:12])}, not "
                f"{encoder.model_id[:12]}; name that model's file, or upload audio (upload=True)"
            )
        return encoder

    def _asked(self, request: _Send) -> Call[Any]:
        """The JSON of an answer; tried again after 429 and 503."""
        for tried in range(self.retries + 1):
            answer: _Answer = yield request
            if answer.status not in (429, 503) or tried == self.retries:
                break
            yield self._pause_s(answer.retry_after, tried)
        if answer.status == 204:
            return None
        try:
            told = parse_json(answer.body)
        except ValueError as error:
            if answer.status < 400:
                raise self._strange(error) from None
            told = None
        if answer.status < 400:
            return told
        detail = told.get("detail") if isinstance(told, dict) else None
        reason = (
            shown(detail)[:1000] if isinstance(detail, str) else f"it answers with status {answer.status}"
        )
        raise ServiceError(f"{self.url}: {reason}", answer.status)

    @staticmethod
    def _pause_s(asked: str, tried: int) -> float:
        """Seconds to wait: as many as the service asks for, or ever more, and not all clients the same."""
        seconds = float(asked) if asked.isdecimal() and len(asked) < 6 else 0.5 * 2.0**tried
        return min(LONGEST_WAIT_S, seconds * random.uniform(1.0, 1.25))

    def _strange(self, error: ValueError) -> ServiceError:
        return ServiceError(
            f"{self.url}: its answer is none of samaf's ({shown(str(error))}); check the address"
        )


def _httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError:
        raise SamafError("a client needs httpx; install it with: pip install 'samaf[serve]'") from None
    return httpx


def _settings(url: str, token: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"User-Agent": "samaf"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


@contextmanager
def _arguments(request: _Send, timeout_s: float) -> Iterator[dict[str, Any]]:
    """What httpx takes, with the file opened."""
    made: dict[str, Any] = {"method": request.method, "url": request.path, "params": request.query}
    if request.takes_long:  # others may be before it, and it may have to be decoded: the answer is waited for
        made["timeout"] = _httpx().Timeout(timeout_s, read=None)
    if request.content is not None:
        made |= {"content": request.content, "headers": {"Content-Type": "application/octet-stream"}}
    with ExitStack() as stack:
        if request.file is not None:
            try:
                file, _ = stack.enter_context(opened(request.file))
            except (OSError, ValueError) as error:
                raise AudioError(
                    f"{shown(request.file)}: cannot be read ({why(error)}); check the file"
                ) from None
            made["files"] = {"file": (request.name, file)}
        yield made


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn what httpx raises into errors of ours."""
    httpx = _httpx()
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = shown(str(error)) or type(error).__name__
        raise ServiceError(
            f"{url}: cannot be reached ({reason}); see whether `samaf serve` runs there"
        ) from None


class _Body:
    """An answer's body, in bounded memory."""

    def __init__(self, url: str) -> None:
        self._url, self._blocks, self._n_bytes = url, list[bytes](), 0

    def add(self, block: bytes) -> None:
        self._n_bytes += len(block)
        if self._n_bytes > _MOST_BYTES:
            raise ServiceError(
                f"{self._url}: answers with more than {_MOST_BYTES:,} bytes; check the address"
            )
        self._blocks.append(block)

    def answer(self, response: Any) -> _Answer:
        return _Answer(response.status_code, response.headers.get("retry-after", ""), b"".join(self._blocks))


def _step(call: Call[T], answer: _Answer | None) -> tuple[_Send | float | None, T | None]:
    """Go on with a call: what is to be done next, or None and its result."""
    try:
        return call.send(answer), None
    except StopIteration as end:
        return None, end.value


class Client:
    """A service, asked as a `Library` is.

    Parameters
    ----------
    url : str
        Where it is, such as ``http://127.0.0.1:8765``.
    token : str, optional
        If it asks for one.
    model : path-like, optional
        Weights file of its index, if that is not the model that ships.
    upload : bool
        Send audio; by default, only fingerprints leave this machine.
    retries : int
        How often a request is repeated that the service has no room for, after the time that it asks for.
    timeout_s : float
        For a connection, and for each part of an answer; what becomes of a recording that is added is waited for.

    Raises
    ------
    SamafError
        httpx is not installed.

    Examples
    --------
    ::

        with Client("http://127.0.0.1:8765") as client:
            for match in client.search("clip.wav"):
                print(match.title, match.track_start_s)
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        model: StrPath | None = None,
        upload: bool = False,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._calls, self._timeout_s = _Calls(url, model, upload, retries), timeout_s
        self._http: httpx.Client = _httpx().Client(**_settings(url, token, timeout_s))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def search(self, clip: StrPath | Fingerprint, **options: Unpack[SearchOptions]) -> Matches:
        """Identify a clip; the options are those of `samaf.Library.search`, and the service's where they are left out.

        Parameters
        ----------
        clip
            An audio file, a fingerprint or its file.

        Returns
        -------
        Matches
            A list of `Match`, best first; empty: unknown.

        Raises
        ------
        AudioError, FingerprintError
            The clip cannot be read here.
        MismatchError
            The service's index was made with another model.
        ServiceError
            The service cannot be reached, or refuses.
        """
        return self._done(self._calls.search(clip, options))

    def add(self, recording: StrPath) -> dict[str, Any]:
        """Add a recording, or its fingerprint file; returns what became of it, as `samaf index add --json` tells it.

        Raises
        ------
        AudioError, FingerprintError, MismatchError, ServiceError
            As `search`.
        """
        return self._done(self._calls.add(recording))

    def remove(self, track_id: int) -> None:
        """Remove a track.

        Raises
        ------
        ServiceError
        """
        self._done(self._calls.remove(track_id))

    def track(self, track_id: int) -> dict[str, Any]:
        """One track, as `samaf index list --json` tells it.

        Raises
        ------
        ServiceError
        """
        return self._done(self._calls.track(track_id))

    def tracks(self, words: str = "") -> Iterator[dict[str, Any]]:
        """All tracks, or those with all these words in title, artist or path, in order of their ids.

        Raises
        ------
        ServiceError
        """
        after: int | None = 0
        while after is not None:
            found, after = self._done(self._calls.page(after, words))
            yield from found

    def stats(self) -> dict[str, Any]:
        """Measures of the index, as `samaf index stats --json` tells them.

        Raises
        ------
        ServiceError
        """
        return self._done(self._calls.stats())

    def _done(self, call: Call[T]) -> T:
        answer: _Answer | None = None
        while True:
            asked, result = _step(call, answer)
            if asked is None:
                return cast(T, result)
            answer = None
            if isinstance(asked, float):
                time.sleep(asked)
            else:
                answer = self._sent(asked)

    def _sent(self, request: _Send) -> _Answer:
        body = _Body(self._calls.url)
        with (
            _reaching(self._calls.url),
            _arguments(request, self._timeout_s) as arguments,
            self._http.stream(**arguments) as response,
        ):
            for block in response.iter_bytes():
                body.add(block)
        return body.answer(response)


class AsyncClient:
    """`Client`, to be awaited: the same arguments, methods and errors. Fingerprints are made in a thread.

    Examples
    --------
    ::

        async with AsyncClient("http://127.0.0.1:8765") as client:
            matches = await client.search("clip.wav")
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        model: StrPath | None = None,
        upload: bool = False,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._calls, self._timeout_s = _Calls(url, model, upload, retries), timeout_s
        self._http: httpx.AsyncClient = _httpx().AsyncClient(**_settings(url, token, timeout_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def search(self, clip: StrPath | Fingerprint, **options: Unpack[SearchOptions]) -> Matches:
        """See `Client.search`."""
        return await self._done(self._calls.search(clip, options))

    async def add(self, recording: StrPath) -> dict[str, Any]:
        """See `Client.add`."""
        return await self._done(self._calls.add(recording))

    async def remove(self, track_id: int) -> None:
        """See `Client.remove`."""
        await self._done(self._calls.remove(track_id))

    async def track(self, track_id: int) -> dict[str, Any]:
        """See `Client.track`."""
        return await self._done(self._calls.track(track_id))

    async def tracks(self, words: str = "") -> AsyncIterator[dict[str, Any]]:
        """See `Client.tracks`."""
        after: int | None = 0
        while after is not None:
            found, after = await self._done(self._calls.page(after, words))
            for track in found:
                yield track

    async def stats(self) -> dict[str, Any]:
        """See `Client.stats`."""
        return await self._done(self._calls.stats())

    async def _done(self, call: Call[T]) -> T:
        answer: _Answer | None = None
        while True:
            asked, result = await asyncio.to_thread(_step, call, answer)
            if asked is None:
                return cast(T, result)
            answer = None
            if isinstance(asked, float):
                await asyncio.sleep(asked)
            else:
                answer = await self._sent(asked)

    async def _sent(self, request: _Send) -> _Answer:
        body = _Body(self._calls.url)
        with _reaching(self._calls.url), _arguments(request, self._timeout_s) as arguments:
            async with self._http.stream(**arguments) as response:
                async for block in response.aiter_bytes():
                    body.add(block)
        return body.answer(response)
