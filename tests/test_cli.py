"""The command line: what it prints, how it ends, and that nothing makes it break off or harm the index."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from synth import tune, write

from samaf import Fingerprint, Library
from samaf.cli import main
from samaf.encoder import Encoder
from samaf.index import Index
from samaf.weights import DEFAULT_PATH, Weights

FORCED = ["--min-probability", "0"]
RESULT_KEYS = """query rank track_id path title ber evalue score probability log_odds copies_of bits wrong_bits
    query_start_s query_end_s track_start_s track_end_s speed tempo pitch_cents clip_s coverage gaps
    elapsed_s""".split()


class Ended:
    """How a command ended and what it said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=_no_constant) for line in self.out.splitlines()]

    @property
    def complaints(self) -> list[str]:
        assert "Traceback" not in self.err
        return [line for line in self.err.splitlines() if line.startswith("samaf: ")]


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def samaf(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command in this process."""

    def run(*args: object) -> Ended:
        capsys.readouterr()
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as end:
            status = end.code  # type: ignore[assignment]
        return Ended(status, *capsys.readouterr())

    return run


def start(*args: object, **options: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "samaf", *map(str, args)]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)


def end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for seed, name in enumerate(["one.wav", "two.flac", "three.ogg"]):
        write(folder / name, tune(12, seed=seed))
    return folder


@pytest.fixture(scope="module")
def library(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the songs, not to be written."""
    path = tmp_path_factory.mktemp("index") / "songs.samaf"
    with Library(path, writable=True) as library:
        assert library.add(songs).added == 3
    return path


@pytest.fixture
def db(library: Path, tmp_path: Path) -> Path:
    """A copy of it that may be written."""
    return Path(shutil.copy(library, tmp_path / "db.samaf"))


@pytest.fixture
def clip(songs: Path, tmp_path: Path) -> Path:
    """Five seconds of two.flac, from 3.21 s on."""
    samples, rate = soundfile.read(songs / "two.flac", dtype="float32")
    return write(tmp_path / "clip.wav", samples[round(3.21 * rate) : round(8.21 * rate)])


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return write(tmp_path / "stranger.wav", tune(5, seed=99))


# -- every command ----------------------------------------------------------------------------------------------------

COMMANDS = [
    [],
    *([name] for name in ("demo", "index", "search", "serve", "encode", "train", "calibrate", "export")),
    *(
        ["index", name]
        for name in ("add", "remove", "list", "stats", "verify", "compact", "export", "import")
    ),
]


def test_help_shows_what_there_is_and_imports_nothing_heavy() -> None:
    code = (
        "import io, json, sys, contextlib\n"
        "from samaf.cli import main\n"
        "texts = []\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        try: main([*command, '--help'])\n"
        "        except SystemExit as end: assert end.code == 0\n"
        "    texts.append(text.getvalue())\n"
        "print(json.dumps([texts, sorted(sys.modules)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(COMMANDS)], capture_output=True, text=True, check=True
    )
    texts, modules = json.loads(done.stdout)
    assert not {"numpy", "numba", "rich", "lmdb", "soundfile", "onnxruntime", "tensorflow"} & set(modules)
    for command, text in zip(COMMANDS, texts, strict=True):
        assert " ".join(["usage: samaf", *command]) in text
        if len(command) < 2:
            assert "examples:\n  samaf" in text
    for word in ("index", "search", "encode", "train", "calibrate", "export", "demo"):
        assert re.search(rf"^    {word}\s", texts[0], re.MULTILINE)


def test_version(samaf: Callable[..., Ended]) -> None:
    ended = samaf("--version")
    assert ended.status == 0 and ended.out.startswith("samaf 0.")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["search"], "CLIP"),
        (["serch", "x.wav"], "serch"),
        (["index"], "ACTION"),
        ([], "COMMAND"),
        (["search", "--ber", "1.5", "x.wav"], "--ber: 1.5 is not between 0 and 1"),
        (["search", "--ber", "nan", "x.wav"], "--ber"),
        (["search", "--ber", "low", "x.wav"], "--ber: 'low' is not a number"),
        (["search", "--min-probability", "1", "x.wav"], "--min-probability: 1 is not from 0 to less than 1"),
        (["search", "--prior", "0", "x.wav"], "--prior: 0 is not between 0 and 1, both excluded"),
        (["search", "--max-evalue", "0", "x.wav"], "--max-evalue: 0 is not above 0"),
        (["search", "--max-evalue", "-1", "x.wav"], "--max-evalue"),
        (["search", "--max-evalue", "nan", "x.wav"], "--max-evalue"),
        (["search", "--top", "0", "x.wav"], "--top: 0 is not 1 or more"),
        (["search", "--top", "2.5", "x.wav"], "--top: '2.5' is not a whole number"),
        (["encode", "--bits", "100", "x.wav"], "--bits: 100 is not one of 64, 128, 256"),
        (["encode", "--hop", "0", "x.wav"], "--hop: a hop of 0 s: must be a multiple of 0.01 s"),
        (["encode", "--hop", "0.123", "x.wav"], "--hop"),
        (["index", "add", "--hop", "inf", "x"], "--hop"),
        (["train"], "--data"),
        (["calibrate", "m.npz"], "--held-out"),
        (["calibrate", "--held-out", "new"], "MODEL"),
        (["calibrate", "m.npz", "--held-out", "new", "--queries", "0"], "--queries: 0 is not 1 or more"),
        (["search", "--exhaust", "x.wav"], "--exhaust"),
    ],
)
def test_wrong_usage_is_one_line(samaf: Callable[..., Ended], args: list[str], part: str) -> None:
    ended = samaf(*args)
    assert (ended.status, ended.out) == (2, "")
    [line] = ended.err.splitlines()
    assert line.startswith("samaf: ") and part in line and "--help" in line


