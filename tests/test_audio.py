"""Reading audio: all formats, parts and blocks give the same samples; each bad input gives one clear line."""

from __future__ import annotations

import builtins
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import tune, write

from samaf.audio import SAMPLE_RATE, is_audio_path, probe, read_audio, stream_audio
from samaf.errors import AudioError


def write_av(path: Path, samples: np.ndarray, rate: int, codec: str, *, video: bool = False) -> Path:
    """Write mono samples (n,), or none, with FFmpeg; with `video`, beside a black picture."""
    with av.open(str(path), "w") as out:
        if video:
            picture = out.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 64
        if len(samples):
            sound = out.add_stream(codec, rate=rate, layout="mono")
            sound.bit_rate = 64000
        if video:
            for _ in range(20):
                black = np.zeros((64, 64, 3), np.uint8)
                out.mux(picture.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
            out.mux(picture.encode(None))
        if len(samples):
            for at in range(0, len(samples), 1 << 14):
                part = np.ascontiguousarray(samples[None, at : at + (1 << 14)])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, at
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
    return path


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation over the common length: near 1 only without shift in time."""
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tune in many rates."""
    root = tmp_path_factory.mktemp("audio")
    for rate in (8000, 11025, 16000, 22050, 44100, 44099, 48000, 96000):
        write(root / f"{rate}.wav", tune(3.217, seed=1, rate=rate), rate, subtype="FLOAT")
    return root


# --- whole files ----------------------------------------------------------------------------------


def test_wav_at_16_khz_comes_back_as_it_is(tmp_path: Path) -> None:
    samples = tune(2.5, seed=3)
    got = read_audio(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert got.dtype == np.float32 and got.flags.c_contiguous and got.flags.writeable
    np.testing.assert_array_equal(got, samples)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "aiff", "caf"])
