"""The training side: losses, distortions, rendering, and a training small enough for a test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import in_ci
from synth import tune, write

from samaf.bodies import Lstm
from samaf.encoder import Encoder, Network
from samaf.errors import AudioError, ModelError
from samaf.model import augment, clarity, export
from samaf.model.augment import Sources, rms
from samaf.model.corpus import CHUNK_FRAMES, Corpus, _Job, _render_file, find_audio
from samaf.model.presets import PRESETS, Preset, preset_from_json
from samaf.model.twins import KNOWN_FRAMES, NEIGHBOURS, Twins, nearest, overlaid, varied, window
from samaf.weights import Weights

RATE = 16000
TINY = Preset(
    "tiny", units=16, decoder_units=16, bits=(64, 128), renderings=1, pairs=16, steps=8, learning_rate=1e-2
)


# Distortions (these need no TensorFlow)


class Scripted(np.random.Generator):
    """A generator whose `random` follows a script, then gives 0.99; `uniform` gives the middle."""

    def __init__(self, *script: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.script = list(script)

    def random(self, *args: Any, **kwargs: Any) -> Any:
        return self.script.pop(0) if self.script else 0.99

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        middle = (low + high) / 2
        return middle if size is None else np.full(size, middle)


def decibel(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def lag(a: np.ndarray, b: np.ndarray) -> int:
    """Samples by which b comes after a."""
    size = 2 * len(a)
    product = np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size)
    at = int(np.fft.irfft(product, size).argmax())
    return at if at < len(a) else at - size


def test_fast_lengths_are_products_of_2_3_and_5() -> None:
    fast = sorted(2**a * 3**b * 5**c for a in range(12) for b in range(8) for c in range(6))
    for n in range(1, 2000):
        assert augment.fast_length(n) == next(f for f in fast if f >= n)


@pytest.mark.parametrize("n", [800, 16000, 20011])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("echo", [None, (0.2, 0.5)])
@pytest.mark.parametrize("room", [False, True])
def test_a_filter_keeps_length_and_level(
    n: int, colour: bool, echo: tuple[float, float] | None, room: bool
) -> None:
    rng = np.random.default_rng(3)
    x = tune(2)[:n]
    response = augment.draw_room(Sources(), rng) if room else None
    y = augment.filtered(x, response, rng if colour else None, echo)
    assert y.shape == x.shape and y.dtype == np.float32
    assert rms(y) == pytest.approx(rms(x), rel=1e-4)
    if not (room or colour or echo):
        np.testing.assert_allclose(y, x, atol=1e-6)


def test_a_filter_is_a_convolution() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(3000).astype(np.float32)
    h = rng.standard_normal(500).astype(np.float32)
    expected = np.convolve(x, h)[:3000]
    np.testing.assert_allclose(
        augment.filtered(x, h, None, None), expected * rms(x) / rms(expected), atol=1e-3, rtol=1e-3
    )
    late = np.zeros_like(x)
    late[1600:] = x[:-1600]
    expected = x + np.float32(0.5) * late
    np.testing.assert_allclose(
        augment.filtered(x, None, None, (0.1, 0.5)), expected * rms(x) / rms(expected), atol=1e-3
    )


@pytest.mark.parametrize("codec", augment._CODECS, ids=lambda c: c[1])
def test_a_codec_keeps_length_and_time(codec: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_CODECS", (codec,))
    for n in (2 * RATE, 2 * RATE + 77):
        x = tune(3, 5)[:n]
        y = augment.coded(x, np.random.default_rng(0))
        assert y.shape == x.shape and y.dtype == np.float32
        assert abs(lag(x, y)) <= 2
        assert 0.5 < np.corrcoef(x, y)[0, 1] < 1
        assert rms(y) == pytest.approx(rms(x), rel=0.3)


def test_a_codec_takes_samples_beyond_full_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    for codec in augment._CODECS:
        monkeypatch.setattr(augment, "_CODECS", (codec,))
        x = 8 * tune(2)
        assert np.corrcoef(x, augment.coded(x, np.random.default_rng(0)))[0, 1] > 0.5


@pytest.mark.parametrize("speed", [0.94, 1.0, 1.06])
def test_speed_changes_length_and_pitch(speed: float) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    y = augment.distort(tone, speed, Sources(), Scripted())
    assert len(y) == pytest.approx(len(tone) / speed, abs=1)
    hz = np.abs(np.fft.rfft(y)).argmax() * RATE / len(y)
    assert hz == pytest.approx(1000 * speed, abs=1)
    assert decibel(rms(y)) == pytest.approx((-45 - 12) / 2, abs=0.01)


def test_noise_has_the_level_that_was_drawn() -> None:
    x = tune(3)
    #                                              room, noise, of which kind
    y = augment.distort(x, 1.0, Sources(), Scripted(0.99, 0.0, 0.99))
    part = x * np.float32(np.dot(x, y) / np.dot(x, x))
    assert decibel(rms(part) / rms(y - part)) == pytest.approx((20 - 8) / 2, abs=0.2)
    assert decibel(rms(y)) == pytest.approx(-28.5, abs=0.01)


def test_clipping_limits_the_peaks() -> None:
    x = tune(3)
    y = augment.distort(x, 1.0, Sources(), Scripted(0.99, 0.99, 0.99, 0.0))
    assert np.abs(x).max() / rms(x) > 3
    assert (np.abs(y) >= 0.999 * np.abs(y).max()).mean() > 0.05


def test_silence_stays_silence() -> None:
    x = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(augment.distort(x, 1.0, Sources(), Scripted()), x)


def test_distortions_follow_the_seed() -> None:
    x = tune(3)
    a, b, c = (augment.distort(x, 0.97, Sources(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert len(a) == len(c) and not np.allclose(a, c, atol=1e-3)
    for seed in range(30):
        y = augment.distort(x, 1.0, Sources(), np.random.default_rng(seed))
        assert y.dtype == np.float32 and y.shape == x.shape and np.isfinite(y).all()


def test_noises_rooms_and_voices_come_from_files(tmp_path: Path) -> None:
    hiss = write(tmp_path / "hiss.wav", tune(1, 8))
    echo = np.zeros(4000, np.float32)
    echo[[500, 900]] = 0.8, 0.4
    room = write(tmp_path / "room.wav", echo)
    (tmp_path / "broken.wav").write_text("no sound")
    sources = Sources([hiss], [room], [hiss])
    taken = augment.draw_noise(3 * RATE, sources, Scripted(0.0))
    assert taken.shape == (3 * RATE,)  # a file shorter than that is repeated
    np.testing.assert_allclose(taken[:RATE], taken[RATE : 2 * RATE])
    assert augment.draw_noise(RATE // 2, sources, Scripted(0.8)).shape == (RATE // 2,)
    response = augment.draw_room(sources, np.random.default_rng(0))
    assert response[0] == 1 and response[400] == pytest.approx(0.5, abs=1e-3) and len(response) == 3500
    broken = Sources([tmp_path / "broken.wav"], [tmp_path / "broken.wav"], [])
    assert rms(augment.draw_noise(RATE, broken, Scripted(0.0))) > 0
    assert augment.draw_room(broken, np.random.default_rng(0))[0] == 1


def test_factors_of_speed_and_tempo() -> None:
    rng = np.random.default_rng(0)
    factors = np.array([augment.draw_factors(rng) for _ in range(2000)])
    product = factors.prod(axis=1)
    assert product.min() >= augment.SLOWEST and product.max() <= 2 - augment.SLOWEST
    assert (factors == 1).all(axis=1).mean() == pytest.approx(0.45, abs=0.05)


def test_coloured_noise_falls_towards_high_frequencies() -> None:
    power = np.abs(np.fft.rfft(augment.coloured_noise(1 << 16, Scripted()))) ** 2
    octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(8, 15)]
    steps = np.diff(10 * np.log10(octaves))
    np.testing.assert_allclose(steps, -3, atol=0.7)  # the middle between white and brown


# Rendering


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four tunes of 26 s: two chunks each, the second one of 2 s."""
    folder = tmp_path_factory.mktemp("music")
    for seed in range(4):
        write(folder / f"{seed}.wav", tune(26, seed))
    return folder


