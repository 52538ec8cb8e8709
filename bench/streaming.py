"""What a live stream costs: its share of one core, how long a block takes, and its memory over an hour.

Feeds generated music to `Encoder.stream`, block by block as a sound card gives it, though as fast as it is taken. Then
encodes the same samples at once and compares: exits with 1 if a single bit differs::

    python bench/streaming.py
    python bench/streaming.py --hops 0.1 --minutes 10 --model mine.npz
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout without installation

import numpy as np
import psutil
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE
from samaf.demo import PIECES
from samaf.encoder import Encoder
from samaf.fingerprint import Fingerprint
from samaf.settings import QUERY_HOP_S, REFERENCE_HOP_S
from samaf.stream import Rows

Float32 = NDArray[np.float32]

SILENCE_S = 5.0


def programme() -> Float32:
    """Some minutes of music, and silence."""
    pieces = [piece.play().astype(np.float32) for piece in PIECES]
    return np.concatenate([*pieces, np.zeros(round(SILENCE_S * SAMPLE_RATE), np.float32)])


def blocks(samples: Float32, size: int, total: int) -> Iterator[Float32]:
    """`total` samples in blocks of `size`, the same ones again and again."""
    whole = np.concatenate([samples, samples[:size]])
    starts = (at % len(samples) for at in range(0, total, size))
    return (whole[at : at + size] for at in starts)


class Digest:
    """Tells whether rows are equal without keeping them, so that the memory is that of the stream alone."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._hashers = [hashlib.sha256() for _ in range(3)]

    def add(self, rows: Rows | Fingerprint) -> None:
        """Take the next rows."""
        self.n_rows += len(rows)
        for hasher, array in zip(self._hashers, (rows.hashes, rows.valid, rows.confidence), strict=True):
            hasher.update(np.ascontiguousarray(array).tobytes())

    def hex(self) -> list[str]:
        """Digests of hashes, of what is valid, and of confidence."""
        return [hasher.hexdigest() for hasher in self._hashers]


def measure(encoder: Encoder, samples: Float32, hop_s: float, block_s: float, minutes: float) -> bool:
    """Stream, print a line, and tell whether the rows are those of the whole."""
    size, total = round(block_s * SAMPLE_RATE), round(60 * minutes * SAMPLE_RATE)
    process = psutil.Process()
    stream, digest = encoder.stream(hop_s=hop_s, confidence=True), Digest()
    busy_s, slowest_s, early_bytes = 0.0, 0.0, 0
    for block in blocks(samples, size, total):
        began, began_s = time.perf_counter(), time.process_time()
        rows = stream.feed(block)
        busy_s += time.process_time() - began_s
        slowest_s = max(slowest_s, time.perf_counter() - began)
        digest.add(rows)
        if not early_bytes and stream.n_samples >= total / 10:
            early_bytes = process.memory_info().rss
    grown_bytes = process.memory_info().rss - early_bytes
    digest.add(stream.close())
    whole = Digest()
    repeated = np.tile(samples, -(-stream.n_samples // len(samples)))[: stream.n_samples]
    whole.add(encoder.encode(repeated, hop_s=hop_s, confidence=True))
    equal = digest.hex() == whole.hex()
    print(
        f"{hop_s:6g}{digest.n_rows:10,}{100 * busy_s / stream.duration_s:11.2f}{1e3 * busy_s / digest.n_rows:11.2f}"
        f"{1e3 * slowest_s:13.1f}{early_bytes / 1e6:8.1f}{grown_bytes / 1e6:+14.2f}{'yes' if equal else 'NO':>7}"
    )
    return equal


def main() -> int:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a weights file (default: the model that ships)")
    parser.add_argument("--hops", type=float, nargs="+", default=[REFERENCE_HOP_S, QUERY_HOP_S], metavar="S")
    parser.add_argument("--block", type=float, default=0.02, metavar="S", help="seconds of a block (0.02)")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="X", help="audio to stream (60)")
    options = parser.parse_args()
    encoder, samples = Encoder(options.model), programme()
    print(f"{options.minutes:g} minutes in blocks of {1e3 * options.block:g} ms, one core")
    print("hop, s    hashes  % of core  ms a hash  slowest, ms      MB  from 1/10 on  equal")
    equal = [measure(encoder, samples, hop_s, options.block, options.minutes) for hop_s in options.hops]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
