"""The encoder: its network, its time line, what it calls content, what it refuses; and the weights file."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import crafted
import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import tune, write

from samaf.bodies import Lstm
from samaf.encoder import Encoder, Network
from samaf.errors import AudioError, ModelError
from samaf.features import FRONT_ENDS, frames_of
from samaf.hamming import distance, pack
from samaf.packed import Packed
from samaf.stream import LEAST_KNOWN
from samaf.weights import DEFAULT_PATH, Weights

RATE = 16000
BITS = (64, 128, 256)


def random_weights(front_end: str = "log-mel", stack: int = 4, units: int = 32, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    inputs = FRONT_ENDS[front_end][0].n_values * stack

    def normal(*shape: int) -> np.ndarray:
        values = rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) > 1 else 4)
        return values.astype(np.float16).astype(np.float32)

    return Weights(
        front_end=front_end,
        stack=stack,
        bits=BITS,
        body=Lstm(inputs, units),
        arrays={
            "kernel": normal(inputs, 4 * units),
            "recurrent": normal(units, 4 * units),
            "bias": normal(4 * units),
            "dense": normal(units, BITS[-1]),
            "dense_bias": normal(BITS[-1]) / 100,
        },
        clarity=normal(units + 1),
        calibration={"share": np.arange(3.0)},
        facts={"preset": {"name": "random"}},
    )


def with_arrays(weights: Weights, **arrays: np.ndarray) -> Weights:
    return replace(weights, arrays={**weights.arrays, **arrays})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "random.npz"
    random_weights().save(path)
    return path


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return Encoder(model, bits=128)


def tone(seconds: float, hz: float = 440, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (level * samples).astype(np.float32)


# The network


def lstm(weights: Weights, window: np.ndarray) -> np.ndarray:
    """One window (steps, inputs) through the textbook's LSTM, step by step, in float64; scaled by its clarity."""

    def logistic(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    floats = weights.floats
    state = hidden = np.zeros(weights.units)
    for seen in window.astype(np.float64):
        gates = seen @ floats["kernel"] + hidden @ floats["recurrent"] + floats["bias"]
        i, f, c, o = np.split(gates, 4)
        state = logistic(f) * state + logistic(i) * np.tanh(c)
        hidden = logistic(o) * np.tanh(state)
    scale = 1.0 if weights.clarity is None else np.exp(hidden @ weights.clarity[:-1] + weights.clarity[-1])
    return (hidden @ floats["dense"] + floats["dense_bias"]) * scale


@pytest.mark.parametrize(
    ("front_end", "stack", "units"), [("log-mel", 4, 32), ("mfcc", 1, 16), ("mfcc", 5, 7)]
)
def test_the_network_is_an_lstm(front_end: str, stack: int, units: int) -> None:
    weights = random_weights(front_end, stack, units)
    windows = np.random.default_rng(1).standard_normal((9, 100 // stack, weights.n_inputs)).astype(np.float32)
    expected = np.stack([lstm(weights, window) for window in windows])
    got = Network(weights, 256)(windows)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(Network(weights, 64)(windows), expected[:, :64], atol=1e-4)


def test_shorter_codes_cost_a_little_less() -> None:
    encoder, short = Encoder(bits=128), Encoder(bits=64)
    assert encoder.macs - short.macs == 64 * encoder.weights.units
    assert short.macs > encoder.weights.floats["kernel"].size * 20


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 300])
def test_any_number_of_windows(n: int) -> None:
    weights = random_weights()
    windows = np.random.default_rng(2).standard_normal((n, 25, 256)).astype(np.float32)
    got = Network(weights, 64)(windows)
    assert got.shape == (n, 64) and got.dtype == np.float32
    for k in range(0, n, 63):
        np.testing.assert_allclose(got[k], lstm(weights, windows[k])[:64], atol=1e-4)


@pytest.mark.parametrize(("front_end", "stack", "units"), [("log-mel", 4, 96), ("mfcc", 5, 7)])
def test_a_row_depends_on_its_own_window_alone(front_end: str, stack: int, units: int) -> None:
    network = Network(random_weights(front_end, stack, units), 256)
    rng = np.random.default_rng(4)
    windows = rng.standard_normal((150, 100 // stack, network.n_inputs)).astype(np.float32)
    whole = network(windows)
    for n in [*range(1, 18), 33, 64, 127]:
        parts = [network(windows[at : at + n]) for at in range(0, len(windows), n)]
        np.testing.assert_array_equal(np.concatenate(parts), whole, err_msg=str(n))


def test_threads_share_a_network() -> None:
    network = Network(random_weights(units=64), 128)
    windows = np.random.default_rng(3).standard_normal((40, 37, 25, 256)).astype(np.float32)
    alone = [network(each) for each in windows]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(network, windows))
    np.testing.assert_array_equal(together, alone)


def test_a_network_works_in_its_callers_thread_alone(model: Path) -> None:
    code = (
        "import os, sys, numpy as np\n"
        "from samaf.encoder import Encoder\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "encoder = Encoder(sys.argv[1])\n"
        "encoder._network(np.zeros((128, 25, 256), np.float32))\n"
        "assert len(os.listdir('/proc/self/task')) == before\n"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads are counted in /proc")
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_many_windows_at_once_take_little_memory() -> None:
    psutil = pytest.importorskip("psutil")
    network = Network(random_weights(units=384), 128)
    windows = np.zeros((4096, 25, 256), np.float32)
    network(windows[:128])
    before = psutil.Process().memory_info().rss
    peak = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.002):
            peak = max(peak, psutil.Process().memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        network(windows)
    finally:
        stop.set()
        watcher.join()
    assert 0 < peak - before < 100e6  # the gates of all windows at once would take 600 MB


def test_an_encoder_can_be_sent_to_another_process(encoder: Encoder) -> None:
    samples = tune(3)
    sent = pickle.loads(pickle.dumps(encoder))
    assert sent.encode(samples) == encoder.encode(samples)


def test_loud_inputs_saturate_quietly() -> None:
    weights = random_weights()
    windows = np.full((2, 25, 256), 1e4, np.float32)
    assert np.isfinite(Network(weights, 128)(windows)).all()


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_hashes_are_the_signs_of_the_network_on_normalised_windows(tmp_path: Path, front_end: str) -> None:
    weights = random_weights(front_end, 4)
    weights.save(tmp_path / "m.npz")
    samples = tune(3.5)
    fingerprint = Encoder(tmp_path / "m.npz", bits=128).encode(samples, hop_s=0.5, confidence=True)
    stream, normalise = FRONT_ENDS[front_end]
    frames, _ = frames_of(stream(), samples)
    windows, _ = normalise(np.stack([frames[at : at + 100] for at in range(0, 251, 50)]))
    expected = np.stack([lstm(weights, w.reshape(25, -1))[:128] for w in windows])
    assert fingerprint.confidence is not None
    np.testing.assert_allclose(fingerprint.confidence, np.abs(expected), atol=1e-3, rtol=1e-3)
    sure = np.abs(expected) > 1e-3
    signs = np.unpackbits(fingerprint.hashes.view(np.uint8), axis=1, bitorder="little").astype(bool)
    np.testing.assert_array_equal(signs[sure], (expected > 0)[sure])
    assert (distance(fingerprint.hashes, pack(expected > 0)) <= 2).all()


# The time line


@pytest.mark.parametrize("seconds", [1.0, 1.009, 1.01, 1.0999, 1.1, 1.995, 2.0, 3.7, 7.31])
@pytest.mark.parametrize("hop_s", [1.0, 0.5, 0.1, 0.01, 2.5])
def test_number_of_hashes(encoder: Encoder, seconds: float, hop_s: float) -> None:
    n = round(seconds * RATE)
    fingerprint = encoder.encode(tune(8)[:n], hop_s=hop_s)
    assert len(fingerprint) == 1 + (n - RATE) // round(hop_s * RATE)
    assert fingerprint.duration_s == n / RATE
    assert (fingerprint.hop_s, fingerprint.bits, fingerprint.model_id) == (hop_s, 128, encoder.model_id)
    assert fingerprint.hashes.dtype == np.uint64 and fingerprint.confidence is None


def test_more_hashes_than_one_batch(encoder: Encoder) -> None:
    samples = tune(4)
    dense = encoder.encode(samples, hop_s=0.01)
    sparse = encoder.encode(samples, hop_s=0.5)
    assert len(dense) == 301
    np.testing.assert_array_equal(dense.hashes[::50], sparse.hashes)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 160, 7001, 16000, 20000]), max_size=8), overhang=st.booleans())
