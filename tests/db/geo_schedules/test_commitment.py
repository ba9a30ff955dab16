"""Ways to dodge a commitment: each is tried, and the apps stay blocked until the delay is over."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

WEEK = 604_800


class Pupil:
    """A device with a tag in a group, and one geo schedule that blocks steam all day."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.device = fleet.device("pupil-1", tags=["class-7"], timezone="Europe/Berlin")
        self.group = fleet.insert(
            "device_groups",
            owner_id=fleet.owner_id,
            name="class 7",
            selector={"tags": ["class-7"]},
        )["id"]
        self.location = fleet.insert(
            "locations",
            owner_id=fleet.owner_id,
            name="school",
            latitude=52.52,
            longitude=13.405,
            radius_m=200,
        )["id"]
        fleet.insert("app_categories", owner_id=fleet.owner_id, name="games", apps=["steam"])
        self.geo = self.create(
            group="class 7", location="school", side="inside", categories=["games"]
        )

    def create(self, **spec: Any) -> int:
        """Make a geo schedule of a week's delay that is running now."""
        whole = {
            "owner_id": str(self.fleet.owner_id),
            "name": "no games",
            "start_minute": 0,
            "end_minute": 0,
            "timezone": "device",
            "update_delay_type": "fixed",
            "update_delay_seconds": WEEK,
            **spec,
        }
        made: int = self.fleet.value("select id from create_geo_schedule(%s)", Jsonb(whole))
        return made

    def change(self, **changes: Any) -> int:
        """Update the geo schedule that is live and give its successor."""
        live = self.fleet.value(
            "select max(id) from geo_schedules where deletion_status is null and owner_id = %s",
            self.fleet.owner_id,
        )
        made: int = self.fleet.value(
            "select id from update_geo_schedule(%s, %s)", live, Jsonb(changes)
        )
        return made

    def blocked(self, after: timedelta = timedelta(0), device: int | None = None) -> set[str]:
        """Give what the device still has to block of what starts before an instant."""
        rows = self.fleet.rows(
            "select distinct unnest(x.apps) as app"
            " from fleet.geo_actions_of_devices(array[%s::bigint], clock_timestamp() + %s) as x"
            " where x.is_owed and x.starts_at <= clock_timestamp() + %s"
            " and x.ends_at > clock_timestamp() + %s",
            device or self.device,
            after,
            after,
            after,
        )
        return {row["app"] for row in rows}


@pytest.fixture
def pupil(fleet: Fleet) -> Pupil:
    return Pupil(fleet)


def edit_the_apps(pupil: Pupil) -> None:
    pupil.change(apps=["chess"], categories=[])


def replace_twice(pupil: Pupil) -> None:
    pupil.change(apps=["chess"], categories=[], update_delay_type="none", update_delay_seconds=0)
    pupil.change(apps=["go"])


def delete_it(pupil: Pupil) -> None:
    pupil.fleet.run("select delete_geo_schedule(%s)", pupil.geo)


def move_the_start(pupil: Pupil) -> None:
    pupil.change(start_minute=60, end_minute=120)


def change_the_zone_of_the_row(pupil: Pupil) -> None:
    pupil.change(timezone="Pacific/Kiritimati", start_minute=1, end_minute=2)


def report_another_zone(pupil: Pupil) -> None:
    pupil.fleet.run("update devices set timezone = 'Pacific/Honolulu' where id = %s", pupil.device)


def lose_the_tag(pupil: Pupil) -> None:
    pupil.fleet.run("update devices set tags = '{}' where id = %s", pupil.device)


def change_the_selector(pupil: Pupil) -> None:
    pupil.fleet.run(
        """update device_groups set selector = '{"tags": ["class-8"]}' where id = %s""", pupil.group
    )


def rename_the_device(pupil: Pupil) -> None:
    pupil.fleet.run("update devices set hostname = 'teacher-1' where id = %s", pupil.device)


def retire_the_device(pupil: Pupil) -> None:
    pupil.fleet.run("select retire_device(%s)", pupil.device)


def edit_the_location(pupil: Pupil) -> None:
    pupil.fleet.run("update locations set latitude = -33.9 where id = %s", pupil.location)


