"""Vectors of recordings in FAISS, searched by sequences of them.

Each vector of a clip has its nearest stored ones; each of these tells where the clip would begin in its track. The
score of such a place is the mean inner product of all vectors of the clip with those that they meet there (Chang et
al., ICASSP 2021, section 3.4), and the best place is the answer. Vectors have length 1, or are zero where there is no
content.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

NEAREST = 20
"""Stored vectors that are looked at for each of a clip's."""

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

faiss.omp_set_num_threads(1)


@dataclass(frozen=True)
class Place:
    """Where a clip fits best.

    Attributes
    ----------
    track : int
    row : float
        The track's row that the clip's first row meets, to a fraction; before its beginning, if negative.
    score : float
        Mean inner product at the nearest whole row.
    runner_up : float
        The best score in any other track; no less than it, where only one track is near.
    """

    track: int
    row: float
    score: float
    runner_up: float

    @property
    def lead(self) -> float:
        """See :func:`lead`."""
        return lead(self.score, self.runner_up)


def lead(score: float, runner_up: float) -> float:
    """What a score gains of all that the best of other tracks lacks to 1: the same measure for clips of any length."""
    return (score - runner_up) / max(1.0 - runner_up, 1e-6)


class Vectors:
    """Vectors of tracks, and a flat index of their inner products.

    Parameters
    ----------
    values
        Length of a vector.
    """

    def __init__(self, values: int) -> None:
        self.stored = np.empty((0, values), np.float32)
        self.ends = np.empty(0, np.int64)
        self._waiting: list[Float32] = []
        self._index = faiss.IndexFlatIP(values)

    def add(self, vectors: Float32) -> None:
        """The vectors of the next track, (n, values)."""
        self._waiting.append(np.ascontiguousarray(vectors, np.float32))

    def settle(self) -> None:
        """Index what has been added."""
        if self._waiting:
            begin = int(self.ends[-1]) if len(self.ends) else 0
            ends = begin + np.cumsum([len(part) for part in self._waiting], dtype=np.int64)
            added = np.concatenate(self._waiting)
            self._waiting = []
            self.ends = np.concatenate([self.ends, ends])
            self.stored = np.concatenate([self.stored, added])
            self._index.add(added)

    def restore(self, stored: Float32, ends: Int64) -> None:
        """Take back what :attr:`stored` and :attr:`ends` were."""
        self.stored, self.ends = np.ascontiguousarray(stored, np.float32), ends
        self._index.reset()
        self._index.add(self.stored)

    def search(self, clip: Float32) -> Place | None:
        """The best place of a clip's vectors (m, values); None where nothing stored has anything to do with it."""
        self.settle()
        has_content = np.flatnonzero(clip.any(axis=1))
        if not len(has_content) or not len(self.stored):
            return None
        alike, rows = self._index.search(
            np.ascontiguousarray(clip[has_content]), min(NEAREST, len(self.stored))
        )
        near = alike != 0.0  # what is not zero has content
        begins = (rows - has_content[:, None])[near]
        tracks = np.searchsorted(self.ends, rows[near], side="right")
        if not len(begins):
            return None
        tracks, begins = np.unique(np.stack([tracks, begins]), axis=1)
        scores = self._scores(clip, tracks, begins)
        best = int(scores.argmax())
        track, begin = int(tracks[best]), int(begins[best])
        before, score, after = self._scores(clip, np.full(3, track), begin + np.arange(-1, 2)).tolist()
        bend = before - 2.0 * score + after  # a parabola through the three has its top between the rows
        beside = float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
        first = int(self.ends[track - 1]) if track else 0
        others = scores[tracks != track]
        # A row's inner product with what was not looked at is at most that with the last that was.
        runner_up = float(others.max()) if len(others) else float(alike[:, -1].sum()) / len(clip)
        return Place(track, begin - first + beside, score, runner_up)

    def _scores(self, clip: Float32, tracks: Int64, begins: Int64) -> NDArray[np.float64]:
        """Mean inner product at each place; rows beyond the track's ends count as zero."""
        firsts = np.where(tracks > 0, self.ends[tracks - 1], 0)[:, None]
        meet = begins[:, None] + np.arange(len(clip))
        inside = (meet >= firsts) & (meet < self.ends[tracks][:, None])
        products = np.einsum("pmv,mv->pm", self.stored[np.where(inside, meet, 0)], clip)
        return np.mean(np.where(inside, products, 0.0), axis=1, dtype=np.float64)
