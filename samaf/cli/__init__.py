"""The command line: `samaf COMMAND`, one module per command.

A command's module describes its arguments and imports what does the work only when it runs, so that `--help` and
usage errors come at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from samaf import SamafError, __version__
from samaf.cli import calibrate, demo, encode, export, index, search, serve, train
from samaf.cli.common import FAILED, INTERRUPTED, PIPE_CLOSED, Parser, complain

__all__ = ["build_parser", "main"]

_EXAMPLES = """\
examples:
  samaf demo                           see it work on a small generated library
  samaf index add ~/Music              fingerprint a collection
  samaf search recording.wav           name a clip, the place in it, and how sure that is
  samaf serve                          the same over HTTP, with a page
  samaf COMMAND --help                 options and examples of a command

exit status: 0 done, 1 nothing matched (search), 2 wrong usage or an input that could not be read
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(
        "samaf",
        "Audio fingerprinting: name the track, the place and the confidence for any clip.",
        _EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"samaf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (demo, index, search, serve, encode, train, calibrate, export):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    # No command gains by threads of numpy (see samaf.products), so none are started: on a large machine there may be
    # more of them than a process may have. Read when numpy is imported, so it comes first.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        status: int
        try:
            args = build_parser().parse_args(argv)
            status = args.run(args)
        except SystemExit as end:  # of the parser: help, the version, or wrong usage
            status = end.code  # type: ignore[assignment]
        sys.stdout.flush()
        return status
    except SamafError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        return PIPE_CLOSED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
        return FAILED
    except MemoryError:
        complain("not enough memory; end other programs, or search and add less at a time")
        return FAILED
    except Exception:  # a mistake of ours, to be reported; not that nothing matched
        traceback.print_exc()
        return FAILED
