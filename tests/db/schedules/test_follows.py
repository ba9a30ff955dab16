"""Schedules that follow others: what may follow what, and what becomes of it when one goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)


def first(fleet: Fleet, device: int, **spec: Any) -> int:
    """Create the schedule with which a chain begins: once a day."""
    made = fleet.create(
        name="first",
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        start_time=BASE.isoformat(),
        device_ids=[device],
        **spec,
    )
    schedule_id: int = made["id"]
    return schedule_id


def follower(fleet: Fleet, device: int, parent: int, on: str | None = None, **spec: Any) -> int:
    after = {"schedule_id": parent, **({"on": on} if on else {})}
    made = fleet.create(**{"name": "follower", "device_ids": [device], **spec}, after=after)
    schedule_id: int = made["id"]
    return schedule_id


def update(fleet: Fleet, schedule_id: int, **changes: Any) -> Row:
    answer: Row = fleet.value("select update_schedule(%s, %s)", schedule_id, Jsonb(changes))
    return answer


def test_a_follower_has_no_times_of_its_own(fleet: Fleet) -> None:
    device = fleet.device()
    chained = follower(fleet, device, first(fleet, device))
    row = fleet.schedule(chained)
    assert (row["status"], row["next_run_at"], row["after_on"]) == ("active", None, "completed")
    assert fleet.runs(chained) == []


def test_a_circle_is_refused_however_it_is_made(fleet: Fleet) -> None:
    device = fleet.device()
    top = first(fleet, device)
    middle = follower(fleet, device, top)
    last = follower(fleet, device, middle)
    for parent in (middle, last):
        with fleet.refused("PT422", "schedule_invalid", "after.schedule_id", "for ever"):
            update(fleet, top, after={"schedule_id": parent})
        with fleet.refused("PT422", "schedule_invalid", "after.schedule_id", "for ever"):
            fleet.run("update schedules set after_schedule_id = %s where id = %s", parent, top)
    with fleet.refused("PT422", "schedule_invalid", "after.schedule_id", "for ever"):
        update(fleet, middle, after={"schedule_id": middle})
    update(fleet, last, after={"schedule_id": top})


def test_two_sessions_cannot_close_a_circle_together(connect: Callable[..., Fleet]) -> None:
    one = connect()
    two = connect(owner=one)
    device = one.device()
    left, right = first(one, device), first(one, device)
    refused: list[str | None] = []

    def close() -> None:
        try:
            update(two, left, after={"schedule_id": right})
        except psycopg.Error as error:
            refused.append(error.diag.message_detail)

    with one.conn.transaction():
        update(one, right, after={"schedule_id": left})
        other = threading.Thread(target=close)
        other.start()
        while not connect().value("select count(*) from pg_locks where not granted"):
            assert other.is_alive()
    other.join(20)
    assert refused == ["schedule_invalid"]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"on": "failed"}, "after.schedule_id: is missing"),
        ({"schedule_id": "7"}, "after.schedule_id: "),
        ({"schedule_id": 1, "on": "success"}, 'after.on: "success" is not one of'),
        ("7", "after: must be an object"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(fleet: Fleet, after: object, words: str) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", words):
        fleet.create(device_ids=[device], after=after)


def test_the_columns_are_checked_like_the_key(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device)
    with fleet.refused("PT422", "schedule_invalid", "after.on"):
        fleet.create(device_ids=[device], after_schedule_id=parent, after_on="success")
    made = fleet.create(device_ids=[device], after_schedule_id=None, after_on=None, after=None)
    assert made["after_schedule_id"] is None


def test_another_owners_schedule_cannot_be_followed(fleet: Fleet) -> None:
    stranger = Fleet(fleet.conn)
    foreign = first(stranger, stranger.device())
    device = fleet.device()
    with fleet.refused("PT404", "schedule_invalid", "after.schedule_id", "was not found"):
        follower(fleet, device, foreign)
    mine = first(fleet, device)
    with fleet.refused("PT404", "schedule_invalid", "after.schedule_id", "was not found"):
        update(fleet, mine, after={"schedule_id": foreign})


def test_deleting_a_schedule_pauses_what_followed_it(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device)
    chained = follower(fleet, device, parent)
    fleet.run("delete from schedules where id = %s", parent)
    row = fleet.schedule(chained)
    assert row["status"] == "paused"
    assert row["status_reason"] == f"schedule {parent}, which it followed, was deleted"
    assert (row["after_schedule_id"], row["next_run_at"]) == (None, None)

    update(fleet, chained, recurrence_type="daily", recurrence_config={"time": "07:00"})
    fleet.run("select resume_schedule(%s)", chained)
    assert fleet.schedule(chained)["status"] == "active"


def test_a_deleted_parent_leaves_even_a_follower_that_would_be_refused_today(fleet: Fleet) -> None:
    device, gone = fleet.device(), fleet.device()
    parent = first(fleet, device)
    chained = follower(fleet, gone, parent)
    fleet.run("delete from devices where id = %s", gone)
    fleet.run("select delete_schedule(%s)", parent)
    assert fleet.schedule(chained)["status"] == "paused"


def test_a_whole_chain_may_be_deleted_at_once(fleet: Fleet) -> None:
    device = fleet.device()
    chain = [first(fleet, device)]
    for _ in range(2):
        chain.append(follower(fleet, device, chain[-1]))
    fleet.run("delete from schedules where id = any (%s)", chain)
    assert fleet.value("select count(*) from schedules where id = any (%s)", chain) == 0


def test_a_chain_never_closes_on_itself(fleet: Fleet) -> None:
    device = fleet.device()
    first = fleet.create(device_ids=[device], start_time=BASE.isoformat())
    second = fleet.create(device_ids=[device], after={"schedule_id": first["id"]})
    with fleet.refused("PT422", "schedule_invalid", "after"):
        fleet.run(
            "update schedules set after_schedule_id = %s, after_on = 'either' where id = %s",
            second["id"],
            first["id"],
        )
