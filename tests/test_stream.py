"""Streams: the rows of the whole signal bit for bit, each in time, in memory that does not grow."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import tune
from test_encoder import random_weights

from samaf.encoder import Encoder
from samaf.errors import AudioError
from samaf.features import FRONT_ENDS, HOP, frames_of
from samaf.fingerprint import Fingerprint
from samaf.stream import LEAST_KNOWN, HashStream, Rows, Windows, joined

RATE = 16000
TUNE = tune(9)
NOTHING = np.empty(0, np.float32)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    made = {}
    for front_end, stack in (("log-mel", 4), ("mfcc", 1)):
        path = tmp_path_factory.mktemp("models") / "random.npz"
        random_weights(front_end, stack).save(path)
        made[front_end] = Encoder(path)
    return made


@pytest.fixture(scope="module")
def encoder(encoders: dict[str, Encoder]) -> Encoder:
    return encoders["log-mel"]


def fed(stream: HashStream, blocks: Iterable[np.ndarray]) -> Rows:
    return joined([*map(stream.feed, blocks), stream.close()])


def assert_equal(rows: Rows, whole: Fingerprint) -> None:
    assert rows.start_s == whole.start_s
    for name in ("hashes", "valid", "confidence", "known"):
        got, expected = getattr(rows, name), getattr(whole, name)
        assert (got is None) == (expected is None), name
        if expected is not None:
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected, err_msg=name)


# Equal to the whole


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 500) | st.integers(0, 40000), max_size=20),
    hop=st.integers(10, 100),
    silence=st.tuples(st.integers(0, 9 * RATE), st.integers(0, 4 * RATE)),
    confidence=st.booleans(),
    overhang=st.booleans(),
)
def test_blocks_of_any_size_give_the_rows_of_the_whole(
    encoders: dict[str, Encoder],
    front_end: str,
    sizes: list[int],
    hop: int,
    silence: tuple[int, int],
    confidence: bool,
    overhang: bool,
) -> None:
    samples = TUNE[: sum(sizes) + RATE].copy()
    samples[silence[0] : sum(silence)] = 0
    options = {"hop_s": hop / 100, "confidence": confidence, "overhang": overhang}
    stream = encoders[front_end].stream(**options)
    rows = fed(stream, np.split(samples, np.cumsum(sizes)))
    assert_equal(rows, encoders[front_end].encode(samples, **options))
    assert (stream.n_samples, stream.duration_s) == (len(samples), len(samples) / RATE)


@pytest.mark.parametrize("hop_s", [0.01, 2.5, 10.0])
@pytest.mark.parametrize("overhang", [False, True])
def test_the_shortest_and_the_longest_hops(encoder: Encoder, hop_s: float, overhang: bool) -> None:
    samples = tune(31)[: round((4.1 if hop_s == 0.01 else 31) * RATE)]
    options = {"hop_s": hop_s, "overhang": overhang}
    rows = fed(encoder.stream(**options), np.split(samples, range(0, len(samples), 1777)))
    assert_equal(rows, encoder.encode(samples, **options))


def test_the_model_that_ships_gives_the_rows_of_the_whole() -> None:
    encoder, samples = Encoder(), tune(12)
    samples[5 * RATE : 8 * RATE] = 0
    for hop_s in (0.1, 1.0):
        stream = encoder.stream(hop_s=hop_s, confidence=True)
        rows = fed(stream, np.split(samples, range(0, len(samples), 400)))
        assert_equal(rows, encoder.encode(samples, hop_s=hop_s, confidence=True))
        assert 0 < rows.valid.sum() < len(rows)


@settings(max_examples=20)
@given(sizes=st.lists(st.sampled_from([0, 1, 2, 3, 4, 57, 100, 130]), max_size=8), overhang=st.booleans())
def test_frames_in_pieces_of_any_size(encoder: Encoder, sizes: list[int], overhang: bool) -> None:
    frames, levels = frames_of(FRONT_ENDS["log-mel"][0](), TUNE)
    cuts = np.cumsum(sizes)

    def hashed(pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> Rows:
        windows = Windows(encoder._network, 128, "log-mel", hop_s=0.1, confidence=True, overhang=overhang)
        return joined([*(windows.push(*piece) for piece in pieces), windows.finish()])

    rows = hashed(zip(np.split(frames, cuts), np.split(levels, cuts), strict=True))
    assert_equal(rows, encoder.encode(TUNE, hop_s=0.1, confidence=True, overhang=overhang))


def test_a_buffer_that_is_used_again(encoder: Encoder) -> None:
    def reused() -> Iterable[np.ndarray]:
        buffer = np.empty(320, np.float32)
        for block in np.split(TUNE, len(TUNE) // 320):
            buffer[:] = block
            yield buffer
            buffer[:] = 1

    assert_equal(fed(encoder.stream(hop_s=0.5), reused()), encoder.encode(TUNE, hop_s=0.5))


def test_streams_of_one_encoder_side_by_side(encoder: Encoder) -> None:
    tunes = [tune(6, seed) for seed in range(8)]

    def streamed(samples: np.ndarray) -> Rows:
        return fed(encoder.stream(hop_s=0.1, confidence=True), np.split(samples, len(samples) // 320))

    with ThreadPoolExecutor(8) as pool:
        for rows, samples in zip(pool.map(streamed, tunes), tunes, strict=True):
            assert_equal(rows, encoder.encode(samples, hop_s=0.1, confidence=True))


def test_streams_fed_in_turn(encoder: Encoder) -> None:
    tunes = [tune(3, seed) for seed in range(3)]
    streams = [encoder.stream(hop_s=0.2) for _ in tunes]
    parts: list[list[Rows]] = [[] for _ in tunes]
    for at in range(0, 3 * RATE, 4000):
        for stream, samples, rows in zip(streams, tunes, parts, strict=True):
            rows.append(stream.feed(samples[at : at + 4000]))
    for stream, samples, rows in zip(streams, tunes, parts, strict=True):
        assert_equal(joined([*rows, stream.close()]), encoder.encode(samples, hop_s=0.2))


# In time


@pytest.mark.parametrize(("front_end", "lookahead"), [("log-mel", 432), ("mfcc", 120)])
@pytest.mark.parametrize("hop_s", [0.1, 0.33, 1.0, 2.5])
@pytest.mark.parametrize("overhang", [False, True])
def test_a_row_comes_with_the_last_sample_that_its_window_hears(
    encoders: dict[str, Encoder], front_end: str, lookahead: int, hop_s: float, overhang: bool
) -> None:
    stream = encoders[front_end].stream(hop_s=hop_s, overhang=overhang)
    late = lookahead + (3 * HOP if overhang else 0)
    start_s = stream.feed(NOTHING).start_s
    for k in range(3):
        end_s = start_s + k * hop_s + 1.0
        due = round(end_s * RATE) + late
        assert len(stream.feed(TUNE[stream.n_samples : due - 1])) == 0
        rows = stream.feed(TUNE[due - 1 : due])
        assert len(rows) == 1 and rows.start_s == pytest.approx(end_s - 1.0, abs=1e-9)
        assert stream.feed(NOTHING).start_s == pytest.approx(rows.start_s + hop_s, abs=1e-9)


def test_the_window_that_ends_with_the_stream_comes_when_it_is_closed(encoder: Encoder) -> None:
    stream = encoder.stream()
    assert len(stream.feed(TUNE[: 3 * RATE])) == 2
    last = stream.close()
    assert len(last) == 1 and last.start_s == 2.0


def test_a_stream_of_less_than_a_second(encoder: Encoder) -> None:
    for overhang in (False, True):
        for n in (0, 1, 159, 160, 8000, 15999):
            stream = encoder.stream(hop_s=0.1, confidence=True, overhang=overhang)
            rows = fed(stream, [TUNE[:n]])
            assert len(rows) == (0 if not overhang or n < 8000 else 2 if n == 8000 else 7)
            assert rows.hashes.shape == (len(rows), 2) and rows.hashes.dtype == np.uint64
            assert rows.confidence is not None and rows.confidence.shape == (len(rows), 128)
            assert rows.known is None or (rows.known >= LEAST_KNOWN).all()


def test_a_closed_stream_has_no_more_rows(encoder: Encoder) -> None:
    stream = encoder.stream(overhang=True)
    stream.feed(TUNE)
    assert len(stream.close()) and not len(stream.close())
    with pytest.raises(
        ValueError, match=r"^stream: is closed and takes no more samples; open another[^\n]*$"
    ):
        stream.feed(TUNE)


# In bounded memory


def test_memory_does_not_grow(encoder: Encoder) -> None:
    block = TUNE[:RATE]
    stream = encoder.stream(hop_s=0.1, confidence=True, overhang=True)
    tracemalloc.start()
    try:
        kept = []
        for _ in range(3):
            for _ in range(60):
                stream.feed(block)
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert kept[2] - kept[0] < 50_000  # the rows of a minute have 166,000 bytes


def test_a_long_block_takes_the_memory_of_a_batch(encoder: Encoder) -> None:
    samples = np.tile(TUNE, 100)  # 15 minutes, 58 MB
    encoder.encode(TUNE)
    tracemalloc.start()
    try:
        made = encoder.encode(samples)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(made) == 900 and peak < 50_000_000


# Refusals


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("at", [0, 5000, 9999])
def test_a_block_with_samples_that_are_no_numbers(encoder: Encoder, value: float, at: int) -> None:
    blocks = np.split(TUNE[:60000], 6)
    spoilt = blocks[3].copy()
    spoilt[at] = value
    stream = encoder.stream(hop_s=0.1, name="radio")
    parts = [stream.feed(block) for block in blocks[:3]]
    with pytest.raises(AudioError, match=r"^radio: holds NaN, infinite or absurdly large samples; [^\n]+$"):
        stream.feed(spoilt)
    assert stream.n_samples == 30000
    # silence in its place, and the stream goes on
    blocks[3] = np.zeros_like(spoilt)
    parts += [stream.feed(block) for block in blocks[3:]]
    assert_equal(joined([*parts, stream.close()]), encoder.encode(np.concatenate(blocks), hop_s=0.1))


@pytest.mark.parametrize(
    "samples",
    [np.zeros(320, np.int16), np.zeros(320, complex), np.zeros((320, 2), np.float32), np.float32(1), None],
    ids=["int16", "complex", "stereo", "single", "None"],
)
def test_samples_of_another_kind(encoder: Encoder, samples: np.ndarray) -> None:
    stream = encoder.stream(name="radio")
    stream.feed(TUNE[:1000])
    with pytest.raises(ValueError, match=r"^radio: shape .*; give one channel of float samples at 16 kHz"):
        stream.feed(samples)
    assert stream.n_samples == 1000


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 0.005, 0.125, 10.01, np.nan, np.inf])
def test_hops_that_are_none(encoder: Encoder, hop_s: float) -> None:
    with pytest.raises(ValueError, match=r"must be a multiple of 0\.01 s, up to 10 s"):
        encoder.stream(hop_s=hop_s)


def test_a_stream_takes_floats_of_any_width(encoder: Encoder) -> None:
    for dtype in (np.float16, np.float64):
        samples = TUNE[: 2 * RATE].astype(dtype)
        assert_equal(fed(encoder.stream(), [samples]), encoder.encode(samples.astype(np.float32)))
