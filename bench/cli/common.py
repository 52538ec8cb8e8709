"""What the commands of the bench share: options that say what is compared on which clips, and its progress."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from baselines import SYSTEMS
from baselines.autoencoder import FEATURES, FRONT_ENDS
from baselines.encoders import ENCODERS, PROJECTIONS
from samaf.cli.common import bits, count, hop, plain, positive, progress_bar

if TYPE_CHECKING:
    from rich.progress import TaskID

    from bench.clips import Plan
    from bench.corpus import Corpus, Materials
    from bench.protocol import Entry

GENERATED_PER_CELL = 4
"""Clips a cell that are worth their time where the tracks are generated: a look at how it works."""
RIVALS = [name for name in SYSTEMS if name != "samaf"]


def add_systems(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which systems take part, besides samaf."""
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=RIVALS,
        metavar="NAME",
        help=f"another system ({', '.join(RIVALS)}); may be given several times",
    )
    parser.add_argument(
        "--bits", type=list_of_bits, default=[128], metavar="N,N", help="hash lengths of samaf (128)"
    )
    add_model(parser)
    add_weights(parser)
    encoders = add_encoders(parser)
    encoders.add_argument(
        "--signs-hop",
        type=list_of_hops,
        default=[0.5],
        metavar="S,S",
        help="seconds from one stored hash of signs to the next (0.5)",
    )
    add_autoencoders(parser)


def entries_of(args: argparse.Namespace) -> list[Entry]:
    """Samaf at each hash length, then the other systems."""
    from bench.protocol import entry

    on_one_core()
    entries = [entry("samaf", bits=bits, **model_of(args)) for bits in args.bits]
    for name in dict.fromkeys(args.baseline):
        of_networks = NETWORKS[name](args) if name in NETWORKS else [{}]
        hops = [{"hop_s": hop_s} for hop_s in args.signs_hop] if name == "signs" else [{}]
        entries += [entry(name, **options, **stored) for options in of_networks for stored in hops]
    return entries


def on_one_core() -> None:
    """Let TensorFlow, when it is loaded, use one: systems are compared on one core each."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where trained networks lie."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder that `bench train` puts networks into (the user's cache folder)",
    )


def add_encoders(
    parser: argparse.ArgumentParser, systems: Sequence[str] = ("contrastive", "signs")
) -> argparse._ArgumentGroup:
    """Add the options that say which encoders of some systems take part; gives their group."""
    networks = parser.add_argument_group(f"networks of {' and '.join(systems)}")
    networks.add_argument(
        "--encoder",
        type=names_of("encoder", ENCODERS),
        default=("resnet",),
        metavar="NAME,NAME",
        help=f"encoders ({', '.join(ENCODERS)}; resnet)",
    )
    networks.add_argument(
        "--values", type=list_of(count), default=[64], metavar="N,N", help="values of an embedding (64)"
    )
    networks.add_argument(
        "--projection",
        type=names_of("projection", PROJECTIONS),
        default=("divided",),
        metavar="NAME,NAME",
        help=f"how an encoder's vector becomes an embedding ({', '.join(PROJECTIONS)}; divided)",
    )
    return networks


def add_autoencoders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which U-Net autoencoders take part."""
    networks = parser.add_argument_group("networks of unet")
    networks.add_argument(
        "--front-end",
        type=names_of("front end", FRONT_ENDS),
        default=FRONT_ENDS[:1],
        metavar="NAME,NAME",
        help=f"spectrograms ({', '.join(FRONT_ENDS)}, at 48 kHz; {FRONT_ENDS[0]})",
    )
    networks.add_argument(
        "--features",
        type=names_of("kind of features", FEATURES),
        default=FEATURES[:1],
        metavar="NAME,NAME",
        help=f"what is made of them ({', '.join(FEATURES)}; {FEATURES[0]})",
    )


def encoders_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The parameters of each contrastively trained encoder that the options name."""
    return [
        {
            "encoder": encoder,
            "values": values,
            "projection": projection,
            **_weights_of(args),
        }
        for encoder in args.encoder
        for values in args.values
        for projection in args.projection
    ]


def autoencoders_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The parameters of each U-Net autoencoder that the options name."""
    return [
        {"front_end": front_end, "features": features, **_weights_of(args)}
        for front_end in args.front_end
        for features in args.features
    ]


def _weights_of(args: argparse.Namespace) -> dict[str, str]:
    return {"weights": os.path.abspath(args.weights)} if args.weights else {}


NETWORKS = {"contrastive": encoders_of, "signs": encoders_of, "unet": autoencoders_of}
"""Systems that are trained before they are compared, and what gives the parameters of those that the options name."""


def names_of(what: str, known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Reads names with commas between them, of those that there are."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(names(text)))
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"no {what} is called {name!r}; there are {', '.join(known)}"
                )
        return found

    return read


def add_model(parser: argparse._ActionsContainer) -> None:
    """Add the option that names samaf's weights."""
    parser.add_argument("--model", metavar="FILE", help="weights of samaf (default: those that ship)")


