"""A schedule in plain English."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row
from tests.helpers.insight import DAY, NOON, daily


def describe(fleet: Fleet, made: Row) -> str:
    with fleet.acting(fleet.owner_id):
        text: str = fleet.value("select public.describe_schedule(%s, %s)", made["id"], NOON + DAY)
    return text


def test_what_to_whom_and_when(fleet: Fleet) -> None:
    made = daily(
        fleet, [fleet.device("lab-01"), fleet.device("lab-02")], name="Nightly", priority=5
    )

    assert describe(fleet, made) == (
        '"Nightly" sends broadcast_message to devices "lab-01" and "lab-02" (2 devices now) '
        "every day at 12:00 (UTC). Its priority is 5. Next due: Fri 2100-01-01 12:00."
    )


def test_groups_selectors_and_device_time(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="Labs")["id"]
    fleet.device(tags=["x"], timezone="Asia/Tokyo")
    made = daily(fleet, [], group_ids=[group], selector={"any_tags": ["x", "y"]}, timezone="device")
    text = describe(fleet, made)

    assert 'to group "Labs" and every device with one of the tags x, y (1 device now)' in text
    assert "every day at 12:00 in each device's own time." in text


@pytest.mark.parametrize(
    ("policies", "sentence"),
    [
        ({"overlap": "buffer_one"}, "one at most waits."),
        ({"overlap": "allow"}, "up to 3 runs of it at once."),
        ({"overlap": "replace"}, "A new run cancels what a device has not finished"),
        ({"catchup": "none"}, "What was missed is not caught up."),
        ({"catchup": "all", "catchup_rate": 2}, "within 1 hour are caught up, at most 2 a minute."),
        ({"catchup_window": "2 hours"}, "missed within 2 hours, only the latest is caught up."),
        ({"expires_after": "10 minutes"}, "not started within 10 minutes expires."),
        ({"retry": {"attempts": 5}}, "What fails is tried 5 times in all."),
        ({"jitter": "15 minutes"}, "a slot of its own within 15 minutes."),
        ({"max_runs": 7}, "It ends after 7 runs; 0 were started so far."),
        ({"pause_on_failure": 2}, "paused when 2 runs in a row have failed."),
        (
            {"execution_window": {"from": "22:00", "to": "05:00", "outside": "wait"}},
            "It runs only from 22:00 to 05:00; outside of that it waits.",
        ),
        (
            {"execution_window": [{"from": "09:00", "to": "10:00", "in": "device"}]},
            "only from 09:00 to 10:00 in device time; outside of that it is skipped.",
        ),
        ({"gap": "skip"}, "a time that the clocks skip does not run"),
    ],
)
def test_policies_that_are_not_the_usual_ones(
    fleet: Fleet, policies: dict[str, Any], sentence: str
) -> None:
    made = daily(fleet, [fleet.device()], policies=policies, timezone="Europe/Berlin")

    assert sentence in describe(fleet, made)


def test_blackouts_chains_and_pauses(fleet: Fleet) -> None:
    fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Holidays")
    first = daily(fleet, [fleet.device()], name="First", policies={"blackouts": ["Holidays"]})
    second = fleet.create(
        selector={}, name="Second", after={"schedule_id": first["id"], "on": "either"}
    )
    fleet.run("select pause_schedule(%s, 'exams')", first["id"])

    text = describe(fleet, first)
    assert 'It does not run during "Holidays".' in text
    assert text.endswith("It is paused: exams.")
    assert 'each time a run of "First" has completed or failed.' in describe(fleet, second)
