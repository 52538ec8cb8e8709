"""`bench reproduce`: the experiments of the documents that systems come from."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.encoders import ENCODERS, PROJECTIONS
from bench.cli.common import Bars, add_seed, list_of, names_of, say
from bench.cli.run import RESULTS
from bench.cli.train import OutOfTimeError, add_training, train_missing
from samaf.cli.common import DONE, FAILED, count, positive
from samaf.errors import ModelError

if TYPE_CHECKING:
    from baselines.contrastive import ContrastiveParameters
    from bench.corpus import Recording

MINUTES = 85.0

_EXAMPLES = """\
examples:
  bench reproduce contrastive --manifest audio/manifest.csv
  bench reproduce contrastive --manifest audio/manifest.csv --full

A run that was stopped, by a key or by --minutes, goes on with the same command.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "reproduce",
        help="repeat a paper's experiment",
        description="Train the networks that are missing, run the protocol of the KAIST report on contrastively "
        "trained encoders, and print its tables 4, 5 and 6: each of our values with its interval and, in brackets, "
        "the report's.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("system", choices=("contrastive",), metavar="SYSTEM", help="contrastive")
    add_training(parser, needs_manifest=True)
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
    parser.add_argument(
        "--minutes", type=positive, default=MINUTES, metavar="X", help=f"stop after so long ({MINUTES:g})"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="networks (the user's cache folder)")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"results ({RESULTS}/reproduce-contrastive)")
    add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, measure, print."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError(
            "training needs TensorFlow, which is not installed; run: pip install 'samaf[train,bench]'"
        )
    from bench.corpus import TRACK_KINDS, read_recordings
    from bench.kaist import Material, Protocol, tables

    deadline = time.monotonic() + 60.0 * args.minutes
    everything = read_recordings(args.manifest, kinds=TRACK_KINDS, skipped=say)

    def of(split: str, kind: str) -> list[Recording]:
        return [track for track, its_split in everything if its_split == split and track.kind == kind]

    materials = [
        Material(f"{kind}-{split}", found)
        for split, kind in ((args.own, "music"), (args.other, "music"), (args.own, "speech"))
        if (found := of(split, kind))
    ]
    out = args.out or RESULTS / "reproduce-contrastive"
    wanted = _networks(args)
    results = {}
    with Bars() as bars:
        protocol = Protocol(
            materials,
            [track for track, _ in everything],
            out,
            queries=args.queries,
            seed=args.seed,
            progress=bars.progress,
        )
        try:
            for parameters in wanted:
                train_missing(args, parameters, deadline)
                results[parameters] = protocol.results(parameters)
                if time.monotonic() > deadline and parameters != wanted[-1]:
                    raise OutOfTimeError
        except OutOfTimeError:
            say(f"stopped after {args.minutes:g} minutes, as --minutes says; the same command goes on")
    sizes = {
        "pieces": "100 recordings of 30 s",
        "whole": f"the whole library, {len(protocol.library)} recordings",
    }
    lines = []
    for library, size in sizes.items():
        lines += [f"## Among {size}", "", *tables(results, materials, library)]
    text = "\n".join(lines)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tables.md").write_text(text, encoding="utf-8")
    print(text)
    return DONE if len(results) == len(wanted) else FAILED


def _networks(args: argparse.Namespace) -> Sequence[ContrastiveParameters]:
    from baselines.contrastive import ContrastiveParameters

    where = {"weights": str(args.weights.resolve())} if args.weights else {}
    found = [
        ContrastiveParameters(encoder, values, projection, **where)
        for projection in (PROJECTIONS if args.full else PROJECTIONS[:1])
        for values in dict.fromkeys([*args.values, 128] if args.full else args.values)
        for encoder in args.encoder
    ]
    return found
