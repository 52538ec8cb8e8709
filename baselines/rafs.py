"""RAFS: the sub-fingerprints of Haitsma and Kalker.

J. Haitsma and T. Kalker, "A highly robust audio fingerprinting system", ISMIR 2002; in what follows "the paper".

Every 11.6 ms a sub-fingerprint of 32 bits tells, for 33 neighbouring frequency bands, whether the difference of two
bands' energies has grown since the frame before (section 4.2). A clip is identified by its block of sub-fingerprints.
At least one of them is stored unchanged, or but for bits that the clip itself shows to be unreliable, because their
differences are small: a look-up of all, with the weakest bits flipped in every combination, gives the places with which
the block is compared (section 5.1). The bit error rate of the block decides.

Where the paper is silent:

- Of a clip longer than a block, the best 256 sub-fingerprints in a row count, on each candidate line for itself; so
  changed tempo, which lets a long clip drift away from its track, does little harm. The whole clip as one block gives
  as many right answers at 5 s, but 56 instead of 61 % at 1 % false ones; at 10 s, 66 instead of 68 %.
- A shorter clip is a shorter block, and so is what lies in the track of a clip that reaches beyond it. The score is the
  negative decimal logarithm of the false positive rate (section 4.3), which makes blocks of all lengths comparable; a
  shorter one is accepted only if its rate is no higher than that of 256 at the threshold.
- Sub-fingerprints without a bit set, which digital silence gives, are neither in the look-up table nor looked up, and
  two of them count as half wrong: silence says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from baselines.base import Float32, Match, Tables
from baselines.postings import Int64, PostingsBaseline, UInt32
from baselines.spectra import frame_count, power_spectra
from samaf.hamming import frozen, kernel, popcount

BITS = 32
"""Of a sub-fingerprint."""

# Overlapping frames err together: the spread of an unrelated block's errors is so many times that of independent bits.
_SPREAD = 3
_SPECTRA = 256  # frames whose spectra are held at a time
_PROBES = 2**18  # sub-fingerprints looked up at a time


@dataclass(frozen=True)
class RafsParameters:
    """Settings of :class:`Rafs`.

    Attributes
    ----------
    frame, hop
        Samples of a frame and between frames. The paper's: 0.37 s, overlapping by 31/32.
    lowest_hz, highest_hz
        Outer edges of the 33 bands, which are equally wide on a logarithmic scale. The paper's.
    weak_bits
        Least reliable bits of a sub-fingerprint that are flipped, in all combinations. Tuned on development queries
        (5 s of music under 26 distortions, 24 of each, in 10.6 hours): with 0, 10 (the paper's), 11, 12 and 13 bits,
        50.2, 64.7, 65.5, 66.7 and 67.5 % were answered right (whole clips as blocks); each bit doubles the time.
    block
        Sub-fingerprints that are compared. The paper's, 3 s.
    threshold
        Bit error rate under which a block is identified. The paper's.
    shortest
        Sub-fingerprints that a clip must have, or it is not looked up: with the first frame, 0.75 s. Ours; as many as
        one frame overlaps, so that not all of them tell of the same samples.
    """

    frame: int = 2048
    hop: int = 64
    lowest_hz: float = 300.0
    highest_hz: float = 2000.0
    weak_bits: int = 12
    block: int = 256
    threshold: float = 0.35
    shortest: int = 32


class Rafs(PostingsBaseline):
    """Haitsma and Kalker's system; its frames are the sub-fingerprints.

    Parameters
    ----------
    parameters : RafsParameters, optional
    """

    name: ClassVar[str] = "rafs"
    sample_rate: ClassVar[int] = 5512
    Parameters: ClassVar[type] = RafsParameters
    parameters: RafsParameters

    def __init__(self, parameters: RafsParameters | None = None) -> None:
        super().__init__(parameters)
        p = self.parameters
        edges = np.geomspace(p.lowest_hz, p.highest_hz, BITS + 2) * p.frame / self.sample_rate
        self._edges = np.round(edges).astype(np.int64)
        self._codes: UInt32 | None = None

    def add(self, track_id: str, samples: Float32) -> None:
        """Fingerprint a track and store it under `track_id`."""
        codes = pack(self.differences(samples))
        marked = np.flatnonzero(codes)
        self._store(track_id, codes[marked], marked, len(codes))
        self._codes = None

    def settle(self) -> None:
        """Sort in what has been added, and lay out the sub-fingerprints in the order of time."""
        super().settle()
        self._stored()

    def restore(self, tables: Tables) -> None:
        """Take back what :meth:`tables` gave."""
        super().restore(tables)
        self._codes = None

    def query(self, samples: Float32) -> Match | None:
        """The place whose block is the least likely by chance.

        None for a clip of fewer than `shortest` sub-fingerprints, or if no probe is stored.
        """
        differences = self.differences(samples)
        if len(differences) < self.parameters.shortest:
            return None
        codes = pack(differences)
        tracks, offsets = self._split(self._candidates(codes, differences))
        if not len(tracks):
            return None
        begin, end = self._starts[tracks], self._starts[tracks + 1]
        block = self.parameters.block
        errors, rows = block_errors(codes, self._stored(), begin + offsets, begin, end, block)
        ber = errors / (BITS * rows)
        deviations = _deviations(ber, rows)
        best = np.argmax(deviations)
        certain = _deviations(self.parameters.threshold, block)
        return Match(
            track_id=self.tracks[tracks[best]],
            offset_s=float(offsets[best] * self.parameters.hop / self.sample_rate),
            score=float(-log_ndtr(-deviations[best]) / np.log(10)),
            accepted=bool(ber[best] < self.parameters.threshold and deviations[best] >= certain),
            ber=float(ber[best]),
        )

    def differences(self, samples: Float32) -> Float32:
        """What the bits are the signs of: differences of band energies over frequency and time.

        Parameters
        ----------
        samples : float32 (n,)
            At :attr:`sample_rate`.

        Returns
        -------
        float32 (frames - 1, 32)
            E(n, m) - E(n, m+1) - (E(n-1, m) - E(n-1, m+1)) of bands m, lowest first. The smaller its magnitude, the
            less reliable is the bit.
        """
        p = self.parameters
        slopes = [np.zeros((0, BITS), np.float32)]
        for first in range(0, frame_count(len(samples), p.frame, p.hop), _SPECTRA):
            spectra = power_spectra(samples, p.frame, p.hop, first, first + _SPECTRA)
            energies = np.add.reduceat(spectra[:, : self._edges[-1]], self._edges[:-1], axis=1)
            slopes.append(energies[:, :-1] - energies[:, 1:])
        return np.diff(np.concatenate(slopes), axis=0)

    def _candidates(self, codes: UInt32, differences: Float32) -> Int64:
        """Lines on which some sub-fingerprint of the clip, or one with weak bits flipped, is stored."""
        weak_bits = self.parameters.weak_bits
        weakest = np.argsort(np.abs(differences), axis=1)[:, :weak_bits].astype(np.uint32)
        marked = np.flatnonzero(codes)
        step = max(1, _PROBES >> weak_bits)
        found = [np.zeros(0, np.int64)]
        for first in range(0, len(marked), step):
            frames = marked[first : first + step]
            probes = codes[frames, None]
            for bit in weakest[frames].T:
                probes = np.hstack([probes, probes ^ (np.uint32(1) << bit)[:, None]])
            found.append(np.unique(self._lines(probes.ravel(), np.repeat(frames, probes.shape[1]))))
        return np.unique(np.concatenate(found))

    def _stored(self) -> UInt32:
        """All stored sub-fingerprints in the order of time, read back from the postings."""
        if self._codes is None:
            codes = np.zeros(self._starts[-1], np.uint32)
            keys, positions = self._postings.items()
            codes[positions] = keys
            self._codes = codes
        return self._codes


def pack(differences: Float32) -> UInt32:
    """Sub-fingerprints uint32 (n,) of differences (n, 32): bit m is set where column m is positive."""
    octets = np.packbits(differences > 0, axis=1, bitorder="little")
    return octets.view("<u4")[:, 0].astype(np.uint32, copy=False)


def block_errors(
    clip: UInt32, codes: UInt32, at: Int64, begin: Int64, end: Int64, block: int
) -> tuple[Int64, Int64]:
    """Compare a clip's sub-fingerprints with the stored ones at many places.

    Parameters
    ----------
    clip : uint32 (m,)
    codes : uint32 (n,)
        The stored ones.
    at : int64 (k,)
        Places in `codes` to which the clip's first one is laid; may be negative.
    begin, end : int64 (k,)
        Range of `codes` to compare with: the track's. The clip may reach beyond it.
    block
        Sub-fingerprints that count at a place: those in a row that differ least.

    Returns
    -------
    errors : int64 (k,)
        Bits that differ, and half of those of two sub-fingerprints that are both 0.
    rows : int64 (k,)
        Sub-fingerprints compared: `block`, or all that there are.
    """
    errors, rows = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    _block_errors(frozen(clip), frozen(codes), at, begin, end, block, errors, rows)
    return errors, rows


@kernel
def _wrong(a, b):  # type: ignore[no-untyped-def]
    return np.int64(popcount(np.uint64(a ^ b))) if a | b else np.int64(BITS // 2)


@kernel
def _block_errors(clip, codes, at, begin, end, block, errors, rows):  # type: ignore[no-untyped-def]
    for i in range(len(at)):
        first, last = max(at[i], begin[i]), min(at[i] + len(clip), end[i])
        rows[i] = min(block, last - first)
        full = first + rows[i]
        wrong = np.int64(0)
        for row in range(first, full):
            wrong += _wrong(clip[row - at[i]], codes[row])
        errors[i] = wrong
        for row in range(full, last):  # the block moves on by one
            gone = row - rows[i]
            wrong += _wrong(clip[row - at[i]], codes[row])
            wrong -= _wrong(clip[gone - at[i]], codes[gone])
            errors[i] = min(errors[i], wrong)


def _deviations(ber: Any, rows: Any) -> NDArray[np.float64]:
    """How far below 0.5 a bit error rate lies, in standard deviations of unrelated blocks (section 4.3)."""
    return (1 - 2 * np.asarray(ber)) * np.sqrt(BITS * np.asarray(rows)) / _SPREAD
