"""Calendar feeds: what they may be filtered by, and whose they are."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

ME, STRANGER = UUID(int=201), UUID(int=202)


def test_a_wrong_filter_is_named(db: Any, sign_in: Any) -> None:
    sign_in(db, ME)
    for wrong in ("[]", '{"colour": "red"}', '{"schedule_ids": "x"}'):
        with pytest.raises(psycopg.Error) as caught, db.transaction():
            db.execute("select create_calendar_feed(%s)", (wrong,))
        assert (caught.value.sqlstate, caught.value.diag.message_detail) == (
            "PT422",
            "filter_invalid",
        )


def test_a_stranger_neither_sees_nor_revokes_nor_makes_my_feeds(db: Any, sign_in: Any) -> None:
    sign_in(db, ME)
    feed = db.execute("select create_calendar_feed()").fetchone()[0]
    assert db.execute("select count(id) from calendar_feeds").fetchone() == (1,)
    sign_in(db, STRANGER)
    assert db.execute("select count(id) from calendar_feeds").fetchone() == (0,)
    for query, argument, reason in (
        ("select revoke_calendar_feed(%s)", feed["id"], "calendar_feed_not_found"),
        ("select revoke_calendar_feed(%s)", 999_999, "calendar_feed_not_found"),
        ("select create_calendar_feed(p_owner_id => %s)", ME, "owner_not_found"),
        ("select create_calendar_feed(p_owner_id => %s)", uuid4(), "owner_not_found"),
    ):
        with pytest.raises(psycopg.Error) as caught, db.transaction():
            db.execute(query, (argument,))
        assert (caught.value.sqlstate, caught.value.diag.message_detail) == ("PT404", reason)
