"""The index: fingerprints of a library in one LMDB file, found by band and probe.

Read in this order: `store` (the `Index` class), `state` and `tracks` (what is stored), `segment` (the hashes
and their tables), `probe` (candidates of a query), `merge` and `change` (how it grows), `environment` and
`locks` (LMDB).
"""

from __future__ import annotations

from samaf.index.probe import Candidates, candidates
from samaf.index.segment import BandTable, Segment
from samaf.index.snapshot import IndexStats, Snapshot
from samaf.index.state import IndexHeader
from samaf.index.store import Index
from samaf.index.tracks import Alias, Track, TrackInfo
from samaf.index.transfer import ImportReport
from samaf.index.verify import VerifyReport

__all__ = [
    "Alias",
    "BandTable",
    "Candidates",
    "ImportReport",
    "Index",
    "IndexHeader",
    "IndexStats",
    "Segment",
    "Snapshot",
    "Track",
    "TrackInfo",
    "VerifyReport",
    "candidates",
]
