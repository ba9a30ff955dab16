"""pgfleet schedule: when, what and who."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.schedule import bulk, calendar, change, history, insight, transfer
from pgfleet.nouns.schedule.spec import Given, takes_a_schedule

app = options.Noun("Schedules: when, what and who.")
for _verbs in (change, bulk, transfer, history, insight, calendar):
    app.add_typer(_verbs.app)

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
@takes_a_schedule
def create(
    given: Given,
    name: Annotated[str | None, typer.Argument(help="Name of the schedule.")] = None,
) -> None:
    """Create a schedule from options, or from JSON; every wrong field is named at once.

    Example: pgfleet schedule create nightly --action clear_cache --group labs --daily 02:30
    """
    with open_database() as db:
        row = db.row(
            "select public.create_schedule(%(spec)s) as schedule",
            {"spec": json_value(given.spec(db, name))},
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
