"""Trials of clips that hold several recordings or none: what is planted, and what counts as told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synth import tune, write

from bench import several
from bench.several import ALTERED, SOUNDS, altered, lies_in, main, shifted
from samaf import Match

MATCH = Match(
    track_id=1,
    path="a",
    title="a",
    ber=0.1,
    evalue=1e-9,
    score=9.0,
    query_start_s=20.0,
    query_end_s=30.0,
    track_start_s=50.0,
    track_end_s=60.0,
    tempo=1.0,
)


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_is_the_recording_but_for_what_was_done(how: str) -> None:
    clean = tune(5, seed=1)
    made = [altered(clean, how, np.random.default_rng(seed)) for seed in range(4)]
    for x in made:
        assert x.dtype == np.float32 and 3.9 * 16000 < len(x) < 5.2 * 16000
        assert not np.array_equal(x, clean)
    assert len({len(x) for x in made}) > 1  # at random, it is trimmed as well
    again = altered(clean, how, np.random.default_rng(0))
    assert np.array_equal(again, made[0])


def test_a_piece_lies_in_what_is_told_of_the_whole() -> None:
    piece = shifted(replace(MATCH, query_start_s=0.0, query_end_s=5.0, track_start_s=53.0), 23.0)
    assert (piece.query_start_s, piece.query_end_s) == (23.0, 28.0)
    assert lies_in(piece, MATCH) and lies_in(piece, MATCH, in_track=True)
    elsewhere = replace(piece, track_start_s=70.0)
    assert lies_in(elsewhere, MATCH) and not lies_in(elsewhere, MATCH, in_track=True)
    assert not lies_in(replace(piece, track_id=2), MATCH)
    assert not lies_in(replace(piece, query_end_s=31.5), MATCH)
    assert not lies_in(replace(piece, query_start_s=18.5), MATCH)


@pytest.mark.parametrize("sort", SOUNDS)
def test_sounds_have_the_length_asked_for(sort: str) -> None:
    x = SOUNDS[sort](16007, np.random.default_rng(3))
    assert x.shape == (16007,) and np.isfinite(x).all() and np.abs(x).max() > 0.1


def test_all_trials_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recordings and their planted copies are found as copies, halves of a programme in the whole."""
    rows = ["path,kind,split"]
    for k in range(10):
        write(tmp_path / f"{k}.wav", tune(30, seed=k))
        rows.append(f"{k}.wav,music,{'dev' if k < 4 else 'train'}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    monkeypatch.setattr(several, "PARTS", 2)
    options = "--split dev --planted 2 --clips 1 --mixes 1 --programmes 1 --sounds 1".split()
    monkeypatch.setattr("sys.argv", ["several", "--manifest", str(tmp_path / "m.csv"), *options])
    assert main() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    tables = [words[0] for words in lines if words[0] in ("mixes", "pieces", "sounds", "copies")]
    assert tables == ["mixes", "pieces", "sounds", "copies"]
    told = {words[0]: words[1:] for words in lines}
    assert told["clean"][:3] == ["2", "100.0%", "100.0%"]
    assert int(told["1"][0]) >= 2 and told["1"][1] == "100.0%"
    assert [told[sort][0] for sort in SOUNDS] == ["3"] * len(SOUNDS)


def test_a_manifest_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["several", "--manifest", "/nowhere.csv"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("several: ")
