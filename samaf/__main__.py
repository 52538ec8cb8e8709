"""The program `samaf`, and `python -m samaf`: a process around the command line.

Here is what belongs to the process: its streams, what Ctrl-C does, and how it ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """Run one command and end the process with its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, _interrupt)
    from samaf.cli import main as run
    from samaf.cli.streams import prepare

    prepare()
    status = run()
    # To take down the machine code of the kernels would take the interpreter up to half a second.
    atexit._run_exitfuncs()
    os._exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, but end at once where modules or machine code are being loaded.

    What loads them turns the exception into an error of its own, or shows it and goes on. An index bears the end.
    """
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(("importlib.", "llvmlite.")):
            with suppress(OSError):
                os.write(2, b"samaf: interrupted\n")
            os._exit(_INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