def test_blocks_of_any_size_give_the_same_hashes(encoder: Encoder, sizes: list[int], overhang: bool) -> None:
    samples = tune(8)[: sum(sizes) + RATE]
    blocks = np.split(samples, np.cumsum(sizes))
    streamed = encoder.encode_stream(blocks, hop_s=0.1, confidence=True, overhang=overhang)
    assert streamed == encoder.encode(samples, hop_s=0.1, confidence=True, overhang=overhang)


def test_a_hash_depends_on_its_own_second_alone(encoder: Encoder) -> None:
    samples = tune(6)
    changed = samples.copy()
    changed[4 * RATE :] = noise(2)
    a, b = encoder.encode(samples), encoder.encode(changed)
    np.testing.assert_array_equal(a.hashes[:3], b.hashes[:3])  # the fourth hears 32 ms of what follows
    assert (a.hashes[4:] != b.hashes[4:]).any(axis=1).all()


def test_shorter_codes_are_the_beginning_of_longer_ones(model: Path) -> None:
    prints = {bits: Encoder(model, bits=bits).encode(tune(5), hop_s=0.1, confidence=True) for bits in BITS}
    for bits in (64, 128):
        short, cut = prints[bits], prints[256].truncated(bits)
        assert distance(short.hashes, cut.hashes).max() <= 1
        np.testing.assert_allclose(short.confidence, cut.confidence, atol=1e-3, rtol=1e-3)


