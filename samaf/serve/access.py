"""Who may do what: tokens, and which names and pages the service answers to.

Without tokens everybody may read and nobody write, and only this machine is listened to (`check_reach`). What a proxy
says of whom it speaks for is not believed, and changes nothing.

A page of another site can make a browser send requests here, under a name of its own that leads here (DNS
rebinding). So the `Host` must be an address or a name that the service goes by, and the `Origin`, where there is one,
its own or one that was named.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import socket
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from samaf.errors import SamafError, shown
from samaf.serve.options import Options, Token
from samaf.serve.problems import CLOSE, ProblemError
from samaf.untrusted import opened, why

SHORTEST_TOKEN = 16
_MOST_TOKENS_BYTES = 1 << 20
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


def read_tokens(path: str | os.PathLike[str]) -> tuple[Token, ...]:
    """Read a file of tokens.

    Each line is `read` or `write`, the token, and a name for the log if you like; empty lines and those that begin
    with # are passed over. A file has up to 1 MiB. A token has at least 16 characters, such as `openssl rand -hex 32`
    gives, of those that a header may have.

    Raises
    ------
    SamafError
        It cannot be read, holds no token, or a line that is none. The message does not show the line.
    """
    name = shown(path)
    try:
        with opened(path) as (file, size):
            if size > _MOST_TOKENS_BYTES:
                raise ValueError(f"it has {size:,} bytes, more than any list of tokens")
            lines = file.read().decode().splitlines()
    except (OSError, ValueError) as error:
        raise SamafError(f"{name}: no tokens can be read ({why(error)}); name a file of them") from None
    made = []
    for n, line in enumerate(lines, start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in ("read", "write") or len(words) < 2:
            raise SamafError(
                f"{name}: line {n} is not 'read TOKEN [NAME]' or 'write TOKEN [NAME]'; correct it"
            )
        if len(words[1]) < SHORTEST_TOKEN or not _TOKEN.fullmatch(words[1]):
            raise SamafError(
                f"{name}: the token of line {n} must have at least {SHORTEST_TOKEN} characters, letters, digits and "
                "-._~+/=; make one with `openssl rand -hex 32`"
            )
        digest = hashlib.sha256(words[1].encode()).digest()
        made.append(Token(shown(words[2]) if len(words) > 2 else f"line {n}", digest, words[0] == "write"))
    if not made:
        raise SamafError(f"{name}: holds no token; write lines of 'read TOKEN' or 'write TOKEN' into it")
    return tuple(made)


def check_reach(host: str, options: Options) -> None:
    """Refuse to be reached from other machines without tokens, unless that was said aloud.

    Raises
    ------
    SamafError
    """
    if options.tokens or options.open_to_all:
        return
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise SamafError(
            f"{shown(host)}: no address of this machine ({error.strerror}); check --host"
        ) from None
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        raise SamafError(
            f"{shown(host)}: other machines could reach the service there without a token; name a file of tokens "
            "with --tokens, or say --no-auth if everybody may read and write"
        )


class Guard:
    """Passes on what was meant for this service, as far as `Host` and `Origin` tell."""

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self.app = app
        self.hosts = {"localhost", *(name.lower() for name in options.hosts)}
        self.origins = frozenset(options.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] == "http":
            problem = self._problem(Headers(scope=scope))
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _problem(self, headers: Headers) -> ProblemError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            return ProblemError(
                403, "this service does not go by that name; use its address, or start it with --name", CLOSE
            )
        if origin is None or origin in self.origins:
            return None
        if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return ProblemError(
                403, "pages of that origin may not call this service; start it with --origin", CLOSE
            )
        return None

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower().removesuffix(".")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.hosts
        return True


# -- what a route asks for ---------------------------------------------------------------------------------------------

_BEARER = HTTPBearer(auto_error=False, description="a token of the service's file")
Sent = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


async def may_read(request: Request, sent: Sent) -> str:
    """Let those read who may; returns what the caller is called."""
    return _caller(request, sent, writes=False)


async def may_write(request: Request, sent: Sent) -> str:
    """Let those write who may; returns what the caller is called."""
    return _caller(request, sent, writes=True)


def _caller(request: Request, sent: HTTPAuthorizationCredentials | None, *, writes: bool) -> str:
    options: Options = request.app.state.options
    address = request.client.host if request.client else ""
    if not options.tokens:
        if writes and not options.open_to_all:
            raise ProblemError(403, "this service is read-only; start it with --tokens to change that", CLOSE)
        request.state.writes = options.open_to_all
        return address
    given = hashlib.sha256((sent.credentials if sent else "").encode()).digest()
    found = None
    for token in options.tokens:  # all of them, whichever it is: the time tells nothing
        if hmac.compare_digest(token.digest, given):
            found = token
    if found is None:
        what = "is none that this service knows" if sent else "is missing"
        problem = f"the token {what}; send the header 'Authorization: Bearer TOKEN'"
        raise ProblemError(401, problem, {**CLOSE, "WWW-Authenticate": "Bearer"})
    if writes and not found.writes:
        header = 'Bearer error="insufficient_scope", scope="write"'
        raise ProblemError(
            403,
            "this token allows reading only; use one of a 'write' line",
            {**CLOSE, "WWW-Authenticate": header},
        )
    request.state.caller, request.state.writes = found.name, found.writes
    return found.name
