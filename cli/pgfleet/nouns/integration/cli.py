"""pgfleet integration: connections to other systems, such as an MDM."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import replace
from typing import Annotated, Any, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.integration import webhook

app = options.Noun("Integrations: connections to an MDM and other systems.")
app.add_typer(webhook.app, name="webhook")

Integration = Annotated[str, typer.Argument(help="Name or id of the integration.")]
FromEnvironment = Annotated[
    str | None,
    typer.Option("--from-env", help="Environment variable with the secret; else stdin is read."),
]

_LIST: LiteralString = """
select
  i.id, i.name, i.integration_type, i.status, i.status_reason, i.needs_secret, i.settings,
  (
    select count(*)
    from public.device_links as l
    where l.integration_id = i.id and l.left_at is null
  ) as devices,
  i.last_sync_at, i.sync_requested_at, i.owner_id, i.created_at
from public.device_integrations as i
where (%(id)s::bigint is null or i.id = %(id)s)
order by i.id
limit %(limit)s
"""

_CALLS: LiteralString = """
select
  c.id, c.created_at, c.method, c.url, c.status, c.duration_ms, c.error, c.command_id, c.attempt,
  c.request_body, c.response_body
from public.mdm_api_logs as c
where c.integration_id = %(id)s
  and (%(command_id)s::bigint is null or c.command_id = %(command_id)s)
order by c.id desc
limit %(limit)s
"""

_ACTIVITY: LiteralString = """
select
  a.id, a.created_at, i.name as integration, a.activity_type, a.status, a.counts, a.duration_ms,
  a.error, a.detail, a.integration_id
from public.integration_activity_log as a
left join public.device_integrations as i on i.id = a.integration_id
where (%(id)s::bigint is null or a.integration_id = %(id)s)
order by a.id desc
limit %(limit)s
"""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What you call it.")],
    integration_type: Annotated[
        str, typer.Option("--type", help="Which system: simplemdm, nanomdm, …")
    ] = "simplemdm",
    base_url: Annotated[str | None, typer.Option(help="Its address, where it is your own.")] = None,
    rate: Annotated[float | None, typer.Option(help="Calls a second at most.")] = None,
    settings: Annotated[str, typer.Option(help="JSON object, @FILE, or - for stdin.")] = "{}",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Connect another system; then give it its secret.

    Example: pgfleet integration create office --type simplemdm --rate 5
    """
    wanted = inputs.json_object(settings, "--settings") or {}
    if base_url is not None:
        wanted["base_url"] = base_url
    if rate is not None:
        wanted["rate_per_second"] = rate
    with open_database() as db:
        given: dict[str, Any] = {
            "name": name,
            "integration_type": integration_type,
            "settings": wanted,
            "owner_id": names.owner_id(db, owner),
        }
        spec = {key: value for key, value in given.items() if value is not None}
        row = db.row(
            "select i.* from public.create_integration(%(spec)s) as i", {"spec": json_value(spec)}
        )
        _show(db, int(row["id"]))
    output.say(f"Now its secret: pgfleet integration set-secret {name}")


@app.command("list")
def list_integrations(limit: options.Limit = 100) -> None:
    """List integrations with how they are.

    Example: pgfleet integration list
    """
    with open_database() as db:
        rows = db.rows(_LIST, {"id": None, "limit": limit})
    output.show_rows(
        rows,
        ["id", "name", "integration_type", "status", "status_reason", "devices", "last_sync_at"],
    )


@app.command()
def show(integration: Integration) -> None:
    """Show one integration, without its secret.

    Example: pgfleet integration show office
    """
    with open_database() as db:
        _show(db, names.integration_id(db, integration))


@app.command()
def calls(
    integration: Integration,
    command: Annotated[int | None, typer.Option(help="Only for this command.")] = None,
    limit: options.Limit = 50,
) -> None:
    """List what was called, the newest first.

    Example: pgfleet integration calls office --command 12
    """
    with open_database() as db:
        rows = db.rows(
            _CALLS,
            {"id": names.integration_id(db, integration), "command_id": command, "limit": limit},
        )
    output.show_rows(
        rows, ["created_at", "method", "url", "status", "duration_ms", "error", "command_id"]
    )


@app.command()
def activity(
    integration: Annotated[
        str | None, typer.Argument(help="Name or id of the integration; else all.")
    ] = None,
    limit: options.Limit = 50,
) -> None:
    """List what integrations did, the newest first: syncs, and webhooks that came.

    Example: pgfleet integration activity office --limit 10
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        rows = db.rows(_ACTIVITY, {"id": found, "limit": limit})
    output.show_rows(
        rows,
        ["created_at", "integration", "activity_type", "status", "counts", "duration_ms", "error"],
    )


@app.command("set-secret")
def set_secret(integration: Integration, from_env: FromEnvironment = None) -> None:
    """Set or replace the secret; it is read from stdin, never from an argument.

    Example: pgfleet integration set-secret office --from-env SIMPLEMDM_KEY
    """
    secret = _secret(from_env)
    with open_database() as db:
        found = names.integration_id(db, integration)
        # What --show-sql prints is often kept; this statement is not for it.
        with options.using(replace(options.current(), show_sql=False)):
            db.rows(
                "select id from public.set_integration_secret(%(id)s, %(secret)s)",
                {"id": found, "secret": secret},
            )
        _show(db, found)


@app.command()
def pause(
    integration: Integration,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Call the other system no more; what is to be done waits.

    Example: pgfleet integration pause office --reason "the account moves"
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.rows(
            "select id from public.pause_integration(%(id)s, %(reason)s)",
            {"id": found, "reason": reason},
        )
        _show(db, found)


@app.command()
def resume(integration: Integration) -> None:
    """Go on with what waits.

    Example: pgfleet integration resume office
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.rows("select id from public.resume_integration(%(id)s)", {"id": found})
        _show(db, found)


@app.command()
def sync(integration: Integration) -> None:
    """Read the devices of the other system now.

    Example: pgfleet integration sync office
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.rows("select id from public.sync_integration(%(id)s)", {"id": found})
        _show(db, found)
    output.say("last_sync_at tells when it is done.")


@app.command()
def delete(
    integration: Integration, yes: options.Yes = False, dry_run: options.DryRun = False
) -> None:
    """Remove an integration with its secret and links; the devices stay.

    Example: pgfleet integration delete office --yes
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        if dry_run:
            output.say(f"Integration {found} would be removed with its secret and its links.")
            return
        db.commit()
        output.confirm(f"Remove integration {integration} and its secret?", yes=yes)
        db.rows("select public.delete_integration(%(id)s)", {"id": found})
    output.say(f"Integration {found} is removed.")


def _secret(variable: str | None) -> str:
    """Read the secret where neither the shell's history nor the list of processes shows it."""
    if variable is not None:
        secret = os.environ.get(variable, "")
    elif sys.stdin.isatty():
        secret = getpass.getpass("Secret: ")
    else:
        secret = sys.stdin.read()
    if not secret.strip():
        where = f"the environment variable {variable}" if variable else "stdin"
        raise InvalidInput(
            f"{where} holds no secret",
            reason="secret_missing",
            hint="Example: pgfleet integration set-secret office < key.txt",
        )
    return secret.strip()


def _show(db: Database, integration_id: int) -> None:
    output.show_row(db.row(_LIST, {"id": integration_id, "limit": 1}))