def test_a_query_is_dense_and_has_confidence(encoder: Encoder) -> None:
    query = encoder.encode_query(tune(2))
    assert query.hop_s == 0.1 and len(query) == 7 + 11 + 7
    assert query.confidence is not None and query.confidence.shape == (25, 128)
    assert (query.confidence >= 0).all() and (query.confidence > 0).any()
    assert query == encoder.encode(tune(2), hop_s=0.1, confidence=True, overhang=True)


def test_a_file_gives_the_hashes_of_its_samples(encoder: Encoder, tmp_path: Path) -> None:
    samples = tune(13)  # more than one block of the decoder
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    for named in (path, str(path)):
        fingerprint = encoder.encode(named)
        assert len(fingerprint) == 13 and fingerprint.duration_s == 13
        assert fingerprint == encoder.encode(samples)


def test_gain_changes_almost_no_bit(encoder: Encoder) -> None:
    quiet, loud = (encoder.encode(np.float32(gain) * tune(4)) for gain in (0.05, 1.0))
    assert distance(quiet.hashes, loud.hashes).mean() < 3


def test_encoding_is_repeatable_and_leaves_the_samples(encoder: Encoder) -> None:
    samples = tune(3)
    before = samples.copy()
    assert encoder.encode(samples) == encoder.encode(samples)
    np.testing.assert_array_equal(samples, before)
    assert encoder.encode(samples.astype(np.float64)) == encoder.encode(samples)


# Windows that overhang


def shares_of(seconds: float, hop_s: float) -> tuple[float, np.ndarray]:
    """Where the first window starts, and the share of each that lies in the audio, 30 ms at each end left out."""
    n, hop = round(100 * seconds), round(100 * hop_s)
    starts = [s for s in range(-hop * 100, n, hop) if min(s + 100, n - 3) - max(s, 3) >= 25 and s <= n - 28]
    return starts[0] / 100, np.array([min(s + 100, n - 3) - max(s, 3) for s in starts]) / 100


@pytest.mark.parametrize("seconds", [1.0, 1.01, 1.55, 2.0, 3.7])
@pytest.mark.parametrize("hop_s", [0.1, 0.01, 0.25, 0.5, 1.0, 2.5])
def test_windows_overhang_by_up_to_three_quarters(encoder: Encoder, seconds: float, hop_s: float) -> None:
    fingerprint = encoder.encode(tune(8)[: round(seconds * RATE)], hop_s=hop_s, overhang=True)
    start_s, shares = shares_of(seconds, hop_s)
    assert fingerprint.start_s == start_s and fingerprint.overhangs
    assert fingerprint.known is not None
    np.testing.assert_allclose(fingerprint.known, shares, atol=1e-6)
    assert fingerprint.known.min() >= LEAST_KNOWN
    assert fingerprint.duration_s == pytest.approx(seconds, abs=1e-4)
    assert fingerprint.times_s / hop_s == pytest.approx(np.rint(fingerprint.times_s / hop_s), abs=1e-6)


def test_windows_wholly_inside_are_the_ordinary_ones(encoder: Encoder) -> None:
    samples = tune(4)
    query, plain = encoder.encode_query(samples), encoder.encode(samples, hop_s=0.1, confidence=True)
    assert query.known is not None and query.confidence is not None and plain.confidence is not None
    inside = query.known == 1.0
    assert inside.sum() == 29  # but for the first and the last of them
    at = np.rint(query.times_s[inside] / 0.1).astype(int)
    np.testing.assert_array_equal(query.confidence[inside], plain.confidence[at])
    np.testing.assert_array_equal(query.hashes[inside], plain.hashes[at])


def test_ordinary_windows_say_nothing_of_overhang(encoder: Encoder) -> None:
    fingerprint = encoder.encode(tune(3), hop_s=0.1, confidence=True)
    assert (fingerprint.start_s, fingerprint.known, fingerprint.overhangs) == (0.0, None, False)


