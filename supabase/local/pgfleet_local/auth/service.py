"""Serve `/auth/v1`: signing in, going on, who am I, and signing out."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.auth import sessions
from pgfleet_local.auth.errors import AuthError
from pgfleet_local.auth.passwords import MOST_CHARACTERS, is_right
from pgfleet_local.auth.sessions import Conn
from pgfleet_local.auth.tokens import ACCESS_SECONDS, Signer
from pgfleet_local.tokens import TokenError, TokenVerifier

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024
# Each try costs memory and a moment of a processor.
TRIES_AT_ONCE = 2
SCOPES = ("global", "local", "others")

_BY_ID = """
select
  id::text, aud, role, email, email_confirmed_at, confirmed_at, last_sign_in_at,
  raw_app_meta_data, raw_user_meta_data, created_at, updated_at, is_anonymous
from auth.users
where id = %s and deleted_at is null
"""
_BY_EMAIL = """
select id::text, encrypted_password
from auth.users
where email = %s
  and deleted_at is null
  and not is_sso_user
  and coalesce(banned_until < now(), true)
"""
Answer = Callable[[Request], Awaitable[Response]]


class Auth:
    """Answer what Supabase Auth would answer to whoever signs in with a password."""

    def __init__(self, admin_url: str, verifier: TokenVerifier, signer: Signer) -> None:
        self._url = admin_url
        self._verifier = verifier
        self._signer = signer
        self._tries = asyncio.Semaphore(TRIES_AT_ONCE)
        self._has_tables = False

    @property
    def routes(self) -> list[BaseRoute]:
        """Return the routes, relative to `/auth/v1`."""
        served: list[tuple[str, str, Answer]] = [
            ("POST", "/token", self._token),
            ("GET", "/user", self._user),
            ("POST", "/logout", self._logout),
            ("POST", "/signup", self._signup),
            ("GET", "/settings", self._settings),
        ]
        return [
            Route("/health", _health, methods=["GET"]),
            Route("/.well-known/jwks.json", _keys, methods=["GET"]),
            *(Route(path, self._refusing(do), methods=[verb]) for verb, path, do in served),
        ]

    def _refusing(self, answer: Answer) -> Answer:
        """Check the project key, and turn what is raised into an answer."""

        async def handle(request: Request) -> Response:
            try:
                self._check_key(request)
                return await answer(request)
            except AuthError as error:
                return error.response(request)
            except psycopg.OperationalError:
                log.warning("the database cannot be reached")
                return AuthError(503, "unexpected_failure", "Database unavailable").response(
                    request
                )

        return handle

    def _check_key(self, request: Request) -> None:
        key = request.headers.get("apikey") or request.query_params.get("apikey")
        if not key:
            raise AuthError(401, "no_authorization", "No API key found in request")
        try:
            self._verifier.verify(key)
        except TokenError as error:
            raise AuthError(401, "no_authorization", "Invalid API key") from error

    async def _token(self, request: Request) -> Response:
        body = await _body(request)
        grant = request.query_params.get("grant_type")
        if grant == "password":
            return await self._sign_in(body)
        if grant == "refresh_token":
            token = _text(body, "refresh_token")
            async with self._connection() as conn:
                user_id, session_id, following = await sessions.go_on(conn, token)
                user = await _read_user(conn, user_id)
            return self._session(user, session_id, following)
        raise AuthError(400, "validation_failed", "unsupported_grant_type")

    async def _sign_in(self, body: dict[str, Any]) -> Response:
        email, password = _text(body, "email").strip().lower(), _text(body, "password")
        async with self._connection() as conn:
            found = await conn.execute(_BY_EMAIL, (email.replace("\0", ""),))
            user = await found.fetchone()
        async with self._tries:
            stored = user["encrypted_password"] if user else None
            right = len(password) <= MOST_CHARACTERS and await asyncio.to_thread(
                is_right, password, stored
            )
        if user is None or not right:
            raise AuthError(400, "invalid_credentials", "Invalid login credentials")
        async with self._connection() as conn:
            session_id, refresh_token = await sessions.begin(conn, user["id"])
            user = await _read_user(conn, user["id"])
        return self._session(user, session_id, refresh_token)

    def _session(self, user: dict[str, Any], session_id: str, refresh_token: str) -> Response:
        return JSONResponse(
            {
                "access_token": self._signer.access_token(user, session_id),
                "token_type": "bearer",
                "expires_in": ACCESS_SECONDS,
                "expires_at": int(time.time()) + ACCESS_SECONDS,
                "refresh_token": refresh_token,
                "user": _shown(user),
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _user(self, request: Request) -> Response:
        async with self._connection() as conn:
            claims = await self._claims(request, conn)
            return JSONResponse(_shown(await _read_user(conn, claims["sub"])))

    async def _logout(self, request: Request) -> Response:
        scope = request.query_params.get("scope", "global")
        if scope not in SCOPES:
            raise AuthError(400, "validation_failed", f"Unsupported logout scope {scope!r}")
        async with self._connection() as conn:
            claims = await self._claims(request, conn)
            await sessions.end(conn, claims["sub"], claims.get("session_id"), scope)
        return Response(status_code=204)

    async def _signup(self, _: Request) -> Response:
        raise AuthError(422, "signup_disabled", "Signups not allowed for this instance")

    async def _settings(self, _: Request) -> Response:
        return JSONResponse({"external": {"email": True}, "disable_signup": True})

    async def _claims(self, request: Request, conn: Conn) -> dict[str, Any]:
        """Read the token of the person; one of a session that was closed is good no more."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        try:
            claims = self._verifier.verify(token.strip())
            claims["sub"] = str(UUID(claims.get("sub", "")))
            session_id = claims.get("session_id")
            if session_id is not None:
                claims["session_id"] = str(UUID(session_id))
        except (TokenError, ValueError, AttributeError, TypeError) as error:
            message = getattr(error, "message", "missing sub claim")
            raise AuthError(403, "bad_jwt", f"invalid JWT: {message}") from error
        if session_id is not None and not await sessions.is_there(conn, session_id):
            raise AuthError(
                403,
                "session_not_found",
                "Session from session_id claim in JWT does not exist",
            )
        return claims

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Conn]:
        """Give one transaction; people sign in seldom, so that none is kept."""
        conn: Conn = await AsyncConnection.connect(
            self._url, row_factory=dict_row, connect_timeout=5, application_name="auth"
        )
        async with conn:
            if not self._has_tables:
                file = files("pgfleet_local") / "bootstrap" / "auth_sessions.sql"
                await conn.execute("set local role supabase_auth_admin")
                await conn.execute(file.read_bytes())
                await conn.execute("reset role")
                self._has_tables = True
            yield conn


