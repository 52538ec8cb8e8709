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
    import numpy as np

    from bench.speed import measure
    from samaf.audio import SAMPLE_RATE
    from samaf.errors import AudioError

    entries = entries_of(args)
    rng = np.random.default_rng(args.seed)
    wanted = round(args.length * SAMPLE_RATE)
    library, clips, total_s = [], [], 0.0
    with tempfile.TemporaryDirectory() as scratch, Bars() as bars:
        work = Path(scratch) if args.data or args.manifest else RESULTS / "cache" / "generated"
        corpus = corpus_of(args, work)
        for track in corpus.library:
            if total_s >= 60 * args.minutes:
                break
            try:
                library.append((track.id, track.read(0.0, 60 * args.minutes - total_s)))
            except AudioError as error:
                bars.note(f"left out: {error}")
                continue
            total_s += len(library[-1][1]) / SAMPLE_RATE
        long_enough = [x for _, x in library if len(x) >= wanted]
        if not long_enough:
            raise AudioError(f"no track is as long as a clip of {args.length:g} s; give a smaller --length")
        for _ in range(args.clips):
            x = long_enough[int(rng.integers(len(long_enough)))]
            start = int(rng.integers(len(x) - wanted + 1))
            noise = rng.standard_normal(wanted) * 0.3 * x[start : start + wanted].std()
            clips.append((x[start : start + wanted] + noise).astype(np.float32))
        speeds = measure(entries, library, clips, rounds=args.rounds, progress=bars.progress)
    if args.json:
        for speed in speeds:
            print_json(asdict(speed))
        return DONE
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{total_s / 60:.0f} minutes of audio, clips of {args.length:g} s, one core, "
        f"medians of {args.rounds} rounds",
    )
    table.add_column("system")
    for name in ("takes in, x real time", f"time / {entries[0].system.label}", "answer, ms", "time / same"):
        table.add_column(name, justify="right")
    for speed in speeds:
        table.add_row(
            speed.label,
            f"{speed.ingest:,.0f}",
            f"{speed.ingest_ratio:.2f}",
            f"{1000 * speed.query_s:.1f}",
            f"{speed.query_ratio:.2f}",
        )
    console().print(table)
    return DONE
