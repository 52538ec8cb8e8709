"""Processes killed at any moment, some at a chosen system call."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from plain import Plain, held, perform, plain_of, same, small_pieces
from prints import new_index
from processes import TIMEOUT_S, Child, Log, alone, scratch

from samaf.index import Index

CALLS = {"pwrite64": 120, "pwritev": 40, "fdatasync": 40, "fsync": 6, "rename": 4, "unlink": 12, "fcntl": 300}
"""System calls at which a process is killed, and within how many of them."""


def work(path: Path, model: Plain, seed: int, fresh: int, say: Callable[[Any], None]) -> None:
    """Change an index for ever; says what it is about to do, and what is done."""
    small_pieces()
    rng = random.Random(seed)
    while os.getppid() != 1 and not os.path.exists(path.parent / "go"):
        time.sleep(0.002)
    with Index.open(path, readonly=False) as index:
        while True:
            step = model.step(rng, fresh)
            fresh += len(step.get("seeds", ()))
            say({"begin": step})
            perform(index, step, path.parent)
            model.apply(step)
            say({"done": step})


def kills(log: Log, seed: int, count: int, _: float) -> None:
    """Processes killed at any moment: no commit is lost, none is half there, the next opening works."""
    strace = shutil.which("strace")
    done = 0
    while done < count:
        with scratch() as folder:
            path = folder / "x.db"
            new_index(path).close()
            model, fresh = Plain(), 0
            for _ in range(min(25, count - done)):
                rng = random.Random(f"{seed}/{done}")
                call = rng.choice(sorted(CALLS)) if strace and rng.random() < 0.6 else ""
                when = rng.randint(1, CALLS[call]) if call else 0
                delay = 0.0 if call else rng.expovariate(1 / 0.05)
                log.write(part="kills", number=done, seed=seed, call=call, when=when, delay_s=delay)
                model, fresh, ok = _kill_once(log, path, model, fresh, rng.random(), call, when, delay)
                done += 1
                log.count("kills")
                log.count(f"kills at {call or 'a moment'}")
                if not ok:
                    break


def _kill_once(
    log: Log, path: Path, model: Plain, fresh: int, seed: float, call: str, when: int, delay: float
) -> tuple[Plain, int, bool]:
    go = path.parent / "go"
    start = model.copy()
    child = Child(lambda say: work(path, start, int(seed * 1e9), fresh, say))
    tracer = None
    if call:
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(child.pid), "-e", f"trace={call}"]
        tracer = subprocess.Popen(
            [*command, "-e", f"inject={call}:signal=KILL:when={when}"], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while time.monotonic() < until and tracer.poll() is None:
            status = Path(f"/proc/{child.pid}/status").read_text()
            if "TracerPid:\t0" not in status:
                break
            time.sleep(0.002)
    go.touch()
    pending: dict[str, Any] | None = None
    steps, trace = 0, ""

    def take(record: Any) -> None:
        nonlocal pending, steps, trace, fresh
        if "begin" in record:
            pending = record["begin"]
            fresh += len(pending.get("seeds", ()))
        elif "done" in record:
            model.apply(record["done"])
            pending = None
            steps += 1
        else:
            trace = record.get("trace", "")

    for record in child.records(time.monotonic() + (TIMEOUT_S if call else 0.05 + delay)):
        take(record)
        if steps >= 60:
            break
    with suppress(ProcessLookupError):
        child.kill()
    for record in child.records(time.monotonic() + 5):  # what it said before the kill
        take(record)
    os.waitpid(child.pid, 0)
    if tracer:
        tracer.wait()
    go.unlink()
    log.count("changes before kills", steps)
    if trace:
        log.fault("traceback in the writer", trace=trace)
        return model, fresh, False
    ended = alone(lambda: vars(held(path)))
    context = {"call": call, "when": when, "pending": pending}
    if ended.fault:
        log.fault(f"after a kill: {ended.fault}", trace=ended.trace, **context)
        return model, fresh, False
    found = plain_of(ended.value)
    after = model.copy()
    if pending:
        after.apply(pending)
    if same(found, after):
        model = after
    elif not same(found, model):
        missing = model.tracks.items() - found.tracks.items()
        log.fault("a lost commit" if missing else "a half change", missing=sorted(missing), **context)
        return model, fresh, False

    def open_again() -> list[str]:
        with Index.open(path, readonly=False):
            pass
        return sorted(p.name for p in path.parent.iterdir())

    ended = alone(open_again)
    left = {"x.db", "other.db", "other.db-lock", "other.db.writer", "other.db.new", "exported"}
    left |= {"other.db.new-lock"}
    unfinished = {name for name in ended.value if name.startswith(".") and name.endswith(".part")}  # exports
    if ended.fault or set(ended.value) - left - unfinished:
        log.fault(f"opening after a kill: {ended.fault or ended.value}", trace=ended.trace, **context)
        return model, fresh, False
    for name in path.parent.glob("other.db*"):
        name.unlink()
    model.next_track = max([model.next_track, *(k + 1 for k in found.tracks)])
    return model, fresh, True
