"""A run's files, and the report made of them: what it says, and that a browser shows it without complaint."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from synth import RATE, tune

from bench import report, results, tables
from bench.comparison import Comparison, describe, missed, sweeps
from bench.figures import figures
from bench.metrics import Rate
from bench.results import Answer, Configuration, Cost, Machine, Query, References, Run, Skipped, System

CONDITIONS = ["clean", "noise5", "noise-5", "speed0.95", "mp3_32"]
SYSTEMS = [
    System("samaf-128", "samaf", "samaf, 128 bits", {"bits": 128}),
    System("samaf-64", "samaf", "samaf, 64 bits", {"bits": 64}),
    System("rival", "rival", "<b>rival</b> & sons", {}),
]
RUN = Run(
    name="small",
    created="2026-11-21T09:00:00+00:00",
    command="bench run --baseline samaf --baseline rival --out small",
    configuration=Configuration(SYSTEMS, [2.0, 5.0], CONDITIONS, per_cell=8, seed=1, data="generated"),
    skipped=[Skipped("gsm", "sox is not installed")],
    packages={"samaf": "0.1.0"},
    machine=Machine("a processor", 2, 2**34, "Linux", "3.11"),
    references=References(10, 0.5),
)
REACH = {"samaf-128": 3.5, "samaf-64": 2.5, "samaf-16": 0.5, "rival": 1.5}
"""How many of the conditions, from the easiest, a system masters at 5 s; half of the clips of the one that is half."""


def queries() -> list[Query]:
    library = [
        Query(
            f"{condition}_{length:g}_{i}", condition, length, "music", f"t{i}.opus", 10.0 * i, 1.0, "clip.wav"
        )
        for length in (2.0, 5.0)
        for condition in CONDITIONS
        for i in range(8)
    ]
    outside = [
        Query(f"ool_clean_{length:g}_{i}", "ool_clean", length, "music", None, None, 1.0, "gone.wav")
        for length in (2.0, 5.0)
        for i in range(60)
    ]
    return library + outside


def answer(system: System, query: Query) -> Answer:
    """Right where the system's reach goes; two of the clips out of the library get a score above nothing."""
    if query.track is None:
        sure = query.query.endswith(("_7", "_8"))
        return Answer(query.query, 0.02, "t1.opus", 3.0, 2.0 if sure else 1.0, accepted=sure, ber=0.45)
    i = int(query.query.rpartition("_")[2])
    reach = REACH[system.key] - (1 if query.length_s < 5 else 0) - CONDITIONS.index(query.condition)
    if reach >= 1 or (reach > 0 and i % 2):
        return Answer(query.query, 0.01, query.track, 10.0 * i + 0.1, 9.0, accepted=True, ber=0.2)
    return Answer(query.query, 0.01, "t9.opus", 1.0, 1.5, ber=0.44) if i % 2 else Answer(query.query, 0.01)


def write(
    folder: Path, run: Run = RUN, asked: list[Query] | None = None, answered: int | None = None
) -> Path:
    """A run's folder; of the queries, only the first `answered` have answers."""
    asked = queries() if asked is None else asked
    folder.mkdir(parents=True)
    soundfile.write(folder / "clip.wav", tune(1.0), RATE)
    (folder / results.RUN).write_text(run.to_json())
    lines = {results.QUERIES: asked, results.COSTS: []}
    for system in run.configuration.systems:
        lines[results.COSTS].append(Cost(system.key, 10.0, 5.0, 3600.0, 1000 * len(system.label), 2**28))
        lines[results.answers_file(system.key)] = [answer(system, query) for query in asked[:answered]]
    for name, records in lines.items():
        (folder / name).write_text("".join(record.to_json() + "\n" for record in records))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    return Comparison.read([folder])


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """The page of the report."""
    return report.build([folder], folder.parent / "report")[0]


# -- the files of a run -----------------------------------------------------------------------------------------------


def test_a_run_reads_back_as_written(folder: Path) -> None:
    read = results.read(folder)
    assert read.run == RUN
    assert read.queries == [replace(query, audio=str(folder / query.audio)) for query in queries()]
    assert read.costs["rival"].audio_s == 3600.0
    assert read.answers["samaf-64"] == [answer(SYSTEMS[1], query) for query in queries()]


def test_numbers_that_json_has_not_become_null() -> None:
    line = Answer("q", 0.1, "t", math.inf, math.nan, ber=float("-inf")).to_json()
    assert Answer.from_json(line) == Answer("q", 0.1, "t", None, None, ber=None)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    with open(folder / results.answers_file("rival"), "a") as file:
        file.write('{"query": "cle')
    assert len(results.read(folder).answers["rival"]) == len(queries())


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (results.QUERIES, "{}\n", "line 1: no query"),
        (results.answers_file("rival"), "nonsense\n", "line 1"),
        (results.RUN, '{"name": "x"}', "run.json"),
        (results.RUN, "[]", "run.json"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, text: str, why: str) -> None:
    folder = write(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=why):
        results.read(folder)


