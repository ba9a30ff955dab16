"""Devices of an MDM are blocked by a profile, which geo schedules hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.db.profiles.test_assignments import assign, take_all
from tests.helpers.mdm import Mdm

BERLIN = (52.52, 13.405)
# Of latitude, in degrees.
METRE = 1 / 111_195
WEEK = 604_800


class Ipad:
    """A tablet of an MDM, and a school of 300 m around which a border of 100 m does not count."""

    def __init__(self, mdm: Mdm) -> None:
        self.mdm, self.fleet = mdm, mdm.fleet
        self.device = mdm.device("ipad-1")
        self.fleet.insert(
            "locations",
            **{"owner_id": self.fleet.owner_id, "name": "school", "radius_m": 300},
            **{"latitude": BERLIN[0], "longitude": BERLIN[1], "hysteresis_m": 100},
        )

    def create(self, **spec: Any) -> int:
        """Make a geo schedule that pushes profile 7 inside of the school, all day."""
        whole = {
            **{"owner_id": str(self.fleet.owner_id), "name": "exam", "device": "ipad-1"},
            **{"location": "school", "side": "inside", "enforce": {"profile_id": "7"}},
            **{"start_minute": 0, "end_minute": 0, "timezone": "UTC", **spec},
        }
        made: int = self.fleet.value("select id from create_geo_schedule(%s)", Jsonb(whole))
        return made

    def is_at(self, metres: float) -> None:
        """Put it so far north of the middle of the school, as of now."""
        self.fleet.run(
            "update devices set latitude = %s, longitude = %s, accuracy_m = 5,"
            " located_at = clock_timestamp() where id = %s",
            *(BERLIN[0] + metres * METRE, BERLIN[1], self.device),
        )

    def minute(self, now: datetime | None = None) -> list[str]:
        """Let the job of a minute run, and the MDM do what comes of it."""
        self.fleet.run(
            "select fleet.try_geo_holds(%s, coalesce(%s, clock_timestamp()))",
            *(self.fleet.owner_id, now),
        )
        return [what for _, what in take_all(self.mdm)]

    def reports(self, geo: int) -> list[tuple[str, str | None]]:
        rows = self.fleet.rows(
            "select r.status, r.reason from geo_action_reports as r"
            " join geo_actions as a on a.id = r.geo_action_id where a.geo_schedule_id = %s"
            " order by a.from_date",
            geo,
        )
        return [(row["status"], row["reason"]) for row in rows]

    def has(self) -> bool:
        return bool(
            self.fleet.value(
                "select coalesce(bool_or(is_installed), false) from device_profiles"
                " where device_id = %s and profile_id = '7'",
                self.device,
            )
        )


@pytest.fixture
def ipad(mdm: Mdm) -> Ipad:
    return Ipad(mdm)


def test_a_profile_comes_inside_and_goes_only_beyond_the_hysteresis(ipad: Ipad) -> None:
    geo = ipad.create()
    assert ipad.minute() == []
    done = []
    for metres in (500, 350, 200, 350, 390, 450, 350):
        ipad.is_at(metres)
        done.append(ipad.minute())
    assert done == [[], [], ["push_profile"], [], [], ["remove_profile"], []]
    assert ipad.reports(geo) == [("running", None)]


def test_it_comes_with_the_window_and_goes_with_its_end(ipad: Ipad) -> None:
    ipad.is_at(0)
    now: datetime = ipad.mdm.now().replace(second=30, microsecond=0)
    minute = now.hour * 60 + now.minute
    geo = ipad.create(start_minute=(minute - 10) % 1440, end_minute=minute)
    start = now.replace(second=0) - timedelta(minutes=10)
    assert ipad.minute(start - timedelta(seconds=1)) == []
    assert ipad.minute(start) == ["push_profile"]
    assert ipad.minute(now - timedelta(seconds=31)) == []
    assert ipad.minute(now - timedelta(seconds=30)) == ["remove_profile"]
    ipad.minute(now)
    assert ipad.reports(geo) == [("finished", None)]


def test_outside_is_the_other_way_round(ipad: Ipad) -> None:
    ipad.create(side="outside")
    done = []
    for metres in (0, 350, 450, 350, 200):
        ipad.is_at(metres)
        done.append(ipad.minute())
    assert done == [[], [], ["push_profile"], [], ["remove_profile"]]


def delete_it(ipad: Ipad, geo: int) -> None:
    ipad.fleet.run("select delete_geo_schedule(%s)", geo)


def name_another_profile(ipad: Ipad, geo: int) -> None:
    ipad.fleet.run(
        "select update_geo_schedule(%s, %s)", geo, Jsonb({"enforce": {"profile_id": "8"}})
    )


def remove_it(ipad: Ipad, geo: int) -> None:
    ipad.fleet.run("select remove_profile('7', %s)", ipad.device)


def remove_it_by_a_schedule(ipad: Ipad, geo: int) -> None:
    ipad.fleet.create(
        action_type="remove_profile", payload={"profile_id": "7"}, device_ids=[ipad.device]
    )


def send_the_removal(ipad: Ipad, geo: int) -> None:
    ipad.fleet.send(ipad.device, "remove_profile", p_payload={"profile_id": "7"})


def end_an_install_for_a_time(ipad: Ipad, geo: int) -> None:
    install = ipad.mdm.install(ipad.device, "30 minutes")
    take_all(ipad.mdm)
    ipad.fleet.run("select end_profile(%s)", install["id"])


def take_an_assignment_back(ipad: Ipad, geo: int) -> None:
    made = assign(ipad.mdm, device_ids=[ipad.device])
    ipad.fleet.run("select unassign_profile(%s)", made)


@pytest.mark.parametrize(
    "dodge",
    [
        delete_it,
        name_another_profile,
        remove_it,
        remove_it_by_a_schedule,
        send_the_removal,
        end_an_install_for_a_time,
        take_an_assignment_back,
    ],
)
def test_a_commitment_keeps_the_profile_whoever_takes_it_away(
    ipad: Ipad, dodge: Callable[[Ipad, int], None]
) -> None:
    geo = ipad.create(update_delay_type="fixed", update_delay_seconds=WEEK)
    ipad.is_at(0)
    assert ipad.minute() == ["push_profile"]

    dodge(ipad, geo)
    ipad.mdm.tick(ipad.mdm.now(1))

    assert "remove_profile" not in ipad.minute()
    assert ipad.has()


@pytest.mark.parametrize("dodge", [remove_it, end_an_install_for_a_time, delete_it])
def test_with_the_override_it_goes(ipad: Ipad, dodge: Callable[[Ipad, int], None]) -> None:
    geo = ipad.create(update_delay_type="fixed", update_delay_seconds=WEEK)
    ipad.is_at(0)
    ipad.minute()
    dodge(ipad, geo)
    if dodge is not delete_it:
        delete_it(ipad, geo)
    ipad.minute()
    assert ipad.has()

    ipad.fleet.run("select override_geo_commitment(%s, 'an exam')", geo)

    assert ipad.minute() == ["remove_profile"]
    assert not ipad.has()


def test_what_came_for_a_time_first_goes_with_the_hold(ipad: Ipad) -> None:
    install = ipad.mdm.install(ipad.device, "30 minutes")
    take_all(ipad.mdm)
    geo = ipad.create()
    ipad.is_at(0)
    assert ipad.minute() == []
    ipad.fleet.run("select end_profile(%s)", install["id"])
    assert take_all(ipad.mdm) == []
    delete_it(ipad, geo)
    assert ipad.minute() == ["remove_profile"]


def test_two_hold_it_until_the_last_lets_go(ipad: Ipad) -> None:
    first, second = ipad.create(), ipad.create(name="also", location=None, side="anywhere")
    ipad.is_at(0)
    assert ipad.minute() == ["push_profile"]
    delete_it(ipad, second)
    assert ipad.minute() == []
    delete_it(ipad, first)
    assert ipad.minute() == ["remove_profile"]


def test_a_profile_that_geo_schedules_use_is_not_deleted(ipad: Ipad) -> None:
    fleet = ipad.fleet
    profile = fleet.insert(
        "profiles",
        **{"owner_id": fleet.owner_id, "integration_id": ipad.mdm.id, "name": "Exam"},
        **{"external_id": "7", "is_managed": True, "status": "uploaded"},
    )["id"]
    geo = ipad.create(update_delay_type="fixed", update_delay_seconds=WEEK)
    for _ in range(2):
        with fleet.refused("PT409", "profile_in_use"):
            fleet.run("select delete_profile(%s)", profile)
        # Nor while the delay runs.
        if fleet.value("select deletion_status is null from geo_schedules where id = %s", geo):
            delete_it(ipad, geo)


class Listener:
    """Whoever wants to hear of geo actions."""

    def __init__(self, ipad: Ipad) -> None:
        self.fleet = ipad.fleet
        spec = {
            "owner_id": str(self.fleet.owner_id),
            "url": "https://hooks.example.com/in",
            "events": ["geo_action.*"],
        }
        self.fleet.run("select create_webhook_endpoint(%s)", Jsonb(spec))

    def heard(self) -> list[str]:
        rows = self.fleet.rows(
            "select payload -> 'data' as data from webhook_deliveries where owner_id = %s"
            " order by id",
            self.fleet.owner_id,
        )
        assert all(row["data"]["geo_schedule_name"] == "exam" for row in rows)
        assert all(row["data"]["device_hostname"] == "ipad-1" for row in rows)
        return [row["data"]["reason"] for row in rows]


def test_the_owner_is_told_once_of_a_profile_that_does_not_come(ipad: Ipad) -> None:
    listener = Listener(ipad)
    geo = ipad.create()
    ipad.is_at(0)
    ipad.fleet.run("select fleet.try_geo_holds(%s, clock_timestamp())", ipad.fleet.owner_id)
    (job,) = ipad.mdm.claim()
    ipad.mdm.finish(job, "failed", reason="invalid_payload", error="there is no such profile")
    for _ in range(3):
        ipad.minute()
    why = "the profile was not installed: there is no such profile"
    assert listener.heard() == [why]
    assert ipad.reports(geo) == [("failed", why)]
    said = ipad.fleet.value("select explain_geo(%s)", ipad.device)
    assert why in said["actions"][0]["reason"]

    # It is tried again after an hour.
    ipad.mdm.tick(ipad.mdm.now(3700))
    ipad.mdm.tick(ipad.mdm.now(3701))
    assert take_all(ipad.mdm, ipad.mdm.now(3701)) == [(ipad.device, "push_profile")]
    ipad.minute()
    assert ipad.reports(geo) == [("running", None)]


def test_the_owner_is_told_of_a_device_that_is_in_no_mdm(ipad: Ipad) -> None:
    listener = Listener(ipad)
    ipad.fleet.run("delete from device_links where device_id = %s", ipad.device)
    ipad.create()
    ipad.is_at(0)
    ipad.minute()
    ipad.minute()
    assert listener.heard() == ["the device is in no MDM"]


def test_the_owner_is_told_when_nothing_can_be_held_at_all_and_others_do_not_notice(
    ipad: Ipad,
) -> None:
    listener = Listener(ipad)
    ipad.create()
    ipad.is_at(0)
    ipad.fleet.run(
        "create function pg_temp.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'the disk is full'; end $$"
    )
    ipad.fleet.run(
        "create trigger refuse before insert on profile_holds"
        " for each row execute function pg_temp.refuse()"
    )
    assert ipad.minute() == []
    assert listener.heard() == ["the profile is not held: the disk is full"]
    ipad.fleet.run("drop trigger refuse on profile_holds")
    assert ipad.minute() == ["push_profile"]
    assert listener.heard() == ["the profile is not held: the disk is full"]


def test_the_owner_is_told_of_an_agent_that_cannot_block(ipad: Ipad) -> None:
    listener = Listener(ipad)
    ipad.create(enforce=None, apps=["chess"])
    with ipad.fleet.as_device(ipad.device):
        (action, *_) = ipad.fleet.value("select geo_actions_due()")["actions"]
        ipad.fleet.value(
            "select report_geo_action(%s, 'failed', null, 'not supported here')",
            action["geo_action_id"],
        )
    assert listener.heard() == ["not supported here"]
