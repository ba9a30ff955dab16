"""The way in as a service: the project's tokens, by a cookie or from a proxy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from supabase_auth import AsyncGoTrueClient
from supabase_auth.errors import AuthError
from supabase_auth.types import Session

from pgfleet.errors import FleetError, NotSignedIn, Unavailable
from pgfleet_console.doors.door import (
    check_csrf,
    check_origin,
    new_session,
    read_form,
    set_cookie,
)
from pgfleet_console.settings import Accounts
from pgfleet_console.viewers import Viewer, person
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.outgoing.errors import OutgoingError
from pgfleet_functions.outgoing.transport import Limits, Outgoing
from pgfleet_functions.task_api.user_tokens import UserTokens

ACCESS, REFRESH = "pgfleet_access", "pgfleet_refresh"
SIGN_IN_SECONDS, MOST_BYTES = 10.0, 1_000_000
# Statuses by which Auth says that it is the person's fault.
REFUSALS = {400, 401, 403, 422}
UNPACKED = {"content-encoding", "content-length", "transfer-encoding"}
# Tokens are renewed so long before they end that a request never carries one that just has.
EARLY_SECONDS = 60
REFRESH_LASTS = 30 * 86_400

# The session whose token the form carries, where to go on, and what was wrong.
SignInPage = Callable[[str, str, FleetError | None], Response]


class TokenDoor:
    """Let in whoever has a token of the project, and give one to whoever has an account."""

    cookie = "pgfleet_console"
    entrance = "/sign-in"

    def __init__(
        self, accounts: Accounts, outgoing: Outgoing, *, secure: bool, page: SignInPage
    ) -> None:
        self.secure = secure
        self._accounts = accounts
        self._outgoing = outgoing
        self._tokens = UserTokens(accounts.jwt_secret, accounts.jwks_url)
        self._page = page

    async def who(self, request: Request) -> Viewer | None:
        """Read the token of a proxy, else that of the cookie, renewed where it is at its end."""
        scheme, _, brought = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and brought:
            return await self._viewer(brought.strip())
        kept = request.cookies.get(ACCESS)
        viewer = await self._viewer(kept) if kept else None
        ends_soon = viewer is None or (viewer.ends_at or 0) < time.time() + EARLY_SECONDS
        if ends_soon and (refresh := request.cookies.get(REFRESH)) and self._can_sign_in:
            request.state.renewed = await self._renewed(refresh)
            if request.state.renewed is not None:
                return await self._viewer(request.state.renewed.access_token)
        return viewer

    async def refresh(self, request: Request, response: Response) -> None:
        """Let the browser keep the tokens that were renewed for this request."""
        renewed: Session | None = getattr(request.state, "renewed", None)
        if renewed is not None:
            self._keep(response, renewed)

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Give the paths of signing in and out."""
        return (
            Route(self.entrance, self._show, methods=["GET"]),
            Route(self.entrance, self._sign_in, methods=["POST"]),
            Route("/sign-out", self._sign_out, methods=["POST"]),
        )

    @property
    def _can_sign_in(self) -> bool:
        return bool(self._accounts.project_url and self._accounts.anon_key)

    async def _viewer(self, token: str) -> Viewer | None:
        try:
            claims = await self._tokens.read(token, self._outgoing)
        except FunctionError as error:
            if error.status_code == 503:
                raise Unavailable(error.message, reason=error.details, hint=error.hint) from error
            return None
        # A token of the project itself, or of a device, is nobody's who looks.
        if claims.get("role") != "authenticated" or claims.get("device_id") is not None:
            return None
        return person(claims)

    async def _show(self, request: Request) -> Response:
        session = request.cookies.get(self.cookie) or new_session()
        response = self._page(session, _within(request.query_params.get("next", "/")), None)
        set_cookie(response, self.cookie, session, secure=self.secure)
        return response

    async def _sign_in(self, request: Request) -> Response:
        check_origin(request)
        form, _ = await read_form(request)
        shown_in = request.cookies.get(self.cookie)
        check_csrf(request, form, shown_in)
        onward = _within(form.get("next", "/"))
        try:
            session = await self._session_of(form.get("email", ""), form.get("password", ""))
        except FleetError as error:
            return self._page(shown_in or "", onward, error)
        response = RedirectResponse(onward, status_code=303)
        self._keep(response, session)
        # Whoever knew the session of before knows nothing of this one.
        set_cookie(response, self.cookie, new_session(), secure=self.secure)
        return response

    async def _sign_out(self, request: Request) -> Response:
        check_origin(request)
        form, _ = await read_form(request)
        check_csrf(request, form, request.cookies.get(self.cookie))
        token = request.cookies.get(ACCESS)
        if token and self._can_sign_in:
            await self._called(lambda client: client.admin.sign_out(token, "local"), forgive=True)
        response = RedirectResponse(self.entrance, status_code=303)
        for name in (ACCESS, REFRESH, self.cookie):
            response.delete_cookie(name, path="/")
        return response

    async def _session_of(self, email: str, password: str) -> Session:
        if not self._can_sign_in:
            raise NotSignedIn(
                "nobody can sign in here",
                reason="sign_in_unavailable",
                hint="Let the operator set SUPABASE_URL and SUPABASE_ANON_KEY.",
            )
        answer = await self._called(
            lambda client: client.sign_in_with_password({"email": email, "password": password})
        )
        if answer is None or answer.session is None:
            raise NotSignedIn(
                "the address or the password is wrong",
                reason="credentials_invalid",
                hint="Try again; whoever runs the project can set a new password.",
            )
        session: Session = answer.session
        return session

    async def _renewed(self, refresh: str) -> Session | None:
        answer = await self._called(lambda client: client.refresh_session(refresh), forgive=True)
        return answer.session if answer else None

    async def _called(self, call: Any, *, forgive: bool = False) -> Any:
        """Ask the project's Auth; None where it refuses."""
        client = AsyncGoTrueClient(
            url=f"{self._accounts.project_url}/auth/v1",
            headers={
                "apikey": self._accounts.anon_key or "",
                "Authorization": f"Bearer {self._accounts.anon_key}",
            },
            auto_refresh_token=False,
            persist_session=False,
            http_client=httpx.AsyncClient(transport=_WayToAuth(self._outgoing)),
        )
        try:
            return await call(client)
        except (AuthError, OutgoingError, ValueError) as error:
            # What is no answer of Auth, such as a page, has no status, or cannot be read.
            if forgive or getattr(error, "status", None) in REFUSALS:
                return None
            raise _away() from error

    def _keep(self, response: Response, session: Session) -> None:
        set_cookie(
            response, ACCESS, session.access_token, secure=self.secure, seconds=session.expires_in
        )
        set_cookie(
            response, REFRESH, session.refresh_token, secure=self.secure, seconds=REFRESH_LASTS
        )


class _WayToAuth(httpx.AsyncBaseTransport):
    """Lets the official client out by the one way: within a time, for an answer of some size."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = Limits(SIGN_IN_SECONDS, MOST_BYTES)
        answer = await self._outgoing.call(request, limits, allow_private=True)
        # The body is unpacked already.
        headers = {k: v for k, v in answer.headers.items() if k not in UNPACKED}
        return httpx.Response(answer.status, headers=headers, content=answer.body)


def _within(path: str) -> str:
    """Go back to a page of ours, wherever the form says that it came from."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _away() -> Unavailable:
    return Unavailable(
        "signing in does not work at the moment",
        reason="auth_unavailable",
        hint="Try again in a moment.",
    )