async def _read_user(conn: Conn, user_id: str) -> dict[str, Any]:
    found = await conn.execute(_BY_ID, (user_id,))
    user = await found.fetchone()
    if user is None:
        raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
    return user


def _shown(user: dict[str, Any]) -> dict[str, Any]:
    """Give a user as the clients know it."""
    times = {
        name: user[name].isoformat()
        for name in (
            *("email_confirmed_at", "confirmed_at", "last_sign_in_at", "created_at"),
            "updated_at",
        )
        if user[name] is not None
    }
    return {
        "id": user["id"],
        "aud": user["aud"] or "authenticated",
        "role": user["role"] or "authenticated",
        "email": user["email"],
        "phone": "",
        "app_metadata": user["raw_app_meta_data"] or {},
        "user_metadata": user["raw_user_meta_data"] or {},
        "identities": [],
        "is_anonymous": user["is_anonymous"],
        **times,
    }


async def _body(request: Request) -> dict[str, Any]:
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BYTES:
            raise AuthError(413, "request_too_large", "Request body is too large")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise AuthError(400, "bad_json", "Could not parse request body as JSON") from error
    if not isinstance(body, dict):
        raise AuthError(400, "bad_json", "Could not parse request body as JSON")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise AuthError(400, "validation_failed", f"missing {name}")
    return value


async def _health(_: Request) -> Response:
    return JSONResponse({"name": "GoTrue", "description": "the local stand-in for Supabase Auth"})


async def _keys(_: Request) -> Response:
    return JSONResponse({"keys": []})
