"""Telemetry: what devices measured, drawn; and the rules that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pgfleet.errors import InvalidInput
from pgfleet.statements import Row, among
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View
from pgfleet_console.pages import plots

LATEST, FIELDS_SHOWN = 200, 12
SPANS = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}


async def show_all(look: Look) -> Shown:
    """Show the latest points, and the rules."""
    rows = await look.db.find(
        "device_telemetry_latest", order=("-recorded_at", "device_id"), limit=LATEST
    )
    devices = await look.db.find(
        "devices",
        {"id": among([row["device_id"] for row in rows] or [0])},
        columns=("id", "hostname"),
    )
    names = {one["id"]: one["hostname"] for one in devices}
    rules = await look.db.find("telemetry_rule_list", order=("name", "id"), limit=200)
    for rule in rules:
        rule["may_manage"] = await look.db.may("manage", rule["owner_id"])
    latest = [row | {"hostname": names.get(row["device_id"], "")} for row in rows]
    return Shown("telemetry.html", {"latest": latest, "rules": rules})


async def show_one(look: Look) -> Shown:
    """Draw what a device measured, each number by the hour."""
    number = look.number("id")
    device = await look.db.one("device_list", "device", number)
    span = look.query.get("span", "7d")
    if span not in SPANS:
        raise InvalidInput(
            f'"{span[:20]}" is no span',
            reason="span_invalid",
            hint=f"There are {', '.join(SPANS)}.",
        )
    now = datetime.now(UTC)
    first = now - SPANS[span]
    hours = await look.db.call("telemetry_hours", p_device_id=number, p_from=first, p_to=now)
    gaps = await look.db.call("telemetry_gaps", p_device_id=number, p_from=first, p_to=now)
    return Shown(
        "telemetry_of.html",
        {
            "device": device,
            "drawn": drawn(hours)[:FIELDS_SHOWN],
            "gaps": gaps[:20],
            "span": span,
            "spans": {one: look.with_query(span=one) for one in SPANS},
            "points": await look.db.call(
                "telemetry_points", p_device_id=number, p_from=first, p_to=now, p_limit=10
            ),
        },
    )


def drawn(hours: Sequence[Row]) -> list[dict[str, Any]]:
    """Give each number of each stream as a line over the hours, with its least and its most."""
    streams: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(hours, key=lambda one: one["hour"]):
        if row["field"] and row["average"] is not None:
            streams.setdefault((row["stream"], row["field"]), []).append(row)
    return [
        {
            "stream": stream,
            "field": field,
            "line": plots.line([(row["hour"].timestamp(), row["average"]) for row in rows]),
            "least": min(row["smallest"] for row in rows),
            "most": max(row["largest"] for row in rows),
            "last": rows[-1]["average"],
            "hours": len(rows),
        }
        for (stream, field), rows in sorted(streams.items())
    ]


async def enable(look: Look) -> Gone:
    """Let a rule act, or do nothing."""
    is_enabled = look.form.get("enabled") == "true"
    await look.db.call(
        "enable_telemetry_rule", "id", p_id=look.number("id"), p_is_enabled=is_enabled
    )
    return Gone("/telemetry", "The rule acts." if is_enabled else "The rule does nothing.")


PAGE = Page(
    "Telemetry",
    "/telemetry",
    "y",
    views=(
        View("/telemetry", show_all, live=True),
        View("/telemetry/{id}", show_one, live=True),
    ),
    acts=(Act("/telemetry/rules/{id}/enable", enable),),
)
