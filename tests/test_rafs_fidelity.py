"""The script that holds RAFS against its paper: what it does to recordings, and that RAFS bears it as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synth import tune, write

from bench import rafs_fidelity
from bench.rafs_fidelity import (
    BLOCK,
    DEGRADATIONS,
    OFFSETS,
    RATE,
    error_rates,
    excerpt,
    fingerprint,
    mean_error_rate,
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    return [write(folder / f"{seed}.wav", tune(12, seed, RATE), RATE) for seed in range(3)]


def test_error_rates_are_those_of_whole_blocks() -> None:
    codes = np.zeros(2 * BLOCK + 10, np.uint32)
    other = codes.copy()
    other[BLOCK : 2 * BLOCK] = 0xFF  # 8 of 32 bits
    other[2 * BLOCK :] = 0xFFFFFFFF
    np.testing.assert_array_equal(error_rates(codes, other), [0.0, 0.25])


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda degradation: degradation.name)
def test_rafs_bears_what_the_paper_did(degradation, recordings) -> None:
    samples = [excerpt(path) for path in recordings]
    originals, heard = [fingerprint(s) for s in samples], [degradation.act(s) for s in samples]
    for before, after in zip(samples, heard, strict=True):
        assert len(after) == pytest.approx(len(before), abs=0.1 * RATE)
    rates = [mean_error_rate(originals, heard, offset) for offset in OFFSETS.values()]
    # generated tunes are no pop songs: not far above the worst of the paper's four, wherever the frames lie
    assert rates[0] <= max(degradation.published) + 0.05
    assert max(rates) <= max(degradation.published) + 0.07
    assert 0.01 < rates[2] < rates[3]


def test_a_report_has_a_line_for_each_degradation(recordings, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["rafs_fidelity.py", str(recordings[0].parent)])
    rafs_fidelity.main()
    printed = capsys.readouterr().out
    assert printed.startswith("3 recordings")
    for degradation in DEGRADATIONS:
        [line] = [line for line in printed.splitlines() if line.startswith(degradation.name + " ")]
        assert f"{min(degradation.published):.3f} to {max(degradation.published):.3f}" in line
    rate = float(printed.split("unrelated blocks: bit error rate ")[1].split(",")[0])
    assert rate == pytest.approx(0.5, abs=0.02)
