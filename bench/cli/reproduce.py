"""`bench reproduce`: whole experiments, most of them those of the documents that systems come from; a module each."""

from __future__ import annotations

from typing import Any

from bench.cli import reproduce_compression, reproduce_contrastive, reproduce_samaf, reproduce_unet
from samaf.cli.common import Parser

_EXAMPLES = """\
examples:
  bench reproduce samaf --manifest audio/manifest.csv
  bench reproduce contrastive --manifest audio/manifest.csv
  bench reproduce unet --manifest audio/manifest.csv
  bench reproduce compression --manifest audio/manifest.csv

A run that was stopped, by a key or by --minutes, goes on with the same command.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "reproduce",
        help="repeat a paper's experiment, or that on smaller models",
        description="Train the networks that are missing, run a document's own protocol, and print its tables: our "
        "values beside the document's, where it has some.",
        epilog=_EXAMPLES,
    )
    systems = parser.add_subparsers(title="systems", metavar="SYSTEM", required=True, parser_class=Parser)
    for experiment in (reproduce_samaf, reproduce_contrastive, reproduce_unet, reproduce_compression):
        experiment.add_parsers(systems)
