"""`bench reproduce compression`: the smaller models of one, and what they lose."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import (
    Bars,
    add_model,
    add_weights,
    names,
    on_one_core,
    plan_of,
    say,
    say_what_is_missing,
)
from bench.cli.compression import add_comparison, compare
from bench.cli.run import RESULTS
from bench.cli.training import (
    OutOfTimeError,
    add_calibration,
    add_time,
    add_training,
    calibration_of,
    need_tensorflow,
    out_of_time,
    recordings_of,
    telling,
    until,
)
from samaf.cli.common import DONE, FAILED, count

if TYPE_CHECKING:
    from bench.corpus import Corpus
    from bench.smaller import Recipe

SMALL_STEPS, SMALL_TUNING_STEPS, SMALL_QUERIES = 2500, 500, 40
"""At the preset small: of a new network; of a fine-tuning; clips of a length of a kind in a calibration."""

_EXAMPLES = """\
examples:
  bench reproduce compression --manifest audio/manifest.csv
  bench reproduce compression --manifest audio/manifest.csv --only int8,int4,student --model mine.npz

A run that was stopped, by a key or by --minutes, goes on with the same command.
"""


def add_parsers(systems: Any) -> None:
    """Add the experiment to the command."""
    parser = systems.add_parser(
        "compression",
        help="smaller models for small devices",
        description="Make smaller models of one, unless that is done: with weights of 8 and 4 bits; fine-tuned without "
        "the smallest weights, or of the most important units alone (ten sizes), with the model as teacher; a student "
        "of a third of the units, taught for longer; and without a teacher a network of its size and a convolutional "
        "one of as many multiplications. All are calibrated alike. Then compare them as `bench compression` does.",
        epilog=_EXAMPLES,
    )
    training = add_training(parser, ("small", "samaf"), kinds=("music", "speech"), needs_manifest=True)
    training.add_argument("--steps", type=count, metavar="N", help="training steps of each (the preset's)")
    training.add_argument(
        "--only",
        type=names,
        metavar="NAME,NAME",
        help="make these alone, as in int8,pruned-50,units-67,student",
    )
    add_calibration(training)
    add_model(training)
    parser.add_argument(
        "--check", metavar="SPLIT", default="check", help="split whose recordings are asked for (check)"
    )
    parser.add_argument(
        "--library",
        type=names,
        default=("train", "dev"),
        metavar="SPLITS",
        help="splits whose tracks join the library (train,dev)",
    )
    add_comparison(parser)
    add_time(parser)
    add_weights(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"results ({RESULTS}/reproduce-compression)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the models, compare them, print."""
    need_tensorflow()
    from bench.compression import each_once, models_of
    from samaf.cli.train import quiet
    from samaf.weights import DEFAULT_PATH

    with quiet():
        from bench import smaller
    deadline = time.monotonic() + 60.0 * args.minutes
    out: Path = args.out or RESULTS / "reproduce-compression"
    source = Path(args.model or DEFAULT_PATH)
    smaller.check(source, args.bits)
    made = {recipe: _file(args, recipe) for recipe in smaller.chosen(args.only or smaller.NAMES)}
    each_once([source, *made.values()])
    corpus = _compared_on(args, out)
    try:
        _make(args, source, made, deadline)
        on_one_core()
        models = models_of([source, *made.values()], args.bits)
        with Bars() as bars:
            compare(args, models, corpus, out, until(deadline, bars.progress), bars.note)
    except OutOfTimeError:
        out_of_time(args)
        return FAILED
    return DONE


def _file(args: argparse.Namespace, recipe: Recipe) -> Path:
    """Where a model lies, or will lie."""
    from baselines.networks import default_root

    root: Path = args.weights or default_root()
    return root / "compression" / f"{recipe.name}.npz"


def _compared_on(args: argparse.Namespace, out: Path) -> Corpus:
    """What models are compared on; what cannot be is said before they are made."""
    from bench.corpus import TRACK_KINDS, read_manifest
    from bench.protocol import cells_of

    corpus = read_manifest(
        args.manifest,
        out / "cache" / "generated",
        split=args.check,
        kinds=TRACK_KINDS,
        library=args.library,
        seed=args.seed,
    )
    say_what_is_missing(corpus.skipped, corpus.notes)
    cells_of(corpus, plan_of(args))
    return corpus


def _make(args: argparse.Namespace, source: Path, wanted: Mapping[Recipe, Path], deadline: float) -> None:
    """Make the models that are missing."""
    from bench import smaller
    from samaf.model.augment import Sources
    from samaf.settings import processors

    on = calibration_of(args)
    audio = smaller.Audio(
        recordings_of(args),
        Sources(on.noise, on.rooms, [path for some in on.held_out for path in some]),
        on.held_out,
        on.library,
    )
    small = args.preset == "small"
    amount = smaller.Amount(
        steps=args.steps or (SMALL_STEPS if small else None),
        tuning_steps=args.steps or (SMALL_TUNING_STEPS if small else None),
        queries=args.queries or (SMALL_QUERIES if small else None),
        seed=args.training_seed,
    )
    for recipe, file in wanted.items():
        if smaller.is_there(recipe, source, file, audio, amount):
            say(f"{file}: is there")
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        with telling(args, recipe.name, deadline, calibrates=True) as told:
            smaller.make(
                recipe,
                source,
                file,
                audio,
                amount,
                jobs=processors(),
                progress=told.progress,
                epoch_done=told.epoch_done,
            )
        say(f"wrote {file}")
        if time.monotonic() > deadline:
            raise OutOfTimeError