def edit_the_category(pupil: Pupil) -> None:
    pupil.fleet.run("update app_categories set apps = '{chess}' where name = 'games'")


def move_to_another_device(pupil: Pupil) -> None:
    pupil.fleet.device("scapegoat")
    pupil.change(device="scapegoat")


@pytest.mark.parametrize(
    "dodge",
    [
        edit_the_apps,
        replace_twice,
        delete_it,
        move_the_start,
        change_the_zone_of_the_row,
        report_another_zone,
        lose_the_tag,
        change_the_selector,
        rename_the_device,
        retire_the_device,
        edit_the_location,
        edit_the_category,
        move_to_another_device,
    ],
)
def test_a_dodge_fails_until_the_delay_is_over(
    pupil: Pupil, dodge: Callable[[Pupil], None]
) -> None:
    assert pupil.blocked() == {"steam"}
    dodge(pupil)
    assert "steam" in pupil.blocked()
    assert "steam" in pupil.blocked(timedelta(days=6))


@pytest.mark.parametrize("dodge", [delete_it, lose_the_tag, edit_the_apps, replace_twice])
def test_after_the_delay_the_change_counts(pupil: Pupil, dodge: Callable[[Pupil], None]) -> None:
    dodge(pupil)
    # What starts on the last day of the delay still runs to its end.
    assert "steam" not in pupil.blocked(timedelta(days=8, hours=1))


def test_without_a_delay_a_change_counts_at_once(pupil: Pupil) -> None:
    other = pupil.create(
        device="pupil-1", apps=["minecraft"], update_delay_type="none", update_delay_seconds=0
    )
    assert pupil.blocked() == {"steam", "minecraft"}
    pupil.fleet.run('select update_geo_schedule(%s, \'{"apps": ["roblox"]}\')', other)
    assert pupil.blocked() == {"steam", "roblox"}


def test_a_device_that_owes_is_not_deleted(pupil: Pupil) -> None:
    delete_it(pupil)
    with pytest.raises(psycopg.Error) as refusal, pupil.fleet.conn.transaction():
        pupil.fleet.run("delete from devices where id = %s", pupil.device)
    assert (refusal.value.sqlstate, refusal.value.diag.message_detail) == (
        "PT409",
        "commitment_running",
    )


def test_who_enrols_again_under_the_same_name_owes_the_same(pupil: Pupil) -> None:
    retire_the_device(pupil)
    rename_the_device(pupil)
    again = pupil.fleet.device("PUPIL-1")
    assert pupil.blocked(device=again) == {"steam"}


def test_a_group_location_or_category_in_use_is_not_deleted(pupil: Pupil) -> None:
    for statement, reason in (
        ("delete from device_groups where id = %s", "group_in_use"),
        ("delete from locations where id = %s", "location_in_use"),
        ("delete from app_categories where %s > 0", "app_category_in_use"),
    ):
        with pytest.raises(psycopg.Error) as refusal, pupil.fleet.conn.transaction():
            pupil.fleet.run(statement, pupil.group if "groups" in statement else pupil.location)
        assert refusal.value.diag.message_detail == reason


def test_a_row_is_neither_edited_nor_removed_by_hand(pupil: Pupil) -> None:
    for statement, reason in (
        ("update geo_schedules set apps = '{chess}' where id = %s", "geo_schedule_immutable"),
        ("update geo_schedules set end_minute = 1 where id = %s", "geo_schedule_immutable"),
        ("delete from geo_schedules where id = %s", "commitment_running"),
    ):
        with pytest.raises(psycopg.Error) as refusal, pupil.fleet.conn.transaction():
            pupil.fleet.run(statement, pupil.geo)
        assert refusal.value.diag.message_detail == reason


def test_an_admin_may_end_it_and_the_log_says_why(pupil: Pupil) -> None:
    delete_it(pupil)
    assert pupil.fleet.value(
        "select override_geo_commitment(%s, 'the pupil has an exam')", pupil.geo
    )
    assert pupil.blocked() == set()
    told = pupil.fleet.value(
        "select new ->> 'override_reason' from audit_log"
        " where table_name = 'geo_commitments' order by id desc limit 1"
    )
    assert told == "the pupil has an exam"


