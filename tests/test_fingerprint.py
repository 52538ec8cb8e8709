"""Fingerprint: what it refuses to be, its nested codes, and its file."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samaf.errors import FingerprintError
from samaf.fingerprint import Fingerprint, confidence_of, is_fingerprint_path, mark_rows

MODEL = "0123456789abcdef" * 4


def make(n: int = 9, bits: int = 128, *, confidence: bool = True, seed: int = 0) -> Fingerprint:
    rng = np.random.default_rng(seed)
    valid = rng.random(n) < 0.8
    hashes = mark_rows(rng.integers(0, 2**64, (n, bits // 64), dtype=np.uint64), valid)
    magnitudes = rng.exponential(size=(n, bits)).astype(np.float32)
    return Fingerprint(hashes, valid, 0.1, bits, MODEL, 1.0 + 0.1 * n, magnitudes if confidence else None)


def overhanging(n: int = 9, bits: int = 128, *, confidence: bool = True, seed: int = 0) -> Fingerprint:
    """What a query has: windows that begin before the audio and end after it."""
    known = 1.0 - np.random.default_rng(seed + 1).random(n)
    return replace(
        make(n, bits, confidence=confidence, seed=seed), start_s=-0.7, known=known.astype(np.float32)
    )


def resealed(data: bytes) -> bytes:
    """The same file with a CRC that fits."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


@given(
    n=st.integers(0, 40),
    bits=st.sampled_from([64, 128, 256, 512]),
    confidence=st.booleans(),
    overhang=st.booleans(),
    seed=st.integers(0, 2**32 - 2),
)
def test_saved_and_loaded_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, n: int, bits: int, confidence: bool, overhang: bool, seed: int
) -> None:
    fingerprint = (overhanging if overhang else make)(n, bits, confidence=confidence, seed=seed)
    path = tmp_path_factory.getbasetemp() / "a.samaf"
    fingerprint.save(path)
    loaded = Fingerprint.load(path)
    assert loaded == fingerprint
    assert loaded.hashes.flags.writeable and loaded.hashes.dtype == np.uint64
    if confidence:
        assert loaded.confidence is not None and loaded.confidence.flags.writeable


def test_confidence_is_the_magnitude_up_to_what_half_precision_holds() -> None:
    values = np.array([[-1.5, 0.25, 1e9, -np.inf, 0.0]], np.float32)
    confidence = confidence_of(values)
    assert confidence.dtype == np.float16 and confidence.tolist() == [[1.5, 0.25, 65504, 65504, 0.0]]
    assert values.tolist() == [[-1.5, 0.25, 1e9, -np.inf, 0.0]]  # the input stays


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    for seed, kept in enumerate((make(confidence=False), make(), overhanging())):
        kept.save(tmp_path / f"{seed}.samaf")
        assert kept.to_bytes() == (tmp_path / f"{seed}.samaf").read_bytes()


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    fingerprint = make(3, 64, confidence=False)
    fingerprint.save(tmp_path / "a.samaf")
    data = (tmp_path / "a.samaf").read_bytes()
    assert data[:6] == b"SAMAFP"
    version, header = struct.unpack_from("<HI", data, 6)
    assert version == 1
    body = data[12 + header :]
    assert body[:24] == fingerprint.hashes.astype("<u8").tobytes()
    assert list(body[24:27]) == fingerprint.valid.tolist()
    assert struct.unpack("<I", body[27:])[0] == zlib.crc32(data[:-4])


def test_without_overhang_the_file_is_of_version_1(tmp_path: Path) -> None:
    """Byte for byte, so that an older samaf reads it; and what an older one wrote is read."""
    fingerprint = make(3, 64)
    assert fingerprint.confidence is not None
    header = {
        "bits": 64,
        "hop_s": 0.1,
        "model_id": MODEL,
        "duration_s": fingerprint.duration_s,
        "n_hashes": 3,
        "confidence": True,
    }
    text = json.dumps(header).encode()
    data = b"SAMAFP" + struct.pack("<HI", 1, len(text)) + text
    data += fingerprint.hashes.astype("<u8").tobytes() + fingerprint.valid.astype("u1").tobytes()
    data += fingerprint.confidence.astype("<f2").tobytes()
    data += struct.pack("<I", zlib.crc32(data))
    fingerprint.save(tmp_path / "new.samaf")
    assert (tmp_path / "new.samaf").read_bytes() == data
    (tmp_path / "old.samaf").write_bytes(data)
    loaded = Fingerprint.load(tmp_path / "old.samaf")
    assert (loaded.start_s, loaded.known, loaded.overhangs) == (0.0, None, False)
    assert replace(loaded, confidence=fingerprint.confidence) == fingerprint


