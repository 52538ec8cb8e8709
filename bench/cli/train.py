"""`bench train`: trains the networks of the systems that have some, one module per family of them."""

from __future__ import annotations

from typing import Any

from bench.cli import train_contrastive, train_unet
from samaf.cli.common import Parser

_EXAMPLES = """\
examples:
  bench train contrastive --encoder resnet --data ~/Music
  bench train signs --encoder resnet --values 128 --manifest audio/manifest.csv
  bench train unet --data ~/Music

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
    systems = parser.add_subparsers(title="systems", metavar="SYSTEM", required=True, parser_class=Parser)
    for family in (train_contrastive, train_unet):
        family.add_parsers(systems)
