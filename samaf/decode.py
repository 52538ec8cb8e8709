"""The two decoders behind `samaf.audio`: files as mono float32 frames at the rate they are stored in.

libsndfile (soundfile) reads WAV, FLAC, OGG, Opus, MP3 and their kin; FFmpeg (PyAV) reads the rest: AAC, M4A,
WMA, WebM and the sound of video files. A file goes to whichever can open it, whatever its name ends with.
"""

from __future__ import annotations

import io
import math
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from samaf.errors import AudioError, shown
from samaf.stated import by_log, mp3_length, ogg_is_whole

if TYPE_CHECKING:
    import av

Samples: TypeAlias = NDArray[np.float32]

_RATES = range(1000, 768_001)  # the lowest that carries some of the front end's bands; the highest in use
_PEAK = 2.0**32  # full scale of 32-bit integers that a tool stored as floats without scaling
_READ_VALUES = 1 << 18  # samples of all channels held at once while reading: 1 MiB
_MP3_RATE = 16000  # up to here libmpg123 takes sound frames for damaged, mutes them, and prints to stderr
_SEEK_S = 10.0  # FFmpeg: below this, decoding up to the place is as fast as seeking, and always exact
_SETTLE_S = 1.0  # FFmpeg: codecs need some packets before they give what they give from the beginning
_STATING = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "wv",
    "tta",
    "ape",
    "caf",
)  # FFmpeg: containers that state a stream's length
_WRITER_S = 3.0  # so long may a pipe be without anybody who writes to it
_TAGS = {name: name for name in ("title", "artist", "album", "date", "tracknumber", "genre")} | {
    "tracknumber": "track"
}  # as libsndfile and as FFmpeg call them
_TAG_CHARS = 200  # some files carry a page of text as their title


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file says of itself, before it is decoded.

    Attributes
    ----------
    duration_s : float or None
        Length in seconds; None where the format does not tell.
    sample_rate : int
        Samples per second in the file.
    channels : int
        Channels in the file.
    format : str
        Container and codec, such as ``"WAV/PCM_16"`` or ``"matroska,webm/opus"``.
    tags : mapping of str to str
        Title, artist, album, date, tracknumber and genre, those that there are.
    """

    duration_s: float | None
    sample_rate: int
    channels: int
    format: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """One open file.

    Attributes
    ----------
    info : AudioInfo
    stated_s : float or None
        Length that the container states; infinite where the mark of its end is missing; None where it states none.
    broken : str
        Why the decoder gave up before the end of the file, or ``""``.
    """

    info: AudioInfo
    stated_s: float | None
    broken: str

    def frames(self, start: int) -> Iterator[Samples]:
        """Yield the mono frames from number `start` on, at the file's own rate; called once."""

    def close(self) -> None:
        """Close the file."""


def open_readers(path: str) -> Iterator[Reader]:
    """Open a file with each decoder that can read it, the preferred one first; at least one.

    Raises
    ------
    AudioError
        The file cannot be opened, or is nothing that either decoder takes for audio.
    """
    opened = False
    openers: list[Callable[[str], Reader]] = [_FFmpegReader]
    if _is_regular(path):  # libsndfile must seek; FFmpeg also reads pipes
        openers.insert(0, _SndfileReader)
    for opener in openers:
        try:
            reader = opener(path)
        except _RefusedError:
            continue
        opened = True
        yield reader
    if not opened:
        raise AudioError(f"{shown(path)}: not audio, or of an unknown format; convert it to WAV or FLAC")


class _RefusedError(Exception):
    """The decoder does not know the format."""


