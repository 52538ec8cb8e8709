"""The U-Net autoencoder: its spectrograms, clips, network, training, what it rebuilds, and the search for its codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import in_ci
from synth import RATE, bursts, tune, write

from baselines.autoencoder import FEATURES, FRONT_ENDS
from baselines.autoencoder.features import BANDS, CLIP, FRAMES, TRANSFORMS, clips_of, inputs_of, normalised
from baselines.autoencoder.reconstruction import PICTURE_PEAK, mse, psnr, rebuilt, samples_of, span
from samaf.errors import ModelError

if not in_ci():
    pytest.importorskip("keras", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")

import keras

from baselines.autoencoder import clips, training
from baselines.autoencoder.clips import Clips, Noises, Recordings, split, with_noise
from baselines.autoencoder.network import autoencoder, decoder, encoder
from baselines.autoencoder.training import Recipe
from baselines.networks import NETWORK, WEIGHTS
from baselines.training import save, training_of
from baselines.unet import SEGMENT_HOP_S, Store, UNet, UNetParameters

TINY = Recipe(1 / 16, 8, 4, 2e-3, True, clips=48)
CLIP_AT = tune(4.0, seed=3)


def nothing(*_: object) -> None:
    pass


# -- spectrograms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_tone_stands_in_its_band_and_time(front_end: str) -> None:
    t = np.arange(CLIP) / RATE
    transform = TRANSFORMS[front_end]
    [spectrogram] = transform.log_mel((np.sin(2 * np.pi * 1000 * t) * (t > 2.0)).astype(np.float32)[None])
    assert spectrogram.shape == (BANDS, FRAMES) and spectrogram.dtype == np.float32
    band, frame = np.unravel_index(spectrogram.argmax(), spectrogram.shape)
    centre = transform.filters[:, band].argmax() * transform.rate / 1024
    assert centre == pytest.approx(1000, abs=60)
    assert frame > FRAMES / 2 and spectrogram[band, : FRAMES // 2 - 5].max() < np.log(1e-6) + 1.0


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_band_hears_something(front_end: str) -> None:
    filters = TRANSFORMS[front_end].filters
    assert filters.shape == (513, BANDS) and (filters >= 0).all() and (filters.max(axis=0) > 0.3).all()


def test_normalised_bands_have_mean_0_and_spread_1_unless_they_hear_nothing() -> None:
    plain = TRANSFORMS["paper"].log_mel(CLIP_AT[None])
    found, mean, spread = normalised(plain)
    np.testing.assert_allclose(found.mean(axis=2), 0.0, atol=1e-4)
    heard, silent = found[0, :40].std(axis=1), found[0, -10:]  # of which the last lie over 8 kHz
    np.testing.assert_allclose(heard, 1.0, rtol=1e-3)
    assert np.abs(silent[:, 5:-5]).max() < 1.0  # where the clip is cut off, a click is heard
    np.testing.assert_allclose(found * spread + mean, plain, atol=1e-3)
    assert np.array_equal(inputs_of(CLIP_AT[None], "paper", "normalised"), found)
    assert np.array_equal(inputs_of(CLIP_AT[None], "paper", "plain"), plain)


def test_clips_are_whole() -> None:
    hop = round(SEGMENT_HOP_S * RATE)
    assert [len(clips_of(np.zeros(n, np.float32), hop)) for n in (0, CLIP - 1, CLIP, CLIP + hop)] == [
        0,
        0,
        1,
        2,
    ]


# -- network -----------------------------------------------------------------------------------------------------------


def test_the_network_is_the_article_s_layer_by_layer() -> None:
    assert autoencoder().count_params() == 6_001_601
    assert [shape[1:] for shape in encoder().output_shape] == [
        (32, 188, 64),
        (16, 94, 128),
        (8, 47, 256),
        (4, 23, 256),
        (2, 11, 256),
        (1, 5, 64),
    ]
    joined = [x.output.shape[1:] for x in decoder().layers if isinstance(x, keras.layers.Concatenate)]
    assert joined == [(2, 11, 512), (4, 23, 512), (8, 47, 512), (16, 94, 256), (32, 188, 128)]
    assert decoder().output_shape == (None, BANDS, FRAMES, 1)
    for half, count in ((encoder(), 3), (decoder(), 4)):
        dropped = [x.rate for x in half.layers if isinstance(x, keras.layers.Dropout)]
        assert dropped == [0.3] * count
        norms = [x for x in half.layers if isinstance(x, keras.layers.GroupNormalization)]
        assert all((x.groups, x.epsilon) == (x.output.shape[-1], 1e-5) for x in norms)
        assert not any(x.center or x.scale for x in norms)
    slopes = [
        x.negative_slope for x in autoencoder().get_layer("decoder").layers if hasattr(x, "negative_slope")
    ]
    assert slopes == pytest.approx([0.3] * 6)


def test_convolutions_pad_as_pytorch_does() -> None:
    """Against the definition: output[i, j] of a kernel of 4 with a stride of 2 sees input from 2 i - 1 on."""
    half = encoder(1 / 64)  # one channel in the first layer
    first = keras.Model(half.input, next(x for x in half.layers if isinstance(x, keras.layers.Conv2D)).output)
    x = np.random.default_rng(0).standard_normal((1, BANDS, FRAMES, 1)).astype(np.float32)
    kernel = np.asarray(first.layers[-1].kernel)[:, :, 0, 0]
    padded = np.pad(x[0, :, :, 0], 1)
    found = np.asarray(first(x))[0, :, :, 0]
    for i, j in ((0, 0), (5, 187), (31, 90)):
        assert found[i, j] == pytest.approx(
            np.sum(kernel * padded[2 * i : 2 * i + 4, 2 * j : 2 * j + 4]), abs=1e-5
        )
    half = decoder(1 / 64)
    last = [x for x in half.layers if isinstance(x, keras.layers.Conv2DTranspose)][-1]
    small = np.random.default_rng(1).standard_normal((1, 3, 4, last.input.shape[-1])).astype(np.float32)
    whole = np.zeros((2 * 3 + 2, 2 * 4 + 2))
    kernel = np.asarray(last.kernel)[:, :, 0]  # (4, 4, in)
    for i, j in np.ndindex(3, 4):
        whole[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += kernel @ small[0, i, j]
    np.testing.assert_allclose(np.asarray(last(small))[0, :, :, 0], whole[1:-1, 1:-1], atol=1e-5)


# -- clips -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tunes")
    return [write(folder / f"{k}.wav", tune(9.0, seed=k)) for k in range(4)]


@pytest.fixture(scope="module")
def recordings(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    return Recordings.prepare(paths, [], tmp_path_factory.mktemp("audio"), jobs=1)


@pytest.mark.parametrize("n", [3, 4, 20, 101])
def test_every_recording_is_in_one_part(n: int) -> None:
    parts = split(n)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
    assert all(len(part) for part in parts.values())
    if n >= 20:
        assert [len(part) / n for part in parts.values()] == pytest.approx([0.7, 0.15, 0.15], abs=0.03)
    assert all(np.array_equal(part, split(n)[name]) for name, part in parts.items())


def test_clips_are_of_their_part_and_repeatable(recordings: Recordings) -> None:
    for part in clips.PARTS:
        clean, noisy = Clips(recordings, part).draw(6, np.random.default_rng(1))
        again = Clips(recordings, part).draw(6, np.random.default_rng(1))
        assert np.array_equal(clean, again[0]) and np.array_equal(noisy, again[1])
        for clip, spoilt in zip(clean, noisy, strict=True):
            whole = recordings.samples.astype(np.float32) / 32768
            at = np.flatnonzero(whole[: -CLIP + 1] == clip[0])
            at = [int(k) for k in at if np.array_equal(whole[k : k + CLIP], clip)]
            assert len(at) == 1
            number = int(np.searchsorted(recordings.starts, at[0], side="right")) - 1
            assert number in recordings.parts[part]
            assert at[0] + CLIP <= recordings.starts[number + 1]
            snr = 10 * np.log10(np.mean(clip**2) / np.mean((spoilt - clip) ** 2))
            assert min(abs(snr - one) for one in clips.TRAINING_SNRS) < 0.05


def test_noise_has_the_level_that_is_asked_for(tmp_path: Path) -> None:
    noisy = with_noise(CLIP_AT, 3.0 * bursts(4.0), 7.5)
    assert 10 * np.log10(np.mean(CLIP_AT**2) / np.mean((noisy - CLIP_AT) ** 2)) == pytest.approx(
        7.5, abs=1e-3
    )
    assert not with_noise(np.zeros(CLIP, np.float32), CLIP_AT, 0.0).any()
    short = [write(tmp_path / "short.wav", bursts(1.5))]
    for files in ([], short):
        noises = Noises.prepare(files, tmp_path / "audio", jobs=1, progress=nothing)
        drawn = noises.draw(np.random.default_rng(0))
        assert drawn.shape == (CLIP,) and drawn.std() > 0


def test_too_little_to_train_on(paths: list[Path], tmp_path: Path) -> None:
    told = []
    short = write(tmp_path / "short.wav", tune(3.0))
    with pytest.raises(ModelError, match="2 of the recordings can be used, and 3 are needed at least"):
        Recordings.prepare([*paths[:2], short], [], tmp_path, jobs=1, progress=lambda *x: told.append(x[2]))
    assert "short.wav: shorter than 4 s" in told[2]


# -- training ----------------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Stands for a kill."""


