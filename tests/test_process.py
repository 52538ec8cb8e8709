"""The command line as a process: streams that are closed or full, users without a home, interrupts, odd places."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from synth import tune, write

from samaf import Library, hamming
from samaf.cli import main
from samaf.index import Index

RUN = """
import os, runpy, signal, sys
{before}
sys.argv[0] = "samaf"
runpy.run_module("samaf", run_name="__main__", alter_sys=True)
"""
HOMELESS = """
import pwd
def no_entry(uid): raise KeyError(uid)
pwd.getpwuid = no_entry
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs, a clip of one, and an index of both."""
    folder = tmp_path_factory.mktemp("process")
    (folder / "songs").mkdir()
    for seed, name in enumerate(["Gymnopédie.flac", "two.flac"]):
        write(folder / "songs" / name, tune(12, seed=seed))
    write(folder / "clip.wav", tune(12, seed=0)[48000 : 48000 + 96000])
    with Library(folder / "songs.samafdb", writable=True) as library:
        assert library.add(folder / "songs").added == 2
    return folder


@pytest.fixture(autouse=True)
def unchanged(folder: Path) -> Iterator[None]:
    """No test here changes the index."""
    before = (folder / "songs.samafdb").read_bytes()
    yield
    assert (folder / "songs.samafdb").read_bytes() == before


def shell(
    redirections: str, *args: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "samaf", *map(str, args)]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def script(before: str, *args: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN.format(before=before), *map(str, args)]
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "NUMBA_CACHE_DIR")}
    env = {key: value for key, value in env.items() if not key.startswith("XDG_")} | environment
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


SEARCH = ["search", "--db", "songs.samafdb", "clip.wav"]


@pytest.mark.parametrize("command", [SEARCH, [*SEARCH, "--json"], ["--help"]], ids=lambda c: " ".join(c[-1:]))
@pytest.mark.parametrize(
    ("where", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")]
)
def test_results_that_cannot_be_written(folder: Path, command: list[str], where: str, why: str) -> None:
    if where == ">/dev/full" and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    done = shell(where, *command, cwd=folder)
    line = f"samaf: standard output: cannot be written ({why}); send it to a file that has room"
    assert (done.returncode, done.stderr.splitlines()) == (2, [line])


def test_a_command_without_results_needs_no_standard_output(folder: Path, tmp_path: Path) -> None:
    db = tmp_path / "new.samafdb"
    done = shell(">&-", "index", "add", "--db", db, "songs", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "added 2 recordings (0:24.0)\n")
    with Index.open(db) as index:
        assert index.verify().ok


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_messages_that_cannot_be_written(folder: Path, tmp_path: Path, where: str) -> None:
    if "/dev/full" in where and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    done = shell(where, *SEARCH, "missing.wav", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (2, "")
    assert [json.loads(line)["title"] for line in done.stdout.splitlines()] == ["Gymnopédie"]
    db = tmp_path / "new.samafdb"  # in which no message may stand
    done = shell(where, "index", "add", "--db", db, "songs", "missing.wav", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    with Index.open(db) as index:
        assert index.verify().ok and index.stats().n_tracks == 2


@pytest.mark.parametrize("command", [SEARCH, ["index", "list", "--db", "songs.samafdb"]])
def test_letters_that_a_terminal_cannot_show(folder: Path, command: list[str]) -> None:
    done = shell("", *command, cwd=folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Gymnop\\xe9die" in done.stdout


def test_without_a_home(folder: Path) -> None:
    ended = script(HOMELESS, "search", "clip.wav", cwd=folder, NUMBA_CACHE_DIR=hamming._cache_folder() or "")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "samaf: this user has no home folder to keep an index in; name one with --db or $SAMAF_DB"
    ]
    ended = script(HOMELESS, *SEARCH, "--json", cwd=folder)
    assert ended.returncode == 0 and json.loads(ended.stdout)["title"] == "Gymnopédie"
    assert ended.stderr.splitlines() == [
        "samaf: cache folder: compiled code cannot be kept there (this user has no home folder), which costs seconds "
        "at every start; set $NUMBA_CACHE_DIR to a folder that can be written"
    ]


def test_a_cache_that_cannot_be_written_is_told_once(folder: Path) -> None:
    done = shell("", "index", "list", "--db", "songs.samafdb", cwd=folder, NUMBA_CACHE_DIR="/dev/null/cache")
    assert done.returncode == 0 and "two" in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(
        "samaf: /dev/null/cache: compiled code cannot be kept there (Not a directory), which"
    )


def test_a_cache_without_room_is_told_once(tmp_path: Path) -> None:
    code = "import numpy; from samaf.hamming import distance; a = numpy.zeros((1, 2), numpy.uint64); "
    code += "print(distance(a, a), distance(a[:, :1], a[:, :1]))"

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, preexec_fn=small, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[0] [0]\n")
    assert done.stderr.count("compiled code cannot be kept there (File too large)") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["argparse", "numba", "onnxruntime"])
def test_an_interrupt_during_imports(folder: Path, module: str) -> None:
    before = f"""
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
sys.meta_path.insert(0, Interrupting())
"""
    ended = script(before, *SEARCH, cwd=folder, HOME=os.environ.get("HOME", ""))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "samaf: interrupted\n")


def test_an_interrupt_that_is_to_be_ignored(folder: Path) -> None:
    before = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
import samaf.library
search = samaf.library.Library.search
def interrupted(*args, **options):
    os.kill(os.getpid(), signal.SIGINT)
    return search(*args, **options)
samaf.library.Library.search = interrupted
"""
    ended = script(before, *SEARCH, cwd=folder, HOME=os.environ.get("HOME", ""))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_was_left_for_the_end_is_done(folder: Path) -> None:
    before = "import atexit; atexit.register(os.write, 2, b'tidied')"  # such as deleting temporary files
    ended = script(before, "--version", cwd=folder)
    assert (ended.returncode, ended.stderr) == (0, "tidied")


