"""A campaign of faults against the index: kills, damage, full disks, power cuts, threads, processes of several users.

Each part draws what it does from a seed and logs it as JSON lines, so that a failure can be run again. It says how many
faults it found and ends with status 1 if there were any::

    python tests/campaign kills --seed 3 --count 500 --log kills.jsonl
    python tests/campaign damage --count 300
    python tests/campaign power --count 30
    python tests/campaign full --count 20
    python tests/campaign kept --count 10
    python tests/campaign threads --minutes 10
    python tests/campaign users --minutes 10

What runs against the index runs in forked processes of its own, each with 20 s to end. `full` and `users` need the
superuser, `kills` and `power` the program strace for some of their cases.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent.parent))  # what other tests use as well

from company import kept, threads, users
from damage import damage
from disks import full, power
from kills import kills
from processes import Log

PARTS = {
    "kept": kept,
    "kills": kills,
    "damage": damage,
    "full": full,
    "power": power,
    "threads": threads,
    "users": users,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    log = Log(args.log)
    start = time.monotonic()
    PARTS[args.part](log, args.seed, args.count, args.minutes)
    log.write(part=args.part, counts=log.counts)
    for what, n in sorted(log.counts.items()):
        print(f"{n:8d} {what}")
    print(f"{log.faults} faults in {time.monotonic() - start:.0f} s")
    return 1 if log.faults else 0


if __name__ == "__main__":
    sys.exit(main())
