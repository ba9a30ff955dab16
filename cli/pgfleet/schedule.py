"""pgfleet schedule: when, what and who."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.recurrence import Recurrence

app = options.Noun("Schedules: when, what and who.")

Schedule = Annotated[str, typer.Argument(help="Name or id of the schedule.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the schedule.")]

_LIST: LiteralString = """
select
  s.id, s.name, s.status, s.action_type, s.recurrence_type, s.timezone, s.next_run_at,
  s.last_executed_at, s.execution_count, s.priority, s.status_reason, o.name as owner,
  s.created_at
from public.schedules as s
join public.owners as o on o.id = s.owner_id
where (%(status)s::text is null or s.status = %(status)s)
  and (%(search)s::text is null or s.name ilike '%%' || %(search)s || '%%')
order by s.next_run_at nulls last, s.id
limit %(limit)s
"""

_SHOW: LiteralString = """
select
  s.id, s.name, s.description, s.status, s.status_reason, s.action_type, s.payload,
  s.recurrence_type, s.recurrence_config, s.timezone, s.start_time, s.end_time, s.next_run_at,
  s.last_executed_at, s.execution_count, s.device_ids, s.group_ids, s.selector, s.profile_id,
  fleet.effective_policies(s.policies) as policies, s.priority, s.ui_initiated,
  o.name as owner, s.owner_id, s.created_at, s.updated_at
from public.schedules as s
join public.owners as o on o.id = s.owner_id
where s.id = %(id)s
"""

_UPCOMING: LiteralString = """
with recursive due (at, number) as (
  select fleet.next_occurrence(s.recurrence, now()), 1
  from public.schedules as s
  where s.id = %(id)s
  union all
  select fleet.next_occurrence(s.recurrence, d.at), d.number + 1
  from due as d
  join public.schedules as s on s.id = %(id)s
  where d.at is not null and d.number < %(count)s
)
select
  d.at as due_at, d.at at time zone s.timezone as local_time, s.timezone,
  fleet.applied_rule(s.recurrence, d.at) as rule
from due as d
join public.schedules as s on s.id = %(id)s
where d.at is not null
order by d.at
"""


@app.command("list")
def list_schedules(
    status: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    search: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    limit: options.Limit = 1000,
) -> None:
    """List schedules, what is due soonest first.

    Example: pgfleet schedule list --status active
    """
    with open_database() as db:
        rows = db.rows(_LIST, {"status": status, "search": search, "limit": limit})
    output.show_rows(
        rows,
        ["id", "name", "status", "action_type", "recurrence_type", "next_run_at"],
    )


@app.command()
def show(schedule: Schedule) -> None:
    """Show one schedule with the policies that hold for it.

    Example: pgfleet schedule show nightly
    """
    with open_database() as db:
        output.show_row(db.row(_SHOW, {"id": names.schedule_id(db, schedule)}))


@app.command()
def upcoming(
    schedule: Schedule,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
) -> None:
    """List the next due instants of a schedule, with the rule where the clock changes.

    Example: pgfleet schedule upcoming nightly --count 5
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        rows = db.rows(_UPCOMING, {"id": found, "count": count})
    output.show_rows(rows)


