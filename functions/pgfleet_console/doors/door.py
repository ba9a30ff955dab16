"""What a door is, and what all of them share: the cookie, the token in forms, what is refused."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from pgfleet.errors import InvalidInput, NotAllowed
from pgfleet_console.viewers import Viewer

LARGEST_FORM = 512 * 1024
SESSION_BYTES = 32


class Door(Protocol):
    """A way in."""

    cookie: str
    secure: bool
    # Where somebody who is not known is sent, and what a person is told who leaves.
    entrance: str

    async def who(self, request: Request) -> Viewer | None:
        """Give the viewer that a request comes from, or None for a stranger."""
        ...

    async def refresh(self, request: Request, response: Response) -> None:
        """Write down in an answer what the browser is to bring the next time."""
        ...

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Give the paths by which people come in and leave."""
        ...


def new_session() -> str:
    """Make the secret of a session."""
    return secrets.token_urlsafe(SESSION_BYTES)


def csrf_of(session: str | None) -> str:
    """Give what a form of this session must carry; it does not tell the session."""
    return hmac.new((session or "").encode(), b"form", hashlib.sha256).hexdigest()


def set_cookie(
    response: Response, name: str, value: str, *, secure: bool, seconds: int | None = None
) -> None:
    """Let the browser bring a value back, to us alone and never along with a foreign page."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", httponly=True, samesite="strict", secure=secure
    )


def check_origin(request: Request) -> None:
    """Refuse what another page sends; a browser says which page it is."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise NotAllowed(
            "another page sent this",
            reason="origin_refused",
            hint="Open the console itself, and do it there.",
        )


def check_csrf(request: Request, form: dict[str, str], session: str | None) -> None:
    """Refuse a form that was not shown in this session."""
    given = form.get("csrf") or request.headers.get("x-csrf") or ""
    if session is None or not hmac.compare_digest(given.encode(), csrf_of(session).encode()):
        raise NotAllowed(
            "this form was shown to somebody else, or too long ago",
            reason="form_refused",
            hint="Reload the page, and send it again.",
        )


async def read_form(request: Request) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read the fields of a form: the last value of each, and all of them."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        raise InvalidInput("that is no form", reason="form_invalid", hint="Reload the page.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise InvalidInput("the form is too large", reason="form_too_large")
    lists: dict[str, list[str]] = {}
    try:
        pairs: list[tuple[str, Any]] = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=20_000, errors="strict"
        )
    except ValueError as error:
        raise InvalidInput("the form cannot be read", reason="form_invalid") from error
    for name, value in pairs:
        lists.setdefault(name, []).append(value.replace("\r\n", "\n").replace("\0", ""))
    return {name: values[-1] for name, values in lists.items()}, lists
