"""Contrastively trained encoders: features, networks, pairs, training, and the search for their vectors."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from conftest import in_ci
from hypothesis import given
from hypothesis import strategies as st
from synth import RATE, tune, write

from baselines.contrastive import Contrastive, ContrastiveParameters, embedding_of
from baselines.encoders import ENCODERS, PROJECTIONS, features
from baselines.encoders.features import BANDS, FRAMES, SAMPLE_RATE, WINDOW, filters, log_mel, windows_of
from baselines.networks import WEIGHTS
from samaf.errors import AudioError, ModelError
from samaf.hamming import unpack

if not in_ci():
    pytest.importorskip("keras", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")

from baselines.encoders import batches, networks, training
from baselines.encoders.batches import Pairs, Recordings
from baselines.encoders.networks import Attention, Divided, Shape
from baselines.encoders.training import Recipe
from baselines.signs import CALIBRATION, SignEncoder, Signs, SignsParameters
from baselines.training import training_of
from baselines.vectors import Vectors

TINY = Recipe(1 / 16, 16, 2 * training.EPOCH_STEPS, 2e-3)


# -- features ----------------------------------------------------------------------------------------------------------


def test_every_band_hears_something_and_its_own_frequency_most() -> None:
    weights = filters()
    assert weights.shape == (513, BANDS) and (weights >= 0).all()
    loudest = weights.argmax(axis=0) * SAMPLE_RATE / 1024
    assert (np.diff(loudest) >= 0).all()
    assert loudest[0] == pytest.approx(300, abs=16) and loudest[-1] == pytest.approx(4000, abs=40)


def test_a_window_is_brought_to_one_range_whatever_its_level() -> None:
    second = tune(1.0, seed=3, rate=SAMPLE_RATE)
    [spectrum], [quieter] = log_mel(second[None]), log_mel(0.01 * second[None])
    assert spectrum.shape == (BANDS, FRAMES) and spectrum.dtype == np.float32
    assert spectrum.max() == 1.0 and spectrum.min() >= -1.0
    np.testing.assert_allclose(spectrum, quieter, atol=1e-3)


def test_a_tone_stands_in_its_band_and_time() -> None:
    t = np.arange(WINDOW) / SAMPLE_RATE
    [spectrum] = log_mel((np.sin(2 * np.pi * 1000 * t) * (t > 0.5)).astype(np.float32)[None])
    band, frame = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert filters()[:, band].argmax() * SAMPLE_RATE / 1024 == pytest.approx(1000, abs=8)
    assert frame > FRAMES / 2 and spectrum[band, :10].max() < 0


@pytest.mark.parametrize(
    ("n", "count"), [(0, 0), (WINDOW - 1, 0), (WINDOW, 1), (WINDOW + 4000, 2), (3 * WINDOW, 5)]
)
def test_windows_lie_half_a_second_apart(n: int, count: int) -> None:
    samples = np.arange(n, dtype=np.float32)
    windows = windows_of(samples)
    assert windows.shape == (count, WINDOW)
    assert windows[:, 0].tolist() == [features.HOP * k for k in range(count)]


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_embeddings_have_length_1_and_tell_windows_apart(encoder: str, projection: str) -> None:
    model = networks.network(Shape(encoder, projection, values=48, bands=32, frames=8, width=1 / 16))
    windows = np.random.default_rng(1).uniform(-1, 1, (5, 32, 8)).astype(np.float32)
    embeddings = model.predict(windows, verbose=0)
    assert embeddings.shape == (5, 48)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-3)
    assert (np.abs(embeddings[1:] - embeddings[0]).max(axis=1) > 1e-4).all()


def test_the_papers_networks_have_the_papers_sizes() -> None:
    connected = networks.network(Shape("connected"))
    assert [layer.units for layer in connected.layers if hasattr(layer, "units")] == [512, 256]
    assert networks.macs(connected) == 8192 * 512 + 512 * 256 + 64 * (4 * 32 + 32)
    cnn = networks.network(Shape("cnn", values=128))
    convolutions = [layer for layer in cnn.layers if hasattr(layer, "kernel_size")]
    assert [layer.filters for layer in convolutions[::2]] == [128, 128, 256, 256, 512, 512, 1024, 1024]
    assert {layer.kernel_size for layer in convolutions} == {(1, 3), (3, 1)}
    assert convolutions[-1].output.shape[1:] == (1, 1, 1024)


def test_attention_counts_all_alike_at_first_and_weighs_by_band_and_frame() -> None:
    layer = Attention()
    window = np.random.default_rng(2).standard_normal((3, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(layer(window), window, rtol=1e-5)
    of_bands, of_frames = np.linspace(-1, 1, 6, dtype=np.float32), np.linspace(0, 1, 4, dtype=np.float32)
    layer.set_weights([of_bands, of_frames])
    for got, x in zip(np.asarray(layer(window)), window, strict=True):
        time, spectrum = np.exp(x.T @ of_bands), np.exp(x @ of_frames)
        weights = np.outer(spectrum / spectrum.sum(), time / time.sum())
        np.testing.assert_allclose(got, 24 * weights * x, rtol=1e-4)


def test_divide_and_encode_gives_each_part_a_network_of_its_own() -> None:
    layer = Divided(5)
    x = np.random.default_rng(3).standard_normal((4, 15)).astype(np.float32)
    got = np.asarray(layer(x))
    kernel, bias, last, last_bias = layer.get_weights()
    for value in range(5):
        inner = x[:, 3 * value : 3 * value + 3] @ kernel[value] + bias[value]
        inner = np.where(inner > 0, inner, np.expm1(inner))
        np.testing.assert_allclose(
            got[:, value], inner @ last[value] + last_bias[value], rtol=1e-4, atol=1e-5
        )
    changed = x.copy()
    changed[:, :3] += 1.0
    assert np.array_equal(np.asarray(layer(changed))[:, 1:], got[:, 1:])


@pytest.mark.parametrize(
    "options", [{"encoder": "cpc"}, {"projection": "none"}, {"values": 0}, {"width": 0.0}]
)
def test_networks_that_there_are_not(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no encoder|no projection|above 0"):
        Shape(**{"encoder": "cnn", **options})


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> list[Path]:
    program("sox")
    folder = tmp_path_factory.mktemp("music")
    return [write(folder / f"{k:02}.wav", tune(12.0, seed=k)) for k in range(4)]


@pytest.fixture(scope="module")
def recordings(music: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    return Recordings.prepare(music, tmp_path_factory.mktemp("audio"), jobs=1, progress=lambda *_: None)


def test_recordings_are_prepared_once(music: list[Path], tmp_path: Path) -> None:
    told: list[str] = []

    def progress(done: int, total: int, note: str) -> None:
        told.append(note)

    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    for _ in range(2):
        found = Recordings.prepare([*music[:2], empty], tmp_path / "audio", jobs=1, progress=progress)
    assert len(told) == 3 and "empty.wav" in told[2]
    assert np.diff(found.starts).tolist() == [12 * SAMPLE_RATE] * 2
    assert len(found.dry) == len(found.wet) == 24 * SAMPLE_RATE


def test_reverb_keeps_length_and_level(program: Callable[[str], str]) -> None:
    program("sox")
    samples = tune(3.0, seed=9, rate=SAMPLE_RATE)
    wet = batches.reverberant(samples)
    assert wet.shape == samples.shape
    assert np.std(wet) == pytest.approx(np.std(samples), rel=0.05)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1.0
    assert np.abs(batches.reverberant(click)[SAMPLE_RATE // 2 :]).max() > 1e-4  # it rings for half a second
    assert not batches.reverberant(np.zeros(100, np.float32)).any()


def test_twins_are_the_same_second_and_batches_are_repeatable(recordings: Recordings) -> None:
    pairs = Pairs(recordings)
    windows = pairs.draw(12, np.random.default_rng(5))
    assert windows.shape == (24, BANDS, FRAMES) and windows.dtype == np.float32
    assert np.array_equal(windows, pairs.draw(12, np.random.default_rng(5)))
    flat = windows.reshape(24, -1)
    alike = np.corrcoef(flat)[:12, 12:]
    assert np.mean(np.diag(alike)) > np.mean(alike[~np.eye(12, dtype=bool)]) + 0.1
    assert not np.array_equal(windows[:12], windows[12:])


def test_what_is_held_out_is_never_drawn(recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> None:
    last = recordings.places(True)  # of fewer recordings than the usual share, the last one
    assert set(np.searchsorted(recordings.starts, last, side="right") - 1) == {3}
    monkeypatch.setattr(batches, "HELD_OUT", 2)
    trained, held_out = recordings.places(False), recordings.places(True)
    of = [set(np.searchsorted(recordings.starts, at, side="right") - 1) for at in (trained, held_out)]
    assert of == [{0, 2}, {1, 3}]
    for at in (trained, held_out):  # and a second, its twin and the grid lie within one recording
        k = np.searchsorted(recordings.starts, at, side="right") - 1
        assert (at - recordings.starts[k] >= 0.45 * SAMPLE_RATE).all()
        assert (at + WINDOW + 0.45 * SAMPLE_RATE <= recordings.starts[k + 1]).all()


def test_silence_is_not_trained_on(tmp_path: Path, program: Callable[[str], str]) -> None:
    program("sox")
    half = np.concatenate([tune(6.0), np.zeros(6 * RATE, np.float32)])
    paths = [write(tmp_path / f"{k}.wav", half) for k in range(2)]
    found = Recordings.prepare(paths, tmp_path / "audio", jobs=1, progress=lambda *_: None)
    at = found.places(False) % (12 * SAMPLE_RATE)
    assert at.min() < SAMPLE_RATE and 5 * SAMPLE_RATE < at.max() < 6 * SAMPLE_RATE


def test_too_little_to_train_on(tmp_path: Path, music: list[Path]) -> None:
    with pytest.raises(ModelError, match="1 of the recordings can be used, and 2 are needed"):
        Recordings.prepare(music[:1], tmp_path, jobs=1, progress=lambda *_: None)


# -- training ----------------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Stands for a kill."""


