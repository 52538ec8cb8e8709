"""samaf itself behind the contract, so that the bench measures it in the same way as the others."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baselines.base import Baseline, Float32, Match, Tables
from samaf import settings
from samaf.audio import SAMPLE_RATE
from samaf.encoder import Encoder
from samaf.errors import AudioError
from samaf.fingerprint import Fingerprint
from samaf.formats import INDEX_SUFFIX
from samaf.index import TrackInfo
from samaf.library import Library


@dataclass(frozen=True)
class Parameters:
    """Settings of the engine.

    Attributes
    ----------
    bits
        Length of a hash: 64, 128 or 256.
    hop_s
        Seconds from one stored hash to the next.
    exhaustive
        Compare with every position instead of probing the inverted tables.
    model
        A weights file; empty: the one that ships.
    """

    bits: int = settings.BITS
    hop_s: float = settings.REFERENCE_HOP_S
    exhaustive: bool = False
    model: str = ""


class Samaf(Baseline):
    """The engine with an index in a temporary folder; saved, it is the index compacted."""

    name = "samaf"
    sample_rate = SAMPLE_RATE
    Parameters = Parameters

    def __init__(self, parameters: Parameters | None = None) -> None:
        super().__init__(parameters)
        self._path = Path(tempfile.mkdtemp(prefix="samaf-bench-")) / f"library{INDEX_SUFFIX}"
        weakref.finalize(self, shutil.rmtree, self._path.parent, ignore_errors=True)
        self._library: Library | None = None
        self._waiting: list[tuple[TrackInfo, Fingerprint]] = []
        self._encoder = Encoder(self.parameters.model or None, bits=self.parameters.bits)

    def add(self, track_id: str, samples: Float32) -> None:
        """Encode a track; it enters the index with the next query or save."""
        print_ = self._encoder.encode(samples, hop_s=self.parameters.hop_s)
        self._waiting.append((TrackInfo(track_id, title=track_id), print_))
        self.tracks.append(track_id)

    def settle(self) -> None:
        """Put what has been encoded into the index."""
        self._opened()

    def query(self, samples: Float32) -> Match | None:
        """The best match, however unlikely; accepted if ``samaf search`` would name it by default."""
        try:
            matches = self._opened().search(
                samples,
                min_probability=0.0,
                top=1,
                exhaustive=self.parameters.exhaustive,
            )
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
        library = self._opened()
        library.index.compact(shrink=True)
        return {"index": np.fromfile(self._path, np.uint8)}

    def restore(self, tables: Tables) -> None:
        """Put the index file back."""
        tables["index"].tofile(self._path)

    def _opened(self) -> Library:
        """The library with all tracks in its index."""
        if self._library is None:
            self._library = Library(
                self._path,
                writable=True,
                model=self.parameters.model or None,
                bits=self.parameters.bits,
                hop_s=self.parameters.hop_s,
            )
        if self._waiting:
            self._library.index.add(self._waiting)
            self._waiting = []
        return self._library