def test_another_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder of a run"):
        results.read(tmp_path)


def test_outcomes_follow_from_truth_and_answer() -> None:
    clip = Query("q", "clean", 5.0, "music", "t", 10.0, 1.0, "")
    stranger = replace(clip, track=None, offset_s=None)
    told = results.outcomes(
        [
            (clip, Answer("q", 0.1, "t", 9.5, 3.0, accepted=True, ber=0.2)),
            (clip, Answer("q", 0.1, "u", 9.5, 3.0, accepted=True)),
            (clip, Answer("q", 0.1)),
            (clip, Answer("q", 0.1, "t", None, None)),
            (stranger, Answer("q", 0.1, "t", 9.5, 3.0)),
        ]
    )
    assert told.in_library.tolist() == [True, True, True, True, False]
    assert told.answered.tolist() == [True, True, False, True, True]
    assert told.right.tolist() == [True, False, False, True, False]
    assert told.accepted.tolist() == [True, True, False, False, False]
    assert told.error_s.tolist()[0] == -0.5 and np.isnan(told.error_s[1:]).all()
    assert told.ber.tolist()[0] == 0.2 and np.isnan(told.ber[1:]).all()


# -- several runs -----------------------------------------------------------------------------------------------------


def test_runs_are_joined_by_label(folder: Path, tmp_path: Path) -> None:
    half = [query for query in queries() if query.length_s == 5.0]
    again = [replace(query, length_s=10.0, query=query.query + "_10") for query in half]
    systems = [SYSTEMS[0], System("samaf-16", "samaf", "samaf, 16 bits", {})]
    other = replace(RUN, name="other", configuration=replace(RUN.configuration, systems=systems))
    joined = Comparison.read([folder, write(tmp_path / "other", other, half + again)])
    assert [entrant.label for entrant in joined.entrants] == [
        "samaf, 16 bits",
        "samaf, 64 bits",
        "samaf, 128 bits",
        "<b>rival</b> & sons",
    ]
    by_label = {entrant.label: entrant for entrant in joined.entrants}
    assert len(by_label["samaf, 128 bits"].trials) == len(queries()) + len(
        again
    )  # what both have counts once
    assert len(by_label["samaf, 16 bits"].trials) == len(half) + len(again)
    assert [group.length_s for group in joined.groups] == [2.0, 5.0, 10.0]


def test_the_later_of_two_answers_counts(folder: Path, tmp_path: Path) -> None:
    later = write(tmp_path / "later")
    (later / results.answers_file("rival")).write_text(Answer("clean_5_0", 7.0).to_json() + "\n")
    [rival] = [e for e in Comparison.read([folder, later]).entrants if e.system.key == "rival"]
    [elapsed_s] = [answer.elapsed_s for query, answer in rival.trials if query.query == "clean_5_0"]
    assert elapsed_s == 7.0 and len(rival.trials) == len(queries())


def test_clips_of_another_seed_are_other_clips(folder: Path, tmp_path: Path) -> None:
    other = replace(RUN, configuration=replace(RUN.configuration, seed=2))
    joined = Comparison.read([folder, write(tmp_path / "seed2", other)])
    assert all(len(entrant.trials) == 2 * len(queries()) for entrant in joined.entrants)


# -- what it says -----------------------------------------------------------------------------------------------------


def test_rates_by_condition(comparison: Comparison) -> None:
    group = comparison.lead
    assert group is not None and group.title == "5 s"
    best = comparison.entrants[1]
    measure = comparison.measures[0]
    assert (best.label, best.threshold) == (
        "samaf, 128 bits",
        2.0,
    )  # four of 120 strangers have 2.0, one may be above
    hits = [best.rate(measure, group, condition).hits for condition in CONDITIONS]
    assert hits == [8, 8, 8, 4, 0]
    assert best.rate(measure, group) == Rate(28, 40)
    assert comparison.ranking(group)[0] is best


def test_headline_and_notices(comparison: Comparison) -> None:
    assert report.headline(comparison) == (
        "samaf, 128 bits names 70 % of the clips of 5 s with an index of 15 kB per hour of audio, answering at most "
        "1 % of the clips that it cannot know."
    )
    assert report.runners_up(comparison) == "Next is samaf, 64 bits: 50 % with 14 kB per hour."
    assert report.notices(comparison) == ["Left out: GSM (sox is not installed)."]
    assert "10 recordings (0.5 hours)" in report.setting(comparison)


