"""Audio files decoded in child processes: a file that kills its decoder, or keeps it for ever, costs one file.

Whatever files somebody else made go this way: those that are added, encoded and searched for. The decoders are C
libraries that take the file's word for much, and no exception comes of a crash in one. `samaf.audio.stream_audio`
reads files in this process, and the child calls nothing else.

A child costs a tenth of a second to start, of which the caller waits for nothing if it starts it early (`prepare`);
after that it decodes file after file, and each costs half a millisecond and some 2 % more than here. It holds at most
512 MiB of data, and is ended when it computes for 10 s without a block of 10 s of audio to show for it. It ends when
its requests do, that is, with this process at the latest. Nothing that it prints is shown.

A request is a line of JSON on its stdin. Answers on its stdout are a byte that tells their kind, a length, and so
many bytes: tags, blocks of float32 samples, and then the end with its warning, or an error.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NoReturn

from samaf.errors import AudioError, shown
from samaf.settings import processors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

DATA_BYTES = 1 << 29
"""Memory that a child may fill."""
BLOCK_CPU_S = 10.0
"""Computing time that it has for a block."""

_READY, _TAGS, _BLOCK, _END, _ERROR = (bytes([byte]) for byte in b"rtbex")
_HEAD = struct.Struct("<cI")
_LONGEST = 1 << 24  # bytes of an answer
_SAMPLE_RATE = 16000  # samaf.audio.SAMPLE_RATE, whose module is heavy
_PIPE_BYTES = 1 << 20  # lets a child work ahead by a block
_START = "import sys; sys.path[:] = sys.argv[1:]; from samaf.isolated import serve; serve()"

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class AudioBounds:
    """What one file may take where strangers send them.

    Attributes
    ----------
    longest_s : float
        Seconds of audio.
    decoding_s : float
        Seconds that are waited for its decoder.
    """

    longest_s: float = math.inf
    decoding_s: float = math.inf

    def check_length(self, duration_s: float) -> None:
        """Refuse audio that is too long with an `AudioError`, whose message does not name the file."""
        if duration_s > self.longest_s:
            raise AudioError(f"is longer than {self.longest_s:g} s; give a part of it")


ANY_AUDIO = AudioBounds()


class IsolatedStream(Iterator["Samples"]):
    """The blocks of a file, decoded in a child process: what `samaf.audio.stream_audio` gives of a whole file.

    Parameters
    ----------
    path : path-like
        An audio or video file, or a pipe.
    bounds
        What it may take; by default, any length and time.

    Attributes
    ----------
    tags : mapping of str to str
    warning : str
        As `samaf.audio.AudioStream` has them.

    Raises
    ------
    AudioError
        As for `samaf.audio.stream_audio`, when blocks are asked for; also when the decoder crashes or gets nowhere, or
        the bounds are passed.
    """

    def __init__(self, path: StrPath, bounds: AudioBounds = ANY_AUDIO) -> None:
        self._bounds, self._n_samples, self._waited_s = bounds, 0, 0.0
        self.tags: Mapping[str, str] = {}
        self.warning = ""
        self._child: _Child | None = None
        self._pipe: int | None = None
        self._path, self._name = os.fspath(path), shown(path)
        self._is_new = True

    def __next__(self) -> Samples:
        import numpy as np

        try:
            if self._is_new:
                self._is_new = False
                self._ask()
            while self._child is not None:
                asked = time.monotonic()
                kind, data = self._child.answer()
                self._waited_s += time.monotonic() - asked
                if kind == _BLOCK:
                    block = np.frombuffer(data, np.float32)
                    self._check(len(block))
                    return block
                if kind == _TAGS:
                    self.tags = json.loads(data)
                    continue
                if self._pipe is None:
                    _children.give(self._child)
                    self._child = None
                self.close()
                if kind == _ERROR:
                    raise AudioError(f"{self._name}: {json.loads(data)}")
                self.warning = json.loads(data)
        except (EOFError, BrokenPipeError):
            raise AudioError(f"{self._name}: {self._death()}") from None
        except OSError as error:
            raise AudioError(
                f"{self._name}: no process to decode it can be started ({error.strerror}); end others"
            ) from None
        raise StopIteration

    def close(self) -> None:
        """End the decoding, if it has not ended."""
        child, self._child = self._child, None
        pipe, self._pipe = self._pipe, None
        if child is not None:
            child.end()
        if pipe is not None:
            os.close(pipe)

    __del__ = close

    def abort(self) -> None:
        """End the decoding from another thread: whoever waits for the next block gets an `AudioError`."""
        child = self._child
        if child is not None:
            child.process.kill()

    def _check(self, n_more: int) -> None:
        """Refuse a file that has passed its bounds."""
        self._n_samples += n_more
        try:
            self._bounds.check_length(self._n_samples / _SAMPLE_RATE)
            if self._waited_s > self._bounds.decoding_s:
                raise AudioError(
                    f"takes more than {self._bounds.decoding_s:g} s to decode; give a part of it, or convert it to WAV"
                )
        except AudioError as error:
            self.close()
            raise AudioError(f"{self._name}: {error}") from None

    def _ask(self) -> None:
        """Send a child to work on the file; a pipe goes to one of its own, as it may be known to this process alone."""
        path = self._path
        try:
            if stat.S_ISFIFO(os.stat(path).st_mode):
                self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            pass  # the child will say why
        if self._pipe is None:
            self._child = _children.take()
            with suppress(OSError, ValueError):
                path = os.path.realpath(path)  # /dev/stdin is another file there
        else:
            self._child = _Child(self._pipe)
            path = f"/dev/fd/{self._pipe}"
        self._child.ask(path)

    def _death(self) -> str:
        child, self._child = self._child, None
        assert child is not None
        status = child.end()
        self.close()
        if status == -signal.SIGPROF:
            how = "got nowhere"
        else:
            how = f"ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}"
        return f"cannot be decoded (the decoder {how}); leave it out, or convert it to WAV"


def prepare() -> None:
    """Start a child, so that it is ready when the first file comes."""
    with suppress(OSError):  # the first file will say why
        _children.give(_children.take())


class _Child:
    """One child process; it inherits the descriptors named."""

    def __init__(self, *descriptors: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each of its threads takes memory at once
            start_new_session=True,  # Ctrl-C is for this process, which then ends the child
        )
        self._is_ready = False
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout
        _widen(self._answers)

    def ask(self, path: str) -> None:
        """Request a file."""
        if not self._is_ready:
            if self.answer()[0] != _READY:
                raise EOFError
            self._is_ready = True
        self._requests.write(json.dumps(os.fsencode(path).hex()).encode() + b"\n")
        self._requests.flush()

    def answer(self) -> tuple[bytes, bytearray]:
        """Wait for the next answer, its kind and bytes; EOFError: it has ended."""
        kind, length = _HEAD.unpack(self._read(_HEAD.size))
        if length > _LONGEST:
            raise EOFError
        return kind, self._read(length)

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        if self._answers.readinto(data) != length:  # type: ignore[attr-defined]
            raise EOFError
        return data

    def end(self) -> int:
        """End it if need be; returns its status."""
        self.process.kill()
        with suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        return self.process.wait()


def _widen(pipe: IO[bytes]) -> None:
    import fcntl

    with suppress(AttributeError, OSError):  # Linux has it, up to a limit
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class _Children:
    """Those children that wait for the next file; as many as files may usefully be decoded at once."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.process.poll() is None:
                    return child
                child.end()
        return _Child()

    def give(self, child: _Child) -> None:
        with self._lock:
            if len(self._idle) < processors():
                self._idle.append(child)
                return
        child.end()

    def end(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().end()

    def forget(self) -> None:
        """In a fork of this process: the children are not its own."""
        self._lock = threading.Lock()
        for child in self._idle:
            child.process.returncode = 0
        self._idle = []


_children = _Children()
atexit.register(_children.end)
os.register_at_fork(after_in_child=_children.forget)


# -- in the child ------------------------------------------------------------------------------------------------------


def serve() -> NoReturn:
    """Decode files as long as requests come."""
    import resource

    from samaf.audio import stream_audio

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    for kind, limit in ((resource.RLIMIT_DATA, DATA_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, hard))

    def answer(kind: bytes, data: Any) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if kind != _BLOCK:
            data = json.dumps(data).encode()
        answers.write(_HEAD.pack(kind, memoryview(data).nbytes))
        answers.write(data)
        answers.flush()
        signal.setitimer(signal.ITIMER_PROF, BLOCK_CPU_S)

    answer(_READY, None)
    for line in sys.stdin.buffer:
        path = os.fsdecode(bytes.fromhex(json.loads(line)))
        try:
            stream = stream_audio(path)
            for n, block in enumerate(stream):
                if n == 0:
                    answer(_TAGS, dict(stream.tags))
                answer(_BLOCK, block)
            answer(_END, stream.warning)
        except BrokenPipeError:
            break
        except AudioError as error:
            answer(_ERROR, str(error).removeprefix(f"{shown(path)}: "))
        except Exception as error:  # a bug of a decoder or of ours, at this one file
            why = shown(f"{type(error).__name__}: {error}")
            answer(_ERROR, f"cannot be decoded ({why}); leave it out, or convert it to WAV")
    os._exit(0)
