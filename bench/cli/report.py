"""`bench report`: figures and tables of runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli.common import say
from samaf.cli.common import DONE

_EXAMPLES = """\
examples:
  bench report bench-results/run
  bench report bench-results/run bench-results/sweep --out comparison
  bench report bench-results/run bench-results/reproduce-contrastive
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "report",
        help="figures and tables of runs",
        description="One self-contained page on one run or several, finished or not, and its tables as Markdown "
        "and CSV; what `bench reproduce` made has a section of it.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or of a document's own experiment"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the files (report, in the folder of the first run)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    from bench import report

    for path in report.build(args.runs, args.out or args.runs[0] / "report"):
        say(f"wrote {path}")
    return DONE
