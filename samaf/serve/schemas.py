"""What the OpenAPI description says of bodies and answers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from samaf.match import Match

NDJSON = "application/x-ndjson"

_KINDS = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "int | None": ["integer", "null"],
}


def _object(**kinds: Any) -> dict[str, Any]:
    """An object whose parts have these types."""
    parts = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in kinds.items()}
    return {"type": "object", "properties": parts}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


_MATCH = _object(rank="integer", **{one.name: _KINDS[str(one.type)] for one in fields(Match)})
ANSWER = _object(
    query="string",
    matches=_list(_MATCH),
    clip_s="number",
    coverage="number",
    gaps=_list(_list({"type": "number"})),
    elapsed_s="number",
    warning="string",
)
TRACK = _object(
    track_id="integer",
    path="string",
    title="string",
    duration_s="number",
    n_hashes="integer",
    digest="string",
    size_bytes="integer",
    aliases=_list({"type": "string"}),
    tags="object",
    added="number",
    warning="string",
)
PAGE = _object(tracks=_list(TRACK), next=["integer", "null"])
OUTCOME = _object(
    path="string", status="string", track_id=["integer", "null"], reason="string", warning="string"
)
STATS = {"type": "object"}

_BYTES = {"schema": {"type": "string", "format": "binary"}}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _object(file=_BYTES["schema"]) | {"required": ["file"]}},
            "application/octet-stream": _BYTES,
        },
    }
}
PATHS = {"application/json": {"schema": _object(paths=_list({"type": "string"})) | {"required": ["paths"]}}}

_PROBLEM = _object(type="string", title="string", status="integer", detail="string")
_REASONS = {
    400: "The file cannot be read, or has nothing to find it by.",
    401: "The token is missing or unknown.",
    403: "Not allowed.",
    404: "There is no such track.",
    409: "Made with another model, or with fewer bits.",
    413: "Too large.",
    415: "No kind of upload that is taken.",
    422: "An argument is wrong.",
    429: "Too many requests at once from one client; see Retry-After.",
    503: "The index is being opened, or too much is being worked on; see Retry-After.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, "content": {"application/problem+json": {"schema": _PROBLEM}}}
    for status, reason in _REASONS.items()
}


def answers(schema: dict[str, Any], what: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The answer of a route that does what it is asked."""
    return {status: {"description": what, "content": {"application/json": {"schema": schema}}}}
