"""The campaign of faults, in short; its long form has the marker `slow`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent / "campaign"

SHORT = {
    "kills": ["--count", "40"],
    "damage": ["--count", "16"],
    "power": ["--count", "4"],
    "full": ["--count", "4"],
    "kept": ["--count", "4"],
    "threads": ["--minutes", "0.1"],
    "users": ["--minutes", "0.1"],
}
LONG = {
    "kills": ["--count", "500"],
    "damage": ["--count", "300"],
    "power": ["--count", "60"],
    "full": ["--count", "100"],
    "kept": ["--count", "60"],
    "threads": ["--minutes", "10"],
    "users": ["--minutes", "10"],
}


def run(part: str, options: list[str], log: Path, program: Callable[[str], str]) -> None:
    if part in ("full", "users") and os.geteuid() != 0:
        pytest.skip("only the superuser can mount a file system or be another user")
    if part in ("kills", "power"):
        program("strace")
    command = [sys.executable, str(CAMPAIGN), part, *options, "--log", str(log)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-10_000:]
    assert "\n0 faults" in done.stdout


@pytest.mark.parametrize("part", SHORT)
def test_short(part: str, tmp_path: Path, program: Callable[[str], str]) -> None:
    run(part, SHORT[part], tmp_path / "log.jsonl", program)


@pytest.mark.slow
@pytest.mark.parametrize("part", LONG)
def test_long(part: str, tmp_path: Path, program: Callable[[str], str]) -> None:
    run(part, ["--seed", "2", *LONG[part]], tmp_path / "log.jsonl", program)
