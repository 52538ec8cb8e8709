"""`bench train` and `bench reproduce`: networks are trained once, and what was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import in_ci
from synth import tune, write

from bench.cli import main
from samaf.cli.common import DONE, FAILED

if not in_ci():
    pytest.importorskip("keras", reason="TensorFlow is not installed: pip install 'samaf[train]'")
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")

from baselines.autoencoder import training as autoencoder
from baselines.encoders import training
from baselines.encoders.training import Recipe


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, program: Callable[[str], str]) -> None:
    program("sox")
    monkeypatch.setattr(training, "EPOCH_STEPS", 2)
    monkeypatch.setattr(training, "HELD_OUT_PAIRS", 8)
    monkeypatch.setitem(training.RECIPES["small"], "connected", Recipe(1 / 16, 8, 4, 1e-3))
    monkeypatch.setattr(autoencoder, "EPOCH_CLIPS", 8)
    monkeypatch.setattr(autoencoder, "HELD_OUT_CLIPS", 4)
    tiny = autoencoder.Recipe(1 / 16, 4, 4, 1e-3, True, clips=16)
    monkeypatch.setitem(autoencoder.RECIPES["small"], "normalised", tiny)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rows = ["path,kind,split"]
    for number, split in enumerate((*3 * ["train"], "dev", "dev", "check")):
        write(folder / f"{number}.wav", tune(31.0, seed=number))
        rows.append(f"{number}.wav,music,{split}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder / "manifest.csv"


def test_a_network_is_trained_once(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "contrastive", "--encoder", "connected", "--manifest", str(manifest), "--json"]
    command += ["--weights", str(tmp_path)]
    assert main(command) == DONE
    out, err = capsys.readouterr()
    assert [json.loads(line)["epoch"] for line in out.splitlines()] == [1, 2]
    assert "epoch 2/2" in err and "wrote" in err
    about = json.loads((tmp_path / "contrastive-connected-64-divided" / "network.json").read_text())
    assert about["training"]["steps"] == 4 and len(about["training"]["history"]) == 2
    assert main(command) == DONE
    out, err = capsys.readouterr()
    assert not out and "is there, trained so" in err
    assert main([*command, "--steps", "2"]) == FAILED
    assert "was trained otherwise" in capsys.readouterr().err
    assert main([*command, "--split", "dev"]) == FAILED
    assert "was trained on other audio" in capsys.readouterr().err
    assert json.loads((tmp_path / "contrastive-connected-64-divided" / "network.json").read_text()) == about


def test_audio_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "contrastive", "--data", str(tmp_path / "none")]) == FAILED
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["train", "contrastive", "--data", str(tmp_path), "--weights", str(tmp_path)]) == FAILED
    assert "no audio to train on" in capsys.readouterr().err


def test_signs_need_recordings_that_no_network_was_trained_on(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "signs", "--encoder", "connected", "--weights", str(tmp_path)]
    for options, told in (
        (["--data", str(manifest.parent)], "give a --manifest"),
        (["--manifest", str(manifest), "--values", "512"], "64, 128 or 256 bits, not 512"),
        (["--manifest", str(manifest), "--calibrate-on", "none"], "name one with --calibrate-on"),
        (["--manifest", str(manifest), "--calibrate-on", "train"], "name one with --calibrate-on"),
    ):
        assert main([*command, *options]) == FAILED
        assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())  # nothing was trained before


def test_an_experiment_goes_on_where_it_was_stopped(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "contrastive", "--manifest", str(manifest), "--encoder", "connected"]
    command += ["--weights", str(tmp_path / "networks"), "--out", str(tmp_path / "out"), "--queries", "6"]
    assert main([*command, "--minutes", "1e-6"]) == FAILED
    out, err = capsys.readouterr()
    assert "epoch 1/2" in err and "epoch 2/2" not in err and "the same command goes on" in err
    assert "connected, d = 64" not in out
    assert main(command) == DONE
    out, err = capsys.readouterr()
    assert "epoch 1/2" not in err and "epoch 2/2" in err
    assert out.count("| connected, d = 64 |") == 6 and "music-dev" in out
    assert (tmp_path / "out" / "study.md").read_text() in out
    assert main(command) == DONE
    again = capsys.readouterr()
    assert again.out == out and "epoch" not in again.err
    for option in ("--own", "--other"):
        status = main([*command, option, "none"])
        assert status == (FAILED if option == "--own" else DONE)
    assert "has no music in the split none" in capsys.readouterr().err


# -- the U-Net autoencoder ---------------------------------------------------------------------------------------------


def test_an_autoencoder_is_trained_once(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "unet", "--manifest", str(manifest), "--json", "--weights", str(tmp_path)]
    assert main(command) == DONE
    out, err = capsys.readouterr()
    epochs = [json.loads(line) for line in out.splitlines()]
    assert [one["epoch"] for one in epochs] == [1, 2] and epochs[0]["network"] == "unet-16k-normalised"
    assert "epoch 2/2" in err and "clips_per_s" in err and "wrote" in err
    assert main(command) == DONE
    out, err = capsys.readouterr()
    assert not out and "is there, trained so" in err
    about = (tmp_path / "unet-16k-normalised" / "network.json").read_text()
    for options, told in (
        (["--clips", "8"], "was trained otherwise"),
        (["--split", "check"], "on other audio"),
    ):
        assert main([*command, *options]) == FAILED
        assert told in capsys.readouterr().err
    assert (tmp_path / "unet-16k-normalised" / "network.json").read_text() == about
    assert main([*command, "--front-end", "paper", "--split", "check"]) == FAILED
    assert "1 of the recordings can be used, and 3 are needed at least" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--features", "bent"])
    assert "no kind of features is called 'bent'; there are normalised, plain" in capsys.readouterr().err


def test_an_autoencoder_s_experiment_goes_on_where_it_was_stopped(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "unet", "--manifest", str(manifest), "--weights", str(tmp_path / "networks")]
    command += ["--out", str(tmp_path / "out"), "--queries", "4", "--rebuilt", "2"]
    assert main([*command, "--minutes", "1e-6"]) == FAILED
    out, err = capsys.readouterr()
    assert "epoch 1/2" in err and "epoch 2/2" not in err and "the same command goes on" in err
    assert "| unet-16k-normalised" not in out
    assert main(command) == DONE
    out, err = capsys.readouterr()
    assert "epoch 1/2" not in err and "epoch 2/2" in err
    assert out.count("| unet-16k-normalised, music, random") == 3 and "among 2 recordings" in out
    assert (tmp_path / "out" / "study.md").read_text() in out
    assert len(list((tmp_path / "out").glob("*.svg"))) == 2
    assert main(command) == DONE
    again = capsys.readouterr()
    assert again.out == out and "epoch" not in again.err
    assert main([*command, "--library", "none"]) == FAILED
    assert "has no recordings in the split none; name another with --library" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_each_system_has_options_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for system in ("contrastive", "unet"):
        with pytest.raises(SystemExit, match="0"):
            main([command, system, "--help"])
        told[system] = capsys.readouterr().out
    for option, system in (("--encoder", "contrastive"), ("--front-end", "unet"), ("--steps", "contrastive")):
        assert [name for name, text in told.items() if option in text] == [system]
