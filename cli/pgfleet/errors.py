"""Everything that pgfleet raises on purpose.

    FleetError                      anything below; what callers catch
     ├── InvalidInput         422   a value is wrong; the message names the field
     ├── NotFound             404   no such row, or it belongs to another owner
     ├── Conflict             409   the row is in a state that does not allow this
     ├── NotAllowed           403   the role or the person may not do this
     ├── NotSignedIn          401   no identity, or one that is no longer valid
     ├── TooMany              429   a limit was reached; later it may work
     ├── Unavailable          503   the database or a service cannot be reached
     ├── NotMigrated          503   the database lacks pgfleet, or has an older one
     ├── MigrationFailed      500   a migration or a source file was refused
     ├── DatabaseFailed       500   any other refusal by the database
     └── MissingExtra         500   an optional part is not installed

The database says what happened by SQLSTATE (`PT` + HTTP status), by a stable reason in
DETAIL and by the next step in HINT; `translate_errors` turns that into one of these, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgfleet.refusals import said_plainly
from pgfleet.spoken import as_said_here

if TYPE_CHECKING:
    import psycopg


class FleetError(Exception):
    """Something that pgfleet was asked to do was refused or failed."""

    status_code = 500
    # Whether SQL was printed before it, among which it has to be a comment.
    is_beside_sql = False

    def __init__(self, message: str, *, reason: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint


class InvalidInput(FleetError):
    """A value is wrong; the message names the field."""

    status_code = 422


class NotFound(FleetError):
    """No such row, or it belongs to another owner."""

    status_code = 404


class Conflict(FleetError):
    """The row is in a state that does not allow this."""

    status_code = 409


class NotAllowed(FleetError):
    """The role or the person may not do this."""

    status_code = 403


class NotSignedIn(FleetError):
    """There is no identity, or one that is no longer valid."""

    status_code = 401


class TooMany(FleetError):
    """A limit was reached; later it may work."""

    status_code = 429


class Unavailable(FleetError):
    """The database or a service cannot be reached."""

    status_code = 503


class NotMigrated(FleetError):
    """The database lacks pgfleet, or has an older one."""

    status_code = 503


class MigrationFailed(FleetError):
    """A migration or a source file was refused by the database."""


class DatabaseFailed(FleetError):
    """The database refused for a reason that has no class of its own."""


class MissingExtra(FleetError):
    """An optional part of pgfleet is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the extra [{extra}]",
            reason="missing_extra",
            hint=f"pip install 'pgfleet[{extra}]'",
        )


_BY_STATUS: dict[int, type[FleetError]] = {
    400: InvalidInput,
    401: NotSignedIn,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    422: InvalidInput,
    429: TooMany,
    503: Unavailable,
}

# Where the database itself refuses: by the whole SQLSTATE, else by its class.
_BY_SQLSTATE: dict[str, type[FleetError]] = {
    "22": InvalidInput,
    "23502": InvalidInput,
    "23503": InvalidInput,
    "23514": InvalidInput,
    "23505": Conflict,
    "28": NotSignedIn,
    "42501": NotAllowed,
    "3F000": NotMigrated,
    "42P01": NotMigrated,
    "42703": NotMigrated,
    "42883": NotMigrated,
    "08": Unavailable,
    "57P": Unavailable,
    "53300": Unavailable,
}

_HINTS: dict[type[FleetError], str] = {
    NotMigrated: "Bring the database up to date: pgfleet db migrate",
    Unavailable: "Start the local stack with: pgfleet stack up, or pass --database-url",
}


def from_database(error: psycopg.Error) -> FleetError:
    """Give a psycopg error its place in the tree."""
    state = error.sqlstate
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    reason, hint = error.diag.message_detail, error.diag.message_hint
    hint = None if hint is None else as_said_here(hint)

    if state is not None and state.startswith("PT") and state[2:].isdigit():
        status = int(state[2:])
        kind = _BY_STATUS.get(status, DatabaseFailed)
        found = kind(message, reason=reason, hint=hint)
        found.status_code = status
        return found

    kind = _kind_of(error)
    plain = said_plainly(error)
    if plain is not None:
        message, hint = plain.message, plain.hint or hint
        kind = Unavailable if state is None else kind
    # The name of a check is a sentence, and so the best short reason there is.
    reason = error.diag.constraint_name
    return kind(message, reason=reason, hint=(plain and plain.hint) or _HINTS.get(kind) or hint)


def _kind_of(error: psycopg.Error) -> type[FleetError]:
    """Choose a class by SQLSTATE; a connection that failed early carries none."""
    import psycopg

    state = error.sqlstate
    if state is None:
        return Unavailable if isinstance(error, psycopg.OperationalError) else DatabaseFailed
    for length in (5, 3, 2):
        if state[:length] in _BY_SQLSTATE:
            return _BY_SQLSTATE[state[:length]]
    return DatabaseFailed


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise a FleetError wherever the block raises a psycopg error."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise from_database(error) from error
