"""pgfleet integration: connections to other systems, such as an MDM."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.integration import reading, webhook

app = options.Noun("Integrations: connections to an MDM and other systems.")
app.add_typer(webhook.app, name="webhook")

Integration = Annotated[
    str,
    typer.Argument(help="Name or id of the integration.", autocompletion=completion.integrations),
]
FromEnvironment = Annotated[
    str | None,
    typer.Option("--from-env", help="Environment variable with the secret; else stdin is read."),
]

_CALL = (
    *("id", "created_at", "method", "url", "status", "duration_ms", "error", "command_id"),
    *("attempt", "request_body", "response_body"),
)


@app.command(changes=True)
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
        row = db.row("create_integration", p_spec=json_value(spec))
        _show(db, int(row["id"]))
    output.did(f"Now its secret: pgfleet integration set-secret {name}")


@app.command("list")
def list_integrations(limit: options.Limit = 100) -> None:
    """List integrations with how they are.

    Example: pgfleet integration list
    """
    with open_database() as db:
        rows = db.find("integration_list", order=("id",), limit=limit)
    output.show_rows(
        rows,
        ["id", "name", "integration_type", "status", "status_reason", "devices", "last_sync_at"],
        spare=("integration_type", "status_reason"),
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
        wanted = {"integration_id": names.integration_id(db, integration), "command_id": command}
        rows = db.find("mdm_api_logs", wanted, columns=_CALL, order=("-id",), limit=limit)
    output.show_rows(
        rows,
        ["created_at", "method", "url", "status", "duration_ms", "error", "command_id"],
        spare=("command_id", "duration_ms", "error"),
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
        wanted = {"integration_id": found}
        rows = db.find("integration_activity_list", wanted, order=("-id",), limit=limit)
    output.show_rows(
        rows,
        ["created_at", "integration", "activity_type", "status", "counts", "duration_ms", "error"],
        spare=("duration_ms", "counts"),
    )


@app.command("set-secret", changes=True)
def set_secret(integration: Integration, from_env: FromEnvironment = None) -> None:
    """Set or replace the secret; it is read from stdin, never from an argument.

    Example: pgfleet integration set-secret office --from-env SIMPLEMDM_KEY
    """
    secret = _secret(from_env)
    with open_database() as db:
        found = names.integration_id(db, integration)
        # What --show-sql prints is often kept; this statement is not for it.
        with options.using(replace(options.current(), show_sql=False)):
            db.row("set_integration_secret", "id", p_integration_id=found, p_secret=secret)
        _show(db, found)


@app.command(changes=True)
def pause(
    integration: Integration,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Call the other system no more; what is to be done waits.

    Example: pgfleet integration pause office --reason "the account moves"
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.touches("integration", found)
        db.row("pause_integration", "id", p_integration_id=found, p_reason=reason)
        _show(db, found)


@app.command(changes=True)
def resume(integration: Integration) -> None:
    """Go on with what waits.

    Example: pgfleet integration resume office
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.touches("integration", found)
        db.row("resume_integration", "id", p_integration_id=found)
        _show(db, found)


@app.command(changes=True)
def sync(
    integration: Integration,
    wait: reading.Wait = True,
    timeout: reading.Timeout = reading.DEFAULT_TIMEOUT,
) -> None:
    """Read the devices of the other system now; ends with 1 where nobody reads them.

    Example: pgfleet integration sync office --timeout 300
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        row = reading.read_now(db, found, integration, wait=wait, timeout=timeout)
    output.show_row(row)


@app.command(changes=True)
def delete(integration: Integration, yes: options.Yes = False) -> None:
    """Remove an integration with its secret and links; the devices stay.

    Example: pgfleet integration delete office --yes
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.commit()
        output.confirm(f"Remove integration {integration} and its secret?", yes=yes)
        db.touches("integration", found)
        db.value("delete_integration", p_integration_id=found)
    output.did(f"Integration {found} is removed.")


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
    rows = db.find("integration_list", {"id": integration_id})
    output.show_row(names.found(rows, "integration", integration_id))
