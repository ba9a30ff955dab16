"""pgfleet integration webhook: secret addresses on which other systems call."""

from __future__ import annotations

from typing import Annotated

import typer

from pgfleet import names, options, output
from pgfleet.database import open_database

app = options.Noun("Addresses on which another system tells what happens there.")

Integration = Annotated[str, typer.Argument(help="Name or id of the integration.")]


@app.command(changes=True)
def create(integration: Integration) -> None:
    """Make an address that the other system calls; it is shown this once.

    Example: pgfleet integration webhook create office
    """
    with open_database() as db:
        made = db.value(
            "create_integration_webhook", p_integration_id=names.integration_id(db, integration)
        )
    output.show_row({key: made[key] for key in ("id", "token", "path", "url")})
    output.say("Enter the address in the other system; it is not shown again.")
    if made["url"] is None:
        output.say("The path follows the address of your functions, the setting functions_url.")


@app.command("list")
def list_webhooks(
    integration: Annotated[
        str | None, typer.Argument(help="Name or id of the integration; else all.")
    ] = None,
    limit: options.Limit = 100,
) -> None:
    """List the addresses, without their secrets.

    Example: pgfleet integration webhook list office
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        wanted = {"integration_id": found}
        rows = db.find("integration_webhook_list", wanted, order=("id",), limit=limit)
    output.show_rows(rows, ["id", "integration", "created_at", "last_used_at", "revoked_at"])


@app.command(changes=True)
def revoke(
    webhook_id: Annotated[int, typer.Argument(help="Id of the address, as list shows it.")],
    yes: options.Yes = False,
) -> None:
    """Make an address useless; others of the integration go on working.

    Example: pgfleet integration webhook revoke 3 --yes
    """
    output.confirm(f"Revoke webhook {webhook_id}?", yes=yes)
    with open_database() as db:
        db.value("revoke_integration_webhook", p_id=webhook_id)
    output.did(f"Webhook {webhook_id} is revoked.")
