"""What the bench asks of every system, samaf among them: the contract of :mod:`baselines.base`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import in_ci
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synth import bursts, tune, write

import baselines
from baselines.base import Baseline
from samaf.errors import AudioError
from samaf.weights import DEFAULT_PATH

TRACKS, TRACK_S = 4, 20.0
CHANGED = {
    "samaf": {"bits": 64},
    "dejavu": {"fan_out": 3},
    "rafs": {"shortest": 40},
    "panako": {"fan_out": 3},
    "contrastive": {"encoder": "lstm"},
    "signs": {"hop_s": 1.0},
    "unet": {"features": "plain"},
}
"""For each system, a parameter set otherwise than usual."""
TOO_SHORT_S = {
    "samaf": 0.5,
    "dejavu": 0.09,
    "rafs": 0.74,
    "panako": 0.9,
    "contrastive": 0.99,
    "signs": 0.99,
    "unet": 0.0,
}
"""For each system, seconds of a clip that is below its minimum."""


LEAST_RATIO = {"contrastive": 1.1, "unet": 1.1}
"""Of the score of a clip to that of others; those of vectors are means of cosines."""
ACCEPTS_ALL = ("dejavu", "contrastive", "unet")
"""Systems without a threshold."""
DEPENDENT = ("samaf", "signs", "contrastive", "unet")
"""Systems whose score of a match depends on what else they hold."""
USUAL = {"contrastive": {"encoder": "connected"}, "signs": {"encoder": "connected"}, "unet": {}}
"""For each system that needs a network, the parameters of one."""


GRID_S = {"unet": 2.5}
"""For each system that names no place far from those it stores, their distance."""


def usual(kind: type[Baseline], **changed: Any) -> Any:
    return kind.Parameters(**{**USUAL.get(kind.name, {}), **changed})


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Path:
    """A folder with small networks, trained on other tunes than those of the tests."""
    if not in_ci():
        pytest.importorskip("keras", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    program("sox")
    import keras

    from baselines import signs
    from baselines.autoencoder.network import autoencoder
    from baselines.encoders import training
    from baselines.encoders.networks import Shape
    from baselines.signs import SignsParameters
    from baselines.training import save
    from samaf.model import calibrate

    root = tmp_path_factory.mktemp("networks")
    music = [write(root / f"{k}.wav", tune(30.0, seed=100 + k)) for k in range(6)]
    for encoder in ("connected", "lstm"):
        training.train(
            music,
            root / f"contrastive-{encoder}-64-divided",
            Shape(encoder, width=1 / 8),
            training.Recipe(1 / 8, 48, 150, 2e-3),
            audio=root / "audio",
        )
    keras.utils.set_random_seed(0)
    for features in ("normalised", "plain"):  # one that was never trained hears enough for this
        about = {"width": 0.75, "training": {}}
        save(autoencoder(0.75), root / f"unet-16k-{features}", about)
    strangers = [write(root / f"stranger{k}.wav", tune(40.0, seed=200 + k)) for k in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "TWINS", 60)
        patch.setattr(calibrate, "LENGTHS_S", (1.0, 5.0))
        parameters = SignsParameters(encoder="connected", weights=str(root))
        signs.calibrate(parameters, [strangers], music, queries=12, progress=lambda *_: None)
    return root


def track(system: Baseline | type[Baseline], seed: int) -> NDArray[np.float32]:
    return tune(TRACK_S, seed, system.sample_rate)


def clip(
    system: Baseline | type[Baseline], seed: int, start_s: float, length_s: float
) -> NDArray[np.float32]:
    rate = system.sample_rate
    return track(system, seed)[round(start_s * rate) : round((start_s + length_s) * rate)]


def place(system: Baseline | type[Baseline], start_s: float) -> float:
    """The nearest place to a start that the system can name."""
    step_s = GRID_S.get(system.name)
    return start_s if step_s is None else step_s * round(start_s / step_s)


@pytest.fixture(scope="module", params=list(baselines.SYSTEMS))
def kind(request: pytest.FixtureRequest) -> Iterator[type[Baseline]]:
    found = baselines.system(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param in USUAL:
            root = request.getfixturevalue("networks")
            patch.setattr("baselines.networks.default_root", lambda: root)
        yield found


@pytest.fixture(scope="module")
def filled(kind: type[Baseline]) -> Baseline:
    system = kind(usual(kind))
    for seed in range(TRACKS):
        system.add(f"tune {seed}", track(kind, seed))
    system.settle()
    return system


@pytest.fixture(scope="module")
def stored(filled: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / filled.name
    assert filled.save(folder) == filled.size_bytes()
    return folder


@pytest.fixture(scope="module")
def loaded(kind: type[Baseline], stored: Path) -> Baseline:
    return kind.load(stored)


@pytest.mark.parametrize("seed", range(TRACKS))
def test_a_clip_is_named_and_placed(filled, seed):
    start_s = place(filled, 3.3 + seed)
    match = filled.query(clip(filled, seed, start_s, 5.0))
    assert match is not None and match.accepted
    assert match.track_id == f"tune {seed}"
    assert match.offset_s == pytest.approx(start_s, abs=0.15)
    assert (match.speed, match.tempo, match.pitch_cents) == pytest.approx((1, 1, 0), abs=0.01)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, TRACKS), st.floats(0, TRACK_S - 4), st.floats(0.2, 4), st.floats(0, 0.1), st.integers(0, 9)
)
def test_loaded_it_answers_the_same(filled, loaded, seed, start_s, length_s, noise, noise_seed):
    samples = clip(filled, seed, start_s, length_s)  # the last tune is in no store
    samples = samples + noise * np.random.default_rng(noise_seed).standard_normal(len(samples))
    assert loaded.query(samples.astype(np.float32)) == filled.query(samples.astype(np.float32))


def test_a_store_takes_the_bytes_that_it_says(filled, stored, loaded):
    written = sum(path.stat().st_size for path in stored.iterdir())
    assert filled.size_bytes() == loaded.size_bytes() == pytest.approx(written, rel=0.03)


def test_networks_count_their_multiplications(filled):
    assert (filled.macs_per_s > 1e4) == (filled.name in {"samaf", *USUAL})


def test_a_loaded_store_has_its_parameters_and_grows_on(kind, tmp_path):
    system = kind(usual(kind, **CHANGED[kind.name]))
    system.add("tune 0", track(kind, 0))
    system.save(tmp_path)
    again = kind.load(tmp_path)
    alone = system.query(clip(kind, 0, 4.0, 5.0))
    assert again.query(clip(kind, 0, 4.0, 5.0)) == alone
    assert again.parameters == system.parameters != usual(kind)
    again.add("more", track(kind, 7))
    assert again.tracks == ["tune 0", "more"]
    for name, seed in (("more", 7), ("tune 0", 0)):
        match = again.query(clip(kind, seed, 4.0, 5.0))
        assert match is not None
        assert match.track_id == name
        assert match.offset_s == pytest.approx(4.0, abs=0.15)
    assert match == alone or kind.name in DEPENDENT


def test_another_system_s_store_is_refused(kind, stored):
    other = next(name for name in baselines.SYSTEMS if name != kind.name)
    with pytest.raises(ValueError, match=kind.name):
        baselines.system(other).load(stored)


def test_what_cannot_be_named_has_no_answer(kind, filled):
    for samples in (np.zeros(0), np.zeros(5 * kind.sample_rate), clip(kind, 0, 3.0, TOO_SHORT_S[kind.name])):
        assert filled.query(samples.astype(np.float32)) is None
    assert kind(usual(kind)).query(clip(kind, 0, 3.0, 5.0)) is None


def test_strangers_have_low_scores(filled):
    known = filled.query(clip(filled, 0, 2.0, 5.0))
    assert known is not None
    for seed in (50, 51, 52):
        kin = filled.query(clip(filled, seed, 2.0, 5.0))  # of the same instruments
        stranger = filled.query(bursts(5.0, seed, filled.sample_rate))
        for other in (kin, stranger):
            assert other is None or other.score < known.score / LEAST_RATIO.get(filled.name, 3)
        assert stranger is None or not stranger.accepted or filled.name in ACCEPTS_ALL


def test_silence_in_the_store_does_no_harm(kind):
    system = kind(usual(kind))
    system.add("silence", np.zeros(5 * kind.sample_rate, np.float32))
    with suppress(AudioError):
        system.add("nothing", np.empty(0, np.float32))
    assert system.query(clip(kind, 0, 3.0, 5.0)) is None
    system.add("tune 0", track(kind, 0))
    start_s = place(kind, 3.0)
    match = system.query(clip(kind, 0, start_s, 5.0))
    assert match is not None
    assert match.track_id == "tune 0"
    assert match.offset_s == pytest.approx(start_s, abs=0.15)


def test_a_model_trained_anew_is_another_system(tmp_path: Path) -> None:
    file = tmp_path / "model.npz"
    shutil.copy(DEFAULT_PATH, file)
    system = baselines.system("samaf")
    parameters = system.Parameters(model=str(file))
    before = system.identity(parameters)
    assert before["weights"] == system.identity(system.Parameters())["weights"]
    with open(file, "ab") as appended:
        appended.write(b"calibrated anew")
    assert system.identity(parameters) != before
