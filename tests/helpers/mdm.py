"""A fleet with one MDM for the tests of profiles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.helpers.fleet import Fleet, Row, connect

__all__ = ["connect", "mdm"]

SECRET = "mdm-key-5f1a77c0"


@dataclass
class Mdm:
    """One integration of a fleet, and what its function would say to the database."""

    fleet: Fleet
    id: int

    def device(self, hostname: str | None = None) -> int:
        """Make a device that is linked to the MDM."""
        made = self.fleet.device(hostname)
        self.fleet.insert(
            "device_links",
            device_id=made,
            integration_id=self.id,
            owner_id=self.fleet.owner_id,
            external_id=str(100_000 + made),
        )
        return made

    def claim(self, limit: int = 20, now: datetime | None = None) -> list[dict[str, Any]]:
        """Claim as the function does; each job says whether it is a send or a look."""
        claim = self.fleet.value(
            "select fleet.worker_claim_mdm(jsonb_build_object('all', %s::int),"
            " coalesce(%s, clock_timestamp()))",
            limit,
            now,
        )
        return [
            {**job, **claim["integrations"][str(job["integration_id"])], "phase": phase}
            for phase in ("sends", "looks")
            for job in claim[phase]
        ]

    def finish(self, job: dict[str, Any], outcome: str, **said: Any) -> dict[str, Any]:
        """Finish an attempt to send as the function does."""
        return self.fleet.value(
            "select fleet.worker_finish_mdm(%s, %s, %s, %s::jsonb, %s, %s, %s,"
            " coalesce(%s, clock_timestamp()))",
            job["command_id"],
            job["attempt"],
            outcome,
            json.dumps(said["result"]) if "result" in said else None,
            said.get("error"),
            said.get("reason"),
            said.get("retry_after"),
            said.get("now"),
        )

    def saw(self, job: dict[str, Any], outcome: str, **said: Any) -> dict[str, int]:
        """Say what a look showed, as the function does."""
        now = said.pop("now", None)
        report = {"command_id": job["command_id"], "attempt": job["attempt"], "outcome": outcome}
        return self.fleet.value(
            "select fleet.worker_finish_looks(%s, %s::jsonb, coalesce(%s, clock_timestamp()))",
            self.id,
            json.dumps([{**report, **said}]),
            now,
        )

    def install(
        self,
        device: int,
        duration: str | None = None,
        at: datetime | None = None,
        profile: str = "7",
    ) -> Row:
        """Install a profile as a person does."""
        return self.fleet.row(
            "select p.* from install_profile(%s, %s, %s, coalesce(%s, now())) as p",
            profile,
            device,
            duration,
            at,
        )

    def schedules(self, install: Row) -> tuple[Row, Row]:
        """Read the push and the removal of a pair."""
        keys = ("install_schedule_id", "remove_schedule_id")
        push, removal = (self.fleet.schedule(install[key]) for key in keys)
        return push, removal

    def person(self, *permissions: str) -> UUID:
        """Make a member of the fleet."""
        user = uuid4()
        self.fleet.insert(
            "owner_members",
            owner_id=self.fleet.owner_id,
            user_id=user,
            permissions=list(permissions),
        )
        return user

    def install_state(self, install: Row) -> Row:
        """Read the pair as people see it."""
        return self.fleet.row(
            "select * from temporary_profiles where install_id = %s", install["id"]
        )

    def tick(self, now: datetime) -> None:
        """Let a second pass."""
        self.fleet.value("select fleet.tick(%s)", now)
        self.fleet.value("select fleet.poke_mdm(%s)", now)

    def now(self, plus: float = 0) -> datetime:
        """Give the time of the database, some seconds on."""
        found: datetime = self.fleet.value("select clock_timestamp()")
        return found + timedelta(seconds=plus)


@pytest.fixture
def mdm(db: Any) -> Iterator[Mdm]:
    """Make a fleet with one SimpleMDM connection."""
    fleet = Fleet(db)
    made = fleet.row(
        "select i.* from create_integration(%s::jsonb, %s) as i",
        json.dumps(
            {
                "name": "office",
                "integration_type": "simplemdm",
                "owner_id": str(fleet.owner_id),
                "settings": {"rate_per_second": 20},
            }
        ),
        SECRET,
    )
    yield Mdm(fleet, made["id"])
