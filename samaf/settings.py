"""What holds where nobody says otherwise, and the bounds of what may be said.

Imports nothing heavy, so that the command line knows it at once.
"""

from __future__ import annotations

import os

BITS = 128
"""Bits of a hash."""
REFERENCE_HOP_S = 1.0
"""Seconds from hash to hash in an index."""
QUERY_HOP_S = 0.1
"""Seconds from hash to hash in a query."""
LONGEST_HOP_S = 10.0

MIN_PROBABILITY = 0.9
"""Least probability of a match."""
PRIOR = 0.5
"""Chance that a clip holds something of the library, before it is searched for."""
BER = 1.0
"""Largest bit error rate of a match: any."""
MAX_EVALUE = float("inf")
"""Largest expected number of matches by chance: any."""
TOP = 5
"""Matches for a stretch of a query."""
SPEED = (0.9, 1.1)
"""Slowest and fastest speed that a short clip is tried at."""


def processors() -> int:
    """How many processors this process may use, and so how many jobs it does at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_hop(hop_s: float) -> None:
    """Refuse a hop that is not a whole number of frames of 10 ms, or is too long, with a `ValueError`."""
    frames = hop_s * 100.0
    if not (0 < hop_s <= LONGEST_HOP_S and abs(frames - round(frames)) < 1e-6 and round(frames)):
        raise ValueError(f"a hop of {hop_s:g} s: must be a multiple of 0.01 s, up to {LONGEST_HOP_S:g} s")


def check_speed(slowest: float, fastest: float) -> None:
    """Refuse a range of speeds that does not lie around 1, or is too wide, with a `ValueError`."""
    if not 0.5 <= slowest <= 1.0 <= fastest <= 2.0:
        raise ValueError(
            f"speeds {slowest:g} to {fastest:g}: the slowest must be from 0.5 to 1, the fastest from 1 to 2"
        )


def parse_speed(text: str) -> tuple[float, float]:
    """Read a range of speeds, LOW:HIGH, around 1; what is none is a `ValueError`."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        value = (float(low), float(high))
    except ValueError:
        raise ValueError(f"{text!r} is not LOW:HIGH") from None
    check_speed(*value)
    return value
