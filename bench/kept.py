"""Results in files of their own, each with what it is of, so that none is taken for another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from samaf.atomic import atomic_write


def read(file: Path, of: Any) -> Any:
    """What :func:`write` kept of the same; None where there is nothing, or something else."""
    try:
        about = json.loads(file.read_text())
        return about["found"] if about["of"] == json.loads(json.dumps(of)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(file: Path, of: Any, found: Any) -> None:
    """Keep a result, JSON values as what it is of."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as out:
        out.write(json.dumps({"of": of, "found": found}).encode())
