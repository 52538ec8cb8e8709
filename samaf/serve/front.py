"""What each request passes on its way in and out: it is logged and counted, and its answer is made safe."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
import traceback
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samaf.serve import metrics
from samaf.serve.log import log
from samaf.serve.problems import mistake

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


LINGER_S = 2.0
"""How long what is still being sent is taken, and thrown away, after an answer that did not wait for it."""


class Front:
    """The outermost layer of a worker.

    An answer may come before the request has been read, and a connection that is closed while something is being sent
    is reset: the sender might never see the answer. So what it sends is taken for a while.
    """

    def __init__(self, app: ASGIApp, worker: int) -> None:
        self.app, self.worker = app, worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, status, is_answered = time.perf_counter(), 0, False
        headers = Headers(scope=scope)
        is_read = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"

        async def got() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status = message["status"]
                own = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    own.setdefault(name, value)
            elif not message.get("more_body", False) and not is_read:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while not is_read:
                            await got()
                message = {"type": "http.response.body"}
            await send(message)
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        state: dict[str, Any] = scope.setdefault("state", {})
        try:
            await self.app(scope, got, sent)
        except Exception:  # a mistake of ours: the trace is for the log alone
            log("error", path=scope["path"], traceback=traceback.format_exc())
            if not status:
                await mistake().response()(scope, got, sent)
            elif not is_answered:
                raise  # the connection is closed, as the answer is not whole
        finally:
            seconds = time.perf_counter() - began_s
            route = getattr(scope.get("route"), "path", "other")
            metrics.REQUESTS.labels(route, _method(scope), status).inc()
            metrics.SECONDS.labels(route).observe(seconds)
            log(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(1000 * seconds, 1),
                client=scope["client"][0] if scope.get("client") else None,
                caller=state.get("caller"),
                worker=self.worker,
            )


def _method(scope: Scope) -> str:
    """The method, of which there are as many as anybody likes to invent."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"


def page_policy(page: str) -> str:
    """`Content-Security-Policy` of a page whose scripts and styles stand in it, and whose data come from here."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
        f"img-src data:; media-src blob:; worker-src blob:; script-src blob: {hashes('script')}; "
        f"style-src {hashes('style')}"
    )
