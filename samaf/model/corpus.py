"""Folders of audio -> rendered training frames.

Audio is cut into chunks of 24 s. Each is rendered once clean and several times distorted; the front end's frames
of every rendering go to one memory-mapped file in the work folder, and are rendered only once, however often
training is stopped and resumed.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samaf.atomic import atomic_write
from samaf.audio import SAMPLE_RATE, is_audio_path, read_audio, stream_audio
from samaf.errors import AudioError, ModelError
from samaf.features import FRAMES_PER_SECOND, FRONT_ENDS, WINDOW_FRAMES, frames_of
from samaf.model.augment import SLOWEST, Sources, distort, draw_factors
from samaf.model.presets import Preset
from samaf.settings import processors

CHUNK_S = 24
CHUNK_FRAMES = CHUNK_S * FRAMES_PER_SECOND
SHORTEST_S = 2.0
"""Audio shorter than this makes no chunk."""
QUIET = 10.0 ** (-65.0 / 10.0)
"""Mean square under which a window is not trained on."""
HELD_OUT_SHARE = 0.05
"""Share of the files that are never trained on: they measure and calibrate."""
NOISE_S = 120.0
"""Of each noise recording as much is laid over windows; renderings take from all of it."""
MARGIN_FRAMES = 12
"""Windows keep this far from a chunk's ends, so that a twin's jitter stays inside."""

_FILES = ("frames.f16", "noise.f16", "chunks.npz", "corpus.json")
"""What a work folder has of a corpus; the last is there once all are."""

Float32 = NDArray[np.float32]


def find_audio(places: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """All audio files in folders (searched through) and among files, sorted."""
    found: set[Path] = set()
    for place in map(Path, places):
        if place.is_dir():
            found.update(p for p in place.rglob("*") if p.is_file() and is_audio_path(p))
        elif place.is_file():
            found.add(place)
        else:
            raise AudioError(f"{place}: no such file or folder; give a folder of audio files")
    return sorted(found)


@dataclass(frozen=True)
class _Job:
    """What one worker needs to render one file."""

    path: Path
    preset: Preset
    sources: Sources
    seed: tuple[int, int]


@dataclass
class _Rendered:
    """One chunk: frames (1 + renderings, 2400, values), factors (1 + renderings,), levels and length."""

    frames: NDArray[np.float16]
    factors: Float32
    levels: Float32
    n_frames: int


def _fit(frames: NDArray, n: int) -> NDArray:
    pad = [(0, n - len(frames))] + [(0, 0)] * (frames.ndim - 1)
    return np.pad(frames, pad, mode="edge") if len(frames) < n else frames[:n]


def frames_at(frames: NDArray, at: NDArray[np.floating]) -> Float32:
    """Frames at fractional places in [0, n - 1], by linear interpolation over time."""
    left = np.minimum(at.astype(int), len(frames) - 2)
    part = (at - left)[:, None].astype(np.float32)
    return frames[left] * (1 - part) + frames[left + 1] * part


def _render_file(job: _Job) -> tuple[Path, list[_Rendered], str]:
    """All chunks of a file, or none and the reason."""
    front_end, _ = FRONT_ENDS[job.preset.front_end]
    chunks: list[_Rendered] = []
    try:
        for k, clean in enumerate(stream_audio(job.path, block_s=CHUNK_S)):
            if len(clean) < SHORTEST_S * SAMPLE_RATE:
                continue
            rng = np.random.default_rng([*job.seed, k])
            frames, levels = frames_of(front_end(), clean)
            n_frames = len(frames)
            rendered, factors = [_fit(frames, CHUNK_FRAMES)], [1.0]
            for _ in range(job.preset.renderings):
                speed, tempo = draw_factors(rng)
                spoilt = frames_of(front_end(), distort(clean, speed, job.sources, rng))[0]
                if tempo != 1.0:
                    spoilt = frames_at(spoilt, np.arange(int((len(spoilt) - 1) / tempo) + 1) * tempo)
                rendered.append(_fit(spoilt, CHUNK_FRAMES))
                factors.append(speed * tempo)
            chunks.append(
                _Rendered(
                    np.stack(rendered).astype(np.float16),
                    np.array(factors, np.float32),
                    _fit(levels, CHUNK_FRAMES),
                    n_frames,
                )
            )
    except AudioError as error:
        return job.path, [], str(error)
    return job.path, chunks, "" if chunks else f"{job.path}: shorter than {SHORTEST_S:g} s"


def _noise_frames(path: Path, preset: Preset) -> NDArray[np.float16]:
    """Frames (n, values) of the beginning of a noise recording; none if it cannot be read or is too short."""
    front_end, _ = FRONT_ENDS[preset.front_end]
    try:
        frames, levels = frames_of(front_end(), read_audio(path, end_s=NOISE_S))
    except AudioError:
        frames = levels = np.empty((0, front_end.n_values), np.float32)
    if len(frames) < WINDOW_FRAMES or levels.mean() < QUIET:
        frames = frames[:0]
    return frames.astype(np.float16)


class Corpus:
    """Rendered frames of a set of files, memory-mapped.

    Attributes
    ----------
    frames : float16 (chunks, 1 + renderings, 2400, values)
    factors : float32 (chunks, 1 + renderings)
        Clean seconds per rendered second.
    starts : list of int arrays
        Per chunk the clean frames at which a window with content may start.
    files : int (chunks,)
        Which file a chunk comes from.
    paths, noises, rooms : list of Path
        What was rendered, and the recordings that spoilt it.
    key : str
        Digest of the audio, the distortions and the seed that it was rendered with.
    n_frames : int (chunks,)
        Frames of its clean rendering that are audio.
    noise : float16 (n, values)
        Frames of the noise recordings, one after the other.
    """

    def __init__(self, folder: Path, preset: Preset) -> None:
        self.preset = preset
        meta = json.loads((folder / "corpus.json").read_text())
        self.key = str(meta["key"])
        shape = tuple(meta["shape"])
        self.frames = np.memmap(folder / "frames.f16", np.float16, "r", shape=shape)
        arrays = np.load(folder / "chunks.npz")
        self.factors, self.files, self.n_frames = arrays["factors"], arrays["files"], arrays["n_frames"]
        self.paths, self.noises, self.rooms = (
            [Path(path) for path in meta[part]] for part in ("paths", "noises", "rooms")
        )
        n_noise = int(meta["n_noise"])
        noise_shape = (n_noise, self.frames.shape[-1])
        self.noise: NDArray[np.float16] = np.empty(noise_shape, np.float16)
        if n_noise:  # an empty file cannot be mapped
            self.noise = np.memmap(folder / "noise.f16", np.float16, "r", shape=noise_shape)
        self.starts = [
            _window_starts(level, n) for level, n in zip(arrays["levels"], self.n_frames, strict=True)
        ]

    @classmethod
    def render(
        cls,
        paths: list[Path],
        sources: Sources,
        preset: Preset,
        folder: Path,
        *,
        seed: int = 0,
        jobs: int = 0,
        progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    ) -> Corpus:
        """Render files into `folder`, or take what an earlier call with the same arguments left there.

        Parameters
        ----------
        jobs
            Files rendered at once; by default as many as it may use processors.
        progress
            Called with (files done, files, note); the note names a file that could not be used.

        Raises
        ------
        ModelError
            If no file gives a chunk.
        """
        jobs = jobs or processors()
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {
            "key": _key(paths, sources, preset, seed),
            "paths": [os.path.abspath(path) for path in paths],
            "noises": [os.path.abspath(path) for path in sources.noise],
            "rooms": [os.path.abspath(path) for path in sources.rooms],
        }
        done = folder / _FILES[-1]
        if done.exists() and wanted.items() <= json.loads(done.read_text()).items():
            progress(len(paths), len(paths), "")
            return cls(folder, preset)
        for name in reversed(_FILES):  # not written into: they may be lent to another folder
            (folder / name).unlink(missing_ok=True)
        work = [_Job(path, preset, sources, (seed, i)) for i, path in enumerate(paths)]
        factors, levels, n_frames, files = [], [], [], []
        values = FRONT_ENDS[preset.front_end][0].n_values
        with (
            open(folder / "frames.f16", "wb") as out,
            ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool,
        ):
            for i, (_, chunks, note) in enumerate(_in_order(pool, work, 2 * jobs)):
                for chunk in chunks:
                    out.write(chunk.frames.tobytes())
                    factors.append(chunk.factors)
                    levels.append(chunk.levels)
                    n_frames.append(chunk.n_frames)
                    files.append(i)
                progress(i + 1, len(paths), note)
        if not files:
            raise ModelError(
                f"{paths[0].parent if paths else 'no data'}: no audio of {SHORTEST_S:g} s or more to train on"
            )
        n_noise = 0
        with open(folder / "noise.f16", "wb") as out:
            for path in sources.noise if preset.overlay else ():
                frames = _noise_frames(path, preset)
                out.write(frames.tobytes())
                n_noise += len(frames)
        np.savez(folder / "chunks.npz", factors=factors, levels=levels, n_frames=n_frames, files=files)
        shape = (len(files), 1 + preset.renderings, CHUNK_FRAMES, values)
        with atomic_write(done) as file:
            file.write(json.dumps({**wanted, "shape": shape, "n_noise": n_noise}).encode())
        return cls(folder, preset)

    @staticmethod
    def lend(folder: Path, other: Path) -> None:
        """Let another work folder have the renderings of this one, unless it has some: the same files, if possible."""
        if (other / _FILES[-1]).exists() or not (folder / _FILES[-1]).exists():
            return
        other.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (other / name).unlink(missing_ok=True)
            try:
                os.link(folder / name, other / name)
            except OSError:  # another disk, or one that cannot do it
                shutil.copyfile(folder / name, other / name)

    def split(self, seed: int, share: float = HELD_OUT_SHARE) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(training chunks, held-out chunks): about `share` of the files are held out whole."""
        usable = np.array([i for i, starts in enumerate(self.starts) if len(starts)], np.int64)
        files = np.unique(self.files[usable])
        held = np.random.default_rng(seed).permutation(files)[: max(1, round(share * len(files)))]
        out = np.isin(self.files[usable], held)
        if out.all():
            raise ModelError("one file of audio is too little to train on: give more files")
        return usable[~out], usable[out]


