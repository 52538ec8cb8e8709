"""Fingerprints and indexes made from random numbers: the same at every run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from samaf.fingerprint import Fingerprint
from samaf.index import Index, TrackInfo

MODEL = "5a" * 32


def print_of(
    n: int, seed: int = 0, bits: int = 128, invalid: float = 0.02, model: str = MODEL
) -> Fingerprint:
    """A fingerprint of `n` random hashes, a share of them invalid."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**64, (n, bits // 64), dtype=np.uint64, endpoint=False)
    valid = rng.random(n) >= invalid
    hashes[~valid] = 0
    return Fingerprint(
        hashes=hashes, valid=valid, hop_s=1.0, bits=bits, model_id=model, duration_s=float(n) + seed / 16000
    )


def info_of(seed: int) -> TrackInfo:
    """What goes with `print_of(n, seed)`."""
    digest = hashlib.sha256(str(seed).encode()).hexdigest()
    return TrackInfo(f"/music/{seed % 7}/{seed}.flac", digest=digest, size_bytes=seed, mtime_ns=seed * 10**9)


def new_index(path: Path, bits: int = 128) -> Index:
    return Index.create(path, model_id=MODEL, bits=bits, hop_s=1.0, query_hop_s=0.1, model_name="test")


def fill(index: Index, seeds: range, n: int = 50) -> list[int]:
    """Add one track of `n` hashes per seed, in one batch."""
    return index.add([(info_of(seed), print_of(n, seed, index.header.bits)) for seed in seeds])


def stored(index: Index) -> dict[int, np.ndarray]:
    """All hashes of all tracks, by id, copied out of a snapshot."""
    with index.snapshot() as snapshot:
        return {
            track_id: part.hashes[part.starts[k] : part.starts[k + 1]].copy()
            for part in snapshot.segments
            for k, track_id in enumerate(part.track_ids.tolist())
            if track_id not in snapshot.removed
        }
