"""pgfleet feed: coming runs under a secret address that calendar programs subscribe to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import json_value, open_database

app = options.Noun("Calendar feeds, for calendar programs.")

_LISTED = (
    "id",
    "name",
    "filter",
    "last_read_at",
    "revoked_at",
    "owner",
    "created_by",
    "created_at",
)


@app.command(changes=True)
def create(
    name: Annotated[str, typer.Argument(help="What the calendar is called.")],
    schedule: Annotated[
        list[str] | None, typer.Option(help="Only this schedule, by name or id; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Only what reaches this device.")] = None,
    group: Annotated[str | None, typer.Option(help="Only what reaches this group.")] = None,
    action: Annotated[str | None, typer.Option(help="Only with this action.")] = None,
    search: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Make an address under which calendar programs read the coming runs; it is shown this once.

    Example: pgfleet feed create "School 7" --group labs
    """
    with open_database() as db:
        wanted: dict[str, Any] = {
            "name": name,
            "schedule_ids": [names.schedule_id(db, text) for text in schedule or []] or None,
            "device_id": names.device_id(db, device) if device else None,
            "group_id": names.group_id(db, group) if group else None,
            "action_type": action,
            "search": search,
        }
        made = db.value(
            "create_calendar_feed",
            p_filter=json_value({k: v for k, v in wanted.items() if v is not None}),
            p_name=name,
            p_owner_id=names.owner_id(db, owner),
        )
    output.show_row({key: made[key] for key in ("id", "name", "filter", "path", "url")})
    output.say("Whoever has the address can read the calendar; it is not shown again.")
    if made["url"] is None:
        output.say("The path follows the address of your functions, the setting functions_url.")


@app.command("list")
def list_feeds(limit: options.Limit = 100) -> None:
    """List the feeds, without their secrets.

    Example: pgfleet feed list
    """
    with open_database() as db:
        rows = db.find("calendar_feed_list", columns=_LISTED, order=("id",), limit=limit)
    output.show_rows(
        rows, ["id", "name", "filter", "last_read_at", "revoked_at"], spare=("revoked_at", "filter")
    )


@app.command(changes=True)
def revoke(
    feed: Annotated[int, typer.Argument(help="Id of the feed, as list shows it.")],
    yes: options.Yes = False,
) -> None:
    """Make the address of a feed useless; what has read it reads no more.

    Example: pgfleet feed revoke 3 --yes
    """
    with open_database() as db:
        rows = db.find("calendar_feed_list", {"id": feed}, columns=("id", "name", "revoked_at"))
        row = names.found(rows, "calendar feed", feed, noun="feed")
        db.commit()
        output.confirm(f"Revoke feed {row['name'] or feed}?", yes=yes)
        db.value("revoke_calendar_feed", p_id=feed)
        row = db.find("calendar_feed_list", {"id": feed}, columns=("id", "name", "revoked_at"))[0]
    output.show_row(row)
