"""Documents' own experiments, repeated: kept, read again, and shown in reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_report import write

from bench import report
from bench.results import ResultsError
from bench.study import MARKDOWN, STUDY, Picture, Study
from bench.tables import plain_table

MADE = Study(
    "Some: A document (2020)",
    "bench reproduce some",
    ["It differs in <this>.", "And in that."],
    [
        plain_table(
            "Hit rates", ["System", "1 s", "2 s"], [["a | b", ".5 (.6)", "1"], ["c", "0", "–"]], "Note."
        ),
        plain_table("Others", ["System", "x"], [["a", "1"]]),
    ],
    [Picture("A wave", "<svg><path d='M0 0'/></svg>")],
)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    MADE.save(tmp_path / "new")
    again = Study.read(tmp_path / "new")
    assert again.markdown() == MADE.markdown() == (tmp_path / "new" / MARKDOWN).read_text()
    assert again.pictures == MADE.pictures and again.command == MADE.command
    lines = again.markdown().splitlines()
    assert lines[0] == "# Some: A document (2020)" and "## Hit rates" in lines and "Note." in lines
    assert "| a \\| b | .5 (.6) |   1 |" in lines


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tables": [], "pictures": [], "odd": 1}'])
def test_a_damaged_study_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / STUDY).write_text(text)
    with pytest.raises(ResultsError, match=r"study\.json: is damaged .*; make it again with"):
        Study.read(tmp_path)


def test_a_report_has_a_section_of_it(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    MADE.save(tmp_path / "study")
    report.build([run, tmp_path / "study"], tmp_path / "out")
    page = (tmp_path / "out" / report.PAGE).read_text()
    assert "It differs in &lt;this&gt;." in page and "<svg><path d='M0 0'/></svg>" in page
    assert ">.5 (.6)</td>" in page.replace("\n", "")
    assert "## Hit rates" in (tmp_path / "out" / report.MARKDOWN).read_text()
    report.build([run], tmp_path / "alone")
    assert 'id="documents"' not in (tmp_path / "alone" / report.PAGE).read_text()
    with pytest.raises(ResultsError, match="needs a run beside"):
        report.build([tmp_path / "study"], tmp_path / "none")
