"""What Prometheus may ask for, summed over the workers.

To be imported after `PROMETHEUS_MULTIPROC_DIR` is set, where there are several processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from samaf.index.snapshot import IndexStats

REQUESTS = Counter("samaf_requests", "Requests, by route, method and status.", ["route", "method", "status"])
SECONDS = Histogram(
    "samaf_request_seconds",
    "Seconds from a request's headers to the end of its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
SEARCHES = Counter("samaf_searches", "Clips that were searched for, by what came of it.", ["answer"])


class _Measured(Collector):
    """What is the same whichever worker is asked."""

    def __init__(self, stats: IndexStats | None, n_taken: int) -> None:
        self._stats, self._n_taken = stats, n_taken

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("samaf_requests_in_progress", "Requests worked on.", value=self._n_taken)
        if self._stats is not None:
            for name, what, value in (
                ("samaf_index_tracks", "Recordings in the index.", self._stats.n_tracks),
                ("samaf_index_seconds", "Seconds of audio in the index.", self._stats.duration_s),
                ("samaf_index_hashes", "Hashes in the index.", self._stats.n_hashes),
                ("samaf_index_bytes", "Bytes of the index's file.", self._stats.file_bytes),
            ):
                yield GaugeMetricFamily(name, what, value=value)


def exposition(stats: IndexStats | None, n_taken: int) -> bytes:
    """All of it, in Prometheus' text format; without `stats` while the index is being opened."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(_Measured(stats, n_taken))
    return generate_latest(registry)