def trained(
    paths: list[Path], folder: Path, audio: Path, stop_after: int = 0, recipe: Recipe = TINY
) -> list[dict]:
    epochs = []

    def epoch_done(epoch: int, _: int, measures: dict[str, float]) -> None:
        epochs.append(measures)
        if epoch == stop_after:
            raise StoppedError

    training.train(paths, [], folder, "16k", "normalised", recipe, audio=audio, epoch_done=epoch_done)
    return epochs


def test_a_training_learns_and_goes_on_where_it_was_stopped(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "EPOCH_CLIPS", 16)
    monkeypatch.setattr(training, "HELD_OUT_CLIPS", 8)
    whole = trained(paths, tmp_path / "whole", tmp_path / "audio")
    assert len(whole) == 3 and whole[-1]["loss"] < whole[0]["loss"]
    assert whole[-1]["passes"] == pytest.approx(48 * 2.5 / 18)  # of two recordings of 9 s
    with pytest.raises(StoppedError):
        trained(paths, tmp_path / "parts", tmp_path / "audio", stop_after=2)
    assert not (tmp_path / "parts" / WEIGHTS).exists()
    with pytest.raises(ModelError, match="unfinished training with other settings or audio"):
        trained(paths, tmp_path / "parts", tmp_path / "audio", recipe=replace(TINY, rate=1e-3))
    rest = trained(paths, tmp_path / "parts", tmp_path / "audio")
    assert len(rest) == 1 and rest[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.05)
    about = json.loads((tmp_path / "parts" / NETWORK).read_text())["training"]
    assert len(about["history"]) == 3 and {"val_loss", "val_top1", "clips_per_s"} <= set(about["history"][0])
    assert training_of(tmp_path / "parts") == training_of(tmp_path / "whole") is not None
    assert not (tmp_path / "parts" / "work").exists()
    assert training.load(tmp_path / "parts").output_shape == (None, BANDS, FRAMES, 1)


