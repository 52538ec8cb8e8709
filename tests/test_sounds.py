"""Sounds that are no recording: what each sort sounds like."""

from __future__ import annotations

import numpy as np
import pytest

from samaf.model import sounds
from samaf.model.sounds import SORTS, draw_sound

RATE = 16000


def halves_alike(x: np.ndarray) -> float:
    """Correlation of the spectra of one half and of the other."""
    halves = [np.abs(np.fft.rfft(half)) for half in (x[: len(x) // 2], x[len(x) // 2 : len(x) // 2 * 2])]
    return float(np.corrcoef(*halves)[0, 1])


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.__name__)
@pytest.mark.parametrize("n", [RATE, RATE * 3 + 7])
def test_each_sort_has_the_length_asked_for_and_follows_its_seed(sort: sounds.Sort, n: int) -> None:
    for seed in range(20):
        x = sort(n, np.random.default_rng(seed))
        assert x.shape == (n,) and np.isfinite(x).all() and np.abs(x).max() > 0
        assert np.array_equal(x, sort(n, np.random.default_rng(seed)))


def test_sounds_have_levels_below_full_scale() -> None:
    peaks = [np.abs(draw_sound(RATE, np.random.default_rng(seed))).max() for seed in range(100)]
    assert 0.009 < min(peaks) < 0.03 and 0.3 < max(peaks) < 0.51
    assert draw_sound(RATE, np.random.default_rng(0)).dtype == np.float32


def test_all_sorts_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()

    def noted(sort: sounds.Sort) -> sounds.Sort:
        return lambda n, rng: (drawn.add(sort), sort(n, rng))[1]

    monkeypatch.setattr(sounds, "SORTS", tuple(noted(sort) for sort in SORTS))
    for seed in range(60):
        draw_sound(2000, np.random.default_rng(seed))
    assert drawn == set(SORTS)


def test_hum_and_tones_stand_and_sweeps_move() -> None:
    def of(sort: sounds.Sort, seconds: int) -> float:
        drawn = [sort(seconds * RATE, np.random.default_rng(seed)) for seed in range(20)]
        return float(np.median([halves_alike(x) for x in drawn]))

    assert of(sounds.hum, 8) > 0.9 and of(sounds.tone, 8) > 0.9
    assert of(sounds.sweep, 2) < 0.8


def test_a_drum_machine_repeats_its_bar() -> None:
    for seed in range(5):
        x = sounds.drums(8 * RATE, np.random.default_rng(seed))
        loud = np.abs(np.fft.irfft(np.abs(np.fft.rfft(x, 32 * RATE)) ** 2))
        bars = loud[
            round(60 / 180 * 4 * RATE) : round(60 / 70 * 4 * RATE)
        ]  # one bar at 180 to 70 beats a minute
        assert bars.max() > 0.4 * loud[0]


def test_clicks_are_short() -> None:
    for seed in range(20):
        x = np.abs(sounds.clicks(4 * RATE, np.random.default_rng(seed)))
        assert np.mean(x > 0.05 * x.max()) < 0.4
