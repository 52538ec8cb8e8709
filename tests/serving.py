"""A service started as its users start it, for the tests that ask it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

WRITE, READ = "write-token-0123456789", "read-token-0123456789"


class Service:
    """`samaf serve` in a process of its own, ready to answer.

    Attributes
    ----------
    url, host, port
    lines : list of str
        What it has written to stderr.
    """

    def __init__(self, *args: object, workers: int = 2, **environment: str) -> None:
        command = [sys.executable, "-m", "samaf", "serve", "--port", "0", "--workers", str(workers)]
        self.process = subprocess.Popen(
            [*command, *map(str, args)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self._is_there = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._is_there.wait(300), self.lines  # a busy machine takes minutes
        found = next(
            filter(None, (re.search(r" at (https?://(.*?):(\d+)) ", line) for line in self.lines)), None
        )
        assert found, self.lines
        self.url, self.host, self.port = found[1], found[2], int(found[3])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("serving "):
                self._is_there.set()
        self._is_there.set()

    def stop(self) -> int:
        """End it as systemd does; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def logged(self, part: str, within_s: float = 10.0) -> str:
        """The first line with a part, as soon as it is there."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            found = next((line for line in list(self.lines) if part in line), None)
            if found is not None:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{part} is not in {self.lines}")


def write_tokens(folder: Path) -> Path:
    """A file of one token to read and one to write."""
    path = folder / "tokens"
    path.write_text(f"# who may\nread {READ} reader\n\nwrite {WRITE} writer\n")
    return path
