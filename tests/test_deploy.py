"""The files in `deploy/`: what they start exists, and systemd takes the unit."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from samaf.cli import build_parser

DEPLOY = Path(__file__).parent.parent / "deploy"


def test_the_unit_starts_a_command_that_there_is() -> None:
    [start] = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "samaf.service").read_text(), re.MULTILINE)
    program, *words = shlex.split(start)
    assert program.endswith("/bin/samaf")
    args = build_parser().parse_args(words)
    assert (args.host, args.tokens) == ("127.0.0.1", "%d/tokens")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "samaf.service"
    text = (DEPLOY / "samaf.service").read_text()
    assert "/opt/samaf/venv/bin/samaf" in text
    unit.write_text(text.replace("/opt/samaf/venv/bin/samaf", sys.executable))
    done = subprocess.run(
        [verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    if "Failed to initialize" in done.stderr or "Read-only file system" in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.splitlines()[0]}")
    assert not [line for line in done.stderr.splitlines() if "samaf.service" in line], done.stderr
    assert done.returncode == 0, done.stderr


def test_the_container_starts_a_command_that_there_is_and_is_not_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    *_, more = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    program, *words = json.loads(entry) + json.loads(more)
    assert program == "samaf"
    args = build_parser().parse_args(words)
    assert (args.host, args.port) == ("0.0.0.0", 8765) and args.tokens and not args.no_auth
    assert re.search(r"^USER samaf$", text, re.MULTILINE) and "HEALTHCHECK" in text
