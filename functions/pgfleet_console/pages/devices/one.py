"""One device: what is known of it, what it was told, what is to come, and what can be done."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pgfleet.errors import FleetError, InvalidInput
from pgfleet.statements import Row, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Shown, View
from pgfleet_console.pages import commands, plots
from pgfleet_console.pages.devices import coming

COMING_SHOWN, COMING_DAYS, REQUEST_DAYS = 15, 14, 30
COMMANDS_SHOWN = 25
ASKED = ("claims", "looks", "tokens", "checkins", "sockets")


async def show(look: Look) -> Shown:
    """Show a device."""
    return Shown("device.html", await _read(look))


async def _read(look: Look) -> dict[str, Any]:
    number, now = look.number("id"), datetime.now(UTC)
    device = await look.db.one("device_list", "device", number)
    days = await look.db.find(
        "device_requests",
        {"device_id": number, "day": since((now.date() - timedelta(REQUEST_DAYS - 1)).isoformat())},
        columns=("day", *ASKED),
    )
    health = await look.db.find("device_health_list", {"device_id": number}, limit=1)
    runs = await _coming(look, device, now)
    may_operate = await look.db.may("operate", device["owner_id"])
    listed = await newest(
        look, "command_list", {"device_id": number}, commands.COLUMNS, rows=COMMANDS_SHOWN
    )
    return {
        "device": device,
        "health": health[0] if health else None,
        "requests": plots.bars(by_day(days, now.date())),
        "coming": runs[:COMING_SHOWN],
        "more_coming": len(runs) - COMING_SHOWN,
        "hours": plots.bars(coming.by_hour(runs, now)),
        "listed": listed,
        "choosable": await commands.choosable(look, listed.rows),
        "profiles": await look.db.find(
            "device_profiles", {"device_id": number}, order=("profile_id",), limit=100
        ),
        "temporary": await look.db.find(
            "temporary_profiles", {"device_id": number}, order=("-install_id",), limit=20
        ),
        "inside": await look.db.find("device_location_list", {"id": number}, limit=1),
        "kinds": await commands.types_of(look, device["owner_id"]) if may_operate else [],
        "may_operate": may_operate,
        "may_manage": await look.db.may("manage", device["owner_id"]),
        "sent": dict(look.form),
    }


async def _coming(look: Look, device: Row, now: datetime) -> list[dict[str, Any]]:
    if device["status"] != "active":
        return []
    calendar = await look.db.value(
        "calendar_ics",
        p_filter=look.db.json({"device_id": device["id"], "limit": 200}),
        p_from=now,
        p_to=now + timedelta(days=COMING_DAYS),
    )
    return coming.coming_of(calendar, device["timezone"])


def by_day(rows: list[Row], today: date) -> list[tuple[str, int]]:
    """Give how often a device asked on each of the last days; no row is no request."""
    asked = {row["day"]: sum(row[kind] for kind in ASKED) for row in rows}
    days = [today - timedelta(REQUEST_DAYS - 1 - at) for at in range(REQUEST_DAYS)]
    return [(day.isoformat(), asked.get(day, 0)) for day in days]


async def send(look: Look) -> Gone:
    """Send a command to a device."""
    device = await look.db.one("device_list", "device", look.number("id"))
    kind = look.form.get("command_type", "")
    payload = _payload(look.form.get("payload", ""))
    if await commands.is_destructive(look, device["owner_id"], kind):
        look.confirmed(device["hostname"])
        # That it was meant is what typing the name says.
        payload.setdefault("confirm", True)
    # Sent twice within a minute, as by a second click, it is the same command.
    asked = json.dumps([kind, payload], sort_keys=True).encode()
    minute = datetime.now(UTC).strftime("%Y%m%d%H%M")
    rows = await look.db.call(
        "send_command",
        "id",
        p_device_id=device["id"],
        p_command_type=kind,
        p_payload=look.db.json(payload),
        p_idempotency_key=f"console-{minute}-{hashlib.sha256(asked).hexdigest()[:24]}",
    )
    return Gone(f"/commands/{rows[0]['id']}", "It is on its way.")


def _payload(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text.strip() or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(
            "the payload is no JSON object",
            reason="command_invalid",
            hint='An object looks like {"message": "Hello"}.',
        )
    return found


async def tag(look: Look) -> Gone:
    """Give a device the tags that were written, and no others."""
    number = look.number("id")
    device = await look.db.one("device_list", "device", number)
    before, after = set(device["tags"]), set(re.split(r"[\s,]+", look.form.get("tags", "").strip()))
    await look.db.call(
        "tag_device",
        "id",
        p_device_id=number,
        p_add=sorted(after - before - {""}),
        p_remove=sorted(before - after),
    )
    return Gone(f"/devices/{number}", "Tagged.")


async def retire(look: Look) -> Gone:
    """Take a device out of service."""
    number = look.number("id")
    device = await look.db.one("device_list", "device", number)
    look.confirmed(device["hostname"])
    await look.db.call("retire_device", "id", p_device_id=number)
    return Gone(f"/devices/{number}", "Retired.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show a device as it is, with why what was asked was refused."""
    return Shown("device.html", {**await _read(look), "refusal": error}, error.status_code)


VIEWS = (View("/devices/{id}", show, live=True),)
ACTS = (
    Act("/devices/{id}/send", send, refused=show_refusal),
    Act("/devices/{id}/tags", tag, refused=show_refusal),
    Act("/devices/{id}/retire", retire, refused=show_refusal),
)
