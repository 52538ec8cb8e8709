"""`bench calibration`: whether E-values of unknown clips are what they say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import (
    GENERATED_PER_CELL,
    Bars,
    add_data,
    add_lengths,
    add_model,
    add_run,
    add_seed,
    command_line,
    corpus_of,
    list_of,
    model_of,
    possible,
    say,
    say_what_is_missing,
)
from bench.cli.run import RESULTS
from samaf.cli.common import DONE, add_json, bits, console, count, print_json

if TYPE_CHECKING:
    from bench.corpus import Pool

LENGTHS = "1,2,3,5,10,30,60"
PER_CELL, LONG_PER_CELL = 400, 100

_EXAMPLES = """\
examples:
  bench calibration
  bench calibration --manifest audio/manifest.csv --split check --copies bench/copies.csv --per-cell 1000
  bench calibration --data ~/Music --lengths 5,10 --drawn 10000,100000
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "calibration",
        help="hold E-values and probabilities against what they promise",
        description="Put clips to samaf as they are, and once more while the recordings they were cut from count as "
        "not stored. Compare how many of these reach an E-value with how many are due, and how many answers are right "
        "with how likely they were said to be. Raw answers go to a folder, a page beside them; what was stopped goes "
        "on with the same command.",
        epilog=_EXAMPLES,
    )
    add_data(parser)
    parser.add_argument(
        "--copies",
        type=Path,
        metavar="FILE",
        help="a CSV of recordings that hold the same audio, as bench/copies.py writes it; they are hidden together",
    )
    clips = parser.add_argument_group("clips")
    add_lengths(clips, LENGTHS)
    clips.add_argument(
        "--per-cell",
        type=count,
        metavar="N",
        help=f"clips for each kind and length ({PER_CELL}; {GENERATED_PER_CELL} of generated tunes)",
    )
    clips.add_argument(
        "--long-per-cell",
        type=count,
        metavar="M",
        help=f"the same for lengths over 10 s ({LONG_PER_CELL}, or N where that is less)",
    )
    add_seed(clips)
    parser.add_argument(
        "--drawn",
        type=list_of(count),
        default=[],
        metavar="N,N",
        help="further libraries: so many drawn tracks of 240 hashes beside the real ones",
    )
    parser.add_argument("--bits", type=bits, default=128, metavar="N", help="hash length (128)")
    add_model(parser)
    add_run(parser, "calibration")
    add_json(parser, "one JSON object per library, kind and length on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, write the page, and print its tables."""
    from bench import calibration, calibration_report
    from bench.clip_cache import ClipCache
    from bench.clips import EVALUATION, cache_folder
    from bench.copies import read_copies
    from bench.unknowns import Cutter
    from samaf.settings import processors

    out = args.out or RESULTS / "calibration"
    copies = read_copies(args.copies) if args.copies else {}
    pool = _pool_of(args, out.parent / "cache" / "generated")
    cutter = Cutter(pool, possible(EVALUATION, pool.materials), ClipCache(cache_folder(out)), args.seed)
    per_cell = args.per_cell or (PER_CELL if args.data or args.manifest else GENERATED_PER_CELL)
    kinds = sorted({track.kind for track in pool.tracks})
    long_per_cell = args.long_per_cell or min(LONG_PER_CELL, per_cell)
    plan = calibration.Plan(kinds, sorted(args.lengths), per_cell, long_per_cell, sorted(args.drawn))
    with Bars() as bars:
        lines = calibration.measure(
            cutter,
            plan,
            out,
            copies=copies,
            bits=args.bits,
            model=model_of(args).get("model"),
            jobs=args.jobs or processors(),
            progress=bars.progress,
            note=bars.note,
        )
    found = calibration_report.cells(lines, args.seed)
    trusted = calibration_report.reliabilities(lines, args.seed)
    page = calibration_report.write(found, trusted, calibration.read_setting(out), command_line(), out)
    if args.json:
        for each in (*found, *trusted):
            print_json(each.to_json())
    else:
        for of_library in calibration_report.by_library(found):
            _show(calibration_report.table(of_library))
        for one in trusted:
            _show(calibration_report.reliability_table(one))
    say(f"the report is {page}")
    return DONE


def _pool_of(args: argparse.Namespace, work: Path) -> Pool:
    """The audio that the options name; what had to be left out is said on stderr."""
    from bench import corpus

    if not args.manifest:
        return corpus.Pool.of(corpus_of(args, work))
    pool = corpus.read_pool(
        args.manifest, work, split=args.split, kinds=args.kind or corpus.TRACK_KINDS, library=args.library
    )
    say_what_is_missing(pool.skipped, pool.notes)
    if not args.copies:
        say("no --copies: a clip that a copy of its recording is found for counts as a false answer")
    return pool


def _show(table: Any) -> None:
    """Print a table of the bench."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=table.title, caption=table.note, caption_justify="left")
    for number, column in enumerate(table.columns):
        made.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        made.add_row(row.head, *(cell.text for cell in row.cells))
    console().print(made)
