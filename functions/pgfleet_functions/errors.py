"""What a function answers when it refuses, and how the database's refusals become that.

FunctionError          an answer with a status, a code, a message, a reason and a next step
 ├── BadRequest   400  the body cannot be read
 ├── InvalidBody  422  fields of the body are wrong; the message names each
 ├── NotSignedIn  401  no credential, or one that is not good
 ├── TooMany      429  too many wrong guesses from this address
 └── Unavailable  503  the database cannot be reached or is not set up
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg

log = logging.getLogger(__name__)

RETRY_SECONDS = 2
SETUP_HINT = "Let the operator run: pgfleet db migrate, then pgfleet functions setup"


class FunctionError(Exception):
    """A request is refused; `details` is the stable reason and `hint` the next step."""

    status_code = 500

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        status_code: int | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint
        self.status_code = status_code or self.status_code
        self.code = code or f"PT{self.status_code}"
        self.headers = dict(headers or {})


class BadRequest(FunctionError):
    """The body cannot be read."""

    status_code = 400


class InvalidBody(FunctionError):
    """Fields of the body are wrong; the message names each."""

    status_code = 422


class NotSignedIn(FunctionError):
    """There is no credential, or one that is not good."""

    status_code = 401


class TooMany(FunctionError):
    """There were too many wrong guesses from this address."""

    status_code = 429


class Unavailable(FunctionError):
    """The database cannot be reached or is not set up."""

    status_code = 503


def from_database(error: psycopg.Error) -> FunctionError:
    """Give what the database reported the answer that a caller can act on.

    What is meant for the caller (PT4xx) passes as it is. The rest is ours to repair: it is
    logged, and the caller learns no more than that.
    """
    code, diag = error.sqlstate, error.diag
    if code is not None and code.startswith("PT") and code[2:].isdigit():
        return FunctionError(
            diag.message_primary or "refused",
            details=diag.message_detail,
            hint=diag.message_hint,
            status_code=int(code[2:]),
            code=code,
        )
    if isinstance(error, psycopg.DataError):
        # Text that Postgres cannot store, such as a zero byte.
        message = diag.message_primary or str(error)
        return InvalidBody(message, details="value_invalid", code=code or "22021")
    log.error("the database refused: %s %s", code, diag.message_primary or type(error).__name__)
    if code in ("42501", "42883", "42P01", "3F000"):
        return Unavailable(
            "the functions are not set up for this database",
            details="functions_not_set_up",
            hint=SETUP_HINT,
        )
    if code is None or code.startswith(("08", "53", "57P", "28", "3D")):
        return Unavailable(
            "the database cannot be reached at the moment",
            details="database_unavailable",
            hint="Try again in a moment.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    return Unavailable(
        "the database cannot do this at the moment",
        details="database_failed",
        hint="Try again in a moment; the log of the functions tells more.",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise a FunctionError wherever the block raises a psycopg error."""
    try:
        yield
    except psycopg.Error as error:
        raise from_database(error) from error
