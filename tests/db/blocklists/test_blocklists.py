"""Blocklists: what people put there, and what of it each device reads."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest


@pytest.fixture
def owner(db: Any) -> str:
    """Make an owner, for whom nobody signed in acts."""
    made = str(uuid4())
    db.execute("insert into owners (id, name) values (%s, 'school')", (made,))
    db.execute("select fleet.set_setting('default_owner', to_jsonb(%s::text))", (made,))
    return made


def device(db: Any, owner: str, *tags: str) -> tuple[int, str]:
    auth = str(uuid4())
    row = db.execute(
        "insert into devices (owner_id, hostname, tags, auth_id) values (%s, %s, %s, %s)"
        " returning id",
        (owner, f"pc-{auth}", list(tags), auth),
    ).fetchone()
    return int(row[0]), auth


def read(db: Any, sign_in: Any, auth: str, kind: str = "website") -> dict[str, Any]:
    sign_in(db, auth)
    found: dict[str, Any] = db.execute("select device_blocklist(%s)", (kind,)).fetchone()[0]
    db.execute("reset role")
    db.execute("select set_config('request.jwt.claims', '', true)")
    return found


def block(db: Any, kind: str, *patterns: str, **more: Any) -> int:
    named = "".join(f", p_{name} => %({name})s" for name in more)
    row = db.execute(
        f"select block(%(kind)s, %(patterns)s{named})".encode(),
        {"kind": kind, "patterns": list(patterns)} | more,
    ).fetchone()
    return int(row[0])


def test_a_device_reads_what_is_for_all_and_for_its_groups(
    db: Any, owner: str, sign_in: Any
) -> None:
    listed, auth = device(db, owner)
    _, tagged = device(db, owner, "lab")
    by_list, by_tag = (
        db.execute(
            "insert into device_groups (owner_id, name, selector) values (%s, %s, %s) returning id",
            (owner, name, selector),
        ).fetchone()[0]
        for name, selector in (("listed", None), ("labs", '{"tags": ["lab"]}'))
    )
    db.execute("select add_to_group(%s, %s)", (by_list, [listed]))
    assert block(db, "website", " Games.Example.com ", "a.example.com", "a.example.com") == 2
    block(db, "website", "listed.example.com", group_id=by_list)
    block(db, "website", "lab.example.com", group_id=by_tag)
    block(db, "software", "Chess")

    assert read(db, sign_in, auth)["entries"] == [
        "a.example.com",
        "games.example.com",
        "listed.example.com",
    ]
    assert "lab.example.com" in read(db, sign_in, tagged)["entries"]
    assert read(db, sign_in, tagged, "software")["entries"] == ["chess"]


def test_the_version_changes_with_the_entries_and_with_nothing_else(
    db: Any, owner: str, sign_in: Any
) -> None:
    _, auth = device(db, owner)
    block(db, "website", "b.example.com")
    first = read(db, sign_in, auth)["version"]
    assert block(db, "website", "b.example.com") == 0
    block(db, "software", "chess")
    assert read(db, sign_in, auth)["version"] == first
    block(db, "website", "a.example.com")
    assert read(db, sign_in, auth)["version"] != first


def test_nobody_reads_what_is_of_another_owner(db: Any, owner: str, sign_in: Any) -> None:
    block(db, "website", "mine.example.com")
    other = str(uuid4())
    db.execute("insert into owners (id, name) values (%s, 'other')", (other,))
    _, auth = device(db, other)
    assert read(db, sign_in, auth)["entries"] == []


@pytest.mark.parametrize(
    "pattern", ["https://x.example.com/", "no domain", "localhost", "10.0.0.1", "x" * 300 + ".com"]
)
def test_what_is_no_domain_is_refused(db: Any, owner: str, pattern: str) -> None:
    with pytest.raises(psycopg.Error, match="is no domain") as caught:
        block(db, "website", pattern)
    assert caught.value.diag.message_detail == "blocklist_invalid"


def test_a_blocklist_has_an_end(db: Any, owner: str) -> None:
    assert block(db, "software", *(f"p{n}" for n in range(10_000))) == 10_000
    with pytest.raises(psycopg.Error, match="one too many"):
        block(db, "software", "another")
