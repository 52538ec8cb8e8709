"""`bench compression`: smaller models beside the one that ships."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.common import (
    Bars,
    add_clips,
    add_data,
    add_run,
    command_line,
    corpus_of,
    names,
    on_one_core,
    plan_of,
    say,
)
from bench.cli.run import RESULTS
from samaf.cli.common import DONE, bits, count, positive

if TYPE_CHECKING:
    from bench.compression import Model
    from bench.corpus import Corpus
    from bench.protocol import Progress

_EXAMPLES = """\
examples:
  samaf export samaf-4.npz -o int8.npz --quantise int8 --held-out new/music new/speech
  bench compression --model int8.npz
  bench compression --model int8.npz,student.npz --manifest audio/manifest.csv --split check --library train,dev
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "compression",
        help="compare smaller models with the one that ships",
        description="Have models name the same clips, and time them on one core. Prints a table with a line for each "
        "model: bytes, multiplications, time, memory, how many clips it names rightly and wrongly, and what it loses "
        "against the model that ships. Quantised models are tried in an index of their original too, if that takes "
        "part. What was stopped goes on with the same command.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--model",
        type=names,
        default=(),
        metavar="FILE,FILE",
        help="weights files, beside the model that ships",
    )
    add_data(parser)
    add_comparison(parser)
    add_run(parser, "compression")
    parser.set_defaults(run=run)


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how models are compared."""
    parser.add_argument("--bits", type=bits, default=128, metavar="N", help="hash length (128)")
    add_clips(parser, lengths="5")
    parser.add_argument(
        "--timed",
        type=positive,
        default=10.0,
        metavar="X",
        help="minutes of audio that are timed, at most (10)",
    )
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="rounds of timing (5)")
    parser.add_argument(
        "--searched",
        type=count,
        default=2000,
        metavar="N",
        help="clips that a quantised model searches for in an index of its original (2000)",
    )


def run(args: argparse.Namespace) -> int:
    """Compare the models and print the tables."""
    from bench.compression import models_of

    on_one_core()
    models = models_of([Path(name) for name in args.model], args.bits)
    out = args.out or RESULTS / "compression"
    corpus = corpus_of(args, out / "cache" / "generated")
    with Bars() as bars:
        compare(args, models, corpus, out, bars.progress, bars.note)
    return DONE


def compare(
    args: argparse.Namespace,
    models: Sequence[Model],
    corpus: Corpus,
    out: Path,
    progress: Progress,
    note: Callable[[str], None],
) -> None:
    """Compare models, keep the study, and print it."""
    from bench.compression import Effort, compare
    from samaf.settings import processors

    study = compare(
        models,
        corpus,
        plan_of(args),
        out,
        Effort(args.timed, args.rounds, args.searched),
        command=command_line(),
        jobs=getattr(args, "jobs", None) or processors(),
        progress=progress,
        note=note,
    )
    study.save(out)
    print(study.markdown())
    say(f"wrote {out}")
