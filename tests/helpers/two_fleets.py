"""Two fleets, and every kind of caller who may come for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

Conn = psycopg.Connection[Any]


@dataclass(frozen=True)
class Fleet:
    """The ids of one owner's rows."""

    owner: UUID
    person: UUID
    device: int
    device_auth: UUID
    sibling: int
    sibling_auth: UUID
    retired: int
    retired_auth: UUID
    group: int
    empty_group: int
    schedule: int
    run: int
    command: int
    code: int
    invitation: int
    endpoint: int
    rule: int
    sync_conflict: int
    delivery: int
    feed: int
    calendar: int
    integration: int
    integration_webhook: int
    install: int
    assignment: int
    profile: int
    location: int
    location_policy: int
    location_event: int
    geo_schedule: int
    geo_action: int
    rollout: int
    deployment: int
    deploy_command: int
    template: str
    hostname: str
    plain_code: str
    plain_secrets: tuple[str, ...]
    plain_token: str
    plain_webhook_token: str


@dataclass(frozen=True)
class Caller:
    """Who comes, as the platform would introduce them: a role and the text of their claims."""

    role: str
    claims: str = ""


@dataclass(frozen=True)
class World:
    """A committed database with my fleet, theirs, and everybody who may knock."""

    database: Any
    mine: Fleet
    theirs: Fleet
    callers: dict[str, Caller] = field(default_factory=dict)

    @contextmanager
    def acting(self, caller: str | Caller) -> Iterator[Conn]:
        """Give a transaction of that caller, which is rolled back."""
        with self.database.connect("supabase_admin") as conn:
            self.become(conn, caller)
            yield conn
            conn.rollback()

    def become(self, conn: Conn, caller: str | Caller) -> None:
        """Make the rest of the transaction that of the caller."""
        who = self.callers[caller] if isinstance(caller, str) else caller
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', %s, true)", (who.claims,))
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(who.role)))

    def outcome(self, conn: Conn, query: str, *args: Any) -> Any:
        """Run a query: its first value, or (SQLSTATE, message, detail, hint) of its error."""
        try:
            with conn.transaction():
                row = conn.execute(query.encode(), args or None).fetchone()
        except psycopg.Error as error:
            diag = error.diag
            return (error.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint)
        return row[0] if row else None


def person(sub: UUID, **claims: Any) -> Caller:
    """Describe a signed-in person."""
    return Caller("authenticated", json.dumps({"role": "authenticated", "sub": str(sub), **claims}))


def device(sub: UUID, device_id: int) -> Caller:
    """Describe a device with the token that the function device-token signs."""
    return person(sub, aud="authenticated", device_id=device_id)


def callers(mine: Fleet, theirs: Fleet) -> dict[str, Caller]:
    """Give everybody who may knock, by name."""
    return {
        "anon": Caller("anon", '{"role": "anon"}'),
        "nobody": Caller("authenticated"),
        "member": person(mine.person),
        "stranger": person(theirs.person),
        "device": device(mine.device_auth, mine.device),
        "sibling": device(mine.sibling_auth, mine.sibling),
        "retired": device(mine.retired_auth, mine.retired),
        "foreign_device": device(theirs.device_auth, theirs.device),
        "fleet_worker": Caller("fleet_worker"),
        "service_role": Caller("service_role", '{"role": "service_role"}'),
    }
