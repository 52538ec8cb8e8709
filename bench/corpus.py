"""What a bench runs on: tracks to be found, tracks held out of the library, and the sounds that spoil clips.

Three sources give the same :class:`Corpus`: a folder of audio (:func:`read_folder`), a manifest CSV
(:func:`read_manifest`), or nothing at all (:func:`generate`). A share of the tracks is held out of the library; their
clips must be answered "unknown". Noise, rooms and voices that a source lacks are generated, and a note says so.
Nothing but names and lengths is held in memory: samples are read when they are asked for.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import lfilter

from samaf.audio import SAMPLE_RATE, is_audio_path, probe, read_audio, stream_audio
from samaf.errors import AudioError, SamafError, shown
from samaf.files import digest, find_files

HELD_OUT_SHARE = 0.2
"""Share of the tracks, or of their groups, that stays out of the library."""
SHORTEST_S = 3.0
"""Tracks shorter than this are left out."""
TRACK_KINDS = ("music", "speech")
"""Kinds of a manifest that are tracks; ``noise`` and ``ir`` (impulse responses of rooms and devices) spoil clips."""
GROUP_COLUMNS = ("group", "artist")
"""Columns of a manifest whose tracks are held out together; the first that is there counts."""
TUNING_SPLIT = "dev"
"""The split whose noise and rooms stand in for those that another split lacks."""
ARTIST_COLUMNS = ("artist", "speaker", "speaker_or_artist", "group")
"""Columns of a manifest that tell who is heard; the first that is there counts."""
SOURCE_COLUMNS = ("source", "collection", "source_repo")
"""Columns of a manifest that tell which collection a file is of; the first that is there counts."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class CorpusError(SamafError):
    """A folder or manifest that holds nothing to run on."""


@dataclass(frozen=True)
class Recording:
    """One file of audio.

    Attributes
    ----------
    id
        Its path relative to the folder or manifest, with forward slashes.
    path
        Where it lies.
    duration_s
        Its length.
    kind
        ``music``, ``speech``, ``noise``, ``ir``; ``audio`` where nobody said.
    """

    id: str
    path: Path
    duration_s: float
    kind: str = "audio"

    def read(self, start_s: float = 0.0, end_s: float | None = None) -> Float32:
        """Samples at 16 kHz, mono, of a range or of all; raises AudioError as :func:`samaf.audio.read_audio`."""
        return read_audio(self.path, start_s=start_s, end_s=end_s)