def test_a_mistake_of_ours_is_not_that_nothing_matched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["search", "--db", str(folder / "songs.samafdb"), str(folder / "clip.wav")]
    for error, told in (
        (ZeroDivisionError(), "ZeroDivisionError\n"),
        (MemoryError(), "samaf: not enough memory"),
    ):

        def fail(*args: object, raised: Exception = error, **options: object) -> None:
            raise raised

        monkeypatch.setattr(Library, "search", fail)
        assert main(arguments) == 2
        assert told in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "darwin", reason="its names are text")
def test_an_index_whose_name_is_no_text(folder: Path, tmp_path: Path) -> None:
    db = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.db")
    with Library(db, writable=True) as library:
        library.add(folder / "songs")
    for command in ("stats", "list", "verify", "compact"):
        assert main(["index", command, "--db", db]) == 0
    assert main(["index", "export", "--db", db, db + ".out"]) == 0
    assert main(["index", "verify", "--db", db, "--repair", db + ".new"]) == 0
    assert main(["search", "--db", db + ".new", str(folder / "clip.wav")]) == 0
    assert os.listdir(os.fsencode(tmp_path)).count(b"caf\xe9.db") == 1


def test_folders_a_thousand_deep(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip, deep = str(folder / "clip.wav"), "/".join("d" * 1100)
    assert main(["index", "add", "--db", f"db/{deep}/x.samafdb", clip]) == 0
    assert main(["search", "--db", f"db/{deep}/x.samafdb", clip]) == 0
    assert main(["encode", clip, "--out", f"prints/{deep}/"]) == 0
    assert main(["index", "add", "--db", "x.samafdb", "prints"]) == 0
    with Index.open("x.samafdb") as index:
        [track] = index.tracks()
        assert track.path == f"{tmp_path}/prints/{deep}/clip.samaf"
    for name in ("db", "prints"):  # shutil.rmtree, by which pytest tidies, does not get to the bottom
        subprocess.run([shutil.which("rm") or "rm", "-rf", name], check=True)
