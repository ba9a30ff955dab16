"""The two queries that administrators keep at hand, as they were written for another system."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.helpers.fleet import Fleet

STATUS = """
SELECT
  id,
  profile_id,
  device_id,
  action_type,
  start_time,
  created_at,
  last_executed_at,
  ui_initiated,
  CASE
    WHEN last_executed_at IS NULL AND start_time > NOW() THEN 'Pending'
    WHEN last_executed_at IS NULL AND start_time <= NOW() THEN 'Due for execution'
    WHEN last_executed_at IS NOT NULL THEN 'Executed'
    ELSE 'Unknown'
  END as status
FROM
  schedules
WHERE
  action_type IN ('push_profile', 'remove_profile')
ORDER BY
  created_at DESC
LIMIT 50;
"""

PAIRS = """
SELECT
  s1.id as install_id,
  s2.id as remove_id,
  s1.profile_id,
  s1.device_id,
  s1.start_time as install_time,
  s1.last_executed_at as installed_at,
  s2.start_time as scheduled_removal_time,
  s2.last_executed_at as removed_at,
  EXTRACT(EPOCH FROM (s2.start_time - s1.start_time))/60 as duration_minutes
FROM
  schedules s1
JOIN
  schedules s2 ON s1.profile_id = s2.profile_id AND s1.device_id = s2.device_id AND s2.id > s1.id
WHERE
  s1.action_type = 'push_profile'
  AND s2.action_type = 'remove_profile'
  AND s1.start_time < s2.start_time
ORDER BY
  s1.created_at DESC
