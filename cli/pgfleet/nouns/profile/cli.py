"""pgfleet profile: upload, install and remove configuration profiles."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import json_value, open_database
from pgfleet.nouns.profile import catalogue

app = options.Noun("Profiles: install, remove, for good or for a time.")
app.add_typer(catalogue.app)

Profile = Annotated[str, typer.Argument(help="Name of the profile, or the MDM's id of it.")]
Device = Annotated[str, typer.Argument(help="Host name or id.")]
Install = Annotated[int, typer.Argument(help="Id of the install; see pgfleet profile list.")]
At = Annotated[str | None, typer.Option(help="At this time instead of now.")]

_INSTALL: LiteralString = """
select
  p.id as install_id, p.profile_id, p.device_id, p.duration, p.install_schedule_id,
  p.remove_schedule_id, p.failure
from public.install_profile(
  %(profile)s, %(device_id)s, %(duration)s::interval, coalesce(%(at)s::timestamptz, now())
) as p
"""

_REMOVE: LiteralString = """
select s.id as schedule_id, s.profile_id, s.device_id, s.start_time, s.status
from public.remove_profile(
  %(profile)s, %(device_id)s, coalesce(%(at)s::timestamptz, now())
) as s
"""

# A step of its own: a view does not see what a function of the same statement has moved.
_TEMPORARY: LiteralString = """
select
  t.install_id, t.profile_id, t.profile_name, t.hostname, t.state, t.install_time, t.installed_at,
  t.scheduled_removal_time, t.removed_at, round(t.duration_minutes, 2) as duration_minutes,
  t.reason, t.device_id, t.install_schedule_id, t.remove_schedule_id
from public.temporary_profiles as t
where (%(install_id)s::bigint is null or t.install_id = %(install_id)s)
  and (%(device_id)s::bigint is null or t.device_id = %(device_id)s)
  and (%(profile)s::text is null or t.profile_id = %(profile)s)
order by t.install_id desc
limit %(limit)s
"""

_ASSIGNMENTS: LiteralString = """
select a.id, a.profile_id, a.description, a.device_ids, a.group_ids, a.selector, a.created_at
from public.profile_assignments as a
order by a.id
limit %(limit)s
"""

_SCHEDULES: LiteralString = """
select
  p.id, p.action_type, p.profile_id, p.profile_name, p.hostname, p.state, p.start_time,
  p.last_executed_at, p.command_status, p.reason, p.install_id, p.device_id, p.command_id,
  p.ui_initiated, p.created_at
from public.profile_schedules as p
where (%(device_id)s::bigint is null or p.device_id = %(device_id)s)
  and (%(profile)s::text is null or p.profile_id = %(profile)s)
