"""Webhooks and mail: who is told of what, and whether it arrived."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pgfleet.statements import Name, contains, same, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View
from pgfleet_console.words import Words, age, read_words

FIELDS = ("status", "event", "endpoint", "since")
COLUMNS: tuple[Name, ...] = (
    *("id", "owner_id", "endpoint_id", "endpoint", "event", "status", "attempts", "last_status"),
    *("last_error", "next_attempt_at", "delivered_at", "created_at"),
)


def conditions(words: Words, now: datetime) -> dict[Name, Any]:
    """Say what a search of deliveries means to their list."""
    found = words.fields
    return {
        "id": words.id,
        "endpoint": same(found.get("endpoint")) or (None if words.id else contains(words.name)),
        "status": found.get("status"),
        "event": contains(found.get("event")),
        "created_at": since(age(found.get("since"), now)),
    }


async def show_all(look: Look) -> Shown:
    """Show endpoints, and what was sent to them."""
    words = read_words(look.query.get("q", ""), FIELDS)
    endpoints = await look.db.find("webhook_list", order=("name", "id"), limit=100)
    for one in endpoints:
        one["may_manage"] = await look.db.may("manage", one["owner_id"])
    where = conditions(words, datetime.now(UTC))
    listed = await newest(look, "webhook_delivery_list", where, COLUMNS)
    return Shown(
        "webhooks.html",
        {"endpoints": endpoints, "listed": listed, "words": words.text, "fields": FIELDS},
    )


async def show_delivery(look: Look) -> Shown:
    """Show one message with its payload."""
    row = await look.db.one("webhook_delivery_list", "delivery", look.number("id"))
    may = await look.db.may("manage", row["owner_id"])
    return Shown("webhook_delivery.html", {"delivery": row, "may_manage": may})


async def test(look: Look) -> Gone:
    """Send a test message to an endpoint."""
    rows = await look.db.call("test_webhook_endpoint", "id", p_endpoint_id=look.number("id"))
    return Gone(f"/webhooks/deliveries/{rows[0]['id']}", "A test is on its way.")


async def enable(look: Look) -> Gone:
    """Tell an endpoint again, or no more."""
    is_enabled = look.form.get("enabled") == "true"
    await look.db.call(
        "update_webhook_endpoint",
        "id",
        p_endpoint_id=look.number("id"),
        p_changes=look.db.json({"enabled": is_enabled}),
    )
    return Gone("/webhooks", "It is told again." if is_enabled else "It is told no more.")


async def redeliver(look: Look) -> Gone:
    """Send a message again."""
    number = look.number("id")
    await look.db.call("redeliver", "id", p_delivery_id=number)
    return Gone(f"/webhooks/deliveries/{number}", "It goes out again.")


PAGE = Page(
    "Webhooks",
    "/webhooks",
    "w",
    views=(
        View("/webhooks", show_all, live=True),
        View("/webhooks/deliveries/{id}", show_delivery, live=True),
    ),
    acts=(
        Act("/webhooks/{id}/test", test),
        Act("/webhooks/{id}/enable", enable),
        Act("/webhooks/deliveries/{id}/again", redeliver),
    ),
)
