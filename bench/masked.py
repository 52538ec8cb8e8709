"""Libraries that are asked for clips while the clips' own recordings count as not stored.

One library holds the real recordings; others hold drawn tracks besides (:mod:`bench.drawn`), so that what a large
library does can be seen without one. All of them share their encodings of a clip.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.corpus import Recording
from bench.drawn import HashModel
from samaf import Fingerprint, Library
from samaf.atomic import atomic_write
from samaf.errors import AudioError
from samaf.index import Index, TrackInfo

if TYPE_CHECKING:
    from samaf import Match

REAL = "real"
"""Label of the library of real recordings alone."""
HASHES_OF_TRACK = 240
"""Hashes of a drawn track: four minutes."""

_BATCH = 500  # drawn tracks at a time
_KNOWN = 64  # encodings kept: those of one clip at all speeds are far fewer

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def label_of(drawn: int) -> str:
    """Name of the library with so many drawn tracks: ``real``, ``real+10000``."""
    return f"{REAL}+{drawn}" if drawn else REAL


# -- making ------------------------------------------------------------------------------------------------------------


def make_real(
    path: Path,
    recordings: Sequence[Recording],
    *,
    bits: int,
    model: str | None,
    jobs: int,
    progress: Progress,
    note: Callable[[str], None],
) -> None:
    """Encode recordings into an index; what a killed run has stored already stays."""
    with Library(path, writable=True, bits=bits, model=model) as library:
        report = library.add(
            [os.path.abspath(recording.path) for recording in recordings],
            progress=lambda done, total, _: progress("library", done, total),
            jobs=jobs,
        )
    for name, reason in report.failures:
        note(f"not in the library: {name}: {reason}")


def make_drawn(path: Path, real: Path, n_tracks: int, *, progress: Progress) -> None:
    """Add drawn tracks to a copy of the real library, always the same; what a killed run has drawn already stays."""
    if not path.exists():
        with open(real, "rb") as source, atomic_write(path) as copy:
            shutil.copyfileobj(source, copy)
    with Index.open(path) as index, Index.open(real) as recordings:
        done = index.stats().n_tracks - recordings.stats().n_tracks
        if done >= n_tracks:
            return
        model = HashModel.of(list(_stored(recordings)))
    with Index.open(path, readonly=False) as index:
        header = index.header
        for first in range(done, n_tracks, _BATCH):
            size = min(_BATCH, n_tracks - first)
            drawn = model.draw(np.random.default_rng(first), size, HASHES_OF_TRACK)
            index.add(
                [
                    (
                        TrackInfo(f"/drawn/{first + k}", digest=f"drawn{first + k}"),
                        Fingerprint(
                            hashes=hashes,
                            valid=np.ones(len(hashes), bool),
                            hop_s=header.hop_s,
                            bits=header.bits,
                            model_id=header.model_id,
                            duration_s=(len(hashes) - 1) * header.hop_s + 1.0,
                        ),
                    )
                    for k, hashes in enumerate(drawn)
                ]
            )
            progress(f"{n_tracks:,} drawn tracks", first + size, n_tracks)
        index.compact()


def _stored(index: Index) -> Iterator[NDArray[np.uint64]]:
    """The valid hashes of each track."""
    with index.snapshot() as snapshot:
        for part in snapshot.segments:
            for k, track_id in enumerate(part.track_ids.tolist()):
                if track_id not in snapshot.removed:
                    hashes = part.hashes[part.starts[k] : part.starts[k + 1]]
                    yield hashes[hashes.any(axis=1)].copy()


# -- asking ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The best answer to a clip; all None where there is none.

    Attributes
    ----------
    score, evalue
        Of the rarest match, as samaf gives them.
    log_odds
        Of the likeliest match.
    named
        Id of its recording, or path of the drawn track.
    """

    score: float | None = None
    evalue: float | None = None
    log_odds: float | None = None
    named: str | None = None


class Masked:
    """A library in which some tracks can be hidden from a search.

    Parameters
    ----------
    library
        The library.
    recordings
        Those in it, so that they can be named by their ids.
    """

    def __init__(self, library: Library, recordings: Iterable[Recording]) -> None:
        self.library = library
        self.track_ids: dict[str, int] = {}
        for recording in recordings:
            track = library.index.find_path(os.path.abspath(recording.path))
            if track is not None:
                self.track_ids[recording.id] = track.track_id
        self._names: Mapping[int, str] = {track_id: name for name, track_id in self.track_ids.items()}

    def ask(self, samples: Float32, hidden: Collection[str]) -> Answer:
        """The best answer to a clip, however poor, but never a hidden recording.

        What samaf refuses to search, for it is silent or steady noise, has no answer.
        """
        without = {self.track_ids[name] for name in hidden if name in self.track_ids}
        try:
            found: list[Match] = self.library.search(samples, min_probability=0.0, without=without)
        except AudioError:
            return Answer()
        if not found:
            return Answer()
        best, rarest = found[0], max(found, key=lambda match: match.score)
        name = self._names.get(best.track_id, best.path)
        return Answer(float(rarest.score), float(rarest.evalue), float(best.log_odds), name)


class SharedEncoder:
    """An encoder that remembers what it has encoded last, for libraries that are asked for the same clip in turn.

    Parameters
    ----------
    encoder
        Does the work, and whatever is not here.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._known: dict[str, Fingerprint] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_query(self, audio: Float32, **options: Any) -> Fingerprint:
        """As :meth:`samaf.encoder.Encoder.encode_query`, of samples."""
        return self._remembered("encode_query", audio, audio, options)

    def encode_stream(self, blocks: Iterable[Float32], **options: Any) -> Fingerprint:
        """As :meth:`samaf.encoder.Encoder.encode_stream`."""
        parts = list(blocks)
        samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
        return self._remembered("encode_stream", samples, parts, options)

    def _remembered(self, how: str, samples: Float32, audio: Any, options: dict[str, Any]) -> Fingerprint:
        content = hashlib.sha256(np.ascontiguousarray(samples)).hexdigest()
        key = f"{how} {sorted(options.items())} {content}"
        if key not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = getattr(self._encoder, how)(audio, **options)
        return self._known[key]


def opened(
    paths: Mapping[str, Path], recordings: Sequence[Recording], model: str | None
) -> dict[str, Masked]:
    """Libraries by label, from their files; they share one encoder."""
    found: dict[str, Masked] = {}
    shared: Any = None
    for label, path in paths.items():
        library = Library(path, model=model)
        shared = shared or SharedEncoder(library.encoder)
        library.encoder = shared
        found[label] = Masked(library, recordings)
    return found