def test_libsndfile_formats(tmp_path: Path, suffix: str) -> None:
    samples = tune(12.0, seed=4)
    path = write(tmp_path / f"a.{suffix}", samples)
    got = read_audio(path)
    assert len(got) == len(samples)
    assert similarity(got, samples) > 0.97
    info = probe(path)
    assert info.channels == 1 and info.duration_s == pytest.approx(12.0) and info.format


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 44100),
        ("a.aac", "aac", 16000),
        ("a.mp4", "aac", 48000),
        ("a.wma", "wmav2", 32000),
        ("a.webm", "libopus", 48000),
        ("a.mkv", "flac", 16000),
        ("a.ac3", "ac3", 32000),
    ],
)
def test_ffmpeg_formats(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    samples = tune(14.0, seed=5, rate=rate)
    path = write_av(tmp_path / name, samples, rate, codec)
    got = read_audio(path)
    expected = soxr.resample(samples, rate, SAMPLE_RATE)
    # Raw streams cannot say that their encoder began with some milliseconds of nothing, nor does ASF.
    at = 2 * SAMPLE_RATE
    shift = max(range(-1100, 1100), key=lambda k: similarity(got[at + k : at + k + 16000], expected[at:]))
    assert shift == 0 or name in ("a.aac", "a.ac3", "a.wma")
    assert similarity(got[at + shift :], expected[at:]) > 0.97
    assert abs(len(got) - len(expected)) < 0.15 * SAMPLE_RATE
    info = probe(path)
    assert (info.sample_rate, info.channels) == (rate, 1)
    assert info.duration_s == pytest.approx(14.0, abs=0.5) or name == "a.aac"


def test_mp3_of_a_low_rate_is_read_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples = tune(60.0, seed=1)  # libmpg123 mutes frames of it
    got = read_audio(write(tmp_path / "a.mp3", np.tile(samples, 6)))
    lost = [similarity(got[at : at + 400], samples[at % len(samples) :]) for at in range(0, len(got), 400)]
    assert len(got) == 6 * len(samples) and min(lost) > 0.5
    assert capfd.readouterr().err == ""


def test_sound_of_a_video(tmp_path: Path) -> None:
    samples = tune(2.0, seed=6, rate=48000)
    got = read_audio(write_av(tmp_path / "film.mp4", samples, 48000, "aac", video=True))
    assert similarity(got, soxr.resample(samples, 48000, SAMPLE_RATE)) > 0.97


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    samples = tune(1.0)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    for name in ("a.mp3", "a.m4a", "a.raw", "a"):
        np.testing.assert_array_equal(read_audio(path.rename(tmp_path / name)), samples)
        path = tmp_path / name


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 32000, 44099, 44100, 48000, 96000, 192000])
def test_any_rate(tmp_path: Path, rate: int) -> None:
    samples = tune(1.7, seed=7, rate=rate)
    got = read_audio(write(tmp_path / "a.wav", samples, rate, subtype="FLOAT"))
    assert len(got) == int(len(samples) * SAMPLE_RATE / rate + 0.5)
    np.testing.assert_allclose(got, soxr.resample(samples, rate, SAMPLE_RATE), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 64])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    frames = np.random.default_rng(channels).uniform(-0.5, 0.5, (8000, channels)).astype(np.float32)
    got = read_audio(write(tmp_path / "a.wav", frames, subtype="FLOAT"))
    np.testing.assert_allclose(got, frames.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f64le"])
def test_full_scale_is_one_in_ffmpeg_too(tmp_path: Path, codec: str) -> None:
    samples = tune(0.5, seed=8)
    got = read_audio(write_av(tmp_path / "a.mkv", samples, SAMPLE_RATE, codec))
    np.testing.assert_allclose(got, samples, atol=0.01 if codec == "pcm_u8" else 1e-4)


def test_silence_and_one_sample_are_audio(tmp_path: Path) -> None:
    assert not read_audio(write(tmp_path / "silence.wav", np.zeros(16000, np.float32))).any()
    assert read_audio(write(tmp_path / "one.wav", np.full(1, 0.5, np.float32))) == pytest.approx([0.5])


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 44099, 48000, 96000])
@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0.0, 0.5), (0.1, 0.2), (1.2345, 2.7), (2.0, None), (3.0, 99.0)]
)
def test_a_range_is_that_part_of_the_whole(
    folder: Path, rate: int, start_s: float, end_s: float | None
) -> None:
    whole = read_audio(folder / f"{rate}.wav")
    part = read_audio(folder / f"{rate}.wav", start_s=start_s, end_s=end_s)
    expected = whole[round(start_s * SAMPLE_RATE) : None if end_s is None else round(end_s * SAMPLE_RATE)]
    assert part.shape == expected.shape
    np.testing.assert_allclose(part, expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3"])
def test_a_range_of_a_compressed_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tune(20.0, seed=9, rate=48000), 48000)
    whole = read_audio(path)
    part = read_audio(path, start_s=13.37, end_s=15.0)
    np.testing.assert_allclose(part, whole[round(13.37 * 16000) : 15 * 16000], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4a", "aac", 48000), ("a.webm", "libopus", 48000), ("a.wma", "wmav2", 16000)],
)
@pytest.mark.parametrize("start_s", [3.0, 25.5])  # one decoded up to, one sought
def test_a_range_read_by_ffmpeg(tmp_path: Path, name: str, codec: str, rate: int, start_s: float) -> None:
    path = write_av(tmp_path / name, tune(30.0, seed=10, rate=rate), rate, codec)
    whole = read_audio(path)
    part = read_audio(path, start_s=start_s, end_s=start_s + 2)
    assert len(part) == 2 * SAMPLE_RATE
    first = round(start_s * SAMPLE_RATE)
    slack = (
        0 if name == "a.m4a" else SAMPLE_RATE // 1000
    )  # time stamps of WebM and WMA are whole milliseconds
    assert max(similarity(whole[first + k :], part) for k in range(-slack, slack + 1)) > 0.999


@pytest.mark.parametrize(
    "bad",
    [
        {"start_s": -1.0},
        {"start_s": np.nan},
        {"start_s": 2.0, "end_s": 1.0},
        {"end_s": 0.0},
        {"block_s": 0.0},
    ],
)
def test_a_senseless_range_is_the_callers_mistake(folder: Path, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="_s must"):
        stream_audio(folder / "16000.wav", **bad)


