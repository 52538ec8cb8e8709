"""Smaller networks out of trained ones, their fine-tuning, and a teacher."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import in_ci
from synth import tune, write
from test_encoder import lstm, random_weights

from samaf.bodies import Lstm
from samaf.cli import main
from samaf.encoder import Encoder, Network
from samaf.model import clarity
from samaf.model.augment import Sources
from samaf.model.corpus import Corpus, find_audio
from samaf.model.presets import PRESETS, Preset, fine_tuning
from samaf.model.slimming import narrowed, pruned
from samaf.weights import Weights

TINY = Preset(
    "tiny", units=16, decoder_units=16, bits=(64, 128), renderings=1, pairs=16, steps=8, neighbours=0.0
)


def windows(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 25, 256)).astype(np.float32)


# Smaller networks


def test_units_that_send_nothing_on_are_left_out_first() -> None:
    weights = random_weights(units=32)
    idle = np.array([3, 17, 31])
    silent = {name: weights.floats[name].copy() for name in ("recurrent", "dense")}
    for array in silent.values():
        array[idle] = 0
    weights = replace(weights, arrays={**weights.arrays, **silent}, clarity=None)
    made = narrowed(weights, 29)
    assert made.body == Lstm(256, 29) and made.units == 29 and not made.calibration
    np.testing.assert_allclose(
        Network(made, 256)(windows(5)), [lstm(weights, window) for window in windows(5)], atol=1e-4
    )
    assert made.model_id != weights.model_id
    fewer = narrowed(weights, 8)
    assert {name: array.shape for name, array in fewer.floats.items()} == {
        **fewer.body.shapes(), "dense": (8, 256), "dense_bias": (256,),
    }  # fmt: skip


@pytest.mark.parametrize("units", [0, 33])
def test_units_that_there_are_not(units: int) -> None:
    with pytest.raises(ValueError, match="units must be from 1 to the 32 of an LSTM"):
        narrowed(random_weights(units=32), units)


def test_the_smallest_weights_of_each_matrix_are_pruned() -> None:
    weights = random_weights()
    made = pruned(weights, 0.7)
    for name, array in weights.floats.items():
        got = made.floats[name]
        if array.ndim == 2:
            assert (got == 0).mean() == pytest.approx(0.7, abs=0.01)
            assert np.abs(array[got == 0]).max() <= np.abs(got[got != 0]).min()
            np.testing.assert_array_equal(got[got != 0], array[got != 0])
        else:
            np.testing.assert_array_equal(got, array)
    again = pruned(made, 0.8)
    assert all(
        (again.floats[name][made.floats[name] == 0] == 0).all() for name in ("kernel", "recurrent", "dense")
    )


def test_a_fine_tuning_has_the_shapes_of_its_file() -> None:
    made = fine_tuning(PRESETS["samaf"], random_weights(units=48))
    assert (made.units, made.bits, made.stack, made.front_end) == (48, (64, 128, 256), 4, "log-mel")
    assert made.steps < PRESETS["samaf"].steps and made.learning_rate < PRESETS["samaf"].learning_rate
    assert (
        fine_tuning(PRESETS["samaf"], random_weights(), taught=True).learning_rate
        == PRESETS["samaf"].learning_rate
    )
    of_mfcc = fine_tuning(PRESETS["samaf"], random_weights("mfcc", 1))
    assert (of_mfcc.front_end, of_mfcc.variety, of_mfcc.overlay) == ("mfcc", 0.0, 0.0)


# Training


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for seed in range(4):
        write(folder / f"{seed}.wav", tune(26, seed))
    return folder


@pytest.fixture(scope="module")
def corpus(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.render(find_audio([music]), Sources(), TINY, tmp_path_factory.mktemp("corpus"), jobs=1)


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The training loop with epochs of 4 steps, and no calibration."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if not in_ci():
        pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    from samaf.model import fit

    monkeypatch.setattr(fit, "STEPS_PER_EPOCH", 4)
    monkeypatch.setattr(fit, "HELD_OUT_PAIRS", 32)
    monkeypatch.setattr(fit, "DECODER_STEPS", 3)
    monkeypatch.setattr(clarity, "PAIRS", 100)
    monkeypatch.setattr("samaf.model.export.calibrate", lambda path, *_, **__: Weights.load(path))
    return fit


def tiny_weights(seed: int = 0) -> Weights:
    whole = random_weights(units=16, seed=seed)
    short = {name: whole.floats[name][..., :128] for name in ("dense", "dense_bias")}
    return replace(whole, bits=(64, 128), arrays={**whole.arrays, **short}, clarity=None, calibration={})


def test_renderings_are_lent(music: Path, tmp_path: Path) -> None:
    paths, (first, other) = find_audio([music]), (tmp_path / "a", tmp_path / "b")
    Corpus.lend(first, other)
    assert not other.exists()  # there is nothing to lend
    own = Corpus.render(paths, Sources(), TINY, first, jobs=1)
    frames = np.array(own.frames)
    Corpus.lend(first, other)
    assert (other / "frames.f16").samefile(first / "frames.f16")
    told: list[int] = []
    Corpus.render(paths, Sources(), TINY, other, jobs=1, progress=lambda done, total, note: told.append(done))
    assert told == [len(paths)]  # all of them at once
    Corpus.render(
        paths[:2], Sources(), TINY, other, jobs=1
    )  # others, which shall not spoil those that were lent
    np.testing.assert_array_equal(Corpus.render(paths, Sources(), TINY, first, jobs=1).frames, frames)
    Corpus.lend(first, other)
    assert Corpus(other, TINY).paths == paths[:2]  # it has some


@pytest.mark.train
def test_a_network_begins_where_the_file_left_it(fit: ModuleType, corpus: Corpus, tmp_path: Path) -> None:
    from samaf.model.network import Autoencoder

    weights = tiny_weights()
    model = Autoencoder(TINY, start=weights)
    model.build(None)
    codes, _ = model(windows(4))
    np.testing.assert_allclose(codes, np.tanh([lstm(weights, window) for window in windows(4)]), atol=1e-4)
    before = [array.copy() for array in model.encoder.get_weights()]
    decoder = model.decoder.get_weights()[0].copy()
    batches = fit.Batches(fit.Twins(corpus, corpus.split(0)[0]), TINY, 0, 0)
    fit._fit_decoder(model, batches)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.encoder.get_weights(), strict=True))
    assert not np.array_equal(model.decoder.get_weights()[0], decoder)
    assert model.encoder.trainable and model.code.trainable


@pytest.mark.train
def test_what_is_pruned_stays_so(fit: ModuleType, corpus: Corpus, tmp_path: Path) -> None:
    from samaf.model.export import export_weights
    from samaf.model.network import Autoencoder

    start = pruned(tiny_weights(), 0.6)
    model = Autoencoder(TINY, start=start, masked=True)
    fit.fit(model, corpus, tmp_path, origin={"prune": 0.6})
    export_weights(model, TINY, tmp_path / "m.npz", training=[], origin={"prune": 0.6})
    made = Weights.load(tmp_path / "m.npz")
    assert made.facts["origin"] == {"prune": 0.6}
    for name in ("kernel", "recurrent", "dense"):
        zero = start.floats[name] == 0
        assert (made.floats[name][zero] == 0).all()
        assert not np.allclose(made.floats[name][~zero], start.floats[name][~zero], atol=1e-4)


@pytest.mark.train
def test_a_student_comes_near_its_teacher(fit: ModuleType, corpus: Corpus, tmp_path: Path) -> None:
    from samaf.model.network import Autoencoder

    teacher = tiny_weights(3)
    alone = replace(TINY, mse_weight=0.0, hash_weight=0.0, entropy_weight=0.0, balance_weight=0.0, steps=40)
    model = Autoencoder(alone, teacher=teacher)
    history = fit.fit(model, corpus, tmp_path, origin={"teacher": teacher.own_id})
    told = [row["distil"] for row in history]
    assert told[-1] < 0.8 * told[0] and 0 < told[-1] < 1.1
    assert "teacher" in json.loads((tmp_path / "state.json").read_text())["origin"]
    untaught = Autoencoder(alone)
    untaught.build(None)
    assert len(model.trainable_variables) == len(untaught.trainable_variables)  # the teacher is no part of it


@pytest.mark.train
def test_distillation_is_the_share_of_the_codes_that_differs(fit: ModuleType) -> None:
    from samaf.model.losses import distillation

    rng = np.random.default_rng(0)
    codes, taught = (np.tanh(rng.standard_normal((6, 64))).astype(np.float32) for _ in range(2))
    expected = np.mean((codes - taught) ** 2) / np.mean(taught**2)
    assert float(distillation(codes, taught)) == pytest.approx(expected, rel=1e-4)
    assert float(distillation(taught, taught)) == 0
    assert float(distillation(0 * codes, taught)) == pytest.approx(1, rel=1e-4)


@pytest.mark.train
def test_the_whole_fine_tuning(
    fit: ModuleType,
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, out = tmp_path / "base.npz", tmp_path / "small.npz"
    original = tiny_weights()
    original.save(base)
    monkeypatch.setattr("samaf.model.presets.PRESETS", {"samaf": TINY})
    told = ["train", "--data", str(music), "--out", str(out), "--jobs", "1", "--steps", "4", "--json"]
    told += ["--from", str(base), "--teacher", str(base), "--units", "12", "--prune", "0.5"]
    assert main(told) == 0
    made = Weights.load(out)
    assert (made.units, made.bits) == (12, (64, 128)) and made.clarity is not None
    assert (made.floats["recurrent"] == 0).mean() >= 0.5
    assert made.facts["origin"] == {"from": original.own_id, "prune": 0.5, "teacher": original.own_id}
    assert len(Encoder(out, bits=64).encode(tune(3))) == 3
    [epoch] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert epoch["distil"] > 0
    assert main(told) == 0 and not capsys.readouterr().out  # it is done already
    told[told.index("0.5")] = "0.6"
    assert main(told) == 0 and capsys.readouterr().out  # another pruning is another training


@pytest.mark.train
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--prune", "0.5"], "m.npz: --prune is for a trained model; give it with --from"),
        (["--from", "none.npz"], "none.npz: no such weights file"),
        (
            ["--from", "base.npz", "--units", "17"],
            "base.npz: its lstm has 16 units, and 17 of them cannot be taken",
        ),
        (
            ["--from", "base.npz", "--bits", "64"],
            "base.npz: its codes have 64, 128 bits, and a fine-tuning keeps them; leave --bits out",
        ),
        (["--teacher", "none.npz"], "none.npz: no such weights file"),
        (
            ["--teacher", "base.npz"],
            "base.npz: made of log-mel for 128 bits, which cannot teach a model of log-mel",
        ),
        (["--teacher", "odd.npz"], "odd.npz: made for a front end that this samaf does not have"),
        (["--from", "odd.npz"], "odd.npz: made for a front end that this samaf does not have"),
        (
            ["--from", "base.npz", "--preset", "cnn"],
            "base.npz: is an lstm, and stays one; leave --preset cnn out, or --from",
        ),
        (
            ["--units", "3000"],
            "m.npz: a network of 3000 units is too large (it has more than 15728640 weights); give fewer --units",
        ),
        (
            ["--units", "1100", "--preset", "cnn"],
            "m.npz: a network of 1100 units is too large (widths is 1100, no whole number from 1 to 1024)",
        ),
    ],
)
def test_what_cannot_be_fine_tuned(
    args: list[str],
    message: str,
    fit: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_weights().save(tmp_path / "base.npz")
    replace(tiny_weights(), front_end="bark").save(tmp_path / "odd.npz")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", ".", "--out", "m.npz", *args]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line
    assert not (tmp_path / "m.npz").exists() and not (tmp_path / "m.npz.work").exists()
