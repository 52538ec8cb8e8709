"""Smaller models beside the one that ships: their sizes, what they lose, and the commands that tell it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synth import tune, write

from bench import compression, speed
from bench.cli import main
from bench.compression import in_originals, models_of
from bench.corpus import Corpus, read_manifest
from bench.resamples import ahead
from bench.study import Study
from samaf.audio import SAMPLE_RATE
from samaf.cli.common import DONE, FAILED
from samaf.model.slimming import pruned
from samaf.weights import DEFAULT_PATH, Weights

SHIPPED = Weights.load()
HEADS = ["samaf-4", "int8", "int4", "sparse"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller models of the one that ships, calibrated as that is."""
    folder = tmp_path_factory.mktemp("models")
    own = {"calibration": SHIPPED.calibration, "clarity": SHIPPED.clarity}
    replace(SHIPPED.quantised("int8"), **own).save(folder / "int8.npz")
    replace(SHIPPED.quantised("int4"), **own).save(folder / "int4.npz")
    replace(pruned(SHIPPED, 0.95), **own).save(folder / "sparse.npz")
    return folder


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rows = ["path,kind,split"]
    for k in range(10):
        write(folder / f"{k}.wav", tune(9.0, seed=k))
        rows.append(f"{k}.wav,{'music' if k % 2 else 'speech'},{'check' if k < 8 else 'dev'}")
    (folder / "m.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def corpus(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return read_manifest(audio / "m.csv", tmp_path_factory.mktemp("made"), split="check")


def files(folder: Path) -> str:
    return ",".join(str(folder / f"{name}.npz") for name in HEADS[1:])


def test_the_model_that_ships_comes_first_and_each_once(models: Path) -> None:
    some = [models / "int8.npz", DEFAULT_PATH, models / "int8.npz", models / "sparse.npz"]
    found = models_of(some, 128)
    assert [model.name for model in found] == ["samaf-4", "int8", "sparse"]
    assert (
        found[0].entry.system.key == "samaf-128"
        and found[1].entry.system.label == "samaf, 128 bits, model int8"
    )
    floats = sum(array.size for array in SHIPPED.arrays.values())
    shipped, int8, sparse = (model.array_bytes for model in found)
    assert 2 * floats < shipped < 2 * floats + 1000
    assert int8 < 0.55 * shipped and sparse < 0.25 * shipped


def test_a_quantised_model_knows_its_original(models: Path) -> None:
    for name in ("int8", "int4"):
        made = Weights.load(models / f"{name}.npz")
        assert made.facts["original"] == SHIPPED.own_id != made.own_id


@pytest.mark.parametrize("original", [["a"], {}, 1, "a"])
def test_what_a_file_says_of_its_original_may_be_anything(
    models: Path, original: Any, tmp_path: Path, corpus: Corpus
) -> None:
    made = Weights.load(models / "int8.npz")
    replace(made, facts={**made.facts, "original": original}).save(tmp_path / "odd.npz")
    assert not in_originals(models_of([tmp_path / "odd.npz"], 128), corpus, tmp_path, 1, 1)


def test_models_that_cannot_be_compared(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(models / "int8.npz", tmp_path / "int4.npz")
    (tmp_path / "odd.npz").write_bytes(b"odd")
    for given, told in (
        (
            f"{models / 'int4.npz'},{tmp_path / 'int4.npz'}",
            "int4.npz has the same name; rename one of the files",
        ),
        (str(tmp_path / "odd.npz"), "odd.npz: not a weights file, or damaged"),
        (str(tmp_path / "none.npz"), "none.npz: no such weights file"),
    ):
        assert main(["compression", "--model", given, "--out", str(tmp_path / "out")]) == FAILED
        [line] = capsys.readouterr().err.splitlines()
        assert told in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("minutes", "pieces"), [(0.151, [9.0]), (0.16, [9.0]), (0.17, [9.0, 1.2])])
def test_what_is_timed_has_a_hash_in_each_piece(corpus: Corpus, minutes: float, pieces: list[float]) -> None:
    taken_in, clips = speed.material(corpus, minutes=minutes, length_s=5.0, clips=3, seed=0)
    assert [len(x) / SAMPLE_RATE for _, x in taken_in] == pieces and len(clips) == 3


def test_what_is_lost_is_paired_by_clip() -> None:
    recordings = [f"r{k // 5}" for k in range(500)]
    hits = np.random.default_rng(0).random(500) < 0.9
    fewer = hits & (np.arange(500) % 20 > 0)
    lost = ahead(hits, fewer, recordings)
    assert lost.lead == pytest.approx((hits & ~fewer).mean())
    low, high = lost.interval
    assert 0 < low < lost.lead < high and high - low < 0.05  # that the clips are hard is not in it
    assert ahead(np.zeros(0), np.zeros(0), []).points == "–"


def test_the_whole_comparison(
    models: Path,
    audio: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(compression, "CLIPS", 2)
    command = [
        "compression",
        "--model",
        files(models),
        "--manifest",
        str(audio / "m.csv"),
        "--split",
        "check",
    ]
    command += ["--library", "dev", "--conditions", "clean,lowpass2000", "--per-cell", "4", "--lengths", "4"]
    command += [
        "--timed",
        "0.5",
        "--rounds",
        "2",
        "--searched",
        "8",
        "--jobs",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == DONE
    study = Study.read(tmp_path / "out")
    out, err = capsys.readouterr()
    assert out == study.markdown() + "\n" and "wrote" in err
    whole, *groups, searched = study.tables
    assert [row.head for row in whole.rows] == HEADS and len(groups) == 2
    shipped, int8, int4, sparse = (dict(zip(whole.columns[1:], row.cells, strict=True)) for row in whole.rows)
    assert shipped["Of the first's, %"].text == "100" and shipped["Lost, points"].text == "–"
    assert int(int8["Of the first's, %"].text) <= 55 and int(int4["Of the first's, %"].text) <= 30
    assert int(sparse["Of the first's, %"].text) < 25
    assert shipped["MAC a second"].text == int8["MAC a second"].text == "25 M"
    assert "[" in int8["Best candidate, %"].text and "[" in int8["Lost, points"].text
    assert float(shipped["Takes in a second, ms"].text) > 0 and shipped["Time / first's"].text == "1.00"
    assert shipped["Peak memory"].text.endswith("MB")
    assert [row.head for row in searched.rows] == ["int8", "int4"]
    apart = [
        float(dict(zip(searched.columns[1:], row.cells, strict=True))["Bits that differ, %"].text)
        for row in searched.rows
    ]
    assert 0 < apart[0] < apart[1] < 10
    assert "VNNI" in study.remarks[1] and "samaf-4" in study.pictures[0].svg
    kept = {path: path.read_bytes() for path in (tmp_path / "out" / "originals").iterdir()}
    assert (
        main(command) == DONE and "int8 in an index" not in capsys.readouterr().err
    )  # but for times, all is kept
    assert kept == {path: path.read_bytes() for path in (tmp_path / "out" / "originals").iterdir()}
    again = Study.read(tmp_path / "out")
    assert [row.cells[5].text for row in again.tables[0].rows] == [row.cells[5].text for row in whole.rows]
