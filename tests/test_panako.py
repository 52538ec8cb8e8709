"""Panako: what its fingerprints keep under changes of pitch and time, its kernels, and clips it must name."""

from __future__ import annotations

import itertools
import subprocess

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import RATE, tune, write

from baselines.panako import (
    EventPoints,
    Panako,
    PanakoParameters,
    _best_line,
    _combine,
    _Hits,
    _scan_lines,
    changes,
    constant_q,
    describe,
    event_points,
    fingerprints,
)

SETTINGS = PanakoParameters()


@pytest.fixture(scope="module")
def songs():
    return {f"song {seed}": tune(20, seed) for seed in range(6)}


@pytest.fixture(scope="module")
def system(songs):
    system = Panako()
    for name, samples in songs.items():
        system.add(name, samples)
    return system


def excerpt(samples, start_s, length_s=5.0):
    return samples[round(start_s * RATE) : round((start_s + length_s) * RATE)]


@st.composite
def points(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(3, 60))
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 300, count))
    bins = rng.integers(0, SETTINGS.bins - 50, count)
    return EventPoints(times.astype(np.int32), bins.astype(np.int32))


# --- the transform


def test_a_sine_peaks_at_its_bin_with_its_amplitude():
    number = 200
    hz = SETTINGS.lowest_hz * 2 ** (number / SETTINGS.bins_per_octave)
    t = np.arange(1 << 16) / RATE
    values = constant_q((0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32), SETTINGS)
    assert values.shape == (SETTINGS.bins, len(t) // SETTINGS.hop)
    middle = values[:, values.shape[1] // 2]
    assert middle.argmax() == number
    assert middle[number] == pytest.approx(0.3, rel=0.01)


def test_a_click_peaks_at_its_frame():
    samples = np.zeros(1 << 16, np.float32)
    samples[200 * SETTINGS.hop] = 1
    assert set(constant_q(samples, SETTINGS)[150:].argmax(axis=1)) == {200}


def test_folded_bands_are_the_filtered_signal_taken_every_hop():
    rng = np.random.default_rng(1)
    samples = rng.standard_normal(1 << 14).astype(np.float32)
    values = constant_q(samples, SETTINGS)
    for number in (0, 100, SETTINGS.bins - 1):
        hz = SETTINGS.lowest_hz * 2 ** (number / SETTINGS.bins_per_octave)
        width = SETTINGS.bandwidth * hz * (2 ** (1 / SETTINGS.bins_per_octave) - 1)
        frequencies = np.fft.fftfreq(len(samples), 1 / RATE)
        band = np.fft.fft(samples) * np.exp(-0.5 * ((frequencies - hz) / width) ** 2)
        expected = 2 * np.abs(np.fft.ifft(band))[:: SETTINGS.hop]
        np.testing.assert_allclose(values[number], expected, atol=0.003 * expected.max())


# --- event points


def test_event_points_are_the_maxima_of_their_neighbourhoods():
    samples = tune(3, 4)
    found = event_points(samples, SETTINGS)
    block = np.zeros(1 << 16, np.float32)
    block[8192 : 8192 + len(samples)] = samples
    values = constant_q(block, SETTINGS)
    lead, up, along = 8192 // SETTINGS.hop, SETTINGS.frequency_radius, SETTINGS.time_radius
    expected = []
    for time in range(len(samples) // SETTINGS.hop):
        for number in range(SETTINGS.bins):
            rows = slice(max(number - up, 0), number + up + 1)
            around = values[rows, time + lead - along : time + lead + along + 1]
            if values[number, time + lead] >= around.max():
                expected.append((time, number))
    got = list(zip(found.times.tolist(), found.bins.tolist(), strict=True))
    # The block's length decides the last digits, and so the frame of a flat maximum.
    assert len(set(got) & set(expected)) > 0.95 * max(len(got), len(expected))


def test_event_points_do_not_depend_on_where_blocks_end():
    samples = tune(16, 5)
    whole = event_points(samples, SETTINGS)
    cut = 3 * RATE // SETTINGS.hop
    part = event_points(samples[cut * SETTINGS.hop :], SETTINGS)
    inner = cut + 50  # clear of the cut's own surroundings
    expected = {
        pair for pair in zip(whole.times.tolist(), whole.bins.tolist(), strict=True) if pair[0] >= inner
    }
    got = {
        (t + cut, b) for t, b in zip(part.times.tolist(), part.bins.tolist(), strict=True) if t + cut >= inner
    }
    assert len(got & expected) > 0.97 * max(len(got), len(expected))
    assert np.all(np.diff(whole.times) >= 0)


@pytest.mark.parametrize("count", [0, 1, 100, RATE])
def test_silence_has_no_event_points(count):
    assert len(event_points(np.zeros(count, np.float32), SETTINGS).times) == 0


# --- fingerprints


@settings(deadline=None, max_examples=40)
@given(points(), st.integers(1, 50))
def test_a_pitch_shift_moves_the_bins_and_nothing_else(found, shift):
    before = fingerprints(found, SETTINGS)
    after = fingerprints(found._replace(bins=found.bins + np.int32(shift)), SETTINGS)
    np.testing.assert_array_equal(after.bins, before.bins + shift)
    for name in ("times", "steps", "ratios", "spans"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@settings(deadline=None, max_examples=40)
@given(points(), st.integers(1, 50))
def test_a_stretch_scales_the_times_and_nothing_else(found, factor):
    threes = np.array(list(itertools.combinations(range(len(found.times)), 3))[:200])
    threes = threes[found.times[threes[:, 2]] > found.times[threes[:, 0]]]
    before = describe(found, threes, SETTINGS)
    after = describe(found._replace(times=found.times * np.int32(factor)), threes, SETTINGS)
    np.testing.assert_array_equal(after.times, before.times * factor)
    np.testing.assert_array_equal(after.spans, before.spans * factor)
    for name in ("bins", "steps", "ratios"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def naive_threes(found, p):
    times, bins = found
    out = []
    for i in range(len(times)):
        near = [
            j
            for j in range(i + 1, len(times))
            if p.shortest_gap <= times[j] - times[i] <= 2 * p.longest_gap
            and abs(bins[j] - bins[i]) <= p.reach
        ][: p.fan_out]
        for j, k in itertools.combinations(near, 2):
            close = abs(bins[k] - bins[j]) <= p.reach
            if (
                close
                and times[j] - times[i] <= p.longest_gap
                and p.shortest_gap <= times[k] - times[j] <= p.longest_gap
            ):
                out.append((i, j, k))
    return out


@settings(deadline=None, max_examples=40)
@given(points())
def test_threes_are_those_of_a_plain_search(found):
    p = SETTINGS
    out = np.empty((10 * len(found.times), 3), np.int64)
    count = _combine(found, p.shortest_gap, p.longest_gap, p.reach, p.fan_out, out)
    assert list(map(tuple, out[:count].tolist())) == naive_threes(found, p)


# --- looking up and lining up


def test_hits_are_those_of_comparing_every_pair(songs, system):
    p = SETTINGS
    clip = fingerprints(event_points(excerpt(songs["song 2"], 3.3, 2), p), p)
    got = system._hits(clip)
    _, point = np.unique(clip.times.astype(int) * p.bins + clip.bins, return_inverse=True)
    expected = []
    for number, samples in enumerate(songs.values()):
        track = fingerprints(event_points(samples, p), p)
        steps = np.abs(clip.steps[:, None] - track.steps[None]).max(axis=2)
        ratios = np.abs(clip.ratios[:, None] - track.ratios[None])
        shifts = clip.bins[:, None] - track.bins[None]
        factors = track.spans[None] / clip.spans[:, None]
        rows, columns = np.nonzero(
            (steps <= p.bin_tolerance)
            & (ratios <= p.ratio_tolerance)
            & (np.abs(shifts) <= p.largest_shift)
            & (factors >= p.slowest * (1 - p.factor_tolerance))
            & (factors <= p.fastest * (1 + p.factor_tolerance))
        )
        expected += zip(
            itertools.repeat(number),
            shifts[rows, columns].tolist(),
            factors[rows, columns].tolist(),
            clip.times[rows].tolist(),
            track.times[columns].tolist(),
            point[rows].tolist(),
            strict=False,
        )
    assert len(expected) > 100
    assert sorted(zip(*(column.tolist() for column in got), strict=True)) == sorted(expected)


def random_hits(rng, count):
    return _Hits(
        tracks=np.zeros(count, np.int64),
        shifts=np.zeros(count, np.int64),
        factors=rng.uniform(0.85, 1.15, count),
        clip_times=rng.integers(0, 100, count).astype(float),
        track_times=rng.integers(0, 150, count).astype(float),
        points=rng.integers(0, max(count // 2, 1), count),
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_best_line_passes_as_many_points_as_any(seed, count):
    hits = random_hits(np.random.default_rng(seed), count)
    factors, width = np.array([0.9, 1.0, 1.1]), 6.0
    most = 0
    for factor in factors:
        agree = np.abs(hits.factors / factor - 1) <= 0.1
        rest = hits.track_times - factor * hits.clip_times
        for edge in rest[agree]:
            most = max(most, len(np.unique(hits.points[agree & (rest >= edge) & (rest <= edge + width)])))
    points, factor, edge = _scan_lines(hits, factors, 0.1, width)
    assert points == most
    if most:
        rest = hits.track_times - factor * hits.clip_times
        on = (np.abs(hits.factors / factor - 1) <= 0.1) & (rest >= edge) & (rest <= edge + width)
        assert len(np.unique(hits.points[on])) == most


@pytest.mark.parametrize(
    ("time_factor", "pitch_factor", "expected"),
    [
        (1.004, 0.996, (1, 1, 0)),
        (1.05, 1.052, (1.05, 1, 0)),
        (0.95, 1.003, (1, 0.95, 0)),
        (1.001, 2 ** (-1 / 12), (1, 1, -100)),
        (1.1, 2 ** (1 / 12), (1, 1.1, 100)),
    ],
)
def test_changes_are_told_with_the_fewest_values(time_factor, pitch_factor, expected):
    assert changes(time_factor, pitch_factor) == pytest.approx(expected)


# --- the system


@pytest.mark.parametrize("name", ["song 0", "song 5"])
@pytest.mark.parametrize("start_s", [0.0, 7.123, 15.0])
def test_a_clip_is_named_and_placed(songs, system, name, start_s):
    match = system.query(excerpt(songs[name], start_s))
    assert match is not None
    assert match.track_id == name
    assert match.accepted
    assert match.offset_s == pytest.approx(start_s, abs=0.1)
    assert (match.speed, match.tempo, match.pitch_cents) == (1, 1, 0)


@pytest.mark.parametrize("speed", [0.9, 1.05, 1.1])
def test_a_sped_up_clip_is_named_with_its_speed(songs, system, speed):
    clip = soxr.resample(excerpt(songs["song 3"], 4.2, 5 * speed), RATE * speed, RATE)
    match = system.query(clip)
    assert match is not None
    assert match.track_id == "song 3"
    assert match.offset_s == pytest.approx(4.2, abs=0.1)
    assert match.speed == pytest.approx(speed, abs=0.01)
    assert (match.tempo, match.pitch_cents) == (1, 0)


@pytest.mark.parametrize(
    ("effect", "tempo", "pitch_cents"),
    [(["tempo", "-m", "0.95"], 0.95, 0), (["tempo", "-m", "1.1"], 1.1, 0), (["pitch", "100"], 1, 100)],
)
def test_a_clip_changed_in_time_or_pitch_alone_is_named_with_the_change(
    songs, system, program, tmp_path, effect, tempo, pitch_cents
):
    source = write(tmp_path / "clip.wav", excerpt(songs["song 1"], 6.5, 5 * tempo))
    subprocess.run([program("sox"), "-D", source, tmp_path / "changed.wav", *effect], check=True)
    match = system.query(soundfile.read(tmp_path / "changed.wav", dtype="float32")[0])
    assert match is not None
    assert match.track_id == "song 1"
    assert match.offset_s == pytest.approx(6.5, abs=0.1)
    assert match.speed == 1
    assert match.tempo == pytest.approx(tempo, abs=0.01)
    assert match.pitch_cents == pytest.approx(pitch_cents, abs=15)


@pytest.mark.parametrize("samples", [tune(0.9), np.zeros(5 * RATE, np.float32), np.empty(0, np.float32)])
def test_short_and_silent_clips_have_no_answer(system, samples):
    assert system.query(samples) is None


def test_the_store_holds_small_types_in_the_order_of_hashes(system):
    tables = system.tables()
    assert np.all(np.diff(tables["hashes"].astype(np.int64)) >= 0)
    rows = len(tables["hashes"])
    assert sum(tables[name].nbytes for name in ("hashes", "frames", "bins", "spans")) == 11 * rows


@pytest.mark.parametrize("wrong", [{"hop": 100}, {"longest_gap": 128}, {"reach": 500, "ratio_levels": 1000}])
def test_parameters_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError):
        PanakoParameters(**wrong)


def test_a_lone_hit_at_the_edge_of_the_factors_does_no_harm():
    edge = np.nextafter(SETTINGS.fastest * (1 + SETTINGS.factor_tolerance), 2)
    hits = random_hits(np.random.default_rng(0), 1)._replace(factors=np.array([edge]))
    assert _best_line(hits, SETTINGS) is None
