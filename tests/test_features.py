"""Front ends: streams equal wholes, frames sit where they should, MFCC equal the field's library."""

from __future__ import annotations

import numpy as np
import pytest
import python_speech_features as psf
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import tune

from samaf.features import (
    DYNAMIC_RANGE_NATS,
    FRONT_ENDS,
    HOP,
    MEL_FLOOR,
    NORMALISED_SCALE,
    FrontEnd,
    Mfcc,
    fill_missing,
    frames_of,
    hz_to_mel,
    log_mel,
    mel_to_hz,
    mfcc,
    normalise_log_mel,
    normalise_mfcc,
    restored_log_mel,
)

TUNE = tune(3)


def decibel(level: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(level, 1e-20))


def streamed(front_end: FrontEnd, samples: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    parts = [front_end.push(block) for block in np.split(samples, np.cumsum(sizes))]
    parts.append(front_end.finish())
    return np.concatenate([frames for frames, _ in parts]), np.concatenate([level for _, level in parts])


@pytest.mark.parametrize("name", FRONT_ENDS)
@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 2, 159, 160, 161, 1023, 1024, 7000]), max_size=12))
def test_a_stream_gives_the_frames_of_the_whole(name: str, sizes: list[int]) -> None:
    stream, _ = FRONT_ENDS[name]
    samples = TUNE[: sum(sizes) + 777]
    frames, level = streamed(stream(), samples, sizes)
    whole_frames, whole_level = frames_of(stream(), samples)
    np.testing.assert_array_equal(frames, whole_frames)
    np.testing.assert_array_equal(level, whole_level)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_stream_of_single_samples(name: str) -> None:
    stream, _ = FRONT_ENDS[name]
    samples = TUNE[:1300]
    frames, _ = streamed(stream(), samples, [1] * len(samples))
    np.testing.assert_array_equal(frames, frames_of(stream(), samples)[0])


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_frame_comes_with_the_last_sample_that_it_hears(name: str) -> None:
    stream = FRONT_ENDS[name][0]()
    for k in range(5):
        due = (k + 1) * HOP + stream.lookahead
        assert len(stream.push(TUNE[max(0, due - HOP) if k else 0 : due - 1])[0]) == 0
        assert len(stream.push(TUNE[due - 1 : due])[0]) == 1


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("n", [0, 1, 79, 80, 159, 160, 161, 319, 320, 400, 1024, 16000, 16159, 20001])
def test_one_frame_for_each_10_ms(name: str, n: int) -> None:
    stream, _ = FRONT_ENDS[name]
    frames, level = frames_of(stream(), TUNE[:n])
    assert frames.shape == (n // HOP, stream.n_values) and level.shape == (n // HOP,)
    assert frames.dtype == level.dtype == np.float32
    assert np.isfinite(frames).all()


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("k", [0, 1, 5, 50, 98, 99])
def test_frames_are_centred(name: str, k: int) -> None:
    stream, _ = FRONT_ENDS[name]
    click = np.zeros(16000, np.float32)
    click[k * HOP + HOP // 2] = 1
    level = frames_of(stream(), click)[1]
    inside = np.flatnonzero(level > 1e-6 * level.max())
    assert inside[0] <= k <= inside[-1]
    if name == "log-mel":  # its window has a peak, the rectangle of the MFCC has none
        assert level.argmax() == k
    before, after = level[max(0, 2 * k - 99) : k], level[k + 1 : 2 * k + 1][::-1]
    np.testing.assert_allclose(before, after, rtol=0.1, atol=1e-3 * level.max())


@pytest.mark.parametrize("n", [1, 100, 399, 400, 401, 559, 560, 561, 16000, 23456])
def test_mfcc_equals_python_speech_features(n: int) -> None:
    np.testing.assert_allclose(mfcc(TUNE[:n]), psf.mfcc(TUNE[:n], 16000), atol=1e-4, rtol=1e-5)


def test_mfcc_of_digital_silence_equals_python_speech_features() -> None:
    x = np.concatenate([np.zeros(3000, np.float32), TUNE[:3000], np.zeros(3000, np.float32)])
    np.testing.assert_allclose(mfcc(x), psf.mfcc(x, 16000), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("n", [160, 16000, 20001])
def test_the_centred_mfcc_starts_120_samples_early(n: int) -> None:
    frames, _ = frames_of(Mfcc(), TUNE[:n])
    padded = np.concatenate([np.zeros(120), TUNE[:n]])
    np.testing.assert_allclose(frames, psf.mfcc(padded, 16000)[: n // HOP], atol=1e-4, rtol=1e-5)


def test_the_mel_scale_and_its_inverse() -> None:
    hz = np.linspace(0, 8000, 50)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, atol=1e-9)
    assert hz_to_mel(np.array(1000.0)) == pytest.approx(1000, abs=0.1)


@pytest.mark.parametrize("hz", [200, 440, 1000, 3000, 7500])
@pytest.mark.parametrize("rms", [0.5, 0.01])
def test_the_level_of_a_tone_is_its_mean_square(hz: float, rms: float) -> None:
    tone = (np.sqrt(2) * rms * np.sin(2 * np.pi * hz * np.arange(16000) / 16000)).astype(np.float32)
    level = log_mel(tone)[1][4:-4]  # the frames at the edges hold zeros as well
    np.testing.assert_allclose(level, rms**2, rtol=0.01)


def test_the_level_of_noise_is_its_power_in_band() -> None:
    noise = np.random.default_rng(0).standard_normal(80000).astype(np.float32)
    assert log_mel(noise)[1].mean() == pytest.approx((7600 - 150) / 8000, rel=0.03)


def test_what_lies_outside_the_band_has_no_level() -> None:
    t = np.arange(16000) / 16000
    for name, sound, most in (
        ("DC", np.ones_like(t), -140),
        ("hum", np.sin(2 * np.pi * 50 * t), -60),
        ("rumble", np.sin(2 * np.pi * 100 * t), -45),
        ("whistle", np.sin(2 * np.pi * 7800 * t), -60),
        ("silence", np.zeros_like(t), -140),
    ):
        level = decibel(log_mel(sound.astype(np.float32))[1][4:-4])
        assert level.max() < most, name


def test_silence_is_finite() -> None:
    frames, level = log_mel(np.zeros(1600, np.float32))
    np.testing.assert_allclose(frames, np.log(MEL_FLOOR), rtol=1e-6)
    assert (level == 0).all()


def test_a_tone_peaks_in_its_band() -> None:
    edges = mel_to_hz(np.linspace(hz_to_mel(np.array(150.0)), hz_to_mel(np.array(7600.0)), 66))
    for band in (3, 20, 40, 60):
        tone = np.sin(2 * np.pi * edges[band + 1] * np.arange(16000) / 16000).astype(np.float32)
        assert (log_mel(tone)[0][10:-10].argmax(axis=1) == band).all()


def windows(seed: int = 0, n: int = 5) -> np.ndarray:
    return np.stack([log_mel(tune(1, seed + i))[0] for i in range(n)])


@pytest.mark.parametrize("gain", [1e-3, 0.1, 2.0])
def test_gain_does_not_matter(gain: float) -> None:
    loud = 0.5 * tune(1) / np.abs(tune(1)).max()
    a, b = (normalise_log_mel(log_mel(x)[0][None])[0] for x in (loud, np.float32(gain) * loud))
    np.testing.assert_allclose(a, b, atol=0.02)  # but for MEL_FLOOR
    whole = windows()
    a, b = (normalise_log_mel(w)[0] for w in (whole, whole + np.float32(np.log(gain**2))))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_gain_moves_one_coefficient_that_normalisation_takes_off() -> None:
    a, b = (normalise_mfcc(frames_of(Mfcc(), x)[0][None])[0] for x in (tune(1), np.float32(0.1) * tune(1)))
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_normalised_windows_have_mean_0_and_one_scale() -> None:
    out, spread = normalise_log_mel(windows())
    np.testing.assert_allclose(out.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(1, 2)), spread, rtol=1e-4)
    out, spread = normalise_mfcc(windows()[..., :13])
    np.testing.assert_allclose(out.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.mean(out**2, axis=(1, 2))), 1, rtol=1e-4)
    assert (spread > 0.1).all()


def test_a_window_is_floored_11_nats_below_its_maximum() -> None:
    window = np.zeros((1, 100, 64), np.float32)
    window[0, :50] = -DYNAMIC_RANGE_NATS - 1
    window[0, 50:60] = -DYNAMIC_RANGE_NATS + 1
    out, _ = normalise_log_mel(window)
    np.testing.assert_allclose(np.ptp(out), DYNAMIC_RANGE_NATS / NORMALISED_SCALE, rtol=1e-6)
    lower = window.copy()
    lower[0, :50] -= 100
    np.testing.assert_array_equal(out, normalise_log_mel(lower)[0])


def test_each_window_is_normalised_by_itself() -> None:
    for name, (_, normalise) in FRONT_ENDS.items():
        whole = windows() if name == "log-mel" else windows()[..., :13]
        before = whole.copy()
        together, spread = normalise(whole)
        for i, window in enumerate(whole):
            alone = normalise(window[None])
            np.testing.assert_array_equal(together[i], alone[0][0])
            np.testing.assert_array_equal(spread[i], alone[1][0])
        np.testing.assert_array_equal(whole, before)  # the input stays


def test_flat_windows_have_no_spread() -> None:
    flat = np.full((2, 100, 13), -7.5, np.float32)
    for _, normalise in FRONT_ENDS.values():
        out, spread = normalise(flat)
        assert np.isfinite(out).all() and (spread < 1e-5).all()


# What of a window is missing


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.0, 1.0))
def test_missing_frames_are_the_mean_of_the_known_ones(seed: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((n, 20, 7)).astype(np.float32)
    known = rng.random((n, 20)) < share
    known[np.arange(n), rng.integers(0, 20, n)] = True
    before = frames.copy()
    filled = fill_missing(frames, known)
    for i in range(n):
        for k in range(20):
            if known[i, k]:
                np.testing.assert_array_equal(filled[i, k], frames[i, k])
            else:
                np.testing.assert_allclose(filled[i, k], frames[i, known[i]].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(frames, before)  # the input stays


def test_what_missing_frames_hold_does_not_count() -> None:
    known = np.arange(100)[None] >= 40
    frames = windows(n=1)
    other = np.where(known[:, :, None], frames, np.float32(77))
    np.testing.assert_array_equal(fill_missing(frames, known), fill_missing(other, known))


# Another speed


def played(samples: np.ndarray, speed: float) -> np.ndarray:
    return soxr.resample(samples, 16000 * speed, 16000)


@pytest.mark.parametrize("speed", [0.9, 0.95, 1.05, 1.1])
def test_restored_frames_are_near_those_of_the_restored_audio(speed: float) -> None:
    clean = tune(6)
    fast = played(clean, speed)
    exact, exact_level = log_mel(clean)
    restored, level = restored_log_mel(*log_mel(fast), speed)
    assert abs(len(restored) - len(exact)) <= 1 and len(level) == len(restored)
    assert restored.dtype == level.dtype == np.float32
    n = min(len(exact), len(restored))

    def off(frames: np.ndarray) -> float:
        inner = (slice(10, n - 10), slice(4, 56))  # the outermost bands are beyond what the other speed has
        return float(np.median(np.abs(frames[inner] - exact[inner])))

    as_it_is = log_mel(fast)[0]
    slowed = as_it_is[np.clip(np.rint(np.arange(n) / speed).astype(int), 0, len(as_it_is) - 1)]
    assert off(restored) < 0.5 * off(slowed) and off(restored) < 0.5
    assert np.corrcoef(level[:n], exact_level[:n])[0, 1] > 0.9


def test_frames_at_their_own_speed_stay() -> None:
    frames, levels = log_mel(tune(2))
    restored, level = restored_log_mel(frames, levels, 1.0)
    np.testing.assert_allclose(restored, frames, atol=1e-4)
    np.testing.assert_array_equal(level[:-1], levels[:-1])


def test_a_tone_is_moved_to_its_own_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000).astype(np.float32)
    own = log_mel(tone)[0][50].argmax()
    for speed in (0.9, 1.1):
        restored, _ = restored_log_mel(*log_mel(played(tone, speed)), speed)
        assert abs(int(restored[50].argmax()) - int(own)) <= 1


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_frames(n: int) -> None:
    frames, levels = log_mel(TUNE[: 160 * n])
    for speed in (0.9, 1.1):
        restored, level = restored_log_mel(frames, levels, speed)
        assert restored.shape == (round(speed * n), 64) and level.shape == (round(speed * n),)
        assert np.isfinite(restored).all()