order by p.created_at desc, p.id desc
limit %(limit)s
"""


@app.command()
def install(
    profile: Profile,
    device: Device,
    duration: Annotated[
        str | None, typer.Option("--for", help="For a time only, such as: 30 minutes.")
    ] = None,
    at: At = None,
) -> None:
    """Install a profile on a device, for good or for a time.

    Example: pgfleet profile install 12345 ipad-7 --for "30 minutes"
    """
    with open_database() as db:
        device_id = names.device_id(db, device)
        row = db.row(
            _INSTALL,
            {
                "profile": names.profile_id(db, profile, device_id),
                "device_id": device_id,
                "duration": duration,
                "at": at,
            },
        )
    output.show_row(row)


@app.command()
def remove(profile: Profile, device: Device, at: At = None) -> None:
    """Remove a profile from a device.

    Example: pgfleet profile remove 12345 ipad-7
    """
    with open_database() as db:
        device_id = names.device_id(db, device)
        found = names.profile_id(db, profile, device_id)
        row = db.row(_REMOVE, {"profile": found, "device_id": device_id, "at": at})
    output.show_row(row)


@app.command()
def extend(
    install: Install,
    by: Annotated[str, typer.Argument(help="How much longer, such as: 1 hour.")],
) -> None:
    """Let a temporary profile stay longer.

    Example: pgfleet profile extend 7 "1 hour"
    """
    with open_database() as db:
        db.rows(
            "select id from public.extend_profile(%(install)s, %(by)s::interval)",
            {"install": install, "by": by},
        )
        row = db.row(_TEMPORARY, _only(install))
    output.show_row(row)


@app.command()
def end(install: Install) -> None:
    """End a temporary profile early.

    Example: pgfleet profile end 7
    """
    with open_database() as db:
        db.rows("select id from public.end_profile(%(install)s)", {"install": install})
        row = db.row(_TEMPORARY, _only(install))
    output.show_row(row)


@app.command("list")
def list_profiles(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    profile: Annotated[str | None, typer.Option(help="Only of this profile.")] = None,
    temporary: Annotated[
        bool, typer.Option("--temporary", help="Pairs: what was installed for a time.")
    ] = False,
    limit: options.Limit = 50,
) -> None:
    """List what installs and removes profiles, the newest first.

    Example: pgfleet profile list --temporary
    """
    with open_database() as db:
        device_id = names.device_id(db, device) if device else None
        wanted = {
            "install_id": None,
            "device_id": device_id,
            "profile": names.profile_id(db, profile, device_id) if profile else None,
            "limit": limit,
        }
        rows = db.rows(_TEMPORARY if temporary else _SCHEDULES, wanted)
    if temporary:
        columns = ["install_id", "profile_id", "profile_name", "hostname", "state", "installed_at"]
        columns += ["scheduled_removal_time", "removed_at", "duration_minutes"]
    else:
        columns = ["id", "action_type", "profile_id", "profile_name", "hostname", "state"]
        columns += ["start_time", "last_executed_at", "install_id"]
    output.show_rows(rows, columns)


@app.command()
def assign(
    profile: Profile,
    device: Annotated[list[str] | None, typer.Option(help="A device; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group; repeatable.")] = None,
    selector: Annotated[str | None, typer.Option(help="JSON object, @FILE, or -.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Say that a profile belongs on devices; what is missing is pushed, also later.

    Example: pgfleet profile assign 12345 --group lab
    """
    wanted = inputs.json_object(selector, "--selector")
    with open_database() as db:
        targets: dict[str, Any] = {
            "device_ids": names.device_ids(db, device),
            "group_ids": names.group_ids(db, group),
        }
        if wanted is not None:
            targets["selector"] = wanted
        row = db.row(
            "select a.* from public.assign_profile("
            "%(profile)s, %(targets)s, %(description)s, %(owner_id)s::uuid) as a",
            {
                "profile": names.profile_id(db, profile),
                "targets": json_value(targets),
                "description": description,
                "owner_id": names.owner_id(db, owner),
            },
        )
    output.show_row(row)


@app.command()
def unassign(
    assignment: Annotated[int, typer.Argument(help="Id; see pgfleet profile assignments.")],
) -> None:
    """Take an assignment back; the profile is removed where it had brought it.

    Example: pgfleet profile unassign 3
    """
    with open_database() as db:
        row = db.row("select public.unassign_profile(%(id)s) as made", {"id": assignment})["made"]
    output.show_row(row)


@app.command()
def assignments(limit: options.Limit = 100) -> None:
    """List which profiles belong where.

    Example: pgfleet profile assignments
    """
    with open_database() as db:
        rows = db.rows(_ASSIGNMENTS, {"limit": limit})
    output.show_rows(rows, ["id", "profile_id", "device_ids", "group_ids", "selector"])


@app.command()
def drift(
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """List where devices differ from what is assigned.

    Example: pgfleet profile drift
    """
    with open_database() as db:
        rows = db.rows(
            "select d.hostname, d.profile_id, d.action_type, d.state, d.device_id"
            " from public.profile_drift(%(owner_id)s::uuid) as d",
            {"owner_id": names.owner_id(db, owner)},
        )
    output.show_rows(rows, ["hostname", "profile_id", "action_type", "state"])


@app.command()
def reconcile(
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Mend the drift now instead of within a minute.

    Example: pgfleet profile reconcile
    """
    with open_database() as db:
        row = db.row(
            "select public.reconcile_profiles(%(owner_id)s::uuid) as made",
            {"owner_id": names.owner_id(db, owner)},
        )["made"]
    output.show_row(row)


def _only(install: int) -> dict[str, int | None]:
    return {"install_id": install, "device_id": None, "profile": None, "limit": 1}
