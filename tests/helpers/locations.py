"""An area with two locations, and devices whose fixes are given in metres from its middle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

MIDDLE = (52.52, 13.405)
RADIUS = 6371008.8


def point(east: float, north: float) -> tuple[float, float]:
    """Give latitude and longitude so many metres from the middle of the area."""
    return (
        MIDDLE[0] + math.degrees(north / RADIUS),
        MIDDLE[1] + math.degrees(east / RADIUS / math.cos(math.radians(MIDDLE[0]))),
    )


@dataclass
class Area:
    """A school (a circle of 150 m in the middle) and a library (a block 600 m to its east)."""

    fleet: Fleet
    # Late enough for what is due at these times to be due now.
    start: datetime = field(default_factory=lambda: datetime.now(tz=UTC) - timedelta(minutes=45))
    school: int = 0
    library: int = 0

    def __post_init__(self) -> None:
        self.school = self.location("School", (0, 0), 150)
        corners = [(540, -60), (660, -60), (660, 60), (540, 60)]
        self.library = self.fleet.insert(
            "locations",
            owner_id=self.fleet.owner_id,
            name="Library",
            kind="polygon",
            polygon=Jsonb([list(point(*corner)) for corner in corners]),
        )["id"]

    def location(self, name: str, middle: tuple[float, float], radius: float, **more: Any) -> int:
        """Make a circle."""
        latitude, longitude = point(*middle)
        found: int = self.fleet.insert(
            "locations",
            owner_id=self.fleet.owner_id,
            name=name,
            latitude=latitude,
            longitude=longitude,
            radius_m=radius,
            **more,
        )["id"]
        return found

    def policy(self, event: str, location_id: int | None = None, **more: Any) -> int:
        """Make a policy that says hello."""
        found: int = self.fleet.insert(
            "location_policies",
            **{
                "owner_id": self.fleet.owner_id,
                "location_id": location_id,
                "event": event,
                "action_type": "broadcast_message",
                "payload": {"message": event},
                **more,
            },
        )["id"]
        return found

    def report(
        self,
        device_id: int,
        second: float,
        place: tuple[float, float],
        accuracy: float | None = 5,
        now: float | None = None,
    ) -> Row:
        """Let a device tell where it is; it tells at once unless another second is given."""
        with self.fleet.as_device(device_id):
            answer: Row = self.fleet.value(
                "select fleet.report_location(%s, %s, %s, %s, %s)",
                *point(*place),
                accuracy,
                self.at(second),
                self.at(second if now is None else now),
            )
        return answer

    def happened(
        self, device_ids: list[int], event: str, location_id: int | None = None, second: float = 0
    ) -> None:
        """Record an event of each of many devices, as if their fixes had been judged."""
        self.fleet.run(
            "insert into location_events"
            " (owner_id, device_id, location_id, location_name, event, at)"
            " select d.owner_id, d.id, l.id, l.name, %s, %s"
            " from devices as d left join locations as l on l.id = %s"
            " where d.id = any (%s) order by d.id",
            event,
            self.at(second),
            location_id,
            device_ids,
        )

    def waiting(self) -> int:
        """Count the events that policies were not asked about, of all owners."""
        count: int = self.fleet.value("select count(*) from location_events where acted_at is null")
        return count

    def commands(self, device_id: int) -> list[Row]:
        """Read what a device got, in order."""
        return self.fleet.rows(
            "select * from device_commands where device_id = %s order by id", device_id
        )

    def at(self, second: float) -> datetime:
        """Give the instant so many seconds after the start."""
        return self.start + timedelta(seconds=second)

    def events(self, device_id: int, *kinds: str) -> list[tuple[str, str | None]]:
        """Read what happened to a device, in order; of some kinds only, where they are named."""
        rows = self.fleet.rows(
            "select event, location_name from location_events"
            " where device_id = %s and (%s::text[] = '{}' or event = any (%s)) order by id",
            device_id,
            list(kinds),
            list(kinds),
        )
        return [(row["event"], row["location_name"]) for row in rows]

    def crossings(self, device_id: int) -> list[tuple[str, str | None]]:
        """Read which borders a device has crossed."""
        return self.events(device_id, "entered", "left")

    def act(self) -> None:
        """Let policies act, as the next tick would."""
        self.fleet.tick()

    def schedules(self) -> list[Row]:
        """Read the schedules of the owner, in the order in which they were made."""
        return self.fleet.rows(
            "select * from schedules where owner_id = %s order by id", self.fleet.owner_id
        )
