"""Distortions: the SNR asked for, true offsets and lengths, the same samples at every run, kept clips."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synth import RATE, tune, write

from bench import clip_cache, effects
from bench.clip_cache import ClipCache
from bench.corpus import Materials, Recording
from bench.degrade import MATRIX, RUN_IN_S, apply, missing, parse
from bench.effects import EFFECTS, KAIST
from samaf.errors import AudioError

Samples = NDArray[np.float32]
NOTHING = np.empty(0, np.float32)
ROOM_DELAY = 40  # samples of silence before the direct sound of the test's room

# every effect once, the value of its first appearance in the matrix
EACH = tuple({parse(name).steps[-1].word: name for name in reversed(MATRIX) if name != "clean"}.values())


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    folder = tmp_path_factory.mktemp("materials")

    def recording(name: str, samples: NDArray) -> Recording:
        return Recording(name, write(folder / name, samples), len(samples) / RATE)

    rng = np.random.default_rng(1)
    hiss = 0.1 * rng.standard_normal(4 * RATE)
    rumble = np.cumsum(0.002 * rng.standard_normal(RATE // 2))  # shorter than a clip
    pauses = np.where(np.arange(8 * RATE) < 4 * RATE, 0.0, 0.1 * rng.standard_normal(8 * RATE))
    room = np.zeros(RATE // 2)
    room[ROOM_DELAY], room[ROOM_DELAY + 800] = 0.9, -0.4
    room[ROOM_DELAY + 1600 :] = 0.02 * rng.standard_normal(len(room) - ROOM_DELAY - 1600)
    return Materials(
        noises=[recording(f"noise{k}.wav", x) for k, x in enumerate((hiss, rumble, pauses))],
        rooms=[recording("room.wav", room)],
        voices=[recording(f"voice{k}.wav", tune(3.0, seed=70 + k)) for k in range(3)],
    )


@pytest.fixture(scope="module")
def clip() -> Samples:
    """Soft enough that no noise of the tests makes the peak be brought down."""
    return 0.1 * tune(2.0, seed=5)


@pytest.fixture
def spoil(materials: Materials, program: Callable[[str], str]) -> Callable[..., Samples]:
    """`spoil(samples, name)`; skips, or in CI fails, where the program is missing."""

    def run(clean: Samples, name: str, *, before: Samples = NOTHING, seed: int = 0) -> Samples:
        condition = parse(name)
        if "sox" in condition.needs:
            program("sox")
        return apply(clean, before, condition, materials, np.random.default_rng(seed))

    return run


def rms(x: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def snr_of(clean: NDArray, noisy: NDArray) -> float:
    return 20 * np.log10(rms(clean) / rms(noisy.astype(np.float64) - clean))


def lag_of(a: NDArray, b: NDArray) -> int:
    """Samples by which `b` comes after `a`."""
    size = 2 * len(a)
    correlation = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    lag = int(np.argmax(correlation))
    return lag if lag < len(a) else lag - size


def bursts(times_s: Sequence[float], length_s: float, hz: float = 1000.0) -> Samples:
    """Short tones with their middles at these times."""
    t = np.arange(round(length_s * RATE)) / RATE
    envelope = sum(np.exp(-(((t - at) / 0.004) ** 2)) for at in times_s)
    return (0.5 * envelope * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def loudest_s(x: NDArray, around_s: float, within_s: float = 0.1) -> float:
    """Time of the middle of the energy near a time."""
    first = round((around_s - within_s) * RATE)
    energy = np.square(x[first : first + round(2 * within_s * RATE)], dtype=np.float64)
    return (first + float(np.average(np.arange(len(energy)), weights=energy))) / RATE


# -- names -------------------------------------------------------------------------------------------------------------


def token(word: str) -> st.SearchStrategy[str]:
    value = EFFECTS[word].value
    if value is None:
        return st.just(word)
    numbers = st.integers(int(np.ceil(value.low)), int(value.high))
    return numbers.flatmap(lambda n: st.sampled_from([f"{word}{n}", f"{word}{n:+d}"]))


@given(
    st.lists(st.sampled_from(sorted(EFFECTS)), min_size=1, max_size=4).flatmap(
        lambda w: st.tuples(*map(token, w))
    )
)
def test_any_chain_is_parsed_and_keeps_its_name(tokens: tuple[str, ...]) -> None:
    name = "_".join(tokens)
    condition = parse(name)
    assert str(condition) == condition.name == name
    assert len(condition.steps) == len(tokens)
    stages = [step.effect.stage for step in condition.steps]
    assert stages == sorted(stages)
    assert condition == parse(name)


def test_the_matrix_is_known_and_whole() -> None:
    assert len(set(MATRIX)) == len(MATRIX)
    for name in MATRIX:
        condition = parse(name)
        assert condition.name == name
        assert pickle.loads(pickle.dumps(condition)) == condition  # for other processes
    assert set(EACH) < set(MATRIX)
    assert {parse(name).steps[0].word for name in EACH} == set(EFFECTS)


@pytest.mark.parametrize(
    "name",
    ["", "noise", "reverb5", "speed9", "speed0", "rerecord1.5", "noise5_", "_noise5", "noise5__gsm", "clean_gsm",
     "Noise5", "noise5 ", "mp3_", "opus", "pitch1e2", "vinyl"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r": (no such condition|must be|needs a value|reverb takes no value)"
    ):
        parse(name)


def test_a_refusal_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"vinyl: .*clean, speed<factor>, .*echo\[ms\].*noise<dB>"):
        parse("vinyl")
    with pytest.raises(ValueError, match=r"speed9: must be from 0.5 to 2"):
        parse("speed9")


def test_order_is_the_way_of_the_sound() -> None:
    words = [step.word for step in parse("mp3_32_noise5_reverb_speed0.95").steps]
    assert words == ["speed", "reverb", "noise", "mp3_"]


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("clean", 1),
        ("speed0.95", 0.95),
        ("tempo1.1", 1.1),
        ("speed1.05_tempo0.9", 0.945),
        ("pitch-50", 1),
        ("gsm", 1),
    ],
)
def test_factor(name: str, factor: float) -> None:
    condition = parse(name)
    assert condition.factor == pytest.approx(factor)
    assert condition.clean_samples(80000) == round(80000 * factor)
    assert condition.clip_samples(condition.clean_samples(80000)) == 80000


def test_only_rooms_hear_what_came_before() -> None:
    assert parse("noise5_reverb").run_in_s == RUN_IN_S
    assert parse("speed1.1_reverb").run_in_s == pytest.approx(1.1 * RUN_IN_S)
    assert parse("noise5").run_in_s == 0


def test_what_is_missing_is_named(materials: Materials, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Materials()
    assert missing(parse("white5_gsm"), bare) is None
    assert missing(parse("noise5"), bare) == "the data hold no recorded noise"
    assert missing(parse("reverb"), bare) == "the data hold no impulse responses"
    assert "speech" in str(missing(parse("babble5"), bare))
    assert missing(parse("rerecord"), materials) is None
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert missing(parse("tempo1.1"), materials) == "the program sox is not installed"
    assert missing(parse("speed1.1"), materials) is None
    monkeypatch.setattr("av.codecs_available", {"aac"})
    assert missing(parse("mp3_32"), materials) == "PyAV was built without libmp3lame"


# -- every condition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_length_level_and_determinism(name: str, spoil: Callable[..., Samples]) -> None:
    condition = parse(name)
    whole = tune(2.0, seed=3) * 1.9  # peak 0.95
    start = 12000
    clean = whole[start : start + condition.clean_samples(16000)]
    before = whole[start - round(min(condition.run_in_s, 0.75) * RATE) : start]
    first = spoil(clean, name, before=before, seed=1)
    assert first.dtype == np.float32
    assert first.shape == (16000,)
    assert np.isfinite(first).all()
    assert 0 < np.abs(first).max() <= 0.951
    assert np.array_equal(first, spoil(clean, name, before=before, seed=1))
    if name.startswith(("noise", "white", "pink", "babble", "rerecord", "kaist")):
        assert not np.array_equal(first, spoil(clean, name, before=before, seed=2))


@pytest.mark.parametrize("name", EACH)
def test_silence_stays_finite(name: str, spoil: Callable[..., Samples]) -> None:
    assert np.isfinite(spoil(np.zeros(parse(name).clean_samples(8000), np.float32), name)).all()


# -- noise -------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["noise", "white", "pink", "babble"]),
    st.floats(-15, 30).map(lambda x: round(x, 1)),
    st.integers(0, 2**32),
)
def test_snr_is_the_one_asked_for(
    spoil: Callable[..., Samples], clip: Samples, kind: str, snr: float, seed: int
) -> None:
    assert snr_of(clip, spoil(clip, f"{kind}{snr}", seed=seed)) == pytest.approx(snr, abs=0.1)


def test_snr_counts_over_the_reverberated_clip(spoil: Callable[..., Samples], clip: Samples) -> None:
    before = 0.5 * tune(1.0, seed=6)  # much louder than the clip
    room = spoil(clip, "reverb", before=before, seed=4)
    noisy = spoil(clip, "noise5_reverb", before=before, seed=4)
    assert snr_of(room, noisy) == pytest.approx(5.0, abs=0.1)


def test_damaged_noise_is_drawn_again(materials: Materials, clip: Samples, tmp_path: Path) -> None:
    broken = Recording("broken.wav", tmp_path / "broken.wav", 9.0)
    broken.path.write_bytes(b"RIFF")
    mixed = Materials(noises=[broken, materials.noises[0]])
    noisy = apply(clip, NOTHING, parse("noise0"), mixed, np.random.default_rng(0))
    assert snr_of(clip, noisy) == pytest.approx(0.0, abs=0.1)
    with pytest.raises(AudioError, match="silence and damaged files"):
        apply(clip, NOTHING, parse("noise0"), Materials(noises=[broken]), np.random.default_rng(0))


def test_pink_noise_falls_by_3_db_an_octave(spoil: Callable[..., Samples]) -> None:
    clip = 0.01 * tune(8.0)
    power = np.abs(np.fft.rfft(spoil(clip, "pink-30").astype(np.float64) - clip)) ** 2
    hz = np.fft.rfftfreq(len(clip), 1 / RATE)
    octaves = [10 * np.log10(power[(hz >= f) & (hz < 2 * f)].mean()) for f in (250, 500, 1000, 2000)]
    assert np.diff(octaves) == pytest.approx(-3.01, abs=0.5)


# -- time and pitch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tolerance_s"),
    [("speed0.8", 0.001), ("speed0.95", 0.001), ("speed1.02", 0.001), ("speed1.2", 0.001)]
    + [(f"tempo{factor}", 0.02) for factor in (0.8, 0.95, 1.05, 1.2)],
)
def test_sounds_land_where_the_factor_says(
    name: str, tolerance_s: float, spoil: Callable[..., Samples]
) -> None:
    factor = parse(name).factor
    clean = bursts((0.4, 1.3, 2.2, 3.1), 4.0 * factor)
    spoilt = spoil(clean, name)
    assert len(spoilt) == 4 * RATE
    for at in (0.4, 1.3, 2.2, 3.1):
        assert loudest_s(spoilt, at / factor) == pytest.approx(at / factor, abs=tolerance_s)


@pytest.mark.parametrize(
    ("name", "hz"),
    [("speed1.05", 1050), ("speed0.9", 900), ("tempo1.1", 1000), ("pitch-50", 971.5), ("pitch+100", 1059.5)],
)
def test_pitch_changes_with_speed_and_pitch_alone(
    name: str, hz: float, spoil: Callable[..., Samples]
) -> None:
    n = parse(name).clean_samples(2 * RATE)
    tone = (0.3 * np.sin(2 * np.pi * 1000 * np.arange(n) / RATE)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(spoil(tone, name) * np.hanning(2 * RATE)))
    assert np.argmax(spectrum) / 2 == pytest.approx(hz, abs=2)


def test_pitch_leaves_times_alone(spoil: Callable[..., Samples]) -> None:
    shifted = spoil(bursts((0.5, 1.5), 2.0), "pitch-100")
    for at in (0.5, 1.5):
        assert loudest_s(shifted, at) == pytest.approx(at, abs=0.02)


# -- codecs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"),
    [("mp3_32", 0.9), ("mp3_64", 0.95), ("mp3_128", 0.99), ("opus_16", 0.8), ("aac_32", 0.9), ("gsm", 0.7)],
)
def test_codecs_keep_their_place(name: str, least: float, spoil: Callable[..., Samples]) -> None:
    clean = 1.9 * tune(3.0, seed=2)
    coded = spoil(clean, name)
    assert abs(lag_of(clean, coded)) <= 0.002 * RATE
    assert np.corrcoef(clean, coded)[0, 1] > least
    assert not np.array_equal(clean, coded)


def test_lower_rates_do_more_harm(spoil: Callable[..., Samples]) -> None:
    clean = 0.5 * tune(3.0, seed=2)
    likeness = [np.corrcoef(clean, spoil(clean, f"mp3_{kbit}"))[0, 1] for kbit in (16, 32, 64, 128)]
    assert likeness == sorted(likeness)


@pytest.mark.parametrize("name", ["telephone", "gsm"])
def test_narrow_band(name: str, spoil: Callable[..., Samples]) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    power = np.abs(np.fft.rfft(spoil(noise, name))) ** 2
    hz = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    assert power[hz > 4200].mean() < 1e-3 * power[(hz > 500) & (hz < 3000)].mean()


# -- room --------------------------------------------------------------------------------------------------------------


def test_a_room_keeps_the_direct_sound_and_the_earlier_tail(
    materials: Materials, spoil: Callable[..., Samples], clip: Samples
) -> None:
    before = 0.1 * tune(1.0, seed=8)
    room = materials.rooms[0].read()[ROOM_DELAY:]
    heard = np.convolve(np.concatenate([before, clip]), room)[len(before) :][: len(clip)]
    reverberated = spoil(clip, "reverb", before=before)
    assert np.corrcoef(heard, reverberated)[0, 1] > 0.99999
    assert rms(reverberated) == pytest.approx(rms(clip), rel=1e-4)
    assert lag_of(clip, reverberated) == 0
    alone = spoil(clip, "reverb")
    assert np.corrcoef(heard[:8000], alone[:8000])[0, 1] < 0.999


def test_echo_comes_after_its_delay(spoil: Callable[..., Samples]) -> None:
    for name, delay_s in (("echo", 0.15), ("echo300", 0.3)):
        heard = spoil(bursts((0.2,), 1.0), name)
        direct, echo = (
            heard[round((at - 0.02) * RATE) : round((at + 0.02) * RATE)] for at in (0.2, 0.2 + delay_s)
        )
        assert rms(echo) / rms(direct) == pytest.approx(0.5 / 0.8, rel=0.02)


def test_an_echo_of_what_was_before_is_heard(spoil: Callable[..., Samples]) -> None:
    heard = spoil(bursts((0.8,), 1.0), "echo", before=bursts((0.95,), 1.0))
    assert loudest_s(heard, 0.1, 0.08) == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("level", KAIST)
def test_kaist_levels(level: str, spoil: Callable[..., Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Recorder:
        def reverb(self, reverberance: float, *, room_scale: float) -> None:
            asked.append((reverberance, room_scale))

    def dry(samples: NDArray, add: Callable[[Recorder], None], rate: int) -> NDArray:
        add(Recorder())
        return samples

    monkeypatch.setattr(effects, "_sox", dry)
    settings = KAIST[level]
    clean = (0.1 * np.random.default_rng(9).standard_normal(RATE)).astype(np.float32)
    for seed in range(5):
        heard = spoil(clean, f"kaist_{level}", seed=seed).astype(np.float64)
        early = slice(0, round(settings.delay_ms[0] / 1000 * RATE))  # before the copy sets in
        gain = heard[early] @ clean[early] / (clean[early] @ clean[early])
        ratio = rms(heard[early] / gain - clean[early]) / rms(clean)
        assert 0 < ratio < 1.2 * settings.noise
        correlation = np.correlate(heard, clean, "full")[len(clean) - 1 :]
        correlation[:10] = 0
        assert settings.delay_ms[0] <= np.argmax(correlation) * 1000 / RATE <= settings.delay_ms[1]
        assert asked[-1][0] == settings.reverberance
        assert settings.room_size[0] <= asked[-1][1] <= settings.room_size[1]


# -- device and file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "passes", "stops"),
    [
        ("lowpass2000", (100, 1500), (5000, 8000)),
        ("highpass1000", (1500, 7000), (50, 400)),
        ("bandpass", (400, 3000), (6000, 8000)),
        ("highpass300_lowpass3400", (400, 3000), (7000, 8000)),
    ],
)
def test_filters(
    name: str, passes: tuple[int, int], stops: tuple[int, int], spoil: Callable[..., Samples]
) -> None:
    noise = (0.05 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    gain = np.abs(np.fft.rfft(spoil(noise, name))) ** 2 / np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    kept, gone = (np.median(gain[(hz > low) & (hz < high)]) for low, high in (passes, stops))
    assert kept > 0.7
    assert gone < 0.01


def test_clip_holds_the_loudest_at_the_limit(spoil: Callable[..., Samples], clip: Samples) -> None:
    for name, share in (("clip", 0.1), ("clip25", 0.25)):
        loud = np.abs(spoil(clip, name))
        assert np.mean(loud >= loud.max() * 0.99999) == pytest.approx(share, abs=0.002)


def test_level(spoil: Callable[..., Samples], clip: Samples) -> None:
    assert np.allclose(spoil(clip, "level-20"), 0.1 * clip)
    overdriven = np.abs(spoil(clip, "level+40"))
    assert np.mean(overdriven >= 0.94999) > 0.1


def test_reverse(spoil: Callable[..., Samples], clip: Samples) -> None:
    assert np.allclose(spoil(clip, "reverse"), clip[::-1])


def test_truncated_silence_brings_sounds_together(spoil: Callable[..., Samples]) -> None:
    clean = bursts((0.9, 1.9), 2.5)
    shortened = spoil(clean, "truncate_silence")
    assert len(shortened) == len(clean)
    first, second = np.sort(np.argsort(np.abs(shortened))[-20:])[[0, -1]] / RATE
    assert 0.28 < first < 0.34  # of the pause at the beginning 0.3 s are left
    assert 0.28 < second - first < 0.36
    assert not shortened[round(1.5 * RATE) :].any()
    steady = tune(2.0, seed=1)
    assert lag_of(steady, spoil(steady, "truncate_silence")) == 0


def test_dynamics_and_modulation_keep_the_place(spoil: Callable[..., Samples], clip: Samples) -> None:
    for name in ("compand", "flanger", "tremolo", "freeverb50", "clip20"):
        heard = spoil(clip, name)
        assert abs(lag_of(clip, heard)) <= 0.01 * RATE, name
        assert 0.3 < np.corrcoef(clip, heard)[0, 1] < 0.999, name


def test_two_re_recordings_do_more_harm_than_one(spoil: Callable[..., Samples], clip: Samples) -> None:
    once, twice = (abs(np.corrcoef(clip, spoil(clip, name))[0, 1]) for name in ("rerecord", "rerecord2"))
    assert twice < once < 0.9


# -- clips on disk -----------------------------------------------------------------------------------------------------


def test_a_kept_clip_is_the_same(
    materials: Materials, clip: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ClipCache(tmp_path / "clips")
    condition = parse("noise5_reverb")
    path = cache.clip(clip, NOTHING, condition, materials, [1, 2])
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    direct = apply(clip, NOTHING, condition, materials, np.random.default_rng([1, 2]))
    assert np.abs(samples - direct).max() < 1e-4  # 16 bits
    assert [p.name for p in cache.folder.iterdir()] == [path.name]

    monkeypatch.setattr(clip_cache, "apply", lambda *arguments: pytest.fail("made anew"))
    assert ClipCache(tmp_path / "clips").clip(clip, NOTHING, condition, materials, [1, 2]) == path
    assert np.array_equal(soundfile.read(path, dtype="float32")[0], samples)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "shorter"])
def test_a_damaged_clip_is_made_anew(harm: str, materials: Materials, clip: Samples, tmp_path: Path) -> None:
    cache = ClipCache(tmp_path)
    path = cache.clip(clip, NOTHING, parse("white5"), materials, [7])
    whole = path.read_bytes()
    if harm == "shorter":
        soundfile.write(path, clip[:-1], RATE, subtype="PCM_16")
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 8]) + whole[middle + 1 :]
        path.write_bytes({"truncated": whole[:middle], "flipped": flipped, "empty": b""}[harm])
    assert cache.clip(clip, NOTHING, parse("white5"), materials, [7]) == path
    assert path.read_bytes() == whole


def test_whatever_shapes_a_clip_tells_it_from_others(
    materials: Materials, clip: Samples, tmp_path: Path
) -> None:
    cache = ClipCache(tmp_path)
    fewer = Materials(materials.noises[:2], materials.rooms)
    paths = [
        cache.clip(clip, NOTHING, parse("noise5"), materials, [1]),
        cache.clip(clip, NOTHING, parse("noise5"), materials, [2]),
        cache.clip(clip, NOTHING, parse("noise6"), materials, [1]),
        cache.clip(clip[1:], NOTHING, parse("noise5"), materials, [1]),
        cache.clip(clip, NOTHING, parse("noise5"), fewer, [1]),
        cache.clip(clip, NOTHING, parse("reverb"), materials, [1]),
        cache.clip(clip, clip[:99], parse("reverb"), materials, [1]),
    ]
    assert len(set(paths)) == len(paths)
    # nor by what it does not hear
    assert cache.clip(clip, clip[:99], parse("white5"), materials, [1]) == cache.clip(
        clip, NOTHING, parse("white5"), fewer, [1]
    )
