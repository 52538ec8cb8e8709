"""`bench speed`: how fast systems take in and answer."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cli.common import Bars, add_data, add_seed, add_systems, corpus_of, entries_of, seconds
from bench.cli.run import RESULTS
from samaf.cli.common import DONE, add_json, console, count, positive, print_json

_EXAMPLES = """\
examples:
  bench speed
  bench speed --baseline dejavu --baseline panako --data ~/Music --minutes 60
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "speed",
        help="time systems",
        description="Time how fast systems take in recordings and name clips of them: side by side on one core, in "
        "turns, medians. Decoding and resampling are not counted.",
        epilog=_EXAMPLES,
    )
    add_systems(parser)
    add_data(parser)
    parser.add_argument(
        "--minutes", type=positive, default=10.0, metavar="X", help="audio to take in, at most (10)"
    )
    parser.add_argument(
        "--length", type=seconds, default=5.0, metavar="S", help="length of the clips in seconds (5)"
    )
    parser.add_argument("--clips", type=count, default=20, metavar="N", help="clips to name (20)")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="rounds (5)")
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time the systems and print what they took."""
    from bench import speed
    from samaf.audio import SAMPLE_RATE

    entries = entries_of(args)
    with tempfile.TemporaryDirectory() as scratch, Bars() as bars:
        work = Path(scratch) if args.data or args.manifest else RESULTS / "cache" / "generated"
        library, clips = speed.material(
            corpus_of(args, work),
            minutes=args.minutes,
            length_s=args.length,
            clips=args.clips,
            seed=args.seed,
            note=bars.note,
        )
        speeds = speed.measure(entries, library, clips, rounds=args.rounds, progress=bars.progress)
    if args.json:
        for one in speeds:
            print_json(asdict(one))
        return DONE
    from rich import box
    from rich.table import Table

    minutes = sum(len(samples) for _, samples in library) / SAMPLE_RATE / 60
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{minutes:.0f} minutes of audio, clips of {args.length:g} s, one core, "
        f"medians of {args.rounds} rounds",
    )
    table.add_column("system")
    for name in ("takes in, x real time", f"time / {entries[0].system.label}", "answer, ms", "time / same"):
        table.add_column(name, justify="right")
    for one in speeds:
        table.add_row(
            one.label,
            f"{one.ingest:,.0f}",
            f"{one.ingest_ratio:.2f}",
            f"{1000 * one.query_s:.1f}",
            f"{one.query_ratio:.2f}",
        )
    console().print(table)
    return DONE