def trained(
    recordings: Recordings, folder: Path, stop_after: int = 0, encoder: str = "connected"
) -> list[Any]:
    epochs: list[dict[str, float]] = []

    def epoch_done(epoch: int, _: int, measures: dict[str, float]) -> None:
        epochs.append(measures)
        if epoch == stop_after:
            raise StoppedError

    shape = Shape(encoder, values=32, width=TINY.width)
    sources = Pairs(recordings), Pairs(recordings)
    about = training.about_of(shape, TINY, 0, "tunes")
    training.fit(sources, folder, shape, TINY, about, epoch_done=epoch_done)
    return epochs


def test_a_training_learns_and_goes_on_where_it_was_stopped(
    recordings: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "HELD_OUT_PAIRS", 64)
    monkeypatch.setattr(training, "EPOCH_STEPS", 25)
    whole = trained(recordings, tmp_path / "whole")
    assert len(whole) == 4 and whole[-1]["loss"] < whole[0]["loss"]
    assert whole[-1]["val_top1"] > 0.3  # of 64
    with pytest.raises(StoppedError):
        trained(recordings, tmp_path / "parts", stop_after=3)
    assert not (tmp_path / "parts" / WEIGHTS).exists()
    rest = trained(recordings, tmp_path / "parts")
    assert len(rest) == 1
    assert rest[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.05)
    kept = [json.loads((tmp_path / name / "network.json").read_text()) for name in ("whole", "parts")]
    assert len(kept[1]["training"]["history"]) == 4
    assert kept[0]["macs"] == kept[1]["macs"] > 8192 * 32
    assert not (tmp_path / "parts" / "work").exists()
    shape = Shape("connected", values=32, width=TINY.width)
    assert training_of(tmp_path / "parts") == training.about_of(shape, TINY, 0, "tunes")
    assert training_of(tmp_path) is None


