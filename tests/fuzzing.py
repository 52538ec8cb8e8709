"""Commands on hostile input, run in a child process with limits, and what is wrong with how they ended.

One child runs many commands, one after the other; where one kills it or hangs, the next gets a new child::

    with Child() as child:
        faults = [fault for clip in clips for fault in child.run("search", "--db", db, clip).faults]
    assert not faults
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SECONDS = 20.0
"""How long a command may take."""
MEMORY_BYTES = 1 << 30
"""How much memory the child may ask for that no file backs; with all libraries loaded, it has some 160 MB."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    command : tuple of str
        Its arguments.
    status : int or None
        Exit status; None if it did not end by itself.
    death : str
        The signal that ended the child, or that the command took too long; "" otherwise.
    out, err : str
        What it wrote.
    """

    command: tuple[str, ...]
    status: int | None
    death: str
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        """What no input may bring about: a signal, a hang, a traceback, a warning, another status than 0, 1 or 2."""
        faults = [self.death] if self.death else []
        if self.status is not None and self.status not in (0, 1, 2):
            faults.append(f"status {self.status}")
        if re.search(r"^Traceback|^\S+:\d+: \w*Warning: ", self.err, re.MULTILINE):
            faults.append(" / ".join(self.err.splitlines()[-8:]))
        if self.status == 2 and not self.err:
            faults.append("status 2 without a word")
        return [f"samaf {' '.join(self.command)}: {fault}" for fault in faults]

    @property
    def complaints(self) -> list[str]:
        """The lines about something wrong."""
        return [line for line in self.err.splitlines() if line.startswith("samaf: ")]


class Child:
    """A child process that runs commands of samaf under limits; it starts with the first one.

    Parameters
    ----------
    seconds
        How long a command may take.
    memory_bytes
        Bound of the child's data, RLIMIT_DATA.
    env
        Environment variables beside those of this process.
    """

    def __init__(
        self, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES, env: dict[str, str] | None = None
    ) -> None:
        self._seconds, self._memory_bytes, self._env = seconds, memory_bytes, env or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        self._folder = tempfile.TemporaryDirectory(prefix="samaf-fuzz-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._folder.cleanup()

    def run(self, *args: object) -> Ended:
        """Run one command of samaf with these arguments."""
        command = tuple(os.fsdecode(arg) if isinstance(arg, (bytes, Path)) else str(arg) for arg in args)
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        death = ""
        status: int | None = None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], self._seconds)[0]:
            death = f"took more than {self._seconds:g} s"
        elif line := process.stdout.readline():
            status = json.loads(line)
        if status is None:
            code = self._end()
            death = death or (f"died of {signal.Signals(-code).name}" if code < 0 else f"left with {code}")
        return Ended(command, status, death, self._read("out"), self._read("err"))

    def _start(self) -> subprocess.Popen[bytes]:
        limits = [self._folder.name, str(self._memory_bytes)]
        return subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self._env},
            start_new_session=True,  # so that what it starts can be ended with it
        )

    def _end(self) -> int:
        """End the child and all that it started; returns how it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        if select.select([process.stdout], [], [], 0)[0]:  # it has closed it: it is ending
            with suppress(subprocess.TimeoutExpired):
                process.wait(self._seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        return process.wait()

    def _read(self, name: str) -> str:
        return Path(self._folder.name, name).read_text(errors="backslashreplace")


def _serve(folder: str, memory_bytes: int) -> None:
    """In the child: run the commands that come on stdin, and tell their statuses on stdout."""
    commands, statuses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in commands:
        for descriptor, name in ((1, "out"), (2, "err")):
            new = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(new, descriptor)
            os.close(new)
        signal.alarm(round(3 * SECONDS))  # where the parent was killed, nobody else ends a command that hangs
        status = _run(json.loads(line))
        signal.alarm(0)
        sys.stdout.flush()
        sys.stderr.flush()
        statuses.write(b"%d\n" % status)
        statuses.flush()


def _run(command: list[str]) -> int:
    """Exit status of a command, as the interpreter would give it."""
    from samaf.cli import main

    try:
        return main(command)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
