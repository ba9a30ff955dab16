"""Read the body of a request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from pgfleet_local.rest.errors import bad_body, plain

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
# The type of a function's only, unnamed argument that takes a body of this kind whole.
WHOLE_BODIES = {
    JSON_TYPE: ("json", "jsonb"),
    "text/plain": ("text",),
    "text/xml": ("xml",),
    "application/octet-stream": ("bytea",),
}


def media_type(request: Request) -> str:
    """Return the kind of body that the request says it has."""
    return request.headers.get("content-type", JSON_TYPE).split(";")[0].strip().lower()


def read_json(request: Request, body: bytes) -> str:
    """Return the body as JSON text; a form becomes an object of strings."""
    media = media_type(request)
    if body and media == FORM_TYPE:
        return plain(dict(parse_qsl(read_text(body), keep_blank_values=True)))
    if body and media != JSON_TYPE:
        raise bad_body(f"Content-Type not acceptable: {media}")
    return read_text(body)


def read_text(body: bytes) -> str:
    """Return a body that must be UTF-8."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_body() from error


def parse(text: str) -> Any:
    """Parse JSON, or answer PGRST102."""
    try:
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            # A key becomes a name in SQL, which cannot hold half a character.
            "".join(parsed).encode()
        return parsed
    except (ValueError, RecursionError) as error:
        raise bad_body() from error


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    parsed = parse(text)
    if not isinstance(parsed, dict):
        raise bad_body()
    return parsed


def columns_of(parsed: Any) -> Sequence[str]:
    """Return the keys of the payload, which must be the same in all its objects."""
    rows = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(row, dict) for row in rows):
        raise bad_body()
    if any(row.keys() != rows[0].keys() for row in rows):
        raise bad_body("All object keys must match")
    return sorted(rows[0])
