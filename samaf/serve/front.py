"""What each request passes on its way in and out: it is logged and counted, and its answer is made safe."""

from __future__ import annotations

import base64
import hashlib
import re
import time
import traceback
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samaf.serve import metrics
from samaf.serve.log import log
from samaf.serve.problems import CLOSE, ProblemError

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Front:
    """The outermost layer of a worker."""

    def __init__(self, app: ASGIApp, worker: int) -> None:
        self.app, self.worker = app, worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, status = time.perf_counter(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        state: dict[str, Any] = scope.setdefault("state", {})
        try:
            await self.app(scope, receive, sent)
        except Exception:  # a mistake of ours: the trace is for the log alone
            log("error", path=scope["path"], traceback=traceback.format_exc())
            if status:
                raise
            problem = ProblemError(500, "this is a mistake of samaf's own; its log says more", CLOSE)
            await problem.response()(scope, receive, sent)
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
