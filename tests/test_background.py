"""Unrelated audio: the sums over all places of all runs, and what is made of them."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from codes import activations

from samaf.background import BLOCK_ROWS, RUN_ROWS, TOP_MEAN, TOP_SHARE, Background
from samaf.hamming import pack

BITS = 64


@pytest.fixture(scope="module")
def runs() -> np.ndarray:
    """Signs of 20 runs, (20, 47, 64)."""
    rng = np.random.default_rng(0)
    return np.stack([activations(25.0, rng, BITS)[: 5 * RUN_ROWS : 5] > 0 for _ in range(20)])


def background_of(runs: np.ndarray, hop_s: float, bits: int = BITS) -> Background:
    words = pack(runs.reshape(-1, runs.shape[2])).reshape(*runs.shape[:2], -1)
    return Background(words, bits, hop_s)


def weights(n: int, seed: int = 1, bits: int = BITS) -> np.ndarray:
    """Weights of a stretch's rows 0.1 s apart, which are like their neighbours."""
    return activations(2.0 + n / 10, np.random.default_rng(seed), bits)[:n]


def laid_over(signed: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Agreement at every place of every run."""
    return np.array(
        [
            sum(float(row @ run[place + k]) for k, row in enumerate(signed))
            for run in signs
            for place in range(len(run) - len(signed) + 1)
        ]
    )


def upper_end(totals: np.ndarray) -> float:
    """Spread of the normal distribution whose top thousandth lies as high."""
    top = np.sort(totals)[-max(1, round(TOP_SHARE * len(totals))) :]
    return float((top.mean() - totals.mean()) / TOP_MEAN)


def test_the_mean_of_the_top_is_that_of_the_normal_distribution() -> None:
    normal = NormalDist()
    assert pytest.approx(normal.pdf(normal.inv_cdf(1 - TOP_SHARE)) / TOP_SHARE, abs=1e-3) == TOP_MEAN


@pytest.mark.parametrize(("hop_s", "every"), [(0.5, 1), (1.0, 2), (2.0, 4)])
@pytest.mark.parametrize("k", [1, 3, BLOCK_ROWS])
def test_a_short_stretch_is_laid_over_every_place(runs: np.ndarray, hop_s: float, every: int, k: int) -> None:
    signed = weights(k)
    totals = laid_over(signed, np.where(runs[:, ::every], 1.0, -1.0))
    mean, spread = background_of(runs, hop_s).of_stretch(signed)
    assert mean == pytest.approx(totals.mean(), abs=1e-3)
    assert spread == pytest.approx(upper_end(totals), rel=1e-4)


def test_rows_closer_than_the_background_s_are_thinned(runs: np.ndarray) -> None:
    signed = weights(23)
    dense, sparse = background_of(runs, 0.1), background_of(runs, 0.5)
    mean, spread = sparse.of_stretch(signed[::5])
    scale = len(signed) / len(signed[::5])
    assert dense.of_stretch(signed) == pytest.approx((mean * scale, spread * scale))


@pytest.mark.parametrize("times", [2, 5, 30])
def test_a_long_stretch_is_a_sum_of_blocks(runs: np.ndarray, times: int) -> None:
    block = weights(BLOCK_ROWS)
    totals = laid_over(block, np.where(runs[:, ::2], 1.0, -1.0))
    excess = upper_end(totals) / totals.std() - 1.0
    mean, spread = background_of(runs, 1.0).of_stretch(np.tile(block, (times, 1)))
    assert mean == pytest.approx(times * totals.mean(), rel=1e-3, abs=1e-2)
    assert spread == pytest.approx(np.sqrt(times) * totals.std() * (1 + excess / np.sqrt(times)), rel=1e-3)


def test_long_stretches_grow_evenly(runs: np.ndarray) -> None:
    background = background_of(runs, 1.0)
    rows = np.random.default_rng(5).standard_normal((768, BITS)).astype(np.float32)
    spreads = [background.of_stretch(rows[:n])[1] for n in (12, 48, 192, 768)]
    for one, four in pairwise(spreads):
        assert four / one == pytest.approx(2.0, abs=0.5)


def test_a_loop_spreads_more_than_as_many_different_rows(runs: np.ndarray) -> None:
    """Its rows agree or differ together, in runs that are loops as well."""
    loops = np.repeat(runs[:, :1], RUN_ROWS, axis=1)
    row = weights(1)
    background = background_of(loops, 0.5)
    loop, different = np.tile(row, (8, 1)), np.concatenate([weights(1, seed) for seed in range(8)])
    different *= np.linalg.norm(row) / np.linalg.norm(different, axis=1, keepdims=True)
    assert background.of_stretch(loop)[1] > 1.5 * background.of_stretch(different)[1]


def test_rows_by_themselves(runs: np.ndarray) -> None:
    signed = weights(5)
    agreement = signed @ np.where(runs[:, ::2], 1.0, -1.0).reshape(-1, BITS).T
    mean, spread = background_of(runs, 1.0).of_rows(signed)
    np.testing.assert_allclose(mean, agreement.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(spread, agreement.std(axis=1), rtol=1e-4)


def test_rows_without_weight_have_no_spread_of_0(runs: np.ndarray) -> None:
    background = background_of(runs, 1.0)
    nothing = np.zeros((3, BITS), np.float32)
    assert (background.of_rows(nothing)[1] > 0).all()
    assert background.of_stretch(nothing)[1] > 0


def test_shorter_codes_are_the_beginning_of_longer_ones() -> None:
    rng = np.random.default_rng(3)
    long = rng.random((12, RUN_ROWS, 256)) < 0.5
    signed = weights(4, bits=128)
    one, other = background_of(long, 1.0, 128), background_of(long[..., :128], 1.0, 128)
    assert one.of_stretch(signed) == pytest.approx(other.of_stretch(signed))


def test_runs_shorter_than_a_stretch(runs: np.ndarray) -> None:
    """An index of one hash in 10 s leaves three rows of a run."""
    background = background_of(runs, 10.0)
    assert background.length == 3
    mean, spread = background.of_stretch(weights(7))
    assert np.isfinite(mean) and spread > 0
