"""What the commands share: exit statuses, kinds of arguments, output. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from samaf.errors import ModelError, shown
from samaf.formats import WEIGHTS_SUFFIX
from samaf.settings import check_hop, parse_speed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

DONE, NO_MATCH, FAILED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

_PIPED_COLUMNS = 200  # width of tables that do not go to a terminal


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line each and whose help keeps its examples' lines."""

    def __init__(self, prog: str, description: str = "", epilog: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", _HelpFormatter)
        super().__init__(prog, description=description, epilog=epilog, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end."""
        complain(f"{' '.join(message.split())}; see `{self.prog} --help`", self.prog.split()[0])
        sys.exit(FAILED)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 28, "width": 100, **options})


def complain(message: str, program: str = "samaf") -> None:
    """Print one line about something wrong on stderr."""
    print(f"{program}: {shown(message)}", file=sys.stderr, flush=True)


def print_json(record: dict[str, Any]) -> None:
    """Print one object as a line on stdout, at once."""
    sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    """A rich console; one that is not a terminal gets wide lines instead of cut ones."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = _PIPED_COLUMNS
    return made


def plain(text: str) -> str:
    """Text as rich shows it unchanged and on one line."""
    from rich.markup import escape

    return escape(shown(text))


def progress_bar(what: str) -> Progress:
    """A progress bar on stderr, which shows only on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=out,
        transient=True,
        disable=not out.is_terminal,
        redirect_stdout=False,
        redirect_stderr=True,
    )


def counted(bar: Progress) -> Callable[[int, int, str], None]:
    """Return what hears of (steps done, steps, note): it moves a bar, hidden at the end, and complains of the note."""
    task = bar.add_task("", total=None)

    def progress(done: int, total: int, note: str) -> None:
        if note:
            complain(note)
        bar.update(task, completed=done, total=total, visible=done < total)

    return progress


def clock(seconds: float) -> str:
    """A time as people write it: ``1:02.5``, ``1:01:02.5``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{rest / 10:04.1f}"


def weights_file(name: str) -> Path:
    """The place of a weights file that is to be written.

    Raises
    ------
    ModelError
        If its name ends otherwise: it may be that of something else.
    """
    out = Path(name)
    if out.suffix != WEIGHTS_SUFFIX:
        raise ModelError(
            f"{shown(out)}: a weights file ends in {WEIGHTS_SUFFIX}; name it {shown(out.name + WEIGHTS_SUFFIX)}"
        )
    return out


def add_db(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the index."""
    parser.add_argument(
        "--db", metavar="FILE", help="the index (default: $SAMAF_DB, or one in your data folder)"
    )


def add_json(parser: argparse.ArgumentParser, what: str = "one JSON object per line on stdout") -> None:
    """Add the option that asks for JSON."""
    parser.add_argument("--json", action="store_true", help=what)


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def chance(text: str) -> float:
    """Read a number from 0 up to, but not, 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to less than 1")
    return value


def between(text: str) -> float:
    """Read a number between 0 and 1, neither included."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1, both excluded")
    return value


def positive(text: str) -> float:
    """Read a number above 0, "inf" included."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def count(text: str) -> int:
    """Read a whole number from 1 up."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def bits(text: str) -> int:
    """Read a code length."""
    value = count(text)
    if value not in (64, 128, 256):
        raise argparse.ArgumentTypeError(f"{text} is not one of 64, 128, 256")
    return value


def code_lengths(text: str) -> tuple[int, ...]:
    """Read code lengths between commas; in rising order, each once."""
    return tuple(sorted({bits(part) for part in text.split(",")}))


def hop(text: str) -> float:
    """Read a hop in seconds."""
    value = _number(text)
    try:
        check_hop(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def speeds(text: str) -> tuple[float, float]:
    """Read a range of speeds around 1."""
    try:
        return parse_speed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
