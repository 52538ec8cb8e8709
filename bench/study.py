"""An experiment as its readers see it; most are a document's own, repeated: its figures, ours, and what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.results import ResultsError
from bench.tables import Table, plain_table
from samaf.atomic import atomic_write
from samaf.errors import shown

STUDY, MARKDOWN = "study.json", "study.md"
"""Files that :meth:`Study.save` writes."""


@dataclass(frozen=True)
class Picture:
    """A drawing: SVG, and what it shows."""

    title: str
    svg: str


@dataclass(frozen=True)
class Study:
    """What became of an experiment.

    Attributes
    ----------
    title
        Its subject, or its document's title, authors and year.
    command
        What repeats it.
    remarks
        What must be known of it, such as what differs from the document, and why: a paragraph each.
    tables, pictures
        Ours, beside the document's where there is one.
    """

    title: str
    command: str
    remarks: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture] = field(default_factory=list)

    def markdown(self) -> str:
        """All of it but the pictures."""
        parts = [f"# {self.title}", f"`{self.command}`", *self.remarks]
        for table in self.tables:
            parts += [f"## {table.title}", table.markdown()]
            parts += [table.note] if table.note else []
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path) -> None:
        """Write :data:`STUDY`, for reports, and :data:`MARKDOWN`, for readers."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = [
            {
                "title": table.title,
                "columns": table.columns,
                "rows": [[row.head, *(cell.text for cell in row.cells)] for row in table.rows],
                "note": table.note,
            }
            for table in self.tables
        ]
        about: dict[str, Any] = {**asdict(self), "tables": tables}
        for name, text in (
            (STUDY, json.dumps(about, indent=1, ensure_ascii=False)),
            (MARKDOWN, self.markdown()),
        ):
            with atomic_write(folder / name) as file:
                file.write(text.encode())

    @classmethod
    def read(cls, folder: Path) -> Study:
        """The study that :meth:`save` wrote.

        Raises
        ------
        ResultsError
            If the file is damaged.
        """
        file = folder / STUDY
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            tables = [plain_table(**table) for table in about.pop("tables")]
            pictures = [Picture(**picture) for picture in about.pop("pictures")]
            return cls(tables=tables, pictures=pictures, **about)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResultsError(
                f"{shown(file)}: is damaged ({error}); make it again with the command that wrote it"
            ) from None
