"""Events: who hears of what, and what is written for it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb


@pytest.fixture
def owner(db: Any) -> UUID:
    return make_owner(db)


def make_owner(db: Any) -> UUID:
    made = uuid4()
    db.execute("insert into owners (id, name) values (%s, 'school')", (made,))
    return made


def listen(db: Any, owner: UUID, *events: str, **spec: Any) -> int:
    given = {"owner_id": str(owner), "url": "https://example.com/x", **spec}
    if events:
        given["events"] = list(events)
    row = db.execute("select create_webhook_endpoint(%s) -> 'id'", (Jsonb(given),)).fetchone()
    return int(row[0])


def heard(db: Any, endpoint: int) -> list[str]:
    rows = db.execute(
        "select event from webhook_deliveries where endpoint_id = %s order by id", (endpoint,)
    )
    return [event for (event,) in rows]


def emit(db: Any, owner: UUID, event: str = "run.failed", **subject: Any) -> None:
    db.execute("select fleet.emit_events(array[%s], %s, %s)", (owner, event, [Jsonb(subject)]))


EVENTS = ["run.completed", "run.failed", "run.skipped", "schedule.paused", "command.failed"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), EVENTS),
        (("*",), EVENTS),
        (("run.*",), ["run.completed", "run.failed", "run.skipped"]),
        (("run.failed",), ["run.failed"]),
        (("run.failed", "schedule.*"), ["run.failed", "schedule.paused"]),
        (("run.*", "run.failed", "*"), EVENTS),
    ],
)
def test_an_endpoint_hears_what_it_asks_for_and_each_event_once(
    db: Any, owner: UUID, asked: tuple[str, ...], expected: list[str]
) -> None:
    endpoint = listen(db, owner, *asked)
    for event in EVENTS:
        emit(db, owner, event)
    assert heard(db, endpoint) == expected


def test_nobody_hears_of_another_owner(db: Any, owner: UUID) -> None:
    other = make_owner(db)
    mine, theirs = listen(db, owner), listen(db, other)
    emit(db, owner)
    assert (heard(db, mine), heard(db, theirs)) == (["run.failed"], [])


def test_a_disabled_endpoint_hears_nothing(db: Any, owner: UUID) -> None:
    endpoint = listen(db, owner, enabled=False)
    emit(db, owner)
    assert heard(db, endpoint) == []


def test_the_message_is_of_the_shape_of_standard_webhooks(db: Any, owner: UUID) -> None:
    listen(db, owner)
    listen(db, owner)
    emit(db, owner, run_id=7)
    rows = db.execute("select event_id, payload, status from webhook_deliveries").fetchall()
    payload = rows[0][1]
    assert set(payload) == {"type", "timestamp", "data"}
    assert (payload["type"], payload["data"]) == ("run.failed", {"run_id": 7})
    assert payload["timestamp"].endswith("Z")
    assert len({event_id for event_id, _, _ in rows}) == 1, "one event, two endpoints"


def test_many_events_are_written_in_one_statement(db: Any, owner: UUID) -> None:
    other = make_owner(db)
    mine, theirs = listen(db, owner), listen(db, other, "run.*")
    subjects = [Jsonb({"n": n}) for n in range(3)]
    count = db.execute(
        "select fleet.emit_events(%s, 'command.failed', %s)", ([owner, other, owner], subjects)
    ).fetchone()
    assert count == (2,)
    assert (heard(db, mine), heard(db, theirs)) == (["command.failed"] * 2, [])
    ids = db.execute("select count(distinct event_id) from webhook_deliveries").fetchone()
    assert ids == (2,)


def test_what_is_rolled_back_was_not_told(db: Any, owner: UUID) -> None:
    endpoint = listen(db, owner)
    with db.transaction(force_rollback=True):
        emit(db, owner)
    assert heard(db, endpoint) == []


def test_an_endpoint_that_somebody_changes_holds_nothing_up(own_database: Any) -> None:
    with own_database.connect() as engine, own_database.connect() as person:
        engine.execute("set lock_timeout = '2s'")
        owner = make_owner(engine)
        changed, deleted = listen(engine, owner), listen(engine, owner)
        engine.commit()
        person.execute('select update_webhook_endpoint(%s, \'{"name": "x"}\')', (changed,))
        person.execute("select delete_webhook_endpoint(%s)", (deleted,))
        emit(engine, owner)
        engine.commit()
        person.commit()
        assert (heard(engine, changed), heard(engine, deleted)) == (["run.failed"], [])


def test_every_event_that_can_be_asked_for_is_described(db: Any) -> None:
    rows = db.execute("select name, description from fleet.event_types()").fetchall()
    assert {"run.completed", "run.failed", "run.skipped", "schedule.paused"} <= {n for n, _ in rows}
    assert all(name.count(".") == 1 and text.endswith(".") for name, text in rows)


def test_the_signature_is_that_of_the_standard(db: Any) -> None:
    body = (
        '{"type":"device.lock.enabled","timestamp":"2026-01-01T00:00:00Z",'
        '"data":{"device_id":4101}}'
    )
    signature = db.execute(
        "select fleet.webhook_signature(decode(%s, 'base64'), 'msg_sandbox_0001', 1767225600, %s)",
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", body),
    ).fetchone()
    assert signature == ("v1,cLqPJaq/uPOn3zcQfX6M/J2YBFVJzM14SV2ZVFiHxOw=",)
