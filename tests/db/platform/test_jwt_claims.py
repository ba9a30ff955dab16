"""The claims of a token: read without a trial where the API wrote them, and never raising."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.conftest import Database

ME = str(uuid4())
TOKENS = {
    "of a person": {"sub": ME, "role": "authenticated", "email": "me@example.org"},
    "with more in it": {"sub": ME, "role": "authenticated", "app_metadata": {"a": [1, {"b": 2}]}},
    "with escapes": {"sub": ME, "role": "authenticated", "name": 'a "b" \\ c\n\t/ ü €'},
    "with a sub further in": {"user_metadata": {"sub": ME, "role": "service_role"}},
    "with a number for its sub": {"sub": 12, "role": "authenticated"},
    "of nobody": {"role": "authenticated"},
}
# Only somebody who writes SQL can have set these: they give no claims.
UNREADABLE = ["x", "[1]", '"x"', "{oops}", '{"sub": ', '{"sub": "\\u0000"}', '{"a": "\\ud800"}']


@pytest.fixture(params=["authenticator", "postgres"])
def caller(request: pytest.FixtureRequest, database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the login of the API, or as somebody else; then as a signed-in caller."""
    with database.connect(request.param) as conn:
        conn.execute("set local role authenticated")
        yield conn
        conn.rollback()


def claim(conn: psycopg.Connection[Any], claims: str, name: str) -> Any:
    conn.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
    return conn.execute("select fleet.jwt_claim(%s)", (name,)).fetchall()[0][0]


@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("kind", TOKENS)
def test_claims_are_those_of_the_token(
    caller: psycopg.Connection[Any], kind: str, ascii: bool
) -> None:
    token: dict[str, Any] = TOKENS[kind]
    text = json.dumps(token, ensure_ascii=ascii)
    for name in ("sub", "role", "email", "name"):
        expected = token.get(name)
        assert claim(caller, text, name) == (expected if expected is None else str(expected))
    found = caller.execute("select fleet.current_user_id(), fleet.current_subject()").fetchone()
    subject = ME if token.get("sub") == ME else None
    assert [str(value) if value else None for value in found or ()] == [subject, subject]


@pytest.mark.parametrize("claims", UNREADABLE)
def test_what_cannot_be_read_is_no_claim(database: Database, claims: str) -> None:
    with database.connect() as conn:
        conn.execute("set local role authenticated")
        assert claim(conn, claims, "sub") is None
        found = conn.execute("select fleet.current_user_id(), fleet.current_device_id()").fetchone()
        assert found == (None, None)


@pytest.mark.parametrize("claims", ['{"sub": "\\u0000"}', '{"a": "\\ud800"}', "", "null"])
def test_what_a_token_can_hold_raises_nothing(database: Database, claims: str) -> None:
    with database.connect("authenticator") as conn:
        conn.execute("set local role authenticated")
        assert claim(conn, claims, "sub") is None


def test_a_device_is_known_by_its_token_and_is_no_person(
    caller: psycopg.Connection[Any], database: Database
) -> None:
    with database.connect(autocommit=True) as admin:
        owner, auth = uuid4(), uuid4()
        admin.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
        row = admin.execute(
            "insert into devices (owner_id, hostname, auth_id) values (%s, 'pc', %s) returning id",
            (owner, auth),
        ).fetchone()
    asked = "select fleet.current_device_id(), fleet.current_user_id()"
    for claims, device in (
        ({"sub": str(auth), "role": "authenticated"}, row and row[0]),
        ({"sub": str(auth), "role": "anon"}, None),
        ({"sub": ME, "role": "authenticated", "device_id": row and row[0]}, None),
    ):
        claim(caller, json.dumps(claims), "sub")
        assert caller.execute(asked).fetchone() == (device, None)


def test_nothing_is_tried_on_the_way_of_a_request(db: psycopg.Connection[Any]) -> None:
    rows = db.execute(
        "select p.proname from pg_proc as p where p.pronamespace = 'fleet'::regnamespace"
        " and p.proname = any ('{jwt_claims,jwt_claim,current_subject,current_user_id,"
        "current_device_id,is_trusted_caller,my_owners,require_permission}')"
        " and not regexp_replace(p.prosrc, 'raise exception', '') ~ '\\mexception\\M'"
    ).fetchall()
    assert len(rows) == 8