def test_markdown_tables_are_tables(comparison: Comparison) -> None:
    for group in comparison.groups:
        for table in tables.all_tables(comparison, group):
            lines = table.markdown().splitlines()
            assert len(lines) == 2 + len(table.rows)
            assert len({len(line) for line in lines}) == 1
            assert {line.count("|") for line in lines} == {len(table.columns) + 1}
    [group] = [group for group in comparison.groups if group.length_s == 5.0]
    text = tables.by_condition(comparison, group, comparison.measures[0]).markdown()
    assert re.search(r"\| noise, −5 dB +\| +50 \| +100 \| +0 \|", text)


def test_csv_holds_every_cell(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(comparison))))
    assert len(rows) == len(SYSTEMS) * 2 * (1 + len(CONDITIONS) + 1)
    [row] = [
        row
        for row in rows
        if (row["system"], row["length_s"], row["condition"]) == ("samaf, 64 bits", "5", "noise-5")
    ]
    assert (row["hit_fa1"], row["hit_fa1_hits"], row["hit_fa1_n"]) == ("0.5", "4", "8")
    assert float(row["hit_fa1_low"]) < 0.5 < float(row["hit_fa1_high"])
    assert row["false_accepts"] == "" and row["index_bytes_per_hour"] == "14000"


def test_an_unfinished_run_is_reported_on(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", answered=50)
    (folder / results.COSTS).unlink()
    (folder / results.answers_file("rival")).unlink()
    html, markdown, _ = (path.read_text() for path in report.build([folder], tmp_path / "report"))
    assert "Not finished: samaf, 64 bits 50 of 200 clips, samaf, 128 bits 50 of 200 clips and" in markdown
    assert "No clip out of the library was put to samaf, 64 bits, samaf, 128 bits and" in markdown
    assert "names 100 % of the clips of 5 s, by its own verdict." in markdown
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]+", "", html) + markdown)


