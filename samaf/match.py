"""What an answer tells: matches, and what of the clip they cover."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from html import escape
from typing import Any

from samaf.untrusted import named, number, text, whole

CHANGED_TEMPO = 0.03
"""Tempi no further from 1 count as unchanged: hashes bear as much, and short clips do not tell them apart."""
SHORTEST_GAP_S = 1.0
"""What is left of a clip between matches is a gap if it is as long as the shortest clip."""

_LONGEST, _MOST, _MOST_MATCHES = 4096, 1e300, 10_000


@dataclass(frozen=True)
class Match:
    """One place of one track that a query was recognised as.

    Attributes
    ----------
    track_id, path, title
        The track.
    ber : float
        Bit error rate over all aligned hashes.
    evalue : float
        Expected number of matches at least this good between this query and a library of this size that holds none of
        its recordings.
    score : float
        ``-log10(evalue)``; finite where `evalue` has underflowed to 0.
    probability : float
        That the clip holds the track's audio, among all that it resembles and "unknown".
    log_odds : float
        ``log10(probability / (1 - probability))``, finite where `probability` is rounded to 1.
    query_start_s, query_end_s, track_start_s, track_end_s : float
        What of the query is what of the track.
    speed, tempo, pitch_cents : float
        How the query was changed. Hashes tell reference seconds per query second, not how they came about:
        a change is given as tempo.
    bits, wrong_bits : int
        How many bits were compared, and how many of them differ.
    copies_of : int, optional
        The better match's track that holds the same audio over this stretch.
    """

    track_id: int
    path: str
    title: str
    ber: float
    evalue: float
    score: float
    probability: float = field(default=math.nan, kw_only=True)
    log_odds: float = field(default=math.nan, kw_only=True)
    query_start_s: float
    query_end_s: float
    track_start_s: float
    track_end_s: float
    speed: float = 1.0
    tempo: float = 1.0
    pitch_cents: float = 0.0
    bits: int = 0
    wrong_bits: int = 0
    copies_of: int | None = None

    def played_at(self, speed: float) -> Match:
        """The same match of a clip restored from `speed`, told in the clip's own time, by the fewest changes."""
        tempo, cents = self.tempo, 0.0
        if abs(tempo - 1.0) <= CHANGED_TEMPO:
            speed_told, tempo = speed * tempo, 1.0
        elif abs(tempo * speed - 1.0) <= CHANGED_TEMPO:
            speed_told, tempo, cents = 1.0, tempo * speed, 1200.0 * math.log2(speed)
        else:
            speed_told = speed
        return replace(
            self,
            query_start_s=round(self.query_start_s / speed, 3),
            query_end_s=round(self.query_end_s / speed, 3),
            speed=round(speed_told, 4),
            tempo=round(tempo, 4),
            pitch_cents=round(cents, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Match:
        """Undo `to_json`, of a value that anybody may have sent.

        Ids have 63 bits; texts up to 4,096 characters; numbers are finite, those of bits whole and not negative. Other
        names are passed over.

        Raises
        ------
        ValueError
            No match is like that.
        """
        told = named(value, *(one.name for one in fields(cls)))
        most = (1 << 63) - 1
        made: dict[str, Any] = {name: text(name, told[name], _LONGEST) for name in ("path", "title")}
        for name in ("track_id", "bits", "wrong_bits"):
            made[name] = whole(name, told[name], 0, most)
        made["copies_of"] = told["copies_of"]
        if made["copies_of"] is not None:
            whole("copies_of", made["copies_of"], 0, most)
        for one in fields(cls):
            if one.name not in made:
                made[one.name] = number(one.name, told[one.name], -_MOST, _MOST)
        return cls(**made)

    def _repr_html_(self) -> str:
        """A table and a time line, for notebooks."""
        return _html([self], max(self.query_end_s, 1e-9))


class Matches(list[Match]):
    """The matches of a clip, best first; empty if it is unknown.

    Parameters
    ----------
    matches
    clip_s
        Seconds of the clip.

    Attributes
    ----------
    clip_s : float
    warning : str
        What is wrong with the clip's file, one line without its name; "" for nothing.
    """

    def __init__(self, matches: Iterable[Match], clip_s: float) -> None:
        super().__init__(matches)
        self.clip_s = clip_s
        self.warning = ""

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """(start, end) of what no match covers, in seconds of the clip; nothing shorter than a second."""
        found, at_s = [], 0.0
        for start_s, end_s in [
            *sorted((m.query_start_s, m.query_end_s) for m in self),
            (self.clip_s, math.inf),
        ]:
            if start_s - at_s >= SHORTEST_GAP_S:
                found.append((at_s, start_s))
            at_s = max(at_s, end_s)
        return found

    @property
    def coverage(self) -> float:
        """Share of the clip that lies in no gap."""
        return (
            1.0 - sum(end_s - start_s for start_s, end_s in self.gaps) / self.clip_s if self.clip_s else 0.0
        )

    def to_json(self) -> dict[str, Any]:
        """The answer as a dict of JSON types: its matches with their ranks, and what is told of the clip."""
        ranked = [{"rank": rank, **match.to_json()} for rank, match in enumerate(self, start=1)]
        return {
            "matches": ranked,
            "clip_s": round(self.clip_s, 3),
            "coverage": round(self.coverage, 4),
            "gaps": [[round(at_s, 3) for at_s in gap] for gap in self.gaps],
            **({"warning": self.warning} if self.warning else {}),
        }

    @classmethod
    def from_json(cls, value: Any) -> Matches:
        """Undo `to_json`, of a value that anybody may have sent; up to 10,000 matches.

        Raises
        ------
        ValueError
            No answer is like that.
        """
        told = named(value, "matches", "clip_s")
        found = told["matches"]
        if not isinstance(found, list) or len(found) > _MOST_MATCHES:
            raise ValueError(f"matches are no list of up to {_MOST_MATCHES}")
        made = cls(map(Match.from_json, found), number("clip_s", told["clip_s"], 0.0, _MOST))
        made.warning = text("warning", told.get("warning", ""), _LONGEST)
        return made

    def _repr_html_(self) -> str:
        """A table and a time line, for notebooks."""
        return _html(self, self.clip_s) if self else "<p><b>unknown</b></p>"


def _html(matches: Sequence[Match], clip_s: float) -> str:
    """Matches as a table; bars show where in the clip they lie, how likely they are, and how many bits differ."""
    rows = []
    for match in matches:
        left, right = (
            100 * min(max(at_s / clip_s, 0.0), 1.0) for at_s in (match.query_start_s, match.query_end_s)
        )
        wrong = 100 * match.wrong_bits / max(match.bits, 1)
        cells = (
            f"<b>{escape(match.title)}</b>",
            f"{match.query_start_s:.1f}–{match.query_end_s:.1f} s",
            f"{match.track_start_s:.1f}–{match.track_end_s:.1f} s",
            f"{100 * match.probability:.2f} %",
            f"{match.score:.1f}",
            _bar(left, right, "#2a6f97"),
            f"{_bar(0.0, wrong, '#d62839')} {match.wrong_bits:,} of {match.bits:,}",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    names = (
        "title",
        "in the clip",
        "in the track",
        "probability",
        "score",
        "where in the clip",
        "bits that differ",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _bar(left: float, right: float, colour: str) -> str:
    """A bar from `left` to `right`, in per cent of its frame."""
    return (
        '<span style="display:inline-block;position:relative;width:8em;height:.8em;background:#e6e6e6">'
        f'<span style="position:absolute;left:{left:.1f}%;width:{max(right - left, 0.5):.1f}%;height:100%;'
        f'background:{colour}"></span></span>'
    )