def test_a_window_that_overhangs_hears_only_what_is_there(encoder: Encoder) -> None:
    """Its missing frames are the mean of the known ones, whatever follows in the recording."""
    samples = tune(4)
    query = encoder.encode_query(samples)
    frames, _ = frames_of(FRONT_ENDS["log-mel"][0](), samples)
    padded = np.full((72 + 400 + 72, 64), 1e3, np.float32)
    padded[72:472] = frames
    known = np.zeros(544, bool)
    known[75:469] = True
    for row, start in ((0, -70), (3, -40), (len(query) - 1, 370)):
        at = slice(72 + start, 172 + start)
        window = np.where(known[at, None], padded[at], padded[at][known[at]].mean(axis=0))
        activation = lstm(encoder.weights, FRONT_ENDS["log-mel"][1](window[None])[0].reshape(25, -1))[:128]
        assert query.confidence is not None
        np.testing.assert_allclose(query.confidence[row], np.abs(activation), atol=1e-3, rtol=1e-3)


def test_the_level_of_an_overhanging_window_is_that_of_what_is_there(encoder: Encoder) -> None:
    sound = np.concatenate([tune(1.2), np.zeros(2 * RATE, np.float32)])
    query = encoder.encode_query(sound)
    assert query.valid[:8].all() and not query.valid[-8:].any()
    quiet = encoder.encode_query(noise(2, 10 ** (-74 / 20)))  # half of it would be too quiet
    assert quiet.valid.all()
    assert not encoder.encode_query(np.zeros(2 * RATE, np.float32)).valid.any()


@pytest.mark.parametrize("n", [1, 100, 15999])
def test_less_than_a_second_has_no_overhang_either(encoder: Encoder, n: int) -> None:
    with pytest.raises(AudioError, match=r"0\.\d+ s of audio; at least 1 s is needed"):
        encoder.encode_query(tune(1)[:n])


# Sketches of a clip at other speeds


def test_a_sketch_is_near_the_fingerprint_of_the_restored_clip() -> None:
    encoder = Encoder()
    clean = tune(8)
    for speed in (0.9, 1.1):
        fast = soxr.resample(clean, RATE * speed, RATE)
        [(told, sketch)] = encoder.sketches(fast, [speed], hop_s=0.4)
        assert told == speed and sketch.hop_s == 0.4 and sketch.known is None
        assert sketch.confidence is not None and sketch.duration_s == pytest.approx(8.0, abs=0.02)
        exact = encoder.encode(clean, hop_s=0.4)
        n = min(len(exact), len(sketch))
        near = distance(sketch.hashes[:n], exact.hashes[:n]).mean() / 128
        as_it_is = encoder.encode(fast, hop_s=0.4)
        far = distance(as_it_is.hashes[: n - 3], exact.hashes[: n - 3]).mean() / 128
        assert near < 0.2 < 0.25 < far


def test_sketches_of_less_than_a_second_are_passed_over(encoder: Encoder) -> None:
    sketches = list(encoder.sketches(tune(1.04), [0.9, 0.95, 1.0, 1.1], hop_s=0.1))
    assert [speed for speed, _ in sketches] == [1.0, 1.1]
    assert list(encoder.sketches(tune(1.04), [], hop_s=0.1)) == []


def test_another_front_end_has_no_sketches(tmp_path: Path) -> None:
    random_weights("mfcc", 1).save(tmp_path / "m.npz")
    assert list(Encoder(tmp_path / "m.npz").sketches(tune(3), [0.9, 1.1], hop_s=0.1)) == []


# Content

