"""`samaf export`: a weights file out of a training, or a smaller one out of a weights file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from samaf.cli.common import (
    DONE,
    add_json,
    console,
    counted,
    plain,
    print_json,
    progress_bar,
    weights_file,
)
from samaf.cli.material import add_material, material
from samaf.errors import ModelError, shown

_EXAMPLES = """\
examples:
  samaf export model.npz.work -o early.npz           the model as it is after the last epoch
  samaf export model.npz.work -o small.npz --quantise int8
  samaf export mine.npz -o small.npz --quantise int8 --held-out new/ --library music/
  samaf export mine.npz -o small.npz --quantise int8 --compatible --held-out new/ --library music/

A quantised model is another model: an index belongs to it or to the original. With --compatible it passes for the
original, in all its indexes; it is measured first, on distorted clips of the held-out recordings, and not written
unless it surely loses less than half a point of them.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "export",
        help="take the model out of a training's work folder, or make a smaller one",
        description="Write the model of a training's last finished epoch as a weights file, calibrated; or, of a "
        "weights file, one with weights of 8 or 4 bits. A work folder has its own recordings to calibrate on, a "
        "weights file needs some.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="work folder of `samaf train`, which is the weights file's name + .work; or a weights file",
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the weights file to write")
    parser.add_argument(
        "--quantise", choices=("int8", "int4"), help="weights in 8 bits, half the size; or in 4, a quarter"
    )
    parser.add_argument(
        "--compatible",
        action="store_true",
        help="keep the original's id, so that its indexes take the quantised model, if it loses next to nothing",
    )
    add_material(parser, required=False)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export."""
    source, out = Path(args.source), weights_file(args.out)
    if out.exists() and source.exists() and out.samefile(source):
        raise ModelError(f"{shown(out)}: is what the model is made of; name another file with -o")
    if not out.parent.is_dir() or out.is_dir():
        what = "is a folder" if out.is_dir() else f"there is no folder {shown(out.parent)}"
        raise ModelError(f"{shown(out)}: cannot be written ({what}); name another file with -o")
    if args.compatible and not args.quantise:
        raise ModelError(
            f"{shown(source)}: --compatible is for a quantised model; add --quantise int8, or leave it out"
        )
    is_folder = source.is_dir()
    if is_folder and (args.held_out or args.library or args.noise or args.ir or args.copies):
        raise ModelError(
            f"{shown(source)}: a work folder has its own recordings; leave --held-out, --library, --noise, --ir and "
            "--copies out"
        )
    if not is_folder and not (args.quantise and args.held_out):
        raise ModelError(
            f"{shown(source)}: no work folder of `samaf train`; give one, or a weights file with --quantise and "
            "--held-out"
        )
    from samaf.model.export import export_checkpoint, export_quantised
    from samaf.weights import Weights

    with progress_bar("calibrating") as bar:
        options: dict[str, Any] = {
            "storage": args.quantise,
            "compatible": args.compatible,
            "progress": counted(bar),
        }
        if is_folder:
            export_checkpoint(source, out, queries=args.queries, **options)
        else:
            held_out, library, more = material(args)
            export_quantised(source, out, held_out, library, **options, **more)
    weights = Weights.load(out)
    if args.json:
        told = {
            "file": args.out,
            "model_id": weights.model_id,
            "bits": weights.bits,
            "bytes": out.stat().st_size,
        }
        last = {"last_epoch": weights.facts.get("last_epoch", {})}
        if args.compatible:
            last["compatible"] = weights.facts["compatible"]
        print_json(told | last)
    console(stderr=True).print(f"wrote {plain(args.out)} (model {weights.model_id[:12]})")
    return DONE
