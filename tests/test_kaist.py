"""The KAIST report's protocol: pieces, queries, what counts as right, and the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import in_ci
from synth import tune, write

from bench.corpus import CorpusError, Recording, read_recordings

if not in_ci():
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")


from baselines.contrastive import ContrastiveParameters
from baselines.encoders.features import HOP, SAMPLE_RATE
from baselines.networks import WEIGHTS
from bench import kaist
from bench.kaist import (
    LENGTHS_S,
    Hits,
    Material,
    Protocol,
    Trial,
    cell,
    pieces_of,
    questions_of,
    tables,
    trials,
)
from bench.metrics import wilson


def recording(number: int, duration_s: float) -> Recording:
    return Recording(f"r{number}", Path(f"r{number}.wav"), duration_s, "music")


def quiet(*_: object) -> None:
    """Hears of progress."""


def test_pieces_are_of_100_recordings_the_material_s_first() -> None:
    many = Material("m", [recording(k, 45.0 + k) for k in range(150)])
    pieces = pieces_of(many, [], np.random.default_rng(0))
    assert len(pieces) == 100 == len({piece.recording.id for piece in pieces})
    few = Material("m", [recording(0, 200.0), recording(1, 30.0), recording(2, 29.0)])
    pieces = pieces_of(few, [recording(k, 40.0) for k in range(10, 200)], np.random.default_rng(0))
    assert len({piece.recording.id for piece in pieces}) == 100
    assert {piece.recording.id for piece in pieces[:2]} == {"r0", "r1"}
    assert all(0 <= piece.row / 2 <= piece.recording.duration_s - 30.0 for piece in pieces)


@pytest.fixture
def materials(tmp_path: Path, program: Callable[[str], str]) -> list[Material]:
    program("sox")
    made = []
    for name, seeds in (("own", (1, 2, 3)), ("other", (4, 5))):
        tracks = [
            Recording(
                f"{name}{seed}", write(tmp_path / f"{name}{seed}.wav", tune(31.0, seed=seed)), 31.0, "music"
            )
            for seed in seeds
        ]
        made.append(Material(name, tracks))
    return made


def test_queries_begin_at_windows_and_are_repeatable(materials: list[Material]) -> None:
    pieces = pieces_of(materials[0], [], np.random.default_rng(0))
    made = questions_of(pieces, "mid", 2, 5, [3], quiet)
    again = questions_of(pieces, "mid", 2, 5, [3], quiet)
    assert made.samples.shape == (5, 2 * SAMPLE_RATE)
    assert np.array_equal(made.samples, again.samples) and np.array_equal(made.row, again.row)
    for k, row, samples in zip(made.piece, made.row, made.samples, strict=True):
        clean = pieces[int(k)].read()[row * HOP :][: len(samples)]
        assert np.corrcoef(clean, samples)[0, 1] > 0.5


class Perfect:
    """Stands for a network that knows each window's loudest bins."""

    values = 64

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        rows = 1 + (len(samples) - SAMPLE_RATE) // HOP
        return self.of_windows(np.stack([samples[HOP * k :][:SAMPLE_RATE] for k in range(rows)]))

    def of_windows(self, windows: np.ndarray) -> np.ndarray:
        spectra = np.abs(np.fft.rfft(windows[:, :8000].reshape(-1, 4, 2000)))[:, :, 50:370]
        found = np.sqrt(spectra.reshape(len(windows), 4, 16, 20).sum(axis=3)).reshape(len(windows), 64)
        found -= found.mean(axis=1, keepdims=True)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_results_are_measured_once(
    materials: list[Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def embedding_of(parameters: ContrastiveParameters) -> Perfect:
        opened.append(parameters)
        return Perfect()

    monkeypatch.setattr(kaist, "embedding_of", embedding_of)
    parameters = ContrastiveParameters("lstm", weights=str(tmp_path / "networks"))
    parameters.folder.mkdir(parents=True)
    (parameters.folder / WEIGHTS).write_bytes(b"1")
    crowd = [track for material in materials for track in material.recordings]
    protocol = Protocol(materials, crowd, tmp_path / "out", queries=12)
    protocol.measure(parameters, lambda: len(list((tmp_path / "out").glob("*.json"))) == 0)
    assert protocol.known(parameters) is None  # it was stopped after a trial
    protocol.measure(parameters)
    results = protocol.known(parameters)
    assert results is not None and list(results) == trials(materials)
    for trial, hits in results.items():
        assert hits.n == 12 and hits.exact <= hits.near <= hits.correct <= 12
        if trial.material == "own" and trial.level == "mid" and trial.length_s >= 3:
            assert hits.exact >= 10
    again = Protocol(materials, crowd, tmp_path / "out", queries=12)
    again.measure(parameters)
    assert again.known(parameters) == results
    assert len(opened) == 2
    (parameters.folder / WEIGHTS).write_bytes(b"2")  # trained anew
    assert again.known(parameters) is None

    made = list(tables({parameters: results}, materials, "pieces", "a few"))
    text = "\n".join(table.markdown() for table in made)
    hits = results[Trial("own", "mid", 6, "pieces")]
    assert text.count("| lstm, d = 64 |") == 3 and made[0].note == "Among a few."
    assert cell(hits, "exact", 0.85) in text  # the report's table 5: LSTM, 6 s
    assert made[2].columns == ["Network", "own", "other"]


def test_a_cell_tells_rate_interval_and_the_report_s_value() -> None:
    low, high = wilson(830, 1000)
    assert (
        cell(Hits(1000, 100, 830, 900), "near", 0.95)
        == f".83 [.{round(100 * low)}, .{round(100 * high)}] (.95)"
    )
    assert cell(Hits(10, 10, 10, 10), "exact", None).startswith("1.00 [.7")


def test_the_report_s_values_are_those_of_its_tables() -> None:
    assert all(len(row) == len(LENGTHS_S) for row in kaist.TABLE_5.values())
    assert kaist.TABLE_4["resnet"][64][1] == 0.95 and kaist.TABLE_4["cnn"][128][2] == 0.65
    assert kaist.TABLE_6["attention-lstm"] == (0.65, 0.55)


def test_recordings_of_a_manifest_with_their_splits(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.wav", tune(4.0))
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,kind,split\na.wav,music,train\nb.wav,speech,dev\nc.wav,music,dev\n")
    told: list[str] = []
    found = read_recordings(manifest, kinds=("music", "speech"), skipped=told.append)
    assert [(track.id, split) for track, split in found] == [("a.wav", "train"), ("b.wav", "dev")]
    assert len(told) == 1 and "c.wav" in told[0]
    with pytest.raises(CorpusError, match="names no noise"):
        read_recordings(manifest, kinds=("noise",), skipped=told.append)