def test_what_overhangs_is_of_version_2(tmp_path: Path) -> None:
    fingerprint = overhanging(3, 64, confidence=False)
    assert fingerprint.known is not None and fingerprint.overhangs
    fingerprint.save(tmp_path / "a.samaf")
    data = (tmp_path / "a.samaf").read_bytes()
    version, length = struct.unpack_from("<HI", data, 6)
    assert version == 2 and json.loads(data[12 : 12 + length])["start_s"] == -0.7
    body = data[12 + length :]
    assert body[27:39] == fingerprint.known.astype("<f4").tobytes()
    assert struct.unpack("<I", body[39:])[0] == zlib.crc32(data[:-4])


def test_a_start_needs_known_shares() -> None:
    with pytest.raises(ValueError, match="must say what of its windows is known"):
        replace(make(confidence=False), start_s=0.4)


@pytest.mark.parametrize("kind", [make, overhanging])
@pytest.mark.parametrize("at", [0, 5, 6, 8, 11, 12, 40, -300, -100, -20, -5, -1])
def test_a_changed_byte_is_found(tmp_path: Path, at: int, kind: Callable[[], Fingerprint]) -> None:
    path = tmp_path / "a.samaf"
    kind().save(path)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(FingerprintError, match=r"a\.samaf: "):
        Fingerprint.load(path)


@pytest.mark.parametrize("kind", [make, overhanging])
def test_a_truncated_file_is_refused_at_every_length(
    tmp_path: Path, kind: Callable[..., Fingerprint]
) -> None:
    path = tmp_path / "a.samaf"
    kind(2, 64).save(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(FingerprintError, match=r"damaged or cut off|not a fingerprint"):
            Fingerprint.load(path)


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.samaf"
    make().save(path)
    data = bytearray(path.read_bytes())
    data[6] = 3
    path.write_bytes(resealed(bytes(data)))
    with pytest.raises(
        FingerprintError, match="has format version 3, this samaf reads versions 1 and 2; update samaf"
    ):
        Fingerprint.load(path)


@pytest.mark.parametrize(("kind", "version"), [(make, 2), (overhanging, 1)])
def test_a_version_that_lies_is_refused(
    tmp_path: Path, kind: Callable[[], Fingerprint], version: int
) -> None:
    path = tmp_path / "a.samaf"
    kind().save(path)
    data = bytearray(path.read_bytes())
    data[6] = version
    path.write_bytes(resealed(bytes(data)))
    with pytest.raises(FingerprintError, match="damaged"):
        Fingerprint.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"bits": 128', b'"bits": 256'),
        (b'"bits": 128', b'"bits": -64'),
        (b'"bits": 128', b'"bits": "a"'),
        (b'"n_hashes": 9', b'"n_hashes": 8'),
        (b'"n_hashes": 9', b'"n_hashed": 9'),
        (b'"hop_s": 0.1', b'"hop_s": NaN'),
        (b'"confidence": true', b'"confidence": null'),
        (b'{"bits"', b'["bits"'),
        (b'"start_s": -0.7', b'"start_s":  NaN'),
        (b'"start_s": -0.7', b'"start_s": null'),
        (b'"start_s": -0.7', b'"start_z": -0.7'),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "a.samaf"
    overhanging().save(path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(resealed(data.replace(old, new)))
    with pytest.raises(FingerprintError, match="damaged"):
        Fingerprint.load(path)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, np.nan, np.inf])
def test_shares_that_cannot_be_are_damage(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.samaf"
    overhanging().save(path)
    data = path.read_bytes()
    path.write_bytes(resealed(data[:-8] + struct.pack("<f", share) + data[-4:]))
    with pytest.raises(FingerprintError, match="damaged"):
        Fingerprint.load(path)


def test_what_is_no_fingerprint_file(tmp_path: Path) -> None:
    (tmp_path / "text.samaf").write_text("hello")
    for name, message in (
        ("text.samaf", "not a fingerprint"),
        ("none.samaf", "no such file"),
        ("", "cannot be read"),
    ):
        with pytest.raises(FingerprintError, match=message):
            Fingerprint.load(tmp_path / name)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.samaf"
    make(seed=1).save(path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(FingerprintError, match=r"a\.samaf: cannot be written \(No"),
    ):
        patch.setattr(os, "fsync", full)
        make(seed=2).save(path)
    assert os.listdir(tmp_path) == ["a.samaf"]
    loaded = Fingerprint.load(path)
    assert np.array_equal(loaded.hashes, make(seed=1).hashes)
    for target in (tmp_path, tmp_path / "no" / "folder.samaf"):
        with pytest.raises(FingerprintError, match="cannot be written"):
            make().save(target)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 96},
        {"bits": 0},
        {"bits": 256},
        {"hop_s": 0.0},
        {"hop_s": np.inf},
        {"duration_s": -1.0},
        {"duration_s": np.nan},
        {"model_id": "ABC"},
        {"valid": np.ones(3, bool)},
        {"valid": np.ones(9, bool)},
        {"valid": np.zeros(9, bool)},
        {"hashes": np.zeros((9, 2), np.uint64)},
        {"confidence": np.zeros((9, 64), np.float32)},
        {"confidence": np.full((9, 128), np.nan, np.float32)},
        {"confidence": np.full((9, 128), -1, np.float32)},
        {"start_s": np.nan},
        {"start_s": -np.inf},
        {"known": np.ones(8, np.float32)},
        {"known": np.ones((9, 1), np.float32)},
        {"known": np.zeros(9, np.float32)},
        {"known": np.full(9, 1.01, np.float32)},
        {"known": np.full(9, -0.5, np.float32)},
        {"known": np.full(9, np.nan, np.float32)},
    ],
    ids=str,
)
def test_parts_that_do_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        replace(make(), **change)


