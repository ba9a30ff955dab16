"""What stops, changes and moves a day that is under way on some walls."""

from __future__ import annotations

from datetime import datetime

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.three_walls import (
    AT_EAST,
    AT_MIDDLE,
    AT_WEST,
    DAY,
    EAST,
    HOUR,
    MIDDLE,
    WEST,
    daily,
    pass_time,
    reached,
    three,
    zones,
)

__all__ = ["three"]


def test_a_pause_skips_the_zones_that_pass_meanwhile(fleet: Fleet, three: dict[str, int]) -> None:
    made = daily(fleet, policies={"overlap": "allow"})
    pass_time(fleet, AT_EAST)
    fleet.run("select pause_schedule(%s)", made["id"])
    pass_time(fleet, AT_MIDDLE)
    fleet.run("select resume_schedule(%s)", made["id"])
    pass_time(fleet, AT_WEST)
    assert zones(fleet, made, 11) == {
        EAST: ("done", None),
        MIDDLE: ("skipped", "paused"),
        WEST: ("done", None),
    }


def test_a_day_that_begins_during_a_pause_goes_on_where_it_is_ahead(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet, policies={"overlap": "allow"})
    fleet.run("select pause_schedule(%s)", made["id"])
    fleet.tick_until_idle(AT_MIDDLE)
    fleet.run("select resume_schedule(%s)", made["id"])
    pass_time(fleet, AT_WEST)
    assert zones(fleet, made, 11) == {
        EAST: ("skipped", "paused"),
        MIDDLE: ("skipped", "paused"),
        WEST: ("done", None),
    }


def test_cancelling_ends_the_zones_to_come(fleet: Fleet, three: dict[str, int]) -> None:
    made = daily(fleet)
    pass_time(fleet, AT_EAST)
    fleet.run("select cancel_schedule(%s, 'enough')", made["id"])
    assert zones(fleet, made, 11) == {
        EAST: ("done", None),
        MIDDLE: ("cancelled", "enough"),
        WEST: ("cancelled", "enough"),
    }
    pass_time(fleet, AT_WEST)
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["targeted"]) == ("failed", 1)


def test_cancelling_a_day_that_has_reached_nobody_yet_ends_it(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet, policies={"catchup": "none"})
    # The east has passed, unseen; the rest of the day is to come.
    fleet.tick_until_idle(AT_EAST + HOUR)
    fleet.run("select cancel_schedule(%s, 'enough')", made["id"])
    assert fleet.schedule(made["id"])["status"] == "cancelled"
    assert {state for state, _ in zones(fleet, made, 11).values()} == {"skipped", "cancelled"}
    pass_time(fleet, AT_WEST)
    assert fleet.commands(made["id"]) == []


def test_a_day_that_has_reached_nobody_yet_can_be_paused_changed_and_deleted(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet, policies={"catchup": "none"})
    fleet.tick_until_idle(AT_EAST + HOUR)
    fleet.run("select pause_schedule(%s)", made["id"])
    fleet.run("select resume_schedule(%s)", made["id"])
    fleet.run(
        "select update_schedule(%s, %s)",
        made["id"],
        Jsonb({"recurrence_config": {"time": "08:00"}}),
    )
    fleet.run("select delete_schedule(%s)", made["id"])
    assert fleet.rows("select from schedules where id = %s", made["id"]) == []


def test_other_times_drop_the_zones_that_have_not_begun(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet, policies={"overlap": "allow"})
    pass_time(fleet, AT_EAST)
    fleet.run(
        "select update_schedule(%s, %s)",
        made["id"],
        Jsonb({"recurrence_config": {"time": "08:00"}}),
    )
    assert zones(fleet, made, 11)[WEST] == ("skipped", "rescheduled")
    pass_time(fleet, AT_WEST + 2 * HOUR)
    # The rest of the day runs by the new times; the east has had its day.
    assert reached(fleet, made) == {
        EAST.lower(): ["11 06:30", "11 08:00", "12 08:00"],
        MIDDLE.lower(): ["11 08:00"],
        WEST.lower(): ["11 08:00"],
    }


def test_another_payload_leaves_runs_that_are_under_way(
    fleet: Fleet, three: dict[str, int]
) -> None:
    made = daily(fleet)
    pass_time(fleet, AT_EAST)
    fleet.run(
        "select update_schedule(%s, %s)", made["id"], Jsonb({"payload": {"message": "other"}})
    )
    pass_time(fleet, AT_WEST)
    first, _ = fleet.runs(made["id"])
    said = [
        c["payload"]["message"] for c in fleet.commands(made["id"]) if c["run_id"] == first["id"]
    ]
    assert said == ["hello"] * 3


