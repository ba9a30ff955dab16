"""When a schedule by device time is due, told by walking one device's wall with `zoneinfo`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@dataclass
class Plan:
    """What a schedule says, in plain words."""

    times: list[time] = field(default_factory=list)
    every_days: int = 1
    weekdays: set[int] | None = None
    every_hours: int | None = None
    gap: str = "first_instant"
    fold: str = "first"
    start: datetime = datetime(2031, 1, 1, tzinfo=UTC)
    end: datetime | None = None
    most: int | None = None

    def spec(self) -> dict[str, Any]:
        """Say it as create_schedule takes it; a time without a zone has no offset."""
        policies: dict[str, Any] = {
            "gap": self.gap,
            "fold": self.fold,
            "overlap": "allow",
            "max_concurrent": 1000,
        }
        if self.most is not None:
            policies["max_runs"] = self.most
        spec: dict[str, Any] = {
            "timezone": "device",
            "start_time": self.start.isoformat(),
            "policies": policies,
        }
        if self.end is not None:
            spec["end_time"] = self.end.isoformat()
        if self.every_hours is not None:
            return {
                **spec,
                "recurrence_type": "interval",
                "recurrence_config": {"hours": self.every_hours},
            }
        config: dict[str, Any] = {"times": [moment.isoformat() for moment in self.times]}
        if self.weekdays is not None:
            config["days_of_week"] = sorted(self.weekdays)
            return {**spec, "recurrence_type": "weekly", "recurrence_config": config}
        if self.every_days > 1:
            config["every"] = self.every_days
        return {**spec, "recurrence_type": "daily", "recurrence_config": config}

    def walls(self, until: date) -> Iterator[datetime]:
        """Give what every wall shows when it is due, from the start on."""
        first = self.start.replace(tzinfo=None)
        if self.every_hours is not None:
            while first.date() <= until:
                yield first
                first += timedelta(hours=self.every_hours)
            return
        # An instant bounds the east and the west on other days.
        day = first.date() - (0 if self.start.tzinfo is None else 2) * DAY
        while day <= until:
            on = (day - first.date()).days % self.every_days == 0
            if on and (self.weekdays is None or day.weekday() in self.weekdays):
                for moment in sorted(set(self.times)):
                    wall = datetime.combine(day, moment)
                    if self.start.tzinfo is not None or wall >= first:
                        yield wall
            day += DAY

    def dues(self, zone: ZoneInfo, until: date) -> dict[tuple[datetime, int], datetime | None]:
        """Give the instants of one wall by occurrence; None where it does not run there."""
        found: dict[tuple[datetime, int], datetime | None] = {}
        taken: set[datetime] = set()
        for wall in self.walls(until):
            for fold, instant in self._instants(wall, zone):
                if instant is not None and self._is_out_of_bounds(wall, instant, zone):
                    continue
                found[wall, fold] = None if instant in taken else instant
                if instant is not None:
                    taken.add(instant)
        return found

    def _instants(self, wall: datetime, zone: ZoneInfo) -> Iterator[tuple[int, datetime | None]]:
        if self.every_hours is not None:
            begin = self.start
            if begin.tzinfo is None:
                begin = instants_of(begin, zone)[0]
            yield 0, begin + (wall - self.start.replace(tzinfo=None))
            return
        first, second, is_skipped = instants_of(wall, zone)
        if is_skipped:
            moved = {"first_instant": first, "shift": second, "skip": None}[self.gap]
            yield 0, moved
        elif first == second or self.fold == "first":
            yield 0, first
        elif self.fold == "second":
            yield 0, second
        else:
            yield 0, first
            yield 1, second

    def _is_out_of_bounds(self, wall: datetime, instant: datetime, zone: ZoneInfo) -> bool:
        if self.start.tzinfo is not None and instant < self.start:
            return True
        if self.end is None:
            return False
        if self.end.tzinfo is not None:
            return instant > self.end
        if self.every_hours is not None:
            return instant > instants_of(self.end, zone)[0]
        return wall > self.end


def instants_of(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime, bool]:
    """Give the first and the second instant of a wall time, and whether the clocks skip it.

    Of a skipped one the first instant after the gap, and the one shifted by the gap.
    """
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early.astimezone(zone).replace(tzinfo=None) == wall:
        return min(early, late), max(early, late), False
    # In a gap fold 0 reads it by the clock before the change, fold 1 by the one after it.
    low, high = late - DAY, early
    while high - low > SECOND:
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
            low = middle
        else:
            high = middle
    return high, early, True


def expected(
    plan: Plan, zones: dict[int, str], now: datetime, until: date
) -> dict[int, list[datetime]]:
    """Give when each device is due after an instant, in order."""
    by_device = {device: plan.dues(ZoneInfo(zone), until) for device, zone in zones.items()}
    keys = sorted({key for dues in by_device.values() for key in dues})
    if plan.most is not None:
        bound = now if plan.start.tzinfo is None else max(now, plan.start - SECOND / 1000000)
        whole = Plan(**{**plan.__dict__, "start": plan.start, "most": None})
        ahead = [key for key in keys if _is_ahead(whole, key, zones, bound)]
        counted = [key for key in ahead if any(dues.get(key) for dues in by_device.values())]
        keys = counted[: plan.most]
    return {
        device: sorted(
            instant for key in keys if (instant := dues.get(key)) is not None and instant > now
        )
        for device, dues in by_device.items()
    }


def _is_ahead(
    plan: Plan, key: tuple[datetime, int], zones: dict[int, str], bound: datetime
) -> bool:
    """Say whether an occurrence lies ahead of an instant on every wall, in bounds or not."""
    for zone in zones.values():
        for fold, instant in plan._instants(key[0], ZoneInfo(zone)):
            if fold == key[1] and instant is not None and instant <= bound:
                return False
    return True
