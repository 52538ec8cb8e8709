"""`samaf train`: a model of one's own."""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samaf.cli.common import (
    DONE,
    add_json,
    between,
    code_lengths,
    complain,
    console,
    count,
    counted,
    plain,
    print_json,
    progress_bar,
    weights_file,
)
from samaf.errors import ModelError, shown

_EXAMPLES = """\
examples:
  samaf train --data ~/Music --out mine.npz
  samaf train --data music/ speech/ --noise street/ --ir rooms/ --steps 20000
  samaf train --data speech/ --preset paper --bits 256     the configuration of the SAMAF paper
  samaf train --data ~/Music --preset cnn            a convolutional network in the LSTM's place
  samaf train --data ~/Music --teacher mine.npz --units 128 --out small.npz      learns from another model
  samaf train --data ~/Music --from mine.npz --units 256 --out narrow.npz        its most important units
  samaf train --data ~/Music --from mine.npz --prune 0.7 --out sparse.npz        most of its weights at 0
  samaf index add --db mine.samafdb --model mine.npz ~/Music

The same command goes on where it was stopped: the work folder beside the model holds the rendered audio and the
state after each epoch.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a model on your own audio (needs TensorFlow)",
        description="Train a model on folders of audio. Needs TensorFlow, and matplotlib for a plot of the training: "
        "pip install 'samaf[train]'.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="audio to train on")
    parser.add_argument(
        "--noise", nargs="+", default=[], metavar="DIR", help="noises to mix in (default: synthetic)"
    )
    parser.add_argument(
        "--ir", nargs="+", default=[], metavar="DIR", help="impulse responses of rooms (default: synthetic)"
    )
    parser.add_argument(
        "-o", "--out", default="model.npz", metavar="FILE", help="weights (default model.npz)"
    )
    parser.add_argument(
        "--preset", choices=("samaf", "samaf-4", "cnn", "paper"), default="samaf", help="default samaf"
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="FILE",
        help="begin with the encoder of a weights file: a fine-tuning, with the file's front end and code lengths",
    )
    parser.add_argument(
        "--units",
        type=count,
        metavar="N",
        help="size of the network (default: the preset's); with --from the LSTM's N most important units",
    )
    parser.add_argument(
        "--prune",
        type=between,
        metavar="SHARE",
        help="with --from: share of the weights to be 0, those nearest to it",
    )
    parser.add_argument(
        "--teacher", metavar="FILE", help="learn from the model of a weights file as well, by its codes"
    )
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="training steps (default: the preset's; with --from 2000)",
    )
    parser.add_argument(
        "--bits",
        type=code_lengths,
        metavar="N,N",
        help="code lengths, of 64, 128, 256 (default: the preset's); not with --from",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="processes that render audio (default: one for each processor it may use)",
    )
    add_json(parser, "one JSON object per epoch on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, showing progress and the measures of each epoch."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError("training needs TensorFlow, which is not installed; run: pip install 'samaf[train]'")
    out = weights_file(args.out)
    if args.prune and not args.start:
        raise ModelError(f"{shown(out)}: --prune is for a trained model; give it with --from")
    from samaf.model.presets import PRESETS, fine_tuning
    from samaf.picture import NEEDED, can_draw

    preset = PRESETS[args.preset]
    if args.start:
        from samaf.encoder import load_weights

        begun = load_weights(args.start)
        if args.preset == "cnn" and begun.body.kind != "cnn":
            raise ModelError(
                f"{shown(args.start)}: is an {begun.body.kind}, and stays one; leave --preset cnn out, or --from"
            )
        preset = fine_tuning(preset, begun, taught=bool(args.teacher))

    if not can_draw():
        complain(f"the training will have no plot: {NEEDED}")
    with quiet():
        from samaf.model.fit import train

    notes = console(stderr=True)
    start = time.monotonic()
    with progress_bar("rendering") as bar:

        def epoch_done(epoch: int, epochs: int, logs: dict[str, float]) -> None:
            measures = {name: float(value) for name, value in logs.items()}
            if args.json:
                print_json({"epoch": epoch, "epochs": epochs, **measures})
            text = "  ".join(f"{name} {value:.4f}" for name, value in measures.items())
            notes.print(f"epoch {epoch}/{epochs}  {time.monotonic() - start:.0f} s  {text}")

        train(
            args.data,
            noise=args.noise,
            rooms=args.ir,
            out=out,
            preset=preset.with_options(bits=args.bits, steps=args.steps, units=args.units),
            start=Path(args.start) if args.start else None,
            prune=args.prune,
            teacher=Path(args.teacher) if args.teacher else None,
            seed=args.seed,
            jobs=args.jobs or 0,
            progress=counted(bar),
            epoch_done=epoch_done,
        )
    notes.print(f"wrote {plain(str(out))}")
    return DONE


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow's notes off the terminal; those of its start go straight to the descriptor, so it moves."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
