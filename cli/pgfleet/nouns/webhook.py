"""pgfleet webhook: who is told of what happens, and whether they were."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import Conflict

app = options.Noun("Webhooks and e-mail: be told of runs that fail.")

Endpoint = Annotated[str, typer.Argument(help="Name or id of the endpoint.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="run.failed, run.*, … or *; repeatable."),
]

_FIND: LiteralString = """
select e.id, e.name
from public.webhook_endpoints as e
where lower(e.name) = lower(%(text)s) or e.id::text = %(text)s
order by (lower(e.name) = lower(%(text)s)) desc, e.id
"""

_LIST: LiteralString = """
select
  e.id, e.name, e.channel, coalesce(e.url, e.email) as address, e.events, e.enabled,
  e.disabled_reason, d.waiting, d.failed, d.last_delivered_at, e.created_at
from public.webhook_endpoints as e
cross join lateral (
  select
    count(*) filter (where d.status in ('pending', 'running')) as waiting,
    count(*) filter (where d.status = 'failed') as failed,
    max(d.delivered_at) as last_delivered_at
  from public.webhook_deliveries as d
  where d.endpoint_id = e.id
) as d
order by e.id
limit %(limit)s
"""

_DELIVERIES: LiteralString = """
select
  d.id, d.endpoint_id, e.name as endpoint, d.event, d.event_id, d.status, d.attempts, d.last_status,
  d.last_error, d.next_attempt_at, d.delivered_at, d.created_at, d.payload
from public.webhook_deliveries as d
join public.webhook_endpoints as e on e.id = d.endpoint_id
where (%(endpoint_id)s::bigint is null or d.endpoint_id = %(endpoint_id)s)
  and (%(status)s::text is null or d.status = %(status)s)
  and (%(event)s::text is null or d.event = %(event)s)
order by d.id desc
limit %(limit)s
"""


@app.command()
def create(
    url: Annotated[str | None, typer.Argument(help="Address of the receiver, https://…")] = None,
    email: Annotated[str | None, typer.Option(help="A mailbox instead of an address.")] = None,
    event: Events = None,
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Be told of events; the secret that verifies signatures is shown this once.

    Example: pgfleet webhook create https://example.com/hooks --event run.failed
    """
    with open_database() as db:
        given: dict[str, Any] = {
            "url": url,
            "email": email,
            "events": event,
            "name": name,
            "owner_id": names.owner_id(db, owner),
        }
        spec = {key: value for key, value in given.items() if value is not None}
        row = db.row(
            "select public.create_webhook_endpoint(%(spec)s) as made", {"spec": json_value(spec)}
        )["made"]
    shown = ("id", "name", "channel", "url", "email", "events", "enabled", "secret")
    output.show_row({key: row[key] for key in shown if row[key] is not None})
    if row["secret"]:
        output.say("Keep the secret where the receiver runs; it is not shown again.")


@app.command("list")
def list_endpoints(limit: options.Limit = 100) -> None:
    """List endpoints with what waits for them and what failed.

    Example: pgfleet webhook list
    """
    with open_database() as db:
        rows = db.rows(_LIST, {"limit": limit})
    output.show_rows(
        rows, ["id", "name", "channel", "address", "events", "enabled", "waiting", "failed"]
    )


@app.command()
def update(
    endpoint: Endpoint,
    url: Annotated[str | None, typer.Option(help="Another address.")] = None,
    email: Annotated[str | None, typer.Option(help="Another mailbox.")] = None,
    event: Events = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Tell it again, or no more.")
    ] = None,
) -> None:
    """Change an endpoint, or wake one that was disabled.

    Example: pgfleet webhook update ops --enable
    """
    given: dict[str, Any] = {
        "url": url,
        "email": email,
        "events": event,
        "name": name,
        "enabled": enabled,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    with open_database() as db:
        row = db.row(
            "select e.* from public.update_webhook_endpoint(%(id)s, %(changes)s) as e",
            {"id": _endpoint_id(db, endpoint), "changes": json_value(changes)},
        )
    output.show_row(row)


@app.command()
def test(endpoint: Endpoint) -> None:
    """Send the event webhook.test to an endpoint.

    Example: pgfleet webhook test ops
    """
    with open_database() as db:
        row = db.row(
            "select d.id, d.event, d.event_id, d.status, d.created_at"
            " from public.test_webhook_endpoint(%(id)s) as d",
            {"id": _endpoint_id(db, endpoint)},
        )
    output.show_row(row)
    output.say("See what became of it: pgfleet webhook deliveries")


@app.command()
def deliveries(
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint.")] = None,
    status: Annotated[
        str | None, typer.Option(help="pending, running, delivered or failed.")
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only of this event.")] = None,
    limit: options.Limit = 50,
) -> None:
    """List messages, the newest first.

    Example: pgfleet webhook deliveries --status failed
    """
    with open_database() as db:
        rows = db.rows(
            _DELIVERIES,
            {
                "endpoint_id": _endpoint_id(db, endpoint) if endpoint else None,
                "status": status,
                "event": event,
                "limit": limit,
            },
        )
    output.show_rows(
        rows, ["id", "endpoint", "event", "status", "attempts", "last_status", "last_error"]
    )


@app.command()
def redeliver(
    delivery: Annotated[int, typer.Argument(help="Id; see pgfleet webhook deliveries.")],
) -> None:
    """Send a message again, under the same id.

    Example: pgfleet webhook redeliver 12
    """
    with open_database() as db:
        row = db.row(
            "select d.id, d.event, d.event_id, d.status, d.attempts, d.next_attempt_at"
            " from public.redeliver(%(id)s) as d",
            {"id": delivery},
        )
    output.show_row(row)


@app.command()
def rotate(
    endpoint: Endpoint,
    keep: Annotated[str, typer.Option(help="How long the former secret signs too.")] = "1 day",
) -> None:
    """Make a new secret; it is shown this once.

    Example: pgfleet webhook rotate ops --keep "2 hours"
    """
    with open_database() as db:
        row = db.row(
            """
            select r.id, r.secret, r.former_expires_at
            from jsonb_to_record(public.rotate_webhook_secret(%(id)s, %(keep)s::interval)) as
              r (id bigint, secret text, former_expires_at timestamptz)
            """,
            {"id": _endpoint_id(db, endpoint), "keep": keep},
        )
    output.show_row(row)


@app.command()
def delete(endpoint: Endpoint, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Remove an endpoint with its secret and its messages.

    Example: pgfleet webhook delete ops --yes
    """
    with open_database() as db:
        found = _endpoint_id(db, endpoint)
        if dry_run:
            output.say(f"Endpoint {found} would be removed with its messages.")
            return
        db.commit()
        output.confirm(f"Remove endpoint {endpoint} and its messages?", yes=yes)
        db.rows("select public.delete_webhook_endpoint(%(id)s)", {"id": found})
    output.say(f"Endpoint {found} is removed.")


def _endpoint_id(db: Database, text: str) -> int:
    """Find an endpoint by its name, in any case, or by id."""
    rows = db.rows(_FIND, {"text": text})
    named = [row for row in rows if str(row["name"]).lower() == text.lower()]
    if len(named) > 1:
        raise Conflict(
            f'webhook "{text}" is ambiguous: ids {", ".join(str(row["id"]) for row in named)}',
            reason="webhook_ambiguous",
            hint="Name the id",
        )
    return int(names.found(rows, "webhook", text)["id"])
