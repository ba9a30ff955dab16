"""What the demo saw: every command accounted for, from the handlers' own file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

_COMMANDS = """
select c.id, c.status, c.schedule_id, r.scheduled_for, r.trigger,
  extract(epoch from c.created_at)::float8 as created_at,
  extract(epoch from r.scheduled_for)::float8 as due_at
from public.device_commands as c
left join public.schedule_runs as r on r.id = c.run_id
"""


@dataclass(frozen=True, slots=True)
class Outage:
    """From when to when the devices could not be reached, in seconds since 1970."""

    started: float
    ended: float

    def touches(self, moment: float) -> bool:
        """Tell whether a command made then may have met the outage."""
        return self.started - 1 <= moment <= self.ended


class Entered:
    """When each command's handler was entered, by the file that the handlers write.

    A look reads on from where the last one ended: a large fleet writes a large file.
    """

    def __init__(self, events: Path) -> None:
        self._events = events
        self._read = 0
        self._found: dict[int, list[float]] = {}

    def look(self) -> dict[int, list[float]]:
        """Give the moments by command id."""
        if not self._events.exists():
            return self._found
        with self._events.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        # The last line may not be whole yet.
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # A line of a process that was killed while it wrote.
            if event["event"] == "entered":
                self._found.setdefault(int(event["command_id"]), []).append(float(event["at"]))
        return self._found


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Give p50, p95 and p99 of some milliseconds."""
    ordered = sorted(values)

    def at(share: float) -> float | None:
        if not ordered:
            return None
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1)

    return {"p50": at(0.50), "p95": at(0.95), "p99": at(0.99)}


def build_report(
    connection: psycopg.Connection[Any],
    entered: dict[int, list[float]],
    outage: Outage | None,
) -> dict[str, Any]:
    """Compare what the database holds with what the handlers wrote."""
    with connection.cursor(row_factory=dict_row) as cursor:
        commands = cursor.execute(_COMMANDS).fetchall()
        counts = cursor.execute(
            "select (select count(*) from public.devices) as devices,"
            " (select count(*) from public.schedule_runs) as runs"
        ).fetchone()
    assert counts is not None
    status = Counter(row["status"] for row in commands)
    calm: list[float] = []
    met_outage: list[float] = []
    for row in commands:
        if row["id"] in entered:
            late = (entered[row["id"]][0] - row["created_at"]) * 1000
            touched = outage is not None and outage.touches(row["created_at"])
            (met_outage if touched else calm).append(late)
    due = [
        (row["created_at"] - row["due_at"]) * 1000
        for row in commands
        if row["trigger"] == "schedule" and row["due_at"] is not None
    ]
    return {
        "devices": counts["devices"],
        "runs": counts["runs"],
        "commands": len(commands),
        "completed": status["completed"],
        "lost": len(commands) - status["completed"],
        "duplicated": sum(len(times) - 1 for times in entered.values()),
        "insert_to_handler_ms": percentiles(calm),
        "due_to_row_ms": percentiles(due),
        "during_restart": {"commands": len(met_outage), **percentiles(met_outage)},
    }