@pytest.mark.parametrize(
    "args",
    [
        ["search", "--db", "DB", "CLIP"],
        ["index", "list", "--db", "DB"],
        ["index", "stats", "--db", "DB"],
        ["index", "verify", "--db", "DB"],
        ["index", "remove", "--db", "DB", "1"],
        ["index", "compact", "--db", "DB"],
        ["index", "export", "--db", "DB", "OUT"],
        ["index", "import", "--db", "DB", "OUT"],
    ],
)
def test_without_an_index(samaf: Callable[..., Ended], args: list[str], clip: Path, tmp_path: Path) -> None:
    names = {"DB": tmp_path / "no.samaf", "CLIP": clip, "OUT": tmp_path / "out"}
    ended = samaf(*(names.get(arg, arg) for arg in args))
    assert (ended.status, ended.out) == (2, "")
    assert ended.complaints == [
        f"samaf: there is no index {tmp_path / 'no.samaf'}; make one with 'samaf index add'"
    ]
    assert not (tmp_path / "no.samaf").exists()


def test_the_default_index_comes_from_the_environment(
    samaf: Callable[..., Ended], library: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMAF_DB", str(library))
    assert samaf("search", *FORCED, clip).status == 0
    assert len(samaf("index", "list", "--json").records) == 3


# -- search -----------------------------------------------------------------------------------------------------------


def test_search_prints_exactly_the_promised_object(
    samaf: Callable[..., Ended], library: Path, songs: Path, clip: Path
) -> None:
    ended = samaf("search", "--db", library, "--json", *FORCED, "--top", 1, clip)
    assert (ended.status, ended.err) == (0, "")
    record, *others = ended.records
    assert all(sorted(each) == sorted(RESULT_KEYS) for each in (record, *others))
    assert (record["query"], record["rank"]) == (str(clip), 1)
    assert (record["path"], record["title"]) == (str(songs / "two.flac"), "two")
    assert record["track_start_s"] - record["query_start_s"] == pytest.approx(3.21, abs=0.3)
    assert 0 <= record["ber"] < 0.35 and record["elapsed_s"] > 0
    assert (
        samaf("search", "--db", library, "--json", *FORCED, "--exhaustive", clip).records[0]["title"] == "two"
    )


def test_the_query_is_given_back_as_it_was_given(
    samaf: Callable[..., Ended], library: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    record, *_ = samaf("search", "--db", library, "--json", *FORCED, "--top", 1, "./clip.wav").records
    assert record["query"] == "./clip.wav" and os.path.isabs(record["path"])


def test_the_best_come_first_and_no_more_than_asked_for(
    samaf: Callable[..., Ended], library: Path, clip: Path
) -> None:
    records = samaf("search", "--db", library, "--json", *FORCED, "--top", 3, clip).records
    assert [r["rank"] for r in records] == list(range(1, len(records) + 1))
    odds = [r["log_odds"] for r in records]
    assert odds == sorted(odds, reverse=True)
    for r in records:  # at most three for any stretch of the clip
        middle = (r["query_start_s"] + r["query_end_s"]) / 2
        assert sum(other["query_start_s"] <= middle <= other["query_end_s"] for other in records) <= 3 + 1


def test_what_nothing_resembles_is_unknown(
    samaf: Callable[..., Ended], library: Path, stranger: Path
) -> None:
    ended = samaf("search", "--db", library, "--json", "--max-evalue", "1e-12", stranger)
    assert ended.status == 1 and ended.complaints == []
    [record] = ended.records
    assert sorted(record) == ["clip_s", "coverage", "elapsed_s", "gaps", "query", "track_id"]
    assert record["track_id"] is None and record["coverage"] == 0.0 and record["gaps"][0][0] == 0.0
    assert "unknown" in samaf("search", "--db", library, "--max-evalue", "1e-12", stranger).out


def test_a_forced_search_always_answers(samaf: Callable[..., Ended], library: Path, stranger: Path) -> None:
    ended = samaf("search", "--db", library, "--json", *FORCED, "--top", 1, stranger)
    assert ended.status == 0 and ended.records[0]["track_id"] is not None


def test_people_get_a_table(samaf: Callable[..., Ended], library: Path, clip: Path) -> None:
    ended = samaf("search", "--db", library, *FORCED, clip)
    assert ended.status == 0 and ended.err == ""
    for text in (
        "clip.wav",
        "two",
        "in the track",
        "probability",
        "BER",
        "score",
        "bits differ; so few do by chance",
    ):
        assert text in ended.out


def test_matches_are_drawn(samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pictures"
    ended = samaf("search", "--db", library, "--json", *FORCED, "--top", 2, "--explain", folder, clip)
    assert ended.status == 0 and ended.complaints == []
    names = [f"clip-{rank}.png" for rank in range(1, len(ended.records) + 1)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" and name in ended.err for name in names)
    samaf("encode", "--hop", 0.1, "--confidence", "-o", tmp_path / "q.samaf", clip)
    ended = samaf("search", "--db", library, *FORCED, "--explain", folder, tmp_path / "q.samaf")
    assert ended.status == 2 and all("is not drawn" in text for text in ended.complaints)
    (tmp_path / "file").write_text("")
    ended = samaf("search", "--db", library, *FORCED, "--explain", tmp_path / "file" / "d", clip)
    assert ended.status == 2 and len(ended.complaints) == 1 and "name another folder" in ended.err


def test_nothing_is_searched_for_that_cannot_be_drawn(
    samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = samaf("search", "--db", library, clip, "--explain", tmp_path / "pictures")
    line = "samaf: drawing needs matplotlib, which is not installed; run: pip install 'samaf[plot]'"
    assert (ended.status, ended.out, ended.err.splitlines()) == (2, "", [line])
    assert not (tmp_path / "pictures").exists()


def test_fingerprint_files_are_clips_too(
    samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path
) -> None:
    for options in (["--confidence"], []):
        samaf("encode", "--hop", 0.1, *options, "-o", tmp_path / "q.samaf", clip)
        ended = samaf("search", "--db", library, "--json", *FORCED, "--top", 1, tmp_path / "q.samaf")
        assert ended.status == 0 and ended.records[0]["title"] == "two"


def test_a_long_search_shows_how_far_it_is_to_a_terminal_alone(
    samaf: Callable[..., Ended], library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.progress import Progress

    shown: list[tuple[float, float]] = []
    update = Progress.update

    def updated(self: Progress, task: Any, **options: Any) -> None:
        shown.append((options["completed"], options["total"]))
        update(self, task, **options)

    monkeypatch.setattr(Progress, "update", updated)
    for seconds in (59, 62):
        long = write(tmp_path / "long.wav", np.concatenate([tune(12, seed=1), tune(seconds - 12, seed=50)]))
        ended = samaf("search", "--db", library, "--json", "--top", 1, long)
        assert (ended.status, ended.err) == (0, "") and ended.records[0]["title"] == "two"
        assert bool(shown) == (seconds > 60)
    assert shown == sorted(shown) and {total for _, total in shown} == {62}


# -- bad input --------------------------------------------------------------------------------------------------------


def _write_bad(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what is said about each."""
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no music here " * 100)
    (folder / "folder.wav").mkdir()
    (folder / "print.samaf").write_bytes(b"SAMAFP\x01\x00")
    (folder / "noprint.samaf").write_bytes(b"hello")
    (folder / "header.wav").write_bytes(write(folder / "x.wav", tune(2)).read_bytes()[:44])
    (folder / "x.wav").unlink()
    write(folder / "silent.wav", np.zeros(32000, np.float32))
    write(folder / "one.wav", np.full(1, 0.5, np.float32))
    write(folder / "short.wav", tune(0.5))
    nan = tune(3)
    nan[20000] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    return {
        "missing.wav": "no such file",
        "empty.wav": "is empty",
        "text.mp3": "not audio",
        "folder.wav": "folder",
        "print.samaf": "damaged",
        "noprint.samaf": "not a fingerprint",
        "header.wav": "",
        "silent.wav": "silent",
        "one.wav": "at least 1 s",
        "short.wav": "at least 1 s",
        "nan.wav": "NaN",
    }


def test_bad_clips_are_named_and_the_rest_goes_on(
    samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = _write_bad(folder)
    before = library.read_bytes()
    ended = samaf(
        "search", "--db", library, "--json", *FORCED, "--top", 1, *(folder / name for name in bad), clip
    )
    assert ended.status == 2
    assert {r["query"] for r in ended.records} == {str(clip)}
    assert len(ended.err.splitlines()) == len(ended.complaints) == len(bad)
    for line, (name, part) in zip(ended.complaints, bad.items(), strict=True):
        assert line.startswith(f"samaf: {folder / name}: ") and part in line
    assert library.read_bytes() == before


def test_bad_files_are_named_and_the_rest_is_added(
    samaf: Callable[..., Ended], db: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = _write_bad(folder)
    good = write(folder / "good.wav", tune(3, seed=7))
    ended = samaf("index", "add", "--db", db, "--json", *(folder / name for name in bad), good)
    assert ended.status == 2
    assert len(ended.complaints) == len(bad)
    for name, part in bad.items():
        assert any(line.startswith(f"samaf: {folder / name}: ") and part in line for line in ended.complaints)
    outcomes = {r["path"]: r["status"] for r in ended.records}
    assert outcomes == {str(folder / name): "failed" for name in bad} | {str(good): "added"}
    assert samaf("index", "verify", "--db", db).status == 0
    assert len(samaf("index", "list", "--db", db, "--json").records) == 4


def test_only_bad_files_leave_the_index_as_it_was(
    samaf: Callable[..., Ended], db: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = _write_bad(folder)
    before = db.read_bytes()
    assert samaf("index", "add", "--db", db, *(folder / name for name in bad)).status == 2
    assert db.read_bytes() == before


def test_a_slip_of_the_hand_makes_no_index(samaf: Callable[..., Ended], tmp_path: Path) -> None:
    ended = samaf("index", "add", "--db", tmp_path / "new.samaf", tmp_path / "nothing.wav")
    assert ended.status == 2 and ended.complaints[0].startswith(
        f"samaf: {tmp_path / 'nothing.wav'}: no such file"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_number_of_channels(
    samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path, rate: int, channels: int
) -> None:
    samples, _ = soundfile.read(clip, dtype="float32")
    t = np.arange(round(len(samples) * rate / 16000)) * 16000 / rate
    resampled = np.interp(t, np.arange(len(samples)), samples).astype(np.float32)
    path = write(tmp_path / "odd.wav", np.repeat(resampled[:, None], channels, axis=1), rate)
    record, *_ = samaf("search", "--db", library, "--json", *FORCED, "--top", 1, path).records
    assert (record["title"], record["query_end_s"]) == ("two", pytest.approx(4.8, abs=0.25))
    assert record["track_start_s"] - record["query_start_s"] == pytest.approx(3.21, abs=0.3)


def test_a_truncated_file_is_read_as_far_as_it_goes(
    samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(clip.read_bytes()[:-60_000])
    assert samaf("search", "--db", library, "--json", *FORCED, cut).records[0]["title"] == "two"


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "is empty, not an index"), (b"hello", "is not an index"), (None, "cut short")],
    ids=["empty", "text", "truncated"],
)
def test_what_is_no_index(
    samaf: Callable[..., Ended], library: Path, clip: Path, tmp_path: Path, content: bytes | None, part: str
) -> None:
    bad = tmp_path / "bad.samaf"
    bad.write_bytes(library.read_bytes()[:20_000] if content is None else content)
    before = bad.read_bytes()
    for args in (["search", clip], ["index", "add", clip], ["index", "list"], ["index", "verify"]):
        ended = samaf(*args[:1], *args[1:], "--db", bad)
        assert (ended.status, ended.out) == (2, "")
        [line] = ended.complaints
        assert str(bad) in line and part in line
    assert bad.read_bytes() == before


def test_a_damaged_index_is_repaired_into_a_new_one(
    samaf: Callable[..., Ended], db: Path, clip: Path, tmp_path: Path
) -> None:
    bad, new = tmp_path / "bad.samaf", tmp_path / "new.samaf"
    shutil.copy(db, bad)
    ended = samaf("index", "verify", "--db", bad, "--repair", new, "--json")
    assert ended.status == 0 and ended.records[0]["ok"] and not ended.complaints
    assert samaf("search", "--db", new, clip).status == 0
    assert samaf("index", "verify", "--db", bad, "--repair", new).status == 2  # it is there already
    with Index.open(bad) as index, index.snapshot() as snapshot:
        hashes = bytes(snapshot.segments[0].hashes[:4])
    data = bytearray(bad.read_bytes())
    data[data.index(hashes)] ^= 1
    bad.write_bytes(data)
    ended = samaf("search", "--db", bad, clip)
    assert ended.status == 2 and "--repair" in ended.complaints[0] and str(bad) in ended.complaints[0]
    new.unlink()
    ended = samaf("index", "verify", "--db", bad, "--repair", new)
    assert ended.status == 2 and len(ended.complaints) == 1 and "lost: track 1" in ended.complaints[0]
    assert samaf("index", "verify", "--db", new).status == 0


def test_an_index_of_another_model(
    samaf: Callable[..., Ended], clip: Path, songs: Path, tmp_path: Path
) -> None:
    shipped = Weights.load(DEFAULT_PATH)
    model, db = tmp_path / "other.npz", tmp_path / "other.samaf"
    replace(shipped, arrays={**shipped.arrays, "kernel": -shipped.floats["kernel"]}).save(model)
    assert samaf("index", "add", "--db", db, "--model", model, songs).status == 0
    assert samaf("search", "--db", db, *FORCED, clip).status == 0
    before = db.read_bytes()
    for args in (["search"], ["index", "add"]):
        ended = samaf(*args, "--db", db, "--model", DEFAULT_PATH, clip)
        assert ended.status == 2 and str(db) in ended.complaints[0] and "made with" in ended.complaints[0]
        model.rename(tmp_path / "moved.npz")
        ended = samaf(*args, "--db", db, clip)
        assert ended.status == 2 and str(db) in ended.complaints[0] and "--model" in ended.complaints[0]
        (tmp_path / "moved.npz").rename(model)
    ended = samaf("index", "add", "--db", db, "--bits", 256, clip)
    assert ended.status == 2 and "--bits 128" in ended.complaints[0]
    assert db.read_bytes() == before
    (tmp_path / "nonsense.npz").write_bytes(b"PK nothing")
    ended = samaf("search", "--db", db, "--model", tmp_path / "nonsense.npz", clip)
    assert ended.status == 2 and "nonsense.npz" in ended.complaints[0]


def test_an_index_of_another_version(
    samaf: Callable[..., Ended], db: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samaf.index.state.FORMAT_VERSION", 3)
    before = db.read_bytes()
    for args in (["search", clip], ["index", "add", clip]):
        ended = samaf(*args, "--db", db)
        assert ended.status == 2
        assert f"index {db} has format 2, this samaf reads 3" in ended.complaints[0]
    assert db.read_bytes() == before


def test_a_second_writer_is_turned_away(samaf: Callable[..., Ended], db: Path, clip: Path) -> None:
    with Library(db, writable=True):
        for args in (["add", clip], ["remove", "1"], ["compact"]):
            ended = samaf("index", *args, "--db", db)
            assert (ended.status, ended.out) == (2, "")
            [line] = ended.complaints
            assert str(db) in line and "is writing" in line
        assert samaf("search", "--db", db, *FORCED, clip).status == 0  # readers are welcome


# -- index ------------------------------------------------------------------------------------------------------------


def test_add_and_add_again(samaf: Callable[..., Ended], songs: Path, tmp_path: Path) -> None:
    db = tmp_path / "new" / "index.samaf"
    ended = samaf("index", "add", "--db", db, "--bits", 64, "--hop", 0.5, songs)
    assert (ended.status, ended.out) == (0, "") and "added 3 recordings (0:36.0)" in ended.err
    ended = samaf("index", "add", "--db", db, "--json", songs)
    assert ended.status == 0 and "3 were there already" in ended.err
    assert [r["status"] for r in ended.records] == ["skipped"] * 3
    [stats] = samaf("index", "stats", "--db", db, "--json").records
    assert (stats["n_tracks"], stats["header"]["bits"], stats["header"]["hop_s"]) == (3, 64, 0.5)
    assert stats["duration_s"] == pytest.approx(36, abs=0.1) and stats["bytes_per_hour"] > 0
    text = samaf("index", "stats", "--db", db).out
    assert "64 bits" in text and str(db) in text


def test_what_is_cut_off_is_told_by_every_command(
    samaf: Callable[..., Ended], db: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "cut.flac", tune(30, seed=8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    ended = samaf("index", "add", "--db", db, "--json", path)
    [record] = ended.records
    assert (ended.status, record["status"]) == (0, "added") and "1 not whole" in ended.err
    warning = record["warning"]
    assert re.fullmatch(
        r"is cut off or damaged: \d\.\d s of the 30\.0 s that it states could be read; "
        r"copy it again from where it is whole",
        warning,
    )
    assert ended.complaints == [f"samaf: {path}: {warning}"]
    assert samaf("index", "add", "--db", db, path).complaints == []  # it has been said, and is remembered
    records = samaf("index", "list", "--db", db, "--json").records
    assert [record.get("warning") for record in records] == [None, None, None, warning]
    assert "is cut off or damaged" in samaf("index", "list", "--db", db).out
    for command in (["search", "--db", db], ["encode", "-o", tmp_path / "cut.samaf"]):
        ended = samaf(*command, "--json", path)
        assert (ended.status, ended.complaints) == (0, [f"samaf: {path}: {warning}"])
        assert ended.records[0]["warning"] == warning
    exported = tmp_path / "all.export"
    samaf("index", "export", "--db", db, exported)
    samaf("index", "remove", "--db", db, path)
    samaf("index", "import", "--db", db, exported)
    assert samaf("index", "list", "--db", db, "--json").records[-1]["warning"] == warning


def test_list_and_remove(samaf: Callable[..., Ended], db: Path, songs: Path) -> None:
    records = samaf("index", "list", "--db", db, "--json").records
    assert [(r["track_id"], r["title"]) for r in records] == [(1, "one"), (2, "three"), (3, "two")]
    text = samaf("index", "list", "--db", db).out
    assert "three" in text and "0:12.0" in text
    ended = samaf("index", "remove", "--db", db, 1, 77, songs / "two.flac", "nonsense")
    assert ended.status == 2 and "removed 2" in ended.err
    assert [line.split(":")[1] for line in ended.complaints] == [" 77", " nonsense"]
    assert [r["title"] for r in samaf("index", "list", "--db", db, "--json").records] == ["three"]
    assert samaf("index", "remove", "--db", db, 2).status == 0


def test_removing_one_of_two_files_of_a_content_keeps_the_other(
    samaf: Callable[..., Ended], db: Path, songs: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(songs / "one.wav", str(tmp_path / "copy.wav"))
    assert samaf("index", "add", "--db", db, copy).status == 0
    assert samaf("index", "remove", "--db", db, songs / "one.wav").status == 0
    records = samaf("index", "list", "--db", db, "--json").records
    assert [r["path"] for r in records if r["track_id"] == 1] == [copy]


def test_verify_compact_export_import(
    samaf: Callable[..., Ended], db: Path, songs: Path, tmp_path: Path
) -> None:
    assert samaf("index", "verify", "--db", db, "--json").records[0]["ok"] is True
    samaf("index", "remove", "--db", db, 1)
    assert samaf("index", "compact", "--db", db).status == 0
    assert samaf("index", "compact", "--db", db, "--in-place").status == 0
    assert samaf("index", "export", "--db", db, tmp_path / "all.export").status == 0
    assert samaf("index", "export", "--db", db, db).status == 2
    ended = samaf("index", "import", "--db", db, tmp_path / "all.export")
    assert ended.status == 0 and "added 0 recordings; 2 were there already" in ended.err
    samaf("index", "remove", "--db", db, 2, 3)
    assert samaf("index", "import", "--db", db, tmp_path / "all.export").status == 0
    assert len(samaf("index", "list", "--db", db, "--json").records) == 2
    ended = samaf("index", "import", "--db", db, songs / "one.wav")
    assert ended.status == 2 and str(songs / "one.wav") in ended.complaints[0]


def test_verify_finds_damage(samaf: Callable[..., Ended], db: Path) -> None:
    with Library(db) as library, library.index.snapshot() as snapshot:
        row = snapshot.segments[0].hashes[0].tobytes()
    data = bytearray(db.read_bytes())
    at = data.find(row)
    assert at > 0
    data[at] ^= 1
    db.write_bytes(data)
    ended = samaf("index", "verify", "--db", db)
    assert ended.status == 2 and ended.complaints and all(str(db) in line for line in ended.complaints)
    [record] = samaf("index", "verify", "--db", db, "--json").records
    assert record["ok"] is False and record["problems"]


# -- encode -----------------------------------------------------------------------------------------------------------


def test_encode_writes_where_it_is_told(
    samaf: Callable[..., Ended], songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert samaf("encode", songs / "one.wav", songs / "two.flac").status == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.samaf", "two.samaf"]
    assert Fingerprint.load("one.samaf") == Encoder().encode(songs / "one.wav")
    assert samaf("encode", songs / "one.wav", "--bits", 256, "--hop", 0.5, "-o", "named.samaf").status == 0
    named = Fingerprint.load("named.samaf")
    assert (named.bits, named.hop_s, named.confidence) == (256, 0.5, None)
    assert samaf("encode", songs / "one.wav", "--confidence", "-o", "folder/").status == 0
    query = Fingerprint.load("folder/one.samaf")
    assert query.confidence is not None and query.overhangs
    assert replace(query, confidence=None) == Encoder().encode(songs / "one.wav", overhang=True)


def test_encode_as_json(
    samaf: Callable[..., Ended], songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = samaf("encode", "--json", songs / "one.wav", tmp_path / "missing.wav", songs / "two.flac")
    assert ended.status == 2 and "missing.wav: no such file" in ended.complaints[0]
    expected = Encoder().encode(songs / "one.wav")
    assert ended.records[0] == {
        "file": str(songs / "one.wav"),
        "bits": 128,
        "hop_s": 1.0,
        "duration_s": 12.0,
        "model_id": expected.model_id,
        "hashes": expected.hex(),
        "valid": [True] * 12,
    }
    assert ended.records[1]["file"] == str(songs / "two.flac") and list(tmp_path.iterdir()) == []


def test_a_query_as_json_says_what_overhangs(samaf: Callable[..., Ended], clip: Path) -> None:
    [record] = samaf("encode", "--json", "--confidence", "--hop", 0.5, clip).records
    expected = Encoder().encode_query(clip, hop_s=0.5)
    assert expected.known is not None and expected.confidence is not None
    assert record["start_s"] == -0.5 and record["hashes"] == expected.hex()
    assert record["known"] == pytest.approx(expected.known.tolist(), abs=1e-4)
    assert record["confidence"][2] == pytest.approx(expected.confidence[2].tolist(), abs=1e-4)


def test_a_query_is_no_recording(samaf: Callable[..., Ended], db: Path, clip: Path, tmp_path: Path) -> None:
    samaf("encode", "--confidence", "-o", tmp_path / "q.samaf", clip)
    ended = samaf("index", "add", "--db", db, tmp_path / "q.samaf")
    assert ended.status == 2
    [line] = ended.complaints
    assert line.startswith(f"samaf: {tmp_path / 'q.samaf'}: was made for searching")


def test_encode_overwrites_nothing_but_its_own(
    samaf: Callable[..., Ended], songs: Path, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    song = Path(shutil.copy(songs / "one.wav", tmp_path / "one.wav"))
    other = Path(shutil.copy(songs / "two.flac", tmp_path / "one.flac"))
    ended = samaf("encode", song, other)
    assert ended.status == 2 and "would both become one.samaf" in ended.complaints[0]
    assert not (tmp_path / "one.samaf").exists()
    for target in (db, song):
        before = target.read_bytes()
        ended = samaf("encode", other, "-o", target)
        assert ended.status == 2 and "is no fingerprint" in ended.complaints[0]
        assert target.read_bytes() == before
    os.mkfifo(tmp_path / "pipe")
    ended = samaf("encode", other, "-o", tmp_path / "pipe")
    assert ended.status == 2 and "pipe: is no regular file; name another" in ended.complaints[0]
    for _ in range(2):
        assert samaf("encode", song).status == 0
    assert samaf("encode", song, "-o", song / "x").status == 2


# -- train, calibrate and export ------------------------------------------------------------------------------------


def test_training_without_tensorflow(samaf: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = samaf("train", "--data", "music")
    assert ended.status == 2 and "pip install 'samaf[train]'" in ended.complaints[0]


def test_training_passes_its_options_on(
    samaf: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def train(data: list[str], **options: Any) -> None:
        options["progress"](1, 2, "x.wav: shorter than 2 s")
        options["epoch_done"](1, 1, {"loss": 1.5})
        calls.append((data, options))

    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "samaf.model.fit", types.SimpleNamespace(train=train))
    out = tmp_path / "m.npz"
    args = "--noise n1 n2 --ir r --preset paper --bits 256,128 --steps 500 --seed 3 --jobs 2 --json".split()
    ended = samaf("train", "--data", "a", "b", "--out", out, *args)
    assert ended.status == 0 and ended.records == [{"epoch": 1, "epochs": 1, "loss": 1.5}]
    assert ended.complaints == ["samaf: x.wav: shorter than 2 s"]
    [(data, options)] = calls
    assert (data, options["noise"], options["rooms"]) == (["a", "b"], ["n1", "n2"], ["r"])
    assert (options["out"], options["seed"], options["jobs"]) == (out, 3, 2)
    preset = options["preset"]
    assert (preset.name, preset.bits, preset.steps) == ("paper", (128, 256), 500)
    complaint = samaf("train", "--data", "a", "--out", out, "--bits", "128,100").complaints[-1]
    assert "--bits: 100 is not one of 64, 128, 256" in complaint
    assert samaf("train", "--data", "a", "--out", tmp_path / "model.h5").status == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else True)
    ended = samaf("train", "--data", "a", "--out", out)
    assert ended.status == 0 and ended.complaints[0] == (
        "samaf: the training will have no plot: drawing needs matplotlib, which is not installed; run: "
        "pip install 'samaf[plot]'"
    )


def test_calibrating_without_scipy(samaf: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = samaf("calibrate", "m.npz", "--held-out", "music")
    assert ended.status == 2 and "pip install 'samaf[calibrate]'" in ended.complaints[0]


def test_calibrating_what_is_not_there(samaf: Callable[..., Ended], songs: Path, tmp_path: Path) -> None:
    for args, part in (
        ([tmp_path / "no.npz", "--held-out", songs], "no.npz: no such weights file"),
        ([DEFAULT_PATH, "--held-out", tmp_path / "no"], "no: no such file or folder"),
        ([DEFAULT_PATH, "--held-out", songs, "--library", tmp_path / "no"], "no: no such file or folder"),
        ([DEFAULT_PATH, "--held-out", songs, "--copies", tmp_path / "no.csv"], "no.csv: no CSV"),
    ):
        ended = samaf("calibrate", *args, "-o", tmp_path / "out.npz")
        assert (ended.status, ended.out) == (2, "")
        [line] = ended.complaints
        assert part in line
    assert list(tmp_path.iterdir()) == []


def test_calibrating_passes_its_options_on(
    samaf: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, songs: Path, tmp_path: Path
) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def calibrate(*args: Any, **options: Any) -> Weights:
        options.pop("progress")(1, 2, "x.wav: is empty")
        calls.append((args, options))
        return Weights.load(DEFAULT_PATH)

    monkeypatch.setattr("samaf.model.calibrate.calibrate", calibrate)
    folder = tmp_path / "all"
    folder.mkdir()
    new = [Path(shutil.copy(songs / name, folder)) for name in ("one.wav", "two.flac")]
    (tmp_path / "copies.csv").write_text("path_a,path_b\na,b\n")
    args = (
        f"--held-out {new[0]} {new[1]} --library {folder} {songs} --noise {songs} --ir {new[0]} --queries 7"
    )
    out = tmp_path / "again.npz"
    ended = samaf(
        "calibrate", DEFAULT_PATH, *args.split(), "--seed", 3, "--copies", tmp_path / "copies.csv", "-o", out,
        "--json",
    )  # fmt: skip
    assert ended.status == 0 and ended.complaints == ["samaf: x.wav: is empty"]
    model_id = Weights.load(DEFAULT_PATH).model_id
    assert ended.records == [{"file": str(out), "model_id": model_id, "bits": [64, 128, 256]}]
    assert Weights.load(out).model_id == model_id
    [((path, kinds, library), options)] = calls
    assert path == DEFAULT_PATH and kinds == [[new[0]], [new[1]]]
    assert library == sorted(songs.iterdir())  # what is held out is not searched among twice
    assert (options["queries"], options["seed"]) == (7, 3)
    assert options["copies"] == {tmp_path / "a": {tmp_path / "b"}, tmp_path / "b": {tmp_path / "a"}}
    sources = options["sources"]
    assert (sources.noise, sources.rooms, sources.voices) == (sorted(songs.iterdir()), [new[0]], new)


def test_exporting_from_a_folder_without_a_training(samaf: Callable[..., Ended], tmp_path: Path) -> None:
    ended = samaf("export", tmp_path, "-o", tmp_path / "x.npz")
    assert ended.status == 2 and str(tmp_path) in ended.complaints[0]
    assert not (tmp_path / "x.npz").exists()


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 short files."""
    folder = tmp_path_factory.mktemp("many")
    long = tune(150 * 1.2, seed=3)
    for i, samples in enumerate(np.array_split(long, 150)):
        write(folder / f"{i:03d}.wav", samples)
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_while_adding(samaf: Callable[..., Ended], many: Path, tmp_path: Path, seed: int) -> None:
    """Whatever the moment, the index is whole and the same command completes it."""
    rng = np.random.default_rng(seed)
    db = tmp_path / "db.samaf"
    process = start("index", "add", "--db", db, "--json", many)
    assert process.stdout is not None and process.stderr is not None
    for _ in range(int(rng.integers(1, 80))):
        process.stdout.readline()
    time.sleep(float(rng.uniform(0, 0.05)))
    process.kill()
    process.communicate()
    ended = samaf("index", "verify", "--db", db)
    assert (ended.status, ended.complaints) == (0, [])
    kept = len(samaf("index", "list", "--db", db, "--json").records)
    ended = samaf("index", "add", "--db", db, "--json", many)
    assert ended.status == 0
    assert sum(r["status"] == "skipped" for r in ended.records) == kept >= 32 > 0
    assert sum(r["status"] == "added" for r in ended.records) == 150 - kept
    assert samaf("index", "verify", "--db", db, "--json").records[0]["n_tracks"] == 150


def test_an_interrupt_is_clean(many: Path, tmp_path: Path) -> None:
    process = start("index", "add", "--db", tmp_path / "db.samaf", "--json", many)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    ended = end(process)
    if ended.status == 0:  # it was done before the signal came
        return
    assert ended.status == 130 and ended.err.splitlines() == ["samaf: interrupted"]


def test_a_reader_that_has_seen_enough(library: Path) -> None:
    process = start("index", "list", "--db", library, "--json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


def test_two_search_while_a_third_adds(db: Path, many: Path, clip: Path) -> None:
    adder = start("index", "add", "--db", db, "--json", many)
    searchers = [start("search", "--db", db, "--json", *FORCED, "--top", 1, *[clip] * 40) for _ in range(2)]
    for process in searchers:
        ended = end(process)
        assert ended.status == 0 and ended.err == ""
        assert [r["title"] for r in ended.records if r["rank"] == 1] == ["two"] * 40
    ended = end(adder)
    assert ended.status == 0 and len(ended.records) == 150


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SAMAF_DB", raising=False)
    yield
