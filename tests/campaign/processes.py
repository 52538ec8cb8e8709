"""Forked processes with a time to end, folders that go again, and the log."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 20.0


class Log:
    """What was done and found, as lines of JSON."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.faults = 0
        self.counts: dict[str, int] = {}

    def count(self, what: str, n: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + n

    def write(self, **record: Any) -> None:
        if self._path:
            with open(self._path, "a") as file:
                file.write(json.dumps(record, default=str) + "\n")

    def fault(self, what: str, **record: Any) -> None:
        self.faults += 1
        self.count(f"FAULT {what}")
        self.write(fault=what, **record)
        print("FAULT", what, json.dumps(record, default=str)[-1000:], file=sys.stderr, flush=True)


@dataclass
class Ended:
    """How a child ended: with a value, an exception's text, a signal, or not at all."""

    value: Any = None
    trace: str = ""
    signal: int = 0
    hung: bool = False

    @property
    def fault(self) -> str:
        if self.hung:
            return "hang"
        return f"death by signal {self.signal}" if self.signal else "traceback" if self.trace else ""


class Child:
    """A forked process that runs a function; `say` in it sends a record to `records` here."""

    def __init__(self, run: Callable[[Callable[[Any], None]], Any]) -> None:
        out, into = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(out)
            self._run(run, into)
        os.close(into)
        self._out, self._rest = out, b""

    @staticmethod
    def _run(run: Callable[[Callable[[Any], None]], Any], into: int) -> None:
        def say(record: Any) -> None:
            os.write(into, json.dumps(record, default=str).encode() + b"\n")

        try:
            say({"value": run(say)})
        except BaseException:
            with suppress(OSError):
                say({"trace": traceback.format_exc()})
        finally:
            os._exit(0)

    def records(self, until: float) -> Iterator[Any]:
        """What it says, to its end or a moment of `time.monotonic`."""
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                yield json.loads(line)
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                return
            data = os.read(self._out, 1 << 20)
            if not data:
                return
            self._rest += data

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self, seconds: float = TIMEOUT_S) -> Ended:
        """Wait for its last record and its end; kill it when its time is over."""
        ended = Ended()
        until = time.monotonic() + seconds
        for record in self.records(until):
            if isinstance(record, dict) and record.keys() & {"value", "trace"}:
                ended.value, ended.trace = record.get("value"), record.get("trace", "")
        ended.hung = time.monotonic() >= until
        if ended.hung:
            self.kill()
        status = os.waitpid(self.pid, 0)[1]
        ended.signal = 0 if ended.hung else os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        os.close(self._out)
        return ended


def alone(run: Callable[[], Any]) -> Ended:
    """Run a function in a process of its own."""
    return Child(lambda say: run()).end()


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="samaf-campaign-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
