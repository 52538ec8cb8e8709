"""`bench reproduce contrastive`: the protocol of the KAIST report on contrastively trained encoders."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.encoders import ENCODERS, PROJECTIONS
from bench.cli.common import Bars, add_seed, add_weights, command_line, encoders_of, list_of, names_of, say
from bench.cli.run import RESULTS
from bench.cli.train_contrastive import add_encoder_training, train_missing
from bench.cli.training import add_time, need_tensorflow, train_and_measure
from samaf.cli.common import DONE, FAILED, count

if TYPE_CHECKING:
    from baselines.contrastive import ContrastiveParameters
    from bench.corpus import Recording


_EXAMPLES = """\
examples:
  bench reproduce contrastive --manifest audio/manifest.csv
  bench reproduce contrastive --manifest audio/manifest.csv --full

A run that was stopped, by a key or by --minutes, goes on with the same command.
"""


def add_parsers(systems: Any) -> None:
    """Add the document to the command."""
    parser = systems.add_parser(
        "contrastive",
        help="the KAIST report on contrastively trained encoders",
        description="Train the networks that are missing, run the protocol of the KAIST report on contrastively "
        "trained encoders, and print its tables 4, 5 and 6: each of our values with its interval and, in brackets, "
        "the report's.",
        epilog=_EXAMPLES,
    )
    add_encoder_training(parser, needs_manifest=True)
    parser.add_argument(
        "--own", metavar="SPLIT", default="dev", help="split of the report's own material (dev)"
    )
    parser.add_argument("--other", metavar="SPLIT", default="check", help="split of other material (check)")
    parser.add_argument(
        "--encoder",
        type=names_of("encoder", ENCODERS),
        default=ENCODERS,
        metavar="NAME,NAME",
        help="encoders (all)",
    )
    parser.add_argument(
        "--values", type=list_of(count), default=[64], metavar="N,N", help="values of an embedding (64)"
    )
    parser.add_argument(
        "--full", action="store_true", help="128 values too, and a fully connected layer as projection"
    )
    parser.add_argument("--queries", type=count, default=1000, metavar="N", help="of each cell (1000)")
    add_time(parser)
    add_weights(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"results ({RESULTS}/reproduce-contrastive)")
    add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, measure, print."""
    need_tensorflow()
    from bench.corpus import TRACK_KINDS, CorpusError, read_recordings
    from bench.kaist import PIECE_S, PIECES, REMARKS, TITLE, Material, Protocol, tables
    from bench.study import Study

    deadline = time.monotonic() + 60.0 * args.minutes
    everything = read_recordings(args.manifest, kinds=TRACK_KINDS, skipped=say)

    def of(split: str, kind: str) -> list[Recording]:
        return [track for track, its_split in everything if its_split == split and track.kind == kind]

    materials = [
        Material(f"{kind}-{split}", found)
        for split, kind in ((args.own, "music"), (args.other, "music"), (args.own, "speech"))
        if (found := of(split, kind))
    ]
    if not materials or not materials[0].name.endswith(f"-{args.own}"):
        raise CorpusError(f"{args.manifest}: has no music in the split {args.own}; name another with --own")
    out = args.out or RESULTS / "reproduce-contrastive"
    wanted = _networks(args)
    with Bars() as bars:
        protocol = Protocol(
            materials,
            [track for track, _ in everything],
            out,
            queries=args.queries,
            seed=args.seed,
            progress=bars.progress,
        )
        train_and_measure(args, wanted, train_missing, protocol, deadline)
    # whatever was measured before stands in the tables too
    every = dict.fromkeys([*wanted, *_networks(args, everything=True)])
    results = {parameters: hits for parameters in every if (hits := protocol.known(parameters)) is not None}
    asked = ", ".join(f"{n} of {name}" for name, n in protocol.asked.items())
    sizes = {
        "pieces": f"{PIECES} recordings of {PIECE_S:g} s, of which are asked for: {asked}",
        "whole": f"the whole library, {len(protocol.library)} recordings",
    }
    made = [table for library, size in sizes.items() for table in tables(results, materials, library, size)]
    study = Study(TITLE, command_line(), REMARKS, made)
    study.save(out)
    print(study.markdown())
    return DONE if all(parameters in results for parameters in wanted) else FAILED


def _networks(args: argparse.Namespace, *, everything: bool = False) -> list[ContrastiveParameters]:
    """Those that the options name, or all that the report's tables have place for."""
    from baselines.contrastive import ContrastiveParameters

    if everything:
        args = argparse.Namespace(
            weights=args.weights, encoder=ENCODERS, values=[64, 128], projection=PROJECTIONS
        )
    else:
        args.values = list(dict.fromkeys([*args.values, 128])) if args.full else args.values
        args.projection = PROJECTIONS if args.full else PROJECTIONS[:1]
    found = [ContrastiveParameters(**options) for options in encoders_of(args)]
    return sorted(found, key=lambda one: (one.projection != PROJECTIONS[0], one.values))
