"""Nothing phones home: no command opens a network socket, or leaves a file that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from synth import tune, write

# What each command may leave in the working folder.
COMMANDS = {
    "encode": (["encode", "tune.wav", "-o", "tune.samaf"], {"tune.samaf"}),
    "add": (["index", "add", "--db", "x.db", "tune.wav"], {"x.db"}),
    "search": (["search", "--db", "x.db", "tune.wav"], set[str]()),
    "demo": (["demo"], {"samaf-demo"}),
}


def test_no_command_opens_a_network_socket(tmp_path: Path, program: Callable[[str], str]) -> None:
    strace = program("strace")
    home, work, trace = tmp_path / "home", tmp_path / "work", tmp_path / "trace"
    home.mkdir()
    work.mkdir()
    write(work / "tune.wav", tune(8.0, seed=1))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_", "NUMBA_CACHE", "MPL"))}
    env |= {"HOME": str(home)}
    there = {"tune.wav"}
    for name, (arguments, made) in COMMANDS.items():
        command = [strace, "-f", "-qq", "-o", str(trace), "-e", "trace=socket,connect,sendto,sendmsg"]
        command += [sys.executable, "-m", "samaf", *arguments]
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stderr)
        assert "AF_INET" not in trace.read_text(), name
        there |= made
        assert {path.name for path in work.iterdir()} == there, name
    caches = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert caches <= {(".cache", "samaf"), (".cache", "matplotlib"), (".config", "matplotlib")}


def test_onnxruntime_is_taken_from_where_its_telemetry_is_off() -> None:
    root = Path(__file__).parent.parent
    users = [
        path.relative_to(root).as_posix()
        for folder in ("samaf", "bench", "baselines")
        for path in (root / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import onnxruntime", "from onnxruntime"))
    ]
    assert users == ["samaf/onnx_runtime.py"]