def test_a_system_that_has_yet_to_begin_takes_nothing_from_the_others(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    (folder / results.answers_file("rival")).write_text("")
    comparison = Comparison.read([folder])
    assert "names 70 % of the clips of 5 s" in report.headline(comparison)
    assert "No clip out of the library was put to <b>rival</b> & sons" in " ".join(report.notices(comparison))
    assert "nan" not in report.markdown(comparison)


def test_a_run_without_answers_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing has been answered"):
        report.build([write(tmp_path / "run", answered=0)], tmp_path / "report")


def test_misses_are_those_of_the_best(comparison: Comparison) -> None:
    group = comparison.lead
    assert group is not None
    best = comparison.ranking(group)[0]
    clips = missed(comparison, best, group, 6)
    assert [query.condition for query, _ in clips] == ["speed0.95", "mp3_32"]
    assert not best.named & {query.query for query, _ in clips}
    example = report.examples(comparison)[0]
    assert [verdict.said for verdict in example.verdicts] == ["no answer"] * 3
    assert example.place == " at 0:00.0" and example.audio.startswith("data:audio/ogg;base64,T2dnU")  # OggS


def test_of_many_systems_charts_of_curves_show_each_one_s_best(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Comparison.read([folder])
    assert few.drawn == few.entrants
    assert "its best" not in "".join(figure.note for figure in figures(few))
    monkeypatch.setattr("bench.comparison.MOST_DRAWN", 2)
    many = Comparison.read([folder])
    assert len(many.entrants) > 2
    assert [entrant.system.key for entrant in many.drawn] == ["samaf-128", "rival"]
    drawn = [figure for figure in figures(many) if figure.section == "robustness"]
    assert drawn and all("samaf, 64 bits" not in figure.svg for figure in drawn)
    assert all(figure.note.endswith("of each system, its best.") for figure in drawn)


def test_sweeps() -> None:
    found = {
        sweep.title: sweep.points
        for sweep in sweeps(["noise10", "clean", "noise-5", "speed0.9", "speed1.1", "gsm"])
    }
    assert found == {
        "Noise": [(-5.0, "noise-5"), (10.0, "noise10"), (None, "clean")],
        "Speed": [(0.9, "speed0.9"), (1.0, "clean"), (1.1, "speed1.1")],
    }


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("noise-5", "noise, −5 dB"),
        ("noise5_reverb", "noise, 5 dB, reverb"),
        ("mp3_32", "MP3, 32 kbit/s"),
        ("pitch+50_babble0_mp3_32", "pitch, +50 cents, babble, 0 dB, MP3, 32 kbit/s"),
        ("ool_noise5", "noise, 5 dB"),
        ("truncate_silence", "pauses shortened"),
        ("rerecord2", "re-recorded twice"),
        ("gsm_odd7", "GSM, odd7"),
    ],
)
def test_conditions_in_words(condition: str, words: str) -> None:
    assert describe(condition) == words


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        (tables.size, 58e3, "58 kB"),
        (tables.size, 1.44e6, "1.4 MB"),
        (tables.size, 999.6e3, "1 MB"),
        (tables.size, 12, "12 B"),
        (tables.duration, 0.0031, "3.1 ms"),
        (tables.duration, 0.12, "120 ms"),
        (tables.duration, 0.9996, "1.0 s"),
        (tables.duration, 75, "75 s"),
        (tables.times, 1231, "1,231 ×"),
        (tables.percent, 0.875, "88"),
        (tables.size, math.nan, tables.UNKNOWN),
        (tables.duration, math.nan, tables.UNKNOWN),
    ],
)
def test_numbers_as_text(written: Callable[[float], str], value: float, text: str) -> None:
    assert written(value) == text


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    text = page.read_text()
    for address in re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?([^"'\s>)]+)""", text):
        assert address.startswith("data:"), address
    assert "http" not in text and "@import" not in text
    assert "<b>rival</b>" not in text and "&lt;b&gt;rival" in text  # what comes from outside is escaped


def test_charts_can_be_heard(page: Path) -> None:
    charts = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', page.read_text())
    assert len(charts) > 10 and all("clips" in said or "length" in said for said in charts)


@dataclass(frozen=True)
class Shown:
    """What a browser made of a page: the document, and what it wrote to the console."""

    document: str
    console: list[str]


def show(chromium: str, page: Path, *options: str) -> Shown:
    command = [
        chromium,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
        "--enable-logging=stderr",
        f"--user-data-dir={page.parent / 'browser'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=5000",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Shown(done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line])


# Appended to a copy of the page: it clicks and looks, and leaves what it saw in the document.
PROBE = """
<script>
addEventListener("load", async () => {
  const table = [...document.querySelectorAll("table.even")].find((table) => table.offsetParent);
  const column = () => [...table.querySelectorAll("tbody:not(.total) td:nth-child(3)")]
    .map((cell) => Number(cell.dataset.value));
  const before = column();
  table.querySelectorAll("thead button")[2].click();
  const falling = column();
  table.querySelectorAll("thead button")[2].click();
  const rising = column();
  const visible = (part) => part.getClientRects().length > 0;
  const parts = () => [...document.querySelectorAll("[data-group]")].filter(visible).map((part) => part.dataset.group);
  const groups = new Set(parts());
  document.querySelector('[value="music-2"]').click();
  const others = new Set(parts());
  const sound = await Promise.all([...document.querySelectorAll("audio")].map((audio) => new Promise((resolve) => {
    if (audio.readyState > 0) resolve(audio.duration);
    audio.onloadedmetadata = () => resolve(audio.duration);
    audio.onerror = () => resolve(null);
  })));
  const seen = document.createElement("pre");
  seen.id = "seen";
  seen.textContent = JSON.stringify({
    before, falling, rising, groups: [...groups], others: [...others], sound,
    wide: document.documentElement.scrollWidth - innerWidth,
    empty: [...document.querySelectorAll("svg")].filter((svg) => visible(svg) && svg.getBBox().height < 100).length,
  });
  document.body.append(seen);
});
</script>
"""


def test_a_browser_shows_it_without_complaint(
    page: Path, program: Callable[[str], str], tmp_path: Path
) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text() + PROBE)
    shown = show(program("chromium"), probed, "--window-size=390,800", "--dump-dom")
    assert shown.console == []
    found = re.search(r'<pre id="seen">(.+?)</pre>', shown.document)
    assert found, "the probe did not run"
    seen = json.loads(found[1])
    assert seen["before"] == [1, 1, 1, 0.5, 0] == seen["falling"] == seen["rising"][::-1]
    assert seen["groups"] == ["music-5"] and seen["others"] == ["music-2"]
    assert seen["sound"] and all(0.9 < duration < 1.2 for duration in seen["sound"])
    assert seen["wide"] <= 0 and seen["empty"] == 0


def test_a_complaint_would_be_heard(program: Callable[[str], str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><script>nonsense()</script>")
    assert "nonsense is not defined" in " ".join(show(program("chromium"), broken, "--dump-dom").console)


def test_it_can_be_pictured(page: Path, program: Callable[[str], str], tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    show(program("chromium"), page, f"--screenshot={picture}", "--window-size=1280,1600")
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(head[16:20], "big") == 1280
    assert picture.stat().st_size > 30_000  # a blank page of this size takes a few kilobytes