def test_the_article_s_recipe() -> None:
    for features, epochs in (("normalised", 20), ("plain", 60)):
        recipe = training.RECIPES["paper"][features]
        assert (recipe.width, recipe.batch, recipe.rate, recipe.decays) == (1.0, 128, 1e-4, False)
        assert recipe.epochs(2.5 * 2048) == epochs
    for recipe in (*training.RECIPES["small"].values(), *training.RECIPES["paper"].values()):
        assert training.EPOCH_CLIPS % recipe.batch == recipe.batch % recipe.at_once == 0


# -- what is rebuilt ---------------------------------------------------------------------------------------------------


def test_the_code_alone_knows_nothing_of_what_passes_it_by() -> None:
    keras.utils.set_random_seed(0)
    model = autoencoder(1 / 16)
    inputs = inputs_of(np.stack([CLIP_AT, tune(4.0, seed=8)]), "16k", "normalised")
    whole, alone = rebuilt(model, inputs), rebuilt(model, inputs, code_only=True)
    assert whole.shape == alone.shape == inputs.shape
    np.testing.assert_allclose(whole, model.predict(inputs[..., None], verbose=0)[..., 0], atol=1e-4)
    *beside, code = model.get_layer("encoder")(inputs[..., None])
    zeros = [np.zeros(x.shape, np.float32) for x in beside]
    expected = np.asarray(model.get_layer("decoder")([*zeros, np.asarray(code)]))[..., 0]
    np.testing.assert_allclose(alone, expected, atol=1e-4)
    assert np.abs(whole - alone).max() > 0.1


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_samples_sound_like_the_spectrogram_that_they_are_made_of(front_end: str) -> None:
    transform = TRANSFORMS[front_end]
    [given] = transform.log_mel(CLIP_AT[None])
    samples = samples_of(given, front_end)
    assert samples.shape == (CLIP,) and samples.dtype == np.float32
    assert np.std(samples) == pytest.approx(np.std(CLIP_AT), rel=0.1)
    [heard] = transform.log_mel(samples[None])
    assert np.corrcoef(heard.ravel(), given.ravel())[0, 1] > 0.85
    assert not samples_of(np.full((BANDS, FRAMES), np.log(1e-6), np.float32), front_end).any()


def test_the_article_s_psnr_takes_a_peak_of_255() -> None:
    assert psnr(np.array([0.4976]), PICTURE_PEAK)[0] == pytest.approx(51.16, abs=0.01)
    x = np.array([[0.0, 4.0], [1.0, 1.0]], np.float32)
    assert mse(x, x + 2).tolist() == [4.0, 4.0] and span(x).tolist() == [4.0, 0.0]
    assert psnr(mse(x, x + 2), 4.0).tolist() == pytest.approx([6.0206, 6.0206], abs=1e-3)


