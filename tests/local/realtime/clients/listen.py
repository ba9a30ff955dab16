"""Drive the official Python client from a test, as tests/local/node/listen.mjs drives the other.

The first argument says what to join, lines on stdin say what to do, lines on stdout say what
happened. All of it is JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from realtime import AsyncRealtimeChannel
from supabase import acreate_client


def say(kind: str, channel: str, data: Any) -> None:
    """Report something."""
    print(json.dumps({"kind": kind, "channel": channel, "data": data}), flush=True)


def report_change(name: str, payload: Any) -> None:
    """Report a changed row under the names that the JavaScript client uses."""
    data = payload["data"]
    say(
        "change",
        name,
        {
            "eventType": str(data["type"].value),
            "new": data.get("record") or {},
            "old": data.get("old_record") or {},
            "errors": data["errors"],
        },
    )


class Driver:
    """One client and its channels."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.channels: dict[str, AsyncRealtimeChannel] = {}

    async def join(self, wish: dict[str, Any]) -> None:
        """Join one channel."""
        name = wish["name"]
        config = {
            "private": wish.get("private", False),
            "broadcast": {"ack": wish.get("ack", False), "self": wish.get("self", False)},
            "presence": {"key": "", "enabled": False},
        }
        channel = self.client.channel(name, {"config": config})
        for event in wish.get("broadcast", []):
            channel.on_broadcast(event, lambda message: say("broadcast", name, message))
        for change in wish.get("changes", []):
            channel.on_postgres_changes(
                change["event"],
                lambda payload: report_change(name, payload),
                change.get("table"),
                change.get("schema"),
                change.get("filter"),
            )
        channel.on_system(lambda payload: say("system", name, payload.model_dump()))
        self.channels[name] = channel

        def on_state(status: Any, error: Exception | None) -> None:
            say("status", name, {"status": status.value, "error": error and str(error)})

        await channel.subscribe(on_state)

    async def obey(self, order: dict[str, Any]) -> None:
        """Carry out one line of stdin."""
        match order["do"]:
            case "join":
                await self.join(order["channel"])
            case "send":
                await self.channels[order["channel"]].send_broadcast(
                    order["event"], order["payload"]
                )
                say("sent", order["channel"], "ok")
            case "set_auth":
                await self.client.realtime.set_auth(order["token"])
            case "leave":
                await self.client.remove_channel(self.channels[order["channel"]])


async def main() -> None:
    """Join, then obey until stdin ends or says quit."""
    plan = json.loads(sys.argv[1])
    client = await acreate_client(plan["url"], plan["key"])
    if plan.get("token"):
        await client.realtime.set_auth(plan["token"])
    driver = Driver(client)
    for wish in plan["channels"]:
        await driver.join(wish)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if order["do"] == "quit":
            break
        await driver.obey(order)


asyncio.run(main())
