"""The package's front door: what it exports, how little it imports, and its errors."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from synth import tune, write

import samaf
from samaf import errors


def test_every_error_is_a_samaf_error_and_stands_in_the_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) == 8
    for kind in kinds:
        assert issubclass(kind, errors.SamafError)
        assert errors.__doc__ is not None and kind.__name__ in errors.__doc__
        assert getattr(samaf, kind.__name__) is kind
    assert issubclass(errors.MismatchError, errors.StoreError)
    assert issubclass(errors.LockedError, errors.StoreError)


def test_exports_are_there() -> None:
    for name, module in samaf._HOME.items():
        assert name in samaf.__all__ and name in dir(samaf)
        if importlib.util.find_spec(module) is not None:
            assert getattr(samaf, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Enkoder'"):
        samaf.Enkoder  # noqa: B018


def test_the_examples_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "music").mkdir()
    for seed, name in enumerate(["music/Gymnopédie No. 1.flac", "music/Other.flac", "song.flac"]):
        write(tmp_path / name, tune(20, seed))
    write(tmp_path / "concert.flac", tune(70))
    write(tmp_path / "clip.wav", tune(20, 0)[80000:160000])
    monkeypatch.chdir(tmp_path)
    names = [module.name for module in pkgutil.walk_packages(samaf.__path__, "samaf.")]
    left_out = ["samaf.model", "samaf.__main__"]
    if importlib.util.find_spec("fastapi") is None:
        left_out.append("samaf.serve")
    tried = 0
    for name in names:
        if not name.startswith(tuple(left_out)):
            module = importlib.import_module(name)
            assert "+SKIP" not in (inspect.getsource(module) or "")
            tried += doctest.testmod(module, raise_on_error=True).attempted
    assert tried > 15


def test_importing_samaf_is_light() -> None:
    code = "import json, sys, samaf; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    heavy = {"numpy", "numba", "av", "soundfile", "soxr", "lmdb", "onnxruntime", "tensorflow", "rich"}
    assert not heavy & set(json.loads(done.stdout))


def test_reading_a_wav_does_not_load_ffmpeg(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, soundfile, samaf\n"
        "soundfile.write(sys.argv[1], numpy.zeros(160), 16000)\n"
        "samaf.read_audio(sys.argv[1])\n"
        "assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.wav")], check=True)


def test_names_are_shown_on_one_line() -> None:
    assert errors.shown("a/ü b.wav") == "a/ü b.wav"
    assert errors.shown(Path("x") / "y\n\x1b.wav") == os.path.join("x", "y\\n\\x1b.wav")
    assert errors.shown("\udce9") == "\\udce9"
