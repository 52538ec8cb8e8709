"""RAFS: its bits, its search, and clips found at the right place."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synth import tune

from baselines import rafs
from baselines.rafs import Rafs, RafsParameters, block_errors, pack

RATE = Rafs.sample_rate
HOP_S = RafsParameters().hop / RATE
TRACKS = {f"tune {seed}": tune(25, seed, RATE) for seed in range(4)}


@pytest.fixture(scope="module")
def library() -> Rafs:
    system = Rafs()
    for track, samples in TRACKS.items():
        system.add(track, samples)
    return system


def clip(track: str, start_s: float, length_s: float) -> NDArray[np.float32]:
    start = round(start_s * RATE)
    return TRACKS[track][start : start + round(length_s * RATE)]


def noisy(samples: NDArray[np.float32], snr_db: float, seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal(len(samples))
    return (samples + noise * samples.std() * 10 ** (-snr_db / 20)).astype(np.float32)


def codes(rng: np.random.Generator, n: int) -> NDArray[np.uint32]:
    return rng.integers(0, 2**32, n, dtype=np.uint32)


def test_frames_and_bands_are_the_papers() -> None:
    p = RafsParameters()
    assert p.frame / RATE == pytest.approx(0.37, abs=0.005)
    assert p.hop * 32 == p.frame
    assert p.hop / RATE == pytest.approx(0.0116, abs=0.00005)
    assert p.block * HOP_S == pytest.approx(3, abs=0.05)
    edges = Rafs()._edges * RATE / p.frame
    assert len(edges) == 34
    np.testing.assert_allclose(edges, np.geomspace(300, 2000, 34), atol=RATE / p.frame / 2)


def test_bits_are_the_formula_s(monkeypatch: pytest.MonkeyPatch) -> None:
    system, samples = Rafs(), TRACKS["tune 0"][: 2 * RATE]
    edges, window = system._edges, np.hanning(2048)
    energies = np.array(
        [
            [spectrum[low:high].sum() for low, high in pairwise(edges)]
            for start in range(0, len(samples) - 2047, 64)
            for spectrum in [np.abs(np.fft.rfft(samples[start : start + 2048].astype(float) * window)) ** 2]
        ]
    )
    for block in (5, 256):
        monkeypatch.setattr(rafs, "_SPECTRA", block)
        differences = system.differences(samples)
        assert differences.shape == (len(energies) - 1, 32)
        found, clear, right = pack(differences), 0, 0
        for n in range(1, len(energies)):
            for m in range(32):
                d = energies[n, m] - energies[n, m + 1] - (energies[n - 1, m] - energies[n - 1, m + 1])
                if abs(d) > 1e-4 * energies[n].max():  # nearer to zero, single precision decides
                    clear += 1
                    right += (int(found[n - 1]) >> m & 1) == (d > 0)
        assert clear > 2000
        assert right == clear


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 40), st.integers(1, 25))
def test_block_errors_agree_with_numpy(seed: int, m: int, n: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    query, stored = codes(rng, m), codes(rng, n)
    query[rng.random(m) < 0.3] = 0
    stored[rng.random(n) < 0.3] = 0
    begin = rng.integers(0, n, 10)
    end = rng.integers(begin + 1, n + 1)
    at = rng.integers(begin - m + 1, end)
    errors, rows = block_errors(query, stored, at, begin, end, block)
    for i in range(10):
        pairs = [(r, r - at[i]) for r in range(begin[i], end[i]) if 0 <= r - at[i] < m]
        wrong = [int(stored[r] ^ query[q]).bit_count() if stored[r] or query[q] else 16 for r, q in pairs]
        assert rows[i] == min(block, len(pairs))
        assert errors[i] == min(sum(wrong[k : k + rows[i]]) for k in range(len(pairs) - rows[i] + 1))


@pytest.mark.parametrize("probes", [1, 2**18])
def test_resemblances_are_all_places_a_few_weak_bits_away(
    monkeypatch: pytest.MonkeyPatch, probes: int
) -> None:
    monkeypatch.setattr(rafs, "_PROBES", probes)
    rng = np.random.default_rng(3)
    system = Rafs(RafsParameters(weak_bits=3))
    differences = rng.standard_normal((6, 32)).astype(np.float32)
    query = pack(differences)
    weakest = np.argsort(np.abs(differences), axis=1)
    stored = codes(rng, 200)
    expected = set()
    for i, position in enumerate([3, 50, 51, 120, 150, 199]):
        bits = weakest[i, [0, 2]] if i % 2 else weakest[i, [1, 3]]  # the fourth weakest is never flipped
        stored[position] = query[i] ^ np.bitwise_or.reduce(np.uint32(1) << bits.astype(np.uint32))
        if i % 2:
            expected.add((0, position - i) if position < 100 else (1, position - 100 - i))
    for track in (0, 1):
        rows = np.arange(100)
        system._store(f"{track}", stored[100 * track + rows], rows, 100)
    tracks, offsets = system._split(system._candidates(query, differences))
    assert set(zip(tracks.tolist(), offsets.tolist(), strict=True)) == expected


@pytest.mark.parametrize("track", list(TRACKS))
@pytest.mark.parametrize("start_s", [0.0, 3.217, 19.9])
def test_a_clip_is_found_at_its_place(library: Rafs, track: str, start_s: float) -> None:
    match = library.query(clip(track, start_s, 5))
    assert match is not None
    assert match.track_id == track
    assert match.accepted
    assert match.ber is not None
    assert match.ber < 0.1
    assert match.offset_s == pytest.approx(start_s, abs=HOP_S)


def test_a_clip_in_noise_is_found(library: Rafs) -> None:
    for seed, track in enumerate(TRACKS):
        match = library.query(noisy(clip(track, 7.77, 5), 10, seed))
        assert match is not None
        assert match.track_id == track
        assert match.offset_s == pytest.approx(7.77, abs=0.05)


def test_strangers_are_answered_but_not_accepted(library: Rafs) -> None:
    answers = [library.query(tune(4, seed, RATE)) for seed in range(100, 110)]
    found = [match for match in answers if match is not None]
    assert found
    assert not any(match.accepted for match in found)
    known = library.query(noisy(clip("tune 1", 3.3, 4), 10))
    assert known is not None
    assert all(match.score < known.score for match in found)


def test_score_is_the_exponent_of_the_false_positive_rate(library: Rafs) -> None:
    for length_s in (1.5, 3, 6):
        samples = noisy(clip("tune 2", 4.01, length_s), 0)
        match = library.query(samples)
        assert match is not None
        assert match.ber is not None
        rows = min(256, len(library.differences(samples)))
        deviations = (1 - 2 * match.ber) * math.sqrt(32 * rows) / 3
        assert match.score == pytest.approx(-math.log10(0.5 * math.erfc(deviations / math.sqrt(2))), rel=1e-6)


def test_a_short_clip_needs_a_lower_error_rate() -> None:
    system = Rafs(RafsParameters(shortest=8))
    rng = np.random.default_rng(0)
    stored, rows = codes(rng, 300), np.arange(300)
    system._store("track", stored, rows, 300)
    for rows_s, errors_per_row, accepted in (
        (256, 11, True),
        (256, 12, False),
        (32, 6, False),
        (64, 4, True),
    ):
        differences = np.where(
            np.unpackbits(stored[:rows_s].view(np.uint8), bitorder="little") > 0, 1.0, -1.0
        )
        differences = differences.reshape(rows_s, 32).astype(np.float32)
        differences[1:, :errors_per_row] *= -1  # the first is found as it stands
        system.differences = lambda _, d=differences: d  # type: ignore[method-assign]
        match = system.query(np.zeros(0, np.float32))
        assert match is not None
        assert match.ber == pytest.approx(errors_per_row * (rows_s - 1) / (32 * rows_s))
        assert match.accepted == accepted


def test_bits_are_balanced_and_unrelated_blocks_differ_in_half(library: Rafs) -> None:
    stored = [pack(library.differences(samples)) for samples in TRACKS.values()]
    bits = np.unpackbits(np.concatenate(stored).view(np.uint8).reshape(-1, 4), axis=1)
    assert bits.mean() == pytest.approx(0.5, abs=0.03)
    rates = [
        np.bitwise_count(a[i : i + 256] ^ b[i : i + 256]).sum() / 8192
        for k, a in enumerate(stored)
        for b in stored[:k]
        for i in range(0, 1792, 256)
    ]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.02)


def test_clips_below_the_minimum_or_with_nothing_in_common_give_no_answer(library: Rafs) -> None:
    p = library.parameters
    shortest = p.frame + p.shortest * p.hop
    assert shortest / RATE == pytest.approx(0.75, abs=0.01)
    assert library.query(TRACKS["tune 0"][1000 : 1000 + shortest - 1]) is None
    assert library.query(TRACKS["tune 0"][1024 : 1024 + shortest]) is not None
    for samples in (np.zeros(0, np.float32), np.zeros(5 * RATE, np.float32)):
        assert library.query(samples) is None
    assert Rafs().query(clip("tune 0", 3, 5)) is None


def test_silence_and_short_tracks_are_kept_without_harm() -> None:
    system = Rafs()
    system.add("too short", TRACKS["tune 0"][:1000])
    system.add("silence", np.zeros(10 * RATE, np.float32))
    system.add("tune 0", np.concatenate([np.zeros(3 * RATE, np.float32), TRACKS["tune 0"]]))
    match = system.query(np.concatenate([np.zeros(2 * RATE, np.float32), clip("tune 0", 0, 5)]))
    assert match is not None
    assert match.track_id == "tune 0"
    assert match.offset_s == pytest.approx(1, abs=HOP_S)
    rows = np.arange(1, 400)  # what is one flipped bit away from silence
    system._store("faint", rows.astype(np.uint32), rows, 400)
    assert system.query(np.zeros(5 * RATE, np.float32)) is None


def test_a_clip_beyond_the_edges_of_its_track_is_compared_where_it_lies_in_it(library: Rafs) -> None:
    match = library.query(np.concatenate([clip("tune 0", 23, 2), tune(3, 77, RATE)]))
    assert match is not None
    assert match.track_id == "tune 0"
    assert match.offset_s == pytest.approx(23, abs=HOP_S)
    assert match.ber is not None
    assert match.ber < 0.2


def test_of_a_long_clip_the_best_block_counts(library: Rafs) -> None:
    samples = np.concatenate([tune(3, 77, RATE), clip("tune 1", 6, 3.5), tune(3, 78, RATE)])
    match = library.query(samples)
    assert match is not None
    assert match.track_id == "tune 1"
    assert match.accepted
    assert match.offset_s == pytest.approx(3, abs=HOP_S)
    assert match.ber is not None
    assert match.ber < 0.1
