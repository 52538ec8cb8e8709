"""What the README shows, works."""

from __future__ import annotations

import json
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
from synth import tune, write

from bench.cli import build_parser as bench_parser
from samaf.cli import build_parser as samaf_parser

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_example_finds_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tune(20)
    (tmp_path / "music").mkdir()
    write(tmp_path / "music" / "Song.flac", samples)
    write(tmp_path / "music" / "Other.flac", tune(20, seed=1))
    write(tmp_path / "clip.wav", samples[round(6.2 * 16000) : round(14.2 * 16000)])
    monkeypatch.chdir(tmp_path)
    [code] = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    found = re.match(r"Song at (\d+\.\d) s: \d+\.\d%", capsys.readouterr().out)
    assert found and float(found[1]) == pytest.approx(6.2, abs=0.3)


@pytest.mark.parametrize(("program", "parser"), [("samaf", samaf_parser), ("bench", bench_parser)])
def test_the_commands_exist(program: str, parser: Callable[[], ArgumentParser]) -> None:
    lines = [re.sub(r".*&& ", "", line) for block in blocks("sh") for line in block.splitlines()]
    parsed = [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]
    assert len(parsed) >= 5
    for words in parsed:
        parser().parse_args(words[1:])  # exits if there is no such command or option


def test_the_json_example_has_the_fields_of_an_answer() -> None:
    from test_cli import RESULT_KEYS

    [example] = blocks("json")
    assert sorted(json.loads(example)) == sorted(RESULT_KEYS)


def test_the_first_command_is_the_demo_and_the_second_the_tests() -> None:
    first, second, *_ = blocks("sh")
    assert first == "pip install '.[plot]' && samaf demo\n"
    assert second == "pip install -e '.[test,train]' && pytest\n"


def test_the_files_it_names_are_there() -> None:
    folder = Path(__file__).parent.parent
    for table in re.findall(r"^\| in `(\w+/)` \|.*\n\|---\|---\|\n((?:\|.*\n)+)", README, re.MULTILINE):
        named = re.findall(r"^\| (`[^|]*) \|", table[1], re.MULTILINE)
        assert len(named) > 3
        for name in re.findall(r"`([\w./]+)`", " ".join(named)):
            assert (folder / table[0] / name).exists(), name
