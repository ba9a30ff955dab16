"""A tablet that a geo schedule blocks: what the server says of it, and what its agent does."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.agent.test_geo_clock import Machine
from tests.helpers.fleet import Fleet

from pgfleet.agent.geo.actions import Course, Seen, apps_of, merged, step
from pgfleet.agent.location.fix import Fix

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
        now: datetime = fleet.value("select clock_timestamp()")
        self.tablet = Machine(wall=now)
        self.tablet.clock.heard(now)
        self.courses: dict[int, Course] = {}

    def joins_by_name(self) -> None:
        """Be in the group as a member, not by the tag."""
        self.fleet.run(
            "insert into device_group_members (group_id, device_id) values (%s, %s)",
            *(self.group, self.device),
        )
        self.fleet.run("update device_groups set selector = null where id = %s", self.group)

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

    def blocks(self) -> set[str]:
        """Give what its agent blocks in school, after asking if it is still answered."""
        if self.fleet.value("select status = 'active' from devices where id = %s", self.device):
            with self.fleet.as_device(self.device):
                answer = self.fleet.value("select geo_actions_due()")
            self.courses = merged(self.courses, answer["actions"])
        now = self.tablet.clock.now()
        seen = Seen(Fix(52.52, 13.405, now, 5), now)
        self.courses = {number: step(one, seen, now) for number, one in self.courses.items()}
        return set(apps_of(self.courses))


@pytest.fixture
def pupil(fleet: Fleet) -> Pupil:
    return Pupil(fleet)
