"""Other encoders in the place of samaf's LSTM: their compute, and the whole comparison in little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import in_ci
from synth import tune, write

if not in_ci():
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'samaf[train]'")

from baselines.encoders import ENCODERS
from baselines.encoders.networks import macs
from bench import architectures
from bench.architectures import LSTM, NetworkEncoder, body, lstm_macs, main, rates
from bench.corpus import Corpus, Materials, Recording
from bench.results import Query
from samaf.encoder import Encoder
from samaf.errors import AudioError
from samaf.model import fit
from samaf.model.presets import Preset
from samaf.weights import DEFAULT_PATH, Weights

TINY = Preset("tiny", units=16, decoder_units=8, bits=(64, 128), renderings=1, pairs=8, neighbours=0.0)


@pytest.mark.parametrize("name", ENCODERS)
def test_another_encoder_costs_what_the_lstm_costs(name: str) -> None:
    preset = Preset("some", units=96)
    made = body(name, preset, lstm_macs(preset))
    assert made.input_shape == (None, preset.n_steps, preset.n_inputs)
    assert macs(made) / lstm_macs(preset) == pytest.approx(1.0, abs=0.15)


def test_another_network_hashes_as_the_engine_s_own_does() -> None:
    own = Encoder()
    signs = np.random.default_rng(0).normal(size=(own._network.n_inputs, 128)).astype(np.float32)
    other = NetworkEncoder(lambda windows: windows.mean(axis=1) @ signs, 128, "0" * 64)
    print_, like = other.encode_query(tune(3, seed=1)), own.encode_query(tune(3, seed=1))
    assert (len(print_), print_.hop_s, print_.bits, print_.model_id) == (len(like), like.hop_s, 128, "0" * 64)
    assert not np.array_equal(print_.hashes, like.hashes[:, :2])
    with pytest.raises(AudioError):
        other.encode_query(np.zeros(100, np.float32))


def test_clips_are_found_by_their_codes(tmp_path: Path) -> None:
    tracks = [
        Recording(f"{k}", write(tmp_path / f"{k}.wav", tune(12, seed=k)), 12.0, "music") for k in range(3)
    ]
    corpus = Corpus("tunes", tracks[:2], [tracks[2]], Materials())
    queries = []
    for k, seconds in enumerate((5, 5, 0.5)):
        write(tmp_path / f"clip{k}.wav", tune(12, seed=k % 2)[4 * 16000 :][: round(seconds * 16000)])
        queries.append(Query(f"q{k}", "clean", seconds, "music", f"{k % 2}", 4.0, 1.0, f"clip{k}.wav"))
    weights = Weights.load(DEFAULT_PATH)
    found = list(rates(Encoder(bits=256), weights.calibration, [64, 256], corpus, queries, tmp_path))
    assert [(bits, query.query, right) for bits, query, right in found] == [
        (bits, f"q{k}", k < 2) for bits in (64, 256) for k in range(3)
    ]


def test_the_whole_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,kind,split"]
    for k in range(9):
        write(tmp_path / f"{k}.wav", tune(26, seed=k))
        rows.append(f"{k}.wav,music,{('train', 'dev', 'check')[k % 3]}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    weighed: list[str] = []

    def calibrated(encoder: NetworkEncoder, bits: tuple[int, ...], *_: object, **__: object) -> object:
        weighed.append(encoder.model_id)
        assert bits == (64, 128)
        return Weights.load(DEFAULT_PATH).calibration

    monkeypatch.setattr(architectures, "PRESETS", {"samaf": TINY})
    monkeypatch.setattr(architectures, "CONDITIONS", ("clean",))
    monkeypatch.setattr(architectures, "LENGTHS_S", (5.0,))
    monkeypatch.setattr(architectures, "TIMED_STEPS", 1)
    monkeypatch.setattr(architectures, "calibration_of", calibrated)
    monkeypatch.setattr(fit, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(fit, "HELD_OUT_PAIRS", 16)
    options = "--encoder connected --minutes .001 --bits 64,128 --per-cell 3".split()
    monkeypatch.setattr(
        "sys.argv", ["a", "--manifest", str(tmp_path / "m.csv"), "--work", str(tmp_path / "w"), *options]
    )
    assert main() == 0
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if "multiplications" in line] == [
        LSTM,
        "connected",
    ]
    cells = [line.split("|")[2:-1] for line in out.splitlines() if line.startswith("| 128 bits, music, 5 s")]
    assert len(cells) == 2 and all(0 <= float(value) <= 100 for row in cells for value in row)
    assert len(weighed) == 2
    assert main() == 0 and capsys.readouterr().out == out and len(weighed) == 2  # what was measured is kept
