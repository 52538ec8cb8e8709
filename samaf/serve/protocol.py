"""HTTP on a connection, as uvicorn speaks it: with bounds on what one that says nothing may hold."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGTERM, signal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from samaf.serve.problems import ProblemError

HEAD_BYTES = 1 << 15
"""Longest head of a request."""
HEAD_S = 20.0
"""Longest wait for the head of a connection's first request."""
KEEP_S = 20
"""Longest wait for the next one."""
CONNECTIONS = 400
"""Connections that a worker holds."""


class Protocol(H11Protocol):
    """A connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hold it if there is room, and not for ever if nothing comes."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._late = self.loop.call_later(HEAD_S, self._abort_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        late: asyncio.TimerHandle | None = getattr(self, "_late", None)
        if late is not None:
            late.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a request that came whole, though nothing more will come; hang up on half of one."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, unless an answer has begun; whoever works on its head is not to answer too."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        answer = ProblemError(400, "this is no request of HTTP; see RFC 9112").response()
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _abort_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()


class Server(uvicorn.Server):
    """Ends at SIGTERM alone, and keeps the listening socket's queue as long as it was made."""

    def __init__(self, config: uvicorn.Config, backlog: int) -> None:
        super().__init__(config)
        self._backlog = backlog

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        """Take SIGTERM for the end; Ctrl-C is for the process that started this one."""
        signal(SIGTERM, self.handle_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(self._backlog)
