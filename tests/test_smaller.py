"""`bench reproduce compression`: the smaller models of one are made once, whatever stops them, and compared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import in_ci
from synth import tune, write

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if not in_ci():
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'samaf[train]'")

from bench import compression, smaller
from bench.cli import main
from bench.smaller import NAMES, RECIPES
from bench.study import Study
from samaf.cli.common import DONE, FAILED
from samaf.model import clarity, export, fit
from samaf.model.presets import Preset
from samaf.model.slimming import narrowed
from samaf.weights import DEFAULT_PATH, Weights

SHIPPED = Weights.load()
TINY = Preset("samaf", units=24, decoder_units=8, renderings=1, pairs=8, steps=8, neighbours=0.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rows = ["path,kind,split"]
    splits = (*4 * ["train"], "dev", "dev", *4 * ["check"])
    for number, split in enumerate(splits):
        write(folder / f"{number}.wav", tune(26.0 if split == "train" else 9.0, seed=number))
        rows.append(f"{number}.wav,{'speech' if number == 5 else 'music'},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder / "manifest.csv"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small model that can be searched with."""
    made = replace(narrowed(SHIPPED, 24), calibration=SHIPPED.calibration)
    made.save(tmp_path / "source.npz")
    return tmp_path / "source.npz"


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Tiny trainings; calibrations are that of the model that ships, and told of."""
    for name, value in (("STEPS_PER_EPOCH", 2), ("HELD_OUT_PAIRS", 8), ("DECODER_STEPS", 1)):
        monkeypatch.setattr(fit, name, value)
    monkeypatch.setattr(clarity, "PAIRS", 50)
    presets = {"samaf": TINY, "cnn": replace(TINY, name="cnn", encoder="cnn", units=16)}
    monkeypatch.setattr(smaller, "PRESETS", presets)
    monkeypatch.setattr(compression, "CLIPS", 2)
    told: list[Any] = []

    def calibrate(
        path: Path, held_out: Sequence[Sequence[Path]], library: Sequence[Path], **_: Any
    ) -> Weights:
        told.append(([[one.name for one in kind] for kind in held_out], [one.name for one in library]))
        return replace(Weights.load(path), calibration=SHIPPED.calibration)

    monkeypatch.setattr(export, "calibrate", calibrate)
    return told


def test_the_curve_has_ten_points_and_the_student_a_quarter_of_the_work() -> None:
    tuned = [recipe for recipe in RECIPES if recipe.tunes]
    assert len(tuned) == 10 and len(set(NAMES)) == len(RECIPES)
    shapes = {
        recipe.name: recipe.shaped(SHIPPED, smaller.Amount(steps=30, tuning_steps=20)) for recipe in RECIPES
    }
    assert [shapes[f"units-{n}"].units for n in (83, 67, 50, 33, 17)] == [320, 256, 192, 128, 64]
    work = {name: preset.body.macs(preset.n_steps) for name, preset in shapes.items()}
    assert work["student"] == work["untaught"] < 0.25 * SHIPPED.body.macs(shapes["pruned-50"].n_steps)
    assert work["cnn"] == pytest.approx(work["untaught"], rel=0.05)
    assert {shapes[recipe.name].steps for recipe in tuned} == {20} and shapes["cnn"].steps == 30
    assert [recipe.name for recipe in smaller.chosen(["cnn", "int8"])] == ["int8", "cnn"]


@pytest.mark.train
def test_models_are_made_once_and_compared(
    manifest: Path,
    source: Path,
    calibrated: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, out = tmp_path / "networks" / "compression", tmp_path / "out"
    wanted = ["int8", "pruned-50", "units-50", "student", "cnn"]
    command = [
        "reproduce",
        "compression",
        "--manifest",
        str(manifest),
        "--model",
        str(source),
        "--out",
        str(out),
    ]
    command += ["--only", ",".join(wanted), "--steps", "4", "--weights", str(tmp_path / "networks")]
    command += ["--conditions", "clean", "--per-cell", "2", "--lengths", "4"]
    command += ["--timed", "0.2", "--rounds", "1", "--searched", "2"]
    assert main([*command, "--only", "pruned-50", "--minutes", "1e-6"]) == FAILED
    err = capsys.readouterr().err
    assert "pruned-50: epoch 1/2" in err and "epoch 2/2" not in err and "the same command goes on" in err
    assert not any(made.glob("*.npz"))
    assert main(command) == DONE
    output, err = capsys.readouterr()
    assert sorted(path.stem for path in made.glob("*.npz")) == sorted(wanted)
    assert calibrated == 5 * [([["4.wav"], ["5.wav"]], ["0.wav", "1.wav", "2.wav", "3.wav"])]
    assert "pruned-50: epoch 2/2" in err and "pruned-50: epoch 1/2" not in err
    own_id = Weights.load(source).own_id
    models = {name: Weights.load(made / f"{name}.npz") for name in wanted}
    assert models["int8"].facts["original"] == own_id and models["int8"].is_packed
    assert models["pruned-50"].facts["origin"] == {"from": own_id, "prune": 0.5, "teacher": own_id}
    assert models["units-50"].units == 12 and models["units-50"].facts["origin"] == {
        "from": own_id,
        "teacher": own_id,
    }
    assert models["student"].facts["origin"] == {"from": own_id, "teacher": own_id}
    assert models["cnn"].body.kind == "cnn" and "origin" not in models["cnn"].facts
    frames = {path.stat().st_ino for path in made.glob("*.work/frames.f16")}
    assert len(frames) == 1  # rendered once
    study = Study.read(out)
    assert output == study.markdown() + "\n"
    assert [row.head for row in study.tables[0].rows] == [DEFAULT_PATH.stem, "source", *wanted]
    assert [row.head for row in study.tables[-1].rows] == ["int8"]
    assert main(command) == DONE
    assert "epoch" not in capsys.readouterr().err and len(calibrated) == 5
    for other in (["--steps", "6"], ["--training-seed", "1"], ["--queries", "3"]):
        assert main([*command, *other, "--only", "cnn"]) == FAILED
        assert (
            "cnn.npz: was made of another model, of other audio or in another way; name another folder with"
            in (capsys.readouterr().err)
        )


def test_what_cannot_be_reproduced(
    manifest: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "networks" / "compression"
    made.mkdir(parents=True)
    SHIPPED.quantised("int8").save(made / "int8.npz")
    shutil.copy(made / "int8.npz", tmp_path / "packed.npz")
    command = [
        "reproduce",
        "compression",
        "--manifest",
        str(manifest),
        "--weights",
        str(tmp_path / "networks"),
        "--out",
        str(tmp_path / "out"),
    ]
    shutil.copy(source, tmp_path / "student.npz")
    small = Weights.load(source)
    short = {name: small.floats[name][..., :64] for name in ("dense", "dense_bias")}
    replace(small, bits=(64,), arrays={**small.arrays, **short}).save(tmp_path / "short.npz")
    for options, told in (
        (["--only", "int2"], "int2: no such model is made; there are int8, int4, pruned-30"),
        (["--model", str(tmp_path / "packed.npz")], "packed.npz: is no LSTM in float16 on log-mel frames"),
        (
            ["--model", str(source)],
            "int8.npz: was made of another model, of other audio or in another way; name",
        ),
        (["--check", "train", "--lengths", "900"], "no clip can be made"),
        (
            ["--model", str(tmp_path / "student.npz")],
            "student.npz has the same name; rename one of the files",
        ),
        (["--model", str(tmp_path / "short.npz")], "short.npz: has no code of 128 bits; choose --bits of 64"),
        (["--calibrate-on", "train"], "name one with --calibrate-on"),
        (["--model", str(tmp_path / "none.npz")], "none.npz: no such weights file"),
    ):
        assert main([*command, *options]) == FAILED
        assert told in capsys.readouterr().err.splitlines()[-1]
