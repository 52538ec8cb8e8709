"""`bench run`: samaf and other systems on the same clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli.common import (
    Bars,
    add_clips,
    add_data,
    add_run,
    add_systems,
    command_line,
    corpus_of,
    entries_of,
    plan_of,
    say,
)
from samaf.cli.common import DONE

RESULTS = Path("bench-results")

_EXAMPLES = """\
examples:
  bench run --baseline rafs
  bench run --baseline dejavu --baseline rafs --baseline panako --data ~/Music --lengths 5 --per-cell 10
  bench run --bits 64,128,256 --manifest audio/manifest.csv --split dev --kind music --library train,dev
  bench run --conditions noise0,speed1.05_mp3_32 --lengths 3,6
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "run",
        help="put systems to the test",
        description="Cut clips out of recordings, spoil them, and have samaf and other systems name them. Raw answers "
        "go to the run's folder, a report beside them; a run that was stopped goes on with the same command.",
        epilog=_EXAMPLES,
    )
    add_systems(parser)
    add_data(parser)
    add_clips(parser)
    add_run(parser, "run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the run and its report."""
    carry_out(args, entries_of(args), args.out or RESULTS / "run")
    return DONE


def carry_out(args: argparse.Namespace, entries: list[Any], out: Path) -> None:
    """Run the entries as the options say, write the report, and print its tables."""
    from bench import protocol, report
    from samaf.settings import processors

    plan = plan_of(args)
    corpus = corpus_of(args, out.parent / "cache" / "generated")
    with Bars() as bars:
        protocol.run(
            corpus,
            entries,
            plan,
            out,
            command=command_line(),
            jobs=args.jobs or processors(),
            progress=bars.progress,
            note=bars.note,
        )
    written = report.build([out], out / "report")
    print((out / "report" / report.MARKDOWN).read_text(encoding="utf-8"))
    say(f"the report is {written[0]}")
