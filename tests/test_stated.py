"""Files that hold less than they state: told apart from whole ones, and read as far as they go."""

from __future__ import annotations

import math
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from synth import tune, write
from test_audio import write_av

from samaf.audio import SAMPLE_RATE, stream_audio
from samaf.stated import by_log, mp3_length, ogg_is_whole, shortfall


def read(path: Path) -> tuple[float, str]:
    """Seconds that can be read, and the warning."""
    stream = stream_audio(path)
    return sum(map(len, stream)) / SAMPLE_RATE, stream.warning


def cut(path: Path, share: float = 0.25) -> Path:
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    return path


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    **dict.fromkeys(["a.wav", "a.flac", "a.ogg", "a.opus", "a.aiff", "a.au", "a.w64"], write),
    "a.rf64": lambda path, samples: write(path, samples, format="RF64", subtype="PCM_16"),
    "a.mp3": lambda path, samples: write(path, samples, 44100),  # of another rate, which harms nobody
    "low.mp3": write,  # FFmpeg reads it
    "a.mka": lambda path, samples: write_av(path, samples, SAMPLE_RATE, "flac"),
    "a.webm": lambda path, samples: write_av(path, samples, 48000, "libopus"),
    "a.tta": lambda path, samples: write_av(path, samples, SAMPLE_RATE, "tta"),
    "a.oga": lambda path, samples: write_av(path, samples, SAMPLE_RATE, "flac"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_cut_off_is_told(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = WRITERS[name](tmp_path / name, tune(20.0, seed=1))
    whole_s, warning = read(path)
    assert warning == "" and whole_s > 6
    got_s, warning = read(cut(path))
    assert 1.0 < got_s < 0.4 * whole_s
    if path.suffix in (".ogg", ".opus", ".oga"):
        assert warning.startswith(f"is cut off after {got_s:.1f} s: its end is missing; copy it again")
    else:
        stated_s = re.fullmatch(
            rf"is cut off or damaged: {got_s:.1f} s of the (.*) s that it states could be read; "
            "copy it again from where it is whole",
            warning,
        )
        assert stated_s and float(stated_s[1]) == pytest.approx(whole_s, abs=0.15)
    assert capfd.readouterr().err == ""


def test_an_m4a_with_its_index_in_front(tmp_path: Path, program: Callable[[str], str]) -> None:
    source = write(tmp_path / "a.wav", tune(20.0, seed=2))
    path = tmp_path / "a.m4a"
    command = [program("ffmpeg"), "-loglevel", "error", "-i", source, "-movflags", "faststart", path]
    subprocess.run(command, check=True)
    assert read(path)[1] == ""
    got_s, warning = read(cut(path))
    assert 2.0 < got_s < 8.0 and f"{got_s:.1f} s of the 20.0 s that it states" in warning


@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.wma", "wmav2"), ("a.ac3", "ac3")])
def test_what_states_nothing_is_not_doubted(tmp_path: Path, name: str, codec: str) -> None:
    path = write_av(tmp_path / name, tune(20.0, seed=3, rate=32000), 32000, codec)
    assert read(path)[1] == ""
    got_s, warning = read(cut(path))
    assert 3.0 < got_s < 8.0 and warning == ""


def test_mp3_of_varying_rate_without_a_length_is_read_whole(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    """Its first frame says little of the others: a length that is guessed from it may be half of the true one."""
    source = write(tmp_path / "a.wav", tune(30.0, seed=1, rate=48000), 48000)
    path = tmp_path / "a.mp3"
    command = [program("ffmpeg"), "-loglevel", "error", "-i", source, "-q:a", "2", "-write_xing", "0", path]
    subprocess.run(command, check=True)
    assert mp3_length(str(path)) is None
    got_s, warning = read(path)
    assert got_s == pytest.approx(30.0, abs=0.1) and warning == ""


def test_part_of_a_file_is_no_less_than_it_states(tmp_path: Path) -> None:
    stream = stream_audio(write(tmp_path / "a.flac", tune(5.0)), end_s=2.0)
    assert sum(map(len, stream)) == 2 * SAMPLE_RATE and stream.warning == ""


def test_little_less_is_not_worth_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tune(20.0))
    path.write_bytes(path.read_bytes()[:-2000])
    assert read(path) == (pytest.approx(20.0 - 1000 / SAMPLE_RATE), "")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000, 0])
def test_sizes_that_a_pipe_could_not_know_are_no_lengths(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", tune(3.0))
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + struct.pack("<I", size) + data[at + 4 :])
    got_s, warning = read(path) if size else (3.0, read_or_nothing(path))
    assert (got_s, warning) == (3.0, "")


def read_or_nothing(path: Path) -> str:
    stream = stream_audio(path)
    try:
        for _ in stream:
            pass
    except Exception as error:
        assert "holds no samples" in str(error)
    return stream.warning


def test_shortfall() -> None:
    assert shortfall(None, 1.0) == shortfall(30.0, 30.0) == shortfall(30.0, 29.6) == ""
    assert "1.0 s of the 30.0 s" in shortfall(30.0, 1.0)
    assert "its end is missing" in shortfall(math.inf, 3.0)


def test_lengths_in_a_log() -> None:
    assert by_log("data : 4000 (should be 1000)\n", 2.0) == 8.0
    assert by_log("RIFF : 4000 (should be 1000)\ndata : 1000\n", 2.0) is None  # of no matter, and often wrong
    assert by_log("data : 4000 (should be 0)\n", 0.0) is None


@pytest.mark.parametrize("rate", [44100, 24000, 8000])
@pytest.mark.parametrize("channels", [1, 2])
def test_length_in_an_mp3(tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.repeat(tune(6.0, rate=rate)[:, None], channels, axis=1)
    path = write(tmp_path / "a.mp3", samples, rate)
    found = mp3_length(str(path))
    assert found is not None and found.is_whole
    assert 6.0 <= found.length_s <= 6.0 + 4 * 1152 / rate  # with the encoder's delay
    with_tag = b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + path.read_bytes()
    path.write_bytes(with_tag)
    assert mp3_length(str(path)) == found
    path.write_bytes(with_tag[:5000])
    found = mp3_length(str(path))
    assert found is not None and not found.is_whole and found.length_s > 6.0


def test_files_that_are_neither_mp3_nor_ogg(tmp_path: Path) -> None:
    for data in (b"", b"ID3", b"ID3\x04\0\0\0\0\x02\0", b"\xff\xfb\x90", bytes(9000), b"OggS", b"\xff" * 100):
        path = tmp_path / "a"
        path.write_bytes(data)
        assert mp3_length(str(path)) is None
        assert not ogg_is_whole(str(path))


def test_tags_come_with_the_first_block(tmp_path: Path, program: Callable[[str], str]) -> None:
    flac, m4a = tmp_path / "a.flac", tmp_path / "a.m4a"
    with soundfile.SoundFile(flac, "w", 16000, 1) as file:
        file.title, file.artist, file.tracknumber = "Für\nElise ", "Beethoven", "7"
        file.write(tune(2.0))
    command = [program("ffmpeg"), "-loglevel", "error", "-i", flac, m4a]
    subprocess.run(command, check=True)
    for path in (flac, m4a):
        stream = stream_audio(path)
        assert dict(stream.tags) == {}
        next(stream)
        tags = dict(stream.tags)
        assert (tags["title"].split(), tags["artist"], tags["tracknumber"]) == (
            ["Für", "Elise"],
            "Beethoven",
            "7",
        )
