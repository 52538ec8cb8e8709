"""The convolutional network: its sizes, its graph, its weights file, its training."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import crafted
import numpy as np
import onnx
import pytest
from conftest import in_ci
from synth import tune

from samaf.bodies import Cnn, body_of
from samaf.encoder import Encoder, Network, _graph
from samaf.errors import ModelError
from samaf.model.presets import PRESETS, Preset, fine_tuning
from samaf.model.slimming import narrowed, pruned
from samaf.weights import Weights

BODY = Cnn(64, (4, 8, 8, 16))
TINY = Preset("tiny", encoder="cnn", units=16, decoder_units=8, bits=(64, 128), pairs=4, neighbours=0.0)


def random_cnn(body: Cnn = BODY, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    shapes = {**body.shapes(), "dense": (body.units, 128), "dense_bias": (128,)}
    arrays = {
        name: (rng.standard_normal(shape) * (2 / max(1, math.prod(shape[:-1]))) ** 0.5)
        .astype(np.float16)
        .astype(np.float32)
        for name, shape in shapes.items()
    }
    return Weights("log-mel", 4, (64, 128), body, arrays, facts={"preset": {"name": "random"}})


def convolved(image: np.ndarray, kernel: np.ndarray, bias: np.ndarray, strides: int) -> np.ndarray:
    """One image (high, wide, channels), each channel by itself, or all of one channel; edges zero-padded."""
    high, wide = (-(-n // strides) for n in image.shape[:2])
    pads = [max(0, (out - 1) * strides + 3 - n) for out, n in zip((high, wide), image.shape[:2], strict=True)]
    padded = np.pad(image, [(pad // 2, pad - pad // 2) for pad in pads] + [(0, 0)])
    out = np.empty((high, wide, kernel.shape[-1]))
    for i in range(high):
        for j in range(wide):
            part = padded[i * strides : i * strides + 3, j * strides : j * strides + 3]
            out[i, j] = (part * kernel).sum(axis=(0, 1)) + bias
    return out


def cnn(weights: Weights, window: np.ndarray) -> np.ndarray:
    """One window (steps, inputs) through the network, place by place, in float64."""
    arrays, body = weights.floats, weights.body
    assert isinstance(body, Cnn)
    image = window.astype(np.float64).reshape(100, body.bands, 1)
    image = np.maximum(convolved(image, arrays["stem"], arrays["stem_bias"], 2), 0)
    for n, (before, after) in enumerate(zip(body.widths, body.widths[1:], strict=False), start=1):
        made = convolved(
            image, arrays[f"depthwise_{n}"], arrays[f"depthwise_{n}_bias"], 2 if after > before else 1
        )
        made = np.maximum(np.maximum(made, 0) @ arrays[f"pointwise_{n}"] + arrays[f"pointwise_{n}_bias"], 0)
        image = image + made if after == before else made
    state = (image * arrays["whole"]).sum(axis=(0, 1)) + arrays["whole_bias"]
    return state @ arrays["dense"] + arrays["dense_bias"]


def windows(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 25, 256)).astype(np.float32)


@pytest.mark.parametrize(
    "body", [BODY, Cnn(64, (3,)), Cnn(64, (6, 6, 4, 5)), Cnn.of_units(64, 16)], ids=lambda b: str(b.widths)
)
def test_the_network_is_what_it_says(body: Cnn) -> None:
    weights = random_cnn(body)
    got = Network(weights, 128)(windows(3))
    expected = np.stack([cnn(weights, window) for window in windows(3)])
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-3)
    onnx.checker.check_model(_graph(weights, 64, weights.floats), full_check=True)


def test_any_number_of_windows() -> None:
    network = Network(random_cnn(), 64)
    many = windows(70)
    alone = np.concatenate([network(many[k : k + 1]) for k in range(70)])
    np.testing.assert_array_equal(network(many), alone)
    assert network(many[:0]).shape == (0, 64)


def test_with_no_weights_are_values_infinite() -> None:
    calm = random_cnn(Cnn(64, (8,) * 9))
    signs = np.random.default_rng(2)
    arrays = {name: 6e4 * signs.choice([-1.0, 1.0], a.shape) for name, a in calm.floats.items()}
    wild = replace(calm, arrays={name: a.astype(np.float32) for name, a in arrays.items()})
    assert np.isfinite(Network(wild, 128)(windows(5))).all()


def test_what_a_window_costs() -> None:
    body = Cnn(64, (4, 8, 8))
    assert body.first_image == (50, 32) and body.last_image == (25, 16)
    assert body.macs(25) == 50 * 32 * 9 * 4 + 25 * 16 * (4 * (9 + 8) + 8 * (9 + 8)) + 25 * 16 * 8
    lstm, cnn = (PRESETS[name].body.macs(25) for name in ("samaf", "cnn"))
    assert cnn / lstm == pytest.approx(1.0, abs=0.1)


def test_a_weights_file_holds_either_network(tmp_path: Path) -> None:
    weights = random_cnn()
    weights.save(tmp_path / "a.npz")
    read = Weights.load(tmp_path / "a.npz")
    assert read.body == BODY and read.units == 16 and read.model_id == weights.model_id
    for name, array in weights.floats.items():
        np.testing.assert_array_equal(read.floats[name], array)
    encoder = Encoder(tmp_path / "a.npz", bits=64)
    assert encoder.macs == BODY.macs(25) + 16 * 64
    print_ = encoder.encode(tune(4))
    assert len(print_) == 4 and print_.valid.all()
    assert replace(weights, body=replace(BODY, bands=63)).own_id != weights.own_id


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_it_may_be_quantised(tmp_path: Path, storage: str) -> None:
    made = random_cnn().quantised(storage)
    made.save(tmp_path / "a.npz")
    read = Weights.load(tmp_path / "a.npz")
    assert read.model_id == made.model_id != random_cnn().model_id
    expected = np.stack([cnn(read, window) for window in windows(2)])
    np.testing.assert_allclose(Network(read, 128)(windows(2)), expected, atol=1e-4, rtol=1e-3)


def test_it_may_be_pruned_but_not_narrowed() -> None:
    made = pruned(random_cnn(), 0.5)
    assert (made.floats["pointwise_2"] == 0).mean() == 0.5 and made.floats["depthwise_2"].all()
    with pytest.raises(ValueError, match="of an LSTM"):
        narrowed(random_cnn(), 8)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"kind": "cnn", "bands": 64}, "widths is missing"),
        ({"kind": "cnn", "bands": 64, "widths": []}, "widths are no list of up to 9"),
        ({"kind": "cnn", "bands": 64, "widths": [4] * 10}, "widths are no list of up to 9"),
        ({"kind": "cnn", "bands": 64, "widths": [4, 2000]}, "widths is 2000, no whole number"),
        ({"kind": "cnn", "bands": 64, "widths": [4, True]}, "widths is True, no whole number"),
        ({"kind": "cnn", "bands": 0, "widths": [4]}, "bands is 0"),
        ({"kind": "cnn", "bands": 64, "widths": [1024] * 4}, "it needs more than 1073741824 multiplications"),
        ({"kind": "cnn", "bands": 64, "widths": [4, 8, 16, 16]}, "pointwise_2 has type"),
        ({"kind": "cnn", "bands": 64, "widths": [4, 8, 8, 16, 16]}, "depthwise_4 is missing"),
        ({"kind": "lstm", "values": 256, "units": 16}, "kernel is missing"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, body: dict[str, Any], reason: str) -> None:
    path = tmp_path / "a.npz"
    random_cnn().save(path)
    path.write_bytes(crafted.weights(path, head=lambda header: {**header, "body": body}))
    with pytest.raises(ModelError, match=rf"^[^\n]*a\.npz: not a weights file, or damaged \({reason}[^\n]*$"):
        Weights.load(path)


def test_bands_that_the_front_end_has_not(tmp_path: Path) -> None:
    random_cnn(Cnn(32, (4, 8))).save(tmp_path / "a.npz")
    with pytest.raises(ModelError, match=r"a\.npz: made for a front end that this samaf does not have"):
        Encoder(tmp_path / "a.npz", bits=64)


def test_presets_have_one_network_or_the_other() -> None:
    assert PRESETS["cnn"].body == Cnn(64, (56, 112, 112, 224, 224, 448, 448))
    assert body_of({"kind": "cnn", **PRESETS["cnn"].body.to_json()}) == PRESETS["cnn"].body
    assert fine_tuning(PRESETS["samaf"], random_cnn()).encoder == "cnn"
    with pytest.raises(ValueError, match="encoder must be one of lstm, cnn, not gru"):
        replace(TINY, encoder="gru")


# With TensorFlow


@pytest.mark.train
def test_the_exported_network_is_the_trained_one(tmp_path: Path) -> None:
    """Its batch normalisation is a part of the weights; what begins with these has none."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if not in_ci():
        pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    import keras

    from samaf.model.export import export_weights
    from samaf.model.network import Autoencoder

    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    model = Autoencoder(TINY)
    model.build(None)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    before = {name: value.copy() for name, value in model.encoder.arrays().items()}
    for seed in range(3):
        model.train_on_batch(windows(8, seed), windows(8, seed))
    for name, norm in model.encoder.norms.items():
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma, beta, mean + 0.1 * rng.standard_normal(mean.shape), variance])
        assert not np.array_equal(before[name], model.encoder.arrays()[name]), name
    codes = np.asarray(model(windows(6))[0])
    export_weights(model, TINY, tmp_path / "m.npz", training=[])
    made = Weights.load(tmp_path / "m.npz")
    assert made.body == TINY.body
    np.testing.assert_allclose(np.tanh(Network(made, 128)(windows(6))), codes, atol=2e-2)
    again = Autoencoder(fine_tuning(TINY, made), start=pruned(made, 0.4), masked=True)
    again.build(None)
    np.testing.assert_allclose(
        again(windows(6))[0], np.tanh(Network(pruned(made, 0.4), 128)(windows(6))), atol=1e-4
    )
    again.compile(optimizer=keras.optimizers.Adam(1e-2))
    again.train_on_batch(windows(8), windows(8))
    left = again.encoder.arrays()["pointwise_3"]
    assert (left == 0).mean() == pytest.approx(0.4, abs=0.05)
    model.save_weights(tmp_path / "a.weights.h5")
    other = Autoencoder(TINY)
    other.build(None)
    other.load_weights(tmp_path / "a.weights.h5")
    for name, array in model.encoder.arrays().items():
        np.testing.assert_array_equal(other.encoder.arrays()[name], array)