EMPTY: dict[str, Callable[[], np.ndarray]] = {
    "digital silence": lambda: np.zeros(3 * RATE, np.float32),
    "dither of 16 bits": lambda: noise(3, 2**-16),
    "noise at -77 dBFS": lambda: noise(3, 10 ** (-77 / 20)),
    "DC": lambda: np.full(3 * RATE, 0.3, np.float32),
    "hum at -20 dBFS": lambda: tone(3, 50, 0.14),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_window_without_content_has_no_hash(encoder: Encoder, name: str) -> None:
    fingerprint = encoder.encode(EMPTY[name](), hop_s=0.5, confidence=True)
    inner = slice(1, -1)  # the zeros around a signal make a step at its ends, which is a sound
    assert not fingerprint.valid[inner].any()
    assert not fingerprint.hashes[inner].any()
    assert (fingerprint.hashes.any(axis=1) == fingerprint.valid).all()


def test_silence_is_invalid_from_end_to_end(encoder: Encoder) -> None:
    assert not encoder.encode(np.zeros(3 * RATE, np.float32)).valid.any()


def test_what_follows_silence_keeps_its_place(encoder: Encoder) -> None:
    sound = tune(3)
    samples = np.concatenate([np.zeros(3 * RATE, np.float32), sound, np.zeros(3 * RATE, np.float32)])
    fingerprint = encoder.encode(samples)
    np.testing.assert_array_equal(fingerprint.valid[[0, 1, 3, 4, 5, 7, 8]], [0, 0, 1, 1, 1, 0, 0])
    assert distance(fingerprint.hashes[3:6], encoder.encode(sound).hashes).max() <= 1


@pytest.mark.parametrize(
    "sound",
    [
        noise(3),
        noise(3, 10 ** (-72 / 20)),
        tone(3),
        tone(3, 7000),
        tone(3, 300, 10 ** (-70 / 20)),
        tune(3),
        np.float32(1e-2) * tune(3),
        1000 * tune(3),
    ],
    ids=["noise", "quiet noise", "tone", "high tone", "quiet tone", "tune", "quiet tune", "unscaled tune"],
)
def test_all_sound_is_content(encoder: Encoder, sound: np.ndarray) -> None:
    fingerprint = encoder.encode(sound, hop_s=0.5)
    assert fingerprint.valid.all() and fingerprint.hashes.any(axis=1).all()


@pytest.mark.parametrize("sound", ["DC", "hum at -20 dBFS"])
def test_the_mfcc_front_end_knows_steady_inaudible_sound_by_its_flatness(tmp_path: Path, sound: str) -> None:
    random_weights("mfcc", 1).save(tmp_path / "m.npz")
    encoder = Encoder(tmp_path / "m.npz")
    assert not encoder.encode(EMPTY[sound](), hop_s=0.5).valid[1:-1].any()
    assert encoder.encode(noise(3)).valid.all()


def test_a_valid_code_of_no_ones_is_told_from_silence(tmp_path: Path) -> None:
    weights = random_weights()
    with_arrays(weights, dense_bias=np.full(256, -100, np.float32)).save(tmp_path / "m.npz")
    fingerprint = Encoder(tmp_path / "m.npz").encode(tune(2))
    np.testing.assert_array_equal(fingerprint.hashes, [[1, 0], [1, 0]])
    assert fingerprint.valid.all()


# Refusals


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_numbers(encoder: Encoder, value: float) -> None:
    samples = tune(2)
    samples[20000] = value
    with pytest.raises(AudioError, match=r"^samples: holds NaN, infinite or absurdly large samples; [^\n]+$"):
        encoder.encode(samples)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(32000, np.int16),
        np.zeros(32000, complex),
        np.zeros(32000, bool),
        np.zeros((2, 32000), np.float32),
        np.zeros((32000, 1), np.float32),
        np.float32(1),
    ],
    ids=lambda x: f"{x.dtype}{x.shape}",
)
def test_samples_of_another_kind(encoder: Encoder, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^samples: [^\n]*give one channel of float samples at 16 kHz"):
        encoder.encode(samples)
    with pytest.raises(ValueError, match=r"^radio: .*give one channel"):
        encoder.encode_stream([tune(1), samples], name="radio")


@pytest.mark.parametrize("n", [0, 1, 100, 15999])
def test_less_than_a_second(encoder: Encoder, n: int, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"s of audio; at least 1 s is needed"):
        encoder.encode(tune(1)[:n])
    if n:
        path = write(tmp_path / "short.wav", tune(1)[:n])
        with pytest.raises(AudioError, match=r"short\.wav: .* at least 1 s"):
            encoder.encode(path)


def test_no_blocks_at_all(encoder: Encoder) -> None:
    with pytest.raises(AudioError, match=r"^radio: 0\.000 s of audio"):
        encoder.encode_stream([], name="radio")


def test_files_that_are_not_there_or_not_audio(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    for name in ("none.wav", "text.wav"):
        with pytest.raises(AudioError, match=name) as caught:
            encoder.encode(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 0.005, 0.125, 0.011, np.nan, np.inf])
def test_hops_that_are_no_multiple_of_a_frame(encoder: Encoder, hop_s: float) -> None:
    with pytest.raises(ValueError, match=r"must be a multiple of 0\.01 s"):
        encoder.encode(tune(2), hop_s=hop_s)


@pytest.mark.parametrize("bits", [0, 32, 96, 512])
def test_code_lengths_that_the_model_has_not(model: Path, bits: int) -> None:
    with pytest.raises(
        ModelError, match=rf"random\.npz: .*no code of {bits} bits; choose one of 64, 128, 256"
    ):
        Encoder(model, bits=bits)


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ModelError, match=r"^[^\n]*a\\nb\.npz: no such weights file[^\n]*$"):
        Encoder(tmp_path / "a\nb.npz")
    with pytest.raises(AudioError, match=r"^[^\n]*a\\nb\.wav: [^\n]*at least 1 s[^\n]*$"):
        encoder.encode(write(tmp_path / "a\nb.wav", tune(0.5)))


