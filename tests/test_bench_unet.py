"""What the bench measures of a U-Net autoencoder: naming on and off the stored grid, and rebuilding."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import in_ci
from synth import RATE, tune, write

if not in_ci():
    pytest.importorskip("keras", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")

import keras

from baselines.autoencoder.network import autoencoder
from baselines.training import save
from baselines.unet import UNetParameters
from bench.corpus import CorpusError, Recording
from bench.metrics import Rate
from bench.unet import (
    CLIPS,
    CODE,
    CONDITIONS,
    GIVEN,
    ORIGINS,
    WHOLE,
    Answers,
    Material,
    Protocol,
    Trial,
    questions_of,
)
from bench.unet_report import draw, pictures, tables


def nothing(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("audio")
    paths = [write(folder / f"{k}.wav", tune(12.0, seed=k)) for k in range(4)]
    library = [Recording(path.name, path, 12.0, "music") for path in paths]
    library.append(Recording("short.wav", write(folder / "short.wav", tune(3.5)), 3.5, "speech"))
    return Material(library, paths, [], [])


@pytest.fixture
def parameters(tmp_path: Path) -> UNetParameters:
    """Of a network that was never trained."""
    keras.utils.set_random_seed(0)
    found = UNetParameters(weights=str(tmp_path / "networks"))
    training = {"history": [{"epoch": 1, "loss": 0.5, "val_loss": 0.6, "passes": 2.0}]}
    save(autoencoder(1 / 8), found.folder, {"width": 1 / 8, "training": training})
    return found


def test_questions_are_segments_and_what_lies_beside_them(material: Material) -> None:
    asked = questions_of(material.library, "music", 40, np.random.default_rng(0), nothing)
    assert set(asked.track) == {0, 1, 2, 3} and np.abs(asked.offset_s).max() <= 1.25
    assert set(asked.segment) <= {0, 1, 2, 3} and len(set(asked.offset_s)) == 40
    for i in (0, 17, 39):
        audio = material.library[asked.track[i]].read()
        start = round(2.5 * asked.segment[i] * RATE)
        assert np.array_equal(asked.aligned[i], audio[start : start + 4 * RATE])
        start += round(asked.offset_s[i] * RATE)
        assert np.array_equal(asked.random[i], audio[start : start + 4 * RATE])


def test_recordings_without_content_are_refused(tmp_path: Path, material: Material) -> None:
    silence = Recording("0.wav", write(tmp_path / "0.wav", np.zeros(6 * RATE, np.float32)), 6.0, "music")
    with pytest.raises(CorpusError, match="no recording of music in the library has content; name another"):
        questions_of([silence], "music", 3, np.random.default_rng(0), nothing)
    short = Material(material.library[4:], material.trained_on, [], [])
    with pytest.raises(CorpusError, match="no recording of the library has 4 s or more; name another"):
        Protocol(short, tmp_path, queries=3, rebuilt=2)


def test_results_are_measured_once(material: Material, parameters: UNetParameters, tmp_path: Path) -> None:
    out, panels = tmp_path / "out", []

    def protocol() -> Protocol:
        return Protocol(
            material, out, queries=12, rebuilt=3, pictures=lambda shown, place: panels.append((shown, place))
        )

    first = protocol()
    first.measure(parameters, lambda: not list(out.glob("*.json")))
    assert first.known(parameters) is None  # it was stopped after a trial
    first.measure(parameters)
    found = first.known(parameters)
    assert found is not None and list(found.answers) == first.trials
    assert len(first.trials) == 2 * len(CONDITIONS)  # the recording of speech is too short
    aligned = found.answers[Trial("music", "clean", "aligned")]
    assert aligned.rate("segment") == aligned.rate("first") == aligned.rate("five") == Rate(12, 12)
    random = found.answers[Trial("music", "clean", "random")]
    assert sum(random.rate("first", *edges).n for edges in ((0, 0.5), (0.5, 2))) == 12
    assert set(found.rebuilt) == {(name, origin) for name in CLIPS for origin in ORIGINS}
    assert found.rebuilt["clean", GIVEN].mse == (0.0, 0.0) != found.rebuilt["noisy", GIVEN].mse
    for name in CLIPS:
        whole, alone = (found.rebuilt[name, origin] for origin in (WHOLE, CODE))
        assert whole.mse != alone.mse and whole.picture_psnr[0] > whole.psnr[0] > 0
    [(shown, place)] = panels
    assert len(shown) == 6 and place.name == "unet-16k-normalised"
    draw(shown, place)
    assert sorted(path.name for path in out.glob("*.svg")) == [
        "unet-16k-normalised-spectrograms.svg",
        "unet-16k-normalised-waveforms.svg",
    ]

    again = protocol()
    again.measure(parameters)
    assert again.known(parameters) == found and len(panels) == 1
    drawn = pictures({parameters: found}, out)
    assert len(drawn) == 2 and all(picture.svg.startswith("<svg") for picture in drawn)
    made = list(tables({parameters: found}, again))
    text = "\n".join(table.title + table.markdown() for table in made)
    assert re.search(r"unet-16k-normalised, music, aligned *\| +100.0 \[76, 100\]", text)
    assert re.search(r"clean, given *\| +- \| +- \| +- \| +\d", text) and f"noisy, {CODE} " in text
    assert "51.16" in text and re.search(r"unet-16k-normalised *\| +0.5 \| +0.6 \| +- \| +2 \| +- \|", text)

    save(autoencoder(1 / 8), parameters.folder, {"width": 1 / 8, "training": {}})  # trained anew
    assert again.known(parameters) is None


def test_shares_are_told_by_their_distance_from_the_grid() -> None:
    answers = Answers(
        [0.05, 0.3, 0.3, 1.25], [True, True, False, False], [True] * 4, [True, False, False, False]
    )
    assert answers.rate("first") == Rate(2, 4) and answers.rate("segment", 0.0, 0.1) == Rate(1, 1)
    assert answers.rate("first", 0.25, 0.5) == Rate(1, 2) and answers.rate("five", 1.0, 1.3) == Rate(1, 1)
