"""The log: one JSON object a line, on standard error; of each request one, and of what else happens."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def log(event: str, **told: Any) -> None:
    """Write a line: the time, what happened, and what there is to say of it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    line = json.dumps({"time": f"{stamp}Z", "event": event, **told}, default=str)
    try:
        sys.stderr.write(line + "\n")  # at once, so that lines of several processes do not mix
        sys.stderr.flush()
    except OSError:
        pass  # whoever read it has gone


class LogHandler(logging.Handler):
    """Writes what libraries log as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        more = {"traceback": trace} if trace else {}
        log(record.levelname.lower(), logger=record.name, message=record.getMessage(), **more)
