"""Dejavu: its peaks, its hashes, and clips found at the right place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from synth import tune

from baselines import dejavu
from baselines.dejavu import Dejavu, DejavuParameters, pack
from baselines.spectra import power_spectra

RATE = Dejavu.sample_rate
TRACKS = {f"tune {seed}": tune(25, seed, RATE) for seed in range(4)}


@pytest.fixture(scope="module")
def library() -> Dejavu:
    system = Dejavu()
    for track, samples in TRACKS.items():
        system.add(track, samples)
    return system


def clip(track: str, start_s: float, length_s: float) -> NDArray[np.float32]:
    start = round(start_s * RATE)
    return TRACKS[track][start : start + round(length_s * RATE)]


PAIRS = st.lists(
    st.tuples(st.integers(0, 2047), st.integers(0, 2047), st.integers(0, 255)), unique=True, min_size=1
)


@settings(deadline=None)
@given(PAIRS)
def test_different_pairs_have_different_hashes(pairs: list[tuple[int, int, int]]) -> None:
    first, second, apart = np.array(pairs, np.int64).T
    keys = pack(first, second, apart)
    assert keys.dtype == np.uint32
    assert len(set(keys.tolist())) == len(pairs)


def test_settings_that_no_hash_can_hold_are_refused() -> None:
    for values in ({"window": 8192}, {"longest": 256}):
        with pytest.raises(ValueError, match="a hash holds"):
            DejavuParameters(**values)


def test_peaks_are_local_maxima_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    system, samples = Dejavu(), TRACKS["tune 0"]
    p = system.parameters
    spectra = power_spectra(samples, p.window, p.hop)[:, :-1]
    # One-sided density in squared 16-bit units per hertz, as the threshold is given.
    density = 2 * spectra * 32768.0**2 / (RATE * (np.hanning(p.window) ** 2).sum())
    highest = maximum_filter(spectra, 2 * p.radius + 1, mode="constant", cval=-np.inf)
    expected = np.argwhere((spectra == highest) & (density > 10 ** (p.floor_db / 10)))
    assert len(expected) > 500
    for block in (7, 64, 512):
        monkeypatch.setattr(dejavu, "_BLOCK", block)
        assert np.array_equal(np.stack(system.peaks(samples), axis=1), expected)


def test_hashes_pair_each_peak_with_the_next() -> None:
    system = Dejavu(DejavuParameters(fan_out=3, longest=4))
    frames, bins = system.peaks(TRACKS["tune 1"])
    keys, anchors = system.hashes(TRACKS["tune 1"])
    expected = set()
    for i in range(len(frames)):
        for j in range(i + 1, min(i + 4, len(frames))):
            if frames[j] - frames[i] <= 4:
                expected.add(
                    (int(bins[i]) << 19 | int(bins[j]) << 8 | int(frames[j] - frames[i]), int(frames[i]))
                )
    assert len(keys) == len(expected)
    assert set(zip(keys.tolist(), anchors.tolist(), strict=True)) == expected


@pytest.mark.parametrize("track", list(TRACKS))
@pytest.mark.parametrize("start_s", [0.0, 3.217, 19.9])
def test_a_clip_is_found_at_its_place(library: Dejavu, track: str, start_s: float) -> None:
    match = library.query(clip(track, start_s, 5))
    assert match is not None
    assert (match.track_id, match.accepted, match.ber) == (track, True, None)
    assert match.offset_s == pytest.approx(start_s, abs=0.03)


def test_a_clip_in_noise_is_found(library: Dejavu) -> None:
    rng = np.random.default_rng(0)
    for track in TRACKS:
        clean = clip(track, 7.77, 5)
        noise = rng.standard_normal(len(clean)) * clean.std() * 10 ** (-5 / 20)
        match = library.query((clean + noise).astype(np.float32))
        assert match is not None
        assert match.track_id == track
        assert match.offset_s == pytest.approx(7.77, abs=0.05)


def test_a_clip_that_starts_before_its_track_has_a_negative_offset(library: Dejavu) -> None:
    lead = np.zeros(2 * RATE, np.float32)
    match = library.query(np.concatenate([lead, clip("tune 2", 0, 4)]))
    assert match is not None
    assert match.track_id == "tune 2"
    assert match.offset_s == pytest.approx(-2, abs=0.05)


def test_the_score_counts_aligned_hashes(library: Dejavu) -> None:
    hop = library.parameters.hop
    samples = TRACKS["tune 3"][40 * hop : 140 * hop]  # cut where a frame starts: all votes fall on one offset
    match = library.query(samples)
    assert match is not None
    assert match.offset_s == pytest.approx(40 * hop / RATE, abs=0.005)
    keys, _ = library.hashes(samples)
    assert 0.8 * len(keys) < match.score < 1.2 * len(keys)
    stranger = library.query(tune(5, 99, RATE))
    assert stranger is None or stranger.score < match.score / 10


def test_nothing_in_common_gives_no_answer(library: Dejavu) -> None:
    p = library.parameters
    for samples in (np.zeros(0), np.zeros(5 * RATE), clip("tune 0", 3, 5)[: p.window - 1]):
        assert library.query(samples.astype(np.float32)) is None
    assert Dejavu().query(clip("tune 0", 3, 5)) is None


def test_a_track_too_short_for_a_frame_is_kept_without_harm() -> None:
    system = Dejavu()
    system.add("too short", TRACKS["tune 0"][:1000])
    system.add("tune 0", TRACKS["tune 0"])
    match = system.query(clip("tune 0", 4, 5))
    assert match is not None
    assert system.tracks == ["too short", "tune 0"]
    assert match.track_id == "tune 0"
