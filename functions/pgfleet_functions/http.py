"""JSON in and JSON out: what every function shares."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.errors import BadRequest, FunctionError, InvalidBody

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024


async def read_text(request: Request, largest: int = LARGEST_BODY) -> str:
    """Return a JSON body as it was sent; too large or of another type, it is refused."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequest(
            f"the content type must be application/json, not {media or 'missing'}",
            details="content_type_invalid",
            hint='Send the header "Content-Type: application/json".',
            status_code=415,
        )
    return await read_any_text(request, largest)


async def read_any_text(request: Request, largest: int = LARGEST_BODY) -> str:
    """Return a body of any content type as it was sent; too large, it is refused."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        # Counted while it comes in: a length in a header may be missing or wrong.
        if size > largest:
            raise BadRequest(
                f"the body is larger than {largest} bytes",
                details="body_too_large",
                status_code=413,
                headers={"Connection": "close"},
            )
        chunks.append(chunk)
    try:
        return b"".join(chunks).decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable("it is not UTF-8") from error


def parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a body holds."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable("it is not JSON") from error
    if not isinstance(body, dict):
        raise unreadable("it is not an object")
    return body


async def read_object(request: Request, largest: int = LARGEST_BODY) -> dict[str, Any]:
    """Return the JSON object of a request."""
    return parse_object(await read_text(request, largest))


class Fields:
    """Take the fields of a body one by one, and report all that are wrong at once."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self._problems: list[str] = []

    def text(self, name: str, *, longest: int, required: bool = False) -> str | None:
        """Return a text field; an optional one may be absent or null."""
        value = self._body.get(name)
        if value is None:
            if required:
                self._problems.append(f"{name} is missing")
            return None
        if not isinstance(value, str) or not value.strip() or len(value) > longest:
            self._problems.append(f"{name} must be text of 1 to {longest} characters")
            return None
        if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            self._problems.append(f"{name} must not hold a zero byte or half a character")
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """Return an optional object field."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, dict):
            self._problems.append(f"{name} must be an object")
            return None
        return value

    def check(self, hint: str) -> None:
        """Refuse the body if any field was wrong."""
        if self._problems:
            raise InvalidBody("; ".join(self._problems), details="body_invalid", hint=hint)


async def function_error(_: Request, error: Exception) -> Response:
    """Answer a refusal in the shape that PostgREST gives to its own."""
    assert isinstance(error, FunctionError)
    return _answer(error)


async def http_error(_: Request, error: Exception) -> Response:
    """Answer for a path or method that does not exist."""
    assert isinstance(error, HTTPException)
    message = {404: "there is no such function", 405: "the function does not take this method"}
    return _answer(
        FunctionError(
            message.get(error.status_code, error.detail),
            status_code=error.status_code,
            headers=error.headers,
        )
    )


async def unexpected_error(_: Request, error: Exception) -> Response:
    """Answer for a fault of ours, which Starlette logs."""
    return _answer(FunctionError("the function failed", details="internal_error"))


def _answer(error: FunctionError) -> Response:
    body = {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "hint": error.hint,
    }
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def unreadable(why: str) -> BadRequest:
    """Refuse a body that cannot be read."""
    return BadRequest(
        f"the body cannot be read: {why}",
        details="body_unreadable",
        hint="Send one JSON object.",
    )
