"""From a request to a handler, and from what it answers to a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route

from pgfleet.errors import FleetError, NotFound
from pgfleet_console.database import Pool, looking
from pgfleet_console.doors.door import (
    Door,
    check_csrf,
    check_origin,
    csrf_of,
    new_session,
    read_form,
    set_cookie,
)
from pgfleet_console.lately import Lately
from pgfleet_console.live import Hub
from pgfleet_console.page import Act, Gone, Look, Page, Part, Shown, View
from pgfleet_console.settings import Tiles
from pgfleet_console.viewers import Viewer

log = logging.getLogger(__name__)

SAID, THEME = "pgfleet_said", "pgfleet_theme"
THEMES = ("light", "dark")
LONGEST_SAID = 300


class Serving:
    """Serves the pages of a table."""

    def __init__(
        self,
        pool: Pool,
        door: Door,
        environment: Environment,
        pages: Sequence[Page],
        tiles: Tiles | None = None,
    ) -> None:
        self._pool = pool
        self._door = door
        self._environment = environment
        self._pages = pages
        self._paths = [
            (Route(view.path, lambda _: None), page, view) for page in pages for view in page.views
        ]
        self._lately = Lately()
        self._given: dict[str, Any] = {"tiles": tiles, "kept": self._lately}
        self.hub = Hub(self._shown_again)

    @property
    def routes(self) -> list[BaseRoute]:
        """Give the paths of all pages."""
        routes: list[BaseRoute] = []
        for page in self._pages:
            routes += [self._view_route(page, view) for view in page.views]
            routes += [self._act_route(page, act) for act in page.acts]
        return routes

    def _view_route(self, page: Page, view: View) -> Route:
        async def serve(request: Request) -> Response:
            viewer = await self._door.who(request)
            if viewer is None:
                return self._stranger(request)
            async with looking(self._pool, viewer) as db:
                asked = (request.url.path, request.path_params, request.query_params)
                answer = await view.show(Look(viewer, db, *asked, **self._given))
            return await self._answer(request, viewer, page, answer, live=view.live)

        return Route(view.path, serve, methods=["GET"])

    def _act_route(self, page: Page, act: Act) -> Route:
        async def serve(request: Request) -> Response:
            viewer = await self._door.who(request)
            if viewer is None:
                return self._stranger(request)
            check_origin(request)
            form, lists = await read_form(request)
            check_csrf(request, form, request.cookies.get(self._door.cookie))
            params, query = request.path_params, request.query_params
            sent = (request.url.path, params, query, form, lists)
            try:
                async with looking(self._pool, viewer, changes=not act.tries) as db:
                    answer: Shown | Part | Gone = await act.do(
                        Look(viewer, db, *sent, **self._given)
                    )
            except FleetError as error:
                if act.refused is None:
                    raise
                async with looking(self._pool, viewer) as db:
                    answer = await act.refused(Look(viewer, db, *sent, **self._given), error)
            if not act.tries:
                # Whoever did it sees at once what came of it, and all others too.
                self._lately.clear()
                self.hub.pulse()
            return await self._answer(request, viewer, page, answer)

        return Route(act.path, serve, methods=["POST"])

    def _stranger(self, request: Request) -> Response:
        """Send a stranger to the entrance, and back here from there."""
        site = request.headers.get("sec-fetch-site")
        if site == "cross-site" and request.method == "GET":
            # Strict cookies stay behind when a link elsewhere is followed; from here they come.
            return HTMLResponse(self._render("again.html", {"to": _address(request)}))
        if request.headers.get("x-part"):
            return Response(status_code=401)
        onward = quote(_address(request), safe="") if request.method == "GET" else "%2F"
        return RedirectResponse(f"{self._door.entrance}?next={onward}", status_code=303)

    async def _answer(
        self,
        request: Request,
        viewer: Viewer,
        page: Page,
        answer: Shown | Part | Gone,
        *,
        live: bool = False,
    ) -> Response:
        if isinstance(answer, Gone):
            response: Response = RedirectResponse(answer.to, status_code=303)
            if answer.said:
                said = quote(answer.said[:LONGEST_SAID])
                response.set_cookie(
                    SAID, said, max_age=60, httponly=True, samesite="strict", path="/"
                )
        elif isinstance(answer, Part):
            values = {**answer.values, "csrf": self._csrf(request)}
            response = HTMLResponse(self._render(answer.template, values))
        else:
            around = {**self._around(request, viewer), "page": page, "is_live": live}
            html = self._render(answer.template, {**around, **answer.values})
            response = HTMLResponse(html, status_code=answer.status)
            if SAID in request.cookies:
                response.delete_cookie(SAID, path="/")
        made = getattr(request.state, "session", None)
        if made is not None:
            set_cookie(response, self._door.cookie, made, secure=self._door.secure)
        await self._door.refresh(request, response)
        return response

    async def _shown_again(self, viewer: Viewer, at: str) -> str:
        """Show what moves of a page once more, for those who have it open."""
        found = self._find(at)
        if found is None:
            raise NotFound("no such page", reason="not_found")
        page, view, params = found
        parts = urlsplit(at)
        query = dict(parse_qsl(parts.query))
        async with looking(self._pool, viewer) as db:
            look = Look(viewer, db, parts.path, params, query, is_again=True, **self._given)
            answer = await view.show(look)
        template = self._environment.get_template(answer.template)
        # Whose form it becomes is not known here: the script fills that in when one is sent.
        around = {"viewer": viewer, "page": page, "csrf": "", "at": at, "is_live": True}
        context = template.new_context({**around, **answer.values})
        return "".join(template.blocks["live"](context))

    def is_live(self, at: str) -> bool:
        """Tell whether an address is that of a page that moves."""
        found = self._find(at)
        return found is not None and found[1].live

    def _find(self, at: str) -> tuple[Page, View, Mapping[str, str]] | None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": urlsplit(at).path,
            "root_path": "",
            "headers": [],
        }
        for route, page, view in self._paths:
            match, child = route.matches(scope)
            if match == Match.FULL:
                return page, view, child["path_params"]
        return None

    def refused(self, request: Request, viewer: Viewer | None, error: FleetError) -> Response:
        """Give the page that says what was refused and what can be done."""
        status = error.status_code
        if request.headers.get("x-part"):
            html = self._render("refusal.html", {"error": error})
        elif viewer is None:
            html = self._render("closed.html", {"error": error, "theme": theme_of(request)})
        else:
            around = {**self._around(request, viewer), "page": None, "is_live": False}
            html = self._render("error.html", {**around, "error": error})
        return HTMLResponse(html, status_code=status)

    def _around(self, request: Request, viewer: Viewer) -> dict[str, Any]:
        """Give what the layout shows around every page."""
        return {
            "pages": self._pages,
            "viewer": viewer,
            "csrf": self._csrf(request),
            "said": _unquoted(request.cookies.get(SAID)),
            "theme": theme_of(request),
            "at": _address(request),
            "can_leave": any(
                isinstance(route, Route) and route.path == "/sign-out"
                for route in self._door.routes
            ),
        }

    def _csrf(self, request: Request) -> str:
        """Give what forms carry; whom a proxy lets in has a session from the first page on."""
        session = request.cookies.get(self._door.cookie)
        if session is None:
            session = request.state.session = getattr(request.state, "session", new_session())
        return csrf_of(session)

    def _render(self, template: str, values: Mapping[str, Any]) -> str:
        return self._environment.get_template(template).render(values)


def theme_of(request: Request) -> str:
    """Give the theme that a person chose, or nothing where the system decides."""
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in THEMES else ""


def _address(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _unquoted(text: str | None) -> str:
    return unquote(text or "")[:LONGEST_SAID]
