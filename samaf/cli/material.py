"""The recordings that a model is calibrated on, as options of a command."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from samaf.cli.common import count
from samaf.errors import ModelError


def add_material(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options; held-out recordings may be required."""
    parser.add_argument(
        "--held-out",
        nargs="+",
        required=required,
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


def material(args: argparse.Namespace) -> tuple[list[list[Path]], list[Path], dict[str, Any]]:
    """Held-out recordings by their kind, those to search among, and further options of a calibration."""
    if importlib.util.find_spec("scipy") is None:
        raise ModelError(
            "calibrating needs scipy, which is not installed; run: pip install 'samaf[calibrate]'"
        )
    from samaf.model.augment import Sources
    from samaf.model.calibrate import read_copies
    from samaf.model.corpus import find_audio

    kinds = [find_audio([place]) for place in args.held_out]
    held_out = {path for kind in kinds for path in kind}
    library = [path for path in find_audio(args.library) if path not in held_out]
    return (
        kinds,
        library,
        {
            "sources": Sources(find_audio(args.noise), find_audio(args.ir), sorted(held_out)),
            "copies": read_copies(args.copies) if args.copies else None,
            "queries": args.queries,
            "seed": args.seed,
        },
    )
