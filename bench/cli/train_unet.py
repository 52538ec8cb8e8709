"""`bench train unet`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import add_autoencoders, add_weights, autoencoders_of, say
from bench.cli.training import add_training, is_there, need_tensorflow, recordings_of, telling
from samaf.cli.common import DONE, add_json, count

if TYPE_CHECKING:
    from baselines.unet import UNetParameters

PRESETS = ("small", "paper")
KINDS = ("music", "speech")

_EXAMPLES = """\
examples:
  bench train unet --data ~/Music
  bench train unet --manifest audio/manifest.csv --features normalised,plain
  bench train unet --preset paper --front-end paper --manifest audio/manifest.csv

The same command goes on where it was stopped.
"""


def add_parsers(systems: Any) -> None:
    """Add unet to the command."""
    parser = systems.add_parser(
        "unet",
        help="a U-Net autoencoder of spectrograms",
        description="Train the U-Net autoencoder of Singh (2025) on 70 % of the recordings; 15 % tell after each epoch "
        "how good it is, and 15 % are left for `bench reproduce unet`. The manifest's noise of the same split is laid "
        "over half of the clips; without any, coloured noise is made.",
        epilog=_EXAMPLES,
    )
    add_autoencoder_training(parser)
    add_autoencoders(parser)
    add_weights(parser)
    add_json(parser, "one JSON object per epoch on stdout")
    parser.set_defaults(run=run)


def add_autoencoder_training(parser: argparse.ArgumentParser, *, needs_manifest: bool = False) -> None:
    """Add the options of an autoencoder's training."""
    training = add_training(parser, PRESETS, kinds=KINDS, needs_manifest=needs_manifest)
    training.add_argument("--clips", type=count, metavar="N", help="clips to train on (the preset's)")


def run(args: argparse.Namespace) -> int:
    """Train what the options name, one network after the other."""
    need_tensorflow()
    from baselines.unet import UNetParameters

    for options in autoencoders_of(args):
        train_missing(args, UNetParameters(**options))
    return DONE


def noises_of(args: argparse.Namespace) -> list[Path]:
    """The recordings of noise of the split that is trained on."""
    from bench.corpus import paths_of, read_rows

    if not args.manifest:
        return []
    return sorted(paths_of(read_rows(args.manifest), args.manifest, args.split, "noise"))


def train_missing(
    args: argparse.Namespace,
    parameters: UNetParameters,
    *,
    deadline: float | None = None,
    any_recipe: bool = False,
) -> None:
    """Train a network, unless it is there; as :func:`bench.cli.train_contrastive.train_missing`."""
    from samaf.cli.train import quiet

    with quiet():
        import baselines.autoencoder.training as training
    from baselines.autoencoder.clips import key_of
    from samaf.settings import processors

    folder, paths, noises = parameters.folder, recordings_of(args), noises_of(args)
    recipe = training.RECIPES[args.preset][parameters.features]
    if args.clips:
        recipe = replace(recipe, clips=args.clips)
    data = key_of(paths, noises)
    wanted = training.about_of(parameters.front_end, parameters.features, recipe, args.training_seed, data)
    if is_there(folder, wanted, any_recipe=any_recipe):
        return
    with telling(args, parameters.title, deadline) as told:
        training.train(
            paths,
            noises,
            folder,
            parameters.front_end,
            parameters.features,
            recipe,
            audio=folder.parent / "audio",
            seed=args.training_seed,
            jobs=processors(),
            progress=told.progress,
            epoch_done=told.epoch_done,
        )
    say(f"wrote {folder}")
