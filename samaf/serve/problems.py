"""What goes wrong, as `application/problem+json` (RFC 9457): a status, and one sentence that says what helps."""

from __future__ import annotations

import http
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from samaf.errors import (
    AudioError,
    FingerprintError,
    LockedError,
    MismatchError,
    SamafError,
    StoreError,
    shown,
)

CLOSE = {"Connection": "close"}
"""Headers of an answer that is given before the request has been read."""


class ProblemError(Exception):
    """An answer other than the one that was asked for."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        title = http.HTTPStatus(self.status).phrase
        told = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return Response(
            json.dumps(told).encode(),
            self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


def busy(status: int, detail: str, seconds: int = 1) -> ProblemError:
    """Something that passes: 429 or 503, and after how many seconds to try again."""
    return ProblemError(status, detail, {"Retry-After": str(seconds)})


def mistake() -> ProblemError:
    """What nobody but samaf is to blame for; the log says what it was."""
    return ProblemError(500, "this is a mistake of samaf's own; its log says more", CLOSE)


def of_error(error: SamafError) -> ProblemError:
    """What an error of the engine is to the caller."""
    message = str(error)
    if isinstance(error, (AudioError, FingerprintError)):
        return ProblemError(400, message)
    if isinstance(error, MismatchError):
        return ProblemError(409, message)
    if isinstance(error, LockedError):
        return busy(503, message, 5)
    if isinstance(error, StoreError):
        return ProblemError(503, message)
    return ProblemError(500, message)


@contextmanager
def told_of(path: Path, name: str) -> Iterator[None]:
    """Turn errors of the engine into problems, in which a file has the name that its sender gave it."""
    try:
        yield
    except SamafError as error:
        problem = of_error(error)
        for own in (shown(path), "clip"):
            if problem.detail.startswith(f"{own}: "):
                problem.detail = shown(name) + problem.detail.removeprefix(own)
        raise problem from None


def add_handlers(app: FastAPI) -> None:
    """Have an application answer like this."""

    @app.exception_handler(ProblemError)
    async def _(request: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(SamafError)
    async def _(request: Request, error: SamafError) -> Response:
        return of_error(error).response()

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        return mistake().response()

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        return ProblemError(422, "; ".join(map(_wrong, error.errors()))[:500]).response()

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            detail = f"nothing is at {shown(request.url.path)[:200]}; see /docs"
        elif error.status_code == 405:
            detail = f"{request.method} is not allowed at {shown(request.url.path)[:200]}; see /docs"
        else:
            detail = error.detail
        return ProblemError(error.status_code, detail, error.headers).response()


def _wrong(error: dict[str, Any]) -> str:
    """One thing that is wrong with the arguments."""
    where = [str(part) for part in error["loc"] if part not in ("query", "path", "body")]
    return shown(f"{'.'.join(where) or 'the body'}: {error['msg']}")
