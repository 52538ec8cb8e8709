"""`bench attributes`: what of a recording its hashes tell."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import (
    Bars,
    add_autoencoders,
    add_encoders,
    add_model,
    add_seed,
    add_weights,
    autoencoders_of,
    command_line,
    conditions_of,
    encoders_of,
    list_of_bits,
    model_of,
    names,
    names_of,
    on_one_core,
    possible,
    say,
    say_what_is_missing,
    seconds,
)
from bench.cli.run import RESULTS
from samaf.cli.common import DONE

if TYPE_CHECKING:
    from bench.representations import Representation

ATTRIBUTES = ("speaker", "kind", "source", "transformation")
EMBEDDINGS = ("contrastive", "unet")
"""Systems that have vectors to classify, besides samaf."""

_EXAMPLES = """\
examples:
  bench attributes --manifest audio/manifest.csv
  bench attributes --manifest audio/manifest.csv --baseline contrastive --encoder resnet,cnn --weights networks
  bench attributes --manifest audio/manifest.csv --split check --kind speech --attributes speaker,transformation
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "attributes",
        help="classify recordings by their hashes",
        description="Tell from hashes who speaks, whether it is music or speech, which collection it is of, and what "
        "was done to it, beside means of MFCC and other systems' embeddings: by the nearest neighbour and by logistic "
        "regression, learnt from other recordings. What was stopped goes on with the same command.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        required=True,
        metavar="FILE",
        help="a CSV with the columns path, kind and split, and who is heard (artist, speaker or speaker_or_artist) "
        "and the collection (source, collection or source_repo), where these are to be told",
    )
    parser.add_argument("--split", metavar="NAME", default="dev", help="split that is used (dev)")
    parser.add_argument("--kind", type=names, metavar="KINDS", help="kinds of tracks (music,speech)")
    parser.add_argument(
        "--attributes",
        type=names_of("attribute", ATTRIBUTES),
        default=ATTRIBUTES,
        metavar="NAME,NAME",
        help=f"what is told ({','.join(ATTRIBUTES)})",
    )
    parser.add_argument(
        "--conditions",
        type=names,
        default=("sox",),
        metavar="NAME,NAME",
        help="transformations that are told apart: names such as noise5 or mp3_32, or sox (16 that SoX has; the "
        "default), evaluation, matrix",
    )
    parser.add_argument(
        "--longest", type=seconds, default=60.0, metavar="S", help="seconds of each recording, at most (60)"
    )
    parser.add_argument(
        "--length",
        type=seconds,
        default=5.0,
        metavar="S",
        help="length of the clips that are transformed, in seconds (5)",
    )
    add_seed(parser)
    systems = parser.add_argument_group("systems")
    systems.add_argument(
        "--bits",
        type=list_of_bits,
        default=[64, 128, 256],
        metavar="N,N",
        help="hash lengths of samaf (64,128,256)",
    )
    add_model(systems)
    systems.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=EMBEDDINGS,
        metavar="NAME",
        help=f"another system ({', '.join(EMBEDDINGS)}); may be given several times",
    )
    add_encoders(parser, EMBEDDINGS[:1])
    add_autoencoders(parser)
    add_weights(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for vectors and results ({RESULTS}/attributes)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Describe the recordings, classify, and print the tables."""
    from bench import attributes, corpus
    from bench.clip_cache import ClipCache
    from bench.clips import cache_folder
    from bench.degrade import parse
    from bench.excerpts import Listener, Plan
    from bench.study import Study
    from samaf.atomic import atomic_write

    representations = _representations(args)
    wanted = conditions_of(args, sox=attributes.TRANSFORMATIONS)
    out = args.out or RESULTS / "attributes"
    pool = corpus.read_pool(
        args.manifest,
        out.parent / "cache" / "generated",
        split=args.split,
        kinds=args.kind or corpus.TRACK_KINDS,
        library=(args.split,),
    )
    if "transformation" not in args.attributes:
        wanted = ()
    conditions = [parse(name) for name in possible(wanted, pool.materials)]
    drawn = any(condition.draws for condition in conditions)
    say_what_is_missing(pool.skipped, pool.notes if drawn else ())
    plan = Plan(conditions, args.longest, args.length, args.seed)
    with Bars() as bars:
        listener = Listener(pool, plan, out / "vectors", ClipCache(cache_folder(out)), bars.note)
        found = attributes.measure(listener, representations, args.attributes, progress=bars.progress)
    study = Study(
        attributes.TITLE,
        command_line(),
        (f"{pool.source}.", *attributes.REMARKS),
        [attributes.table(*one) for one in found],
    )
    study.save(out)
    with atomic_write(out / "attributes.json") as file:
        file.write(json.dumps(attributes.record(found), indent=1, ensure_ascii=False).encode())
    print(study.markdown())
    say(f"wrote {out / 'attributes.json'}")
    return DONE


def _representations(args: argparse.Namespace) -> list[Representation]:
    """What the options name, and means of MFCC."""
    from bench.representations import of_contrastive, of_mfcc, of_samaf, of_unet

    on_one_core()
    found = [of_samaf(bits, **model_of(args)) for bits in args.bits]
    if "contrastive" in args.baseline:
        from baselines.contrastive import ContrastiveParameters

        found += [of_contrastive(ContrastiveParameters(**options)) for options in encoders_of(args)]
    if "unet" in args.baseline:
        from baselines.unet import UNetParameters

        found += [of_unet(UNetParameters(**options)) for options in autoencoders_of(args)]
    return [*found, of_mfcc()]
