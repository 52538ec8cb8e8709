"""Spoiled clips kept on disk, each made once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.corpus import Materials
from bench.degrade import Condition, apply
from samaf.audio import SAMPLE_RATE

RECIPE = 1
"""To be raised with every change of what an effect or `apply` does."""


class ClipCache:
    """A folder of spoiled clips, each under the digest of all that shapes it.

    The files are FLAC of 16 bits, which carries checksums: a damaged one is noticed and made anew. Several processes
    may share a folder.

    Parameters
    ----------
    folder
        Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def clip(
        self,
        clean: NDArray[np.float32],
        before: NDArray[np.float32],
        condition: Condition,
        materials: Materials,
        seed: Sequence[int],
    ) -> Path:
        """The file of what :func:`bench.degrade.apply` gives with a generator of this seed; made if it is not there.

        Raises
        ------
        AudioError
            As for :func:`bench.degrade.apply`.
        """
        shape = [
            RECIPE,
            [(step.word, step.value) for step in condition.steps],
            list(seed),
            materials.digest if condition.draws else "",
            _digest(clean),
            _digest(before) if condition.run_in_s else "",
        ]
        key = hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:24]
        path = self.folder / f"{condition.name}-{key}.flac"
        if not _is_whole(path, condition.clip_samples(len(clean))):
            samples = apply(clean, before, condition, materials, np.random.default_rng(seed))
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                new = Path(scratch) / path.name
                soundfile.write(new, samples, SAMPLE_RATE, subtype="PCM_16")
                new.replace(path)
        return path


def _digest(samples: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples, np.float32)).hexdigest()


def _is_whole(path: Path, n: int) -> bool:
    """Whether a clip is there, undamaged and `n` samples long."""
    try:
        return len(soundfile.read(path, dtype="int16")[0]) == n
    except soundfile.LibsndfileError:
        return False
