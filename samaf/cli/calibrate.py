"""`samaf calibrate`: what a model's matches are worth, measured anew."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from samaf.cli.common import DONE, add_json, console, counted, plain, print_json, progress_bar
from samaf.cli.material import add_material, material

_EXAMPLES = """\
examples:
  samaf calibrate mine.npz --held-out new/ --library music/
  samaf calibrate mine.npz --held-out new/ --library music/ --noise street/ --ir rooms/ -o again.npz

The clips that are searched for come from the held-out recordings, which the model must not have been trained on. An
index stays valid when its model is calibrated again.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "calibrate",
        help="measure what a model's matches are worth",
        description="Measure how often the model's bits are right and how often chance gives a match, by searching for "
        "clips that the library does not hold. `samaf train` does so at its end; do it again with more recordings, or "
        "with those that you will search among. Needs scipy: pip install 'samaf[calibrate]'.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="weights file")
    add_material(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="weights file to write (default: MODEL itself)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, showing progress."""
    held_out, library, options = material(args)
    from samaf.model.calibrate import calibrate

    out = Path(args.out or args.model)
    with progress_bar("calibrating") as bar:
        weights = calibrate(
            Path(args.model),
            held_out,
            library,
            **options,
            progress=counted(bar),
        )
    weights.save(out)
    if args.json:
        print_json({"file": str(out), "model_id": weights.model_id, "bits": weights.bits})
    console(stderr=True).print(f"wrote {plain(str(out))} (model {weights.model_id[:12]})")
    return DONE