@dataclass(frozen=True)
class Materials:
    """Recordings that spoil clips.

    Attributes
    ----------
    noises
        Recorded noise.
    rooms
        Impulse responses of rooms and devices.
    voices
        Speech for babble; none of it is in the library.
    """

    noises: Sequence[Recording] = ()
    rooms: Sequence[Recording] = ()
    voices: Sequence[Recording] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content of all the files, in order."""
        hasher = hashlib.sha256()
        for part in (self.noises, self.rooms, self.voices):
            hasher.update(b"|")
            for recording in part:
                hasher.update(digest(recording.path).encode())
        return hasher.hexdigest()


@dataclass(frozen=True)
class Corpus:
    """Tracks and materials of a bench.

    Attributes
    ----------
    source
        What was read, for people.
    references
        Tracks of the library that clips are cut from.
    outsiders
        Tracks that are not in the library, for clips without an answer.
    crowd
        Further tracks of the library, among which the references must be found.
    materials
        Noise, rooms and voices.
    skipped
        A line for each file that could not be used: its name and why.
    notes
        What a reader of the results must know about the data.
    """

    source: str
    references: Sequence[Recording]
    outsiders: Sequence[Recording]
    materials: Materials
    crowd: Sequence[Recording] = ()
    skipped: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def library(self) -> list[Recording]:
        """All tracks that a system is given: references and crowd."""
        return [*self.references, *self.crowd]


@dataclass(frozen=True)
class Pool:
    """Tracks that clips are cut from, with a library that may hold them.

    Attributes
    ----------
    source
        What was read, for people.
    tracks
        What clips are cut from.
    library
        What a system is given.
    materials
        Noise and rooms.
    artists, sources
        Who is heard in a track, and which collection it is of, by its id, where that is known.
    skipped, notes
        As for a :class:`Corpus`.
    """

    source: str
    tracks: Sequence[Recording]
    library: Sequence[Recording]
    materials: Materials
    artists: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, corpus: Corpus) -> Pool:
        """All tracks of a corpus, which are all in the library."""
        tracks = [*corpus.references, *corpus.outsiders]
        return cls(
            corpus.source,
            tracks,
            [*tracks, *corpus.crowd],
            corpus.materials,
            skipped=corpus.skipped,
            notes=corpus.notes,
        )


def read_folder(folder: Path, work: Path, *, seed: int = 0) -> Corpus:
    """All audio files in a folder, searched to the bottom.

    Parameters
    ----------
    folder
        Tracks; each file is a group of its own.
    work
        Where generated noise and rooms are kept.
    seed
        Shapes the choice of the tracks held out.

    Raises
    ------
    CorpusError
        If it holds fewer than two usable tracks.
    """
    skipped: list[str] = []
    top = folder.resolve()
    found = find_files([top], lambda path, reason: skipped.append(f"{shown(path)}: {reason}"))
    named = (
        (path.relative_to(top).as_posix(), path, "audio") for path in map(Path, found) if is_audio_path(path)
    )
    tracks = _opened(named, SHORTEST_S, skipped)
    references, outsiders = _hold_out(tracks, {}, seed, shown(folder), skipped)
    materials, notes = _completed(Materials(), work)
    return Corpus(shown(folder), references, outsiders, materials, skipped=skipped, notes=notes)


def read_manifest(
    manifest: Path,
    work: Path,
    *,
    split: str | None = None,
    kinds: Collection[str] = TRACK_KINDS,
    library: Collection[str] = (),
    seed: int = 0,
) -> Corpus:
    """The files that a CSV names, with columns ``path`` (relative to it), ``kind`` and ``split``.

    With a column of :data:`GROUP_COLUMNS`, tracks of one group are held out together. Speech for babble is what is
    held out of the split, as the library must not sound in it.

    Parameters
    ----------
    manifest
        The CSV; further columns are passed over.
    work
        Where generated noise and rooms are kept, if the manifest has none.
    split
        The split that is evaluated; None: all.
    kinds
        Kinds of the tracks that clips are cut from.
    library
        Splits whose tracks of every kind of :data:`TRACK_KINDS` join the library as its crowd.
    seed
        Shapes the choice of the tracks held out.

    Raises
    ------
    CorpusError
        If it cannot be read, lacks a column, or names fewer than two usable tracks of the split and kinds.
    """
    skipped: list[str] = []
    rows = read_rows(manifest)

    def chosen(splits: Collection[str] | None, wanted: Collection[str], shortest_s: float) -> list[Recording]:
        return _chosen(rows, manifest, splits, wanted, shortest_s, skipped)

    here = None if split is None else (split,)
    groups = _named(rows, GROUP_COLUMNS)
    place = _place(manifest, split)
    references, outsiders = _hold_out(chosen(here, kinds, SHORTEST_S), groups, seed, place, skipped)

    voices = [track for track in outsiders if track.kind == "speech"]
    if not voices and "speech" not in kinds:
        speech = chosen(here, ("speech",), SHORTEST_S)
        if speech:
            _, voices = _split(speech, groups, seed)
    known = {track.id for track in references}
    held = {groups.get(track.id, track.id) for track in (*outsiders, *voices)}
    crowd = [
        track
        for track in chosen(library, TRACK_KINDS, 0.0)
        if track.id not in known and groups.get(track.id, track.id) not in held
    ]

    (noises, rooms), notes = _spoilers(rows, manifest, split, skipped)
    materials, generated = _completed(Materials(noises, rooms, voices), work)
    return Corpus(
        place, references, outsiders, materials, crowd, list(dict.fromkeys(skipped)), notes + generated
    )


def read_pool(
    manifest: Path,
    work: Path,
    *,
    split: str | None = None,
    kinds: Collection[str] = TRACK_KINDS,
    library: Collection[str] = (),
) -> Pool:
    """The tracks of a CSV as :func:`read_manifest` reads it, none of them held out.

    Parameters
    ----------
    manifest, work
        As for :func:`read_manifest`.
    split, kinds
        What clips are cut from; None: all splits.
    library
        Splits whose tracks make the library; none: all splits.

    Raises
    ------
    CorpusError
        If it cannot be read, lacks a column, or names no usable track of the split and kinds.
    """
    skipped: list[str] = []
    rows = read_rows(manifest)
    here = None if split is None else (split,)
    place = _place(manifest, split)
    tracks = _chosen(rows, manifest, here, kinds, SHORTEST_S, skipped)
    if not tracks:
        raise CorpusError(f"{place}: has no usable recording of {', '.join(kinds)}; check --split and --kind")
    known = _chosen(rows, manifest, library or None, TRACK_KINDS, 0.0, skipped)
    (noises, rooms), notes = _spoilers(rows, manifest, split, skipped)
    materials, generated = _completed(Materials(noises, rooms), work, voices=False)
    return Pool(
        place,
        tracks,
        known,
        materials,
        _named(rows, ARTIST_COLUMNS),
        _named(rows, SOURCE_COLUMNS),
        list(dict.fromkeys(skipped)),
        notes + generated,
    )


def generate(work: Path, *, tracks: int = 20, seed: int = 0) -> Corpus:
    """A small corpus made from nothing: tunes, noise, rooms and voices; made once, then kept.

    Parameters
    ----------
    work
        Where the files are kept.
    tracks
        How many tunes, a fifth of them held out.
    seed
        Shapes the tunes and the choice of those held out.
    """
    tunes = _kept("music", tracks, work, seed)
    references, outsiders = _hold_out(tunes, {}, seed, "the generated corpus", ())
    materials, _ = _completed(Materials(), work)
    note = "tunes, noise, rooms and voices are generated; real recordings are harder"
    return Corpus(f"{tracks} generated tunes", references, outsiders, materials, notes=[note])


# -- files -------------------------------------------------------------------------------------------------------------


def read_rows(manifest: Path) -> list[dict[str, str]]:
    """The lines of a manifest, sorted by path, each path once."""
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            rows = {row["path"]: row for row in reader if row.get("path")}
    except OSError as error:
        raise CorpusError(f"{shown(manifest)}: cannot be read ({error.strerror}); check the name") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{shown(manifest)}: is no CSV in UTF-8 ({error}); export it again") from None
    if missing := [name for name in ("path", "kind", "split") if name not in columns]:
        raise CorpusError(f"{shown(manifest)}: has no column {', '.join(missing)}; add it to the first line")
    return [rows[path] for path in sorted(rows)]


def paths_of(rows: Iterable[Mapping[str, str]], manifest: Path, split: str, *kinds: str) -> list[Path]:
    """The files of a split and some kinds that the lines of a manifest name, in their order."""
    return [manifest.parent / row["path"] for row in rows if row["split"] == split and row["kind"] in kinds]


def read_recordings(
    manifest: Path, *, kinds: Collection[str], skipped: Callable[[str], None]
) -> list[tuple[Recording, str]]:
    """All recordings of some kinds that a manifest names, each with its split.

    Parameters
    ----------
    skipped
        Hears of those that are left out.

    Raises
    ------
    CorpusError
        If it cannot be read, lacks a column, or names none.
    """
    reasons: list[str] = []
    rows = read_rows(manifest)
    splits = {row["path"]: row["split"] for row in rows}
    found = [(track, splits[track.id]) for track in _chosen(rows, manifest, None, kinds, SHORTEST_S, reasons)]
    for reason in reasons:
        skipped(f"left out: {reason}")
    if not found:
        raise CorpusError(f"{shown(manifest)}: names no {' or '.join(kinds)} of {SHORTEST_S:g} s or more")
    return found


def _chosen(
    rows: Sequence[Mapping[str, str]],
    manifest: Path,
    splits: Collection[str] | None,
    kinds: Collection[str],
    shortest_s: float,
    skipped: list[str],
) -> list[Recording]:
    """The usable recordings of some splits (None: all) and kinds."""
    named = [
        (row["path"], manifest.parent / row["path"], row["kind"])
        for row in rows
        if row["kind"] in kinds and (splits is None or row["split"] in splits)
    ]
    return _opened(named, shortest_s, skipped)


def _spoilers(
    rows: Sequence[Mapping[str, str]], manifest: Path, split: str | None, skipped: list[str]
) -> tuple[list[list[Recording]], list[str]]:
    """Noises and rooms of a split, or those that stand in for them; and notes that say so.

    For a split that has none, those of the split for tuning stand in before those that systems may be trained on.
    """
    found, notes = [], []
    here = None if split is None else (split,)
    for kind in ("noise", "ir"):
        choices = ((here, ""), ((TUNING_SPLIT,), f"split {TUNING_SPLIT}"), (None, "the other splits"))
        for splits, whose in choices:
            if recorded := _chosen(rows, manifest, splits, (kind,), 0.0, skipped):
                if whose:
                    notes.append(f"no {kind} in split {split}; that of {whose} is used")
                break
        found.append(recorded)
    return found, notes


def _named(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> dict[str, str]:
    """What stands in the first of the columns that is there, by path."""
    column = next((name for name in columns if rows and name in rows[0]), None)
    return {row["path"]: row[column] for row in rows if row[column]} if column else {}


def _place(manifest: Path, split: str | None) -> str:
    return shown(manifest) if split is None else f"{shown(manifest)}, split {split}"


def _opened(named: Iterable[tuple[str, Path, str]], shortest_s: float, skipped: list[str]) -> list[Recording]:
    """The recordings of (id, path, kind) that can be opened and are long enough."""
    recordings = []
    for name, path, kind in named:
        try:
            duration_s = probe(path).duration_s
            if duration_s is None:  # the format does not tell: count
                duration_s = sum(map(len, stream_audio(path))) / SAMPLE_RATE
        except AudioError as error:
            skipped.append(str(error))
            continue
        if duration_s < shortest_s:
            skipped.append(f"{shown(path)}: lasts {duration_s:.2f} s, less than {shortest_s:g} s")
        else:
            recordings.append(Recording(name, path, duration_s, kind))
    return recordings


def _hold_out(
    tracks: Sequence[Recording],
    groups: Mapping[str, str],
    seed: int,
    place: str,
    skipped: Sequence[str],
) -> tuple[list[Recording], list[Recording]]:
    """(references, outsiders), neither of them empty."""
    references, outsiders = _split(tracks, groups, seed)
    if not references:
        apart = " that no group joins" if len(tracks) > 1 else ""
        more = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        why = f"; left out: {skipped[0]}{more}" if skipped else ""
        raise CorpusError(f"{place}: a bench needs two tracks at least{apart}, found {len(tracks)}{why}")
    return references, outsiders


def _split(
    tracks: Sequence[Recording], groups: Mapping[str, str], seed: int
) -> tuple[list[Recording], list[Recording]]:
    """(kept, held out): of the groups, :data:`HELD_OUT_SHARE` and at least one are held out whole."""
    names = sorted({groups.get(track.id, track.id) for track in tracks})
    np.random.default_rng([seed, 1]).shuffle(names)
    held = set(names[: max(1, round(HELD_OUT_SHARE * len(names)))])
    sides: tuple[list[Recording], list[Recording]] = ([], [])
    for track in tracks:
        sides[groups.get(track.id, track.id) in held].append(track)
    return sides


# -- generated sounds --------------------------------------------------------------------------------------------------

_RECIPE = 1  # to be raised with every change of what is generated


def _completed(materials: Materials, work: Path, *, voices: bool = True) -> tuple[Materials, list[str]]:
    """Materials with generated ones where there are none (voices only if asked for), and notes that say so."""
    noises, rooms, speech = materials.noises, materials.rooms, materials.voices
    notes = []
    if not noises:
        noises = _kept("noise", 6, work)
        notes.append("no recorded noise: noise is generated")
    if not rooms:
        rooms = _kept("ir", 6, work)
        notes.append("no measured impulse responses: rooms are generated")
    if not speech and voices:
        speech = _kept("speech", 6, work)
        notes.append("no speech outside the library: the voices of babble are generated")
    return Materials(noises, rooms, speech), notes


def _kept(kind: str, count: int, work: Path, seed: int = 0) -> list[Recording]:
    """`count` generated recordings of a kind, from `work` where they are there already."""
    folder = work / f"generated-{kind}-{_RECIPE}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for k in range(count):
        path = folder / f"{kind}{k:02}.flac"
        if not path.exists():
            samples = _MAKERS[kind](np.random.default_rng([seed, k]))
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                new = Path(scratch) / path.name
                soundfile.write(new, 0.7 * samples / np.abs(samples).max(), SAMPLE_RATE, subtype="PCM_16")
                new.replace(path)
        recordings.append(Recording(f"{kind}/{path.name}", path, soundfile.info(path).duration, kind))
    return recordings


def _tune(rng: Generator) -> Float64:
    """30 s of music by the generator of ``samaf demo``."""
    from samaf import synthesiser as music

    leads = (
        music.PIANO,
        music.BELL,
        music.MARIMBA,
        music.STRINGS,
        music.BRASS,
        music.FLUTE,
        music.REED,
        music.PLUCK,
    )
    return music.Piece(
        f"Tune {rng.integers(2**31)}",
        lead=leads[rng.integers(len(leads))],
        chords=(music.PIANO, music.ORGAN, music.STRINGS, music.PLUCK)[rng.integers(4)],
        scale=(music.MAJOR, music.MINOR, music.PENTATONIC, music.WHOLE)[rng.integers(4)],
        root_hz=110.0 * 2 ** rng.uniform(-0.3, 0.7),
        pace=rng.uniform(1.8, 6.0),
        drums=float(rng.choice([0.0, 0.5, 1.0])),
        length_s=30.0,
    ).play()


def _noise(rng: Generator) -> Float64:
    """20 s of a place: a rush of some colour that swells and fades, the hum of a machine, clatter."""
    n = 20 * SAMPLE_RATE
    t = np.arange(n) / SAMPLE_RATE
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum *= np.maximum(np.arange(len(spectrum)), 400) ** -rng.uniform(0.0, 1.0)  # flat under 20 Hz
    rush = np.fft.irfft(spectrum, n)
    swell = np.interp(t, np.arange(21), rng.uniform(0.3, 1.0, 21))
    hum = sum(rng.random() / k * np.sin(2 * np.pi * k * rng.uniform(49, 51) * t) for k in range(1, 9))
    clatter = np.zeros(n)
    for at in rng.integers(0, n - SAMPLE_RATE, rng.integers(10, 80)):
        ring = t[: SAMPLE_RATE // 4]
        clatter[at : at + len(ring)] += np.sin(2 * np.pi * rng.uniform(300, 6000) * ring) * np.exp(
            -ring * rng.uniform(20, 100)
        )
    return swell * rush / rush.std() + rng.uniform(0, 0.5) * hum + rng.uniform(0, 2) * clatter


def _room(rng: Generator) -> Float64:
    """An impulse response: the direct sound, single reflections, a tail that dies away, its treble first."""
    decay_s = rng.uniform(0.2, 1.2)  # to -60 dB
    t = np.arange(round(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    dull = lfilter([0.3], [1, -0.7], tail)
    response = rng.uniform(0.02, 0.08) * (tail * np.exp(-t * 6 / decay_s) + dull) * np.minimum(1, t / 0.02)
    for _ in range(6):
        response[round(rng.uniform(0.003, 0.04) * SAMPLE_RATE)] += rng.uniform(-0.4, 0.4)
    response[0] = 1.0
    return response


def _voice(rng: Generator) -> Float64:
    """20 s like speech: a gliding pitch through changing vowels, syllables, pauses."""
    pitch_hz = rng.uniform(90, 240)
    out: list[Float64] = []
    while sum(map(len, out)) < 20 * SAMPLE_RATE:
        n = round(rng.uniform(0.1, 0.3) * SAMPLE_RATE)
        glide = np.linspace(rng.uniform(0.85, 1.2), rng.uniform(0.85, 1.2), n)
        turns = np.cumsum(pitch_hz * glide / SAMPLE_RATE)
        sound = np.diff(np.floor(turns), prepend=0.0) + 0.03 * rng.standard_normal(n)
        for low, high, width in ((250, 850, 80), (800, 2300, 120), (2200, 3300, 200)):
            r = np.exp(-np.pi * width / SAMPLE_RATE)
            angle = 2 * np.pi * rng.uniform(low, high) / SAMPLE_RATE
            sound = lfilter([1 - r], [1, -2 * r * np.cos(angle), r * r], sound)
        out.append(np.hanning(n) * sound / np.abs(sound).max())
        if rng.random() < 0.2:
            out.append(np.zeros(round(rng.uniform(0.05, 0.5) * SAMPLE_RATE)))
    return np.concatenate(out)[: 20 * SAMPLE_RATE]


_MAKERS: dict[str, Callable[[Generator], Float64]] = {
    "music": _tune,
    "noise": _noise,
    "ir": _room,
    "speech": _voice,
}
