"""A library: an index together with the model it was made with. The way to add recordings and to identify clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import soxr
from numpy.typing import NDArray

from samaf import settings
from samaf.audio import SAMPLE_RATE
from samaf.encoder import Encoder
from samaf.errors import AudioError, MismatchError, ModelError, shown
from samaf.features import FRAMES_PER_SECOND
from samaf.fingerprint import Fingerprint, is_fingerprint_path
from samaf.index import Index
from samaf.ingest import Adding, AddReport, Outcome
from samaf.isolated import ANY_AUDIO, AudioBounds, IsolatedStream
from samaf.match import Matches
from samaf.places import default_db
from samaf.search import Searcher
from samaf.settings import check_hop, check_speed, processors
from samaf.verdict import Limits
from samaf.weights import DEFAULT_PATH, Weights

SPEED_STEP = 0.05
SPEED_CLIP_S = 120.0
"""Clips up to this long are tried at other speeds."""
SKETCH_CLIP_S = 15.0
"""As much of a clip, from its middle, tells at which speed it was played."""
SKETCH_ROWS = 16
"""About as many rows do."""
SKETCH_HOP_S = 0.4

StrPath = str | os.PathLike[str]


class Library:
    """An index and the model that it was made with.

    Parameters
    ----------
    path : path-like, optional
        The index; by default :func:`samaf.places.default_db`.
    writable : bool
        Open it for adding, and make it if it is missing.
    model : path-like, optional
        Weights file. An existing index finds the model that it was made with by itself, unless the file has moved.
    bits, hop_s : optional
        Shape of a new index (default 128 bits, one hash a second); an existing one keeps its own.

    Attributes
    ----------
    index : Index
    encoder : Encoder

    Raises
    ------
    StoreError
        The index is missing (and not `writable`), damaged, or locked by another writer (`LockedError`).
    MismatchError
        `model`, `bits` or `hop_s` contradict the index.
    ModelError
        The model cannot be found or read, or has no code of that many bits.
    ValueError
        `hop_s` is not a multiple of 0.01 s up to 10 s.

    Examples
    --------
    >>> with Library("music.samafdb", writable=True) as library:
    ...     report = library.add(["music/"])
    ...     library.search("clip.wav")[0].title
    'Gymnopédie No. 1'
    """

    def __init__(
        self,
        path: StrPath | None = None,
        *,
        writable: bool = False,
        model: StrPath | None = None,
        bits: int | None = None,
        hop_s: float | None = None,
    ) -> None:
        self.path = default_db() if path is None else Path(path)
        if hop_s is not None:
            check_hop(hop_s)
        if writable and not os.path.lexists(self.path):
            hop_s = settings.REFERENCE_HOP_S if hop_s is None else hop_s
            bits = settings.BITS if bits is None else bits
            self.encoder = Encoder(model, bits=bits, query_hop_s=_query_hop(hop_s))
            self.index = self._created(hop_s, model)
            return
        self.index = Index.open(self.path, readonly=not writable)
        try:
            self.index.check_fits(bits=bits, hop_s=hop_s)
            self.encoder = _encoder_of(self.index, model)
        except BaseException:
            self.index.close()
            raise

    def _created(self, hop_s: float, model: StrPath | None) -> Index:
        return Index.create(
            self.path,
            model_id=self.encoder.model_id,
            bits=self.encoder.bits,
            hop_s=hop_s,
            query_hop_s=self.encoder.query_hop_s,
            model_name=self.encoder.path.name,
            model_path="" if model is None else os.path.abspath(model),
        )

    @cached_property
    def searcher(self) -> Searcher:
        """What finds fingerprints in the index."""
        try:
            return Searcher(self.index, self.encoder.weights)
        except ModelError as error:
            raise ModelError(f"{shown(self.encoder.path)}: {error}") from None

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Library {os.fspath(self.path)!r}>"

    def add(
        self,
        paths: Iterable[StrPath] | StrPath,
        *,
        progress: Callable[[int, int, str], None] | None = None,
        outcome: Callable[[Outcome], None] | None = None,
        jobs: int | None = None,
        bounds: AudioBounds = ANY_AUDIO,
    ) -> AddReport:
        """Add files, folders with all that is in them, and fingerprint files.

        What is there already, with the same size and time, is skipped; a file with content that is there already is
        noted as another path of it, in place of those that are gone; a file that has changed takes its former content's
        place. Stored batch by batch: after a kill, the same call goes on where the last batch ended.

        Parameters
        ----------
        paths
            Files and folders.
        progress
            Called with (files done, files, path of the last one).
        outcome
            Called with each file's `Outcome`, as soon as that is certain to last.
        jobs
            Files encoded at once; by default as many as it may use processors.
        bounds
            What one file may take; a longer one fails.

        Returns
        -------
        AddReport

        Raises
        ------
        StoreError
            The index is open for reading only, or cannot be written, or the disk is full. What was stored before stays.
        """
        self.index.check_writable()
        places = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        return Adding(self.index, self.encoder, progress, outcome, jobs or processors(), bounds).run(places)

    def search(
        self,
        clip: StrPath | Fingerprint | NDArray[np.float32],
        *,
        min_probability: float = settings.MIN_PROBABILITY,
        prior: float = settings.PRIOR,
        max_evalue: float = settings.MAX_EVALUE,
        ber: float = settings.BER,
        top: int = settings.TOP,
        exhaustive: bool = False,
        speed: tuple[float, float] = settings.SPEED,
        without: Collection[int] = (),
        progress: Callable[[float, float], None] | None = None,
        bounds: AudioBounds = ANY_AUDIO,
    ) -> Matches:
        """Identify a clip.

        A clip of up to two minutes that nothing is sure to match as it is, is also tried as if it had been played
        faster or slower, in steps of 5 %, which its middle tells: hashes bear a change of speed of some 3 % by
        themselves.

        Parameters
        ----------
        clip
            An audio file, a fingerprint or its file, or float32 (n,) samples at 16 kHz.
        min_probability
            Least probability of a match; 0 always answers.
        prior
            Chance that the clip holds something of the library, before it is searched for; if it is longer than a
            minute, that each minute does.
        max_evalue
            Largest expected number of matches by chance that good in the whole library.
        ber
            Largest bit error rate of a match.
        top
            Matches per stretch of the clip.
        exhaustive
            Compare with every position instead of probing.
        speed
            Slowest and fastest speed to try; ``(1, 1)`` for none but the clip's own. Needs audio: a fingerprint
            is searched as it is.
        without
            Ids of tracks that count as not stored.
        progress
            Called with (seconds of the clip searched, seconds).
        bounds
            What the clip may take.

        Returns
        -------
        Matches
            A list of `Match`, best first; empty: unknown.

        Raises
        ------
        AudioError, FingerprintError
            The clip cannot be read, is shorter than 1 s or longer than the bounds say, or has no content.
        MismatchError
            The fingerprint does not fit the index.
        ValueError
            The samples are not one channel of floats, or a limit is out of its range.
        """
        check_speed(*speed)
        limits = Limits(min_probability=min_probability, prior=prior, max_evalue=max_evalue, ber=ber, top=top)
        name = shown(clip) if isinstance(clip, (str, os.PathLike)) else "clip"
        samples: list[NDArray[np.float32]] = []
        print_, warning = self._query(clip, name, samples, bounds)
        if not print_.valid.any():
            raise AudioError(f"{name}: is silent or steady noise throughout; give a clip with content")

        matches = self.searcher.search(
            print_,
            limits=limits,
            exhaustive=exhaustive,
            without=without,
            restored=_Restored(self.encoder, np.concatenate(samples), print_.hop_s, _speeds(*speed))
            if samples
            else None,
            progress=progress,
        )
        matches.warning = warning
        return matches

    def _query(
        self,
        clip: StrPath | Fingerprint | NDArray[np.float32],
        name: str,
        samples: list[NDArray[np.float32]],
        bounds: AudioBounds,
    ) -> tuple[Fingerprint, str]:
        """Fingerprint of a clip, and what is wrong with its file; the audio of a short one goes to `samples`."""
        if isinstance(clip, (str, os.PathLike)) and is_fingerprint_path(clip):
            clip = Fingerprint.load(clip)
        if isinstance(clip, Fingerprint):
            self.index.check_fits(model_id=clip.model_id)
            try:
                bounds.check_length(clip.duration_s)
            except AudioError as error:
                raise AudioError(f"{name}: {error}") from None
            return clip.truncated(min(clip.bits, self.index.header.bits)), ""
        blocks = IsolatedStream(clip, bounds) if isinstance(clip, (str, os.PathLike)) else iter([clip])
        print_ = self.encoder.encode_stream(
            _keeping(blocks, samples),
            hop_s=self.encoder.query_hop_s,
            confidence=True,
            overhang=True,
            name=name,
        )
        return print_, blocks.warning if isinstance(blocks, IsolatedStream) else ""


class _Restored:
    """A short clip as it was before it was played at another speed."""

    def __init__(
        self, encoder: Encoder, samples: NDArray[np.float32], hop_s: float, speeds: list[float]
    ) -> None:
        self.encoder, self.samples, self.hop_s, self.speeds = encoder, samples, hop_s, speeds

    def sketches(self) -> Iterator[tuple[float, Fingerprint]]:
        """See :class:`samaf.search.Restored`: the longer the clip, the fewer rows a second do."""
        n = min(len(self.samples), round(SKETCH_CLIP_S * SAMPLE_RATE))
        start = (len(self.samples) - n) // 2
        seconds = n / SAMPLE_RATE
        coarse = min(
            max(1, round(seconds / SKETCH_ROWS / self.hop_s)), max(1, round(SKETCH_HOP_S / self.hop_s))
        )
        return self.encoder.sketches(self.samples[start : start + n], self.speeds, hop_s=coarse * self.hop_s)

    def at(self, speed: float) -> Fingerprint:
        """See :class:`samaf.search.Restored`."""
        played = soxr.resample(self.samples, SAMPLE_RATE, SAMPLE_RATE * speed, quality="MQ")
        return self.encoder.encode_query(played, hop_s=self.hop_s)


def _keeping(
    blocks: Iterable[NDArray[np.float32]], kept: list[NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """Pass blocks on and keep them, as long as they are a short clip."""
    total = 0
    for block in blocks:
        total += np.size(block)
        if total <= SPEED_CLIP_S * SAMPLE_RATE:
            kept.append(block)
        else:
            kept.clear()
        yield block


def _speeds(slowest: float, fastest: float) -> list[float]:
    """Speeds to try beside 1."""
    down = range(1, int((1.0 - slowest) / SPEED_STEP + 1e-6) + 1)
    up = range(1, int((fastest - 1.0) / SPEED_STEP + 1e-6) + 1)
    return [1.0 - SPEED_STEP * k for k in down] + [1.0 + SPEED_STEP * k for k in up]


def _query_hop(hop_s: float) -> float:
    """Query hop for a reference hop: the usual one, or the largest below it that divides the reference hop."""
    frames = round(hop_s * FRAMES_PER_SECOND)
    usual = round(settings.QUERY_HOP_S * FRAMES_PER_SECOND)
    return next(k for k in range(usual, 0, -1) if frames % k == 0) / FRAMES_PER_SECOND


def _encoder_of(index: Index, model: StrPath | None) -> Encoder:
    """The encoder that an index was made with: from the file given, the one noted in it, or the one that ships."""
    header = index.header
    if model is not None:
        encoder = Encoder(model, bits=header.bits, query_hop_s=header.query_hop_s)
        index.check_fits(model_id=encoder.model_id)
        return encoder
    noted: list[StrPath] = [header.model_path] if header.model_path else []
    for path in [*noted, DEFAULT_PATH]:
        try:
            encoder = Encoder(path, bits=header.bits, query_hop_s=header.query_hop_s)
        except ModelError:
            continue
        if encoder.model_id == header.model_id:
            return encoder
    if header.model_path:
        raise ModelError(
            f"index {shown(index.path)} was made with the model {shown(header.model_path)}, which is not there any "
            "more; say where it is now with --model"
        )
    if not DEFAULT_PATH.exists():
        Weights.load(DEFAULT_PATH)  # says what is wrong with the installation
    raise MismatchError(
        f"index {shown(index.path)} was made with model {header.model_id[:12]}, which is not the one that ships with "
        "this samaf; give its weights with --model, or build the index anew"
    )
