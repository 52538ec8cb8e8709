"""The judge of hostile input sees what it is there to see."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing import Child

COMMANDS = """
import ctypes, os, sys, time, warnings

def main(argv):
    what = argv[0]
    if what == "crash":
        ctypes.string_at(0)
    elif what == "raise":
        raise ValueError("not caught")
    elif what == "hang":
        time.sleep(60)
    elif what == "fill":
        bytearray(2 << 30)
    elif what == "warn":
        warnings.warn("odd", RuntimeWarning)
    elif what == "leave":
        os._exit(3)
    elif what == "exit":
        sys.exit("usage")
    elif what == "tell":
        print("answer")
        print("samaf: a.samaf: is damaged", file=sys.stderr)
        print("wrote nothing", file=sys.stderr)
    return int(argv[1])
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A child whose `samaf` does as it is told."""
    folder = tmp_path_factory.mktemp("samaf")
    (folder / "samaf").mkdir()
    (folder / "samaf" / "__init__.py").touch()
    (folder / "samaf" / "cli.py").write_text(COMMANDS)
    with Child(seconds=2, env={"PYTHONPATH": str(folder)}) as child:
        yield child


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("crash 0", "samaf crash 0: died of SIGSEGV"),
        ("hang 0", "samaf hang 0: took more than 2 s"),
        ("leave 0", "samaf leave 0: left with 3"),
        ("raise 0", "ValueError: not caught"),
        ("fill 0", "MemoryError"),
        ("warn 0", "RuntimeWarning: odd"),
        ("good 3", "status 3"),
        ("good 2", "status 2 without a word"),
    ],
)
def test_faults(child: Child, what: str, fault: str) -> None:
    if what.startswith("fill") and sys.platform != "linux":
        pytest.skip("only Linux bounds what is mapped by RLIMIT_DATA")
    ended = child.run(*what.split())
    assert len(ended.faults) == 1 and fault in ended.faults[0]
    assert child.run("good", 0).faults == []  # the next one does not suffer for it


def test_what_is_right(child: Child, tmp_path: Path) -> None:
    for status in (0, 1, 2):
        ended = child.run("tell", status, tmp_path, b"\xff")
        assert (ended.status, ended.death, ended.faults) == (status, "", [])
        assert ended.command == ("tell", str(status), str(tmp_path), "\udcff")
        assert ended.out == "answer\n" and ended.complaints == ["samaf: a.samaf: is damaged"]
    assert child.run("exit", 0).status == 1 and child.run("exit", 0).faults == []
