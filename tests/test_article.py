"""The SAMAF article's experiment: attributes by search, what counts as ahead, and all of it in little."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import in_ci
from synth import tune, write

if not in_ci():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'samaf[bench]'")
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'samaf[train]'")

from bench import article
from bench.article import ahead_in
from bench.attributes import WHOLE, Task
from bench.cli import main
from bench.corpus import Recording
from bench.protocol import entry
from bench.resamples import ahead
from bench.retrieved import CLIPS, retrieved
from bench.study import Study
from samaf.weights import DEFAULT_PATH


def test_ahead_is_who_gains_more_than_chance_leaves_open() -> None:
    rng = np.random.default_rng(0)
    recordings = [f"r{k // 4}" for k in range(400)]
    better, worse = rng.random(400) < 0.9, rng.random(400) < 0.6
    found = ahead(better, worse, recordings)
    assert found.words.startswith("holds (+") and found.lead == pytest.approx(better.mean() - worse.mean())
    assert found.interval[0] < found.lead < found.interval[1]
    assert ahead(worse, better, recordings).words.startswith("does not hold (-")
    assert ahead(better, better, recordings).words == "cannot be told (+0.0 [+0.0, +0.0])"
    # clips of one recording are no independent witnesses
    wide, narrow = (
        ahead(better, worse, names).interval for names in ([f"r{k // 40}" for k in range(400)], recordings)
    )
    assert wide[1] - wide[0] != narrow[1] - narrow[0]


def test_ahead_in_attributes_is_judged_by_recalls() -> None:
    classes = np.array(["a"] * 30 + ["b"] * 10)
    task = Task("", [(f"r{k}", WHOLE) for k in range(40)], classes)
    only_a = (classes == "a").astype(float)
    found = ahead_in([task], [np.ones(40)], [only_a])
    assert found.lead == 0.5 and found.words.startswith("holds (+50.0")


def test_a_clip_is_of_the_class_of_what_is_found_for_it(tmp_path: Path) -> None:
    # two recordings of each tune, which are one class
    tracks = [
        Recording(f"{k}", write(tmp_path / f"{k}.wav", tune(9.0, seed=k // 2)), 9.0, "music")
        for k in range(10)
    ]
    task = Task("", [(track.id, WHOLE) for track in tracks], np.array([f"c{k // 2}" for k in range(10)]))
    told: list[tuple[int, int]] = []
    found = retrieved(task, entry("dejavu"), tracks, progress=lambda done, n: told.append((done, n)))
    assert found.shape == (10,) and found.mean() > 0.9 and told[-1] == (5, 5)
    assert set((found * CLIPS).tolist()) <= set(range(CLIPS + 1))
    strangers = Task("", task.excerpts, np.array([f"c{k % 2}" for k in range(10)]))
    assert retrieved(strangers, entry("dejavu"), tracks).mean() < 0.4


def test_the_whole_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,kind,split,speaker,source"]
    for k in range(12):
        write(tmp_path / f"{k}.wav", tune(9.0, seed=k // 2))
        rows.append(f"{k}.wav,{'speech' if k < 8 else 'music'},check,s{k // 2},from{k % 2}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    for bits in article.BITS:
        shutil.copy(DEFAULT_PATH, tmp_path / f"paper-{bits}.npz")
    monkeypatch.setattr(article, "TRANSFORMATIONS", ("clean", "lowpass2000"))
    monkeypatch.setattr(article, "RIVALS", ("dejavu", "rafs"))
    monkeypatch.setattr(article, "BY_SEARCH", ("source",))
    monkeypatch.setattr(article, "BY_HASH", ("source",))
    command = ["reproduce", "samaf", "--manifest", str(tmp_path / "m.csv"), "--weights", str(tmp_path)]
    command += ["--per-cell", "2", "--lengths", "5", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    study = Study.read(tmp_path / "out")
    claims = study.tables[0]
    assert claims.columns == ["Claim", "of dejavu", "of rafs"]
    heads = [row.head for row in claims.rows]
    assert len(heads) == 8 and heads[0] == "identification, samaf, 128 bits" and "paper-256" in heads[3]
    assert all(
        cell.text.startswith(("holds", "does not hold", "cannot be told"))
        for row in claims.rows
        for cell in row.cells
    )
    assert any(table.title.startswith("Attributes by search") for table in study.tables)
    assert capsys.readouterr().out == study.markdown() + "\n"
    assert main(command) == 0  # all of it is kept
    assert capsys.readouterr().out == study.markdown() + "\n"
    assert main([*command[:-1], str(tmp_path / "other"), "--minutes", "0.001"]) == 2
    assert "the same command goes on" in capsys.readouterr().err
