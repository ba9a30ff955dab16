from __future__ import annotations

from typing import Any


def create(pgfleet: Any, *words: str) -> dict[str, Any]:
    answer = pgfleet("webhook", "create", *words, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = answer.data
    return found


def test_an_endpoint_is_made_tried_out_and_removed(pgfleet: Any) -> None:
    made = create(
        pgfleet,
        *("https://example.com/hooks", "--event", "run.failed", "--event", "schedule.*"),
        *("--name", "Ops"),
    )
    assert made["secret"].startswith("whsec_")
    [listed] = pgfleet("webhook", "list", "--json").data
    assert (listed["address"], listed["events"], listed["waiting"]) == (
        "https://example.com/hooks",
        ["run.failed", "schedule.*"],
        0,
    )
    sent = pgfleet("webhook", "test", "ops", "--json").data
    [waiting] = pgfleet("webhook", "deliveries", "--endpoint", "ops", "--json").data
    assert (waiting["id"], waiting["event"], waiting["status"]) == (
        sent["id"],
        "webhook.test",
        "pending",
    )
    assert pgfleet("webhook", "redeliver", str(sent["id"]), "--json").data["status"] == "pending"

    rotated = pgfleet("webhook", "rotate", "ops", "--keep", "1 hour", "--json").data
    assert rotated["secret"] not in ("", made["secret"])
    off = pgfleet("webhook", "update", "ops", "--disable", "--json").data
    assert (off["enabled"], off["disabled_reason"]) == (False, "it was disabled by hand")
    assert pgfleet("webhook", "deliveries", "--status", "failed", "--json").data != []

    assert pgfleet("webhook", "delete", "ops", "--dry-run").code == 0
    assert pgfleet("webhook", "delete", "ops").code == 1
    assert pgfleet("webhook", "delete", str(made["id"]), "--yes").code == 0
    assert pgfleet("webhook", "list", "--json").data == []


def test_a_mailbox_and_wrong_fields(pgfleet: Any) -> None:
    made = create(pgfleet, "--email", "ops@example.com")
    assert "secret" not in made
    refused = pgfleet("webhook", "create", "http://10.0.0.1/", "--event", "run.fialed")
    assert refused.code == 1
    assert "url: " in refused.err
    assert "events: " in refused.err
    missing = pgfleet("webhook", "test", "nobody")
    assert (missing.code, "webhook_endpoint_not_found" in missing.err) == (1, True)