# Weights files


def test_saved_and_loaded_weights_are_the_same(tmp_path: Path) -> None:
    weights = random_weights()
    weights.save(tmp_path / "a.npz")
    loaded = Weights.load(tmp_path / "a.npz")
    for name in ("kernel", "recurrent", "bias", "dense", "dense_bias"):
        array = loaded.floats[name]
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, weights.floats[name], rtol=1e-3, atol=1e-6)
    assert (loaded.front_end, loaded.stack, loaded.bits) == ("log-mel", 4, BITS)
    assert loaded.facts == weights.facts and loaded.units == 32
    np.testing.assert_array_equal(loaded.clarity, weights.clarity)
    assert loaded.calibration.keys() == {"share"}
    np.testing.assert_array_equal(loaded.calibration["share"], weights.calibration["share"])
    assert loaded.model_id == weights.model_id
    loaded.save(tmp_path / "b.npz")
    assert Weights.load(tmp_path / "b.npz").model_id == weights.model_id
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.npz"]


def test_the_id_is_that_of_the_hashes() -> None:
    weights = random_weights()
    assert replace(weights, facts={}, calibration={}, clarity=None).model_id == weights.model_id
    assert len(weights.model_id) == 64 and set(weights.model_id) <= set("0123456789abcdef")
    for name in ("kernel", "recurrent", "bias", "dense", "dense_bias"):
        changed = weights.floats[name].copy()
        changed.flat[0] += 1
        assert with_arrays(weights, **{name: changed}).model_id != weights.model_id, name
    for change in ({"front_end": "mfcc"}, {"stack": 2}, {"bits": (256,)}):
        assert replace(weights, **change).model_id != weights.model_id  # type: ignore[arg-type]


