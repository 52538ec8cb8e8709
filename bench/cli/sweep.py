"""`bench sweep`: what hashes of other lengths and hops cost and bring."""

from __future__ import annotations

import argparse
from typing import Any

from bench.cli.common import add_clips, add_data, add_model, add_run, list_of_bits, list_of_hops, model_of
from bench.cli.run import RESULTS, carry_out
from samaf.cli.common import DONE

_EXAMPLES = """\
examples:
  bench sweep
  bench sweep --bits 64,128,256 --hop 0.5,1.0 --data ~/Music --lengths 5
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "sweep",
        help="compare hash sizes",
        description="Run samaf with every pair of a hash length and a hop: hit rate against bytes per hour, as a table "
        "and a plot in the report.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--bits",
        type=list_of_bits,
        default=[64, 128, 256],
        metavar="N,N",
        help="hash lengths (64,128,256)",
    )
    parser.add_argument(
        "--hop",
        type=list_of_hops,
        default=[1.0],
        metavar="S,S",
        help="seconds from one stored hash to the next (1.0)",
    )
    add_model(parser)
    add_data(parser)
    add_clips(parser, lengths="5", per_cell=20)
    add_run(parser, "sweep")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the sweep and its report."""
    from bench.protocol import entry

    entries = [
        entry("samaf", bits=bits, hop_s=hop_s, **model_of(args)) for bits in args.bits for hop_s in args.hop
    ]
    carry_out(args, entries, args.out or RESULTS / "sweep")
    return DONE
