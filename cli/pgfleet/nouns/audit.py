"""pgfleet audit: who changed what, from what to what."""

from __future__ import annotations

from typing import Annotated, LiteralString

import typer

from pgfleet import names, options, output
from pgfleet.database import open_database

app = options.Noun("The audit log: who changed what.")

_LIST: LiteralString = """
select
  a.id, a.at, coalesce(a.actor_label, a.actor::text, a.actor_role) as who, a.action,
  a.table_name, a.row_id, a.old, a.new, a.actor, a.actor_role, a.actor_label, a.owner_id
from public.audit_log as a
where (%(id)s::bigint is null or a.id = %(id)s)
  and (%(table)s::text is null or a.table_name = %(table)s)
  and (%(row_id)s::text is null or a.row_id = %(row_id)s)
  and (%(actor)s::text is null or a.actor::text = %(actor)s or a.actor_label = %(actor)s)
  and (%(since)s::timestamptz is null or a.at >= %(since)s)
order by a.id desc
limit %(limit)s
"""


@app.command("list")
def list_changes(
    table: Annotated[
        str | None, typer.Option(help="Only of this table: schedules, devices, …")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Only of this schedule.")] = None,
    row: Annotated[str | None, typer.Option("--row", help="Only of the row with this id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this person or program.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on.")] = None,
    limit: options.Limit = 50,
) -> None:
    """List changes, the newest first, with what was before and after.

    Example: pgfleet audit list --schedule nightly
    """
    with open_database() as db:
        params = {
            **{"id": None, "table": table, "row_id": row},
            **{"actor": actor, "since": since, "limit": limit},
        }
        if schedule is not None:
            # A schedule that is gone is still in the log: by its id.
            found = schedule if schedule.isdecimal() else str(names.schedule_id(db, schedule))
            params |= {"table": "schedules", "row_id": found}
        rows = db.rows(_LIST, params)
    output.show_rows(rows, ["id", "at", "who", "action", "table_name", "row_id", "old", "new"])


@app.command()
def show(
    change: Annotated[int, typer.Argument(help="Id of the entry.")],
) -> None:
    """Show one change with all that is known of it.

    Example: pgfleet audit show 17
    """
    nothing = dict.fromkeys(("table", "row_id", "actor", "since"))
    with open_database() as db:
        rows = db.rows(_LIST, {"id": change, "limit": 1, **nothing})
    output.show_row(names.found(rows, "audit", change))
