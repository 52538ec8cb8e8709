"""Copies are found by their waveforms: shifted, at another level, with noise; other pieces are none."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest
from conftest import CHECKOUT
from synth import RATE, tune, write

from bench import copies
from bench.copies import (
    ANYWHERE,
    Copy,
    find_copies,
    high_band,
    low_band,
    probe_starts,
    read_copies,
    write_copies,
)
from bench.corpus import CorpusError


@pytest.fixture(scope="module")
def piece() -> np.ndarray:
    return tune(50.0, seed=1)


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    return tune(45.0, seed=2)


def among(sounds: dict[str, np.ndarray]) -> list[Copy]:
    return find_copies(sounds, sounds.__getitem__)


def cut(sound: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return sound[round(start_s * RATE) : round(end_s * RATE)]


def test_a_shifted_copy_is_found_with_its_lag(piece, other):
    shifted = -0.2 * cut(piece, 7.321, 44.0)
    noise = np.random.default_rng(3).standard_normal(len(shifted))
    shifted += (0.1 * shifted.std() * noise).astype(np.float32)
    found = among({"b/piece": piece, "other": other, "a/shifted": shifted})
    assert [(copy.path_a, copy.path_b) for copy in found] == [("a/shifted", "b/piece")]
    assert found[0].lag_s == pytest.approx(7.321, abs=0.002)
    assert found[0].share == 1.0


def test_the_lag_is_that_of_the_second_recording(piece, other):
    [found] = among({"b": cut(piece, 5.0, 40.0), "a": piece, "c": other})
    assert (found.path_a, found.path_b) == ("a", "b")
    assert found.lag_s == pytest.approx(-5.0, abs=0.002)


def test_other_pieces_are_no_copies(piece, other):
    assert among({"a": piece, "b": other, "c": tune(40.0, seed=5)}) == []


def test_a_part_in_another_piece_is_one(piece, other):
    medley = other.copy()
    medley[20 * RATE : 36 * RATE] = cut(piece, 12.0, 28.0)
    [found] = among({"piece": piece, "medley": medley})
    assert found.lag_s == pytest.approx(-8.0, abs=0.002)
    assert found.share == pytest.approx(16 / 45, abs=0.03)


def test_a_short_piece_is_found_among_akin_recordings(piece, other):
    sounds = {"a": piece, "b": other.copy()}
    sounds["b"][33 * RATE : 35 * RATE] = cut(piece, 14.7, 16.7)  # between the long probes
    assert among(sounds) == []
    [found] = find_copies(sounds, sounds.__getitem__, akin=[{"a", "b"}])
    assert found.lag_s == pytest.approx(18.3, abs=0.002)
    assert found.share < 0.1


def test_the_same_backing_under_another_voice_is_one(piece):
    mixed = [piece + 0.8 * tune(50.0, seed=seed) for seed in (11, 12)]
    heights = copies.at_lag(*map(high_band, mixed), 0.0)
    assert heights.max() < copies.SAME  # no second is quite the same
    [found] = among(dict(zip("ab", mixed, strict=True)))
    assert found.lag_s == pytest.approx(0.0, abs=0.002)


def test_tones_of_one_pitch_are_no_copies(piece, other):
    t = np.arange(len(other)) / RATE
    drone = 0.5 * np.sin(2 * np.pi * 110 * t).astype(np.float32)
    sounds = {"a": 0.2 * piece[: len(drone)] + drone, "b": 0.2 * other + drone}
    bands = [low_band(sound) for sound in sounds.values()]
    assert list(copies._hits(bands, copies.ANYWHERE, lambda *args: None))  # they agree in the low band
    assert among(sounds) == []


def test_seconds_are_compared_at_a_lag(piece):
    whole = high_band(piece)
    assert copies.at_lag(whole, whole, 0.005) == pytest.approx(1.0, abs=1e-3)
    later = copies.at_lag(cut(whole, 30.0, 50.0), whole, 32.0)
    assert later[-3:].tolist() == [0.0] * 3  # there the other has ended
    assert later.max() < copies.LIKE
    half = cut(whole, 0.0, 10.0).copy()
    half[5 * RATE :] = 0.0
    assert 9 <= len(copies.at_lag(half, whole, 0.0)) <= 11  # of 19, those in which anything is heard


def test_silence_is_no_probe():
    noise = low_band(np.random.default_rng(0).standard_normal(45 * RATE).astype(np.float32))
    assert probe_starts(noise, ANYWHERE) == [0, 10_000, 20_000, 30_000, 40_000]
    half = np.concatenate([noise[:15_000], np.zeros(25_000, np.float32)])
    assert probe_starts(half, ANYWHERE) == [0, 10_000]
    assert probe_starts(np.zeros(40_000, np.float32), ANYWHERE) == []
    assert probe_starts(np.zeros(100, np.float32), ANYWHERE) == []


def test_nothing_to_compare(piece):
    assert among({}) == []
    assert among({"a": piece}) == []
    assert among({"a": piece, "short": tune(0.5), "gone": np.zeros(0, np.float32)}) == []


def test_a_block_border_hides_nothing():
    pieces = {f"{k}": tune(31.0, seed=20 + k) for k in range(4)}
    pieces["copy"] = cut(pieces["2"], 3.0, 31.0)
    [found] = among(pieces)
    assert (found.path_a, found.path_b) == ("2", "copy")


def test_tables_are_read_as_written(tmp_path):
    table = [Copy("a", "b", 1.0, 0.25, "artist"), Copy("a", "c, d", 0.5, -3.0)]
    write_copies(table, tmp_path / "copies.csv")
    assert (tmp_path / "copies.csv").read_text().splitlines()[0] == "path_a,path_b,share,lag_s,alike"
    read = read_copies(tmp_path / "copies.csv")
    assert read == {"a": {"b", "c, d"}, "b": {"a"}, "c, d": {"a"}}


def test_what_is_no_table_is_told(tmp_path):
    with pytest.raises(CorpusError, match=r"gone.csv: cannot be read"):
        read_copies(tmp_path / "gone.csv")
    (tmp_path / "other.csv").write_text("path,kind\na,music\n")
    with pytest.raises(CorpusError, match="no table of copies"):
        read_copies(tmp_path / "other.csv")


def test_the_command_writes_a_table(tmp_path):
    sound = tune(26.0, seed=4)
    rows = [
        ("a.flac", "music", "Song", "x"),
        ("b.flac", "music", "song", "y"),
        ("c.flac", "speech", "c", "x"),
    ]
    write(tmp_path / "a.flac", sound)
    write(tmp_path / "b.flac", sound[3 * RATE :])
    write(tmp_path / "c.flac", tune(25.0, seed=6))
    (tmp_path / "n.flac").write_text("noise is not compared")
    with open(tmp_path / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "kind", "title", "artist", "split"])
        writer.writerows([*row, "dev"] for row in [*rows, ("n.flac", "noise", "", "")])
        writer.writerow(["gone.flac", "music", "", "", "dev"])
    script = CHECKOUT / "bench" / "copies.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "manifest.csv"), str(tmp_path / "out.csv")],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert ran.returncode == 0, ran.stderr
    assert "gone.flac" in ran.stderr and "1 pairs" in ran.stderr
    [row] = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert (row["path_a"], row["path_b"], row["alike"]) == ("a.flac", "b.flac", "title")
    assert float(row["lag_s"]) == pytest.approx(-3.0, abs=0.002)
