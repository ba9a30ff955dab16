"""Turn refusals into the status and the JSON body that PostgREST answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout
from starlette.responses import Response

from pgfleet_local.tokens import TokenError

# First match wins; a code that no prefix matches is the caller's fault (400).
STATUS_BY_PREFIX: tuple[tuple[str, int], ...] = (
    ("08", 503),
    ("09", 500),
    ("0L", 403),
    ("0P", 403),
    ("23503", 409),
    ("23505", 409),
    ("25006", 405),
    ("25", 500),
    ("28", 403),
    ("2D", 500),
    ("38", 500),
    ("39", 500),
    ("3B", 500),
    ("40", 500),
    ("53400", 500),
    ("53", 503),
    ("54", 500),
    ("55", 500),
    ("57P", 503),
    ("57", 500),
    ("58", 500),
    ("F0", 500),
    ("HV", 500),
    ("P0001", 400),
    ("P0", 500),
    ("XX", 500),
    ("42883", 404),
    ("42P01", 404),
    ("42P17", 500),
)


@dataclass(slots=True)
class RestError(Exception):
    """Raised for a request that is answered with an error body."""

    status: int
    code: str
    message: str
    details: str | None = None
    hint: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return the answer; all four keys are always there."""
        body = {
            "code": self.code,
            "details": self.details,
            "hint": self.hint,
            "message": self.message,
        }
        return Response(
            json.dumps(body),
            status_code=self.status,
            media_type="application/json; charset=utf-8",
            headers={"Proxy-Status": f"PostgREST; error={self.code}", **self.headers},
        )


def from_token(error: TokenError) -> RestError:
    """Give 401 with the challenge that clients use to fetch a new token."""
    code = "PGRST303" if error.reason in ("expired", "claims") else "PGRST301"
    challenge = f'Bearer error="invalid_token", error_description="{error.message}"'
    return RestError(401, code, error.message, headers={"WWW-Authenticate": _ascii(challenge)})


def from_database(error: psycopg.Error, *, anonymous: bool) -> RestError:
    """Map what Postgres or the way to it reported."""
    code = error.sqlstate
    if isinstance(error, PoolTimeout):
        return RestError(504, "PGRST003", "Timed out acquiring connection from connection pool.")
    if code is None:
        if isinstance(error, (psycopg.DataError, psycopg.ProgrammingError)):
            return RestError(400, "22021", str(error))
        return unavailable("PGRST001", "Database client error. Retrying the connection.", error)
    message = error.diag.message_primary or str(error)
    headers: dict[str, str] = {}
    status = _status(code, message)
    if code == "42501":
        status = 401 if anonymous else 403
        if anonymous:
            headers["WWW-Authenticate"] = "Bearer"
    return RestError(
        status, code, message, error.diag.message_detail, error.diag.message_hint, headers
    )


def unavailable(code: str, message: str, error: Exception | None = None) -> RestError:
    """Give 503 for a database that cannot be reached at the moment."""
    details = str(error).strip() or None if error else None
    return RestError(503, code, message, details, headers={"Retry-After": "1"})


def not_served(what: str) -> RestError:
    """Give 400, in PostgREST's own words, for what it can do and the local platform cannot."""
    details = f"The local platform does not serve {what}."
    return RestError(400, "PGRST127", "Feature not implemented", details)


def bad_query(message: str, details: str | None = None) -> RestError:
    """Give 400 for a query string that cannot be read."""
    return RestError(400, "PGRST100", message, details)


def bad_body(message: str = "Empty or invalid json") -> RestError:
    """Give 400 for a body that cannot be read."""
    return RestError(400, "PGRST102", message)


def _status(code: str, message: str) -> int:
    if code.startswith("PT"):
        digits = code[2:]
        return int(digits) if digits.isdigit() and 200 <= int(digits) <= 599 else 500
    if code == "21000":
        return 400 if message.endswith("requires a WHERE clause") else 500
    for prefix, status in STATUS_BY_PREFIX:
        if code.startswith(prefix):
            return status
    return 400


def _ascii(value: str) -> str:
    return value.encode("ascii", "replace").decode("ascii")


def plain(value: Any) -> str:
    """Return a value as compact JSON; in ASCII, so that no lone surrogate can break it."""
    return json.dumps(value, separators=(",", ":"))