def test_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.npz: no such weights file; give a file written by `samaf"):
        Weights.load(tmp_path / "none.npz")
    with pytest.raises(ModelError, match="not a weights file"):
        Weights.load(tmp_path)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(path, x=np.zeros(3))
    for data in (b"", b"hello", (tmp_path / "a.npy").read_bytes(), path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"^[^\n]*a\.npz: not a weights file, or damaged[^\n]*; [^\n]+$"):
            Weights.load(path)


def test_weights_cut_off_or_changed_are_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    data = model.read_bytes()
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"a\.npz: not a weights file, or damaged"):
            Weights.load(path)
    rng = np.random.default_rng(0)
    same = Weights.load(model).model_id
    for at in [*range(100), *range(-1200, 0, 7), *rng.integers(0, len(data), 100)]:
        changed = bytearray(data)
        changed[at] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            loaded = Weights.load(path)
        except ModelError as error:
            assert "\n" not in str(error)
        else:  # a byte that says nothing, such as a date
            assert loaded.model_id == same, at


def rewritten(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """A copy of a weights file with a different header."""
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w") as b:
        for name in a.namelist():
            data = a.read(name)
            if name == "header.npy":
                assert old in data and len(old) == len(new)
                data = data.replace(old, new)
            b.writestr(name, data)
    return target


def test_another_version_says_so(model: Path, tmp_path: Path) -> None:
    path = rewritten(model, tmp_path / "a.npz", b'"version": 1', b'"version": 7')
    with pytest.raises(
        ModelError, match=r"a\.npz: weights of format 7, this samaf reads formats 1 and 2; update"
    ):
        Weights.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version"', b'"vorsion"'),
        (b'"bits": [64,', b'"bats": [64,'),
        (b'"stack": 4', b'"stack": a'),
        (b"128, 256]", b"128, 257]"),
    ],
)
def test_a_header_that_lies_is_refused(model: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    with pytest.raises(ModelError, match=r"^[^\n]*a\.npz: [^\n]+; give a file written by `samaf train`"):
        Weights.load(rewritten(model, tmp_path / "a.npz", old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"log-mel"', b'"log-mol"'), (b'"stack": 4', b'"stack": 3')],
)
def test_an_unknown_front_end_asks_for_a_newer_samaf(
    model: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = rewritten(model, tmp_path / "a.npz", old, new)
    with pytest.raises(
        ModelError, match=r"a\.npz: made for a front end that this samaf does not have; update"
    ):
        Encoder(path)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": np.zeros((256, 124), np.float32)},
        {"bias": np.zeros(4, np.float32)},
        {"dense": np.zeros((31, 256), np.float32)},
        {"dense_bias": np.zeros(255, np.float32)},
        {"dense_bias": np.full(256, np.nan, np.float32)},
        {"clarity": np.zeros(32, np.float32)},
        {"clarity": np.full(33, np.inf, np.float32)},
        {"clarity": np.full(33, 1e6, np.float32)},
    ],
    ids=["kernel", "bias", "dense", "dense_bias", "nan", "clarity", "infinite", "large"],
)
def test_arrays_that_make_no_network_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    weights = random_weights()
    weights = (
        replace(weights, clarity=change["clarity"]) if "clarity" in change else with_arrays(weights, **change)
    )
    weights.save(tmp_path / "a.npz")
    with pytest.raises(ModelError, match=rf"a\.npz: not a weights file, or damaged \({next(iter(change))} h"):
        Weights.load(tmp_path / "a.npz")


def test_weights_that_cannot_be_written_leave_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    random_weights(seed=1).save(path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ModelError, match=r"a\.npz: cannot be written \(No"):
        patch.setattr(os, "replace", full)
        random_weights(seed=2).save(path)
    assert os.listdir(tmp_path) == ["a.npz"]
    assert Weights.load(path).model_id == random_weights(seed=1).model_id
    with pytest.raises(ModelError, match="cannot be written"):
        random_weights().save(tmp_path / "no" / "a.npz")


# Matrices in few bits


@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize(("stack", "units"), [(4, 32), (4, 37)])
def test_quantised_weights_are_read_as_they_were_made(
    tmp_path: Path, storage: str, stack: int, units: int
) -> None:
    original = random_weights(stack=stack, units=units)
    made = original.quantised(storage)
    assert made.model_id != original.model_id and made.facts["quantised"] == storage and not made.calibration
    made.save(tmp_path / "a.npz")
    read = Weights.load(tmp_path / "a.npz")
    assert read.model_id == made.model_id and read.body == original.body
    for name, array in made.floats.items():
        rounded = array if array.ndim == 2 else array.astype(np.float16)
        np.testing.assert_array_equal(read.floats[name], rounded)
    read.save(tmp_path / "b.npz")
    assert (tmp_path / "b.npz").read_bytes()[200:] == (tmp_path / "a.npz").read_bytes()[200:]
    changed = made.arrays["kernel"]
    assert isinstance(changed, Packed)
    codes = changed.codes.copy()
    codes[0, 0] ^= 1
    other = replace(made, arrays={**made.arrays, "kernel": replace(changed, codes=codes)})
    assert other.model_id != made.model_id


@pytest.mark.parametrize(("storage", "share"), [("int8", 0.55), ("int4", 0.30)])
def test_quantised_weights_are_small(tmp_path: Path, storage: str, share: float) -> None:
    original = replace(Weights.load(), calibration={}, clarity=None, facts={})
    original.save(tmp_path / "a.npz")
    original.quantised(storage).save(tmp_path / "b.npz")
    assert (tmp_path / "b.npz").stat().st_size <= share * (tmp_path / "a.npz").stat().st_size


@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_quantised_network_is_the_lstm_of_what_it_stands_for(
    storage: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samaf.encoder.whole_products", lambda: exact)
    weights = replace(random_weights().quantised(storage), clarity=None)
    windows = np.random.default_rng(1).standard_normal((9, 25, 256)).astype(np.float32)
    got = Network(weights, 256)(windows)
    expected = np.stack([lstm(weights, window) for window in windows])
    whole = exact and storage == "int8"  # products of whole numbers round what goes in as well
    np.testing.assert_allclose(got, expected, atol=0.05 if whole else 1e-4)
    assert (np.abs(got - expected).max() > 1e-4) == whole


def test_a_quantised_model_encodes_nearly_as_the_original(tmp_path: Path) -> None:
    samples = tune(6)
    original = Encoder().encode(samples, hop_s=0.1)
    for storage, most in (("int8", 0.03), ("int4", 0.15)):
        Weights.load().quantised(storage).save(tmp_path / "a.npz")
        encoder = Encoder(tmp_path / "a.npz")
        assert encoder.macs == Encoder().macs
        made = encoder.encode(samples, hop_s=0.1)
        assert made.model_id == encoder.weights.model_id != original.model_id
        assert 0 < distance(made.hashes, original.hashes).mean() / 128 < most


def test_a_pruned_model_has_a_smaller_file(tmp_path: Path) -> None:
    weights = random_weights(units=96)
    sparse = {
        name: array * (np.random.default_rng(0).random(array.shape) < 0.2) if array.ndim == 2 else array
        for name, array in weights.floats.items()
    }
    for name, made in (("a", weights), ("b", with_arrays(weights, **sparse))):
        made.save(tmp_path / f"{name}.npz")
        assert Weights.load(tmp_path / f"{name}.npz").model_id == made.model_id
    assert (tmp_path / "b.npz").stat().st_size < 0.5 * (tmp_path / "a.npz").stat().st_size


def test_a_model_may_pass_for_another(tmp_path: Path) -> None:
    original = random_weights()
    made = replace(original.quantised("int8"), compatible_with=original.model_id)
    made.save(tmp_path / "a.npz")
    read = Weights.load(tmp_path / "a.npz")
    assert read.model_id == original.model_id and read.own_id == made.own_id != original.own_id
    assert Encoder(tmp_path / "a.npz").encode(tune(2)).model_id == original.model_id


def packed_file(path: Path, storage: str, **arrays: np.ndarray | bytes | None) -> Path:
    random_weights().quantised(storage).save(path)
    path.write_bytes(crafted.weights(path, **arrays))
    return path


@pytest.mark.parametrize(
    ("storage", "arrays", "reason"),
    [
        ("int8", {"kernel_scale": None}, "kernel_scale is missing"),
        (
            "int4",
            {"kernel_scale": np.ones((1, 128), np.float16)},
            r"kernel_scale has type <f2 and shape \(1, 128",
        ),
        (
            "int4",
            {"kernel_scale": np.full((8, 128), np.inf, np.float16)},
            "kernel_scale holds NaN or infinity",
        ),
        (
            "int8",
            {"kernel_scale": np.full((1, 128), 60000, np.float16)},
            "kernel holds NaN, infinity, or more",
        ),
        ("int8", {"kernel": np.zeros((255, 128), np.int8)}, r"kernel has type \|i1 and shape \(255, 128"),
        ("int4", {"kernel": np.zeros((256, 128), np.uint8)}, r"kernel has type \|u1 and shape \(256, 128"),
        (
            "int4",
            {"kernel": np.zeros((256, 128), np.int64)},
            "kernel has type <i8|kernel is no array of numbers",
        ),
        ("int8", {"bias": np.zeros(128, np.int8)}, r"bias has type \|i1"),
    ],
)
def test_packed_matrices_that_do_not_fit_are_refused(
    tmp_path: Path, storage: str, arrays: dict[str, Any], reason: str
) -> None:
    path = packed_file(tmp_path / "a.npz", storage, **arrays)
    with pytest.raises(ModelError, match=rf"^[^\n]*a\.npz: not a weights file, or damaged \({reason}[^\n]*$"):
        Weights.load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"body": None}, "None is no JSON object"),
        ({"body": {"kind": "gru"}}, "'gru' is no network that this samaf knows"),
        ({"body": {"kind": "lstm", "values": 256}}, "units is missing"),
        ({"body": {"kind": "lstm", "values": 256, "units": 0}}, "units is 0, no whole number from 1"),
        ({"body": {"kind": "lstm", "values": 65536, "units": 65536}}, "more than 15728640 weights"),
        ({"body": {"kind": "lstm", "values": 256, "units": 31}}, "kernel_scale has type"),
        ({"compatible_with": "x" * 64}, "compatible_with is no model's id"),
        ({"compatible_with": 7}, "compatible_with is 7"),
    ],
)
def test_a_header_that_fits_no_network_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "a.npz"
    random_weights().quantised("int8").save(path)
    path.write_bytes(crafted.weights(path, head=lambda header: {**header, **change}))
    with pytest.raises(
        ModelError, match=rf"^[^\n]*a\.npz: not a weights file, or damaged \([^\n]*{reason}[^\n]*$"
    ):
        Weights.load(path)


# The model that ships


def test_the_shipped_weights_are_small_and_calibrated() -> None:
    assert DEFAULT_PATH.stat().st_size <= 6_000_000
    weights = Weights.load()
    assert weights.bits == BITS
    knots = len(weights.calibration["tail_seconds"])
    hops = len(weights.calibration["hops"])
    for bits in BITS:
        assert weights.calibration[f"kinds_{bits}"].shape == (3, bits + 1)  # music, speech and sounds
        assert weights.calibration[f"tail_{bits}"].shape == (hops, 3, 3, knots)
    for bits in BITS:
        fingerprint = Encoder(bits=bits).encode(tune(4))
        assert fingerprint.valid.all() and len(np.unique(fingerprint.hashes, axis=0)) == 4


def test_the_shipped_model_survives_noise_and_tells_tunes_apart() -> None:
    encoder = Encoder()
    clean = tune(10)
    signal = float(np.sqrt(np.mean(clean**2)))
    noisy = clean + noise(10, signal * 10 ** (-10 / 20))
    same = distance(encoder.encode(clean).hashes, encoder.encode(noisy).hashes).mean() / 128
    other = distance(encoder.encode(clean).hashes, encoder.encode(tune(10, 1)).hashes).mean() / 128
    assert same < 0.25 < 0.3 < other
