"""What opening and searching a large index costs: pages touched, cold and warm, and time for the snapshot.

``python bench/index_scale.py --file /tmp/large.samaf`` makes an index of random hashes (1.1 GB) if there is none,
drops it from the page cache, and counts the page faults of a first search in a fresh process beside the pages of the
file that its probes use: their buckets, and the hashes that these list. Then it times what must not grow with the
file: taking the snapshot, here and of an index of 600 tracks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samaf import Fingerprint
from samaf.index import Index, Segment, TrackInfo, candidates
from samaf.index.probe import likely_flips
from samaf.index.segment import band_value

HASHES = 240  # of a track: four minutes
BATCH = 5000
MODEL = "5a" * 32
PROBES = 16


def made(path: Path, n_tracks: int) -> None:
    """Make an index of random hashes, compacted."""
    rng = np.random.default_rng(0)
    with Index.create(path, model_id=MODEL, bits=128, hop_s=1.0, query_hop_s=0.1) as index:
        for first in range(0, n_tracks, BATCH):
            batch = []
            for k in range(first, min(first + BATCH, n_tracks)):
                hashes = rng.integers(1, 2**64, (HASHES, 2), np.uint64)
                valid = np.ones(HASHES, bool)
                print_ = Fingerprint(
                    hashes=hashes, valid=valid, hop_s=1.0, bits=128, model_id=MODEL, duration_s=float(HASHES)
                )
                batch.append((TrackInfo(f"/music/{k}.flac", digest=f"{k:x}"), print_))
            index.add(batch)
            print(f"\r{first + len(batch):,} tracks", end="", file=sys.stderr, flush=True)
        index.compact()
    print(file=sys.stderr)


def once(path: Path) -> dict[str, float]:
    """One search in this process: candidates of 41 hashes, and the track that most of them point to."""
    queries = np.random.default_rng(1).integers(1, 2**64, (41, 2), np.uint64)

    def search() -> None:
        with index.snapshot() as snapshot:
            for part in snapshot.segments:
                candidates(part, queries, probes=PROBES)
            snapshot.track(snapshot.n_tracks // 2)

    def counted() -> tuple[int, int, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_minflt, usage.ru_majflt, time.perf_counter()

    # Whatever is compiled or imported on first use shall not be counted.
    index = Index.open(path.with_name("small.samafdb"))
    search()
    before = counted()
    index = Index.open(path)
    opened = counted()
    search()
    searched = counted()
    result = {
        "faults_to_open": opened[0] + opened[1] - before[0] - before[1],
        "faults_of_first_search": searched[0] + searched[1] - opened[0] - opened[1],
        "from_disk": searched[1] - before[1],
        "open_and_search_s": round(searched[2] - before[2], 4),
    }
    with index.snapshot() as snapshot:
        result["pages_that_probes_use"] = sum(pages_used(part, queries) for part in snapshot.segments)
    for name, of in (
        ("snapshot_us", index),
        ("small_snapshot_us", Index.open(path.with_name("small.samafdb"))),
    ):
        times = []
        for _ in range(500):
            start = time.perf_counter()
            with of.snapshot():
                times.append(time.perf_counter() - start)
        result[name] = round(1e6 * statistics.median(times), 1)
    return result


def pages_used(part: Segment, queries: NDArray[np.uint64]) -> int:
    """Count the pages that a search must look at: bucket bounds, postings, and the hashes that they name."""
    masks = np.empty(PROBES, np.int64)
    n_masks = likely_flips(np.ones(128, np.float32), 0, part.width_bits, masks)
    pages, rows = 0, []
    for table in part.tables:
        values = [band_value(queries, i, table.first_bit, table.width_bits) for i in range(len(queries))]
        buckets = (np.array(values)[:, None] ^ masks[:n_masks]).ravel()
        low, high = table.offsets[buckets].astype(np.int64), table.offsets[buckets + 1].astype(np.int64)
        pages += len(np.unique(np.concatenate([buckets, buckets + 1]) * 4 // 4096))
        places = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
        pages += len(np.unique(places * 4 // 4096))
        rows.append(table.postings[places])
    return pages + len(np.unique(np.concatenate(rows).astype(np.int64) * 16 // 4096)) if rows else 0


def main() -> None:
    """Measure, and print a line for the cold file and one for the warm one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=110_000)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps(once(args.file)))
        return
    small = args.file.with_name("small.samafdb")
    for path, n_tracks in ((args.file, args.tracks), (small, 600)):
        if not path.exists():
            made(path, n_tracks)
    size = args.file.stat().st_size
    print(f"{size / 1e6:,.0f} MB, {size // 4096:,} pages")
    for name in ("cold", "warm"):
        if name == "cold":
            fd = os.open(args.file, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        done = subprocess.run(
            [sys.executable, __file__, "--file", str(args.file), "--once"],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"{name}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
