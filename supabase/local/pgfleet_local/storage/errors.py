"""What the storage answers when it refuses."""

from __future__ import annotations

import psycopg
from starlette.responses import JSONResponse


class StorageError(Exception):
    """A refusal, as the hosted storage words it."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message

    def response(self) -> JSONResponse:
        """Answer; the status of the transfer is 400 for most of them, as on hosted."""
        status = self.status if self.status in (401, 403, 413, 416) or self.status >= 500 else 400
        body = {"statusCode": str(self.status), "error": self.error, "message": self.message}
        return JSONResponse(body, status_code=status)


def missing_object() -> StorageError:
    """Say that there is no such object, or none that the caller may see."""
    return StorageError(404, "not_found", "Object not found")


def missing_bucket() -> StorageError:
    """Say that there is no such bucket."""
    return StorageError(404, "Bucket not found", "Bucket not found")


def invalid(message: str) -> StorageError:
    """Say that the request makes no sense."""
    return StorageError(400, "invalid_request", message)


def from_database(error: psycopg.Error) -> StorageError:
    """Say what the database refused."""
    if error.sqlstate == "42501":
        return StorageError(403, "Unauthorized", "new row violates row-level security policy")
    if error.sqlstate == "23505":
        return StorageError(409, "Duplicate", "The resource already exists")
    if error.sqlstate == "23503":
        return missing_bucket()
    return StorageError(500, "DatabaseError", "The database did not answer")
