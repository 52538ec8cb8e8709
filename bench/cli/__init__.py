"""The command line of the bench: `bench COMMAND`, one module per command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from bench.cli import attributes, calibration, compression, report, reproduce, run, speed, sweep, train
from samaf import SamafError, __version__
from samaf.cli.common import FAILED, INTERRUPTED, Parser, complain

_EXAMPLES = """\
examples:
  bench run --baseline rafs                      samaf and RAFS on a small generated corpus
  bench run --baseline rafs --baseline panako --data ~/Music --bits 128
  bench sweep --bits 64,128,256 --hop 0.5,1.0    what a smaller hash costs
  bench calibration                              whether E-values of unknown clips are what they say
  bench compression --model int8.npz,small.npz   what smaller models save and lose
  bench speed --baseline dejavu                  how fast each system takes in and answers
  bench train contrastive --data ~/Music         networks of a system that needs some
  bench attributes --manifest audio/manifest.csv  what hashes tell of speaker, kind, source, transformation
  bench reproduce contrastive --manifest audio/manifest.csv
  bench report bench-results/*                   one page of figures and tables
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser("bench", "Compare audio-fingerprinting systems on the same clips.", _EXAMPLES)
    parser.add_argument("--version", action="version", version=f"bench of samaf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (run, sweep, calibration, compression, speed, train, attributes, reproduce, report):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    # Read when numpy is imported: systems are compared on one core each, and work side by side.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        return status
    except ModuleNotFoundError as error:
        if error.name not in (
            "psutil",
            "scipy",
            "sox",
            "jinja2",
            "markupsafe",
            "faiss",
            "keras",
            "tensorflow",
            "sklearn",
            "threadpoolctl",
        ):
            raise
        extra = "train,bench" if error.name in ("keras", "tensorflow") else "bench"
        complain(f"the package {error.name} is missing: pip install 'samaf[{extra}]'", "bench")
    except SamafError as error:
        complain(str(error), "bench")
    except KeyboardInterrupt:
        complain("interrupted; a run goes on with the same command", "bench")
        return INTERRUPTED
    except OSError as error:
        complain(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), "bench")
    return FAILED
