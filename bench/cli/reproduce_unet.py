"""`bench reproduce unet`: the experiments of Singh (2025) with a U-Net autoencoder and FAISS."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from bench.cli.common import Bars, add_autoencoders, add_seed, add_weights, autoencoders_of, command_line, say
from bench.cli.run import RESULTS
from bench.cli.train_unet import add_autoencoder_training, noises_of, train_missing
from bench.cli.training import add_time, need_tensorflow, recordings_of, train_and_measure
from samaf.cli.common import DONE, FAILED, count

_EXAMPLES = """\
examples:
  bench reproduce unet --manifest audio/manifest.csv
  bench reproduce unet --manifest audio/manifest.csv --features normalised,plain --front-end 16k,paper

A run that was stopped, by a key or by --minutes, goes on with the same command.
"""


def add_parsers(systems: Any) -> None:
    """Add the document to the command."""
    parser = systems.add_parser(
        "unet",
        help="Singh's U-Net autoencoder with FAISS",
        description="Train the networks that are missing, and measure what the article shows of one: how clips of a "
        "library are named, clean and noisy, on and off the stored grid; and how well spectrograms are rebuilt, with "
        "and without what passes the code by. Prints tables, ours beside the article's values, and draws its figures.",
        epilog=_EXAMPLES,
    )
    add_autoencoder_training(parser, needs_manifest=True)
    parser.add_argument(
        "--library", metavar="SPLIT", default="dev", help="split whose recordings are searched among (dev)"
    )
    parser.add_argument(
        "--noise", metavar="SPLIT", default="check", help="split whose noise spoils queries (check)"
    )
    add_autoencoders(parser)
    parser.add_argument(
        "--queries", type=count, default=1000, metavar="N", help="of each kind of recordings (1000)"
    )
    parser.add_argument(
        "--rebuilt", type=count, default=200, metavar="N", help="clips that are rebuilt (200)"
    )
    add_time(parser)
    add_weights(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"results ({RESULTS}/reproduce-unet)")
    add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, measure, print."""
    need_tensorflow()
    from baselines.unet import UNetParameters
    from bench.corpus import TRACK_KINDS, CorpusError, paths_of, read_recordings, read_rows
    from bench.study import Study
    from bench.unet import Material, Protocol
    from bench.unet_report import REMARKS, TITLE, draw, pictures, tables
    from samaf.picture import NEEDED, can_draw

    deadline = time.monotonic() + 60.0 * args.minutes
    everything = read_recordings(args.manifest, kinds=TRACK_KINDS, skipped=say)
    library = [track for track, split in everything if split == args.library]
    if not library:
        raise CorpusError(
            f"{args.manifest}: has no recordings in the split {args.library}; name another with --library"
        )
    noise = paths_of(read_rows(args.manifest), args.manifest, args.noise, "noise")
    if not noise:
        say(f"{args.manifest}: has no noise in the split {args.noise}: coloured noise is made")
    if not can_draw():
        say(f"no figures: {NEEDED}")
    wanted = [UNetParameters(**options) for options in autoencoders_of(args)]
    out = args.out or RESULTS / "reproduce-unet"
    results = {}
    with Bars() as bars:
        material = Material(library, recordings_of(args), noises_of(args), noise)
        protocol = Protocol(
            material,
            out,
            queries=args.queries,
            rebuilt=args.rebuilt,
            seed=args.seed,
            progress=bars.progress,
            pictures=draw if can_draw() else None,
        )
        train_and_measure(args, wanted, train_missing, protocol, deadline)
    for parameters in wanted:
        if (found := protocol.known(parameters)) is not None:
            results[parameters] = found
    study = Study(TITLE, command_line(), REMARKS, list(tables(results, protocol)), pictures(results, out))
    study.save(out)
    print(study.markdown())
    return DONE if len(results) == len(wanted) else FAILED
