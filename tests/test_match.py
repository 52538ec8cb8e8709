"""What an answer tells: gaps and coverage, and how it shows itself in a notebook."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samaf.match import SHORTEST_GAP_S, Match, Matches


def match(start_s: float, end_s: float, title: str = "Song") -> Match:
    told = {"probability": 0.97, "log_odds": 1.5, "bits": 640, "wrong_bits": 64}
    return Match(1, "/m/1", title, 0.1, 1e-3, 3.0, start_s, end_s, 0.0, 1.0, **told)  # type: ignore[arg-type]


def test_gaps_are_what_no_match_covers() -> None:
    assert Matches([], 5.0).gaps == [(0.0, 5.0)] and Matches([], 5.0).coverage == 0.0
    found = Matches([match(30.0, 45.0), match(2.0, 12.0), match(5.0, 14.0), match(14.5, 20.0)], 60.0)
    assert found.gaps == [(0.0, 2.0), (20.0, 30.0), (45.0, 60.0)]  # half a second is none
    assert found.coverage == pytest.approx(33 / 60)
    assert Matches([match(0.0, 60.0)], 60.0).gaps == []


@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0.1, 30)), max_size=8), st.floats(1.0, 100.0))
def test_gaps_and_matches_make_up_the_clip(drawn: list[tuple[float, float]], clip_s: float) -> None:
    spans = [(min(start_s, clip_s), min(start_s + length_s, clip_s)) for start_s, length_s in drawn]
    found = Matches([match(*span) for span in spans], clip_s)
    assert 0.0 <= found.coverage <= 1.0
    assert all(end_s - start_s >= SHORTEST_GAP_S for start_s, end_s in found.gaps)
    for start_s, end_s in spans:  # no gap meets a match
        assert all(end_s <= gap[0] + 1e-9 or start_s >= gap[1] - 1e-9 for gap in found.gaps)


class Tags(HTMLParser):
    """Counts what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("shown", "rows"),
    [
        (match(0.0, 5.0, "<b>Rock & Roll"), 2),
        (Matches([match(0.0, 5.0), match(6.0, 9.0)], 10.0), 3),
        (Matches([], 5.0), 0),
    ],
)
def test_answers_show_themselves_in_a_notebook(shown: Match | Matches, rows: int) -> None:
    tags = Tags()
    html = shown._repr_html_()
    tags.feed(html)
    tags.close()
    assert (tags.open, tags.rows) == ([], rows)
    assert ("unknown" in html) is not rows
    if isinstance(shown, Match):
        assert "&lt;b&gt;Rock &amp; Roll" in html and "97.00 %" in html and "64 of 640" in html


def test_an_answer_is_read_back_as_it_was() -> None:
    found = Matches([match(2.0, 12.0), match(14.5, 20.0, title="caf\udce9")], 60.0)
    found.warning = "is cut off"
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    again = Matches.from_json(told)
    assert again == found and (again.clip_s, again.warning, again.gaps) == (60.0, "is cut off", found.gaps)
    assert [one["rank"] for one in told["matches"]] == [1, 2]
    assert Matches.from_json(Matches([], 5.0).to_json()).gaps == [(0.0, 5.0)]


@pytest.mark.parametrize(
    "change",
    [
        {"track_id": -1},
        {"track_id": True},
        {"title": 1},
        {"title": 5000 * "x"},
        {"path": "a\0b"},
        {"ber": "0"},
        {"ber": None},
        {"score": float("inf")},
        {"log_odds": float("nan")},
        {"bits": 1.5},
        {"copies_of": "1"},
    ],
)
def test_what_is_no_match_is_refused(change: dict[str, object]) -> None:
    told = Matches([match(2.0, 12.0)], 60.0).to_json()
    told["matches"][0] |= change
    with pytest.raises(ValueError, match=next(iter(change))):
        Matches.from_json(told)
    del told["matches"][0][next(iter(change))]
    with pytest.raises(ValueError, match="is missing"):
        Matches.from_json(told)


@pytest.mark.parametrize("told", [None, [], {}, {"matches": [], "clip_s": -1}, {"matches": {}, "clip_s": 1}])
def test_what_is_no_answer_is_refused(told: object) -> None:
    with pytest.raises(ValueError):
        Matches.from_json(told)
