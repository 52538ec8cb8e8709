"""`bench train contrastive` and `bench train signs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.cli.common import add_encoders, add_weights, encoders_of, say
from bench.cli.training import (
    Calibration,
    add_calibration,
    add_training,
    calibration_of,
    is_there,
    need_tensorflow,
    recordings_of,
    telling,
)
from samaf.cli.common import DONE, add_json, count, counted, progress_bar

if TYPE_CHECKING:
    from baselines.contrastive import ContrastiveParameters
    from baselines.signs import SignsParameters

PRESETS = ("small", "full")

_EXAMPLES = """\
examples:
  bench train contrastive --encoder resnet --data ~/Music
  bench train contrastive --encoder cnn,lstm --manifest audio/manifest.csv --split train --kind music
  bench train contrastive --preset full --values 64,128 --data ~/Music --weights networks
  bench train signs --encoder resnet --values 128 --manifest audio/manifest.csv

The same command goes on where it was stopped.
"""


def add_parsers(systems: Any) -> None:
    """Add contrastive and signs to the command."""
    contrastive = systems.add_parser(
        "contrastive",
        help="contrastively trained encoders",
        description="Train the encoders that the KAIST report compares.",
        epilog=_EXAMPLES,
    )
    signs = systems.add_parser(
        "signs",
        help="the same, and a calibration of their signs",
        description="Train these encoders, and find out what the signs of their embeddings are worth.",
        epilog=_EXAMPLES,
    )
    for parser, run in ((contrastive, train), (signs, train_and_calibrate)):
        add_encoder_training(parser)
        add_encoders(parser)
        add_weights(parser)
        add_json(parser, "one JSON object per epoch on stdout")
        parser.set_defaults(run=run)
    add_calibration(signs)


def add_encoder_training(parser: argparse.ArgumentParser, *, needs_manifest: bool = False) -> None:
    """Add the options of an encoder's training."""
    training = add_training(parser, PRESETS, needs_manifest=needs_manifest)
    training.add_argument("--steps", type=count, metavar="N", help="training steps (the preset's)")


def train(args: argparse.Namespace) -> int:
    """Train what the options name, one network after the other."""
    need_tensorflow()
    from baselines.contrastive import ContrastiveParameters

    for options in encoders_of(args):
        train_missing(args, ContrastiveParameters(**options))
    return DONE


def train_and_calibrate(args: argparse.Namespace) -> int:
    """The same, and calibrate their signs."""
    need_tensorflow()
    from baselines.signs import SignsParameters

    wanted = [SignsParameters(**options) for options in encoders_of(args)]
    on = _calibration(args, wanted)
    for parameters in wanted:
        train_missing(args, parameters)
        calibrate(args, parameters, on)
    return DONE


def _calibration(args: argparse.Namespace, wanted: Sequence[SignsParameters]) -> Calibration:
    """What the options name; refused before anything is trained, if it will not do."""
    from baselines.signs import check_bits

    for parameters in wanted:
        check_bits(parameters)
    return calibration_of(args)


def calibrate(args: argparse.Namespace, parameters: SignsParameters, on: Calibration) -> None:
    """Calibrate the signs of a network, unless that is done."""
    from baselines import signs
    from samaf.model.augment import Sources

    place = parameters.folder / signs.CALIBRATION
    if signs.is_calibrated(parameters):
        say(f"{place}: is there")
        return
    with progress_bar("calibrating") as bar:
        signs.calibrate(
            parameters,
            on.held_out,
            on.library,
            sources=Sources(on.noise, on.rooms, [path for some in on.held_out for path in some]),
            queries=args.queries,
            progress=counted(bar),
        )
    say(f"wrote {place}")


def train_missing(
    args: argparse.Namespace,
    parameters: ContrastiveParameters,
    *,
    deadline: float | None = None,
    any_recipe: bool = False,
) -> None:
    """Train a network, unless it is there.

    Parameters
    ----------
    deadline
        On the clock of :func:`time.monotonic`.
    any_recipe
        A network that was trained on the same recordings in another way will do.

    Raises
    ------
    ModelError
        If a network is there that was trained otherwise.
    OutOfTimeError
        If the deadline passes; what is done is kept.
    """
    from samaf.cli.train import quiet

    with quiet():
        import baselines.encoders.training as training
    from baselines.encoders.batches import key_of
    from samaf.settings import processors

    folder, paths = parameters.folder, recordings_of(args)
    shape, recipe = training.preset(args.preset, parameters.encoder, parameters.values, parameters.projection)
    if args.steps:
        recipe = replace(recipe, steps=args.steps)
    wanted = training.about_of(shape, recipe, args.training_seed, key_of(paths))
    if is_there(folder, wanted, any_recipe=any_recipe):
        return
    with telling(args, f"{parameters.encoder}, {parameters.values} values", deadline) as told:
        training.train(
            paths,
            folder,
            shape,
            recipe,
            audio=folder.parent / "audio",
            seed=args.training_seed,
            jobs=processors(),
            progress=told.progress,
            epoch_done=told.epoch_done,
        )
    say(f"wrote {folder}")
