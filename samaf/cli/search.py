"""`samaf search`: name clips."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaf import settings
from samaf.cli.common import (
    DONE,
    FAILED,
    NO_MATCH,
    add_db,
    add_json,
    between,
    chance,
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
from samaf.errors import AudioError, FingerprintError, MismatchError, SamafError, shown
from samaf.formats import FINGERPRINT_SUFFIX
from samaf.places import make_folder

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from samaf.library import Library
    from samaf.match import Match, Matches

LONG_S = 60.0
"""Clips longer than this show how far their search is."""

_EXAMPLES = """\
examples:
  samaf search recording.wav
  samaf search --json --top 1 clips/*.mp3 > answers.jsonl
  samaf search --max-evalue 1e-9 broadcast.flac       only what cannot be chance
  samaf search --min-probability 0 noisy.wav          the best candidate, however bad
  samaf search --explain pictures recording.wav       a picture of each match
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
        "--min-probability",
        type=chance,
        default=settings.MIN_PROBABILITY,
        metavar="P",
        help="least probability of a match (default %(default)g; 0: always answer)",
    )
    parser.add_argument(
        "--prior",
        type=between,
        default=settings.PRIOR,
        metavar="P",
        help="chance that a clip, or each minute of a longer one, holds something of the library, before it is "
        "searched for (default %(default)g)",
    )
    parser.add_argument(
        "--max-evalue",
        type=positive,
        default=settings.MAX_EVALUE,
        metavar="X",
        help="largest expected number of matches this good by chance (default: any)",
    )
    parser.add_argument(
        "--ber",
        type=share,
        default=settings.BER,
        metavar="X",
        help="largest bit error rate of a match (default: any)",
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
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="draw a picture of each match: clip and track, their hashes, and the bits that differ (needs matplotlib: "
        "pip install 'samaf[plot]')",
    )
    parser.add_argument("--exhaustive", action="store_true", help="compare with every position of the index")
    add_json(parser, "one JSON object per clip and match on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search all clips; those that cannot be read are passed over."""
    from samaf.isolated import prepare

    if not all(clip.endswith(FINGERPRINT_SUFFIX) for clip in args.clips):
        prepare()  # it starts while this process loads what follows
    from samaf.library import Library

    if args.explain is not None:
        from samaf.picture import NEEDED, can_draw

        if not can_draw():
            raise SamafError(NEEDED)
    failed = found = False
    with Library(args.db, model=args.model) as library, _Bar() as bar:
        for clip in args.clips:
            start = time.perf_counter()
            try:
                matches = library.search(
                    clip,
                    min_probability=args.min_probability,
                    prior=args.prior,
                    max_evalue=args.max_evalue,
                    ber=args.ber,
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
            if matches.warning:
                complain(f"{clip}: {matches.warning}")
            (_print_json if args.json else _print_table)(clip, matches, elapsed_s)
            if args.explain is not None and not _drawn(library, clip, matches, Path(args.explain)):
                failed = True
    if failed:
        return FAILED
    return DONE if found else NO_MATCH


def _drawn(library: Library, clip: str, matches: list[Match], folder: Path) -> bool:
    """Draw the matches of a clip; false if one could not be."""
    from samaf.picture import draw

    whole = True
    for rank, match in enumerate(matches, start=1):
        out = folder / f"{Path(clip).stem}-{rank}.png"
        try:
            make_folder(folder)
            draw(library.encoder, clip, match, out)
        except OSError as error:
            raise SamafError(
                f"{shown(folder)}: cannot be made ({error.strerror}); name another folder"
            ) from None
        except AudioError as error:
            complain(f"match {rank} of {shown(clip)} is not drawn: {error}")
            whole = False
            continue
        console(stderr=True).print(f"drew {plain(str(out))}", highlight=False)
    return whole


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


def _print_json(clip: str, matches: Matches, elapsed_s: float) -> None:
    of_clip = matches.to_json()
    for match in of_clip.pop("matches") or [{"track_id": None}]:
        print_json({"query": clip, **match, **of_clip, "elapsed_s": elapsed_s})


def _print_table(clip: str, matches: Matches, elapsed_s: float) -> None:
    from rich import box
    from rich.table import Table

    out = console()
    if not matches:
        out.print(f"[bold]{plain(clip)}[/]: [yellow]unknown[/] ({elapsed_s:.2f} s)")
        return
    best = matches[0]
    out.print(f"[bold]{plain(clip)}[/]: [green]{plain(best.title)}[/] ({elapsed_s:.2f} s)")
    out.print(f"  {_why(best)}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("title", overflow="fold")
    for name in ("in the clip", "in the track", "probability", "BER", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold", style="dim")
    titles = {match.track_id: match.title for match in matches}
    for match in matches:
        same = "" if match.copies_of is None else f" [dim](same audio as {plain(titles[match.copies_of])})[/]"
        table.add_row(
            plain(match.title) + same,
            f"{clock(match.query_start_s)} - {clock(match.query_end_s)}",
            f"{clock(match.track_start_s)} - {clock(match.track_end_s)}",
            _probability(match),
            f"{match.ber:.3f}",
            f"{match.score:.1f}",
            plain(match.path),
        )
    out.print(table)
    if matches.gaps:
        parts = ", ".join(f"{clock(start_s)} - {clock(end_s)}" for start_s, end_s in matches.gaps)
        out.print(
            f"  {matches.coverage:.0%} of the clip is covered; nothing is known of {parts}", highlight=False
        )


def _why(match: Match) -> str:
    """What a match rests on, in one line."""
    if match.score <= 0:
        chance = "so few do by chance in every search of this library"
    elif match.score < 6:
        searches = 10.0**match.score
        digits = max(0, int(match.score) - 1)
        chance = f"so few do by chance in one of {round(searches, -digits):,.0f} searches of this library"
    else:
        chance = f"so few do by chance in one of 10^{match.score:.0f} searches of this library"
    return f"{match.wrong_bits:,} of {match.bits:,} bits differ; {chance}; played {_played(match)}"


def _probability(match: Match) -> str:
    """Rounded down, so that only what is certain looks so."""
    if match.log_odds >= 4:
        return "> 99.99 %"
    return (
        f"{math.floor(10_000 * match.probability) / 100:.2f} %"
        if match.log_odds >= 2
        else f"{match.probability:.1%}"
    )


def _played(match: Match) -> str:
    """How the clip differs from the track, in as few words as there are differences."""
    parts = []
    if abs(match.speed - 1) >= 0.0005:
        parts.append(f"at speed {match.speed:.3f}")
    if abs(match.tempo - 1) >= 0.0005:
        parts.append(f"at tempo {match.tempo:.3f}")
    if abs(match.pitch_cents) >= 0.5:
        parts.append(f"at a pitch {match.pitch_cents:+.0f} cents off")
    return " and ".join(parts) or "as it is"
