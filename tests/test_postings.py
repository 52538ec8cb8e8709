"""The look-up table finds what a dictionary would."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from baselines.postings import Postings

# Few values of each half, so that keys are shared, and halves are shared by different keys.
HALVES = st.sampled_from([0, 1, 2, 0x7FFF, 0xFFFF])
KEYS = st.builds(lambda head, tail: head << 16 | tail, HALVES, HALVES)
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.integers(0, 2**32 - 1)), max_size=20), max_size=4)


def column(values: list[int]) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def filled(batches: list[list[tuple[int, int]]]) -> Postings:
    table = Postings()
    for batch in batches:
        table.add(column([key for key, _ in batch]), column([position for _, position in batch]))
    return table


@settings(deadline=None, max_examples=60)
@given(BATCHES, st.lists(KEYS, max_size=10))
def test_finds_what_was_added(batches: list[list[tuple[int, int]]], asked: list[int]) -> None:
    which, positions = filled(batches).find(column(asked))
    pairs = sorted(pair for batch in batches for pair in batch)
    expected = [(i, position) for i, key in enumerate(asked) for stored, position in pairs if stored == key]
    assert list(zip(which.tolist(), positions.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=40)
@given(BATCHES)
def test_items_and_tables_hold_all(batches: list[list[tuple[int, int]]]) -> None:
    table = Postings()
    for batch in batches:  # asked between, so that each batch is merged with the earlier ones
        table.add(column([key for key, _ in batch]), column([position for _, position in batch]))
        table.items()
    expected = sorted(pair for batch in batches for pair in batch)
    for one in (table, filled(batches), Postings(table.tables())):
        keys, positions = one.items()
        assert list(zip(keys.tolist(), positions.tolist(), strict=True)) == expected
