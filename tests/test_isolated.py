"""Decoding in child processes: the same samples, and whatever becomes of a child costs one file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synth import tune, write

from samaf import Library, isolated
from samaf.audio import read_audio
from samaf.errors import AudioError
from samaf.isolated import AudioBounds, IsolatedStream

STAND_IN = """
import os, signal, sys, time
sys.path[:] = sys.argv[1:]
import samaf.audio, samaf.isolated
real = samaf.audio.stream_audio
def stream_audio(path):
    name = os.path.basename(path)
    yet = real(path)
    if name == "crash.wav":
        next(yet)
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "leave.wav":
        os._exit(7)
    if name == "loop.wav":
        while True:
            pass
    if name == "sleep.wav":
        time.sleep(100)
    if name == "fill.wav":
        bytearray(1 << 30)
    if name == "bug.wav":
        raise ZeroDivisionError("two\\nlines")
    if name == "print.wav":
        os.write(1, b"a note of the decoder\\n")
        os.write(2, b"a note of the decoder\\n")
    return yet
samaf.audio.stream_audio = stream_audio
samaf.isolated.BLOCK_CPU_S = 0.3
samaf.isolated.serve()
"""


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    """Other tests leave children."""
    isolated._children.end()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Children that do what files of some names tell them."""
    monkeypatch.setattr(isolated, "_START", STAND_IN)
    yield
    isolated._children.end()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.wav", tune(25.0), subtype="FLOAT")


def read(path: Path | str) -> np.ndarray:
    return np.concatenate(list(IsolatedStream(path)))


def child_id() -> int:
    [child] = isolated._children._idle
    return child.process.pid


def test_the_samples_are_the_same(clip: Path) -> None:
    stream = IsolatedStream(clip)
    blocks = list(stream)
    assert [len(block) for block in blocks] == [160000, 160000, 80000]
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(clip))
    assert blocks[0].flags.writeable and blocks[0].dtype == np.float32


def test_one_child_reads_file_after_file(clip: Path) -> None:
    read(clip)
    first = child_id()
    for _ in range(3):
        read(clip)
        with pytest.raises(AudioError):
            read(clip.with_name("missing.wav"))
    assert child_id() == first


