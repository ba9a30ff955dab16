"""What Supabase Auth says when it refuses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

VERSION_HEADER = "x-supabase-api-version"
VERSION = "2024-01-01"


class AuthError(Exception):
    """Raised when a request is refused; the code is a stable word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def response(self, request: Request) -> Response:
        """Give the answer in the shape of the version that the client asks for."""
        if request.headers.get(VERSION_HEADER, "") >= VERSION:
            return JSONResponse(
                {"code": self.code, "message": self.message},
                status_code=self.status,
                headers={VERSION_HEADER: VERSION},
            )
        body = {"code": self.status, "error_code": self.code, "msg": self.message}
        return JSONResponse(body, status_code=self.status)
