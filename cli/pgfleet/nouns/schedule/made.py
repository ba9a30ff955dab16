"""What is said when a schedule was made or changed: its id, its next run, and warnings."""

from __future__ import annotations

from typing import Any

from pgfleet import options, output

SHOWN = (
    *("id", "name", "description", "status", "status_reason", "action_type", "payload"),
    *("recurrence_type", "recurrence_config", "timezone", "start_time", "end_time"),
    *("next_run_at", "last_executed_at", "execution_count", "device_ids", "group_ids"),
    *("selector", "profile_id", "policies", "priority", "ui_initiated", "owner", "owner_id"),
    *("created_at", "updated_at"),
)


def show_made(row: dict[str, Any], done: str) -> None:
    """Print id, next run and warnings in a line each, and the whole schedule as JSON."""
    if row["next_run_at"] is not None:
        coming = f"Next run: {output.when(row['next_run_at'])}"
    elif row["status"] == "active":
        coming = "Next run: none is due"
    else:
        coming = f"Next run: none, it is {row['status']}"
    warnings = row.get("warnings") or []
    done = f"would be {done}" if options.current().dry_run else done
    lines = [f'Schedule {row["id"]} "{row["name"]}" {done}.', coming]
    output.show_made(row, lines if warnings else [*lines, "No warnings."])
    for warning in warnings:
        output.warn(warning)
