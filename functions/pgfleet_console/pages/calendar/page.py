"""The calendar as a page, and moving a schedule on it."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime
from typing import Any

from pgfleet.errors import FleetError, InvalidInput
from pgfleet.statements import Compared, Row, among, since
from pgfleet_console.page import Act, Gone, Look, Page, Part, Shown, View
from pgfleet_console.pages.calendar import days, moved

ENTRIES, PERIODS, COMPARED = 500, 500, 10


async def show(look: Look) -> Shown:
    """Show a month, a week, a day or an agenda, in any zone."""
    span = await _span(look)
    shown = deepcopy(await look.lately(("calendar", span), lambda: _days(look, span)))
    may_move = await _mark_movable(look, shown)
    return Shown(
        "calendar.html",
        {
            "span": span,
            "days": shown,
            "may_move": may_move,
            "views": days.VIEWS,
            "today": datetime.now(span.zone).date(),
            "links": {view: look.with_query(view=view, day=span.day) for view in days.VIEWS},
            "back": look.with_query(view=span.view, day=span.beside(-1)),
            "onward": look.with_query(view=span.view, day=span.beside(1)),
            "now": look.with_query(view=span.view, day=None),
            "day_link": look.with_query(view="day", day=""),
            "weekdays": moved.DAYS,
        },
    )


async def _days(look: Look, span: days.Span) -> list[days.Day]:
    blackouts = await _blackouts(look, span)
    if span.view not in ("month", "week"):
        return await _listed(look, span, blackouts)
    rows = await look.db.call(
        "schedule_calendar",
        p_from=span.first,
        p_to=span.end,
        p_timezone=span.zone.key,
    )
    return days.counted(span, rows, blackouts)


async def _mark_movable(look: Look, shown: list[days.Day]) -> bool:
    """Mark what is to come and the viewer may move; tell whether there is any."""
    coming = [one for day in shown for one in day.entries if one["is_coming"]]
    rows = await look.db.find(
        "schedules",
        {"id": among(sorted({one["schedule_id"] for one in coming}))},
        columns=("id", "owner_id"),
    )
    movable = {row["id"] for row in rows if await look.db.may("manage", row["owner_id"])}
    for day in shown:
        for one in day.entries:
            one["may_move"] = one["is_coming"] and one["schedule_id"] in movable
    return bool(movable)


async def _span(look: Look) -> days.Span:
    view = look.query.get("view", "month")
    if view not in days.VIEWS:
        raise InvalidInput(
            f'"{view[:30]}" is no view of the calendar',
            reason="view_unknown",
            hint=f"There are {', '.join(days.VIEWS)}.",
        )
    zone = days.zone_of(look.query.get("zone") or await _usual_zone(look))
    asked = look.query.get("day")
    day = days.day_of(asked) if asked else datetime.now(zone).date()
    return days.span_of(view, day, zone)


async def _usual_zone(look: Look) -> str:
    """Name the zone of the viewer's fleets, where they agree on one."""
    rows = await look.db.find("owner_list", columns=("timezone",), limit=20)
    zones = {row["timezone"] for row in rows}
    return str(zones.pop()) if len(zones) == 1 else "UTC"


async def _blackouts(look: Look, span: days.Span) -> list[Row]:
    names = {
        row["id"]: row["name"]
        for row in await look.db.find("blackout_calendars", columns=("id", "name"), limit=PERIODS)
    }
    periods = await look.db.find(
        "blackout_period_list",
        {"begins_at": Compared("< {}", span.ends_at)},
        order=("-begins_at",),
        limit=PERIODS,
    )
    return days.blackouts_of(
        span, [row | {"calendar": names.get(row["calendar_id"], "blackout")} for row in periods]
    )


async def _listed(look: Look, span: days.Span, blackouts: list[Row]) -> list[days.Day]:
    now = datetime.now(UTC)
    runs = await look.db.find(
        "run_list",
        {"scheduled_for": since(span.starts_at.isoformat())},
        columns=("id", "schedule_id", "schedule", "scheduled_for", "status", "reason"),
        order=("scheduled_for", "id"),
        limit=ENTRIES,
    )
    coming = []
    if span.ends_at > now:
        coming = await look.db.call(
            "simulate_fleet",
            p_from=max(span.starts_at, now),
            p_to=span.ends_at,
            p_limit=ENTRIES,
        )
    return days.listed(span, runs, coming, blackouts)


async def show_move(look: Look) -> Shown:
    """Show the form with which a schedule is moved."""
    return await _form(look, dict(look.query))


async def preview(look: Look) -> Part:
    """Show what would change, before anything does."""
    try:
        row = await look.db.one("schedules", "schedule", look.number("id"))
        rows = await look.db.call(
            "diff_schedule",
            p_schedule_id=row["id"],
            p_changes=look.db.json(_changes(row, dict(look.form))),
            p_count=COMPARED,
        )
        return Part("schedule_diff.html", {"rows": rows})
    except FleetError as error:
        return Part("refusal.html", {"error": error})


async def move(look: Look) -> Gone:
    """Move a schedule to another time."""
    row = await look.db.one("schedules", "schedule", look.number("id"))
    await look.db.value(
        "update_schedule",
        p_schedule_id=row["id"],
        p_changes=look.db.json(_changes(row, dict(look.form))),
    )
    return Gone(f"/schedules/{row['id']}", "Moved.")


async def show_refused(look: Look, error: FleetError) -> Shown:
    """Show the form anew, with what was wrong with it."""
    return await _form(look, {"at": look.form.get("at", "")}, error)


async def _form(look: Look, asked: dict[str, str], error: FleetError | None = None) -> Shown:
    row = await look.db.one("schedules", "schedule", look.number("id"))
    at = _instant(asked).astimezone(moved.zone_in(row))
    to = _meant(row, asked, at)
    values = {
        "schedule": row,
        "at": at.isoformat(),
        "local": at,
        "day": to.date().isoformat(),
        "clock": f"{to:%H:%M}",
        "is_movable": row["recurrence_type"] in moved.MOVABLE,
        "may_manage": await look.db.may("manage", row["owner_id"]),
        "error": error,
    }
    return Shown("calendar_move.html", values, error.status_code if error else 200)


def _meant(row: Row, asked: dict[str, str], at: datetime) -> datetime:
    """Give where a run is to go, in the schedule's zone, from a place in the calendar's."""
    day = days.day_of(asked["day"]) if asked.get("day") else at.date()
    clock = moved.clock_of(asked["clock"]) if asked.get("clock") else at.time()
    local = datetime.combine(day, clock, at.tzinfo)
    if not asked.get("zone") or row["timezone"] == "device":
        return local
    return local.replace(tzinfo=days.zone_of(asked["zone"])).astimezone(moved.zone_in(row))


def _instant(asked: dict[str, str]) -> datetime:
    try:
        found = datetime.fromisoformat(asked.get("at", ""))
    except ValueError as error:
        raise InvalidInput(
            "it is not said which run is moved", reason="time_invalid", hint="Choose it again."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _changes(row: Row, asked: dict[str, str]) -> dict[str, Any]:
    day: date = days.day_of(asked.get("day", ""))
    return moved.changes_of(row, _instant(asked), day, asked.get("clock", ""))


PAGE = Page(
    "Calendar",
    "/calendar",
    "k",
    views=(View("/calendar", show, live=True), View("/calendar/move/{id}", show_move)),
    acts=(
        Act("/calendar/move/{id}", move, refused=show_refused),
        Act("/calendar/move/{id}/preview", preview, tries=True),
    ),
)
