"""What is uploaded, on its way to a file: `multipart/form-data` with a part `file`, or the bytes themselves.

A body is refused before it is read where its header says that it is too long, and as soon as it is too long where it
says nothing. It must begin, and go on, within 20 s, and be whole within 5 minutes.
"""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from samaf.errors import shown
from samaf.serve.problems import CLOSE, ProblemError

PAUSE_S = 20.0
"""Longest wait for the next bytes."""
WHOLE_S = 300.0
"""Longest wait for all of them."""
_FRAME_BYTES = 1 << 16
"""What a multipart body may have around its file."""
_LONGEST_NAME = 200
_UNNAMEABLE = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"
"""Categories of characters that no name may have, but for those that join letters; spaces of all kinds it may."""
_KINDS = ("audio/", "video/", "application/octet-stream", "application/ogg", "application/mp4")


@dataclass(frozen=True)
class Upload:
    """A file that was uploaded, and what its sender calls it."""

    path: Path
    name: str


@asynccontextmanager
async def received(request: Request, folder: Path, n_bytes: int, name: str) -> AsyncIterator[Upload]:
    """Receive the file of a request into a folder, and delete it at the end unless it was moved.

    Parameters
    ----------
    request
    folder
    n_bytes
        The most that the file may have.
    name
        What it is called if its sender does not say.

    Raises
    ------
    ProblemError
        408, 413, 415, 422: what is sent is slow, too large, of another kind, or holds no file; 503: there is no room.
    """
    path = folder / uuid.uuid4().hex
    try:
        try:
            with open(path, "xb") as file:
                name = await _receive(request, file, n_bytes) or name
        except OSError as error:
            raise ProblemError(
                503, f"the upload cannot be kept ({error.strerror}); try again later", CLOSE
            ) from None
        yield Upload(path, name)
    finally:
        path.unlink(missing_ok=True)


async def _receive(request: Request, file: BufferedWriter, n_bytes: int) -> str:
    """Write what is sent into a file; returns its name, if it has one."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError(415, "the body is compressed as a whole; send the file as it is", CLOSE)
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        form = _Form(parameters.get(b"boundary", b""), file, n_bytes)
        async for block in blocks(request, n_bytes + _FRAME_BYTES):
            form.feed(block)
        return form.end()
    if kind and not kind.decode("latin-1").startswith(_KINDS):
        raise ProblemError(
            415,
            f"{shown(kind)[:60]} is no audio; send multipart/form-data with a part 'file', or the bytes as "
            "application/octet-stream",
            CLOSE,
        )
    n_received = 0
    async for block in blocks(request, n_bytes):
        n_received += file.write(block)
    if not n_received:
        raise ProblemError(400, "the body is empty; send the bytes of a file")
    return ""


async def blocks(request: Request, n_bytes: int) -> AsyncIterator[bytes]:
    """The body of a request, as far as it keeps to the bounds.

    Raises
    ------
    ProblemError
        400, 408, 413.
    """
    too_long = ProblemError(
        413, f"more than {n_bytes:,} bytes are not taken; send a part of the recording", CLOSE
    )
    if int(request.headers.get("content-length", "0")) > n_bytes:
        raise too_long
    n_received, until = 0, time.monotonic() + WHOLE_S
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(min(PAUSE_S, until - time.monotonic())):
                block = await anext(stream, None)
        except TimeoutError:
            raise ProblemError(408, "the body did not come in time; send it faster", CLOSE) from None
        except ClientDisconnect:
            raise ProblemError(400, "the body ended before it was whole", CLOSE) from None
        if block is None:
            return
        n_received += len(block)
        if n_received > n_bytes:
            raise too_long
        yield block


class _Form:
    """The file of a `multipart/form-data` body, written as it comes. Other parts are passed over."""

    def __init__(self, boundary: bytes, file: BufferedWriter, n_bytes: int) -> None:
        self._file, self._left, self._n_bytes = file, n_bytes, n_bytes
        self._header, self._value = b"", b""
        self._name: str | None = None
        self._is_file = False
        try:
            if not boundary:
                raise FormParserError("its type names no boundary")
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begun,
                    "on_header_field": self._field_came,
                    "on_header_value": self._value_came,
                    "on_header_end": self._header_came,
                    "on_part_data": self._data_came,
                },
            )
        except FormParserError as error:
            raise self._broken(error) from None

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise self._broken(error) from None

    def end(self) -> str:
        """Make sure that there was a whole file; returns its name, "" for none."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise self._broken(error) from None
        if self._name is None:
            raise ProblemError(422, "the form has no part 'file'; send the recording as one")
        if self._left == self._n_bytes:
            raise ProblemError(400, "the part 'file' is empty; send the bytes of a file")
        return self._name

    @staticmethod
    def _broken(error: FormParserError) -> ProblemError:
        return ProblemError(400, f"the form cannot be read ({shown(str(error))[:200]}); send it anew", CLOSE)

    def _begun(self) -> None:
        self._is_file = False

    def _field_came(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _value_came(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_came(self) -> None:
        header, value = self._header.lower(), self._value
        self._header = self._value = b""
        if header != b"content-disposition":
            return
        _, parameters = parse_options_header(value)
        if parameters.get(b"name") != b"file":
            return
        if self._name is not None:
            raise ProblemError(422, "the form has several parts 'file'; send one recording a request", CLOSE)
        self._is_file = True
        name = parameters.get(b"filename", b"").decode("utf-8", "replace")
        self._name = name.replace("%22", '"')  # as browsers write it

    def _data_came(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            return
        self._left -= end - start
        if self._left < 0:
            raise ProblemError(
                413, f"more than {self._n_bytes:,} bytes are not taken; send a part of the recording", CLOSE
            )
        self._file.write(data[start:end])


def check_name(name: str) -> str:
    """A name under which a recording may be kept; else a `ProblemError` of status 422."""
    if (
        not name
        or name.startswith(".")
        or any(unicodedata.category(letter) in _UNNAMEABLE for letter in set(name) - set(_JOINERS))
        or set(name) & {"/", "\\"}
        or len(os.fsencode(name)) > _LONGEST_NAME
    ):
        raise ProblemError(
            422,
            f"{shown(name)[:80]!r} cannot be a file's name; give one of up to {_LONGEST_NAME} bytes without a path, "
            "with ?name= or in the form",
        )
    return name