def render(path: Path, seed: int = 0, preset: Preset = TINY) -> list[Any]:
    _, chunks, note = _render_file(_Job(path, preset, Sources(), (seed, 0)))
    assert note == ""
    return chunks


def test_rendering_follows_the_seed(music: Path) -> None:
    a, b, c = (render(music / "0.wav", seed) for seed in (0, 0, 1))
    assert len(a) == 2 and a[0].frames.shape == (2, CHUNK_FRAMES, 64) and a[1].n_frames == 200
    for k in range(2):
        np.testing.assert_array_equal(a[k].frames, b[k].frames)
        np.testing.assert_array_equal(a[k].frames[0], c[k].frames[0])  # the clean one
        assert not np.array_equal(a[k].frames[1], c[k].frames[1])


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    short = write(tmp_path / "short.wav", tune(1.5))
    for path, reason in ((tmp_path / "broken.wav", "broken.wav"), (short, "shorter than 2 s")):
        _, chunks, note = _render_file(_Job(path, TINY, Sources(), (0, 0)))
        assert chunks == [] and reason in note
    with pytest.raises(AudioError, match="no such file or folder"):
        find_audio([tmp_path / "none"])
    assert find_audio([tmp_path, short]) == [tmp_path / "broken.wav", short]


@pytest.fixture(scope="module")
def corpus(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    return Corpus.render(find_audio([music]), Sources(), TINY, folder, jobs=1)


def test_a_corpus_is_rendered_once(corpus: Corpus, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert corpus.frames.shape == (8, 2, CHUNK_FRAMES, 64)
    np.testing.assert_array_equal(corpus.files, [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(corpus.factors[:, 0], 1)
    for k, chunk in enumerate(render(music / "0.wav")):
        np.testing.assert_array_equal(corpus.frames[k], chunk.frames)
    folder = Path(str(corpus.frames.filename)).parent
    monkeypatch.setattr("samaf.model.corpus.ProcessPoolExecutor", None)  # it would fail if it were used
    again = Corpus.render(find_audio([music]), Sources(), TINY, folder)
    np.testing.assert_array_equal(again.frames[3], corpus.frames[3])
    assert again.paths == find_audio([music]) and (again.noises, again.rooms) == ([], [])


def test_whole_files_are_held_out(corpus: Corpus) -> None:
    training, held_out = corpus.split(0)
    assert len(set(corpus.files[held_out])) == 1
    assert not set(corpus.files[training]) & set(corpus.files[held_out])
    np.testing.assert_array_equal(held_out, corpus.split(0)[1])
    assert all(len(corpus.starts[i]) for i in (*training, *held_out))  # no chunk too short for a window


def unit_rows(windows: np.ndarray) -> np.ndarray:
    flat = windows.reshape(len(windows), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


@pytest.mark.parametrize("plain", [True, False])
def test_twins_are_the_same_second(corpus: Corpus, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "preset", replace(TINY, jitter_s=0.0))
    windows, clean = Twins(corpus, np.array([0, 2, 4]), plain=plain).draw(200, np.random.default_rng(0))
    assert windows.shape == clean.shape == (400, 25, 256) and windows.dtype == np.float32
    assert np.isfinite(windows).all()
    np.testing.assert_array_equal(clean[:200], windows[:200])
    np.testing.assert_array_equal(clean[200:], windows[:200])
    flat = unit_rows(windows)
    likeness = flat[:200] @ flat[200:].T
    own, other = np.diag(likeness), likeness.mean()
    assert own.mean() > other + 0.2


def test_a_twin_that_overhangs_is_known_in_part(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known of it is the mean of what is; the decoder shall give back all of it."""
    preset = replace(TINY, overhang=1.0, overlay=0.0, variety=0.0)
    monkeypatch.setattr(corpus, "preset", preset)
    windows, clean = Twins(corpus, np.array([0, 2, 4])).draw(60, np.random.default_rng(0))
    frames = windows[60:].reshape(60, 100, 64)
    steady = (np.abs(np.diff(frames, axis=1)) < 1e-6).all(axis=2).sum(axis=1)  # within what is missing
    low, high = KNOWN_FRAMES
    assert (steady >= 99 - high).all() and (steady <= 99 - low).all() and steady.max() > 50
    at_end = np.abs(frames[:, -1] - frames[:, -2]).max(axis=1) < 1e-6
    assert 10 < at_end.sum() < 50
    np.testing.assert_array_equal(clean[60:], windows[:60])


def test_twins_follow_the_generator(corpus: Corpus) -> None:
    twins = Twins(corpus, np.array([0, 2, 4]))
    a, b, c = (twins.draw(20, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_variety_changes_both_twins_alike() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(400, 64)).astype(np.float16)
    seen = []
    for _ in range(60):
        a, b = varied(frames, 150, frames, 150, rng)
        np.testing.assert_array_equal(a, b)
        assert a.shape == (100, 64)
        seen.append(np.array_equal(a, window(frames, 150)))
    assert 5 < sum(seen) < 30  # (1 - 0.4) (1 - 0.2) (1 - 0.4 * 14 / 15) of them stay as they are


def test_windows_repeat_the_frames_at_the_ends() -> None:
    frames = np.arange(120, dtype=np.float16)[:, None]
    np.testing.assert_array_equal(window(frames, 20)[:, 0], np.arange(20, 120))
    np.testing.assert_array_equal(window(frames, -2)[:4, 0], [0, 0, 0, 1])
    np.testing.assert_array_equal(window(frames, 22)[-3:, 0], [119, 119, 119])


def test_an_overlay_adds_powers(monkeypatch: pytest.MonkeyPatch) -> None:
    twin, other = np.full((100, 64), 2.0, np.float32), np.full((100, 64), -5.0, np.float32)
    both = overlaid(twin, other, Scripted(0.0))  # at 3.5 dB, the middle
    np.testing.assert_allclose(both, 2.0 + np.log(1 + 10**-0.35), rtol=1e-5)
    coloured = overlaid(twin, other, np.random.default_rng(2)) - both
    assert np.ptp(coloured, axis=0).max() < 1e-5  # the same over time


def test_neighbours_are_of_other_files_and_not_the_same_sound() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((40, 128)) < 0.5
    bits[20] = bits[0]  # the same sound in another file
    bits[21], bits[1] = bits[0] ^ (np.arange(128) < 30), bits[0] ^ (np.arange(128) < 25)
    files = np.repeat([0, 1], 20)
    found = nearest(bits, files)
    assert found.shape == (40, NEIGHBOURS)
    assert all(files[i] != files[j] for i in range(40) for j in found[i] if j >= 0)
    assert 21 in found[0] and 20 not in found[0] and 1 not in found[0]
    assert (nearest(bits[:20], files[:20]) == -1).all()


def test_neighbours_come_in_pairs(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "preset", replace(TINY, neighbours=1.0))
    twins = Twins(corpus, np.array([0, 2, 4, 6]))
    twins.find_neighbours(lambda windows: windows.reshape(len(windows), -1)[:, :128] > 0)
    drawn = twins._drawn_places(40, np.random.default_rng(0))
    files = corpus.files[twins.places[drawn, 0]]
    assert (files[:20] != files[20:]).all()
    near, far = [], []
    _, clean = twins.draw(200, np.random.default_rng(1))
    assert clean.shape[0] == 400
    for first, second in zip(drawn[:20], drawn[20:], strict=True):
        near.append(second in twins.neighbours[np.flatnonzero(twins._compared == first)[0]])
        far.append(first == second)
    assert all(near) and not any(far)


def test_noise_recordings_are_kept_as_frames(music: Path, tmp_path: Path) -> None:
    hiss = np.random.default_rng(0).normal(scale=0.1, size=3 * RATE).astype(np.float32)
    noise = [write(tmp_path / "hiss.wav", hiss), write(tmp_path / "short.wav", hiss[:4000])]
    silent = write(tmp_path / "silent.wav", 0 * hiss)
    (tmp_path / "broken.wav").write_text("no sound")
    sources = Sources([*noise, silent, tmp_path / "broken.wav"], [], [])
    made = Corpus.render([music / "0.wav", music / "1.wav"], sources, TINY, tmp_path / "work", jobs=1)
    assert made.noise.shape == (300, 64)
    assert made.noises == [*noise, silent, tmp_path / "broken.wav"] and made.rooms == []


def test_a_corpus_knows_its_recordings_from_anywhere(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However their names were given: calibration reads them again, perhaps from another folder."""
    monkeypatch.chdir(music)
    room = write(tmp_path / "room.wav", tune(0.5))
    made = Corpus.render([Path("0.wav")], Sources([], [room], []), TINY, tmp_path / "work", jobs=1)
    monkeypatch.chdir(tmp_path)
    assert made.paths == [music / "0.wav"] and made.rooms == [room]
    assert all(path.is_file() for path in made.paths)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    short = write(tmp_path / "short.wav", tune(1.5))
    with pytest.raises(ModelError, match="no audio of 2 s or more"):
        Corpus.render([short], Sources(), TINY, tmp_path / "work", jobs=1)


def test_presets_fit_together() -> None:
    with pytest.raises(ValueError, match="log-mel"):
        replace(PRESETS["paper"], overlay=0.5)


def test_presets_survive_json() -> None:
    for preset in PRESETS.values():
        assert preset_from_json(json.loads(json.dumps(preset.to_json()))) == preset
        assert preset.n_steps * preset.stack == 100
    assert TINY.with_options(units=None, pairs=5) == replace(TINY, pairs=5)


# Exporting


def a_model(preset: Preset) -> Weights:
    """What the bare encoder of a preset might be."""
    rng, units = np.random.default_rng(0), preset.units

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    return Weights(
        preset.front_end,
        preset.stack,
        preset.bits,
        Lstm(preset.n_inputs, units),
        {
            "kernel": normal(preset.n_inputs, 4 * units),
            "recurrent": normal(units, 4 * units),
            "bias": normal(4 * units),
            "dense": normal(units, preset.bits[-1]),
            "dense_bias": normal(preset.bits[-1]),
        },
    )


@pytest.fixture
def trained(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder as a training leaves it."""
    folder = tmp_path / "m.npz.work"
    folder.mkdir()
    for name in ("frames.f16", "chunks.npz", "corpus.json", "noise.f16"):
        os.link(Path(str(corpus.frames.filename)).parent / name, folder / name)
    (folder / "state.json").write_text(json.dumps({"preset": TINY.to_json(), "seed": 7}))
    a_model(TINY).save(folder / export.LATEST)
    monkeypatch.setattr(clarity, "PAIRS", 40)
    return folder


def test_an_export_calibrates_on_what_was_held_out(
    trained: Path, corpus: Corpus, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def calibrate(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return SimpleNamespace(save=lambda path: path.write_text("made"))

    monkeypatch.setattr(export, "calibrate", calibrate)
    out = trained.parent / "m.npz"
    assert export.export_checkpoint(trained, out) == out and out.read_text() == "made"
    [((path, [held_out], library), options)] = calls
    assert path == trained / export.LATEST and options["seed"] == 7
    assert Weights.load(path).clarity is not None
    assert {music / f"{k}.wav" for k in range(4)} == {*held_out, *library}
    assert held_out == [corpus.paths[k] for k in np.unique(corpus.files[corpus.split(7)[1]])]
    assert not set(held_out) & set(library)
    assert options["sources"] == Sources([], [], held_out)


def test_an_export_may_be_calibrated_on_others(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def calibrate(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return SimpleNamespace(save=lambda path: None)

    monkeypatch.setattr(export, "calibrate", calibrate)
    others: dict[str, Any] = {
        "held_out": [[Path("a")], [Path("b")]],
        "library": [],
        "sources": Sources([Path("n")]),
    }
    export.export_checkpoint(trained, trained.parent / "m.npz", **others, queries=3)
    [((path, *on), options)] = calls
    assert path == trained / export.LATEST and on == [others["held_out"], []]
    assert (options["sources"], options["queries"]) == (others["sources"], 3)


def test_an_export_searches_among_some_of_many(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []

    def calibrate(path: Path, held_out: Any, library: list[Path], **options: Any) -> Any:
        seen.append(library)
        return SimpleNamespace(save=lambda path: None)

    monkeypatch.setattr(export, "calibrate", calibrate)
    monkeypatch.setattr(export, "MOST_SEARCHED", 2)
    export.export_checkpoint(trained, trained.parent / "m.npz")
    assert len(seen[0]) == 2


def test_an_export_may_be_quantised(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrated on the training's own recordings."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(export, "export_quantised", lambda *args, **options: calls.append((args, options)))
    out = trained.parent / "m.npz"
    export.export_checkpoint(trained, out, storage="int8", compatible=True)
    [((source, to, [held_out], library), options)] = calls
    assert (source, to) == (trained / export.LATEST, out) and len(held_out) == 1 and len(library) == 3
    assert (options["storage"], options["compatible"], options["seed"]) == ("int8", True, 7)
    assert options["sources"] == Sources([], [], held_out)


@pytest.mark.parametrize("name", ["state.json", "corpus.json", "chunks.npz"])
def test_a_folder_without_a_training_is_refused(trained: Path, name: str) -> None:
    (trained / name).unlink()
    with pytest.raises(ModelError, match="no training with a finished epoch here"):
        export.export_checkpoint(trained, trained.parent / "m.npz")


def test_a_folder_of_an_older_version_is_refused(trained: Path) -> None:
    """Its corpus does not say where its recordings lie."""
    meta = json.loads((trained / "corpus.json").read_text())
    (trained / "corpus.json").unlink()
    (trained / "corpus.json").write_text(
        json.dumps({"key": meta["key"], "n_files": 4, "shape": meta["shape"], "n_noise": 0})
    )
    with pytest.raises(ModelError, match="no training with a finished epoch here"):
        export.export_checkpoint(trained, trained.parent / "m.npz")


# With TensorFlow


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        if in_ci():
            pytest.fail(f"TensorFlow cannot be imported: {error}")
        pytest.skip("TensorFlow is not installed: pip install 'samaf[train]'")
    import keras

    return keras


@pytest.fixture(scope="module")
def losses(keras: ModuleType) -> ModuleType:
    from samaf.model import losses

    return losses


def codes_of(n: int = 6, bits: int = 128, seed: int = 0) -> np.ndarray:
    return np.tanh(np.random.default_rng(seed).standard_normal((2 * n, bits))).astype(np.float32)


def twins_of(half: np.ndarray) -> np.ndarray:
    return np.concatenate([half, half]).astype(np.float32)


@pytest.mark.train
def test_mean_squared_error(losses: ModuleType) -> None:
    a, b = codes_of(), codes_of(seed=1)
    assert float(losses.mean_squared_error(a, b)) == pytest.approx(np.mean((a - b) ** 2), rel=1e-5)
    assert float(losses.mean_squared_error(a, a)) == 0


@pytest.mark.train
def test_contrast_is_the_cross_entropy_of_finding_the_twin(losses: ModuleType) -> None:
    codes = codes_of().astype(np.float64)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    total = 0.0
    for i in range(12):
        scores = {j: unit[i] @ unit[j] / 0.07 for j in range(12) if j != i}
        total -= scores[(i + 6) % 12] - np.log(sum(np.exp(s) for s in scores.values()))
    assert float(losses.hash_loss_contrast(codes_of())) == pytest.approx(total / 12, rel=1e-4)
    signs = np.sign(codes_of(8, 256)[:8])
    assert float(losses.hash_loss_contrast(twins_of(signs))) < 1e-3
    assert float(losses.hash_loss_contrast(np.ones((16, 64), np.float32))) == pytest.approx(
        np.log(15), rel=1e-4
    )


@pytest.mark.train
def test_pull_weighs_distances_by_similarity(losses: ModuleType) -> None:
    codes, inputs = codes_of().astype(np.float64), np.random.default_rng(2).standard_normal((12, 30))
    centred = inputs - inputs.mean(axis=0)
    near = near_weight = far = far_weight = 0.0
    for i in range(12):
        for j in range(12):
            if i == j:
                continue
            cosine = centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])
            similarity = 1.0 if abs(i - j) == 6 else max(0.0, cosine) ** 2
            distance = np.mean((codes[i] - codes[j]) ** 2)
            near, near_weight = near + similarity * distance, near_weight + similarity
            far += (1 - similarity) * max(0.0, 1.0 - distance) ** 2
            far_weight += 1 - similarity
    got = float(losses.hash_loss_pull(codes_of(), inputs.astype(np.float32)))
    assert got == pytest.approx(near / near_weight + far / far_weight, rel=1e-3)


@pytest.mark.train
def test_pull_is_0_where_twins_agree_and_others_are_far(losses: ModuleType) -> None:
    signs = np.sign(codes_of(1)[:1])
    x = np.random.default_rng(0).standard_normal((1, 20))
    apart, inputs = twins_of(np.concatenate([signs, -signs])), twins_of(np.concatenate([x, -x]))
    assert float(losses.hash_loss_pull(apart, inputs)) == pytest.approx(0, abs=1e-5)
    assert float(losses.hash_loss_pull(np.ones_like(apart), inputs)) == pytest.approx(1, abs=1e-4)


@pytest.mark.train
def test_entropy_is_0_for_firm_and_1_for_open_bits(losses: ModuleType) -> None:
    signs = np.sign(codes_of()[:6])
    assert float(losses.bitwise_entropy_loss(twins_of(signs))) == pytest.approx(0, abs=1e-3)
    assert float(losses.bitwise_entropy_loss(np.concatenate([signs, -signs]))) == pytest.approx(1, abs=1e-5)
    assert float(losses.bitwise_entropy_loss(np.zeros((12, 64), np.float32))) == pytest.approx(1, abs=1e-5)
    codes = codes_of().astype(np.float64)
    p = (2 + codes[:6] + codes[6:]) / 4
    expected = np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p))
    assert float(losses.bitwise_entropy_loss(codes_of())) == pytest.approx(expected, rel=1e-4)


@pytest.mark.train
def test_balance_is_0_for_even_and_1_for_equal_bits(losses: ModuleType) -> None:
    signs = np.sign(codes_of()[:6])
    assert float(losses.balance_guard(np.concatenate([signs, -signs]))) == pytest.approx(0, abs=1e-7)
    assert float(losses.balance_guard(np.repeat(signs[:1], 12, axis=0))) == pytest.approx(1)
    assert float(losses.balance_guard(codes_of())) == pytest.approx(
        np.mean(codes_of().mean(axis=0) ** 2), rel=1e-4
    )


@pytest.mark.train
def test_prefixes_count_alike(losses: ModuleType) -> None:
    codes = codes_of()
    parts = [float(losses.balance_guard(codes[:, :k])) for k in (64, 128)]
    got = float(losses.over_prefixes(losses.balance_guard, codes, (64, 128)))
    assert got == pytest.approx(np.mean(parts), rel=1e-5)


@pytest.mark.train
@pytest.mark.parametrize("kind", ["random", "firm", "collapsed", "zero"])
def test_gradients_are_finite(losses: ModuleType, kind: str) -> None:
    import tensorflow as tf

    codes = {
        "random": codes_of(),
        "firm": twins_of(np.sign(codes_of()[:6])),
        "collapsed": np.ones((12, 128), np.float32),
        "zero": np.zeros((12, 128), np.float32),
    }[kind]
    inputs = np.random.default_rng(0).standard_normal((12, 50)).astype(np.float32)
    terms: list[Callable[[Any], Any]] = [
        losses.hash_loss_contrast,
        lambda c: losses.hash_loss_pull(c, inputs),
        losses.bitwise_entropy_loss,
        losses.balance_guard,
        lambda c: losses.mean_squared_error(codes_of(seed=1), c),
    ]
    for term in terms:
        variable = tf.Variable(codes)
        with tf.GradientTape() as tape:
            value = term(variable)
        gradient = tape.gradient(value, variable).numpy()
        assert np.isfinite(float(value)) and np.isfinite(gradient).all()


@pytest.mark.train
@pytest.mark.parametrize("preset", [TINY, PRESETS["paper"].with_options(units=16)], ids=lambda p: p.name)
def test_the_exported_network_is_the_trained_one(keras: ModuleType, preset: Preset, tmp_path: Path) -> None:
    from samaf.model.export import export_weights
    from samaf.model.network import Autoencoder

    keras.utils.set_random_seed(1)
    model = Autoencoder(preset)
    model.build(None)
    model.encoder.set_weights(
        [w + 0.1 * np.random.default_rng(0).standard_normal(w.shape) for w in model.encoder.get_weights()]
    )
    windows = (
        np.random.default_rng(1).standard_normal((6, preset.n_steps, preset.n_inputs)).astype(np.float32)
    )
    codes, reconstruction = model(windows)
    assert tuple(reconstruction.shape) == windows.shape
    codes = np.asarray(codes)
    export_weights(model, preset, tmp_path / "m.npz", training=[{"epoch": 1, "loss": 2.0}])
    stored = Weights.load(tmp_path / "m.npz")
    assert stored.facts["last_epoch"] == {"epoch": 1, "loss": 2.0} and stored.bits == preset.bits
    arrays = [*model.encoder.get_weights(), *model.code.get_weights()]
    exact = replace(stored, arrays=dict(zip(stored.arrays, arrays, strict=True)))
    bits = preset.bits[-1]
    np.testing.assert_allclose(np.tanh(Network(exact, bits)(windows)), codes, atol=1e-5)
    np.testing.assert_allclose(np.tanh(Network(stored, bits)(windows)), codes, atol=1e-2)


@pytest.mark.train
def test_the_learning_rate_rises_and_falls(keras: ModuleType) -> None:
    from samaf.model.fit import WarmUpThenCosine

    schedule = WarmUpThenCosine(0.1, 10, 110)
    rates = np.array([float(schedule(step)) for step in range(111)])
    assert rates[0] == pytest.approx(0.01) and rates.max() == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05) and rates[110] == pytest.approx(0, abs=1e-7)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[11:]) < 0).all()
    assert WarmUpThenCosine(**schedule.get_config()).get_config() == schedule.get_config()


@pytest.mark.train
def test_code_quality(keras: ModuleType) -> None:
    from samaf.model.fit import code_quality

    half = np.random.default_rng(0).random((50, 128)) < 0.5
    perfect = code_quality(np.concatenate([half, half]))
    assert perfect["val_ber"] == 0 and perfect["val_top1"] == 1 and perfect["val_unique"] == 1
    assert perfect["val_stranger_ber"] == pytest.approx(0.5, abs=0.02)
    collapsed = code_quality(np.ones((100, 128), bool))
    assert collapsed["val_unique"] == 0.02 and collapsed["val_stranger_ber"] == 0


@pytest.fixture
def small(keras: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The training loop with epochs of 4 steps, and a calibration on next to nothing."""
    from samaf.model import fit

    monkeypatch.setattr(fit, "STEPS_PER_EPOCH", 4)
    monkeypatch.setattr(fit, "HELD_OUT_PAIRS", 32)
    monkeypatch.setattr(clarity, "PAIRS", 100)
    for name, value in {"TWINS": 20, "LENGTHS_S": (1.0, 3.0), "QUERIES": 5, "FEWEST_RUNS": 2}.items():
        monkeypatch.setattr(f"samaf.model.calibrate.{name}", value)
    return fit


@pytest.mark.train
def test_a_training_killed_goes_on_as_if_it_had_not_been(
    small: ModuleType, music: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole.npz", tmp_path / "killed.npz"
    seen: list[tuple[int, int, float]] = []
    small.train(
        [str(music)],
        out=whole,
        preset=TINY,
        jobs=1,
        epoch_done=lambda epoch, epochs, logs: seen.append((epoch, epochs, logs["loss"])),
    )
    assert [row[:2] for row in seen] == [(1, 2), (2, 2)]
    assert seen[1][2] < seen[0][2]
    names = {"whole.npz", "whole.png", "whole.npz.work"}
    assert set(os.listdir(tmp_path)) == names
    weights = Weights.load(whole)
    assert weights.calibration["tail_64"].shape == (2, 2, 3, 7) and weights.facts["last_epoch"]["epoch"] == 2
    assert len(Encoder(whole, bits=64).encode(tune(3))) == 3

    def kill(epoch: int, epochs: int, logs: dict[str, float]) -> None:
        raise KeyboardInterrupt

    (tmp_path / "killed.npz.work").mkdir()
    for name in ("frames.f16", "chunks.npz", "corpus.json"):  # rendered once is enough
        os.link(tmp_path / "whole.npz.work" / name, tmp_path / "killed.npz.work" / name)
    with pytest.raises(KeyboardInterrupt):
        small.train([str(music)], out=killed, preset=TINY, jobs=1, epoch_done=kill)
    assert not killed.exists()
    epochs: list[int] = []
    small.train(
        [str(music)], out=killed, preset=TINY, jobs=1, epoch_done=lambda epoch, *_: epochs.append(epoch)
    )
    assert epochs == [2]
    histories = [
        json.loads((tmp_path / f"{name}.npz.work" / "state.json").read_text())["history"]
        for name in ("whole", "killed")
    ]
    assert [row["epoch"] for row in histories[1]] == [1, 2]
    for name in ("loss", "mse", "hash", "val_ber"):
        a, b = ([row[name] for row in history] for history in histories)
        np.testing.assert_allclose(a, b, rtol=1e-3)
    again = Weights.load(killed)
    np.testing.assert_allclose(again.floats["kernel"], weights.floats["kernel"], atol=2e-3)
    assert len(list((tmp_path / "killed.npz.work").glob("epoch-*"))) == 1


@pytest.mark.train
def test_the_papers_preset(small: ModuleType, music: Path, tmp_path: Path) -> None:
    preset = PRESETS["paper"].with_options(units=16, decoder_units=16, pairs=8, steps=4)
    out = small.train([str(music)], out=tmp_path / "paper.npz", preset=preset, jobs=1)
    weights = Weights.load(out)
    assert (weights.front_end, weights.stack, weights.bits) == ("mfcc", 1, (128,))
    assert len(Encoder(out).encode(tune(3))) == 3


@pytest.mark.train
def test_a_folder_of_short_recordings(small: ModuleType, tmp_path: Path) -> None:
    """They give short background runs."""
    for seed in range(4):
        write(tmp_path / f"{seed}.wav", tune(8, seed))
    out = small.train([str(tmp_path)], out=tmp_path / "m.npz", preset=TINY.with_options(steps=4), jobs=1)
    assert Weights.load(out).calibration["background"].shape[1] < 47
