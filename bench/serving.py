"""What `samaf serve` bears: requests a second beside the engine alone, how long they take, and whether memory grows.

Searches for noisy clips of a library, first by the engine alone in as many processes as the service has workers, then
by clients of the service, and then by the same clients while another adds and removes recordings all the time::

    python bench/serving.py --db music.samafdb --data ~/Music
    python bench/serving.py --db music.samafdb --data ~/Music --seconds 300 --clients 32 --workers 2

The index is made of the data if it is not there. Each answer is compared with the engine's own. Exits with 1 if one
differs, or if the service answers with anything but 200, 429 and 503.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout without installation

import numpy as np
import psutil
import soundfile

from samaf import Library, read_audio
from samaf.demo import PIECES
from samaf.processes import CONTEXT, follow_parent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.queues import Queue

CLIP_S = 5.0
SNR_DB = 5.0
UNKNOWN = 0.25
"""Share of the clips that the library does not hold."""
LONGEST_ALONE_S = 60.0
"""That the engine alone is timed for."""
TOKEN = "bench-serving-write-token"


@dataclass
class Load:
    """What came of the requests of one run."""

    seconds: float
    times_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    changes: int = 0
    early_bytes: int = 0
    late_bytes: int = 0

    def line(self, name: str, alone: float) -> str:
        """A row of the table."""
        rate = len(self.times_s) / self.seconds
        p50, p99, most = (1e3 * np.quantile(self.times_s or [0.0], q) for q in (0.5, 0.99, 1.0))
        others = {status: n for status, n in self.statuses.items() if status != 200}
        grown = self.late_bytes - self.early_bytes
        return (
            f"{name:14}{rate:12.1f}{rate / alone:11.0%}{p50:9.0f}{p99:9.0f}{most:9.0f}{self.wrong:7}{self.changes:9}"
            f"{self.early_bytes / 1e6:9.0f}{grown / 1e6:+9.1f}  {others or ''}"
        )

    @property
    def is_clean(self) -> bool:
        """Whether all answers are right or documented refusals."""
        return not self.wrong and set(self.statuses) <= {200, 429, 503}


def make_clips(library: Library, folder: Path, count: int) -> list[tuple[Path, str | None]]:
    """Noisy clips as files, and what the engine answers to each: the path of the best match."""
    rng, clips = np.random.default_rng(0), []
    tracks = list(library.index.tracks())
    n_unknown = round(UNKNOWN * count)
    for k in range(count):
        if k < n_unknown:
            piece = PIECES[k % len(PIECES)].play().astype(np.float32)
            start = rng.integers(0, len(piece) - round(16000 * CLIP_S))
            samples = piece[start : start + round(16000 * CLIP_S)]
        else:
            track = tracks[rng.integers(len(tracks))]
            start_s = rng.uniform(0.0, max(0.0, track.duration_s - CLIP_S))
            samples = read_audio(track.path, start_s=start_s, end_s=start_s + CLIP_S)
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-SNR_DB / 20)
        samples = samples + level * rng.standard_normal(len(samples)).astype(np.float32)
        path = folder / f"{k}.wav"
        soundfile.write(path, 0.5 * samples / max(1e-9, np.abs(samples).max()), 16000)
        found = library.search(path)
        clips.append((path, found[0].path if found else None))
    return clips


def engine_alone(db: Path, paths: list[Path], seconds: float, results: Queue[int]) -> None:
    """One process of the engine: how many clips it answers."""
    follow_parent()
    with Library(db) as library:
        library.search(paths[0])
        results.put(0)  # ready
        n, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            library.search(paths[n % len(paths)])
            n += 1
        results.put(n)


def rate_alone(db: Path, paths: list[Path], seconds: float, processes: int) -> float:
    """Clips a second of the engine in so many processes."""
    results = CONTEXT.Queue()
    started = [
        CONTEXT.Process(target=engine_alone, args=(db, paths[k:] + paths[:k], seconds, results))
        for k in range(processes)
    ]
    for process in started:
        process.start()
    total = sum(results.get() for _ in range(2 * processes))
    for process in started:
        process.join()
    return total / seconds


@contextmanager
def serving(db: Path, folder: Path, workers: int, clients: int) -> Iterator[tuple[int, int]]:
    """A service of the index: its port and its process."""
    tokens = folder / "tokens"
    tokens.write_text(f"write {TOKEN}\n")
    command = [
        sys.executable,
        "-m",
        "samaf",
        "serve",
        "--db",
        str(db),
        "--port",
        "0",
        "--tokens",
        str(tokens),
    ]
    command += ["--workers", str(workers), "--max-requests", str(2 * clients)]
    command += ["--max-requests-per-client", str(2 * clients)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stderr=log, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
    try:
        while (found := re.search(r"serving .*:(\d+) \(", (folder / "log").read_text())) is None:
            if process.poll() is not None:
                sys.exit(f"the service ended: {(folder / 'log').read_text()}")
            time.sleep(0.2)
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def memory(pid: int) -> int:
    """Bytes that a service's processes hold for themselves; those that decode come and go."""
    top, total = psutil.Process(pid), 0
    for one in (top, *top.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_full_info().uss
    return total


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    """One request."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/octet-stream"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def search_all_the_time(
    port: int, clips: list[tuple[Path, str | None]], seed: int, until: float, load: Load
) -> None:
    """One client."""
    sent = [(path.read_bytes(), expected) for path, expected in clips]
    random.Random(seed).shuffle(sent)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    n = 0
    while time.monotonic() < until:
        body, expected = sent[n % len(sent)]
        n += 1
        began = time.perf_counter()
        try:
            status, answer = ask(connection, "POST", "/v1/search", body)
        except (OSError, http.client.HTTPException):
            load.statuses[0] += 1
            connection.close()
            continue
        load.statuses[status] += 1
        if status == 200:
            load.times_s.append(time.perf_counter() - began)
            found = json.loads(answer)["matches"]
            load.wrong += (found[0]["path"] if found else None) != expected
        elif status in (429, 503):
            time.sleep(1.0)


def change_all_the_time(port: int, sounds: list[bytes], until: float, load: Load) -> None:
    """Add recordings and remove them again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    n = 0
    while time.monotonic() < until:
        status, answer = ask(connection, "POST", f"/v1/tracks?name=added-{n}.flac", sounds[n % len(sounds)])
        load.statuses[200 if status == 201 else status] += 1
        if status in (200, 201):
            status, _ = ask(connection, "DELETE", f"/v1/tracks/{json.loads(answer)['track_id']}")
            load.statuses[200 if status == 204 else status] += 1
            load.changes += 2
        n += 1


def run(
    port: int,
    pid: int,
    clips: list[tuple[Path, str | None]],
    clients: int,
    seconds: float,
    sounds: list[bytes],
) -> Load:
    """Let the clients ask for some time; with sounds, while a writer adds and removes them."""
    load, began = Load(seconds), time.monotonic()
    until = began + seconds
    threads = [
        threading.Thread(target=search_all_the_time, args=(port, clips, k, until, load))
        for k in range(clients)
    ]
    if sounds:
        threads.append(threading.Thread(target=change_all_the_time, args=(port, sounds, until, load)))
    for thread in threads:
        thread.start()
    time.sleep(seconds / 4)
    load.early_bytes = memory(pid)
    time.sleep(max(0.0, until - 0.1 - time.monotonic()))
    load.late_bytes = memory(pid)
    for thread in threads:
        thread.join()
    return load


def sounds_to_add(folder: Path) -> list[bytes]:
    """Recordings that no library holds: bursts of noise, each of its own."""
    rng, made = np.random.default_rng(1), []
    for k in range(8):
        envelope = np.repeat(rng.exponential(size=400), 1200).astype(np.float32)
        path = folder / f"add-{k}.flac"
        soundfile.write(path, 0.05 * envelope.clip(0, 5) * rng.standard_normal(len(envelope)), 16000)
        made.append(path.read_bytes())
    return made


def main() -> int:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db", type=Path, required=True, help="the index")
    parser.add_argument("--data", type=Path, help="what it is made of, if it is not there")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run (30)")
    parser.add_argument("--clients", type=int, default=32, help="at once (32)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="of the service (one a processor)"
    )
    parser.add_argument("--clips", type=int, default=64, help="that are asked for again and again (64)")
    options = parser.parse_args()
    if not options.db.exists():
        if options.data is None:
            parser.error(f"{options.db} is not there; name what to make it of with --data")
        with Library(options.db, writable=True) as library:
            library.add([options.data])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with Library(options.db) as library:
            stats = library.index.stats()
            clips = make_clips(library, folder, options.clips)
        paths = [path for path, _ in clips]
        print(
            f"{stats.n_tracks} recordings, {stats.duration_s / 3600:.1f} h; clips of {CLIP_S:g} s at {SNR_DB:g} dB, "
            f"{sum(found is None for _, found in clips)} of {len(clips)} unknown; {options.workers} processes, "
            f"{options.clients} clients, {options.seconds:g} s a run"
        )
        alone = rate_alone(options.db, paths, min(options.seconds, LONGEST_ALONE_S), options.workers)
        print(
            "               requests/s  of engine  p50, ms  p99, ms  max, ms  wrong  changes  USS, MB  growth"
        )
        print(f"{'engine alone':14}{alone:12.1f}{1:11.0%}")
        with serving(options.db, folder, options.workers, options.clients) as (port, pid):
            quiet = run(port, pid, clips, options.clients, options.seconds, [])
            print(quiet.line("searches", alone), flush=True)
            written = run(port, pid, clips, options.clients, options.seconds, sounds_to_add(folder))
            print(written.line("with a writer", alone))
    return 0 if quiet.is_clean and written.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
