"""An iPad is blocked by a profile where and when a geo schedule says, over the whole platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.helpers import mdm_account
from tests.helpers.sandbox import wait_until
from tests.ways.test_way_of_a_profile import Account

SCHOOL = (52.52, 13.405)
METRES_PER_DEGREE = 111_195


class Ipad:
    """A tablet in the MDM whose place and time are in our hands; what is pushed to it is real."""

    def __init__(self, account: Account) -> None:
        self.account = account
        [self.profile] = account.sandbox.profiles("No games")
        [(self.external, self.device)] = account.enrol(1, model_name="iPad Air").items()
        account.run(
            "insert into locations (owner_id, name, latitude, longitude, radius_m, hysteresis_m)"
            " values (%s, 'school', %s, %s, 300, 100)",
            *(account.owner, *SCHOOL),
        )

    def create(self, **spec: Any) -> int:
        whole = {
            **{"owner_id": str(self.account.owner), "name": "exam", "device_id": self.device},
            **{"location": "school", "side": "inside", "timezone": "UTC"},
            **{"enforce": {"profile_id": str(self.profile)}, **spec},
        }
        made: int = self.account.value("select id from create_geo_schedule(%s)", json.dumps(whole))
        return made

    def is_at(self, metres: float) -> None:
        """Put it so far from the middle of the school, and wait until the inventory says so."""
        latitude = SCHOOL[0] + metres / METRES_PER_DEGREE
        self.account.sandbox.device(
            self.external,
            location_latitude=str(latitude),
            location_longitude=str(SCHOOL[1]),
            location_accuracy=5,
            location_updated_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        self.account.run("select sync_integration(%s)", self.account.integration)
        found = "select abs(latitude - %s) < 1e-6 from devices where id = %s"
        wait_until(lambda: self.account.value(found, latitude, self.device))

    def minute(self, now: datetime | None = None) -> bool:
        """Let the job of a minute run, the MDM do what comes of it, and tell if it is blocked."""
        self.account.run(
            "select fleet.try_geo_holds(%s, coalesce(%s::timestamptz, clock_timestamp()))",
            *(self.account.owner, now),
        )
        wait_until(self.account.settled)
        return self.account.sandbox.has(self.external, self.profile) is not None


@pytest.fixture
def ipad(stack: Any) -> Iterator[Ipad]:
    switch = "select cron.alter_job(jobid, active => %s) from cron.job where jobname = %s"
    with mdm_account.simplemdm_account(stack) as made:
        account = Account(*made)
        # What it does is done here, at instants of our own.
        account.run(switch, False, "pgfleet-tend-geo")
        try:
            yield Ipad(account)
        finally:
            account.run(switch, True, "pgfleet-tend-geo")


def test_an_ipad_is_blocked_inside_while_the_window_is_open(ipad: Ipad) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minute = now.hour * 60 + now.minute
    start = now - timedelta(minutes=10)
    ipad.create(start_minute=(minute - 10) % 1440, end_minute=minute)

    ipad.is_at(200)
    assert not ipad.minute(start - timedelta(seconds=1)), "before the window"
    assert ipad.minute(start), "at its start, where it is inside already"
    places = []
    for metres in (390, 450, 390, 200):
        ipad.is_at(metres)
        places.append(ipad.minute(start + timedelta(minutes=1)))
    assert places == [True, False, False, True], "hysteresis: 100 m beyond the border of 300 m"
    assert not ipad.minute(now), "at its end"


def test_a_commitment_keeps_it_although_the_geo_schedule_is_deleted(ipad: Ipad) -> None:
    geo = ipad.create(
        **{"start_minute": 0, "end_minute": 0},
        **{"update_delay_type": "fixed", "update_delay_seconds": 86_400},
    )
    ipad.is_at(0)
    assert ipad.minute()
    ipad.account.run("select delete_geo_schedule(%s)", geo)
    assert ipad.minute()
    ipad.account.run("select remove_profile(%s, %s)", str(ipad.profile), ipad.device)
    assert ipad.minute()
    assert [one["event"] for one in ipad.account.sandbox.history()] == ["assigned", "installed"]

    ipad.account.run("select override_geo_commitment(%s, 'an exam')", geo)
    assert not ipad.minute()