@pytest.mark.parametrize(
    ("moved", "to", "expected"),
    [
        # Its day was ahead, and is past by half an hour where it has come: served late.
        (AT_MIDDLE + HOUR / 2, MIDDLE, ["11 07:00"]),
        # By more than is caught up: it waits for the next.
        (AT_MIDDLE + 3 * HOUR, MIDDLE, ["12 06:30"]),
        # Still ahead there: at that wall's own time.
        (AT_MIDDLE - HOUR, MIDDLE, ["11 06:30", "12 06:30"]),
    ],
)
def test_a_device_that_moves_east_misses_nothing_and_gets_nothing_twice(
    fleet: Fleet, moved: datetime, to: str, expected: list[str]
) -> None:
    fleet.device("there", timezone=MIDDLE)
    mover = fleet.device("mover", timezone=WEST)
    made = daily(fleet, policies={"overlap": "allow"})
    pass_time(fleet, moved)
    fleet.run("update devices set timezone = %s where id = %s", to, mover)
    pass_time(fleet, AT_MIDDLE + DAY)
    assert reached(fleet, made)["mover"] == (
        expected if expected[0].startswith("12") or len(expected) == 2 else [*expected, "12 06:30"]
    )
    assert reached(fleet, made)["there"] == ["11 06:30", "12 06:30"]


def test_a_device_that_moves_west_is_not_looked_at_again(fleet: Fleet) -> None:
    fleet.device("there", timezone=WEST)
    mover = fleet.device("mover", timezone=EAST)
    made = daily(fleet, policies={"overlap": "skip"})
    pass_time(fleet, AT_EAST)
    fleet.run("update devices set timezone = %s where id = %s", WEST, mover)
    pass_time(fleet, AT_WEST)
    assert len(reached(fleet, made)["mover"]) == 1
    assert len(reached(fleet, made)["there"]) == 1


def test_a_zone_that_comes_while_a_run_is_open_or_over_has_its_turn(fleet: Fleet) -> None:
    fleet.device("first", timezone=EAST)
    made = daily(fleet)
    pass_time(fleet, AT_EAST)
    fleet.device("second", timezone=WEST)
    pass_time(fleet, AT_WEST)
    assert reached(fleet, made)["second"] == ["11 06:30"]
    runs = fleet.runs(made["id"])
    assert [run["scheduled_local"].day for run in runs] == [11, 12]


def test_a_database_with_a_day_under_way_goes_on_with_it(
    fleet: Fleet, three: dict[str, int]
) -> None:
    """The commit before had a run for each distinct instant, and a union of zones."""
    made = daily(fleet, start_time="2031-01-01T00:00:00Z", policies={"overlap": "allow"})
    fleet.run("alter table schedules disable trigger user")
    fleet.run(
        "update schedules set recurrence = %s, next_run_at = %s where id = %s",
        Jsonb({"kind": "union", "zones": [EAST, MIDDLE, WEST], "members": []}),
        AT_MIDDLE,
        made["id"],
    )
    fleet.run("alter table schedules enable trigger user")
    old = fleet.insert(
        "schedule_runs",
        schedule_id=made["id"],
        owner_id=fleet.owner_id,
        scheduled_for=AT_EAST,
        status="pending",
        action_type="broadcast_message",
        payload={"message": "hello"},
        zones=[EAST],
        started_at=AT_EAST,
        expires_at=AT_EAST + DAY,
    )
    fleet.value("select fleet.after_migrate()::text")
    pass_time(fleet, AT_WEST)
    served = [
        (row["run_id"] == old["id"], row["timezone"])
        for row in fleet.rows(
            "select c.run_id, d.timezone from device_commands as c"
            " join devices as d on d.id = c.device_id"
            " join schedule_runs as r on r.id = c.run_id"
            " where c.schedule_id = %s and (r.scheduled_local is null"
            " or r.scheduled_local = '2031-01-11 06:30') order by c.id",
            made["id"],
        )
    ]
    assert served == [(True, EAST), (False, MIDDLE), (False, WEST)]
    assert zones(fleet, made, 11)[EAST] == ("skipped", "it ran before the upgrade")
