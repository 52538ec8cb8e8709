"""Hashes drawn with the statistics of real ones: tracks that nobody recorded, to see what a large library does.

Behind each bit stands a normal deviate, whose sign it is. Of the real hashes, four things are taken over: how often
each bit is set; how bits of one hash go together; how much of that lasts through a track, in which all hashes resemble
each other; and how much of the rest lasts from one hash to the next. What real tracks share besides, such as a beat
or a loop, drawn ones do not: chance comes near to a clip more rarely in them than in as many real tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bench.corpus import CorpusError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class HashModel:
    """Statistics of hashes.

    Attributes
    ----------
    mean : float32 (bits,)
        Of the deviates: what it takes for each bit to be set as often as it is.
    lasting, passing : float32 (bits, bits)
        Roots of the covariances of what lasts through a track and of what does not.
    memory
        Correlation of what does not last from one hash to the next.
    """

    mean: Float32
    lasting: Float32
    passing: Float32
    memory: float

    @classmethod
    def of(cls, tracks: Sequence[Words]) -> HashModel:
        """The statistics of some tracks, each uint64 (n, words) in order of time, of valid hashes.

        Raises
        ------
        CorpusError
            If no track has four hashes.
        """
        signs = [_signs(hashes) for hashes in tracks if len(hashes) >= 4]
        if not signs:
            raise CorpusError(
                "hashes can be drawn only after tracks of four seconds or more; the library holds none"
            )
        all_signs = np.concatenate(signs)
        often = np.clip((all_signs.mean(axis=0) + 1) / 2, 0.001, 0.999)
        centre = all_signs.mean(axis=0)
        scale = np.maximum(all_signs.std(axis=0), 1e-3)
        signs = [(part - centre) / scale for part in signs]
        now = _deviates([(part, part) for part in signs])
        next_ = _deviates([(part[:-1], part[1:]) for part in signs])
        far = _deviates([(part[: len(part) // 2], part[-(len(part) // 2) :]) for part in signs])
        passing = np.trace(now) - np.trace(far)
        memory = (np.trace(next_) - np.trace(far)) / max(passing, 1e-9)
        return cls(
            np.array([NormalDist().inv_cdf(share) for share in often], np.float32),
            _root(far),
            _root(now - far),
            float(np.clip(memory, 0.0, 0.99)),
        )

    def draw(self, rng: Generator, n_tracks: int, n_hashes: int) -> Words:
        """Hashes of some tracks: uint64 (n_tracks, n_hashes, words)."""
        bits = len(self.mean)
        stays = rng.standard_normal((n_tracks, bits), np.float32) @ self.lasting.T + self.mean
        moves = rng.standard_normal((n_tracks, bits), np.float32) @ self.passing.T
        news = np.float32(np.sqrt(1.0 - self.memory**2))
        out = np.empty((n_tracks, n_hashes, bits // 64), np.uint64)
        for k in range(n_hashes):
            out[:, k] = np.packbits(stays + moves > 0, axis=1, bitorder="little").view("<u8")
            step = rng.standard_normal((n_tracks, bits), np.float32) @ self.passing.T
            moves = np.float32(self.memory) * moves + news * step
        return out


def _signs(hashes: Words) -> Float32:
    """Bits as 1 and -1, float32 (n, bits)."""
    as_bytes = np.ascontiguousarray(hashes).astype("<u8").view(np.uint8)
    return 2.0 * np.unpackbits(as_bytes, axis=1, bitorder="little").astype(np.float32) - 1.0


def _deviates(pairs: Sequence[tuple[Float32, Float32]]) -> Float64:
    """Correlations of normal deviates, from pairs of the signs of which they are (the arcsine law)."""
    total = sum(np.asarray(a.T @ b, np.float64) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    return np.sin(np.pi / 2 * np.clip((total + total.T) / 2, -1.0, 1.0))


def _root(covariance: Float64) -> Float32:
    """A root of the nearest matrix that is a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