def test_a_range_behind_the_end(folder: Path) -> None:
    with pytest.raises(AudioError, match=r"16000\.wav: ends before 5\.00 s \(it lasts 3\.22 s\)"):
        read_audio(folder / "16000.wav", start_s=5.0)


# --- blocks ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 44100, 44099, 48000]),
    size=st.integers(1000, 60000),
    start=st.integers(0, 40000),
    length=st.none() | st.integers(1, 60000),
)
def test_blocks_have_no_seams(folder: Path, rate: int, size: int, start: int, length: int | None) -> None:
    path = folder / f"{rate}.wav"
    start_s = start / SAMPLE_RATE
    end_s = None if length is None else (start + length) / SAMPLE_RATE
    blocks = list(stream_audio(path, start_s=start_s, end_s=end_s, block_s=size / SAMPLE_RATE))
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert 0 < len(blocks[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(path, start_s=start_s, end_s=end_s))


def test_a_stream_equals_one_resampling_of_the_whole_signal(tmp_path: Path) -> None:
    samples = tune(40.0, seed=11, rate=44100)  # several reads long
    path = write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    whole = soxr.ResampleStream(44100, SAMPLE_RATE, 1, quality="HQ").resample_chunk(samples, last=True)
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(path, block_s=0.7))), whole)


