"""From the short options of the command line to the keys of a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgfleet.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What a person said of when; whether it makes sense is for the database to decide."""

    at: str | None = None
    every: str | None = None
    daily: str | None = None
    weekly: str | None = None
    monthly: str | None = None
    time: str | None = None
    cron: str | None = None

    def keys(self) -> dict[str, Any]:
        """Give recurrence_type, recurrence_config and, for `--at`, start_time."""
        said = [
            f"--{name}"
            for name in ("at", "every", "daily", "weekly", "monthly", "cron")
            if getattr(self, name) is not None
        ]
        if len(said) > 1:
            raise InvalidInput(
                f"{' and '.join(said)}: choose one of them",
                reason="recurrence_ambiguous",
                hint="Several times of one day fit in a cron expression: --cron '0 8,20 * * *'",
            )
        if self.time is not None and self.weekly is None and self.monthly is None:
            raise InvalidInput(
                "--time: belongs to --weekly or --monthly",
                reason="recurrence_incomplete",
                hint="Every day at a time is: --daily 02:30",
            )
        if self.at is not None:
            return {"recurrence_type": "once", "start_time": self.at}
        kind, config = self._kind_and_config()
        return {"recurrence_type": kind, "recurrence_config": config} if kind else {}

    def _kind_and_config(self) -> tuple[str | None, dict[str, Any]]:
        at_time = {} if self.time is None else {"time": self.time}
        if self.every is not None:
            return "interval", {"every": self.every}
        if self.daily is not None:
            return "daily", {"time": self.daily}
        if self.weekly is not None:
            days = [day.strip() for day in self.weekly.split(",") if day.strip()]
            return "weekly", {"days_of_week": days} | at_time
        if self.monthly is not None:
            return "monthly", {"day_of_month": _day(self.monthly)} | at_time
        if self.cron is not None:
            return "cron", {"cron_expression": self.cron}
        return None, {}


def _day(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text
