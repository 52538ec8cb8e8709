"""The demonstration: a small generated library, clips of it spoiled in the ways of the world, and their names.

Everything is generated from fixed seeds with numpy alone, so that it shows the whole way without any download: audio
files -> index -> clips -> answers -> one picture.
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
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE
from samaf.errors import StoreError, shown
from samaf.library import Library
from samaf.picture import draw
from samaf.places import make_folder

if TYPE_CHECKING:
    from samaf.match import Match

CLIP_S = 6.0
NEAR_S = 0.5
"""An answer is right if it names the track and a place this near to the true one."""
PICTURED = "telephone, noisy"

RESULTS = "demo.json"
"""File of a demo's folder; also the sign that the folder is one, and may be written anew."""

Samples = NDArray[np.float64]


# -- the library ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Voice:
    """A sound with a pitch: strengths of its partials, how they are tuned, how a note begins and dies away."""

    partials: tuple[float, ...]
    stretch: float = 0.0  # 0: harmonic; bells and bars have partials further apart
    attack_s: float = 0.01
    decay_s: float = 0.5
    vibrato: float = 0.0

    def note(self, pitch_hz: float, length_s: float, rng: np.random.Generator) -> Samples:
        """One note, with phases of its own."""
        t = np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE
        envelope = np.minimum(t / self.attack_s, 1) * np.exp(-t / self.decay_s)
        envelope *= np.minimum((length_s - t) / 0.02, 1)
        wobble = self.vibrato * np.sin(2 * np.pi * 5.5 * t) / 5.5
        out = np.zeros(len(t))
        for k, strength in enumerate(self.partials, start=1):
            hz = pitch_hz * k ** (1 + self.stretch)
            if hz < 0.47 * SAMPLE_RATE:
                fading = np.exp(-t * 0.6 * (k - 1) / self.decay_s / 4)
                out += strength * fading * np.sin(2 * np.pi * hz * (t + wobble) + rng.uniform(0, 2 * np.pi))
        return envelope * out


PIANO = Voice((1, 0.6, 0.4, 0.25, 0.2, 0.12, 0.08, 0.05), 0.004, 0.004, 0.7)
ORGAN = Voice((1, 0.8, 0.1, 0.6, 0.05, 0.3, 0.02, 0.4), 0.0, 0.03, 6.0)
BELL = Voice((0.6, 1.0, 0.5, 0.7, 0.3, 0.4, 0.2), 0.17, 0.002, 1.4)
MARIMBA = Voice((1, 0.1, 0.05, 0.4), 0.0, 0.003, 0.18)
STRINGS = Voice(tuple(1 / k for k in range(1, 16)), 0.0, 0.12, 4.0, 0.006)
BRASS = Voice((0.7, 1, 0.95, 0.8, 0.6, 0.45, 0.3, 0.22, 0.15, 0.1), 0.0, 0.05, 2.0, 0.003)
FLUTE = Voice((1, 0.25, 0.08, 0.03), 0.0, 0.06, 3.0, 0.005)
REED = Voice((1, 0.02, 0.75, 0.03, 0.5, 0.02, 0.35, 0.02, 0.2), 0.0, 0.04, 3.0, 0.003)
PLUCK = Voice(tuple(0.85**k for k in range(12)), 0.0, 0.003, 0.35)
BASS = Voice((1, 0.7, 0.4, 0.2, 0.1), 0.0, 0.01, 0.8)

MAJOR, MINOR, PENTATONIC, WHOLE = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 4, 7, 9),
    (0, 2, 4, 6, 8, 10),
)


@dataclass(frozen=True)
class Piece:
    """A recipe: voices over a scale, notes per second, drums."""

    title: str
    lead: Voice
    chords: Voice
    scale: tuple[int, ...]
    root_hz: float
    pace: float
    drums: float = 0.0
    length_s: float = 25.0

    def play(self) -> Samples:
        """The piece, the same each time."""
        rng = np.random.default_rng([ord(c) for c in self.title])
        out = np.zeros(round(self.length_s * SAMPLE_RATE))
        self._melody(out, rng, self.lead, 2.0, self.pace, 1.0)
        self._melody(out, rng, BASS, 0.5, self.pace / 3, 0.9)
        at = 0.0
        while at < self.length_s:
            length = float(rng.choice([1.0, 1.5, 2.0])) * 2.5 / self.pace
            start = int(rng.integers(len(self.scale)))
            for step in (0, 2, 4, 6)[: int(rng.integers(3, 5))]:
                _mix(out, at, 0.3 * self.chords.note(self._pitch(start + step), length, rng))
            at += length
        if self.drums:
            self._beat(out, rng)
        room = _echo(out, 0.031, 0.25) + _echo(out, 0.073, 0.18) - out
        return 0.6 * room / np.abs(room).max()

    def _pitch(self, step: int) -> float:
        octave, degree = divmod(step, len(self.scale))
        return float(self.root_hz * 2 ** (octave + self.scale[degree] / 12))

    def _melody(
        self, out: Samples, rng: np.random.Generator, voice: Voice, height: float, pace: float, level: float
    ) -> None:
        at, step = 0.0, 0
        while at < self.length_s:
            length = float(rng.choice([0.5, 1.0, 1.0, 1.5, 2.0])) / pace
            step = int(np.clip(step + rng.integers(-3, 4), -4, 9))
            if rng.random() > 0.1:
                note = voice.note(height * self._pitch(step), 1.2 * length, rng)
                _mix(out, at, level * float(rng.uniform(0.6, 1)) * note)
            at += length

    def _beat(self, out: Samples, rng: np.random.Generator) -> None:
        t = np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
        kick = np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t * 30)))) * np.exp(-t * 14)
        for beat in range(int(self.length_s * self.pace)):
            at = beat / self.pace + float(rng.normal(0, 0.004))
            if beat % 4 in (0, 2) and rng.random() < 0.9:
                _mix(out, max(at, 0), 1.5 * self.drums * kick)
            if rng.random() < 0.7:
                hiss = np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-t * rng.uniform(20, 70))
                _mix(out, max(at, 0), 0.25 * self.drums * hiss)


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


def _mix(out: Samples, at_s: float, sound: Samples) -> None:
    start = round(at_s * SAMPLE_RATE)
    part = sound[: max(0, len(out) - start)]
    out[start : start + len(part)] += part


# -- the ways of the world --------------------------------------------------------------------------------------------


def _echo(x: Samples, delay_s: float, level: float) -> Samples:
    n = round(delay_s * SAMPLE_RATE)
    return x + level * np.concatenate([np.zeros(n), x[:-n]])


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
    Clip(PIECES[8], 2.74, "echo", lambda x: _echo(_echo(x, 0.11, 0.6), 0.23, 0.4)),
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
        Gets ``music/``, ``clips/``, ``index.samaf``, ``demo.png`` and ``demo.json``; missing, empty, or an earlier
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
    with Library(folder / "index.samaf", writable=True, model=model) as library:
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
        note("drawing")
        if pictured is not None:
            clip, match = pictured
            draw(
                library.encoder, folder / "clips" / clip.name, match, folder / "demo.png", label=clip.spoiled
            )
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
        for name in ("index.samaf", "index.samaf-lock"):
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
