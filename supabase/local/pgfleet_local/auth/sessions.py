"""Who is signed in, in the database: sessions, and refresh tokens that are good once."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from pgfleet_local.auth.errors import AuthError

Conn = AsyncConnection[dict[str, Any]]

# A client that sends its token twice at once, or never got the answer, is not thrown out.
REUSE_SECONDS = 10


async def begin(conn: Conn, user_id: str) -> tuple[str, str]:
    """Open a session; give its id and its first refresh token."""
    session_id = str(uuid4())
    await conn.execute(
        "insert into auth.sessions (id, user_id) values (%s, %s)", (session_id, user_id)
    )
    await conn.execute("update auth.users set last_sign_in_at = now() where id = %s", (user_id,))
    return session_id, await _new_token(conn, session_id)


async def go_on(conn: Conn, refresh_token: str) -> tuple[str, str, str]:
    """Use a refresh token; give the user, the session and the next token."""
    found = await conn.execute(
        "select t.id, t.session_id::text, s.user_id::text,"
        " t.used_at < now() - make_interval(secs => %s) as is_old"
        " from auth.refresh_tokens as t join auth.sessions as s on s.id = t.session_id"
        " where t.token_hash = %s for update of s",
        (REUSE_SECONDS, _hash(refresh_token)),
    )
    row = await found.fetchone()
    if row is None:
        raise AuthError(
            400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"
        )
    if row["is_old"]:
        # Somebody else has had it: nobody goes on with what followed from it.
        await conn.execute("delete from auth.sessions where id = %s", (row["session_id"],))
        await conn.commit()
        raise AuthError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
    await conn.execute(
        "update auth.refresh_tokens set used_at = coalesce(used_at, now()) where id = %s",
        (row["id"],),
    )
    await conn.execute(
        "update auth.sessions set updated_at = now() where id = %s", (row["session_id"],)
    )
    return row["user_id"], row["session_id"], await _new_token(conn, row["session_id"])


async def end(conn: Conn, user_id: str, session_id: str | None, scope: str) -> None:
    """Close the sessions of a person: this one (local), the others, or all of them (global)."""
    await conn.execute(
        "delete from auth.sessions where user_id = %(user)s and case %(scope)s"
        " when 'local' then id = %(session)s when 'others' then id <> %(session)s"
        " else true end",
        {"user": user_id, "session": session_id, "scope": scope},
    )


async def is_there(conn: Conn, session_id: str) -> bool:
    """Tell whether a session is open."""
    found = await conn.execute("select 1 from auth.sessions where id = %s", (session_id,))
    return await found.fetchone() is not None


async def _new_token(conn: Conn, session_id: str) -> str:
    token = secrets.token_urlsafe(24)
    await conn.execute(
        "insert into auth.refresh_tokens (token_hash, session_id) values (%s, %s)",
        (_hash(token), session_id),
    )
    return token


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