@app.command()
def create(
    name: Annotated[str | None, typer.Argument(help="Name of the schedule.")] = None,
    action: Annotated[str | None, typer.Option(help="Which command each device gets.")] = None,
    payload: Annotated[str | None, typer.Option(help="JSON object, @FILE, or -.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="A device; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group; repeatable.")] = None,
    selector: Annotated[
        str | None, typer.Option(help="JSON that selects devices: tags, platform, …")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Once, at this time; local where it has no offset.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="Again after this time: 15 minutes.")] = None,
    daily: Annotated[str | None, typer.Option(help="Every day at HH:MM.")] = None,
    weekly: Annotated[str | None, typer.Option(help="On these days: mon,thu; with --time.")] = None,
    monthly: Annotated[str | None, typer.Option(help="On this day: 1, last; with --time.")] = None,
    time: Annotated[str | None, typer.Option(help="HH:MM for --weekly and --monthly.")] = None,
    cron: Annotated[str | None, typer.Option(help="A cron expression.")] = None,
    start: Annotated[str | None, typer.Option(help="Nothing is due before.")] = None,
    end: Annotated[str | None, typer.Option(help="Nothing is due after.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA name; UTC without it.")] = None,
    policies: Annotated[str | None, typer.Option(help="JSON: overlap, catchup, …")] = None,
    priority: Annotated[int | None, typer.Option(help="-100 to 100; higher goes first.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="The whole schedule as JSON; - for stdin.")
    ] = None,
) -> None:
    """Create a schedule from options, or from JSON; every wrong field is named at once.

    Example: pgfleet schedule create nightly --action clear_cache --group labs --daily 02:30
    """
    spec: dict[str, Any] = _from_file(file)
    when = Recurrence(at, every, daily, weekly, monthly, time, cron).keys()
    with open_database() as db:
        given = {
            "name": name,
            "action_type": action,
            "payload": names.json_object(payload, "--payload"),
            "device_ids": names.device_ids(db, device) if device else None,
            "group_ids": names.group_ids(db, group) if group else None,
            "selector": names.json_object(selector, "--selector"),
            "start_time": start,
            "end_time": end,
            "timezone": timezone,
            "policies": names.json_object(policies, "--policies"),
            "priority": priority,
            "owner_id": names.owner_id(db, owner),
        } | when
        # An option says more than the file, and what neither says is left to the database.
        spec |= {key: value for key, value in given.items() if value is not None}
        row = db.row(
            "select public.create_schedule(%(spec)s) as schedule", {"spec": json_value(spec)}
        )["schedule"]
    output.show_row(row)
    for warning in row.get("warnings", []):
        output.say(f"Warning: {warning}")


@app.command()
def pause(schedule: Schedule, reason: Reason = None) -> None:
    """Let a schedule rest; the ledger tells what was due meanwhile.

    Example: pgfleet schedule pause nightly --reason holidays
    """
    with open_database() as db:
        row = db.row(
            """
            select s.id, s.name, s.status, s.status_reason, s.next_run_at
            from public.pause_schedule(%(id)s, %(reason)s) as s
            """,
            {"id": names.schedule_id(db, schedule), "reason": reason},
        )
    output.show_row(row)


@app.command()
def resume(schedule: Schedule) -> None:
    """Let a paused schedule go on at its next due instant.

    Example: pgfleet schedule resume nightly
    """
    with open_database() as db:
        row = db.row(
            """
            select s.id, s.name, s.status, s.next_run_at
            from public.resume_schedule(%(id)s) as s
            """,
            {"id": names.schedule_id(db, schedule)},
        )
    output.show_row(row)


@app.command()
def cancel(
    schedule: Schedule,
    reason: Reason = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """End a schedule for good; what no device has started is cancelled.

    Example: pgfleet schedule cancel nightly --yes
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        if dry_run:
            row = _waiting(db, found)
        else:
            db.commit()
            output.confirm(f"Cancel schedule {schedule} for good?", yes=yes)
            row = db.row(
                """
                select s.id, s.name, s.status, s.status_reason
                from public.cancel_schedule(%(id)s, %(reason)s) as s
                """,
                {"id": found, "reason": reason},
            )
    output.show_row(row)
    if dry_run:
        output.say("Would be cancelled, with what is pending.")


@app.command()
def run(
    schedule: Schedule,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key gives the same run.")
    ] = None,
) -> None:
    """Run a schedule now, besides its due instants.

    Example: pgfleet schedule run nightly
    """
    with open_database() as db:
        row = db.row(
            """
            select r.id, r.schedule_id, r.scheduled_for, r.trigger, r.status, r.reason, r.targeted
            from public.run_schedule(%(id)s, %(key)s) as r
            """,
            {"id": names.schedule_id(db, schedule), "key": key},
        )
    output.show_row(row)
    output.say(f"Follow it with: pgfleet run watch {row['id']}")


def _from_file(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    named = file if file == "-" or file.startswith("@") else f"@{file}"
    return names.json_object(named, "--file") or {}


def _waiting(db: Database, schedule_id: int) -> dict[str, Any]:
    """Say what of a schedule has not been started."""
    return db.row(
        """
        select
          s.id, s.name, s.status, s.next_run_at,
          (
            select count(*)
            from public.device_commands as c
            where c.schedule_id = s.id and c.status = 'pending'
          ) as pending
        from public.schedules as s
        where s.id = %(id)s
        """,
        {"id": schedule_id},
    )
