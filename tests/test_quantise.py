"""Exporting a model in fewer bits, and what it loses in an index of the original."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synth import tune, write
from test_encoder import random_weights

from samaf import Library
from samaf.cli import main
from samaf.errors import ModelError
from samaf.model import calibrate as calibration
from samaf.model import compatible, export
from samaf.model.compatible import Loss, loss_of
from samaf.weights import DEFAULT_PATH, Weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.npz"
    whole = random_weights()
    short = {name: whole.floats[name][..., :64] for name in ("dense", "dense_bias")}
    replace(whole, bits=(64,), arrays={**whole.arrays, **short}, calibration={}).save(path)
    return path


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders: recordings to search among, and held-out ones."""
    folder = tmp_path_factory.mktemp("audio")
    for name, n, first in (("library", 9, 0), ("new", 4, 20)):
        (folder / name).mkdir()
        for k in range(n):
            write(folder / name / f"{k}.wav", tune(8 if name == "new" else 25, first + k))
    return {name: folder / name for name in ("library", "new")}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(calibration, "TWINS", 30)
    monkeypatch.setattr(calibration, "LENGTHS_S", (1.0, 5.0))
    monkeypatch.setattr(calibration, "QUERIES", 4)
    monkeypatch.setattr(compatible, "CLIPS", 12)
    yield


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# What is lost


def test_a_model_loses_nothing_against_itself(audio: dict[str, Path]) -> None:
    told: list[tuple[int, int, str]] = []
    known = Weights.load().calibration
    loss = loss_of(
        DEFAULT_PATH,
        DEFAULT_PATH,
        known,
        files(audio["new"]),
        files(audio["library"]),
        clips=10,
        progress=lambda *step: told.append(step),
    )
    assert (loss.clips, loss.points, loss.ber) == (10, 0.0, 0.0)
    assert loss.right == loss.right_of_original >= 8
    assert loss.standard_error == 10.0 and not loss.bearable  # as one clip of ten might
    assert told[-1] == (10, 10, "")


def test_another_network_loses_all(audio: dict[str, Path], tmp_path: Path) -> None:
    shipped = Weights.load()
    turned = np.random.default_rng(0).permutation(shipped.floats["dense"].shape[1])
    mixed = {name: shipped.floats[name][..., turned] for name in ("dense", "dense_bias")}
    replace(shipped, arrays={**shipped.arrays, **mixed}).save(tmp_path / "other.npz")
    loss = loss_of(
        tmp_path / "other.npz",
        DEFAULT_PATH,
        shipped.calibration,
        files(audio["new"]),
        files(audio["library"]),
        clips=20,
    )
    assert loss.points > 50 and loss.ber > 0.3 and not loss.bearable
    assert loss.points == pytest.approx(100 * (loss.right_of_original - loss.right) / 20)


@pytest.mark.parametrize(
    ("points", "error", "bearable"), [(0, 0, True), (0.2, 0.2, True), (0.2, 0.4, False), (0.5, 0, False)]
)
def test_a_loss_must_be_surely_small(points: float, error: float, bearable: bool) -> None:
    assert Loss(2000, 1900, 1900, points, error, 0.01).bearable == bearable


def test_what_is_lost_is_told_of_a_model_with_other_codes(model: Path, audio: dict[str, Path]) -> None:
    loss = loss_of(model, model, Weights.load().calibration, files(audio["new"]), [], clips=3)
    assert (loss.clips, loss.ber) == (3, 0.0)


def test_clips_are_cut_from_long_recordings_alone(audio: dict[str, Path], tmp_path: Path) -> None:
    short = write(tmp_path / "short.wav", tune(4))
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    with pytest.raises(ModelError, match=r"^no recording of 5 s or more to measure the loss on; [^\n]+$"):
        loss_of(DEFAULT_PATH, DEFAULT_PATH, Weights.load().calibration, [short, broken], [], clips=2)


# Exporting


