"""What the readers of files share that somebody else may have made: nothing is believed before it is checked.

Each format has one reader, whose docstring states the bounds of what it takes. It learns the file's size before it
reads, and what the file says of itself before it makes room for the rest. A value that cannot be is a `ValueError`
here; the reader turns it into an error that names the file and says what helps.
"""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

DEEPEST = 16
"""How deep JSON that was found in a file may be nested."""


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[BufferedReader, int]]:
    """Open a file to read; gives it and its size in bytes.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file: a pipe would be waited for, a device may never end.
    ValueError
        The name holds a null character.
    """
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        yield file, status.st_size


def why(error: OSError | ValueError) -> str:
    """What `opened` raised, in a few words."""
    return getattr(error, "strerror", None) or str(error)


def parse_json(text: bytes) -> Any:
    """Value of a JSON text without NaN or infinity, nested at most :data:`DEEPEST` deep; else a `ValueError`."""
    try:
        value = _DECODER.decode(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_json(value)
    return value


def parse_json_list(text: bytes) -> Iterator[Any]:
    """Values of a JSON list without blanks between them, one after the other; else a `ValueError`.

    Each may be refused before the next takes memory, which may be twenty times that of its text.
    """
    rest, at = text.decode(), 1
    if rest != "[]":
        expected = "["
        while rest[at - 1 : at] == expected:
            try:
                value, at = _DECODER.raw_decode(rest, at)
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            yield value
            at, expected = at + 1, ","
        if at != len(rest) or rest[-1] != "]":
            raise ValueError("it is no JSON list")


def check_json(value: Any, deepest: int = DEEPEST) -> None:
    """Refuse what is no JSON value, or nested too deeply, with a `ValueError`."""
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if not isinstance(value, (list, tuple, dict)):
        raise ValueError(f"{reprlib.repr(value)} is no value of JSON")
    if not deepest:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise ValueError(f"{reprlib.repr(value)} has keys that are no text")
    for part in value.values() if isinstance(value, dict) else value:
        check_json(part, deepest - 1)


def named(value: Any, *names: str) -> dict[str, Any]:
    """Refuse what is no JSON object with all these names, with a `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError(f"{reprlib.repr(value)} is no JSON object")
    for name in names:
        if name not in value:
            raise ValueError(f"{name} is missing")
    return value


def whole(name: str, value: Any, least: int, most: int) -> int:
    """Refuse what is no whole number in a range, with a `ValueError`."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is {reprlib.repr(value)}, no whole number from {least} to {most}")
    return value


def number(name: str, value: Any, least: float, most: float) -> float:
    """Refuse what is no number in a range, with a `ValueError`."""
    if type(value) not in (int, float) or not least <= value <= most:  # which NaN is not
        raise ValueError(f"{name} is {reprlib.repr(value)}, no number from {least:g} to {most:g}")
    return float(value)


def text(name: str, value: Any, longest: int) -> str:
    """Refuse what is no text of some length, or could be no file's name, with a `ValueError`."""
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"{name} is {reprlib.repr(value)}, no text of up to {longest} characters")
    try:
        is_name = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ValueError(f"{name} is {reprlib.repr(value)}, which holds what is no character of a text")
    return value


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal[:20]} is no number of JSON")
    return value


_DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)
