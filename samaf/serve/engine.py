"""A worker's library: opened and warmed aside while the worker answers already, and then searched by a few threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE
from samaf.errors import SamafError, shown
from samaf.index import TrackInfo
from samaf.isolated import prepare
from samaf.library import Library
from samaf.serve.options import Options
from samaf.serve.problems import busy

THREADS = 3
"""Searches that a worker runs side by side: a long clip does not keep the short ones waiting."""

T = TypeVar("T")


class Engine:
    """The library of one worker.

    Parameters
    ----------
    options
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._library: Library | None = None
        self._pool = ThreadPoolExecutor(THREADS, "samaf-search")
        self._aside = ThreadPoolExecutor(1, "samaf-aside")

    def start(self, ready: Callable[[], None], failed: Callable[[SamafError], None]) -> None:
        """Open the library in a thread of its own, and say what came of it."""

        def load() -> None:
            try:
                self.load()
            except SamafError as error:
                failed(error)
            except Exception as error:  # a mistake of ours
                failed(SamafError(f"a worker cannot start ({type(error).__name__}: {shown(str(error))})"))
            else:
                ready()

        threading.Thread(target=load, name="samaf-load", daemon=True).start()

    def load(self) -> None:
        """Open the library, and search once, so that the first request finds all kernels loaded.

        Raises
        ------
        SamafError
        """
        library = Library(self._options.db, model=self._options.model)
        warm(library, self._options.folder)
        self._library = library

    def close(self) -> None:
        """Give back the library, after the searches in progress."""
        for pool in (self._pool, self._aside):
            pool.shutdown(cancel_futures=True)
        if self._library is not None:
            self._library.close()

    @property
    def is_ready(self) -> bool:
        """Whether it can be searched."""
        return self._library is not None

    @property
    def library(self) -> Library:
        """The library.

        Raises
        ------
        ProblemError
            503: it is being opened.
        """
        if self._library is None:
            raise busy(503, "the index is being opened; try again in some seconds", 2)
        return self._library

    async def run(self, work: Callable[[], T], *, aside: bool = False) -> T:
        """Work that takes time, in one of the threads; `aside` from those that search."""
        return await asyncio.get_running_loop().run_in_executor(self._aside if aside else self._pool, work)


def warm(library: Library, folder: Path) -> None:
    """Search for a sound, as it is and at other speeds, in the library, and where it is all there is.

    That loads what the first job would wait for: a decoder's process, compiled kernels, and the library's pages.
    """
    prepare()
    sound = _sound(8.0)
    library.search(sound)
    encoder, header = library.encoder, library.index.header
    with TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "warm.samafdb"
        with Library(path, writable=True, model=encoder.path, bits=header.bits, hop_s=header.hop_s) as other:
            other.index.add([(TrackInfo("sound"), encoder.encode(sound, hop_s=header.hop_s))])
            other.search(sound[SAMPLE_RATE : 6 * SAMPLE_RATE])


def _sound(seconds: float) -> NDArray[np.float32]:
    """Short tones of changing pitch: the same at every start."""
    rng = np.random.default_rng(0)
    n = round(0.2 * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    pitches = rng.uniform(200.0, 3000.0, round(seconds / 0.2))
    notes = [np.sin(2 * np.pi * pitch * t) * np.exp(-8 * t) for pitch in pitches]
    return np.concatenate(notes).astype(np.float32)
