"""The index: fingerprints of a library in one LMDB file, found by band and probe.

Read in this order: `state` and `tracks` (what is stored), `segment` (the hashes and their tables), `probe`
(candidates of a query). What reads: `pages` (the file's format), `pins` (who reads which state), `mapped` (the file
in memory), `snapshot`, `reader`. What writes: `locks` (who may), `structure` and `environment` (LMDB), `merge` and
`change` (how the index grows), `store` (the `Index` class). Beside them: `verify`, `repair`, `transfer`.
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
