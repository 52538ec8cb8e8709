"""`samaf export`: a weights file out of a training that is going on, or was stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from samaf.cli.common import DONE, add_json, console, plain, print_json

_EXAMPLES = """\
examples:
  samaf export model.npz.work -o early.npz           the model as it is after the last epoch
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "export",
        help="take the model out of a training's work folder",
        description="Write the model of a training's last finished epoch as a weights file.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "work", metavar="WORK", help="work folder of `samaf train`: the weights file's name + .work"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the weights file")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export."""
    from samaf.model.export import export_checkpoint
    from samaf.weights import Weights

    weights = Weights.load(export_checkpoint(Path(args.work), Path(args.out)))
    if args.json:
        epoch = weights.facts.get("last_epoch", {})
        print_json(
            {"file": args.out, "model_id": weights.model_id, "bits": weights.bits, "last_epoch": epoch}
        )
    console(stderr=True).print(f"wrote {plain(args.out)} (model {weights.model_id[:12]})")
    return DONE