def _window_starts(levels: Float32, n_frames: int) -> NDArray[np.int64]:
    """Frames at which a window of the clean rendering holds content and leaves room for a twin's jitter."""
    total = np.concatenate([[0.0], np.cumsum(levels[:n_frames], dtype=np.float64)])
    window = (total[WINDOW_FRAMES:] - total[:-WINDOW_FRAMES]) / WINDOW_FRAMES
    first = np.arange(len(window))
    # a slower rendering of a whole chunk is cut at the chunk's length, its last part lost
    last = min(n_frames - MARGIN_FRAMES, int(SLOWEST * (CHUNK_FRAMES - MARGIN_FRAMES)))
    inside = (first >= MARGIN_FRAMES) & (first + WINDOW_FRAMES <= last)
    return first[inside & (window > QUIET)]


def _key(paths: list[Path], sources: Sources, preset: Preset, seed: int) -> str:
    """Digest of all that shapes the renderings."""
    listing = [[str(p), p.stat().st_size] for part in (paths, sources.noise, sources.rooms) for p in part]
    shape = [preset.front_end, preset.renderings, seed, CHUNK_S, NOISE_S if preset.overlay else 0]
    return hashlib.sha256(json.dumps([listing, shape]).encode()).hexdigest()


def _in_order(
    pool: ProcessPoolExecutor, work: list[_Job], ahead: int
) -> Iterator[tuple[Path, list[_Rendered], str]]:
    """Results in the order of the work, with `ahead` of them at most waiting in memory."""
    waiting = [pool.submit(_render_file, job) for job in work[:ahead]]
    for i in range(len(work)):
        yield waiting.pop(0).result()
        if i + ahead < len(work):
            waiting.append(pool.submit(_render_file, work[i + ahead]))