def test_it_does_not_take_other_types_for_hashes() -> None:
    with pytest.raises(TypeError):
        replace(make(), hashes=make().hashes.astype(np.float64))


def test_zero_means_no_content_and_nothing_else() -> None:
    hashes = np.array([[0, 0], [0, 7], [5, 5], [0, 0]], np.uint64)
    marked = mark_rows(hashes, np.array([True, True, False, False]))
    np.testing.assert_array_equal(marked, [[1, 0], [0, 7], [0, 0], [0, 0]])
    assert hashes[0, 0] == 0 and hashes[2, 0] == 5  # the input stays


def test_truncation_keeps_the_prefix_of_each_code() -> None:
    whole = overhanging(30, 256)
    for bits in (64, 128):
        short = whole.truncated(bits)
        assert short.bits == bits and len(short) == len(whole)
        np.testing.assert_array_equal(short.hashes, whole.hashes[:, : bits // 64])
        np.testing.assert_array_equal(short.valid, whole.valid)
        np.testing.assert_array_equal(short.known, whole.known)
        assert short.start_s == -0.7
        assert short.confidence is not None and short.confidence.shape == (30, bits)
        assert [long.startswith(brief) for long, brief in zip(whole.hex(), short.hex(), strict=True)] == [
            True
        ] * 30
    assert whole.truncated(128).truncated(64) == whole.truncated(64)
    assert whole.truncated(256) is whole
    for bits in (0, 32, 100, 512):
        with pytest.raises(ValueError, match="multiple of 64 up to 256"):
            whole.truncated(bits)


def test_truncation_loses_no_valid_row() -> None:
    whole = Fingerprint(np.array([[0, 9]], np.uint64), np.array([True]), 1.0, 128, MODEL, 1.0)
    np.testing.assert_array_equal(whole.truncated(64).hashes, [[1]])


def test_hex_starts_with_the_first_bits() -> None:
    codes = np.array([[0x0123456789ABCDEF, 1], [0, 0]], np.uint64)
    fingerprint = Fingerprint(codes, np.array([True, False]), 1.0, 128, MODEL, 2.0)
    assert fingerprint.hex() == ["efcdab89674523010100000000000000", "0" * 32]
    assert make(0).hex() == []


def test_times_length_and_looks() -> None:
    fingerprint = make(9)
    np.testing.assert_allclose(fingerprint.times_s, np.arange(9) * 0.1)
    assert len(fingerprint) == 9 and "9 hashes of 128 bits" in repr(fingerprint)
    assert make(0).times_s.shape == (0,)
    np.testing.assert_allclose(overhanging(9).times_s, np.arange(9) * 0.1 - 0.7)


def test_equality_sees_every_part() -> None:
    fingerprint = make()
    assert fingerprint == make() and fingerprint != "fingerprint"
    for change in ({"hop_s": 0.2}, {"model_id": "f" * 64}, {"duration_s": 7.0}, {"confidence": None}):
        assert replace(fingerprint, **change) != fingerprint  # type: ignore[arg-type]
    assert make(seed=1) != fingerprint and overhanging() != fingerprint
    for change in ({"start_s": -0.6}, {"known": np.ones(9, np.float32)}, {"known": None, "start_s": 0.0}):
        assert replace(overhanging(), **change) != overhanging()  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hash(fingerprint)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make().bits = 64  # type: ignore[misc]


def test_arrays_are_taken_without_a_copy_where_they_fit() -> None:
    fingerprint = make()
    assert replace(fingerprint).hashes is fingerprint.hashes


def test_suffix() -> None:
    assert is_fingerprint_path("a.samaf") and is_fingerprint_path(Path("x/B.SAMAF"))
    assert not is_fingerprint_path("a.wav")
