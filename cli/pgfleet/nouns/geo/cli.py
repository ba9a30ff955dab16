"""pgfleet geo: when and where which apps are blocked, and the commitment behind it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.geo import day

app = options.Noun("Geo schedules: when and where apps are blocked.")
app.add_typer(day.app)

GeoSchedule = Annotated[int, typer.Argument(help="Id of the geo schedule.")]
Owner = Annotated[str | None, typer.Option(help="Name or id of the owner.")]
Name = Annotated[str | None, typer.Option(help="What it is called.")]
Device = Annotated[str | None, typer.Option(help="For this device.")]
Group = Annotated[str | None, typer.Option(help="For the devices of this group.")]
App = Annotated[list[str] | None, typer.Option("--app", help="Block this app; again for more.")]
Category = Annotated[
    list[str] | None, typer.Option("--category", help="Block the apps of this category.")
]
Profile = Annotated[str | None, typer.Option(help="Block by this profile of the device's MDM.")]
Between = Annotated[str | None, typer.Option(help="On the wall, such as 22:00-06:00.")]
Days = Annotated[str | None, typer.Option(help="mon,tue,…: weekly on these; none is daily.")]
Inside = Annotated[str | None, typer.Option(help="Only inside of this location.")]
Outside = Annotated[str | None, typer.Option(help="Only outside of this location.")]
Timezone = Annotated[str | None, typer.Option(help="IANA name, or device.")]
Delay = Annotated[
    str | None,
    typer.Option(help="How long a change waits: none, SECONDS, end-of-action or next-day."),
]
Unknown = Annotated[
    str | None, typer.Option(help="While the place is unknown: keep_last, block or free.")
]
Notes = Annotated[str | None, typer.Option(help="Whatever is to be remembered of it.")]

_LISTED = (
    *("id", "name", "device", "group_name", "location", "side", "apps", "starts", "ends"),
    *("recurrence", "timezone", "state", "effective_from", "delay_ends_at", "replaced_by"),
)
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DELAYS = {
    "none": ("none", 0),
    "end-of-action": ("until_end_of_current_action", 0),
    "next-day": ("until_next_day", 0),
}


@app.command("list")
def list_geo_schedules(
    state: Annotated[
        str | None, typer.Option(help="active, waiting, ending, ended or deleted.")
    ] = None,
    limit: options.Limit = 1000,
) -> None:
    """List geo schedules and their state.

    Example: pgfleet geo list --state active
    """
    with open_database() as db:
        rows = db.find(
            "geo_schedule_list", {"state": state}, columns=_LISTED, order=("id",), limit=limit
        )
    shown = ["id", "name", "device", "group_name", "side", "location", "starts", "ends", "state"]
    output.show_rows(rows, shown, spare=("side", "location"))


@app.command()
def show(geo_schedule: GeoSchedule) -> None:
    """Show a geo schedule.

    Example: pgfleet geo show 7
    """
    with open_database() as db:
        rows = db.find("geo_schedule_list", {"id": geo_schedule})
    output.show_row(names.found(rows, "geo schedule", geo_schedule, noun="geo"))


@app.command(changes=True)
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    between: Annotated[str, typer.Option(help="On the wall, such as 22:00-06:00.")],
    device: Device = None,
    group: Group = None,
    app_: App = None,
    category: Category = None,
    profile: Profile = None,
    days: Days = None,
    inside: Inside = None,
    outside: Outside = None,
    timezone: Timezone = None,
    delay: Delay = None,
    unknown: Unknown = None,
    notes: Notes = None,
    owner: Owner = None,
) -> None:
    """Block apps at a time of day, everywhere or by location.

    Example: pgfleet geo create "No games" --group labs --app steam --between 22:00-06:00
    """
    with open_database() as db:
        spec = _spec(
            device=device,
            group=group,
            apps=app_,
            categories=category,
            profile=profile,
            between=between,
            days=days,
            inside=inside,
            outside=outside,
            timezone=timezone,
            delay=delay,
            unknown=unknown,
            notes=notes,
        )
        spec |= {"name": name, "owner_id": names.owner_id(db, owner)}
        made = db.row("create_geo_schedule", "id", p_spec=json_value(spec))
        db.touches("geo_schedule", made["id"])
        row = db.find("geo_schedule_list", {"id": made["id"]})[0]
    output.show_row(row)


@app.command(changes=True)
def update(
    geo_schedule: GeoSchedule,
    name: Name = None,
    between: Between = None,
    device: Device = None,
    group: Group = None,
    app_: App = None,
    category: Category = None,
    profile: Profile = None,
    days: Days = None,
    inside: Inside = None,
    outside: Outside = None,
    timezone: Timezone = None,
    delay: Delay = None,
    unknown: Unknown = None,
    notes: Notes = None,
) -> None:
    """Change a geo schedule: a new one takes over when the delay of the old one is over.

    Example: pgfleet geo update 7 --between 21:00-06:00
    """
    spec = _spec(
        device=device,
        group=group,
        apps=app_,
        categories=category,
        profile=profile,
        between=between,
        days=days,
        inside=inside,
        outside=outside,
        timezone=timezone,
        delay=delay,
        unknown=unknown,
        notes=notes,
    )
    if name is not None:
        spec["name"] = name
    with open_database() as db:
        made = db.row(
            "update_geo_schedule",
            "id",
            "effective_from",
            p_geo_schedule_id=geo_schedule,
            p_changes=json_value(spec),
        )
        db.touches("geo_schedule", made["id"])
        row = db.find("geo_schedule_list", {"id": made["id"]})[0]
    output.show_row(row)
    if row["effective_from"]:
        begins = output.when(row["effective_from"])
        output.did(f"Counts from {begins}; until then number {geo_schedule} does.")


@app.command(changes=True)
def delete(geo_schedule: GeoSchedule, yes: options.Yes = False) -> None:
    """Delete a geo schedule; it is respected until its delay is over.

    Example: pgfleet geo delete 7 --yes
    """
    with open_database() as db:
        rows = db.find("geo_schedule_list", {"id": geo_schedule})
        row = names.found(rows, "geo schedule", geo_schedule, noun="geo")
        db.commit()
        output.confirm(f"Delete geo schedule {row['name']}?", yes=yes)
        db.touches("geo_schedule", geo_schedule)
        db.call("delete_geo_schedule", p_geo_schedule_id=geo_schedule)
        row = db.find("geo_schedule_list", {"id": geo_schedule})[0]
    output.show_row(row)
    output.did(f"Deleted; respected until {output.when(row['delay_ends_at'])}.")


@app.command(changes=True)
def override(
    geo_schedule: GeoSchedule,
    reason: Annotated[str, typer.Option(help="Why; the audit log keeps it.")],
    device: Annotated[str | None, typer.Option(help="Only for this device.")] = None,
    yes: options.Yes = False,
) -> None:
    """End at once what is still owed of one that was deleted or changed.

    Example: pgfleet geo override 7 --reason "an exam on the device" --yes
    """
    with open_database() as db:
        chosen = None if device is None else names.device_id(db, device)
        db.commit()
        output.confirm(f"End what is owed of geo schedule {geo_schedule} now?", yes=yes)
        db.touches("geo_schedule", geo_schedule)
        count = db.value(
            "override_geo_commitment",
            p_geo_schedule_id=geo_schedule,
            p_reason=reason,
            p_device_id=chosen,
        )
    output.show_row({"geo_schedule_id": geo_schedule, "devices": count})


@app.command()
def preview(
    between: Annotated[str, typer.Option(help="On the wall, such as 22:00-06:00.")],
    device: Device = None,
    group: Group = None,
    days: Days = None,
    timezone: Timezone = None,
    owner: Owner = None,
) -> None:
    """Show the actions of the next two weeks without making anything.

    Example: pgfleet geo preview --group class-7 --between 22:00-06:00 --timezone Europe/Berlin
    """
    spec = _spec(device=device, group=group, between=between, days=days, timezone=timezone)
    with open_database() as db:
        spec |= {"name": "preview", "apps": ["any"], "owner_id": names.owner_id(db, owner)}
        rows = db.call("preview_geo_schedule", p_spec=json_value(spec))
    output.show_rows(rows, ["from_date", "starts_at", "ends_at", "length_minutes"])


@app.command()
def explain(
    device: Annotated[str, typer.Argument(help="Host name or id of the device.")],
    at: Annotated[str | None, typer.Option(help="At this instant instead of now.")] = None,
) -> None:
    """Tell why apps are blocked on a device, or not: now and within a day.

    Example: pgfleet geo explain pc-1
    """
    with open_database() as db:
        answer = _explained(db, device, at)
    rows = [{**action, "apps": ", ".join(action["apps"])} for action in answer["actions"]]
    output.show_rows(rows, ["name", "starts_at", "ends_at", "apps", "state", "reason"])
    output.say(f"Blocked: {', '.join(answer['blocked_apps']) or 'nothing'}.")


@app.command(changes=True)
def category(
    name: Annotated[str, typer.Argument(help="Name of a new category, such as games.")],
    apps: Annotated[list[str], typer.Argument(help="The apps in it.")],
    owner: Owner = None,
) -> None:
    """Give a name to several apps, for --category.

    Example: pgfleet geo category games steam minecraft
    """
    with open_database() as db:
        row = db.insert(
            "app_categories",
            {"owner_id": names.owner_id(db, owner), "name": name, "apps": apps},
            "id",
            "name",
            "apps",
        )
    output.show_row(row)


def _explained(db: Database, device: str, at: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = db.value(
        "explain_geo", p_device_id=names.device_id(db, device), p_at=inputs.moment(at, "--at")
    )
    return answer


def _spec(
    *,
    device: str | None = None,
    group: str | None = None,
    apps: list[str] | None = None,
    categories: list[str] | None = None,
    profile: str | None = None,
    between: str | None = None,
    days: str | None = None,
    inside: str | None = None,
    outside: str | None = None,
    timezone: str | None = None,
    delay: str | None = None,
    unknown: str | None = None,
    notes: str | None = None,
) -> dict[str, Any]:
    """Say in the keys of create_geo_schedule what was given on the command line."""
    if inside is not None and outside is not None:
        raise InvalidInput(
            "--inside and --outside exclude each other",
            reason="geo_schedule_invalid",
            hint="Make two geo schedules.",
        )
    given: dict[str, Any] = {
        "device": device,
        "group": group,
        "apps": apps,
        "categories": categories,
        "enforce": None if profile is None else {"profile_id": profile},
        "location": inside or outside,
        "side": "inside" if inside else "outside" if outside else None,
        "timezone": timezone,
        "unknown_location": unknown,
        "notes": notes,
    }
    if between is not None:
        given["start_minute"], given["end_minute"] = _minutes(between)
    if days is not None:
        given |= {"recurrence": "weekly", "days": _days(days)}
    if delay is not None:
        given["update_delay_type"], given["update_delay_seconds"] = _delay(delay)
    return {key: value for key, value in given.items() if value is not None}


def _minutes(between: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)\s*", between)
    parts = [int(part) for part in found.groups()] if found else []
    if not parts or max(parts[0], parts[2]) > 23 or max(parts[1], parts[3]) > 59:
        raise InvalidInput(
            f'--between "{between}" is not two times of day',
            reason="geo_schedule_invalid",
            hint="Example: --between 22:00-06:00; the same time twice is a whole day.",
        )
    return parts[0] * 60 + parts[1], parts[2] * 60 + parts[3]


def _days(days: str) -> list[int]:
    wanted = [day.strip().lower()[:3] for day in days.split(",")]
    if not all(day in _WEEK for day in wanted):
        raise InvalidInput(
            f'--days "{days}" is not a list of days',
            reason="geo_schedule_invalid",
            hint="Example: --days mon,tue,wed,thu,fri",
        )
    return sorted({_WEEK.index(day) for day in wanted})


def _delay(delay: str) -> tuple[str, int]:
    if delay in _DELAYS:
        return _DELAYS[delay]
    if delay.isascii() and delay.isdecimal() and len(delay) < 10:
        return "fixed", int(delay)
    raise InvalidInput(
        f'--delay "{delay}" is no delay',
        reason="geo_schedule_invalid",
        hint="Use none, a number of seconds, end-of-action or next-day.",
    )
