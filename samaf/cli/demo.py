"""`samaf demo`: the whole way on a small generated library."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaf.cli.common import DONE, NO_MATCH, add_json, complain, console, plain, print_json

if TYPE_CHECKING:
    from samaf.demo import Answer

_EXAMPLES = """\
examples:
  samaf demo
  samaf demo --out /tmp/demo --json

afterwards, to play with:
  samaf search --db samaf-demo/index.samafdb samaf-demo/clips/*.wav
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="generate a small library, spoil clips of it, and name them",
        description="Generate a small library, index it, spoil clips of it, name them, and draw one of them (which "
        "needs matplotlib: pip install 'samaf[plot]'). Takes less than a minute and needs no files.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "-o", "--out", default="samaf-demo", metavar="DIR", help="folder (default ./samaf-demo)"
    )
    parser.add_argument("--model", metavar="FILE", help="weights file (default: the model that ships)")
    add_json(parser, "one JSON object per clip on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; exit status 0 only if every answer was right."""
    from samaf.demo import INDEX, PICTURE, RESULTS, run_demo
    from samaf.picture import NEEDED, can_draw

    if not can_draw():
        complain(f"there will be no picture: {NEEDED}")
    start = time.perf_counter()
    folder = Path(args.out)
    notes = console(stderr=True)
    answers = run_demo(
        folder,
        model=args.model,
        answered=(lambda answer: print_json(asdict(answer))) if args.json else (lambda answer: None),
        note=lambda text: notes.print(f"[dim]{text} ...[/]"),
    )
    wrong = sum(not answer.right for answer in answers)
    if not args.json:
        _print_table(answers)
        out = console()
        out.print(
            f"[bold]{len(answers) - wrong} of {len(answers)}[/] right, {time.perf_counter() - start:.0f} s"
        )
        if (folder / PICTURE).exists():
            out.print(f"picture: {plain(str(folder / PICTURE))}")
        out.print(f"try:     samaf search --db {plain(str(folder / INDEX))} {plain(str(folder))}/clips/*.wav")
    if wrong:
        complain(f"{wrong} of the demo's clips got a wrong answer; see {folder / RESULTS}")
    return NO_MATCH if wrong else DONE


def _print_table(answers: list[Answer]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("clip of", "spoiled by", "answer"):
        table.add_column(name)
    for name in ("found at", "cut at", "BER", "score", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for answer in answers:
        known = answer.title is not None
        table.add_row(
            answer.truth or "-",
            answer.spoiled,
            f"[{'green' if answer.right else 'red'}]{plain(answer.title or 'unknown')}[/]",
            f"{answer.track_start_s:.2f} s" if known else "",
            f"{answer.truth_start_s:.2f} s" if answer.truth_start_s is not None else "",
            f"{answer.ber:.3f}" if known else "",
            f"{answer.score:.1f}" if known else "",
            f"{1000 * answer.elapsed_s:.0f}",
        )
    console().print(table)
