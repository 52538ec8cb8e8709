"""`samaf search`: name clips."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from samaf import settings
from samaf.cli.common import (
    DONE,
    FAILED,
    NO_MATCH,
    add_db,
    add_json,
    clock,
    complain,
    console,
    count,
    plain,
    positive,
    print_json,
    progress_bar,
    share,
    speeds,
)
from samaf.errors import AudioError, FingerprintError, MismatchError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from samaf.verdict import Match

LONG_S = 60.0
"""Clips longer than this show how far their search is."""

_EXAMPLES = """\
examples:
  samaf search recording.wav
  samaf search --json --top 1 clips/*.mp3 > answers.jsonl
  samaf search --max-evalue 1e-9 broadcast.flac       only what cannot be chance
  samaf search --ber 1 --max-evalue inf noisy.wav     the best candidate, however bad
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "search",
        help="identify clips",
        description="Identify clips: which track, from where to where, and how sure that is. A clip that nothing in "
        "the index resembles is unknown.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="audio or fingerprint file")
    add_db(parser)
    parser.add_argument("--model", metavar="FILE", help="the model of the index, if its file has moved")
    parser.add_argument(
        "--ber",
        type=share,
        default=settings.BER,
        metavar="X",
        help="largest bit error rate of a match (default %(default)g)",
    )
    parser.add_argument(
        "--max-evalue",
        type=positive,
        default=settings.MAX_EVALUE,
        metavar="X",
        help="largest expected number of false matches this good (default %(default)g; inf: any)",
    )
    parser.add_argument(
        "--top",
        type=count,
        default=settings.TOP,
        metavar="N",
        help="matches per stretch of the clip (default %(default)s)",
    )
    parser.add_argument(
        "--speed",
        type=speeds,
        default=settings.SPEED,
        metavar="LOW:HIGH",
        help="speeds that a short clip may have been played at (default {:g}:{:g}; 1:1 for its own alone)".format(
            *settings.SPEED
        ),
    )
    parser.add_argument("--exhaustive", action="store_true", help="compare with every position of the index")
    add_json(parser, "one JSON object per clip and match on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search all clips; those that cannot be read are passed over."""
    from samaf.library import Library

    failed = found = False
    with Library(args.db, model=args.model) as library, _Bar() as bar:
        for clip in args.clips:
            start = time.perf_counter()
            try:
                matches = library.search(
                    clip,
                    ber=args.ber,
                    max_evalue=args.max_evalue,
                    top=args.top,
                    exhaustive=args.exhaustive,
                    speed=args.speed,
                    progress=bar.show,
                )
            except (AudioError, FingerprintError, MismatchError) as error:
                complain(str(error))
                failed = True
                continue
            elapsed_s = round(time.perf_counter() - start, 6)
            found = found or bool(matches)
            (_print_json if args.json else _print_table)(clip, matches, elapsed_s)
    if failed:
        return FAILED
    return DONE if found else NO_MATCH


class _Bar:
    """Shows how far the search of a long clip is; loads what draws it only when there is one."""

    def __init__(self) -> None:
        self._drawn: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawn is not None:
            self._drawn[0].stop()
            self._drawn = None

    def show(self, done_s: float, total_s: float) -> None:
        """Seconds of the clip that are searched, and its length."""
        if total_s <= LONG_S:
            return
        if self._drawn is None:
            bar = progress_bar("searching")
            bar.start()
            self._drawn = bar, bar.add_task("")
        bar, task = self._drawn
        bar.update(task, completed=round(done_s), total=round(total_s))
        if done_s >= total_s:
            self.__exit__()


def _print_json(clip: str, matches: list[Match], elapsed_s: float) -> None:
    for rank, match in enumerate(matches, start=1):
        print_json({"query": clip, "rank": rank, **match.to_json(), "elapsed_s": elapsed_s})
    if not matches:
        print_json({"query": clip, "track_id": None, "elapsed_s": elapsed_s})


def _print_table(clip: str, matches: list[Match], elapsed_s: float) -> None:
    from rich import box
    from rich.table import Table

    out = console()
    if not matches:
        out.print(f"[bold]{plain(clip)}[/]: [yellow]unknown[/] ({elapsed_s:.2f} s)")
        return
    out.print(f"[bold]{plain(clip)}[/]: [green]{plain(matches[0].title)}[/] ({elapsed_s:.2f} s)")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("title", overflow="fold")
    for name in ("in the clip", "in the track", "BER", "score", "played"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold", style="dim")
    for match in matches:
        table.add_row(
            plain(match.title),
            f"{clock(match.query_start_s)} - {clock(match.query_end_s)}",
            f"{clock(match.track_start_s)} - {clock(match.track_end_s)}",
            f"{match.ber:.3f}",
            f"{match.score:.1f}",
            _played(match),
            plain(match.path),
        )
    out.print(table)


def _played(match: Match) -> str:
    """How the clip differs from the track, in as few words as there are differences."""
    parts = []
    if abs(match.speed - 1) >= 0.0005:
        parts.append(f"speed {match.speed:.3f}")
    if abs(match.tempo - 1) >= 0.0005:
        parts.append(f"tempo {match.tempo:.3f}")
    if abs(match.pitch_cents) >= 0.5:
        parts.append(f"pitch {match.pitch_cents:+.0f} cents")
    return ", ".join(parts) or "as is"
