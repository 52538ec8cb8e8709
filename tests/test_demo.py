"""The demonstration works, writes only where it may, and says so when it did not work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from samaf import demo
from samaf.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


def test_every_answer_is_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == len(demo.CLIPS) >= 10
    assert all(answer["right"] for answer in answers)
    [unknown] = [answer for answer in answers if answer["truth"] is None]
    assert unknown["title"] is None
    assert json.loads((folder / "demo.json").read_text()) == answers
    assert len(list((folder / "music").iterdir())) == len(demo.PIECES)
    head = (folder / "demo.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(head[16:20], "big") >= 1000


def test_it_can_be_run_again_and_shows_a_table(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PIECES", demo.PIECES[:1])
    monkeypatch.setattr(demo, "CLIPS", (demo.CLIPS[0], demo.CLIPS[-1]))
    assert main(["demo", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    for text in ("Piano Etude", "unknown", "2 of 2", "demo.png", "samaf search --db"):
        assert text in out


def test_a_wrong_answer_shows_in_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PIECES", demo.PIECES[:1])
    monkeypatch.setattr(
        demo, "CLIPS", (demo.Clip(demo.PIECES[0], 3.0, "cut elsewhere", lambda x: np.roll(x, 48000)),)
    )
    monkeypatch.setattr(demo, "NEAR_S", 0.0)
    assert main(["demo", "--out", str(tmp_path / "d")]) == 1
    assert "wrong answer" in capsys.readouterr().err


def test_other_folders_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.samaf").write_text("precious")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds other things" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["index.samaf"]
    assert main(["demo", "--out", str(tmp_path / "index.samaf")]) == 2


def test_without_matplotlib_there_is_no_picture(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PIECES", demo.PIECES[:1])
    monkeypatch.setattr(demo, "CLIPS", demo.CLIPS[:1])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo", "--out", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1" in out and "picture" not in out and not (folder / "demo.png").exists()
    assert err.splitlines()[0] == (
        "samaf: there will be no picture: drawing needs matplotlib, which is not installed; run: "
        "pip install 'samaf[plot]'"
    )


def test_pieces_are_the_same_every_time_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = demo.PIECES[0].play(), demo.PIECES[0].play(), demo.PIECES[1].play()
    assert np.array_equal(first, again)
    assert len(first) == len(other) and abs(np.corrcoef(first, other)[0, 1]) < 0.1
    assert len({piece.title for piece in (*demo.PIECES, demo.STRANGER)}) == 13
