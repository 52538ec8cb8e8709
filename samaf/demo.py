"""The demonstration: a small generated library, clips of it spoiled in the ways of the world, and their names.

Everything is generated from fixed seeds, so that it shows the whole way without any download: audio files -> index ->
clips -> answers -> one picture.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from samaf.audio import SAMPLE_RATE
from samaf.errors import StoreError, shown
from samaf.formats import FORMER_INDEX_SUFFIX, INDEX_SUFFIX
from samaf.library import Library
from samaf.picture import can_draw, draw
from samaf.places import make_folder
from samaf.synthesiser import (
    BELL,
    BRASS,
    FLUTE,
    MAJOR,
    MARIMBA,
    MINOR,
    ORGAN,
    PENTATONIC,
    PIANO,
    PLUCK,
    REED,
    STRINGS,
    WHOLE,
    Piece,
    Samples,
    echo,
)

if TYPE_CHECKING:
    from samaf.match import Match

CLIP_S = 6.0
NEAR_S = 0.5
"""An answer is right if it names the track and a place this near to the true one."""
PICTURED = "telephone, noisy"

RESULTS = "demo.json"
"""File of a demo's folder; also the sign that the folder is one, and may be written anew."""

INDEX, PICTURE = f"index{INDEX_SUFFIX}", "demo.png"
"""Its other files."""


# -- the library ------------------------------------------------------------------------------------------------------


PIECES = (
    Piece("Piano Etude", PIANO, PIANO, MINOR, 130.8, 4.0),
    Piece("Organ Chorale", ORGAN, ORGAN, MAJOR, 110.0, 1.6),
    Piece("Bell Tower", BELL, BELL, WHOLE, 164.8, 2.4),
    Piece("Marimba Run", MARIMBA, PLUCK, PENTATONIC, 146.8, 6.0, 0.5),
    Piece("String Night", STRINGS, STRINGS, MINOR, 98.0, 1.8, 0.0, 28.0),
    Piece("Brass March", BRASS, BRASS, MAJOR, 116.5, 3.6, 0.8, 22.0),
    Piece("Flute and Harp", FLUTE, PLUCK, PENTATONIC, 174.6, 3.0),
    Piece("Clarinet Blues", REED, PIANO, MINOR, 123.5, 3.2, 0.6),
    Piece("Banjo Breakdown", PLUCK, PLUCK, MAJOR, 196.0, 7.0, 0.4, 20.0),
    Piece("Slow Waltz", STRINGS, PIANO, MAJOR, 138.6, 2.2, 0.0, 30.0),
    Piece("Steel and Wood", BELL, MARIMBA, MINOR, 103.8, 4.4, 0.9),
    Piece("Late Train", REED, STRINGS, WHOLE, 92.5, 2.8, 1.2, 27.0),
)
"""The library of the demo."""

STRANGER = Piece("Nobody Knows", BRASS, PLUCK, PENTATONIC, 155.6, 3.4, 0.7)
"""A piece that is not in the library."""


# -- the ways of the world --------------------------------------------------------------------------------------------


def _noisy(x: Samples, snr_db: float, pink: bool = False) -> Samples:
    noise = np.random.default_rng(len(x)).standard_normal(len(x))
    if pink:
        hz = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
        noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.maximum(hz, 50)), len(x))
    return x + noise * np.sqrt(np.mean(x**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)


def _band(x: Samples, low_hz: float, high_hz: float) -> Samples:
    hz = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
    gain = 1 / np.sqrt((1 + (low_hz / np.maximum(hz, 1)) ** 8) * (1 + (hz / high_hz) ** 8))
    return np.fft.irfft(np.fft.rfft(x) * gain, len(x))


def _clipped(x: Samples, times: float) -> Samples:
    return np.clip(x * times, -0.5, 0.5)


def _room(x: Samples) -> Samples:
    rng = np.random.default_rng(1)
    t = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    response = 0.12 * rng.standard_normal(len(t)) * np.exp(-t * 12)
    response[0] = 1
    n = 1 << (len(x) + len(t)).bit_length()
    return np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(response, n), n)[: len(x)]


@dataclass(frozen=True)
class Clip:
    """A piece of a piece, and what happened to it."""

    piece: Piece
    start_s: float
    spoiled: str
    spoil: Callable[[Samples], Samples]

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.spoiled.replace(',', '').replace(' ', '-')}.wav"

    def cut(self, played: Samples) -> Samples:
        """Cut it out of the piece and spoil it, at a level that does not overflow."""
        start = round(self.start_s * SAMPLE_RATE)
        spoiled = self.spoil(played[start : start + round(CLIP_S * SAMPLE_RATE)])
        return spoiled / max(1.0, float(np.abs(spoiled).max()) / 0.95)


