"""`bench train`: trains the networks of the systems that have some."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import NETWORKS, add_networks, names, networks_of, say, seed
from samaf.cli.common import DONE, add_json, count, counted, print_json, progress_bar
from samaf.errors import ModelError, shown

if TYPE_CHECKING:
    from baselines.contrastive import ContrastiveParameters
    from baselines.signs import SignsParameters

PRESETS = ("small", "full")

_EXAMPLES = """\
examples:
  bench train contrastive --encoder resnet --data ~/Music
  bench train contrastive --encoder cnn,lstm --manifest audio/manifest.csv --split train --kind music
  bench train contrastive --preset full --values 64,128 --data ~/Music --weights networks

The same command goes on where it was stopped.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train the networks of other systems",
        description="Train the networks that other systems need before they can be compared. Needs TensorFlow: "
        "pip install 'samaf[train,bench]'.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("system", choices=NETWORKS, metavar="SYSTEM", help=", ".join(NETWORKS))
    add_training(parser)
    signs = parser.add_argument_group("signs")
    signs.add_argument(
        "--calibrate-on",
        metavar="SPLIT",
        default="dev",
        help="split whose clips say what signs are worth (dev)",
    )
    signs.add_argument(
        "--queries", type=count, metavar="N", help="clips of each length of each kind (up to 200)"
    )
    add_networks(parser)
    add_json(parser, "one JSON object per epoch on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what the options name, one network after the other."""
    need_tensorflow()
    from baselines.signs import SignsParameters

    wanted = [SignsParameters(**options) for options in networks_of(args)]
    to_calibrate = _calibration(args, wanted) if args.system == "signs" else None
    for parameters in wanted:
        train_missing(args, parameters)
        if to_calibrate:
            calibrate(args, parameters, to_calibrate)
    return DONE


def need_tensorflow() -> None:
    """Say how to get it, where it is missing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError(
            "training needs TensorFlow, which is not installed; run: pip install 'samaf[train,bench]'"
        )


@dataclass(frozen=True)
class Calibration:
    """The recordings that signs are calibrated on.

    Attributes
    ----------
    held_out
        By kind.
    library, noise, rooms
        Of the split that networks are trained on.
    """

    held_out: list[list[Path]]
    library: list[Path]
    noise: list[Path]
    rooms: list[Path]


def _calibration(args: argparse.Namespace, wanted: Sequence[SignsParameters]) -> Calibration:
    """What the options name; refused before anything is trained, if it will not do."""
    from baselines.signs import check_bits
    from bench.corpus import TRACK_KINDS, CorpusError, paths_of, read_rows

    for parameters in wanted:
        check_bits(parameters)
    if not args.manifest:
        raise ModelError(
            "signs are calibrated on recordings that no network was trained on; give a --manifest"
        )
    of = partial(paths_of, read_rows(args.manifest), args.manifest)
    held_out = [found for kind in TRACK_KINDS if (found := of(args.calibrate_on, kind))]
    if not held_out or args.calibrate_on == args.split:
        raise CorpusError(
            f"{args.manifest}: no tracks to calibrate on in another split; name one with --calibrate-on"
        )
    return Calibration(held_out, of(args.split, *TRACK_KINDS), of(args.split, "noise"), of(args.split, "ir"))


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


class OutOfTimeError(Exception):
    """What was to be done took longer than it might."""


def add_training(parser: argparse.ArgumentParser, *, needs_manifest: bool = False) -> None:
    """Add the options that say what networks are trained on, and how long."""
    training = parser.add_argument_group("training")
    source = training.add_mutually_exclusive_group(required=True)
    if not needs_manifest:
        source.add_argument("--data", type=Path, nargs="+", metavar="DIR", help="audio to train on")
    source.add_argument(
        "--manifest", type=Path, metavar="FILE", help="a CSV with the columns path, kind and split"
    )
    training.add_argument("--split", metavar="NAME", default="train", help="split that is trained on (train)")
    training.add_argument(
        "--kind", type=names, default=("music",), metavar="KINDS", help="kinds of tracks (music)"
    )
    training.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="small: minutes on two cores; full: as in the papers",
    )
    training.add_argument("--steps", type=count, metavar="N", help="training steps (the preset's)")
    training.add_argument(
        "--training-seed", type=seed, default=0, metavar="N", help="of the training's draws (0)"
    )
    parser.set_defaults(data=None)


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
        from baselines.training import training_of
    from baselines.encoders.batches import key_of
    from samaf.settings import processors

    folder, paths = parameters.folder, recordings_of(args)
    shape, recipe = training.preset(args.preset, parameters.encoder, parameters.values, parameters.projection)
    if args.steps:
        recipe = replace(recipe, steps=args.steps)
    wanted, there = (
        training.about_of(shape, recipe, args.training_seed, key_of(paths)),
        training_of(folder),
    )
    if there == wanted:
        say(f"{folder}: is there, trained so")
        return
    if there is not None and there.get("data") != wanted["data"]:
        raise ModelError(
            f"{shown(folder)}: was trained on other audio; name another folder with --weights, or remove it"
        )
    if there is not None and any_recipe:
        say(f"{folder}: is there, trained in {there.get('steps')} steps")
        return
    if there is not None:
        raise ModelError(
            f"{shown(folder)}: was trained otherwise; name another folder with --weights, or remove it"
        )
    start = time.monotonic()
    label = f"{parameters.encoder}, {parameters.values} values"
    with progress_bar("preparing") as bar:

        def epoch_done(epoch: int, epochs: int, measures: dict[str, float]) -> None:
            if getattr(args, "json", False):
                print_json({"network": label, "epochs": epochs, **measures})
            told = "  ".join(f"{name} {value:.4f}" for name, value in measures.items() if name != "epoch")
            say(f"{label}: epoch {epoch}/{epochs}  {time.monotonic() - start:.0f} s  {told}")
            if deadline and time.monotonic() > deadline and epoch < epochs:
                raise OutOfTimeError

        training.train(
            paths,
            folder,
            shape,
            recipe,
            audio=folder.parent / "audio",
            seed=args.training_seed,
            jobs=processors(),
            progress=counted(bar),
            epoch_done=epoch_done,
        )
    say(f"wrote {folder}")


def recordings_of(args: argparse.Namespace) -> list[Path]:
    """The files that the options name."""
    from bench.corpus import CorpusError, paths_of, read_rows
    from samaf.model.corpus import find_audio

    if args.data:
        paths = find_audio(args.data)
    else:
        paths = sorted(paths_of(read_rows(args.manifest), args.manifest, args.split, *args.kind))
    if not paths:
        raise CorpusError(f"{args.manifest or args.data[0]}: no audio to train on")
    return paths