def _is_regular(path: str) -> bool:
    """Tell a file from a pipe; anything that cannot be read at all raises AudioError."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{shown(path)}: is a folder; name the files in it")
        if stat.S_ISFIFO(status.st_mode):
            return False
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{shown(path)}: is a device or a socket; name a file of audio")
        if status.st_size == 0:
            raise AudioError(f"{shown(path)}: is empty; copy or record it again")
        with open(path, "rb"):
            return True
    except FileNotFoundError:
        raise AudioError(f"{shown(path)}: no such file; check the name") from None
    except PermissionError:
        raise AudioError(f"{shown(path)}: may not be read; check its permissions") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{shown(path)}: cannot be opened ({why}); check the name and the disk") from None


class _Pipe(io.FileIO):
    """A pipe open to be read, of which the first byte was read already."""

    first: bytes | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self.first:
            data, self.first = self.first, None
            return data
        return super().read(-1 if size is None else size) or b""


def _opened(path: str) -> io.FileIO:
    """Open a file, or a pipe that somebody writes to.

    Raises
    ------
    AudioError
        Nobody writes to the pipe: left to itself, the system would wait for ever.
    """
    if _is_regular(path):
        return io.FileIO(path)
    pipe = _Pipe(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    until = time.monotonic() + _WRITER_S
    while (first := io.FileIO.read(pipe, 1)) == b"":  # None: there is a writer, which has nothing to say yet
        if time.monotonic() > until:
            pipe.close()
            raise AudioError(
                f"{shown(path)}: is a pipe that nobody writes to; start what writes, or name a file"
            )
        time.sleep(0.02)
    os.set_blocking(pipe.fileno(), True)
    pipe.first = first
    return pipe


def _tags(found: Mapping[str, str]) -> dict[str, str]:
    """Those tags that are kept, under the names that libsndfile gives them."""
    texts = {
        name: " ".join((found.get(name) or found.get(other) or "").split())[:_TAG_CHARS]
        for name, other in _TAGS.items()
    }
    return {name: text for name, text in texts.items() if text}


def _check_format(path: str, rate: int, channels: int) -> None:
    if rate not in _RATES or channels < 1:
        raise AudioError(
            f"{shown(path)}: says {rate} Hz and {channels} channels, which is no audio; export it again"
        )


def _mono(frames: NDArray[Any], path: str) -> Samples:
    """Return the mean of the channels of (n, channels) as a new array; refuse what is not finite."""
    channels = frames.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        mono = frames[:, 0].astype(np.float32)
        for channel in range(1, channels):  # several times as fast as frames.mean(axis=1)
            mono += frames[:, channel]
        if channels > 1:
            mono /= np.float32(channels)
    if len(mono) and not (mono.max() < _PEAK and mono.min() > -_PEAK):  # a NaN fails both
        raise AudioError(f"{shown(path)}: holds NaN, infinite or absurdly large samples; export it again")
    return mono


def _after(blocks: Iterator[Samples], skip: int) -> Iterator[Samples]:
    """Leave out the first `skip` frames."""
    for block in blocks:
        if skip < len(block):
            yield block[skip:]
        skip = max(skip - len(block), 0)


class _SndfileReader:
    """A file read by libsndfile."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.broken = ""
        length = mp3_length(path)
        if length is not None and not length.is_whole:
            raise _RefusedError  # libmpg123 would say so on stderr
        try:
            # soundfile encodes a str strictly; a name that is no valid text must go in as the bytes it is.
            self.file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, whose rate it asks for
            raise _RefusedError from error
        f = self.file
        if f.format == "MP3" and (f.samplerate <= _MP3_RATE or length is None):
            f.close()
            raise _RefusedError  # without a length in its header, libsndfile guesses one, and ends there
        try:
            _check_format(path, f.samplerate, f.channels)
        except AudioError:
            f.close()
            raise
        known = 0 <= f.frames < 1 << 62  # libsndfile says the largest integer where it cannot know
        self.info = AudioInfo(
            duration_s=f.frames / f.samplerate if known else None,
            sample_rate=f.samplerate,
            channels=f.channels,
            format=f"{f.format}/{f.subtype}",
            tags=_tags(f.copy_metadata()),
        )
        self.stated_s = self.info.duration_s
        if f.format == "OGG" and not ogg_is_whole(path):
            self.stated_s = math.inf
        elif known:
            self.stated_s = by_log(f.extra_info, f.frames / f.samplerate) or self.stated_s

    def close(self) -> None:
        self.file.close()

    def frames(self, start: int) -> Iterator[Samples]:
        skip = 0
        if start:
            try:
                self.file.seek(min(start, self.file.frames))
            except soundfile.LibsndfileError:
                skip = start
        return _after(self._decoded(), skip)

    def _decoded(self) -> Iterator[Samples]:
        channels = self.info.channels
        buffer = np.empty((max(_READ_VALUES // channels, 1024), channels), np.float32)
        while not self.broken:
            # A read that fails on its way raises without saying how far it came: the NaNs left over tell.
            buffer.fill(np.nan)
            try:
                frames = self.file.read(out=buffer)
            except soundfile.LibsndfileError as error:
                self.broken = f"cannot be decoded ({error.error_string or 'damaged'}); export it again"
                untouched = np.isnan(buffer).any(axis=1)
                frames = buffer[: int(untouched.argmax())] if untouched.any() else buffer
            if not len(frames):
                return
            yield _mono(frames, self.path)


class _FFmpegReader:
    """A file read by FFmpeg."""

    def __init__(self, path: str) -> None:
        import av  # a tenth of a second, which most files do not need

        self.path = path
        self.broken = ""
        # Given an open file, not a name, FFmpeg never takes the name for an address ("http:", "concat:"), and
        # copes with one that is no text. A playlist could still name other files: no protocol is allowed.
        self.file = _opened(path)
        self.file.name = ""
        try:
            self.container = av.open(
                self.file, mode="r", options={"protocol_whitelist": "none"}, **_lenient(av.__version__)
            )
            self._open_stream()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.file.close()
            raise _RefusedError from error
        except BaseException:
            self.file.close()
            raise

    def _open_stream(self) -> None:
        container = self.container
        if not container.streams.audio:
            raise AudioError(f"{shown(self.path)}: has no sound track; name a file with sound")
        stream = self.stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise AudioError(
                f"{shown(self.path)}: is in a coding that is not known; convert it to WAV or FLAC"
            )
        self._start()
        # The first decoded frame, not the header, tells the true rate: an HE-AAC header may give half of it.
        rate = self.first.sample_rate if self.first else stream.codec_context.sample_rate
        channels = len(self.first.layout.channels) if self.first else stream.codec_context.channels
        _check_format(self.path, rate, channels)
        duration_s = None
        if stream.duration is not None and stream.time_base is not None:
            duration_s = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration_s = container.duration / 1e6
        self.info = AudioInfo(
            duration_s,
            rate,
            channels,
            f"{container.format.name}/{stream.codec_context.name}",
            _tags({name.lower(): text for name, text in {**stream.metadata, **container.metadata}.items()}),
        )
        self.stated_s = self._stated_s()

    def _stated_s(self) -> float | None:
        name, duration_s = self.container.format.name, self.info.duration_s
        if name in _STATING or (name == "matroska,webm" and not self.container.streams.video):
            return duration_s  # of a video in Matroska, this is the length of the longest of its streams
        if isinstance(self.file, _Pipe):
            return None
        if name == "mp3":
            length = mp3_length(self.path)
            return None if length is None else length.length_s
        if name == "ogg":
            return None if ogg_is_whole(self.path) else math.inf
        return None

    def close(self) -> None:
        self.decoder.close()
        self.container.close()
        self.file.close()

    def frames(self, start: int) -> Iterator[Samples]:
        skip = start
        if start > _SEEK_S * self.info.sample_rate and self.file.seekable():
            skip = self._seek(start)
        return _after(self._decoded(), skip)

    def _seek(self, start: int) -> int:
        """Go to a place shortly before frame `start`; return how many frames lie between."""
        import av

        rate, base, origin = self.info.sample_rate, self.stream.time_base, self.first
        if origin is None or origin.pts is None or base is None:
            return start
        early = origin.pts + int((start / rate - _SETTLE_S) / base)
        try:
            self.container.seek(early, stream=self.stream)
            self._start()
            if self.first is not None and self.first.pts is not None:
                skip = start - round((self.first.pts - origin.pts) * base * rate)
                if 0 <= skip <= start:
                    return skip
            # It landed behind the place, or nowhere: decode from the beginning.
            self.container.seek(origin.pts, stream=self.stream)
        except av.FFmpegError:
            pass
        self._start()
        return start

    def _start(self) -> None:
        """Begin to decode where the container stands, as far as the first frame."""
        self.decoder = self._frames_decoded()
        self.first = next(self.decoder, None)

    def _frames_decoded(self) -> Generator[av.AudioFrame, None, None]:
        import av

        try:
            for packet in self.container.demux(self.stream):
                try:
                    yield from packet.decode()
                except av.InvalidDataError as error:  # one damaged packet: go on with the next
                    self._note(error)
        except av.FFmpegError as error:
            self._note(error)

    def _note(self, error: av.FFmpegError) -> None:
        self.broken = f"cannot be decoded ({error.strerror or 'damaged'}); export it again"

    def _decoded(self) -> Iterator[Samples]:
        if self.first is not None:
            yield self._mono(self.first)
        for frame in self.decoder:
            yield self._mono(frame)

    def _mono(self, frame: av.AudioFrame) -> Samples:
        try:
            values: NDArray[Any] = frame.to_ndarray()
        except ValueError:  # integers of 64 bits, for one
            raise AudioError(
                f"{shown(self.path)}: holds samples of the form {frame.format.name}, which are not known; convert it "
                "to WAV or FLAC"
            ) from None
        values = values.T if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))
        if values.dtype == np.uint8:
            values = (values.astype(np.float32) - 128) / 128
        elif values.dtype.kind == "i":
            values = values.astype(np.float32) / 2.0 ** (8 * values.dtype.itemsize - 1)
        mono = _mono(values, self.path)
        if frame.sample_rate != self.info.sample_rate:  # some broadcasts change it on the way
            mono = soxr.resample(mono, frame.sample_rate, self.info.sample_rate)
        return mono


def _lenient(version: str) -> dict[str, Any]:
    """What tells PyAV not to refuse a file for tags in another encoding; from version 19 on it never does."""
    return {"metadata_errors": "ignore"} if int(version.split(".")[0]) < 19 else {}
