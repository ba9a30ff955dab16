"""Commands: what was sent to which device, and the life of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pgfleet.errors import FleetError, InvalidInput
from pgfleet.statements import Name, Row, contains, same, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View
from pgfleet_console.words import Words, age, read_words

FIELDS = ("status", "type", "device", "run", "reason", "channel", "since")
FINAL = ("completed", "failed", "expired", "cancelled")
MOST_AT_ONCE = 200
COLUMNS: tuple[Name, ...] = (
    *("id", "owner_id", "device_id", "device_hostname", "command_type", "status", "reason"),
    *("attempt", "run_id", "schedule_id", "created_at", "claimed_at", "executed_at"),
)


def conditions(words: Words, now: datetime) -> dict[Name, Any]:
    """Say what a search of commands means to their list."""
    found = words.fields
    return {
        "id": words.id,
        "device_hostname": same(found.get("device"))
        or (None if words.id else contains(words.name)),
        "status": found.get("status"),
        "command_type": found.get("type"),
        "reason": found.get("reason"),
        "channel": found.get("channel"),
        "run_id": found.get("run"),
        "created_at": since(age(found.get("since"), now)),
    }


async def show_all(look: Look) -> Shown:
    """List commands, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    listed = await newest(look, "command_list", conditions(words, datetime.now(UTC)), COLUMNS)
    return Shown(
        "commands.html",
        {
            "listed": listed,
            "words": words.text,
            "fields": FIELDS,
            "choosable": await choosable(look, listed.rows),
        },
    )


async def choosable(look: Look, rows: Sequence[Row]) -> set[int]:
    """Give the ids of those rows that the viewer may act upon."""
    return {row["id"] for row in rows if await look.db.may("operate", row["owner_id"])}


async def types_of(look: Look, owner_id: Any) -> list[Row]:
    """Give what may be sent to the devices of an owner: everybody's types, and its own."""
    kinds = await look.db.find("command_types", order=("name",))
    return [kind for kind in kinds if kind["owner_id"] in (None, owner_id)]


async def is_destructive(look: Look, owner_id: Any, command_type: str) -> bool:
    """Tell whether what a type does to an owner's devices cannot be taken back."""
    kinds = await look.db.find("command_types", {"name": command_type})
    return any(kind["destructive"] for kind in kinds if kind["owner_id"] in (None, owner_id))


async def show_one(look: Look) -> Shown:
    """Show the life of one command."""
    command = await look.db.one("command_list", "command", look.number("id"))
    return Shown(
        "command.html",
        {
            "command": command,
            "life": life_of(command, datetime.now(UTC)),
            "is_final": command["status"] in FINAL,
            "is_destructive": await is_destructive(
                look, command["owner_id"], command["command_type"]
            ),
            "may_operate": await look.db.may("operate", command["owner_id"]),
            "may_destroy": await look.db.may("destructive", command["owner_id"]),
        },
    )


def life_of(command: Row, now: datetime) -> list[dict[str, Any]]:
    """Tell what became of a command, in the order of time, and what is to come."""
    status, channel = command["status"], command["channel"]
    life = [{"at": command["created_at"], "what": "made", "state": "completed", "more": ""}]

    def add(at: Any, what: str, state: str, more: str = "") -> None:
        if at is not None:
            life.append({"at": at, "what": what, "state": state, "more": more})

    if command["not_before"] > command["created_at"]:
        is_over = command["not_before"] <= now
        add(
            command["not_before"],
            "may begin" if command["attempt"] == 0 else "may be tried again",
            "completed" if is_over else "pending",
        )
    attempt = f"attempt {command['attempt']} of {command['max_attempts']}"
    taken = "called the MDM" if channel == "mdm" else "claimed by the device"
    failures = command["failure_count"]
    before = f"{failures} failed before" if failures and status != "failed" else ""
    add(command["claimed_at"], f"{taken}, {attempt}", "running", before)
    if status == "running":
        add(command["progress_at"], "told how far it is", "running", _progress(command))
        add(command["lease_expires_at"], "its lease ends unless it is extended", "pending")
    if status in FINAL:
        add(command["executed_at"], status, status, command["reason"] or "")
    else:
        add(command["expires_at"], "is no longer started", "pending")
    return sorted(life, key=lambda one: one["at"])


def _progress(command: Row) -> str:
    told = command["progress"] or {}
    percent = f"{told['percent']} %" if "percent" in told else ""
    return " ".join(str(part) for part in (percent, told.get("state")) if part)


async def cancel(look: Look) -> Gone:
    """Cancel a command."""
    number = look.number("id")
    reason = look.form.get("reason", "").strip() or None
    await look.db.call("cancel_command", "id", p_command_id=number, p_reason=reason)
    return Gone(f"/commands/{number}", "Cancelled.")


async def send_again(look: Look) -> Gone:
    """Send the same command to the same device once more."""
    command = await look.db.one("command_list", "command", look.number("id"))
    if await is_destructive(look, command["owner_id"], command["command_type"]):
        look.confirmed(command["device_hostname"])
    made = await _again(look, command)
    return Gone(f"/commands/{made}", "Sent again.")


async def act_on_chosen(look: Look) -> Gone:
    """Cancel, or send again, those that were ticked; all of them or none."""
    chosen = [int(one) for one in look.lists.get("id", []) if one.isdecimal()]
    if not chosen or len(chosen) > MOST_AT_ONCE:
        raise InvalidInput(
            f"{len(chosen)} commands are chosen",
            reason="choice_invalid",
            hint=f"Tick from 1 to {MOST_AT_ONCE} of them.",
        )
    is_again = look.form.get("do") == "again"
    done = 0
    for number in chosen:
        command = await look.db.one("command_list", "command", number)
        if is_again and command["status"] in FINAL:
            await _again(look, command)
            done += 1
        elif not is_again and command["status"] not in FINAL:
            await look.db.call("cancel_command", "id", p_command_id=number)
            done += 1
    back = look.form.get("back", "")
    said = f"{done} of {len(chosen)} were {'sent again' if is_again else 'cancelled'}."
    return Gone(back if back.startswith(("/commands", "/runs")) else "/commands", said)


async def _again(look: Look, command: Row) -> int:
    if "confirm" not in look.form and await is_destructive(
        look, command["owner_id"], command["command_type"]
    ):
        raise InvalidInput(
            f"{command['command_type']} cannot be taken back, so it is not sent again to many",
            reason="not_confirmed",
            hint=f"Send it again from the page of command {command['id']}.",
        )
    # Sent twice within a minute, as by a second click, it is the same command.
    minute = datetime.now(UTC).strftime("%Y%m%d%H%M")
    rows = await look.db.call(
        "send_command",
        "id",
        p_device_id=command["device_id"],
        p_command_type=command["command_type"],
        p_payload=look.db.json(command["payload"]),
        p_priority=command["priority"],
        p_idempotency_key=f"again-{command['id']}-{minute}",
    )
    return int(rows[0]["id"])


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show a command as it is, with why it could not be acted upon."""
    shown = await show_one(look)
    return Shown(shown.template, {**shown.values, "refusal": error}, error.status_code)


PAGE = Page(
    "Commands",
    "/commands",
    "c",
    views=(
        View("/commands", show_all, live=True),
        View("/commands/{id}", show_one, live=True),
    ),
    acts=(
        Act("/commands/chosen", act_on_chosen),
        Act("/commands/{id}/cancel", cancel, refused=show_refusal),
        Act("/commands/{id}/again", send_again, refused=show_refusal),
    ),
)
