"""Audio files as 16 kHz mono float32 samples, whole, in part, or in blocks of bounded memory.

`samaf.decode` opens the files; here their ranges are cut and their rates changed. The one resampler is soxr,
fed block by block, so that a recording read in blocks gives the same samples as read at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import soxr

from samaf.decode import AudioInfo, Samples, open_readers
from samaf.errors import AudioError, shown
from samaf.stated import shortfall

__all__ = [
    "AUDIO_SUFFIXES",
    "SAMPLE_RATE",
    "AudioInfo",
    "AudioStream",
    "is_audio_path",
    "probe",
    "read_audio",
    "stream_audio",
]

SAMPLE_RATE = 16000
"""Samples per second of everything that leaves this module."""

AUDIO_SUFFIXES = frozenset(
    """
    .aac .ac3 .aif .aifc .aiff .amr .ape .au .caf .eac3 .flac .gsm .m4a .m4b .mka .mp2 .mp3 .mpc .oga .ogg
    .opus .ra .rf64 .snd .spx .tta .w64 .wav .wave .wma .wv
    .3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .ogv .webm .wmv
    """.split()
)
"""File name endings that `is_audio_path` takes for audio or video, lower case."""

StrPath: TypeAlias = str | os.PathLike[str]

_PRE_ROLL_S = 0.25  # several times the length of the resampler's filter at any usual rate


def is_audio_path(path: StrPath) -> bool:
    """Tell by its ending whether a file name is one of audio or video."""
    return os.path.splitext(os.fspath(path))[1].lower() in AUDIO_SUFFIXES


def probe(path: StrPath) -> AudioInfo:
    """Read a file's length, rate, channels and format, without decoding it.

    Parameters
    ----------
    path : path-like
        An audio or video file.

    Returns
    -------
    AudioInfo

    Raises
    ------
    AudioError
        The file is missing, unreadable, not audio, or has no sound track.
    """
    with closing(next(open_readers(os.fspath(path)))) as reader:
        return reader.info


def read_audio(path: StrPath, *, start_s: float = 0.0, end_s: float | None = None) -> Samples:
    """Read a file, or a range of it, as 16 kHz mono.

    Parameters
    ----------
    path : path-like
        An audio or video file.
    start_s, end_s : float
        The range to read, in seconds of the recording; by default all of it. A range that goes on past the
        end stops there.

    Returns
    -------
    ndarray of float32, shape (n,)
        The mean of the channels, full scale at 1. A whole recording has ``round(frames * 16000 / rate)``
        samples; a range holds the same samples as that part of the whole.

    Raises
    ------
    AudioError
        The file is missing, unreadable, empty, not audio, without a sound track, holds NaN or infinite
        samples, or has nothing in the range. A file that breaks off is read up to there; `stream_audio` tells.
    ValueError
        A range that is negative or empty.

    See Also
    --------
    stream_audio : the same samples in blocks.

    Examples
    --------
    >>> samples = read_audio("concert.flac", start_s=60, end_s=65)
    >>> samples.shape
    (80000,)
    """
    blocks = list(stream_audio(path, start_s=start_s, end_s=end_s))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def stream_audio(
    path: StrPath, *, start_s: float = 0.0, end_s: float | None = None, block_s: float = 10.0
) -> AudioStream:
    """Read a file, or a range of it, as 16 kHz mono in blocks, holding a few blocks in memory at most.

    Parameters
    ----------
    path : path-like
        An audio or video file.
    start_s, end_s : float
        The range to read, in seconds of the recording; by default all of it.
    block_s : float
        Length of a block in seconds.

    Returns
    -------
    AudioStream
        Successive samples, float32 of shape (round(block_s * 16000),); the last block may be shorter. Joined, the
        blocks are what `read_audio` returns.

    Raises
    ------
    AudioError
        As for `read_audio`, when the first block is asked for; NaN or infinite samples when they are reached.
    ValueError
        A range that is negative or empty, or a block of less than one sample.
    """
    first, last = _output_range(start_s, end_s)
    size = round(block_s * SAMPLE_RATE)
    if size < 1:
        raise ValueError(f"block_s must be at least one sample long, got {block_s}")
    return AudioStream(os.fspath(path), first, last, size)


class AudioStream(Iterator[Samples]):
    """The blocks of a file; see `stream_audio`.

    Attributes
    ----------
    tags : mapping of str to str
        See `AudioInfo`; known with the first block.
    warning : str
        After the last block of a whole file: what is wrong if less could be read than its container states, one line
        without the file's name; else "".
    """

    def __init__(self, path: str, first: int, last: int | None, size: int) -> None:
        self._told = _Told()
        self._blocks = _reblocked(_samples(path, first, last, self._told), size)

    def __next__(self) -> Samples:
        return next(self._blocks)

    @property
    def tags(self) -> Mapping[str, str]:  # noqa: D102
        return self._told.tags

    @property
    def warning(self) -> str:  # noqa: D102
        return self._told.warning

    def close(self) -> None:
        """Close the file before its end."""
        self._blocks.close()


def _output_range(start_s: float, end_s: float | None) -> tuple[int, int | None]:
    """Turn a range in seconds into one in output samples."""
    if not (math.isfinite(start_s) and start_s >= 0):
        raise ValueError(f"start_s must be a time from 0 up, got {start_s}")
    first = round(start_s * SAMPLE_RATE)
    if end_s is None or end_s == math.inf:
        return first, None
    if not round(end_s * SAMPLE_RATE) > first:
        raise ValueError(f"end_s must lie after start_s, got {start_s} to {end_s}")
    return first, round(end_s * SAMPLE_RATE)


@dataclass
class _Told:
    """What is told of a file beside its samples."""

    tags: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""


def _samples(path: str, first: int, last: int | None, told: _Told) -> Generator[Samples, None, None]:
    """Yield output samples `first` to `last` of a file, in blocks of any size."""
    reason = ""
    for reader in open_readers(path):
        with closing(reader):
            told.tags = reader.info.tags
            rate = reader.info.sample_rate
            # Output sample k lies at input frame k * rate / 16000. Starting where both grids meet, a little
            # early, puts the resampler into the phase and state that it has there in a whole reading.
            step = rate // math.gcd(rate, SAMPLE_RATE)
            start = (first * rate // SAMPLE_RATE - math.ceil(_PRE_ROLL_S * rate)) // step * step
            start = max(start, 0)
            skip = first - start * SAMPLE_RATE // rate
            count = None if last is None else last - first
            n_samples = 0
            for block in _cut(_resampled(reader.frames(start), rate), skip, count):
                n_samples += len(block)
                yield block
            if n_samples:
                if first == 0 and last is None:
                    told.warning = shortfall(reader.stated_s, n_samples / SAMPLE_RATE)
                return
            reason = reason or reader.broken or _nothing_in_range(reader.info, first)
    raise AudioError(f"{shown(path)}: {reason}")


def _nothing_in_range(info: AudioInfo, first: int) -> str:
    if first == 0:
        return "holds no samples; record or export it again"
    length = "" if info.duration_s is None else f" (it lasts {info.duration_s:.2f} s)"
    return f"ends before {first / SAMPLE_RATE:.2f} s{length}; ask for an earlier range"


def _resampled(blocks: Iterator[Samples], rate: int) -> Iterator[Samples]:
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _cut(blocks: Iterator[Samples], skip: int, count: int | None) -> Iterator[Samples]:
    """Drop the first `skip` samples, then yield `count` of them (None: the rest); no block is empty."""
    for block in blocks:
        kept = block[skip : None if count is None else skip + count]
        skip = max(skip - len(block), 0)
        if len(kept):
            yield kept
        if count is not None:
            count -= len(kept)
            if count == 0:
                return


def _reblocked(blocks: Generator[Samples, None, None], size: int) -> Generator[Samples, None, None]:
    """Yield the same samples in new arrays of `size`, the last one shorter."""
    out = np.empty(size, np.float32)
    filled = 0
    for block in blocks:
        while len(block):
            part = block[: size - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            block = block[len(part) :]
            if filled == size:
                yield out
                out = np.empty(size, np.float32)
                filled = 0
    if filled:
        yield out[:filled].copy()
