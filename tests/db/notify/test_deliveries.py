"""Deliveries in the database: leases, the schedule of attempts, and pokes. Time comes in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

START = datetime(2030, 1, 1, tzinfo=UTC)
PAUSES = [5, 60, 300, 1800, 7200, 18000, 28800, 28800]


@pytest.fixture
def endpoint(db: Any) -> dict[str, Any]:
    return make_endpoint(db)


def make_endpoint(db: Any) -> dict[str, Any]:
    owner = uuid4()
    db.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    spec = Jsonb({"owner_id": str(owner), "url": "https://example.com/x"})
    made: dict[str, Any] = db.execute("select create_webhook_endpoint(%s)", (spec,)).fetchone()[0]
    return made


def emit(db: Any, endpoint: dict[str, Any], times: int = 1) -> None:
    db.execute(
        "select fleet.emit_events(array_fill(%s::uuid, array[%s]), 'run.failed',"
        " array_fill('{}'::jsonb, array[%s]))",
        (endpoint["owner_id"], times, times),
    )
    db.execute("update webhook_deliveries set next_attempt_at = %s", (START,))


def claim(db: Any, now: datetime, limit: int = 1) -> list[tuple[int, int]]:
    rows = db.execute(
        "select delivery_id, attempt from fleet.worker_claim_deliveries(null, %s, %s)",
        (Jsonb({"all": limit}), now),
    )
    return list(rows.fetchall())


def finish(db: Any, claimed: tuple[int, int], outcome: str, now: datetime, **more: Any) -> Any:
    return db.execute(
        "select fleet.worker_finish_delivery(%s, %s, %s, p_retry_after => %s, p_now => %s)",
        (*claimed, outcome, more.get("retry_after"), now),
    ).fetchone()[0]


def row(db: Any) -> dict[str, Any]:
    found: dict[str, Any] = db.execute(
        "select to_jsonb(d) from webhook_deliveries as d"
    ).fetchone()[0]
    return found


def test_a_message_is_handed_out_once(db: Any, endpoint: dict[str, Any]) -> None:
    emit(db, endpoint)
    assert claim(db, START - timedelta(seconds=1)) == []
    assert len(claim(db, START)) == 1
    assert claim(db, START + timedelta(seconds=59)) == []


def test_what_waits_for_a_mailbox_does_not_go_to_another_address(db: Any) -> None:
    owner = uuid4()
    db.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    spec = Jsonb({"owner_id": str(owner), "channel": "email", "email": "mine@example.com"})
    [made] = db.execute("select create_webhook_endpoint(%s)", (spec,)).fetchone()
    db.execute("update webhook_endpoints set verified_at = now()")
    emit(db, made, 3)
    theirs = Jsonb({"email": "theirs@example.com"})
    db.execute("select update_webhook_endpoint(%s, %s)", (made["id"], theirs))
    db.execute("update webhook_deliveries set next_attempt_at = %s", (START,))
    query = "select email, event from fleet.worker_claim_deliveries('email', '{}', %s)"
    went = set(db.execute(query, (START,)).fetchall())
    assert went == {("theirs@example.com", "webhook.verify")}


def test_two_functions_at_once_never_get_the_same_message(own_database: Any) -> None:
    with own_database.connect() as first, own_database.connect() as second:
        emit(first, make_endpoint(first), 3)
        first.commit()
        mine, theirs = claim(first, START, 2), claim(second, START, 2)
    assert len(mine) == 2
    assert len(theirs) == 1
    assert not set(mine) & set(theirs)


def test_after_the_lease_another_takes_it_and_the_first_is_not_heard(
    db: Any, endpoint: dict[str, Any]
) -> None:
    emit(db, endpoint)
    [first] = claim(db, START)
    later = START + timedelta(seconds=61)
    [second] = claim(db, later)
    assert second == (first[0], first[1] + 1)
    assert finish(db, first, "delivered", later) == {
        "accepted": False,
        "reason": "stale_attempt",
    }
    assert finish(db, second, "delivered", later)["accepted"]
    assert finish(db, second, "delivered", later)["reason"] == "stale_attempt"
    assert finish(db, (999_999, 1), "delivered", later)["reason"] == "not_found"


def test_it_is_tried_over_a_day_and_then_given_up(db: Any, endpoint: dict[str, Any]) -> None:
    emit(db, endpoint)
    now = START
    for pause in PAUSES:
        [claimed] = claim(db, now)
        answer = finish(db, claimed, "retry", now)
        wait = datetime.fromisoformat(answer["next_attempt_at"]) - now
        assert 0.9 * pause <= wait.total_seconds() <= 1.1 * pause
        assert claim(db, now + 0.85 * wait) == []
        now += wait
    [claimed] = claim(db, now)
    assert finish(db, claimed, "retry", now)["status"] == "failed"
    assert claim(db, now + timedelta(days=9)) == []
    assert timedelta(hours=21) < now - START < timedelta(hours=27)
    assert sum(PAUSES) == pytest.approx(86400, rel=0.03)


@pytest.mark.parametrize(("asked", "expected"), [(600, 600), (1, 5), (10**9, 86400), (-5, 5)])
def test_a_wish_for_more_time_is_granted_up_to_a_day(
    db: Any, endpoint: dict[str, Any], asked: int, expected: int
) -> None:
    emit(db, endpoint)
    [claimed] = claim(db, START)
    answer = finish(db, claimed, "retry", START, retry_after=asked)
    wait = datetime.fromisoformat(answer["next_attempt_at"]) - START
    assert wait.total_seconds() == pytest.approx(expected, rel=0.11)


def test_a_refusal_is_final_but_leaves_the_endpoint_alone(
    db: Any, endpoint: dict[str, Any]
) -> None:
    emit(db, endpoint)
    [claimed] = claim(db, START)
    assert finish(db, claimed, "refused", START)["status"] == "failed"
    assert db.execute("select enabled from webhook_endpoints").fetchone() == (True,)


def test_gone_disables_the_endpoint_and_ends_what_waits(db: Any, endpoint: dict[str, Any]) -> None:
    emit(db, endpoint, 3)
    [claimed] = claim(db, START)
    assert finish(db, claimed, "gone", START)["status"] == "failed"
    assert db.execute("select enabled from webhook_endpoints").fetchone() == (False,)
    assert claim(db, START + timedelta(days=2)) == []
    statuses = db.execute("select distinct status from webhook_deliveries").fetchall()
    assert statuses == [("failed",)]


def test_a_message_that_ends_its_function_each_time_does_not_go_on_for_ever(
    db: Any, endpoint: dict[str, Any]
) -> None:
    emit(db, endpoint)
    now, attempts = START, 0
    while claim(db, now):
        attempts += 1
        assert attempts < 20
        now += timedelta(minutes=2)
    found = row(db)
    assert (found["status"], found["last_error"]) == (
        "failed",
        "the function stopped in the middle",
    )


def test_one_receiver_is_never_sent_more_than_four_at_once(
    db: Any, endpoint: dict[str, Any]
) -> None:
    other = make_endpoint(db)
    emit(db, endpoint, 9)
    emit(db, other, 1)
    db.execute(
        "update webhook_deliveries set next_attempt_at = %s where endpoint_id = %s",
        (START + timedelta(seconds=1), other["id"]),
    )
    now = START + timedelta(seconds=2)
    taken = [found for _ in range(6) for found in claim(db, now)]
    mine = db.execute(
        "select count(*) from webhook_deliveries where status = 'running' and endpoint_id = %s",
        (endpoint["id"],),
    ).fetchone()
    assert (len(taken), mine) == (5, (4,))


def test_sending_again_starts_the_schedule_anew_but_counts_on(
    db: Any, endpoint: dict[str, Any]
) -> None:
    emit(db, endpoint)
    [claimed] = claim(db, START)
    finish(db, claimed, "refused", START)
    before = row(db)
    db.execute("select redeliver(%s)", (claimed[0],))
    again = row(db)
    assert (again["status"], again["failure_count"], again["event_id"]) == (
        "pending",
        0,
        before["event_id"],
    )
    soon = datetime.now(UTC) + timedelta(seconds=1)
    assert claim(db, soon) == [(claimed[0], 2)]
    assert db.execute("select status from redeliver(%s)", (claimed[0],)).fetchone() == ("running",)


def test_a_poke_goes_out_once_a_second_while_something_is_due(
    db: Any, endpoint: dict[str, Any]
) -> None:
    def poke(seconds: float) -> bool:
        now = START + timedelta(seconds=seconds)
        return bool(db.execute("select fleet.poke_notify(%s)", (now,)).fetchone()[0])

    assert poke(0) is False, "nothing is due"
    emit(db, endpoint)
    assert [poke(-1), poke(0), poke(0), poke(0.4), poke(1), poke(2), poke(2)] == [
        *(False, True, False, False, True, True, False),
    ]
    assert poke(3600) is True
    db.execute("update fleet.pokes set poked_at = %s", (START + timedelta(days=1),))
    assert poke(4000) is True, "a clock that was set back"


def test_old_messages_and_secrets_are_pruned(db: Any, endpoint: dict[str, Any]) -> None:
    emit(db, endpoint, 3)
    for claimed in claim(db, START, 2):
        finish(db, claimed, "delivered", START)
    db.execute("select rotate_webhook_secret(%s, '1 hour')", (endpoint["id"],))
    prune = "select fleet.prune_batch('public.webhook_deliveries', %s, %s)"
    assert db.execute(prune, (START + timedelta(days=30), None)).fetchone() == (0,)
    after = START + timedelta(days=31)
    assert [db.execute(prune, (after, 1)).fetchone() for _ in range(3)] == [(1,), (1,), (0,)]
    assert row(db)["status"] == "pending"
    db.execute("select fleet.prune_batch('fleet.webhook_secrets', %s)", (after,))
    assert db.execute("select count(*) from fleet.webhook_secrets").fetchone() == (1,)