def model_of(args: argparse.Namespace) -> dict[str, str]:
    """The parameters of samaf that the option asks for."""
    return {"model": os.path.abspath(args.model)} if args.model else {}


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which audio is used; without any of them a small corpus is generated."""
    data = parser.add_argument_group("audio (without these, tunes and noises are generated)")
    source = data.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, metavar="DIR", help="a folder of audio")
    source.add_argument(
        "--manifest", type=Path, metavar="FILE", help="a CSV with the columns path, kind and split"
    )
    data.add_argument(
        "--split", metavar="NAME", help="the split of the manifest that clips are cut from (all)"
    )
    data.add_argument(
        "--kind", type=names, metavar="KINDS", help="kinds of tracks that clips are cut from (music,speech)"
    )
    data.add_argument(
        "--library",
        type=names,
        default=(),
        metavar="SPLITS",
        help="splits whose tracks join the library, as a crowd to be found in",
    )


def add_lengths(clips: argparse._ArgumentGroup, lengths: str) -> None:
    """Add ``--lengths``."""
    clips.add_argument(
        "--lengths",
        type=list_of(seconds),
        default=list_of(seconds)(lengths),
        metavar="S,S",
        help=f"lengths in seconds ({lengths})",
    )


def add_clips(parser: argparse.ArgumentParser, lengths: str = "2,5,10", per_cell: int = 40) -> None:
    """Add the options that say which clips are cut and what happens to them."""
    clips = parser.add_argument_group("clips")
    add_lengths(clips, lengths)
    clips.add_argument(
        "--conditions",
        type=names,
        default=("evaluation",),
        metavar="NAME,NAME",
        help="what happens to the clips: names such as noise5 or mp3_32_speed1.05, evaluation (26 conditions; the "
        "default), matrix (all there are)",
    )
    clips.add_argument(
        "--per-cell",
        type=count,
        metavar="N",
        help=f"clips for each condition and length ({per_cell}; {GENERATED_PER_CELL} of generated tunes)",
    )
    add_seed(clips)
    parser.set_defaults(usual_per_cell=per_cell)


def add_seed(parser: argparse._ActionsContainer) -> None:
    """Add the option that sets all draws."""
    parser.add_argument("--seed", type=seed, default=1, metavar="N", help="of all draws (1)")


def add_run(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that say how a run is done."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder of the run; one that is there is gone on with (bench-results/{name})",
    )
    parser.add_argument(
        "--jobs", type=count, metavar="N", help="processes (one for each processor it may use)"
    )


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("is empty")
    return found


def seconds(text: str) -> float:
    """Read a clip length."""
    value = positive(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 3600 s")
    return value


def seed(text: str) -> int:
    """Read a seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def list_of(kind):  # type: ignore[no-untyped-def]
    """Read values of a kind with commas between them."""

    def read(text: str) -> list:  # type: ignore[type-arg]
        return list(dict.fromkeys(kind(part) for part in names(text)))

    read.__name__ = f"list of {kind.__name__}"
    return read


list_of_bits, list_of_hops = list_of(bits), list_of(hop)


def corpus_of(args: argparse.Namespace, work: Path) -> Corpus:
    """The audio that the options name; what had to be left out is said on stderr."""
    from bench import corpus

    if args.manifest:
        found = corpus.read_manifest(
            args.manifest,
            work,
            split=args.split,
            kinds=args.kind or corpus.TRACK_KINDS,
            library=args.library,
            seed=args.seed,
        )
    elif args.split or args.kind or args.library:
        raise corpus.CorpusError("--split, --kind and --library go with --manifest")
    elif args.data:
        found = corpus.read_folder(args.data, work, seed=args.seed)
    else:
        say("no --data or --manifest: tunes and noises are generated")
        found = corpus.generate(work, seed=args.seed)
    say_what_is_missing(found.skipped, found.notes)
    return found


def say_what_is_missing(skipped: Iterable[str], notes: Iterable[str]) -> None:
    """Print why recordings were left out, and notes on what stands in for others."""
    for line in [*(f"left out: {reason}" for reason in skipped), *notes]:
        say(line)


def conditions_of(args: argparse.Namespace, **sets: Sequence[str]) -> tuple[str, ...]:
    """The names of the conditions that the option asks for, each once; `sets` are further names for several."""
    from bench.clips import EVALUATION
    from bench.corpus import CorpusError
    from bench.degrade import MATRIX, parse

    conditions: list[str] = []
    for name in args.conditions:
        conditions += {"evaluation": EVALUATION, "matrix": MATRIX, **sets}.get(name, (name,))
    try:
        for name in conditions:
            parse(name)
    except ValueError as error:
        raise CorpusError(str(error)) from None
    return tuple(dict.fromkeys(conditions))


def possible(conditions: Sequence[str], materials: Materials) -> list[str]:
    """The conditions that can be had here; the others are named on stderr."""
    from bench.degrade import missing, parse

    found = []
    for name in conditions:
        if reason := missing(parse(name), materials):
            say(f"{name}: left out: {reason}")
        else:
            found.append(name)
    return found


def plan_of(args: argparse.Namespace) -> Plan:
    """The clips that the options ask for."""
    from bench.clips import Plan

    conditions = conditions_of(args)
    usual = args.usual_per_cell if args.data or args.manifest else GENERATED_PER_CELL
    return Plan(conditions, tuple(args.lengths), args.per_cell or usual, args.seed)


def command_line() -> str:
    """What to type to do this again."""
    return shlex.join(["bench", *sys.argv[1:]])


def say(text: str) -> None:
    """Print a note on stderr."""
    print(f"bench: {plain(text)}", file=sys.stderr, flush=True)


class Bars:
    """Progress bars on stderr, one for each thing that is being done; on no terminal, a line at its end."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._bar = self._stack.enter_context(progress_bar("{task.fields[what]}"))
        self._tasks: dict[str, TaskID] = {}
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task("", total=total, what=what)
        self._bar.update(self._tasks[what], completed=done, total=total)
        if done == total and self._bar.disable:
            say(f"{what}: {total} done")

    def note(self, text: str) -> None:
        """Say something meanwhile."""
        self._bar.console.print(f"bench: {plain(text)}") if not self._bar.disable else say(text)