@pytest.mark.usefixtures("_small")
def test_a_quantised_model_has_a_calibration_of_its_own(
    model: Path, audio: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.npz"
    told = ["--held-out", str(audio["new"]), "--library", str(audio["library"]), "--json"]
    assert main(["export", str(model), "-o", str(out), "--quantise", "int4", *told]) == 0
    made = Weights.load(out)
    record = json.loads(capsys.readouterr().out)
    assert record["model_id"] == made.model_id and record["bytes"] == out.stat().st_size
    assert made.model_id == Weights.load(model).quantised("int4").model_id
    assert made.facts["quantised"] == "int4" and made.clarity is not None
    assert made.calibration["tail_64"].shape[1] == 2 and "compatible" not in made.facts
    with Library(tmp_path / "db", writable=True, model=out, bits=64) as library:
        library.add(files(audio["library"]))
        assert library.search(tune(25, 3)[9 * 16000 : 17 * 16000], min_probability=0.0)[0].title == "3"


@pytest.mark.usefixtures("_small")
def test_a_compatible_model_shares_the_index_of_the_original(
    audio: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped = Weights.load()
    monkeypatch.setattr(
        export,
        "calibrate",
        lambda path, *_, **__: replace(Weights.load(path), calibration=shipped.calibration),
    )
    monkeypatch.setattr(compatible, "MOST_LOST", 20.0)  # so few clips cannot tell less
    out, db = tmp_path / "small.npz", tmp_path / "db"
    told = ["--held-out", str(audio["new"]), "--library", str(audio["library"]), "--json"]
    assert (
        main(["export", str(DEFAULT_PATH), "-o", str(out), "--quantise", "int8", "--compatible", *told]) == 0
    )
    record = json.loads(capsys.readouterr().out)
    made = Weights.load(out)
    assert made.model_id == shipped.model_id == record["model_id"] and made.own_id != shipped.model_id
    assert record["compatible"] == made.facts["compatible"]
    assert record["compatible"]["clips"] == 12 and 0 < record["compatible"]["ber"] < 0.05
    with Library(db, writable=True) as library:
        library.add(files(audio["library"]))
    with Library(db, model=out) as library:
        assert library.search(tune(25, 3)[9 * 16000 : 17 * 16000])[0].title == "3"
    again = tmp_path / "again.npz"
    assert main(["export", str(out), "-o", str(again), "--quantise", "int8", "--compatible", *told]) == 2
    assert "small.npz: passes for another model already" in capsys.readouterr().err
    assert not again.exists()


@pytest.mark.usefixtures("_small")
def test_a_model_that_loses_too_much_is_not_compatible(
    audio: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "calibrate", lambda path, *_, **__: Weights.load(path))
    monkeypatch.setattr(export, "loss_of", lambda *_, **__: Loss(2000, 1890, 1904, 0.7, 0.15, 0.06))
    out = tmp_path / "small.npz"
    told = ["--quantise", "int4", "--compatible", "--held-out", str(audio["new"])]
    assert main(["export", str(DEFAULT_PATH), "-o", str(out), *told]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "small.npz: not written, as it is not compatible: of 2000 clips it loses 0.70 points in an index of the "
        "original, give or take 0.15, and may lose less than 0.5; leave --compatible out, and give it an index of its "
        "own"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["m.npz"],
            "m.npz: no work folder of `samaf train`; give one, or a weights file with --quantise and",
        ),
        (["m.npz", "--quantise", "int8"], "give one, or a weights file with --quantise and --held-out"),
        (["m.npz", "--compatible"], "m.npz: --compatible is for a quantised model; add --quantise int8"),
        (["m.npz", "--quantise", "int8", "--held-out", "."], "m.npz: no such weights file"),
        ([".", "--noise", "n"], "a work folder has its own recordings; leave --held-out"),
        ([".", "-o", "song.flac"], "song.flac: a weights file ends in .npz; name it song.flac.npz"),
        (
            [".", "-o", "no/x.npz"],
            "x.npz: cannot be written (there is no folder no); name another file with -o",
        ),
    ],
)
def test_what_cannot_be_exported(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "-o", "x.npz", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_not_written_over_its_original(
    model: Path, audio: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    told = ["--quantise", "int8", "--held-out", str(audio["new"])]
    assert main(["export", str(model), "-o", str(model), *told]) == 2
    assert "m.npz: is what the model is made of; name another file with -o" in capsys.readouterr().err
    assert main(["export", str(model), "-o", str(model.parent), *told]) == 2
    assert model.read_bytes() == before
    (model.parent / "folder.npz").mkdir()
    assert main(["export", str(model), "-o", str(model.parent / "folder.npz"), *told]) == 2
    assert "folder.npz: cannot be written (is a folder); name another file with -o" in capsys.readouterr().err
