"""pgfleet sync: pulling what devices report to another cloud, and being pushed it."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.integration import reading

app = options.Noun("Sync: pull what devices report to Golioth, and be pushed it.")

Integration = Annotated[str, typer.Argument(help="Name or id of the integration.")]


class Way(StrEnum):
    """Who takes over what."""

    IMPORT = "import"
    EXPORT = "export"
    BOTH = "both"


class Side(StrEnum):
    """Ours, or that of the other system."""

    LOCAL = "local"
    REMOTE = "remote"


class Rule(StrEnum):
    """Which side counts where both have changed something."""

    NEWEST = "newest"
    LOCAL = "local"
    REMOTE = "remote"
    MANUAL = "manual"


_SHOWN = (
    *("name", "status", "status_reason", "verdict", "interval_seconds", "last_sync_at"),
    *("devices", "read_to", "waiting", "aside", "backfills", "direction", "conflict", "conflicts"),
)


@app.command(changes=True)
def setup(
    name: Annotated[str, typer.Argument(help="What you call the integration.")],
    project: Annotated[str, typer.Option(help="Id of the project in Golioth.")],
    from_env: Annotated[
        str, typer.Option("--from-env", help="Environment variable that holds the API key.")
    ] = "GOLIOTH_KEY",
    every: Annotated[int, typer.Option(min=60, help="Seconds between pulls.")] = 300,
    base_url: Annotated[str | None, typer.Option(help="Address of the API, if another.")] = None,
    calls_per_month: Annotated[
        int | None, typer.Option(min=100, help="Calls of the API that a month may take.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only devices with this tag.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Connect a Golioth project: pulled by a job, pushed to a secret address.

    Example: pgfleet sync setup greenhouse --project acme-demo
    """
    key = os.environ.get(from_env, "").strip()
    if not key:
        raise InvalidInput(
            f"the environment variable {from_env} holds no API key",
            reason="secret_missing",
            hint=f"Make a key in the console of Golioth, then: export {from_env}=…",
        )
    wanted: dict[str, Any] = {
        "projectId": project,
        "syncIntervalSeconds": every,
        "base_url": base_url,
        "apiCallsPerMonth": calls_per_month,
        "deviceFilter": {"tags": tag} if tag else None,
    }
    settings = {name: value for name, value in wanted.items() if value is not None}
    with open_database() as db:
        spec = {"name": name, "integration_type": "golioth", "settings": settings}
        owner_id = names.owner_id(db, owner)
        if owner_id is not None:
            spec["owner_id"] = str(owner_id)
        # What --show-sql prints is often kept; a key is not for it.
        with options.quietly():
            row = db.row("create_integration", p_spec=json_value(spec), p_secret=key)
        webhook = db.value("create_integration_webhook", p_integration_id=row["id"])
        job = db.value("create_sync_job")
    output.show_row(
        {"id": row["id"], "name": name, "job": job, "push_to": webhook["url"] or webhook["path"]}
    )
    output.say("Let a pipeline push to that address: it is shown this once, and is a secret.")
    output.say("Put the transformer inject-metadata before the webhook: it tells device and time.")
    output.say(f"Look whether all is well: pgfleet sync check {name}")


@app.command()
def status(integration: Integration) -> None:
    """Show how a sync stands: what the job would do now, how far it was read, what waits.

    Example: pgfleet sync status greenhouse
    """
    with open_database() as db:
        found = _status(db, integration)
    if options.current().as_json:
        output.show_row(found)
    else:
        output.show_row({key: found[key] for key in _SHOWN})


@app.command(changes=True)
def check(integration: Integration) -> None:
    """Look at all that has to be right, and tell what to do; ends with 1 where something is wrong.

    Example: pgfleet sync check greenhouse
    """
    with open_database() as db:
        found = db.call("check_sync", p_integration_id=names.integration_id(db, integration))
    output.show_rows(found, ["topic", "is_well", "found", "what_to_do"])
    if not all(row["is_well"] for row in found):
        raise typer.Exit(1)


