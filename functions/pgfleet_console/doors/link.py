"""The way in on a laptop: a link that is printed in the terminal, and good once."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet.errors import NotSignedIn
from pgfleet_console.doors.door import new_session, set_cookie
from pgfleet_console.viewers import Viewer


class LinkDoor:
    """Let in whoever has the link, once for each link; what they are is decided beforehand."""

    secure = False
    entrance = "/enter"

    def __init__(self, viewer: Viewer, port: int) -> None:
        # Cookies are of a machine, not of a port: another console keeps its own.
        self.cookie = f"pgfleet_console_{port}"
        self._viewer = viewer
        self._links: list[str] = []
        self._sessions: set[str] = set()

    def new_link(self) -> str:
        """Make a link, as the path that is to be opened."""
        secret = secrets.token_urlsafe(24)
        self._links.append(secret)
        return f"{self.entrance}?key={secret}"

    async def who(self, request: Request) -> Viewer | None:
        """Give the viewer to whoever brings a session of ours."""
        session = request.cookies.get(self.cookie)
        return self._viewer if session in self._sessions else None

    async def refresh(self, request: Request, response: Response) -> None:
        """Do nothing: sessions last as long as the program runs."""

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Give the path of the link."""
        return (Route(self.entrance, self._enter, methods=["GET"]),)

    async def _enter(self, request: Request) -> Response:
        given = request.query_params.get("key", "").encode()
        for link in self._links:
            if hmac.compare_digest(link.encode(), given):
                self._links.remove(link)
                break
        else:
            raise NotSignedIn(
                "this link was used already" if given else "the console opens by a link",
                reason="link_spent",
                hint="Press Enter in the terminal where pgfleet console runs: it prints a new one.",
            )
        session = new_session()
        self._sessions.add(session)
        response = RedirectResponse("/", status_code=303)
        set_cookie(response, self.cookie, session, secure=self.secure)
        return response