def test_errors_name_the_file_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.wav").write_text("no audio")
    for name, message in (
        ("text.wav", "text.wav: not audio, or of an unknown format; convert it to WAV or FLAC"),
        ("missing.wav", "missing.wav: no such file; check the name"),
        (".", ".: is a folder; name the files in it"),
        ("/dev/zero", "/dev/zero: is a device or a socket; name a file of audio"),
        ("a\0b", "a\\x00b: cannot be opened (embedded null byte); check the name and the disk"),
    ):
        with pytest.raises(AudioError) as caught:
            read(name)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("crash.wav", "cannot be decoded (the decoder ended with SIGSEGV); leave it out"),
        ("leave.wav", "cannot be decoded (the decoder ended with status 7); leave it out"),
        ("loop.wav", "cannot be decoded (the decoder got nowhere); leave it out"),
        ("bug.wav", "cannot be decoded (ZeroDivisionError: two\\nlines); leave it out"),
        ("fill.wav", "cannot be decoded (MemoryError: ); leave it out"),
    ],
)
def test_a_decoder_that_fails_costs_one_file(
    stand_in: None, clip: Path, name: str, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if name == "fill.wav" and sys.platform != "linux":
        pytest.skip("other systems have no bound of a process's data")
    bad = clip.with_name(name)
    bad.write_bytes(clip.read_bytes())
    for _ in range(2):
        with pytest.raises(AudioError) as caught:
            read(bad)
        assert str(caught.value) == f"{bad}: {how}, or convert it to WAV"
        assert len(read(clip)) == 25 * 16000
    assert capfd.readouterr() == ("", "")


def test_what_a_decoder_prints_is_not_shown(
    stand_in: None, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(read(clip.rename(clip.with_name("print.wav")))) == 25 * 16000
    assert capfd.readouterr() == ("", "")


def test_a_child_that_ended_while_it_was_idle_is_replaced(clip: Path) -> None:
    read(clip)
    os.kill(child_id(), signal.SIGKILL)
    time.sleep(0.1)
    assert len(read(clip)) == 25 * 16000


def test_a_stream_left_early_ends_its_child(clip: Path) -> None:
    stream = IsolatedStream(clip)
    next(stream)
    assert stream._child is not None
    process = stream._child.process
    del stream
    assert process.returncode == -signal.SIGKILL


def test_a_stream_can_be_ended_from_another_thread(stand_in: None, clip: Path) -> None:
    stream = IsolatedStream(clip.rename(clip.with_name("sleep.wav")))
    timer = threading.Timer(0.5, stream.abort)
    timer.start()
    start = time.monotonic()
    with pytest.raises(AudioError, match="SIGKILL"):
        next(stream)
    assert time.monotonic() - start < 10
    timer.join()


def test_an_interrupt_does_not_wait_for_a_decoder(stand_in: None, clip: Path) -> None:
    clip.with_name("sleep.wav").write_bytes(clip.read_bytes()[:-4])

    def progress(done: int, total: int, path: str) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with Library(clip.with_name("db"), writable=True) as library:
        with pytest.raises(KeyboardInterrupt):
            library.add(clip.parent, progress=progress)
        assert [track.path for track in library.index.tracks()] == [str(clip)]
    assert time.monotonic() - start < 15


def test_adding_goes_on_after_a_crash(stand_in: None, clip: Path) -> None:
    for k, name in enumerate(["crash.wav", "leave.wav", "z.wav"], start=1):
        write(clip.with_name(name), tune(5.0, seed=k))
    with Library(clip.with_name("db"), writable=True) as library:
        report = library.add(clip.parent)
        assert [os.path.basename(track.path) for track in library.index.tracks()] == ["clip.wav", "z.wav"]
    assert [(os.path.basename(path), reason.split(";")[0]) for path, reason in report.failures] == [
        ("crash.wav", "cannot be decoded (the decoder ended with SIGSEGV)"),
        ("leave.wav", "cannot be decoded (the decoder ended with status 7)"),
    ]


def test_children_serve_many_threads(clip: Path) -> None:
    expected = read_audio(clip)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            if not np.array_equal(read(clip), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(isolated._children._idle) <= 4


def test_children_end_with_their_parent(clip: Path) -> None:
    code = (
        "import os, signal, sys; from samaf import isolated\n"
        "stream = isolated.IsolatedStream(sys.argv[1]); next(stream)\n"
        "idle = isolated.IsolatedStream(sys.argv[1]); sum(map(len, idle))\n"
        "print(stream._child.process.pid, isolated._children._idle[0].process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(clip)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    waiting = set(map(int, done.stdout.split()))
    assert len(waiting) == 2
    until = time.monotonic() + 10
    while waiting and time.monotonic() < until:
        waiting = {pid for pid in waiting if _runs(pid)}
        time.sleep(0.05)
    assert not waiting


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_fork_has_children_of_its_own(clip: Path) -> None:
    code = (
        "import os, sys; from samaf import isolated\n"
        "read = lambda: sum(map(len, isolated.IsolatedStream(sys.argv[1])))\n"
        "read()\n"
        "pid = os.fork()\n"
        "assert not pid or os.waitpid(pid, 0)[1] == 0\n"
        "assert read() == 400000\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(clip)], check=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes(tmp_path: Path, clip: Path) -> None:
    expected = read_audio(clip)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", f"sleep 0.3; cat '{clip}' > '{pipe}'"]):
        np.testing.assert_array_equal(read(pipe), expected)
    with subprocess.Popen(["cat", str(clip)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        np.testing.assert_array_equal(read(f"/dev/fd/{writer.stdout.fileno()}"), expected)
    with open(clip, "rb") as file:
        np.testing.assert_array_equal(read(f"/dev/fd/{file.fileno()}"), expected)


def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    start = time.monotonic()
    with pytest.raises(AudioError) as caught:
        read(pipe)
    assert time.monotonic() - start < 10
    assert str(caught.value) == f"{pipe}: is a pipe that nobody writes to; start what writes, or name a file"


def test_where_no_process_can_be_started(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(clip.with_name("gone")))
    isolated.prepare()
    with pytest.raises(AudioError, match=r"clip\.wav: no process to decode it can be started \(No such file"):
        read(clip)


def test_bounds_of_length_and_time(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(map(len, IsolatedStream(clip, AudioBounds(25.0, 60.0)))) == 400_000
    for bounds, part in (
        (AudioBounds(24.9), "is longer than 24.9 s"),
        (AudioBounds(decoding_s=0.0), "to decode"),
    ):
        stream = IsolatedStream(clip, bounds)
        with pytest.raises(AudioError, match=part) as raised:
            list(stream)
        assert str(raised.value).startswith(f"{clip}: ") and list(stream) == []
