"""Runs of the bench: clips, systems in processes of their own, going on after a stop, commands."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import synth
from conftest import CHECKOUT

import baselines
from bench import clips, protocol, results
from bench.cli import main
from bench.cli.common import names
from bench.clip_cache import ClipCache
from bench.clips import Plan
from bench.corpus import Corpus, read_folder
from samaf.weights import DEFAULT_PATH

PLAN = Plan(("clean", "bandpass"), (3.0,), 2, seed=5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("tracks")
    for k in range(6):
        synth.write(folder / f"{k}.flac", synth.tune(12, seed=k))
    return read_folder(folder, tmp_path_factory.mktemp("made"), seed=3)


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "run"
    protocol.run(corpus, [protocol.entry("samaf", bits=64)], PLAN, out, command="bench run", jobs=1)
    return out


# -- clips ---------------------------------------------------------------------------------------------------------


def made(corpus: Corpus, plan: Plan, folder: Path) -> list[results.Query | str]:
    cells, _ = clips.cells(corpus, plan)
    return list(clips.make(clips.Work(cells, plan, corpus.materials, ClipCache(folder))))


def test_a_clip_is_the_same_however_many_there_are(corpus, tmp_path):
    def heard(plan: Plan, folder: str) -> dict[str, tuple]:
        return {
            q.query: (q.track, q.offset_s, soundfile.read(q.audio)[0].tobytes())
            for q in made(corpus, plan, tmp_path / folder)
            if not isinstance(q, str)
        }

    few, more = heard(PLAN, "a"), heard(Plan(("bandpass",), (3.0, 2.0), 3, seed=5), "b")
    both = set(few) & set(more)
    assert {"bandpass_3_000", "bandpass_3_001", "ool_clean_3_000"} <= both
    assert all(few[name] == more[name] for name in both)


def test_clips_are_what_their_records_say(corpus, tmp_path):
    tracks = {track.id: track for track in corpus.references}
    outside = {track.id for track in corpus.outsiders}
    for query in made(corpus, Plan(("clean", "speed1.05"), (2.0,), 3), tmp_path):
        assert not isinstance(query, str)
        audio, rate = soundfile.read(query.audio)
        assert rate == 16000 and len(audio) == 32000
        if query.track is None:
            assert query.condition.startswith("ool_") and query.offset_s is None
        else:
            assert query.track not in outside
            assert 0 <= query.offset_s <= tracks[query.track].duration_s - 2 * query.factor
        if query.condition == "clean":
            start = round(query.offset_s * rate)
            whole = tracks[query.track].read()[start : start + 32000]
            np.testing.assert_allclose(audio, whole, atol=2e-4)


def test_nobody_shall_find_what_runs_backwards(corpus, tmp_path):
    backwards = made(corpus, Plan(("reverse",), (2.0,), 2), tmp_path)
    assert all(query.track is None and query.offset_s is None for query in backwards)


def test_what_cannot_be_made_is_skipped_with_its_reason(corpus):
    cells, skipped = clips.cells(corpus, Plan(("clean",), (3.0, 30.0), 1))
    assert {cell.length_s for cell in cells} == {3.0}
    assert {s.condition for s in skipped} == {"clean", "ool_clean", "ool_noise5"}
    assert "30 s" in skipped[0].reason
    with pytest.raises(ValueError, match="shouting"):
        clips.cells(corpus, Plan(("shouting",), (3.0,), 1))


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_holds_all_that_was_asked_for(finished, corpus):
    run = results.read(finished)
    assert len(run.queries) == 8  # two conditions, and two out of the library, of two clips
    assert [answer.query for answer in run.answers["samaf-64"]] == [query.query for query in run.queries]
    [measured] = results.merge([run])
    right = [answer.track == query.track for query, answer in measured.trials if query.track]
    assert all(right)
    near = [abs(a.offset_s - q.offset_s) < 0.3 for q, a in measured.trials if q.track]
    assert all(near)
    cost = run.costs["samaf-64"]
    assert cost.audio_s == pytest.approx(sum(track.duration_s for track in corpus.library), rel=0.01)
    assert 0 < cost.ingest_s < 100 and cost.peak_memory_bytes > 1e7 and cost.index_bytes > 1000
    assert cost.macs_per_s is not None and 1e7 < cost.macs_per_s < 1e9
    assert run.run.references.count == len(corpus.library)
    assert run.run.packages["numpy"] == np.__version__


def test_a_stopped_run_goes_on_where_it_stopped(finished, corpus, tmp_path):
    out = tmp_path / "again" / "run"
    out.mkdir(parents=True)
    shutil.copytree(finished.parent / "cache", out.parent / "cache")
    gone = results.read(finished).queries[1]
    (out.parent / "cache" / Path(gone.audio).name).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (out.parent / "cache").iterdir()}
    for name in (results.RUN, results.COSTS):
        (out / name).write_bytes((finished / name).read_bytes())
    (out / protocol.STORES).symlink_to(finished / protocol.STORES)
    whole = (finished / results.answers_file("samaf-64")).read_text().splitlines(keepends=True)
    kept = [json.dumps({**json.loads(line), "elapsed_s": 77.0}) + "\n" for line in whole[:3]]
    (out / results.answers_file("samaf-64")).write_text("".join(kept) + whole[3][:20])
    queries = (finished / results.QUERIES).read_text().splitlines(keepends=True)
    (out / results.QUERIES).write_text("".join(queries[:5]) + queries[5][:7])
    protocol.run(corpus, [protocol.entry("samaf", bits=64)], PLAN, out, command="bench run", jobs=1)
    again = results.read(out).answers["samaf-64"]
    assert [answer.elapsed_s for answer in again[:3]] == [77.0] * 3
    asked = [results.Query.from_json(line) for line in queries]
    assert [answer.query for answer in again] == [query.query for query in asked]
    first = results.read(finished).answers["samaf-64"]
    assert [a.track for a in again] == [a.track for a in first]
    after = {path.name: path.stat().st_mtime_ns for path in (out.parent / "cache").iterdir()}
    assert set(after) == {*before, Path(gone.audio).name}
    assert all(after[name] == before[name] for name in before)  # nothing is made twice


def test_a_store_that_is_gone_is_made_anew(finished, corpus, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.copytree(finished.parent / "cache", tmp_path / "cache")
    shutil.rmtree(out / protocol.STORES)
    (out / results.answers_file("samaf-64")).unlink()
    with open(out / results.COSTS, "a") as file:
        file.write('{"system": "samaf-64", "inge')  # as a full disk leaves it
    protocol.run(corpus, [protocol.entry("samaf", bits=64)], PLAN, out, command="bench run", jobs=1)
    assert len(results.read(out).answers["samaf-64"]) == 8


def test_one_run_at_a_time(finished, corpus):
    with open(finished / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(protocol.RunError, match="another run"):
            protocol.run(corpus, [protocol.entry("samaf", bits=64)], PLAN, finished, command="")


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = (
        "import os, sys, time\n"
        "from samaf.processes import CONTEXT, follow_parent\n"
        "def work(path):\n"
        "    follow_parent(); open(path, 'w').write(str(os.getpid())); time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    CONTEXT.Process(target=work, args=(sys.argv[1],)).start(); time.sleep(60)\n"
    )
    script, told = tmp_path / "start.py", tmp_path / "pid"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(told)], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )
    try:
        wait_for(lambda: told.exists() and told.read_text())
    finally:
        parent.kill()
        parent.wait()
    child = int(told.read_text())
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def wait_for(what):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_folder_of_another_run_is_left_alone(finished, corpus):
    before = (finished / results.RUN).read_bytes()
    with pytest.raises(protocol.RunError, match="--out"):
        protocol.run(
            corpus, [protocol.entry("samaf", bits=64)], Plan(("clean",), (2.0,), 1), finished, command=""
        )
    assert (finished / results.RUN).read_bytes() == before


def test_a_system_that_fails_is_named_and_the_others_finish(corpus, tmp_path):
    file = shutil.copy(DEFAULT_PATH, tmp_path / "missing.npz")
    broken = protocol.entry("samaf", bits=64, model=str(file))
    file.unlink()
    working = protocol.entry("samaf", bits=64)
    with pytest.raises(protocol.RunError, match=r"missing\.npz"):
        protocol.run(corpus, [broken, working], Plan(("clean",), (3.0,), 1), tmp_path / "run", command="")
    answers = results.read(tmp_path / "run").answers
    assert len(answers[working.system.key]) == 3 and not answers[broken.system.key]


def test_entries_are_told_apart_by_what_was_asked_for(tmp_path):
    plain, set_ = protocol.entry("samaf"), protocol.entry("samaf", bits=256, hop_s=0.5)
    assert (plain.system.key, plain.system.label) == ("samaf", "samaf")
    assert (set_.system.key, set_.system.label) == ("samaf-256-0.5", "samaf, 256 bits, hop 0.5 s")
    file = shutil.copy(DEFAULT_PATH, tmp_path / "my own.npz")
    own = protocol.entry("samaf", bits=64, model=str(file)).system
    assert (own.key, own.label) == ("samaf-64-my_own", "samaf, 64 bits, model my own")
    with pytest.raises(ValueError, match="rafs"):
        baselines.system("nobody")


# -- commands ------------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    status: int
    out: str
    err: str


def bench(capsys, *args: str) -> Ran:
    try:
        status = main(args)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return Ran(status, captured.out, captured.err)


def test_report_command_writes_the_page(finished, tmp_path, capsys):
    ran = bench(capsys, "report", str(finished), "--out", str(tmp_path / "page"))
    assert ran.status == 0
    assert "samaf, 64 bits" in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "--baseline", "shazam"], "shazam"),
        (["run", "--conditions", "shouting", "--data", "."], "shouting"),
        (["run", "--split", "dev"], "--manifest"),
        (["run", "--data", "nowhere"], "nowhere"),
        (["run", "--bits", "127"], "127"),
        (["sweep", "--hop", "0"], "0"),
        (["report", "nowhere"], "nowhere"),
        (["run", "--seed", "-1"], "-1"),
        (["run", "--lengths", "inf"], "inf"),
        (["run", "--conditions", ","], "empty"),
        (["speed", "--length", "0"], "0"),
        (["speed", "--minutes", "-1"], "-1"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_is_one_line_that_names_it(args, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = bench(capsys, *args)
    assert ran.status == 2 and ran.out == ""
    [line] = ran.err.strip().splitlines()
    assert line.startswith("bench: ") and told in line


def test_a_bad_file_is_told_and_the_rest_goes_on(tmp_path, capsys):
    (tmp_path / "music").mkdir()
    for k in range(3):
        synth.write(tmp_path / "music" / f"{k}.flac", synth.tune(8, seed=k))
    synth.write(tmp_path / "music" / "short.wav", synth.tune(0.1))
    (tmp_path / "music" / "broken.wav").write_text("no sound")
    ran = bench(
        capsys,
        *("run", "--data", str(tmp_path / "music"), "--out", str(tmp_path / "run"), "--jobs", "1"),
        *("--lengths", "3", "--per-cell", "1", "--conditions", "clean"),
    )
    assert ran.status == 0 and "samaf, 128 bits" in ran.out
    assert "broken.wav" in ran.err and "short.wav" in ran.err and "Traceback" not in ran.err
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    again = bench(capsys, "report", str(tmp_path / "run"))
    assert again.status == 0
    (tmp_path / "run" / "queries.jsonl").write_text("{}\n")
    damaged = bench(capsys, "report", str(tmp_path / "run"))
    assert damaged.status == 2 and "queries.jsonl, line 1" in damaged.err


def test_speed_prints_a_line_a_system(tmp_path, capsys):
    (tmp_path / "music").mkdir()
    for k in range(3):
        synth.write(tmp_path / "music" / f"{k}.flac", synth.tune(8, seed=k))
    options = ["--data", str(tmp_path / "music"), "--clips", "2", "--rounds", "1", "--length", "3"]
    ran = bench(capsys, "speed", "--baseline", "rafs", "--json", *options)
    assert ran.status == 0
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["label"] for line in lines] == ["samaf, 128 bits", "rafs"]
    assert all(line["ingest"] > 1 and line["query_s"] > 0 for line in lines)
    assert lines[0]["ingest_ratio"] == lines[0]["query_ratio"] == 1
    assert "medians of 1 rounds" in bench(capsys, "speed", *options).out


def test_help_imports_nothing_heavy():
    code = "import sys, bench.cli\ntry: bench.cli.main(['run', '--help'])\nexcept SystemExit: print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "bench-results" in out
    loaded = out.splitlines()[-1].split()
    assert not {"numpy", "numba", "scipy", "rich", "matplotlib"} & set(loaded)


def test_names_are_read_with_commas():
    assert names("a, b,,c") == ("a", "b", "c")


def test_where_a_network_lies_makes_no_other_system(monkeypatch: pytest.MonkeyPatch) -> None:
    from baselines.contrastive import Contrastive

    monkeypatch.setattr(Contrastive, "check", lambda parameters: None)
    monkeypatch.setattr("baselines.contrastive.ContrastiveParameters.network", "ab" * 32)
    found = protocol.entry("contrastive", encoder="lstm", values=128, projection="divided", weights="/n")
    assert found.system.key == "contrastive-lstm-128-divided"
    assert found.system.label == "contrastive, lstm, 128 values"
    assert found.system.parameters["network"] == "ab" * 32
