from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from samaf.index import merge, segment
from samaf.index.codec import DamageError, decode, encode
from samaf.index.pages import Place
from samaf.index.segment import Segment, Stored


def codes(n: int, w: int = 2, seed: int = 0, invalid: float = 0.05) -> NDArray[np.uint64]:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**64, (n, w), dtype=np.uint64, endpoint=False)
    hashes[rng.random(n) < invalid] = 0
    return hashes


def bits_of(hashes: NDArray[np.uint64], first: int, width: int) -> NDArray[np.int64]:
    """Value of a band, the slow way."""
    octets = np.unpackbits(hashes.view(np.uint8), axis=1, bitorder="little").astype(np.int64)
    return octets[:, first : first + width] @ (1 << np.arange(width, dtype=np.int64))


@pytest.mark.parametrize("w", [1, 2, 4])
@pytest.mark.parametrize("width", [8, 13, 24])
def test_every_valid_row_is_in_its_bucket_once(w: int, width: int) -> None:
    hashes = codes(3000, w)
    valid = np.flatnonzero(hashes.any(axis=1))
    for band in range(64 * w // width):  # some bands lie across two words
        table = segment.band_table(hashes, band, width, len(valid))
        values = bits_of(hashes, band * width, width)
        assert table.offsets[0] == 0
        assert table.offsets[-1] == len(valid)
        order = valid[np.argsort(values[valid], kind="stable")]
        assert np.array_equal(table.postings, order)
        assert np.array_equal(
            np.diff(table.offsets.astype(np.int64)), np.bincount(values[valid], minlength=1 << width)
        )


@pytest.mark.parametrize(
    ("n", "width"),
    [(0, 0), (2**17 - 1, 0), (2**17, 13), (2**20, 16), (2**26, 22), (2**27 - 1, 22), (2**30, 24)],
)
def test_width_grows_with_the_segment(n: int, width: int) -> None:
    assert segment.table_width(n) == width


def written(part: Segment) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    segment.write(
        lambda name, value: values.__setitem__(name, bytes(value)),
        *merge.gather([part], [], part.hashes.shape[1]),
    )
    return values


class Held:
    """Values in memory, as a file holds them: what a `Tree` and its memory are to a segment."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.data, self.at = b"", {}
        for name, value in values.items():
            self.at[name] = Place(len(self.data), len(value))
            self.data += value + bytes(-len(value) % 8)

    def places(self, prefix: bytes) -> Iterator[tuple[bytes, Place]]:
        return ((prefix + name, place) for name, place in self.at.items())

    def read(self, place: Place) -> bytes:
        return self.data[place.offset : place.offset + place.n_bytes]

    def array(self, place: Place, dtype: Any) -> NDArray[Any]:
        view = np.frombuffer(self.data, np.uint8)[place.offset : place.offset + place.n_bytes]
        return view.view(dtype)


def read(values: dict[bytes, bytes], number: int = 1) -> Segment:
    held: Any = Held(values)
    return Stored(held, number, b"s").segment(held)


def problems(values: dict[bytes, bytes]) -> list[str]:
    held: Any = Held(values)
    try:
        return list(Stored(held, 1, b"s").problems(held))
    except DamageError as error:
        return [str(error)]


@pytest.mark.parametrize("n", [0, 1, 100, 2**17])
@pytest.mark.parametrize("w", [1, 4])
def test_what_is_written_is_read(n: int, w: int) -> None:
    part = segment.with_tables(segment.plain([codes(n // 2, w), codes(n - n // 2, w, 1)], [3, 9], w))
    values = written(part)
    back = read(values, 5)
    assert back.segment_id == 5
    assert np.array_equal(back.hashes, part.hashes)
    assert not back.hashes.flags.writeable
    assert back.track_ids.tolist() == [3, 9]
    assert back.starts.tolist() == [0, n // 2, n]
    assert back.n_invalid == part.n_invalid == (~part.hashes.any(axis=1)).sum()
    assert back.width_bits == (13 if n == 2**17 else 0)
    assert len(back.tables) == (64 * w // 13 if n == 2**17 else 0)
    for mine, other in zip(back.tables, part.tables, strict=True):
        assert (mine.band, mine.width_bits, mine.first_bit) == (other.band, 13, 13 * other.band)
        assert np.array_equal(mine.offsets, other.offsets)
        assert np.array_equal(mine.postings, other.postings)
    assert problems(values) == []


def test_large_values_are_not_copied() -> None:
    values = written(segment.plain([codes(1000)], [1], 2))
    held: Any = Held(values)
    back = Stored(held, 1, b"s").segment(held)
    assert np.shares_memory(back.hashes, np.frombuffer(held.data, np.uint64))


def test_any_flipped_byte_and_lost_value_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "TABLE_ROWS", 256)
    values = written(segment.plain([codes(300)], [1], 2))
    assert len(values) > 10
    rng = np.random.default_rng(0)
    for name, value in values.items():
        for place in rng.integers(0, len(value), 5):
            damaged = bytearray(value)
            damaged[place] ^= 1 << int(rng.integers(8))
            assert problems(values | {name: bytes(damaged)}), (name, place)
        assert problems({k: v for k, v in values.items() if k != name})
        with pytest.raises(DamageError):
            read(values | {name: value[:-1]})


def test_a_table_of_other_hashes_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "TABLE_ROWS", 256)
    values = written(segment.plain([codes(300, invalid=0)], [1], 2))
    other = written(segment.plain([codes(300, seed=1, invalid=0)], [1], 2))
    layout, wrong = decode(values[b"r"]), decode(other[b"r"])
    for name in (b"o\0", b"p\0"):
        values[name] = other[name]
        layout["checksums"][name.hex()] = wrong["checksums"][name.hex()]
    values[b"r"] = encode(layout)
    assert problems(values) == ["segment 1: the table of band 0 does not fit its hashes"]


def test_locate_gives_track_and_place() -> None:
    part = segment.plain([codes(3), codes(0), codes(2)], [4, 5, 6], 2)
    k, place = part.locate(np.arange(5))
    assert part.track_ids[k].tolist() == [4, 4, 4, 6, 6]
    assert place.tolist() == [0, 1, 2, 0, 1]


def test_hashes_of_another_shape_are_refused() -> None:
    for wrong in (codes(3, 4), codes(3)[:, 0], codes(3).astype(np.int64)):
        with pytest.raises(ValueError, match="hashes must be"):
            segment.plain([wrong], [1], 2)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=4), st.sets(st.integers(1, 16), max_size=16)
)
def test_gather_keeps_all_but_the_removed(counts: list[list[int]], removed: set[int]) -> None:
    parts, expected, track_id = [], [], 0
    for group in counts:
        ids, arrays = [], []
        for count in group:
            track_id += 1
            ids.append(track_id)
            arrays.append(codes(count, seed=track_id))
            if track_id not in removed:
                expected.append((track_id, arrays[-1]))
        parts.append(segment.plain(arrays, ids, 2))
    hashes, track_ids, sizes, checksums = merge.gather(parts, removed, 2)
    assert len(checksums) == len(track_ids)
    assert track_ids.tolist() == [number for number, _ in expected]
    assert sizes.tolist() == [len(array) for _, array in expected]
    assert np.array_equal(hashes, np.concatenate([np.zeros((0, 2), np.uint64), *(a for _, a in expected)]))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=200))
def test_merging_keeps_few_segments_and_rewrites_each_hash_seldom(batches: list[int]) -> None:
    sizes: list[int] = []
    rewritten = 0
    for rows in batches:
        chosen = merge.plan(sizes, rows)
        assert chosen == sorted(set(chosen))
        swallowed = sum(sizes[i] for i in chosen)
        rewritten += swallowed
        sizes = [size for i, size in enumerate(sizes) if i not in chosen] + [rows + swallowed]
    assert sum(sizes) == sum(batches)
    tiers = merge.tier(sum(batches)) + 1
    assert len(sizes) <= merge.RATIO * tiers
    assert rewritten <= sum(batches) * 2 * (tiers + 1)


def test_adding_one_by_one_stays_logarithmic() -> None:
    sizes: list[int] = []
    for _ in range(3000):
        chosen = merge.plan(sizes, 30)
        sizes = [s for i, s in enumerate(sizes) if i not in chosen] + [30 + sum(sizes[i] for i in chosen)]
    assert len(sizes) <= 9


def test_no_merge_exceeds_the_largest_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MAX_ROWS", 10_000)
    sizes: list[int] = []
    for _ in range(100):
        chosen = merge.plan(sizes, 900)
        sizes = [s for i, s in enumerate(sizes) if i not in chosen] + [900 + sum(sizes[i] for i in chosen)]
        assert max(sizes) <= 10_000
    assert len(sizes) < 30
    groups = merge.groups(sizes)
    assert [i for group in groups for i in group] == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in group) <= 10_000 for group in groups)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_records_come_back(value: object) -> None:
    data = encode(value)
    assert decode(memoryview(data)) == value
    for damaged in (data[:-1], data[:3], b"", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(DamageError):
            decode(damaged)


def test_changed_hashes_are_not_given_a_checksum_that_fits() -> None:
    part = segment.plain([codes(3), codes(4)], [4, 5], 2)
    hashes = part.hashes.copy()
    hashes[5, 1] ^= np.uint64(1)
    changed = replace(part, hashes=hashes)
    assert changed.is_sound(0)
    with pytest.raises(DamageError, match="track 5 fail"):
        changed.check(1)
    with pytest.raises(DamageError, match="track 5 fail"):
        merge.gather([changed], [], 2)
    assert len(merge.gather([changed], [5], 2).hashes) == 3
