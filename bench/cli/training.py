"""What the commands share that train networks: options, the recordings they name, and what is told meanwhile."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.cli.common import names, say, seed
from samaf.cli.common import count, counted, positive, print_json, progress_bar
from samaf.errors import ModelError, shown

MINUTES = 80.0


class OutOfTimeError(Exception):
    """What was to be done took longer than it might."""


def add_time(parser: argparse.ArgumentParser) -> None:
    """Add the option that says when a reproduction stops."""
    parser.add_argument(
        "--minutes", type=positive, default=MINUTES, metavar="X", help=f"stop after so long ({MINUTES:g})"
    )


def out_of_time(args: argparse.Namespace) -> None:
    """Say that it has stopped, and how it goes on."""
    say(f"stopped after {args.minutes:g} minutes, as --minutes says; the same command goes on")


def until(deadline: float, progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """`progress` that raises :class:`OutOfTimeError` when the deadline, of :func:`time.monotonic`, is over."""

    def told(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if time.monotonic() > deadline:
            raise OutOfTimeError

    return told


def train_and_measure(
    args: argparse.Namespace,
    wanted: Sequence[Any],
    train_missing: Callable[..., None],
    protocol: Any,
    deadline: float,
) -> None:
    """Train each network that is missing and put it through a protocol, until time is up.

    Parameters
    ----------
    train_missing
        Of the networks' family.
    protocol
        With a method ``measure``, which asks before each of its parts whether to go on.
    deadline
        On the clock of :func:`time.monotonic`.
    """
    try:
        for parameters in wanted:
            train_missing(args, parameters, deadline=deadline, any_recipe=True)
            protocol.measure(parameters, lambda: time.monotonic() < deadline)
            if time.monotonic() > deadline:
                raise OutOfTimeError
    except OutOfTimeError:
        out_of_time(args)


def need_tensorflow() -> None:
    """Say how to get it, where it is missing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError(
            "training needs TensorFlow, which is not installed; run: pip install 'samaf[train,bench]'"
        )


def add_training(
    parser: argparse.ArgumentParser,
    presets: Sequence[str],
    *,
    kinds: Sequence[str] = ("music",),
    needs_manifest: bool = False,
) -> argparse._ArgumentGroup:
    """Add the options that say what networks are trained on, and how; gives their group.

    Parameters
    ----------
    presets
        The quick one, and the document's own.
    kinds
        Of the tracks, where nobody says otherwise.
    """
    training = parser.add_argument_group("training")
    source = training.add_mutually_exclusive_group(required=True)
    if not needs_manifest:
        source.add_argument("--data", type=Path, nargs="+", metavar="DIR", help="audio to train on")
    source.add_argument(
        "--manifest", type=Path, metavar="FILE", help="a CSV with the columns path, kind and split"
    )
    training.add_argument("--split", metavar="NAME", default="train", help="split that is trained on (train)")
    training.add_argument(
        "--kind",
        type=names,
        default=tuple(kinds),
        metavar="KINDS",
        help=f"kinds of tracks ({','.join(kinds)})",
    )
    small, full = presets
    training.add_argument(
        "--preset",
        choices=presets,
        default=small,
        help=f"{small}: minutes on two cores; {full}: in full",
    )
    training.add_argument(
        "--training-seed", type=seed, default=0, metavar="N", help="of the training's draws (0)"
    )
    parser.set_defaults(data=None)
    return training


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


def add_calibration(parser: argparse._ActionsContainer) -> None:
    """Add the options that say what models are calibrated on."""
    parser.add_argument(
        "--calibrate-on",
        metavar="SPLIT",
        default="dev",
        help="split whose clips say what matches are worth (dev)",
    )
    parser.add_argument(
        "--queries", type=count, metavar="N", help="clips of each length of each kind (up to 200)"
    )


@dataclass(frozen=True)
class Calibration:
    """The recordings that models are calibrated on.

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


def calibration_of(args: argparse.Namespace) -> Calibration:
    """What the options name.

    Raises
    ------
    CorpusError, ModelError
        If there are no such recordings, or networks are trained on them.
    """
    from bench.corpus import TRACK_KINDS, CorpusError, paths_of, read_rows

    if not args.manifest:
        raise ModelError(
            "models are calibrated on recordings that no network was trained on; give a --manifest"
        )
    of = partial(paths_of, read_rows(args.manifest), args.manifest)
    held_out = [found for kind in TRACK_KINDS if (found := of(args.calibrate_on, kind))]
    if not held_out or args.calibrate_on == args.split:
        raise CorpusError(
            f"{args.manifest}: no tracks to calibrate on in another split; name one with --calibrate-on"
        )
    return Calibration(held_out, of(args.split, *TRACK_KINDS), of(args.split, "noise"), of(args.split, "ir"))


def is_there(folder: Path, wanted: dict[str, Any], *, any_recipe: bool = False) -> bool:
    """Whether a network is there that was trained as wanted.

    Parameters
    ----------
    wanted
        What tells its training from others.
    any_recipe
        A network that was trained on the same recordings in another way will do.

    Raises
    ------
    ModelError
        If one is there that was trained otherwise.
    """
    from baselines.training import training_of

    there = training_of(folder)
    if there is None:
        return False
    if there == wanted:
        say(f"{folder}: is there, trained so")
        return True
    if there.get("data") != wanted["data"]:
        raise ModelError(
            f"{shown(folder)}: was trained on other audio; name another folder with --weights, or remove it"
        )
    if not any_recipe:
        raise ModelError(
            f"{shown(folder)}: was trained otherwise; name another folder with --weights, or remove it"
        )
    say(f"{folder}: is there, trained in another way")
    return True


@dataclass(frozen=True)
class Told:
    """What a training is given to tell by: of files prepared, and of epochs."""

    progress: Callable[[int, int, str], None]
    epoch_done: Callable[[int, int, dict[str, float]], None]


@contextmanager
def telling(
    args: argparse.Namespace, label: str, deadline: float | None, *, calibrates: bool = False
) -> Iterator[Told]:
    """Tell on stderr, and in JSON if that is asked for, what becomes of a network.

    Parameters
    ----------
    deadline
        On the clock of :func:`time.monotonic`; an epoch that ends after it raises :class:`OutOfTimeError`.
    calibrates
        After the last epoch there is much to do yet.
    """
    start = time.monotonic()

    def epoch_done(epoch: int, epochs: int, measures: dict[str, float]) -> None:
        if getattr(args, "json", False):
            print_json({"network": label, "epochs": epochs, **measures})
        told = "  ".join(f"{name} {value:.4f}" for name, value in measures.items() if name != "epoch")
        say(f"{label}: epoch {epoch}/{epochs}  {time.monotonic() - start:.0f} s  {told}")
        if deadline and time.monotonic() > deadline and (epoch < epochs or calibrates):
            raise OutOfTimeError

    with progress_bar("preparing") as bar:
        yield Told(counted(bar), epoch_done)
