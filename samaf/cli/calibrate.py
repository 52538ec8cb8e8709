"""`samaf calibrate`: what a model's matches are worth, measured anew."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from samaf.cli.common import DONE, add_json, console, count, counted, plain, print_json, progress_bar
from samaf.errors import ModelError

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
    parser.add_argument(
        "--held-out",
        nargs="+",
        required=True,
        metavar="DIR",
        help="recordings that the model was not trained on; what is found is to hold for each DIR by itself",
    )
    parser.add_argument(
        "--library", nargs="+", default=[], metavar="DIR", help="recordings to search among as well"
    )
    parser.add_argument("--noise", nargs="+", default=[], metavar="DIR", help="noises (default: synthetic)")
    parser.add_argument(
        "--ir", nargs="+", default=[], metavar="DIR", help="impulse responses (default: synthetic)"
    )
    parser.add_argument(
        "--copies",
        metavar="CSV",
        help="pairs of files that hold the same audio, in columns path_a and path_b, relative to the CSV: neither is "
        "an answer for the other",
    )
    parser.add_argument(
        "--queries", type=count, metavar="N", help="clips of each length of each kind (default: up to 200)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("-o", "--out", metavar="FILE", help="weights file to write (default: MODEL itself)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, showing progress."""
    if importlib.util.find_spec("scipy") is None:
        raise ModelError(
            "calibrating needs scipy, which is not installed; run: pip install 'samaf[calibrate]'"
        )
    from samaf.model.augment import Sources
    from samaf.model.calibrate import calibrate, read_copies
    from samaf.model.corpus import find_audio

    kinds = [find_audio([place]) for place in args.held_out]
    held_out = {path for kind in kinds for path in kind}
    library = [path for path in find_audio(args.library) if path not in held_out]
    out = Path(args.out or args.model)
    with progress_bar("calibrating") as bar:
        weights = calibrate(
            Path(args.model),
            kinds,
            library,
            sources=Sources(find_audio(args.noise), find_audio(args.ir), sorted(held_out)),
            copies=read_copies(args.copies) if args.copies else None,
            queries=args.queries,
            seed=args.seed,
            progress=counted(bar),
        )
    weights.save(out)
    if args.json:
        print_json({"file": str(out), "model_id": weights.model_id, "bits": weights.bits})
    console(stderr=True).print(f"wrote {plain(str(out))} (model {weights.model_id[:12]})")
    return DONE
