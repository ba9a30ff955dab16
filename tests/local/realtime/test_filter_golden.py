"""Whom filters let hear what, compared with what the SQL of hosted Realtime answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

GOLDEN = json.loads((Path(__file__).parent / "golden" / "filters.json").read_text())
CASES = [(number, case) for number, case in enumerate(GOLDEN["cases"])]

# What is told otherwise here, and why.
OTHERWISE: dict[str, str] = {
    "c": "hosted cuts char(n) to its first character on the way; here the value is whole",
    "commit_timestamp": "left out of the golden file",
}
# A comma ends a filter, unless it is quoted; the file was made below the part that sees to that.
SPELLED = {'j=eq.{"a": [1, 2]}': r'j=eq."{\"a\": [1, 2]}"'}
# The file was made below the part that reads a filter's text, which refuses these in other words.
READ_ELSEWHERE = {
    " id = eq.1": '[" eq","1"]',
    "id=foo.1": '["foo","1"]',
    "t=fts.abc": '["fts","abc"]',
    "t=in.(abc": "`in` filter value must be wrapped by parentheses",
    # Where the table is not published the hosted server does not come to ask for its columns.
    None: "Please check Realtime is enabled",
}


def without(record: Any) -> Any:
    return record and {name: value for name, value in record.items() if name not in OTHERWISE}


def heard(data: dict[str, Any]) -> dict[str, Any]:
    """Give a change in the shape of the golden file."""
    return {
        "type": data["type"],
        "record": without(data.get("record") or None),
        "old_record": without(data.get("old_record") or None),
        "columns": data["columns"],
        "errors": data["errors"] or [],
    }


def wanted(event: dict[str, Any]) -> dict[str, Any]:
    columns = GOLDEN["columns"][event["columns"]] or []
    return {
        **event,
        "record": without(event["record"]),
        "old_record": without(event["old_record"]),
        "columns": columns,
    }


@pytest.fixture(scope="module")
def told(shared_server: Any) -> dict[int, list[Any]]:
    """Subscribe with each filter, run all statements, and give what each subscription was told.

    The statements are one transaction: the golden server read them when the last was done.
    """
    shared_server.sql(";".join(GOLDEN["ddl"]))
    wire = shared_server.open(shared_server.sign(sub=GOLDEN["subject"]))
    outcomes: dict[int, list[Any]] = {}
    names = {}
    for number, case in CASES:
        binding = {"event": "*", "schema": "public", "table": case["table"]}
        if case["filter"] is not None:
            binding["filter"] = SPELLED.get(case["filter"], case["filter"])
        names[f"realtime:golden-{number}"] = number
        reply = wire.ask(
            f"realtime:golden-{number}",
            "phx_join",
            {"config": {"postgres_changes": [binding]}},
        )
        assert reply["status"] == "ok", case
        answer = wire.system(f"golden-{number}")
        outcomes[number] = [] if answer["status"] == "ok" else [answer["message"]]
    shared_server.sql(";".join(GOLDEN["statements"]))
    # The whole table is subscribed to as well, so its last row tells that all has been said.
    shared_server.wait_until(lambda: _is_last(wire))
    for message in wire.settled():
        if message.event == "postgres_changes":
            outcomes[names[message.topic]].append(heard(message.payload["data"]))
    shared_server.stack.close()
    return outcomes


def _is_last(wire: Any) -> bool:
    wire.ask("phoenix", "heartbeat", {})
    return any(
        message.event == "postgres_changes"
        and message.topic == "realtime:golden-0"
        and message.payload["data"].get("record", {}).get("id") == 5
        for message in wire.unread
    )


@pytest.mark.parametrize(
    ("number", "case"),
    CASES,
    ids=[f"{number}-{case['table']}-{case['filter']}" for number, case in CASES],
)
def test_a_subscription_hears_what_hosted_realtime_tells(
    told: dict[int, list[Any]], number: int, case: dict[str, Any]
) -> None:
    if case["error"] is None:
        assert told[number] == [wanted(event) for event in case["events"]]
        return
    [message] = told[number]
    assert READ_ELSEWHERE.get(case["filter"], case["error"]) in message