LIMIT 20;
"""


def test_the_status_of_every_schedule_is_told(mdm: Any) -> None:
    done, waiting = mdm.device(), mdm.device()
    first = mdm.install(done, "30 minutes")
    (push,) = mdm.claim()
    mdm.finish(push, "accepted")
    second = mdm.install(waiting, "45 minutes", profile="8")

    told = {row["id"]: (row["status"], row["ui_initiated"]) for row in mdm.fleet.rows(STATUS)}

    assert told == {
        first["install_schedule_id"]: ("Executed", True),
        first["remove_schedule_id"]: ("Pending", True),
        second["install_schedule_id"]: ("Due for execution", True),
        second["remove_schedule_id"]: ("Pending", True),
    }
    states = mdm.fleet.rows("select id, state, install_id from profile_schedules")
    assert {row["id"]: row["state"] for row in states} == {i: s for i, (s, _) in told.items()}
    assert {row["install_id"] for row in states} == {first["id"], second["id"]}


def test_the_pairs_have_the_right_minutes(mdm: Any) -> None:
    at = mdm.now()
    installs = [
        mdm.install(mdm.device(), f"{minutes} minutes", at, profile=str(minutes))
        for minutes in (15, 30, 90)
    ]
    # Taken at that very time, however long it took: a push that is late moves its removal.
    for job in mdm.claim():
        mdm.finish(job, "completed", now=at)

    told = {row["install_id"]: row for row in mdm.fleet.rows(PAIRS)}

    assert {row["profile_id"]: float(row["duration_minutes"]) for row in told.values()} == {
        "15": 15.0,
        "30": 30.0,
        "90": 90.0,
    }
    for install in installs:
        row, exact = told[install["install_schedule_id"]], mdm.install_state(install)
        assert row["remove_id"] == install["remove_schedule_id"] == exact["remove_schedule_id"]
        assert row["installed_at"] == exact["installed_at"]
        assert row["scheduled_removal_time"] == exact["scheduled_removal_time"]
        assert row["removed_at"] is None
        assert exact["duration_minutes"] == row["duration_minutes"]


def test_the_view_knows_the_pair_where_the_query_guesses(mdm: Any) -> None:
    device = mdm.device()
    first = mdm.install(device, "30 minutes")
    for at in (mdm.now(), mdm.now() + timedelta(minutes=30)):
        mdm.tick(at)
        (job,) = mdm.claim(now=at)
        mdm.finish(job, "completed", now=at)
    second = mdm.install(device, "20 minutes", mdm.now() + timedelta(hours=1))

    assert len(mdm.fleet.rows(PAIRS)) == 3
    exact = mdm.fleet.rows("select * from temporary_profiles order by install_id")
    assert [row["remove_schedule_id"] for row in exact] == [
        first["remove_schedule_id"],
        second["remove_schedule_id"],
    ]
    assert [row["state"] for row in exact] == ["removed", "waiting"]


def test_what_failed_and_what_was_called_off_is_told(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    (job,) = mdm.claim()
    mdm.finish(job, "failed", reason="invalid_payload", error="object not found")

    told = mdm.fleet.rows("select state, reason from profile_schedules order by id")

    # There is nothing to remove, and nothing that would be due for ever.
    assert told == [{"state": "Failed", "reason": "object not found"}]
    state = mdm.install_state(install)
    assert (state["state"], state["reason"]) == ("never installed", "object not found")


def test_the_three_words_are_never_a_lie(mdm: Any) -> None:
    failed = mdm.install(mdm.device(), "30 minutes")
    (job,) = mdm.claim()
    mdm.finish(job, "failed", reason="invalid_payload", error="object not found")
    retired = mdm.device()
    mdm.fleet.run("update devices set status = 'retired' where id = %s", retired)
    skipped = mdm.fleet.create(
        action_type="push_profile", payload={}, profile_id="9", device_ids=[retired]
    )
    past = mdm.fleet.create(
        action_type="push_profile",
        payload={},
        profile_id="9",
        device_ids=[mdm.device()],
        start_time="2025-01-01T00:00:00Z",
    )
    mdm.tick(mdm.now(60))

    told = {row["id"]: row for row in mdm.fleet.rows(STATUS)}
    assert {row["status"] for row in told.values()} == {"Executed"}
    assert set(told) == {failed["install_schedule_id"], skipped["id"], past["id"]}
    # When it was tried last, and what it came to.
    assert told[failed["install_schedule_id"]]["last_executed_at"] <= mdm.now(60)
    states = mdm.fleet.rows("select id, state, reason from profile_schedules order by id")
    assert {row["state"] for row in states} == {"Failed"}
    assert all(row["reason"] for row in states)
    # No pair says that it was removed.
    assert mdm.fleet.rows(PAIRS) == []


def test_what_goes_well_has_no_reason(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")

    def reasons() -> list[Any]:
        rows = mdm.fleet.rows(
            "select reason from profile_schedules union all select reason from temporary_profiles"
        )
        return [row["reason"] for row in rows]

    assert reasons() == [None] * 3
    for at in (mdm.now(), mdm.now() + timedelta(minutes=30)):
        mdm.tick(at)
        (job,) = mdm.claim(now=at)
        mdm.finish(job, "completed", now=at)
        mdm.tick(at)
        assert reasons() == [None] * 3
    assert mdm.install_state(install)["state"] == "removed"


def test_a_removal_that_fails_says_why(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    (job,) = mdm.claim()
    mdm.finish(job, "completed")
    late = mdm.now() + timedelta(minutes=30)
    mdm.tick(late)
    (job,) = mdm.claim(now=late)
    mdm.finish(job, "failed", reason="invalid_payload", error="gone", now=late)
    mdm.tick(late)
    state = mdm.install_state(install)
    assert (state["state"], state["reason"]) == ("removal failed", "gone")


def test_people_see_their_own_and_devices_nothing(mdm: Any) -> None:
    device = mdm.device()
    mdm.install(device, "30 minutes")
    views = ("profile_schedules", "temporary_profiles")
    member, stranger = mdm.person("view"), "11111111-2222-4333-8444-555555555555"

    for caller, seen in ((member, True), (stranger, False), (mdm.fleet.auth_id(device), False)):
        with mdm.fleet.acting(caller):
            found = [mdm.fleet.value(f"select count(*) from {view}") for view in views]
        assert [count > 0 for count in found] == [seen, seen]


def test_the_demo_school_has_profiles_in_every_state(db: Any) -> None:
    seed = (Path(__file__).parents[3] / "db" / "seed" / "demo.sql").read_text()
    for _ in range(2):
        db.execute(seed)

    told = Counter(status for *_, status in db.execute(STATUS))
    pairs = {float(minutes) for *_, minutes in db.execute(PAIRS)}

    assert told == {"Executed": 3, "Due for execution": 1, "Pending": 5}
    assert pairs == {30.0, 120.0, 45.0, 60.0}


def test_both_monitoring_queries_show_a_temporary_profile(fleet: Fleet) -> None:
    device = fleet.device()
    install = fleet.create(
        action_type="push_profile",
        payload={},
        profile_id="42",
        device_id=device,
        start_time=(datetime.now(UTC) - timedelta(seconds=20)).isoformat(),
    )
    remove = fleet.create(
        action_type="remove_profile",
        payload={"profile_id": "42"},
        device_ids=[device],
        start_time=(datetime.now(UTC) + timedelta(minutes=30)).isoformat(),
        ui_initiated=True,
    )

    listed = {row["id"]: row for row in fleet.rows(STATUS)}
    assert listed[install["id"]]["status"] == "Due for execution"
    # The provider accepts it.
    fleet.run(
        "update schedules set last_executed_at = clock_timestamp() where id = %s", install["id"]
    )
    listed = {row["id"]: row for row in fleet.rows(STATUS)}
    assert listed[install["id"]]["status"] == "Executed"
    assert listed[remove["id"]]["status"] == "Pending"
    assert {row["profile_id"] for row in listed.values()} == {"42"}
    assert listed[remove["id"]]["ui_initiated"] is True
    (pair,) = fleet.rows(PAIRS)
    assert (pair["install_id"], pair["remove_id"]) == (install["id"], remove["id"])
    assert (pair["profile_id"], pair["device_id"]) == ("42", device)
    assert pair["installed_at"] is not None and pair["removed_at"] is None
    assert round(pair["duration_minutes"]) == 30
