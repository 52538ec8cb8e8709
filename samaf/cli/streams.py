"""The standard streams of a process: what becomes of them where they are closed, full, or cannot show a letter."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from typing import Any

from samaf.cli.common import complain
from samaf.errors import SamafError


class _Results(io.TextIOWrapper):
    """Standard output: what cannot be written is an error."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(error) from None


class _Messages(io.TextIOWrapper):
    """Standard error: what nobody can be told is no reason to stop."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _lost(error: OSError) -> SamafError:
    why = "it is closed" if error.errno == errno.EBADF else error.strerror
    return SamafError(f"standard output: cannot be written ({why}); send it to a file that has room")


def prepare() -> None:
    """Make the streams of this process what the commands expect.

    All three are there: in the place of one that was closed, the system would put the next file that is opened, and
    messages would be written into the index. What a command prints to a closed standard output is an error, as on a
    full disk; messages to a closed standard error are lost. Letters that a stream cannot show are escaped, and a
    warning is one line.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # from 1, writing fails
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)
    sys.stdout = _Results(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)),
        encoding=_encoding(sys.stdout),
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )
    sys.stderr = _Messages(
        io.FileIO(2, "w", closefd=False),  # type: ignore[arg-type]  # as `python -u` has it: nothing is held back
        encoding=_encoding(sys.stderr),
        errors="backslashreplace",
        write_through=True,
    )
    warnings.showwarning = _show


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _show(message: Warning | str, *where: Any, **more: Any) -> None:
    complain(str(message))