# -- the system --------------------------------------------------------------------------------------------------------


@pytest.fixture
def parameters(tmp_path: Path) -> UNetParameters:
    """Of a network that was never trained."""
    keras.utils.set_random_seed(0)
    parameters = UNetParameters(weights=str(tmp_path / "networks"))
    save(autoencoder(1 / 8), parameters.folder, {"width": 1 / 8, "training": {}})
    return parameters


def codes(n: int, seed: int = 0, values: int = 320) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, values)).astype(np.float32)


def test_ids_tell_song_and_segment_and_go_on_from_the_highest() -> None:
    store = Store(320)
    songs = [codes(4, 1), codes(3, 2)]
    store.add(0, np.array([0, 1, 3, 4]), songs[0])
    again = Store(320)
    again.restore(store.codes, store.ids)
    again.add(1, np.arange(3), songs[1])
    assert np.array_equal(again.codes, np.concatenate(songs))
    assert (again.ids >> 32).tolist() == [0] * 4 + [1] * 3
    assert (again.ids & 0xFFFFFFFF).tolist() == [0, 1, 3, 4, 0, 1, 2]
    alike, found, segments = again.nearest(songs[0][2:3])
    assert (found[0, 0], segments[0, 0]) == (0, 3) and alike[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert alike.shape == (1, 5) and (np.diff(alike[0]) <= 0).all()


def test_the_segment_most_like_a_stored_one_decides() -> None:
    store = Store(320)
    right, wrong = codes(6, 1), codes(6, 2)
    store.add(0, np.arange(6), right)
    store.add(1, np.arange(6), wrong)
    starts_s = 0.25 * np.arange(3)
    asked = np.stack([right[2] + 0.6 * codes(1, 3)[0], wrong[4] + 0.3 * codes(1, 4)[0], right[2]])
    place = store.place(asked, starts_s)
    assert place is not None and (place[0], place[1]) == (0, 2 * 2.5 - 0.5)
    assert place[2] == pytest.approx(1.0, abs=1e-5)
    assert 0.9 < place[3] < 0.99  # the other song's fourth
    alone = Store(320)
    alone.add(0, np.arange(6), right)
    song, _, alike, others = alone.place(asked[2:], starts_s[2:]) or (-1, 0.0, 0.0, 0.0)
    assert song == 0 and alike == pytest.approx(1.0, abs=1e-5) and 0 <= others < 0.5
    assert store.place(codes(0), np.empty(0)) is None
    assert Store(320).place(asked, starts_s) is None


def test_only_whole_segments_of_recordings_are_stored_and_short_clips_are_filled_up(
    parameters: UNetParameters,
) -> None:
    system = UNet(parameters)
    for name, seconds in (("short", 3.9), ("two", 6.5), ("one", 6.4)):
        system.add(name, tune(seconds, seed=len(name)))
    assert [system.tracks[k >> 32] for k in system.tables()["ids"]] == ["two", "two", "one"]
    match = system.query(tune(6.5, seed=3)[: 3 * RATE])
    assert match is not None and match.score < 1.0


def test_codes_of_another_network_are_refused(parameters: UNetParameters, tmp_path: Path) -> None:
    system = UNet(parameters)
    system.add("tune", tune(5.0))
    system.save(tmp_path / "store")
    before = UNet.identity(parameters)
    assert UNet.load(tmp_path / "store").tracks == ["tune"]
    save(autoencoder(1 / 8), parameters.folder, {"width": 1 / 8, "training": {}})
    assert UNet.identity(parameters) != before
    with pytest.raises(ModelError, match="trained anew since this store was made"):
        UNet.load(tmp_path / "store")


def test_networks_that_there_are_not(tmp_path: Path) -> None:
    assert FEATURES[0] == UNetParameters().features and FRONT_ENDS[0] == UNetParameters().front_end
    parameters = UNetParameters("paper", "plain", weights=str(tmp_path))
    with pytest.raises(
        ModelError,
        match="no such network; train it: bench train unet --front-end paper --features plain --data",
    ):
        UNet(parameters)
    for options in ({"front_end": "8k"}, {"features": "none"}):
        with pytest.raises(ValueError, match="there are"):
            UNetParameters(**options)
    save(autoencoder(1 / 16), parameters.folder, {"width": 1 / 16, "training": {}})
    (parameters.folder / WEIGHTS).write_bytes(b"HDF")
    with pytest.raises(ModelError, match=r"holds a damaged network .* train it again"):
        UNet(parameters)
