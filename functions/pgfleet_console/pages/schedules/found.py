"""The list of schedules, and verbs for many of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pgfleet.errors import InvalidInput
from pgfleet.statements import Name, among, contains, literal, same, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Shown, View, whole
from pgfleet_console.words import Words, age, read_words

FIELDS = ("status", "action", "every", "zone", "ran")
VERBS = ("pause", "resume", "run", "cancel", "delete")
# What cannot be taken back is done only after its name and the number were typed.
FINAL = ("cancel", "delete")
NAMES_SHOWN = 50
COLUMNS: tuple[Name, ...] = (
    *("id", "owner_id", "owner", "name", "description", "status", "status_reason"),
    *("action_type", "recurrence_type", "timezone", "next_run_at", "last_executed_at"),
)


def conditions(words: Words, now: datetime) -> dict[Name, Any]:
    """Say what a search of schedules means to their list."""
    found = words.fields
    return {
        "id": words.id,
        "name": None if words.id else contains(words.name),
        "status": found.get("status"),
        "action_type": found.get("action"),
        "recurrence_type": found.get("every"),
        "timezone": same(found.get("zone")),
        "last_executed_at": since(age(found.get("ran"), now, "ran")),
    }


async def show_all(look: Look) -> Shown:
    """List schedules, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    listed = await newest(look, "schedule_list", conditions(words, datetime.now(UTC)), COLUMNS)
    owners = {row["owner_id"] for row in listed.rows}
    choosable = {row["id"] for row in listed.rows if await look.db.may("operate", row["owner_id"])}
    choosable |= {row["id"] for row in listed.rows if await look.db.may("manage", row["owner_id"])}
    return Shown(
        "schedules.html",
        {
            "listed": listed,
            "words": words.text,
            "fields": FIELDS,
            "verbs": VERBS,
            "choosable": choosable,
            "is_shared": len(owners) > 1,
            "may_make": not look.is_again and await look.db.may_begin("manage"),
        },
    )


async def ask(look: Look) -> Shown:
    """Count what a verb would reach, before it is done."""
    verb = _verb(look)
    ids = [whole(one) for one in look.lists.get("id", [])]
    wanted = {"ids": ids} if ids else _filter_of(read_words(look.form.get("q", ""), FIELDS))
    found = await look.db.value(
        "bulk_schedules", p_action=verb, p_filter=look.db.json(wanted), p_dry_run=True
    )
    rows = await look.db.find(
        "schedules",
        {"id": among(found["ids"])},
        columns=("id", "name", "status", "next_run_at"),
        order=("id",),
        limit=NAMES_SHOWN,
    )
    return Shown(
        "schedules_chosen.html",
        {
            "verb": verb,
            "rows": rows,
            "ids": found["ids"],
            "count": len(found["ids"]),
            "devices": await look.db.value(
                "count_touched_devices", p_kind="schedule", p_ids=found["ids"]
            ),
            "typed": typed(verb, len(found["ids"])) if verb in FINAL else None,
            "words": look.form.get("q", ""),
        },
    )


async def do(look: Look) -> Gone:
    """Do it to what was counted, and to nothing that has come to match since."""
    verb = _verb(look)
    ids = [whole(one) for one in look.form.get("ids", "").split(",") if one]
    if verb in FINAL:
        look.confirmed(typed(verb, len(ids)))
    done = await look.db.value(
        "bulk_schedules",
        p_action=verb,
        p_filter=look.db.json({"ids": ids}),
        p_dry_run=False,
        p_reason=look.form.get("reason", "").strip() or None,
    )
    return Gone("/schedules", f"{verb}: {done['changed']} of {len(ids)} schedules.")


def typed(verb: str, count: int) -> str:
    """Give what is typed before many are cancelled or deleted."""
    return f"{verb} {count}"


def _verb(look: Look) -> str:
    verb = look.form.get("verb", "")
    if verb not in VERBS:
        raise InvalidInput(f'"{verb[:30]}" is no verb of schedules', reason="action_unknown")
    return verb


def _filter_of(words: Words) -> dict[str, Any]:
    """Say a search as bulk_schedules takes it; what it cannot say is refused, not left out."""
    unknown = sorted(set(words.fields) - {"status", "action"})
    if unknown:
        raise InvalidInput(
            f"many are not chosen by {', '.join(f'{one}:' for one in unknown)}",
            reason="search_invalid",
            hint="Search by status: and action:, or tick those that are meant.",
        )
    wanted: dict[str, Any] = {"status": words.fields.get("status")}
    wanted |= {"action_type": words.fields.get("action")}
    if words.id is not None:
        wanted["ids"] = [words.id]
    elif words.name is not None:
        wanted["name"] = f"%{literal(words.name)}%"
    return {name: value for name, value in wanted.items() if value is not None}


VIEWS = (View("/schedules", show_all, live=True),)
ACTS = (Act("/schedules/chosen", ask, tries=True), Act("/schedules/chosen/do", do))
