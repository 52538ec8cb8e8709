"""Systems whose hashes live in the engine's own index."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

import samaf
from baselines.base import Baseline, Float32, Match, Tables
from samaf import settings
from samaf.errors import AudioError
from samaf.fingerprint import Fingerprint
from samaf.formats import INDEX_SUFFIX
from samaf.index import Index, TrackInfo


class Indexed(Baseline):
    """An index in a temporary folder; saved, it is the index compacted.

    Tracks enter it together, with the next query or save.
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self._path = Path(tempfile.mkdtemp(prefix=f"{self.name}-bench-")) / f"library{INDEX_SUFFIX}"
        weakref.finalize(self, shutil.rmtree, self._path.parent, ignore_errors=True)
        self._waiting: list[tuple[TrackInfo, Fingerprint]] = []

    @abstractmethod
    def _encode(self, samples: Float32) -> Fingerprint:
        """Hashes of a track."""

    @abstractmethod
    def _index(self) -> Index:
        """The index at `_path`, made or opened at the first call."""

    @abstractmethod
    def _search(self, samples: Float32) -> list[samaf.Match]:
        """The best match of a clip, however unlikely."""

    def add(self, track_id: str, samples: Float32) -> None:
        """Hash a track."""
        self._waiting.append((TrackInfo(track_id, title=track_id), self._encode(samples)))
        self.tracks.append(track_id)

    def settle(self) -> None:
        """Put what has been hashed into the index."""
        index = self._index()
        if self._waiting:
            index.add(self._waiting)
            self._waiting = []

    def query(self, samples: Float32) -> Match | None:
        """The best match, however unlikely; accepted if ``samaf search`` would name it by default."""
        self.settle()
        try:
            matches = self._search(samples)
        except AudioError:  # shorter than a window, or without content
            return None
        if not matches:
            return None
        match = matches[0]
        return Match(
            track_id=match.title,
            offset_s=match.track_start_s - match.query_start_s * match.tempo * match.speed,
            score=match.log_odds,
            accepted=match.probability >= settings.MIN_PROBABILITY,
            speed=match.speed,
            tempo=match.tempo,
            pitch_cents=match.pitch_cents,
            ber=match.ber,
        )

    def tables(self) -> Tables:
        """The index file, as bytes."""
        self.settle()
        self._index().compact(shrink=True)
        return {"index": np.fromfile(self._path, np.uint8)}

    def restore(self, tables: Tables) -> None:
        """Put the index file back."""
        tables["index"].tofile(self._path)
