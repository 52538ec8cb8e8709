"""Attributes by search: a clip is of the class of the recording that a system finds for it, its own being left out.

Any system can do that, also one whose fingerprints are no vectors. The recordings are split as
:mod:`bench.attributes` splits them; those of four parts are the library, from those of the fifth clips are cut. A clip
for which a system has no candidate is told wrongly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from bench.attributes import Floats, Task, folds
from bench.corpus import Recording
from bench.protocol import Entry, at_rate
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError

CLIPS, CLIP_S = 4, 5.0
"""Of each recording."""


def retrieved(
    task: Task,
    entry: Entry,
    tracks: Sequence[Recording],
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Floats:
    """Share of each recording's clips for which the best candidate is of its class.

    Parameters
    ----------
    task
        An excerpt for each recording, n of them.
    entry
        The system.
    tracks
        All recordings that the task's ids may name.

    Returns
    -------
    scores : (n,)
    """
    by_id = {track.id: track for track in tracks}
    names = [name for name, _ in task.excerpts]
    part, known = folds(task, seed), dict(zip(names, task.classes, strict=True))
    scores = np.zeros(len(names))
    for number, fold in enumerate(parts := np.unique(part)):
        system = entry.open()
        for k in np.flatnonzero(part != fold):
            samples = by_id[names[k]].read()
            system.add(names[k], at_rate(samples, system.sample_rate))
        for k in np.flatnonzero(part == fold):
            answers = [
                system.query(at_rate(clip, system.sample_rate)) for clip in _clips(by_id[names[k]], seed)
            ]
            right = [answer is not None and known[answer.track_id] == task.classes[k] for answer in answers]
            scores[k] = np.mean(right) if right else 0.0
        progress(number + 1, len(parts))
    return scores


def _clips(track: Recording, seed: int) -> list[np.ndarray]:
    """Clips of a recording, evenly spread; the whole of a shorter one."""
    try:
        samples = track.read()
    except AudioError:
        return []
    n = min(len(samples), round(CLIP_S * SAMPLE_RATE))
    first = np.random.default_rng([seed, zlib.crc32(track.id.encode())]).random()
    starts = ((first + np.arange(CLIPS)) / CLIPS * (len(samples) - n)).astype(int)
    return [samples[start : start + n] for start in starts]