def test_blocks_do_not_share_memory(folder: Path) -> None:
    first, second = list(stream_audio(folder / "16000.wav", block_s=1.0))[:2]
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mka"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    minute = tune(60.0, seed=12)
    if suffix == "mka":
        write_av(path, np.tile(minute, 10), SAMPLE_RATE, "pcm_s16le")
    else:
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            for _ in range(30):
                file.write(minute)
    next(stream_audio(path))  # imports and tables are not the file's
    tracemalloc.start()
    try:
        total = sum(len(block) for block in stream_audio(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == (10 if suffix == "mka" else 30) * len(minute)
    assert peak < 8 << 20  # the whole is 38 MB and 115 MB


def test_a_stream_left_early_closes_its_file(folder: Path) -> None:
    stream = stream_audio(folder / "44100.wav", block_s=0.1)
    next(stream)
    stream.close()
    if sys.platform == "linux":
        links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
        assert "44100.wav" not in {
            os.path.basename(os.readlink(link)) for link in links if os.path.islink(link)
        }


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_names_that_are_no_text(tmp_path: Path, suffix: str) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n." + suffix.encode()))
    plain = tmp_path / f"plain.{suffix}"
    write(plain, tune(1.0)) if suffix == "wav" else write_av(plain, tune(1.0), 16000, "aac")
    plain.rename(path)
    assert len(read_audio(path)) >= SAMPLE_RATE
    assert len(read_audio(str(path))) >= SAMPLE_RATE
    path.write_bytes(b"no audio at all")
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode("utf-8")


def test_a_name_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_av(tmp_path / "a.m4a", tune(1.0), 16000, "aac").rename(tmp_path / "concat:b.m4a")
    assert len(read_audio("concat:b.m4a")) >= SAMPLE_RATE


def test_suffixes() -> None:
    assert is_audio_path("a/b.FLAC") and is_audio_path(Path("c.Mp4")) and is_audio_path("x.webm")
    assert not is_audio_path("a.txt") and not is_audio_path("wav") and not is_audio_path("a.samaf")


# --- bad inputs -----------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("this is not audio\n" * 100)


def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def header_only(path: Path) -> None:
    path.write_bytes(write(path, tune(1.0)).read_bytes()[:30])


def wav_of(tag: int, bits: int) -> Callable[[Path], None]:
    """A writer of a WAV file whose header names a coding and the bits of a sample."""

    def make(path: Path) -> None:
        fields = struct.pack("<HHIIHH", tag, 1, 16000, 2 * 16000 * bits // 16, bits // 8, bits)
        data = write(path, tune(2.0)).read_bytes()
        path.write_bytes(data[:20] + fields + data[36:])

    return make


def no_samples(path: Path) -> None:
    write(path, np.empty(0, np.float32))


def nan(path: Path) -> None:
    samples = tune(1.0)
    samples[9000] = np.nan
    write(path, samples, subtype="FLOAT")


def opposite_infinities(path: Path) -> None:
    write(path, np.tile(np.array([np.inf, -np.inf], np.float32), (100, 1)), subtype="FLOAT")


def one_hertz(path: Path) -> None:
    write(path, tune(1.0), 1)


def playlist(path: Path) -> None:
    other = write_av(path.with_name("other.aac"), tune(1.0), 16000, "aac")
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n")


def video_without_sound(path: Path) -> None:
    write_av(path.with_suffix(".mp4"), np.empty(0, np.float32), 16000, "aac", video=True).rename(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "is a folder"),
        (empty, "is empty"),
        (text, "not audio"),
        (random_bytes, "not audio"),
        (playlist, "not audio"),
        (header_only, ""),
        (no_samples, "holds no samples"),
        (nan, "holds NaN"),
        (opposite_infinities, "holds NaN, infinite"),
        (one_hertz, "says 1 Hz"),
        (video_without_sound, "has no sound track"),
        (wav_of(1, 0), "is in a coding that is not known; convert it to WAV or FLAC"),
        (wav_of(0xFFFF, 16), "is in a coding that is not known"),
        (wav_of(3, 16), "is in a coding that is not known"),
        (wav_of(1, 64), "holds samples of the form s64, which are not known"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_files(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: {message}") and "\n" not in line
    if make not in (no_samples, nan, opposite_infinities) and "samples of the form" not in line:
        with pytest.raises(AudioError):
            probe(path)


@pytest.mark.parametrize("path", ["", "no\0name.wav", "x" * 5000])
def test_impossible_names(path: str) -> None:
    with pytest.raises(AudioError):
        read_audio(path)


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(builtins, "open", refuse)  # a test run by root could open anything
    with pytest.raises(AudioError, match=r"16000\.wav: may not be read"):
        read_audio(folder / "16000.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "mkv"])
def test_a_truncated_file_is_read_as_far_as_it_goes(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = tune(20.0, seed=13)
    path = tmp_path / f"a.{suffix}"
    if suffix == "mkv":
        write_av(path, samples, SAMPLE_RATE, "flac")
    else:
        write(path, samples)
    whole = read_audio(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    got = read_audio(path)
    assert 7 * SAMPLE_RATE < len(got) < 13 * SAMPLE_RATE
    assert similarity(got[:-2000], whole) > 0.999
    assert capfd.readouterr().err == ""


def test_a_truncated_m4a_without_its_index(tmp_path: Path) -> None:
    path = write_av(tmp_path / "a.m4a", tune(10.0), 16000, "aac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"a\.m4a: "):
        read_audio(path)


def test_damage_in_the_middle_does_not_end_the_reading(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_av(tmp_path / "a.aac", tune(10.0, seed=14), 16000, "aac")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    assert len(read_audio(path)) > 9 * SAMPLE_RATE
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe(tmp_path: Path) -> None:
    samples = tune(3.0, seed=15)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", f"cat '{path}' > '{pipe}'"]):
        np.testing.assert_allclose(read_audio(pipe, start_s=1.0), samples[16000:], atol=1e-6)


# --- real recordings and foreign programs ---------------------------------------------------------


@pytest.mark.data
def test_real_recordings(data_dir: Path) -> None:
    for path in sorted((data_dir / "music").iterdir())[:3] + sorted((data_dir / "ir").iterdir())[:3]:
        info, samples = probe(path), read_audio(path)
        assert info.duration_s is not None
        assert len(samples) == pytest.approx(info.duration_s * SAMPLE_RATE, abs=1)
        assert 0.001 < np.abs(samples).max() < 2


@pytest.mark.parametrize("name", ["a.gsm", "a.amr-nb", "a.wv"])
def test_files_that_sox_wrote(tmp_path: Path, program: Callable[[str], str], name: str) -> None:
    source = write(tmp_path / "a.wav", tune(3.0, seed=16, rate=8000), 8000)
    target = tmp_path / name
    if subprocess.run([program("sox"), source, target], capture_output=True, check=False).returncode:
        pytest.skip(f"this sox cannot write {name}")
    got = read_audio(target)
    assert len(got) == pytest.approx(3 * SAMPLE_RATE, abs=1000)
    assert np.abs(got).max() > 0.1
