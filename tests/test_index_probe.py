from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from samaf.hamming import frozen, pack, unpack
from samaf.index import probe, segment
from samaf.index.probe import candidates, likely_flips
from samaf.index.segment import Segment


def library(n: int, w: int = 2, seed: int = 0) -> Segment:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**64, (n, w), dtype=np.uint64, endpoint=False)
    hashes[rng.random(n) < 0.02] = 0
    return segment.with_tables(segment.plain([hashes], [1], w))


@pytest.fixture(scope="module")
def large() -> Segment:
    return library(1 << 17)


def noisy(
    part: Segment, rows: NDArray[np.int64], rate: float, seed: int = 1
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Stored codes with bits flipped, and a confidence that is low where they are."""
    rng = np.random.default_rng(seed)
    bits = unpack(part.hashes[rows], 64 * part.hashes.shape[1])
    flipped = rng.random(bits.shape) < rate
    confidence = rng.uniform(0.2, 1.0, bits.shape) * np.where(flipped, 0.3, 1.0)
    return pack(bits ^ flipped), confidence.astype(np.float32)


def naive(part: Segment, queries: NDArray[np.uint64], cut: int) -> set[tuple[int, int, int]]:
    distances = np.bitwise_count(queries[:, None, :] ^ part.hashes[None]).astype(int).sum(axis=2)
    near = (distances <= cut) & part.hashes.any(axis=1) & queries.any(axis=1)[:, None]
    return {(int(i), int(j), int(distances[i, j])) for i, j in zip(*np.nonzero(near), strict=True)}


def found(part: Segment, *args: object, **options: object) -> set[tuple[int, int, int]]:
    hits = candidates(part, *args, **options)  # type: ignore[arg-type]
    triples = list(zip(*(column.tolist() for column in hits), strict=True))
    assert [t[:2] for t in triples] == sorted({t[:2] for t in triples}), "each pair once, in order"
    return set(triples)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_flips_come_in_order_of_likelihood(width: int, probes: int, seed: int) -> None:
    confidence = np.random.default_rng(seed).uniform(0, 1, 64).astype(np.float32)
    first = seed % (64 - width)
    masks = np.empty(min(probes, 1 << width), np.int64)
    count = likely_flips(frozen(confidence), first, width, masks)
    assert count == len(masks)
    band = confidence[first : first + width].astype(float)
    subsets = chain.from_iterable(combinations(range(width), k) for k in range(width + 1))
    sums = sorted(sum(band[b] for b in subset) for subset in subsets)
    costs = [sum(band[b] for b in range(width) if mask >> b & 1) for mask in masks.tolist()]
    assert masks[0] == 0
    assert len(set(masks.tolist())) == len(masks)
    assert costs == pytest.approx(sums[: len(masks)])


def test_a_small_segment_is_scanned_completely() -> None:
    part = library(500)
    queries, confidence = noisy(part, np.arange(0, 500, 50), 0.2)
    queries[3] = 0
    assert found(part, queries, confidence, probes=1, max_distance=50) == naive(part, queries, 50)
    everything = np.where((queries != 0).any(axis=1), queries.T, 0).T
    assert found(part, everything, max_distance=128) == naive(part, everything, 128)
    assert found(part, queries, max_distance=-1) == set()


@pytest.mark.parametrize("cut", [40, 50, 128])
def test_a_scan_in_blocks_finds_the_same(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of queries and rows that do not fill, and more hits than the first room."""
    monkeypatch.setattr(probe, "_SCAN_QUERIES", 7)
    monkeypatch.setattr(probe, "_SCAN_ROWS", 150)
    part = library(1100)
    queries, _ = noisy(part, np.arange(0, 1100, 35), 0.25)
    queries[[3, 17]] = 0
    assert found(part, queries, max_distance=cut) == naive(part, queries, cut)
    valid = np.arange(len(queries)) % 3 > 0
    expected = {hit for hit in naive(part, queries, cut) if valid[hit[0]]}
    assert found(part, queries, None, valid, max_distance=cut) == expected


def test_a_stored_hash_is_found_by_one_probe(large: Segment) -> None:
    assert large.width_bits == 13
    rows = np.flatnonzero(large.hashes.any(axis=1))[::5000]
    hits = found(large, large.hashes[rows].copy(), None, None, 1, max_distance=0)
    assert hits == {(i, int(row), 0) for i, row in enumerate(rows)}


def test_resemblances_are_a_subset_of_the_scan_and_grow_with_probes(large: Segment) -> None:
    rows = np.flatnonzero(large.hashes.any(axis=1))[1::6000]
    queries, confidence = noisy(large, rows, 0.15)
    true = {(i, int(row)) for i, row in enumerate(rows)}
    scan = naive(large, queries, 44)
    shares, earlier = [], set()
    for probes in (1, 4, 16, 64):
        hits = found(large, queries, confidence, probes=probes)
        assert earlier <= hits <= scan
        shares.append(len(true & {hit[:2] for hit in hits}) / len(true))
        earlier = hits
    assert shares[0] > 0.4
    assert shares[2] > 0.95


def test_confidence_finds_more_than_its_absence(large: Segment) -> None:
    rows = np.flatnonzero(large.hashes.any(axis=1))[::2500]
    queries, confidence = noisy(large, rows, 0.2)
    true = {(i, int(row)) for i, row in enumerate(rows)}
    informed = true & {hit[:2] for hit in found(large, queries, confidence, probes=8)}
    blind = true & {hit[:2] for hit in found(large, queries, None, probes=8)}
    assert len(informed) > len(blind)


def test_invalid_hashes_find_nothing_and_are_not_found(large: Segment) -> None:
    row = int(np.flatnonzero(large.hashes.any(axis=1))[0])
    queries = np.stack([large.hashes[row], large.hashes[row], np.zeros(2, np.uint64)])
    valid = np.array([True, False, True])
    assert {hit[0] for hit in found(large, queries, None, valid, 2)} == {0}
    near_zero = np.array([[1, 0]], np.uint64)
    assert found(large, near_zero, None, None, 64, max_distance=2) == set()
    assert found(library(100), near_zero, max_distance=2) == set()


def test_more_candidates_than_the_first_room(large: Segment) -> None:
    queries = large.hashes[:400].copy()
    hits = found(large, queries, None, None, 16, max_distance=128)
    assert len(hits) > 1 << 15
    for i, row, distance in list(hits)[:200]:
        assert np.bitwise_count(queries[i] ^ large.hashes[row]).sum() == distance


@pytest.mark.parametrize("w", [1, 4])
def test_other_widths_of_codes(w: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "TABLE_ROWS", 1000)
    part = library(2000, w)
    assert part.width_bits == 8  # clamped
    assert len(part.tables) == 8 * w
    rows = np.flatnonzero(part.hashes.any(axis=1))[::50]
    queries, confidence = noisy(part, rows, 0.05)
    hits = found(part, queries, confidence, probes=8, max_distance=64 * w // 4)
    assert {(i, int(row)) for i, row in enumerate(rows)} <= {hit[:2] for hit in hits}
    # More probes than buckets: every bucket, so all there is.
    everything = found(part, queries[:5], None, None, 1000, max_distance=20 * w)
    assert everything == naive(part, queries[:5], 20 * w)


def test_empty_queries_and_segments(large: Segment) -> None:
    none = np.zeros((0, 2), np.uint64)
    assert found(large, none) == set()
    assert found(library(10), none) == set()
    assert found(segment.plain([], [], 2), large.hashes[:3].copy()) == set()


def test_arguments_that_do_not_fit_are_refused(large: Segment) -> None:
    query = large.hashes[:2].copy()
    for args in (
        (query[:, :1].copy(), None, None, 1),
        (query, np.zeros((2, 64), np.float32), None, 1),
        (query, None, np.ones(3, np.bool_), 1),
        (query, None, None, 0),
    ):
        with pytest.raises(ValueError, match=r"."):
            candidates(large, *args)