def test_a_report_of_what_is_gone_is_dropped(pupil: Pupil) -> None:
    action = pupil.fleet.value("select max(id) from geo_actions")
    with pupil.fleet.as_device(pupil.device):
        due = pupil.fleet.value("select geo_actions_due()")
        assert action in {item["geo_action_id"] for item in due["actions"]}
        assert pupil.fleet.value("select report_geo_action(%s, 'running', now())", action) == {
            "accepted": True
        }
        assert pupil.fleet.value("select report_geo_action(%s, 'finished')", action) == {
            "accepted": True
        }
        assert pupil.fleet.value("select report_geo_action(%s, 'running')", action) == {
            "accepted": False,
            "reason": "final",
        }
        due = pupil.fleet.value("select geo_actions_due()")
        assert action not in {item["geo_action_id"] for item in due["actions"]}
        assert pupil.fleet.value("select report_geo_action(0, 'running')") == {
            "accepted": False,
            "reason": "gone",
        }
    assert json.dumps(due)


def test_wrong_fields_are_named_together(fleet: Fleet) -> None:
    spec = {
        "owner_id": str(fleet.owner_id),
        "name": " ",
        "device": "nobody",
        "start_minute": 1440,
        "end_minute": "late",
        "days": [7],
        "timezone": "Nonsense5",
        "colour": "red",
        "update_delay_seconds": 604_801,
        "max_location_age": "1 second",
    }
    with pytest.raises(psycopg.Error) as refusal:
        fleet.run("select create_geo_schedule(%s)", Jsonb(spec))
    assert refusal.value.sqlstate == "PT422"
    said = str(refusal.value)
    for field in spec:
        if field != "owner_id":
            assert f"{field}: " in said, field


def test_cleanup_removes_what_is_old_and_over(pupil: Pupil) -> None:
    delete_it(pupil)
    fleet = pupil.fleet
    later = timedelta(days=40)
    assert fleet.value("select fleet.settle_geo_deletions(now())") == 0
    assert fleet.value("select fleet.settle_geo_deletions(now() + %s)", later) == 1
    while fleet.value("select fleet.clean_geo_actions(now() + %s)", later):
        pass
    assert fleet.value("select count(*) from geo_schedules where id = %s", pupil.geo) == 0
    assert fleet.value("select count(*) from geo_actions") == 0


def test_it_is_deleted_early_when_every_device_knows_and_has_told(pupil: Pupil) -> None:
    fleet = pupil.fleet
    delete_it(pupil)
    # The delay is over in the middle of an action, which runs on.
    after = timedelta(days=7, minutes=1)
    settle = "select fleet.settle_geo_deletions(clock_timestamp() + %s)"
    with fleet.as_device(pupil.device):
        fleet.run("select fleet.geo_actions_due(clock_timestamp() + %s)", after)
    assert fleet.value(settle, after) == 0
    running = fleet.rows("select id from geo_actions where ends_at > clock_timestamp() + %s", after)
    with fleet.as_device(pupil.device):
        for action in running:
            fleet.run("select report_geo_action(%s, 'finished')", action["id"])
    assert fleet.value(settle, after) == 1


def test_a_zone_that_is_gone_stops_nobody_elses_actions(pupil: Pupil) -> None:
    fleet = pupil.fleet
    gone = pupil.create(device="pupil-1", apps=["go"], timezone="Europe/Berlin")
    for table in ("geo_schedules", "geo_actions"):
        fleet.conn.execute(f"alter table {table} disable trigger user")
    fleet.run("update geo_schedules set timezone = 'Mars/Olympus' where id = %s", gone)
    fleet.run(
        "update geo_commitments set timezone = 'Mars/Olympus' where geo_schedule_id = %s", gone
    )
    fleet.run("delete from geo_actions")
    for table in ("geo_schedules", "geo_actions"):
        fleet.conn.execute(f"alter table {table} enable trigger user")

    assert fleet.value("select fleet.make_waiting_geo_actions(now())") == 2
    made = fleet.rows("select distinct geo_schedule_id as id from geo_actions")
    assert [row["id"] for row in made] == [pupil.geo]
    fleet.run("select delete_geo_schedule(%s)", gone)
