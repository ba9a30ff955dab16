"""People who are invited to an owner and join it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from tests.helpers.fleet import Fleet


@contextmanager
def signed_in(fleet: Fleet, user: UUID, email: str | None = None) -> Iterator[None]:
    """Act as a person whose token has an address."""
    with fleet.acting(user):
        claims = {"sub": str(user), "role": "authenticated", "email": email}
        fleet.run("select set_config('request.jwt.claims', %s, true)", json.dumps(claims))
        yield


def school(fleet: Fleet, admin: UUID) -> UUID:
    with fleet.acting(admin):
        found: UUID = fleet.value("select id from create_owner('School')")
    return found


def invite(fleet: Fleet, owner: UUID, admin: UUID, *args: Any) -> dict[str, Any]:
    with fleet.acting(admin):
        places = "".join(", %s" for _ in args)
        found: dict[str, Any] = fleet.value(f"select invite_member(%s{places})", owner, *args)
    return found


def join(fleet: Fleet, owner: UUID, admin: UUID, *permissions: str) -> UUID:
    """Let somebody in with these permissions."""
    user = uuid4()
    code = invite(fleet, owner, admin, None, list(permissions or ("view", "operate")))["code"]
    with fleet.acting(user):
        fleet.value("select accept_invitation(%s)", code)
    return user


def members(fleet: Fleet, owner: UUID) -> dict[UUID, list[str]]:
    rows = fleet.rows("select user_id, permissions from owner_members where owner_id = %s", owner)
    return {row["user_id"]: row["permissions"] for row in rows}
