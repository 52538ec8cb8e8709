"""Recordings made ready for training: one after the other at 16 bits, in files that are mapped.

What is made of a recording is the caller's: one version of it, or several of equal length.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.errors import ModelError

Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]
Progress = Callable[[int, int, str], None]
"""Called with (files prepared, files, note)."""
Make = Callable[[Path], tuple[Sequence[Int16], str]]
"""The versions of a recording, each (n,); empty ones, with the reason, where it is of no use."""


def key_of(paths: Sequence[Path], settings: Any) -> str:
    """Tells one set of recordings from another, by their names and sizes, and what is made of them."""
    listing = [[os.path.abspath(path), path.stat().st_size] for path in paths]
    return hashlib.sha256(json.dumps([listing, *settings]).encode()).hexdigest()[:16]


def prepare(
    paths: Sequence[Path],
    make: Make,
    versions: Sequence[str],
    done: Path,
    *,
    least: int,
    jobs: int,
    progress: Progress,
) -> tuple[list[Int16], Int64]:
    """All recordings, or what an earlier call left in the folder `done`.

    Parameters
    ----------
    versions
        What the versions that `make` gives are called.
    least
        Recordings that are needed.

    Returns
    -------
    samples : list of int16 (n,)
        One mapped array for each version.
    starts : int64 (r + 1,)
        Where each recording starts, and the length of all.

    Raises
    ------
    ModelError
        If fewer can be used.
    """
    if not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="part-", dir=done.parent) as part:
            lengths = _write(paths, make, [Path(part) / f"{name}.s16" for name in versions], jobs, progress)
            if len(lengths) < least:
                raise ModelError(
                    f"{len(lengths)} of the recordings can be used, and {least} are needed at least: give more files"
                )
            (Path(part) / "lengths.json").write_text(json.dumps(lengths))
            with suppress(OSError):  # another training has prepared the same meanwhile
                os.rename(part, done)
                os.mkdir(part)
    lengths = json.loads((done / "lengths.json").read_text())
    samples = [np.memmap(done / f"{name}.s16", np.int16, "r") for name in versions]
    return samples, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _write(
    paths: Sequence[Path], make: Make, files: Sequence[Path], jobs: int, progress: Progress
) -> list[int]:
    """Prepare recordings into files; gives the length of each that could be used."""
    lengths = []
    for file in files:
        file.touch()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for number, (versions, note) in enumerate(pool.map(make, paths), start=1):
            progress(number, len(paths), note)
            if len(versions[0]):
                lengths.append(len(versions[0]))
                for file, version in zip(files, versions, strict=True):
                    with open(file, "ab") as out:
                        out.write(version.tobytes())
    return lengths