def test_an_unfinished_training_is_not_overwritten(
    recordings: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "HELD_OUT_PAIRS", 16)
    monkeypatch.setattr(training, "EPOCH_STEPS", 2)
    with pytest.raises(StoppedError):
        trained(recordings, tmp_path, stop_after=1)
    with pytest.raises(ModelError, match="unfinished training with other settings or audio"):
        trained(recordings, tmp_path, encoder="lstm")
    with open(tmp_path / "work" / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="another training is at work here"):
            trained(recordings, tmp_path)
    assert json.loads((tmp_path / "work" / "state.json").read_text())["encoder"] == "connected"


def test_damaged_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no trained network"):
        training.load(tmp_path)
    shape = Shape("connected", values=32, width=TINY.width)
    training.save(networks.network(shape), shape, tmp_path, {})
    assert training.load(tmp_path).output_shape == (None, 32)
    (tmp_path / WEIGHTS).write_bytes(b"HDF")
    with pytest.raises(ModelError, match="damaged network"):
        training.load(tmp_path)
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged network"):
        training.load(tmp_path)


def test_vectors_of_another_network_are_refused(tmp_path: Path) -> None:
    parameters = ContrastiveParameters("connected", weights=str(tmp_path))
    shape = Shape("connected", width=TINY.width)
    training.save(networks.network(shape), shape, parameters.folder, {})
    system = Contrastive(parameters)
    system.add("tune", tune(5.0, rate=SAMPLE_RATE))
    system.save(tmp_path / "store")
    before = Contrastive.identity(parameters)
    assert Contrastive.load(tmp_path / "store").tracks == ["tune"]
    training.save(networks.network(shape), shape, parameters.folder, {})
    assert Contrastive.identity(parameters) != before
    with pytest.raises(ModelError, match="trained anew since this store was made"):
        Contrastive.load(tmp_path / "store")


