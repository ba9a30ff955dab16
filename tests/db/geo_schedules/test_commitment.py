"""What a commitment holds to, and what ends it."""

from __future__ import annotations

import json
from datetime import timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.db.geo_schedules.pupil import Pupil
from tests.db.geo_schedules.test_dodges import delete_it, rename_the_device, retire_the_device
from tests.helpers.fleet import Fleet


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


def test_what_runs_when_the_delay_ends_is_owed_to_its_end(pupil: Pupil) -> None:
    delete_it(pupil)
    last, over = (
        pupil.fleet.value(
            "select fleet.is_geo_debtor(%s, clock_timestamp() + %s)", pupil.device, after
        )
        for after in (timedelta(days=7, seconds=1), timedelta(days=8, hours=1))
    )
    assert (last, over) == (True, False)


def test_who_comes_back_with_the_serial_number_owes_the_same(pupil: Pupil) -> None:
    pupil.fleet.run(
        'update devices set attributes = \'{"serial_number": "S1"}\' where id = %s', pupil.device
    )
    # As it was when it began to owe.
    pupil.create(group="class 7", apps=["go"])
    retire_the_device(pupil)
    again = pupil.fleet.device("another-name")
    assert pupil.blocked(device=again) == set()
    # The inventory of its MDM says so later.
    pupil.fleet.run(
        'update devices set attributes = \'{"serial_number": "S1"}\' where id = %s', again
    )
    assert pupil.blocked(device=again) == {"go"}


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


def test_after_an_override_the_last_of_a_chain_of_changes_begins_at_once(pupil: Pupil) -> None:
    for app in ("chess", "go", "shogi"):
        pupil.change(apps=[app], categories=[])
    assert pupil.blocked() == {"steam"}
    pupil.fleet.run("select override_geo_commitment(%s, 'a mistake')", pupil.geo)
    assert pupil.blocked() == {"shogi"}
    assert pupil.blocks() == {"shogi"}


def test_an_override_for_one_device_leaves_the_others_as_they_were(pupil: Pupil) -> None:
    other = pupil.fleet.device("pupil-2", tags=["class-7"], timezone="Asia/Beirut")
    for app in ("chess", "go"):
        pupil.change(apps=[app], categories=[])
    pupil.fleet.run("select override_geo_commitment(%s, 'an exam', %s)", pupil.geo, pupil.device)
    assert pupil.blocked() == {"go"}
    assert pupil.blocked(device=other) == {"steam"}


def test_a_change_that_is_taken_back_while_it_waits_leaves_nothing_behind(pupil: Pupil) -> None:
    waiting = pupil.change(apps=["chess"], categories=[])
    pupil.fleet.run("select delete_geo_schedule(%s)", waiting)
    assert pupil.blocked() == {"steam"}
    assert pupil.blocked(timedelta(days=8, hours=1)) == set()


@pytest.mark.parametrize("met", ["-infinity", "4000-01-01 BC", "1970-01-01"])
def test_a_time_before_all_actions_is_none_that_an_agent_must_read(pupil: Pupil, met: str) -> None:
    with pupil.fleet.as_device(pupil.device):
        (first, *_) = pupil.fleet.value("select geo_actions_due()")["actions"]
        said = pupil.fleet.value(
            "select report_geo_action(%s, 'running', %s)", first["geo_action_id"], met
        )
    assert said == {"accepted": True}
    assert pupil.blocks() == {"steam"}


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


@pytest.mark.parametrize("is_deleted", [False, True])
def test_cleanup_of_a_large_group_takes_a_bounded_number_of_rows_at_a_time(
    pupil: Pupil, is_deleted: bool
) -> None:
    fleet = pupil.fleet
    fleet.run(
        "insert into devices (owner_id, hostname, tags)"
        " select %s, 'pupil-' || i, '{class-7}' from generate_series(2, 40) as i",
        fleet.owner_id,
    )
    fleet.run(
        "insert into geo_action_reports (geo_action_id, device_id, owner_id, status, reported_at)"
        " select a.id, d.id, a.owner_id, 'finished', now()"
        " from geo_actions as a join devices as d on d.owner_id = a.owner_id"
    )
    if is_deleted:
        delete_it(pupil)
        fleet.value("select fleet.settle_geo_deletions(now() + interval '40 days')")

    def rows() -> int:
        found: int = fleet.value(
            "select (select count(*) from geo_action_reports) + (select count(*) from geo_actions)"
            " + (select count(*) from geo_commitments) + (select count(*) from geo_schedules)"
        )
        return found

    before, later = rows(), timedelta(days=16 if not is_deleted else 40)
    while told := fleet.value("select fleet.clean_geo_actions(now() + %s, 50)", later):
        after = rows()
        assert told == before - after <= 50
        before = after
    left = fleet.value(
        "select count(*) from geo_actions where starts_at < now() + interval '2 days'"
    )
    assert left == 0
    assert bool(fleet.value("select count(*) from geo_schedules")) is not is_deleted


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
