"""Full disks and power cuts."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plain import ROWS, Plain, held, perform, plain_of, same, small_pieces
from prints import info_of, new_index, print_of
from processes import Child, Log, alone, scratch

from samaf.errors import StoreError
from samaf.index import Index


def full(log: Log, seed: int, count: int, _: float) -> None:
    """A disk that is full: readers read, writers say so in one line, and nothing is lost."""
    with scratch() as folder:
        disk = folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode:
            log.count("no file system can be mounted")
            return
        try:
            for number in range(count):
                rng = random.Random(f"{seed}/{number}")
                for path in disk.iterdir():
                    path.unlink()
                path = disk / "x.db"
                model = Plain()
                with new_index(path) as index:
                    for first in range(0, 60, 6):
                        index.add([(info_of(s), print_of(ROWS, s)) for s in range(first, first + 6)])
                        model.add(list(range(first, first + 6)))
                for lock in disk.glob("*-lock"):
                    lock.unlink()
                free = rng.choice([0, 4096, 40_000, 200_000])
                _fill(disk, free)
                log.write(part="full", number=number, seed=seed, free_bytes=free)
                ended = alone(lambda path=path, model=model: same(held(path), model))  # type: ignore[misc]
                if ended.fault or not ended.value:
                    log.fault(f"reading on a full disk: {ended.fault or 'a wrong state'}", trace=ended.trace)
                ended = alone(lambda path=path, model=model, rng=rng: _write_full(path, model, rng))  # type: ignore[misc]
                if ended.fault:
                    log.fault(f"writing on a full disk: {ended.fault}", trace=ended.trace, number=number)
                    continue
                for step in ended.value:
                    model.apply(step)
                (disk / "filler").unlink(missing_ok=True)
                ended = alone(lambda path=path, model=model: same(held(path), model))  # type: ignore[misc]
                if ended.fault or not ended.value:
                    log.fault(f"after a full disk: {ended.fault or 'a wrong state'}", trace=ended.trace)
                log.count("full disks")
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def _fill(disk: Path, free: int) -> None:
    with open(disk / "filler", "wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - free))


def _write_full(path: Path, model: Plain, rng: random.Random) -> list[dict[str, Any]]:
    """Try some changes; returns those that the disk had room for."""
    done = []
    try:
        with Index.open(path, readonly=False) as index:
            for k in range(6):
                step = model.step(rng, 1000 + 10 * k)
                if step["kind"] == "import":
                    continue  # its file does not fit the disk
                try:
                    perform(index, step, path.parent)
                except StoreError as error:
                    assert "disk full" in str(error), error
                else:
                    model.apply(step)
                    done.append(step)
    except StoreError as error:
        assert "disk full" in str(error), error
    return done


_CALL = re.compile(r"^(?:\[pid +)?(?:\d+\]? +)?(\w+)\((.*)\) += (-?\w+)")
_FD = re.compile(r"^(\d+)<([^>]*)>")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Write:
    """One step towards the disk: data, a new name, or a promise that what came before is there."""

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""
    at_once: bool = False


def power(log: Log, seed: int, count: int, _: float) -> None:
    """Power cuts: whatever of the unsynced writes of a change is there, the index opens, before it or after it."""
    if not shutil.which("strace"):
        log.count("no strace")
        return
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        with scratch() as folder:
            path = folder / "x.db"
            model, fresh = Plain(), 0
            with new_index(path) as index:
                for _ in range(rng.randint(1, 12)):
                    step = model.step(rng, fresh)
                    fresh += len(step.get("seeds", ()))
                    perform(index, step, folder)
                    model.apply(step)
            step = model.step(rng, fresh)
            after = model.copy()
            after.apply(step)
            before = path.read_bytes()
            log.write(part="power", number=number, seed=seed, step=step)
            writes = _recorded(path, step)
            for at in range(len(writes) + 1):
                for variant in range(3):
                    files = _cut({"x.db": before}, writes[:at], rng, variant)
                    copy = folder / "copy"
                    copy.mkdir()
                    for name, data in files.items():
                        (copy / name).write_bytes(data)
                    ended = alone(lambda copy=copy: _after_a_cut(copy / "x.db"))  # type: ignore[misc]
                    shutil.rmtree(copy)
                    context = {"number": number, "seed": seed, "step": step, "write": at, "variant": variant}
                    if ended.fault:
                        log.fault(f"after a power cut: {ended.fault}", trace=ended.trace, **context)
                    elif not any(same(plain_of(ended.value), state) for state in (model, after)):
                        log.fault("after a power cut: neither before nor after", **context)
                    log.count("power cuts")
            if not writes:
                log.fault("no writes were recorded", step=step)
            log.count(f"recorded changes: {step['kind']}")


def _after_a_cut(path: Path) -> dict[str, Any]:
    found = vars(held(path))
    with Index.open(path, readonly=False) as index:
        assert index.verify().ok
    return found


def _recorded(path: Path, step: dict[str, Any]) -> list[Write]:
    """What one change writes, in order."""
    trace, go = path.parent / "trace", path.parent / "go"

    def change_once() -> None:
        small_pieces()
        while not go.exists():
            time.sleep(0.002)
        with Index.open(path, readonly=False) as index:
            perform(index, step, path.parent)

    child = Child(lambda say: change_once())
    calls = "pwrite64,pwritev,write,writev,fdatasync,fsync,ftruncate,rename,openat,lseek"
    command = ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000000", "-o", str(trace), "-p", str(child.pid)]
    tracer = subprocess.Popen([*command, "-e", f"trace={calls}"], stderr=subprocess.DEVNULL)
    while "TracerPid:\t0" in Path(f"/proc/{child.pid}/status").read_text():
        time.sleep(0.002)
    go.touch()
    ended = child.end(60)
    assert not ended.fault, ended.trace
    tracer.wait()
    return list(_parsed(trace.read_text(), path))


def _parsed(trace: str, path: Path) -> Iterator[Write]:
    names = {str(path): "x.db", str(path) + ".new": "x.db.new"}
    places: dict[str, int] = {}  # of descriptors, for the next plain write
    synced: set[str] = set()  # descriptors whose writes are on the disk when they return
    for line in trace.splitlines():
        called = _CALL.match(line)
        if not called or called[3].startswith("-"):
            continue
        call, rest = called[1], called[2]
        if call == "openat":
            if "O_DSYNC" in rest or "O_SYNC" in rest:
                synced.add(line.rsplit("= ", 1)[1].split("<")[0].strip())
            else:
                synced.discard(line.rsplit("= ", 1)[1].split("<")[0].strip())
            continue
        if call == "rename":
            old, new = (bytes.fromhex(part.replace("\\x", "")).decode() for part in _BYTES.findall(rest))
            if old in names and new in names:
                yield Write("rename", names[old], names[new])
            continue
        fd = _FD.match(rest)
        # strace shows names as it shows data
        name = (
            fd and bytes.fromhex(fd[2].replace("\\x", "")).decode() if fd and "\\x" in fd[2] else fd and fd[2]
        )
        if not fd or not name:
            continue
        if call == "fsync" and name == str(path.parent):
            yield Write("sync", "")
        if name not in names:
            continue
        if call in ("fdatasync", "fsync"):
            yield Write("sync", names[name])
        elif call == "lseek":
            places[fd[1]] = int(called[3])
        elif call in ("pwrite64", "pwritev", "write", "writev"):
            data = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in _BYTES.findall(rest))
            offset = int(rest.rsplit(",", 1)[1]) if call.startswith("p") else places[fd[1]]
            places[fd[1]] = offset + len(data)
            yield Write("write", names[name], offset=offset, data=data, at_once=fd[1] in synced)
        elif call == "ftruncate":
            yield Write("size", names[name], offset=int(rest.rsplit(",", 1)[1]))


def _cut(files: dict[str, bytes], writes: list[Write], rng: random.Random, variant: int) -> dict[str, bytes]:
    """The files after a power cut: variant 0 has all writes, 1 only the synced ones, 2 some of the others as well."""
    out = {name: bytearray(data) for name, data in files.items()}
    for i, write in enumerate(writes):
        later = writes[i + 1 :]
        if write.kind == "rename":
            is_safe = any(w.kind == "sync" and w.path == "" for w in later)
        else:
            is_safe = write.at_once or any(w.kind == "sync" and w.path == write.path for w in later)
        if not (is_safe or variant == 0 or (variant == 2 and rng.random() < 0.5)):
            continue
        if write.kind == "write":
            data = out.setdefault(write.path, bytearray())
            data.extend(bytes(max(0, write.offset - len(data))))
            part = write.data
            if variant == 2 and not is_safe and len(part) > 512 and rng.random() < 0.3:
                part = part[: rng.randrange(len(part)) // 512 * 512]  # torn
            data[write.offset : write.offset + len(part)] = part
        elif write.kind == "rename":
            out[write.other] = out.pop(write.path)
    return {name: bytes(data) for name, data in out.items()}