def test_without_a_network_it_is_told_how_to_train_one(tmp_path: Path) -> None:
    parameters = ContrastiveParameters(encoder="lstm", weights=str(tmp_path))
    with pytest.raises(
        ModelError, match="bench train contrastive --encoder lstm --values 64 --projection divided"
    ):
        Contrastive(parameters)


# -- vectors -----------------------------------------------------------------------------------------------------------


def unit(rng: np.random.Generator, n: int, values: int = 16) -> np.ndarray:
    x = rng.standard_normal((n, values)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(st.integers(0, 2), st.integers(-2, 11), st.integers(1, 6), st.integers(0, 99))
def test_a_sequence_is_found_where_it_lies(track: int, row: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = [unit(rng, 12) for _ in range(3)]
    vectors = Vectors(16)
    for part in tracks:
        vectors.add(part)
    padded = np.concatenate([np.zeros((4, 16)), tracks[track], np.zeros((8, 16))]).astype(np.float32)
    clip = padded[row + 4 : row + 4 + m]
    place = vectors.search(clip)
    if not clip.any():
        assert place is None
        return
    assert place is not None
    assert place.track == track and place.row == pytest.approx(row, abs=0.5)
    assert place.score == pytest.approx(np.mean(clip.any(axis=1)), abs=1e-5)


def test_the_best_place_is_that_of_all_places() -> None:
    rng = np.random.default_rng(8)
    tracks = [unit(rng, 9), unit(rng, 14)]
    vectors = Vectors(16)
    for part in tracks:
        vectors.add(part)
    for _ in range(20):
        clip = unit(rng, 3)
        places = [
            (float(np.mean(np.sum(clip * part[row : row + 3], axis=1))), k, row)
            for k, part in enumerate(tracks)
            for row in range(len(part) - 2)
        ]
        score, track, row = max(places)
        place = vectors.search(clip)
        assert place is not None and place.score >= score - 1e-5
        if place.score == pytest.approx(score, abs=1e-5):
            assert (place.track, round(place.row)) == (track, row)


def best_score(clip: np.ndarray, part: np.ndarray) -> float:
    m = len(clip)
    padded = np.concatenate([np.zeros((m, 16)), part, np.zeros((m, 16))])
    return max(
        float(np.mean(np.sum(clip * padded[row : row + m], axis=1))) for row in range(1, len(part) + m)
    )


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 99))
def test_the_runner_up_is_the_best_of_all_other_tracks(m: int, others: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = [unit(rng, 6) for _ in range(1 + others)]  # few enough rows for all to be looked at
    vectors = Vectors(16)
    for part in tracks:
        vectors.add(part)
    clip = unit(rng, m)
    place = vectors.search(clip)
    assert place is not None
    other = max(best_score(clip, part) for track, part in enumerate(tracks) if track != place.track)
    assert place.runner_up <= other + 1e-5
    if m == 1:  # longer ones may begin where no row is near enough
        assert place.runner_up == pytest.approx(other, abs=1e-5)
    assert place.lead == pytest.approx((place.score - place.runner_up) / (1 - place.runner_up))


def test_a_track_alone_among_the_nearest_leads_no_more_than_it_may() -> None:
    rng = np.random.default_rng(4)
    one = unit(rng, 1)
    near, far = one + 0.01 * unit(rng, 60), unit(rng, 10)
    vectors = Vectors(16)
    for part in (near, far):
        vectors.add((part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32))
    place = vectors.search(one)
    assert place is not None and place.track == 0
    assert best_score(one, far) <= place.runner_up <= place.score


def test_what_is_stored_twice_has_no_lead() -> None:
    rng = np.random.default_rng(5)
    track = unit(rng, 12)
    vectors = Vectors(16)
    for part in (track, unit(rng, 12), track):
        vectors.add(part)
    place = vectors.search(track[3:7])
    assert place is not None and place.score == pytest.approx(1.0, abs=1e-5)
    assert place.lead == pytest.approx(0.0, abs=1e-3)


def test_a_place_between_rows_is_told_to_a_fraction() -> None:
    rng = np.random.default_rng(9)
    knots = unit(rng, 40)
    at = np.arange(0, 38, 0.1)
    low = at.astype(int)
    fine = knots[low] * (1 - (at - low))[:, None] + knots[low + 1] * (at - low)[:, None]
    fine = np.array([np.mean(fine[max(0, i - 10) : i + 11], axis=0) for i in range(len(fine))], np.float32)
    fine /= np.linalg.norm(fine, axis=1, keepdims=True)
    vectors = Vectors(16)
    vectors.add(fine[::10])
    for start in (103, 98, 151):
        place = vectors.search(fine[start : start + 60 : 10])
        assert place is not None and place.row == pytest.approx(start / 10, abs=0.15)


def test_silence_meets_nothing() -> None:
    vectors = Vectors(16)
    assert vectors.search(unit(np.random.default_rng(1), 3)) is None
    vectors.add(np.zeros((5, 16), np.float32))
    assert vectors.search(unit(np.random.default_rng(1), 3)) is None
    vectors.add(np.empty((0, 16), np.float32))
    vectors.add(unit(np.random.default_rng(2), 4))
    found = vectors.search(unit(np.random.default_rng(2), 4))
    assert found is not None and found.track == 2 and found.row == pytest.approx(0, abs=0.5)
    assert vectors.search(np.zeros((3, 16), np.float32)) is None


# -- signs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def untrained(tmp_path: Path) -> SignsParameters:
    """A network that was never trained, of no use but for its form."""
    parameters = SignsParameters("connected", weights=str(tmp_path))
    shape = Shape("connected", width=TINY.width)
    training.save(networks.network(shape), shape, parameters.folder, {})
    return parameters


def test_signs_are_those_of_the_embedding(untrained: SignsParameters) -> None:
    embed = embedding_of(untrained)
    encoder = SignEncoder(embed, untrained.network)
    samples = np.concatenate([tune(3.0, seed=4), np.zeros(2 * RATE, np.float32)])
    print_ = encoder.encode_query(samples)
    assert (print_.bits, print_.hop_s, len(print_), print_.duration_s) == (64, 0.1, 41, 5.0)
    assert print_.valid[:25].all() and not print_.valid[-10:].any()
    values = embed(soxr.resample(samples, RATE, SAMPLE_RATE))  # every half second
    assert print_.confidence is not None
    np.testing.assert_allclose(print_.confidence[::5], np.abs(values), atol=2e-3)
    right = unpack(print_.hashes[::5], 64) == (values > 0)
    assert right[print_.valid[::5]].mean() > 0.99
    with pytest.raises(AudioError, match="at least 1 s"):
        encoder.encode_query(samples[:15000])


def test_signs_that_cannot_be_had(untrained: SignsParameters) -> None:
    with pytest.raises(ModelError, match="64, 128 or 256 bits, not 96"):
        Signs.check(replace(untrained, values=96))
    with pytest.raises(ModelError, match="bench train contrastive --encoder lstm"):
        Signs.check(replace(untrained, encoder="lstm"))
    with pytest.raises(
        ModelError, match="never calibrated; calibrate them: bench train signs --encoder connected"
    ):
        Signs(untrained)
    np.savez(untrained.folder / CALIBRATION, model_id=np.array("0" * 64))
    with pytest.raises(ModelError, match="calibrated before it was trained anew"):
        Signs(untrained)