CLIPS = (
    Clip(PIECES[0], 4.37, "as it is", lambda x: x),
    Clip(PIECES[1], 11.83, "noise, 10 dB", lambda x: _noisy(x, 10)),
    Clip(PIECES[4], 17.29, "noise, 3 dB", lambda x: _noisy(x, 3, pink=True)),
    Clip(PIECES[5], 8.61, "low-pass, 2 kHz", lambda x: _band(x, 1, 2000)),
    Clip(PIECES[7], 13.46, PICTURED, lambda x: _noisy(_band(_clipped(x, 2), 300, 3400), 12)),
    Clip(PIECES[8], 2.74, "echo", lambda x: echo(echo(x, 0.11, 0.6), 0.23, 0.4)),
    Clip(PIECES[9], 20.18, "in a hall", _room),
    Clip(PIECES[10], 6.92, "overdriven", lambda x: _clipped(x, 6)),
    Clip(PIECES[11], 15.55, "very quiet", lambda x: 0.01 * x),
    Clip(STRANGER, 9.33, "not in the library", lambda x: x),
)


# -- the way through it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What the search said about a clip, beside the truth.

    Attributes
    ----------
    clip, spoiled : str
        File and what was done to it.
    truth : str or None
        Title of the track it was cut from; None: not in the library.
    truth_start_s : float or None
        Where it was cut.
    title, track_start_s, ber, evalue, score
        The best match; None: unknown.
    right : bool
    elapsed_s : float
    """

    clip: str
    spoiled: str
    truth: str | None
    truth_start_s: float | None
    title: str | None
    track_start_s: float | None
    ber: float | None
    evalue: float | None
    score: float | None
    right: bool
    elapsed_s: float


def run_demo(
    folder: Path,
    *,
    model: str | os.PathLike[str] | None = None,
    answered: Callable[[Answer], None] = lambda answer: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Answer]:
    """Generate, index, spoil, identify, and draw.

    Parameters
    ----------
    folder
        Gets ``music/``, ``clips/``, ``index.samafdb``, ``demo.png`` and ``demo.json``; missing, empty, or an earlier
        demo's.
    model
        Weights file; by default the model that ships.
    answered, note
        Called with each answer, and with what is being done.

    Returns
    -------
    list of Answer

    Raises
    ------
    StoreError
        The folder holds something else, or cannot be written.
    """
    _prepare(folder)
    note(f"generating {len(PIECES)} recordings")
    played = {piece: piece.play() for piece in (*PIECES, STRANGER)}
    for piece in PIECES:
        _write(folder / "music" / f"{piece.title}.flac", played[piece])
    note("fingerprinting them")
    answers = []
    pictured: tuple[Clip, Match] | None = None
    with Library(folder / INDEX, writable=True, model=model) as library:
        report = library.add(folder / "music")
        if report.failures:
            raise StoreError("; ".join(f"{shown(path)}: {reason}" for path, reason in report.failures))
        note("identifying clips")
        for clip in CLIPS:
            path = folder / "clips" / clip.name
            _write(path, clip.cut(played[clip.piece]))
            start = time.perf_counter()
            found = library.search(path, top=1)
            match = found[0] if found else None
            answers.append(_judged(clip, path, match, time.perf_counter() - start))
            answered(answers[-1])
            if match is not None and (clip.spoiled == PICTURED or pictured is None):
                pictured = clip, match
        if pictured is not None and can_draw():
            note("drawing")
            clip, match = pictured
            draw(library.encoder, folder / "clips" / clip.name, match, folder / PICTURE, label=clip.spoiled)
    (folder / RESULTS).write_text(json.dumps([asdict(answer) for answer in answers], indent=1))
    return answers


def _prepare(folder: Path) -> None:
    """Make the folder ready; one that is not a demo's is left alone."""
    try:
        make_folder(folder)
        if any(folder.iterdir()) and not (folder / RESULTS).exists():
            raise StoreError(f"{shown(folder)}: holds other things; name a new folder with --out")
        (folder / RESULTS).write_text("[]")
        for name in ("music", "clips"):
            (folder / name).mkdir(exist_ok=True)
        former = f"index{FORMER_INDEX_SUFFIX}"
        for name in (INDEX, former, f"{former}-lock", PICTURE):
            with suppress(FileNotFoundError):
                (folder / name).unlink()
    except OSError as error:
        raise StoreError(
            f"{shown(folder)}: cannot be written ({error.strerror}); name another folder with --out"
        ) from None


def _write(path: Path, samples: Samples) -> None:
    try:
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise StoreError(f"{shown(path)}: cannot be written ({error.error_string})") from None


def _judged(clip: Clip, path: Path, match: Match | None, elapsed_s: float) -> Answer:
    in_library = clip.piece is not STRANGER
    if match is None:
        right = not in_library
    else:
        place = match.track_start_s - match.query_start_s * match.speed * match.tempo
        right = in_library and match.title == clip.piece.title and abs(place - clip.start_s) <= NEAR_S
    return Answer(
        clip=os.fspath(path),
        spoiled=clip.spoiled,
        truth=clip.piece.title if in_library else None,
        truth_start_s=clip.start_s if in_library else None,
        title=match.title if match else None,
        track_start_s=round(place, 3) if match else None,
        ber=match.ber if match else None,
        evalue=match.evalue if match else None,
        score=match.score if match else None,
        right=right,
        elapsed_s=round(elapsed_s, 4),
    )