@app.command(changes=True)
def run(
    integration: Integration,
    wait: reading.Wait = True,
    timeout: reading.Timeout = reading.DEFAULT_TIMEOUT,
) -> None:
    """Pull now, whatever interval and time window say; ends with 1 where nobody pulls.

    Example: pgfleet sync run greenhouse --timeout 300
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        reading.read_now(db, found, integration, wait=wait, timeout=timeout)


@app.command(changes=True)
def pause(
    integration: Integration,
    resume: Annotated[bool, typer.Option("--resume", help="Pull again.")] = False,
) -> None:
    """Pull no more until it is resumed; what is pushed goes on.

    Example: pgfleet sync pause greenhouse
    """
    _change(integration, {"syncEnabled": resume})


@app.command(changes=True)
def interval(
    integration: Integration,
    seconds: Annotated[int, typer.Argument(min=60, help="Seconds between pulls.")],
) -> None:
    """Change how often it is pulled; the job has to come by as often.

    Example: pgfleet sync interval greenhouse 600
    """
    _change(integration, {"syncIntervalSeconds": seconds})


@app.command()
def cost(integration: Integration) -> None:
    """Estimate the calls of the API per day and month from what the pulls really took.

    Example: pgfleet sync cost greenhouse
    """
    with open_database() as db:
        found = _status(db, integration)["cost"]
    output.show_row(found)


@app.command(changes=True)
def backfill(
    integration: Integration,
    start: Annotated[str, typer.Option("--from", help="From when on, such as 2026-02-01.")],
    end: Annotated[str | None, typer.Option("--to", help="Until when; now unless given.")] = None,
) -> None:
    """Read history; what is there already stays as it is.

    Example: pgfleet sync backfill greenhouse --from 2026-11-01
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.value("backfill_sync", p_integration_id=found, p_from=start, p_to=end)
    output.say(f"It is read with the next pulls; see: pgfleet sync status {integration}")


@app.command(changes=True)
def direction(
    integration: Integration,
    way: Annotated[Way, typer.Argument(help="Who takes over what: import, export or both.")],
    conflict: Annotated[
        Rule | None, typer.Option(help="Which side counts where both have changed something.")
    ] = None,
) -> None:
    """Choose whether names, tags and wanted values are read, written, or both.

    Example: pgfleet sync direction greenhouse both --conflict manual
    """
    settings = {"direction": way.value} | ({"conflict": conflict.value} if conflict else {})
    _change(integration, settings)


@app.command(changes=True)
def desired(
    device: Annotated[str, typer.Argument(help="Host name or id of the device.")],
    change: Annotated[
        str | None, typer.Option("--set", help="JSON to merge in; null takes a value away.")
    ] = None,
    integration: Annotated[
        str | None, typer.Option(help="Name or id of the integration, if there are several.")
    ] = None,
) -> None:
    """Show what is wanted of a device in its project and what it has, or change it.

    Example: pgfleet sync desired unit-0001 --set '{"led": {"on": true}}'
    """
    with open_database() as db:
        number = names.device_id(db, device)
        where: dict[LiteralString, Any] = {"device_id": number}
        if integration is not None:
            where["integration_id"] = names.integration_id(db, integration)
        if change is not None:
            db.value(
                "set_desired_state",
                p_device_id=number,
                p_desired=json_value(inputs.json_object(change, "--set")),
                p_integration_id=where.get("integration_id"),
            )
        rows = db.find("device_state_list", where, order=("integration",))
    output.show_rows(rows, ["hostname", "integration", "desired", "state", "desired_at"])


@app.command()
def conflicts(integration: Integration) -> None:
    """List what was changed on both sides, for you to decide.

    Example: pgfleet sync conflicts greenhouse
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        rows = db.find("sync_conflict_list", {"integration_id": found}, order=("id",))
    output.show_rows(rows, ["id", "hostname", "field", "local", "remote", "keep"])


@app.command(changes=True)
def resolve(
    conflict: Annotated[int, typer.Argument(help="Id of the conflict, as conflicts lists it.")],
    keep: Annotated[Side, typer.Argument(help="Which side counts: local or remote.")],
) -> None:
    """Say which side of a conflict counts; the next pull does it.

    Example: pgfleet sync resolve 7 local
    """
    with open_database() as db:
        row = db.row("resolve_sync_conflict", p_id=conflict, p_keep=keep.value)
    output.show_row({key: row[key] for key in ("id", "field", "local", "remote", "keep")})


def _status(db: Database, integration: str) -> dict[str, Any]:
    found = names.integration_id(db, integration)
    answer: dict[str, Any] = db.value("sync_status", p_integration_id=found)
    return answer


def _change(integration: str, settings: dict[str, Any]) -> None:
    with open_database() as db:
        found = names.integration_id(db, integration)
        db.touches("integration", found)
        db.row("change_sync", "id", p_integration_id=found, p_settings=json_value(settings))
        answer = _status(db, integration)
    output.show_row({key: answer[key] for key in _SHOWN})
