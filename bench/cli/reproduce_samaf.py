"""`bench reproduce samaf`: the SAMAF article's experiment (Báez-Suárez et al. 2020)."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import Bars, add_lengths, add_seed, add_weights, command_line, on_one_core, say
from bench.cli.run import RESULTS
from bench.cli.training import (
    OutOfTimeError,
    add_time,
    add_training,
    need_tensorflow,
    out_of_time,
    recordings_of,
    telling,
    until,
)
from samaf.cli.common import DONE, FAILED, count

if TYPE_CHECKING:
    from bench.protocol import Entry

SMALL_STEPS = 4000

_EXAMPLES = """\
examples:
  bench reproduce samaf --manifest audio/manifest.csv

A run that was stopped, by a key or by --minutes, goes on with the same command.
"""


def add_parsers(systems: Any) -> None:
    """Add the document to the command."""
    parser = systems.add_parser(
        "samaf",
        help="the SAMAF article's experiment",
        description="Train the article's configuration at 128 and 256 bits, unless that is done; then have it, the "
        "model that ships, Dejavu, RAFS and Panako name clips of speech under what SoX can do to them, and tell "
        "speakers and collections. Prints the tables, and for each of the article's claims whether it holds.",
        epilog=_EXAMPLES,
    )
    training = add_training(parser, ("small", "paper"), kinds=("speech",), needs_manifest=True)
    training.add_argument("--steps", type=count, metavar="N", help="training steps (the preset's)")
    parser.add_argument(
        "--check", metavar="SPLIT", default="check", help="split whose recordings are asked for (check)"
    )
    add_lengths(parser, "5")
    parser.add_argument("--per-cell", type=count, default=40, metavar="N", help="clips of a cell (40)")
    add_time(parser)
    add_weights(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"results ({RESULTS}/reproduce-samaf)")
    add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, measure, judge, print."""
    need_tensorflow()
    from bench import article
    from bench.study import Study

    deadline = time.monotonic() + 60.0 * args.minutes
    out: Path = args.out or RESULTS / "reproduce-samaf"
    try:
        models = [_trained(args, bits, deadline) for bits in article.BITS]
        on_one_core()
        tables = _measured(args, models, out, deadline)
    except OutOfTimeError:
        out_of_time(args)
        return FAILED
    study = Study(article.TITLE, command_line(), article.REMARKS, tables)
    study.save(out)
    print(study.markdown())
    return DONE


def _trained(args: argparse.Namespace, bits: int, deadline: float) -> Path:
    """The weights file of the article's configuration, trained if it is not there."""
    from baselines.networks import default_root
    from samaf.cli.train import quiet
    from samaf.model.presets import PRESETS
    from samaf.settings import processors

    file: Path = (args.weights or default_root()) / f"paper-{bits}.npz"
    if file.exists():
        say(f"{file}: is there")
        return file
    with quiet():
        from samaf.model.fit import train
    file.parent.mkdir(parents=True, exist_ok=True)
    steps = args.steps or (SMALL_STEPS if args.preset == "small" else None)
    with telling(args, f"paper, {bits} bits", deadline, calibrates=True) as told:
        train(
            [str(path) for path in recordings_of(args)],
            out=file,
            preset=PRESETS["paper"].with_options(bits=(bits,), steps=steps),
            seed=args.training_seed,
            jobs=processors(),
            progress=told.progress,
            epoch_done=told.epoch_done,
        )
    say(f"wrote {file}")
    return file


def _measured(args: argparse.Namespace, models: list[Path], out: Path, deadline: float) -> list[Any]:
    """The tables."""
    from bench import article, attributes, corpus, protocol
    from bench.cli.common import possible
    from bench.clip_cache import ClipCache
    from bench.clips import Plan, cache_folder
    from bench.comparison import Comparison
    from bench.degrade import parse
    from bench.excerpts import Listener
    from bench.excerpts import Plan as Excerpts
    from bench.representations import of_mfcc, of_samaf
    from samaf.settings import processors

    entries: list[Entry] = [
        *(protocol.entry("samaf", bits=bits) for bits in article.BITS),
        *(
            protocol.entry("samaf", bits=bits, model=str(model.resolve()))
            for bits, model in zip(article.BITS, models, strict=True)
        ),
        *(protocol.entry(name) for name in article.RIVALS),
    ]
    work = out / "cache" / "generated"
    speech = corpus.read_manifest(args.manifest, work, split=args.check, kinds=("speech",), seed=args.seed)
    everything = corpus.read_pool(args.manifest, work, split=args.check, library=(args.check,))
    plan = Plan(article.TRANSFORMATIONS, tuple(args.lengths), args.per_cell, args.seed)
    with Bars() as bars:
        progress = until(deadline, bars.progress)
        protocol.run(
            speech,
            entries,
            plan,
            out / "run",
            command=command_line(),
            jobs=processors(),
            progress=progress,
            note=bars.note,
        )
        found = article.by_search(everything, article.BY_SEARCH, entries, out / "search", args.seed, progress)
        conditions = [parse(name) for name in possible(plan.conditions, everything.materials)]
        listener = Listener(
            everything,
            Excerpts(conditions, seed=args.seed),
            out / "vectors",
            ClipCache(cache_folder(out / "run")),
            bars.note,
        )
        representations = [
            *(of_samaf(bits) for bits in article.BITS),
            *(of_samaf(bits, str(model)) for bits, model in zip(article.BITS, models, strict=True)),
            of_mfcc(),
        ]
        by_hash = attributes.measure(listener, representations, article.BY_HASH, progress=progress)
    comparison = Comparison.read([out / "run"])
    tables = []
    for group in comparison.groups:
        tables += article.identification(comparison, group)
    assert comparison.lead is not None
    return [
        article.claims(comparison, comparison.lead, found),
        *tables,
        article.searched(found),
        *(attributes.table(*one) for one in by_hash),
    ]
