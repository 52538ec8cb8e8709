from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from samaf.hamming import ber, distance, distance_matrix, frozen, pack, unpack

WORDS = st.sampled_from([1, 2, 4])


def codes(rng: np.random.Generator, n: int, w: int) -> NDArray[np.uint64]:
    return rng.integers(0, 2**64, (n, w), dtype=np.uint64, endpoint=False)


def naive(q: NDArray[np.uint64], r: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.bitwise_count(q[:, None, :] ^ r[None, :, :]).astype(np.int64).sum(axis=2)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1), WORDS, st.integers(0, 5), st.sampled_from([0, 1, 7, 1023, 1024, 1025, 3000])
)
def test_distance_matrix_agrees_with_numpy(seed: int, w: int, m: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    q, r = codes(rng, m, w), codes(rng, n, w)
    found = distance_matrix(q, r)
    assert found.dtype == (np.uint16 if w == 4 else np.uint8)
    assert np.array_equal(found, naive(q, r))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), WORDS, st.integers(0, 50))
def test_distance_and_ber_agree_with_numpy(seed: int, w: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, valid = codes(rng, n, w), codes(rng, n, w), rng.random(n) < 0.5
    expected = np.diag(naive(a, b))
    assert np.array_equal(distance(a, b), expected)
    assert distance(a, b).dtype == np.int32
    assert ber(a, b) == (pytest.approx(expected.mean() / (64 * w)) if n else 1.0)
    assert ber(a, b, valid) == (pytest.approx(expected[valid].mean() / (64 * w)) if valid.any() else 1.0)


@pytest.mark.parametrize("w", [1, 2, 4])
def test_extreme_distances_fit_the_result(w: int) -> None:
    zeros, ones = np.zeros((2, w), np.uint64), np.full((3, w), 2**64 - 1, np.uint64)
    assert (distance_matrix(zeros, ones) == 64 * w).all()
    assert distance(zeros[:1], ones[:1])[0] == 64 * w
    assert ber(zeros[:1], ones[:1]) == 1.0


def test_read_only_unaligned_strided_and_given_outputs() -> None:
    rng = np.random.default_rng(0)
    q, r = codes(rng, 3, 2), codes(rng, 2000, 2)
    expected = naive(q, r)
    assert np.array_equal(distance_matrix(q, frozen(r)), expected)
    assert np.array_equal(distance_matrix(q, np.frombuffer(r.tobytes(), np.uint64).reshape(-1, 2)), expected)
    shifted = np.frombuffer(b"x" + r.tobytes(), np.uint8)[1:].view(np.uint64).reshape(-1, 2)
    assert not shifted.flags.aligned
    assert np.array_equal(distance_matrix(q, shifted), expected)
    assert np.array_equal(distance_matrix(q, r[::2]), expected[:, ::2])
    out = np.full((3, 2000), 9, np.uint8)
    assert distance_matrix(q, r, out) is out
    assert np.array_equal(out, expected)


def test_arguments_that_do_not_fit_are_refused() -> None:
    a, b = np.zeros((2, 1), np.uint64), np.zeros((2, 2), np.uint64)
    for call in (
        lambda: distance(a, b),
        lambda: distance(a, a[:1]),
        lambda: distance(a.astype(np.int64), a.astype(np.int64)),
        lambda: distance_matrix(np.zeros((2, 3), np.uint64), np.zeros((2, 3), np.uint64)),
        lambda: distance_matrix(a, a, np.zeros((2, 2), np.uint16)),
        lambda: ber(a, a, np.ones(3, np.bool_)),
        lambda: pack(np.zeros((2, 65), np.bool_)),
        lambda: unpack(a, 128),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()


@settings(deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 9), st.sampled_from([64, 128, 256]))))
def test_pack_and_unpack_are_inverse_and_bits_nested(bits: NDArray[np.bool_]) -> None:
    packed = pack(bits)
    assert packed.shape == (len(bits), bits.shape[1] // 64)
    assert np.array_equal(unpack(packed, bits.shape[1]), bits)
    assert np.array_equal(unpack(packed, 64), bits[:, :64])
    assert np.array_equal(pack(bits[:, :64]), packed[:, :1])


def test_bit_b_is_bit_b_mod_64_of_word_b_div_64() -> None:
    for b in (0, 1, 63, 64, 127):
        bits = np.zeros((1, 128), np.bool_)
        bits[0, b] = True
        code = pack(bits)[0]
        assert int(code[b // 64]) == 1 << (b % 64)
        assert code[1 - b // 64] == 0
