"""pgfleet webhook: who is told of what happens, and whether they were."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database

app = options.Noun("Webhooks and e-mail: be told of runs that fail.")

Endpoint = Annotated[str, typer.Argument(help="Name or id of the endpoint.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="run.failed, run.*, … or *; repeatable."),
]

_DELIVERY = (
    *("id", "endpoint_id", "endpoint", "event", "event_id", "status", "attempts", "last_status"),
    *("last_error", "next_attempt_at", "delivered_at", "created_at", "payload"),
)


@app.command(changes=True)
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
        row = db.value("create_webhook_endpoint", p_spec=json_value(spec))
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
        rows = db.find("webhook_list", order=("id",), limit=limit)
    output.show_rows(
        rows,
        ["id", "name", "channel", "address", "events", "enabled", "waiting", "failed"],
        spare=("channel", "events"),
    )


@app.command(changes=True)
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
            "update_webhook_endpoint",
            p_endpoint_id=_endpoint_id(db, endpoint),
            p_changes=json_value(changes),
        )
    output.show_row(row)


@app.command(changes=True)
def test(endpoint: Endpoint) -> None:
    """Send the event webhook.test to an endpoint.

    Example: pgfleet webhook test ops
    """
    with open_database() as db:
        row = db.row(
            "test_webhook_endpoint",
            *("id", "event", "event_id", "status", "created_at"),
            p_endpoint_id=_endpoint_id(db, endpoint),
        )
    output.show_row(row)
    output.say("See what became of it: pgfleet webhook deliveries")


@app.command(changes=True)
def verify(
    endpoint: Endpoint,
    code: Annotated[str, typer.Argument(help="The code that was sent to the mailbox.")],
) -> None:
    """Say that a mailbox wants to be told: enter the code that was sent there.

    Example: pgfleet webhook verify head 4F1C00D29A7B3E58
    """
    with open_database() as db:
        row = db.row(
            "verify_webhook_endpoint",
            *("id", "name", "email", "verified_at"),
            p_endpoint_id=_endpoint_id(db, endpoint),
            p_code=code,
        )
    output.show_row(row)


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
        wanted = {
            "endpoint_id": _endpoint_id(db, endpoint) if endpoint else None,
            "status": status,
            "event": event,
        }
        rows = db.find(
            "webhook_delivery_list", wanted, columns=_DELIVERY, order=("-id",), limit=limit
        )
    output.show_rows(
        rows,
        ["id", "endpoint", "event", "status", "attempts", "last_status", "last_error"],
        spare=("last_status", "attempts"),
    )


@app.command(changes=True)
def redeliver(
    delivery: Annotated[int, typer.Argument(help="Id; see pgfleet webhook deliveries.")],
) -> None:
    """Send a message again, under the same id.

    Example: pgfleet webhook redeliver 12
    """
    with open_database() as db:
        row = db.row(
            "redeliver",
            *("id", "event", "event_id", "status", "attempts", "next_attempt_at"),
            p_delivery_id=delivery,
        )
    output.show_row(row)


@app.command(changes=True)
def rotate(
    endpoint: Endpoint,
    keep: Annotated[str, typer.Option(help="How long the former secret signs too.")] = "1 day",
) -> None:
    """Make a new secret; it is shown this once.

    Example: pgfleet webhook rotate ops --keep "2 hours"
    """
    with open_database() as db:
        made = db.value(
            "rotate_webhook_secret", p_endpoint_id=_endpoint_id(db, endpoint), p_keep=keep
        )
    row = {key: made[key] for key in ("id", "secret", "former_expires_at")}
    output.show_row(row)


@app.command(changes=True)
def delete(endpoint: Endpoint, yes: options.Yes = False) -> None:
    """Remove an endpoint with its secret and its messages.

    Example: pgfleet webhook delete ops --yes
    """
    with open_database() as db:
        found = _endpoint_id(db, endpoint)
        db.commit()
        output.confirm(f"Remove endpoint {endpoint} and its messages?", yes=yes)
        db.value("delete_webhook_endpoint", p_endpoint_id=found)
    output.did(f"Endpoint {found} is removed.")


def _endpoint_id(db: Database, text: str) -> int:
    """Find an endpoint by its name, in any case, or by id."""
    return int(db.value("webhook_endpoint_id", p_name=text))
