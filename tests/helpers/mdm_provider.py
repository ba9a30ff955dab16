"""Providers at work over real HTTP, without a database: what they call is kept."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tests.helpers.sandbox import FULL

from pgfleet_functions.integrations.calls import Api, Call, CallFailed, Connection
from pgfleet_functions.mdm.provider import Order, Provider, Report
from pgfleet_functions.mdm.providers import PROVIDERS
from pgfleet_functions.outgoing.transport import Outgoing, trusted_authorities

AUTHORITIES = trusted_authorities()


class Recorder:
    """Makes providers and keeps the calls they make."""

    def __init__(self, base_url: str, key: str = FULL, *, allow_private: bool = True) -> None:
        self.base_url = base_url
        self.key = key
        self.allow_private = allow_private
        self.begun: list[Call] = []
        self.calls: list[Call] = []
        self.pauses: list[float | None] = []
        self.slowed: list[str] = []

    def __call__(self, kind: str, work: Any, **settings: Any) -> Any:
        """Do something with a provider, and give what came of it."""

        async def enter(_endpoint: str) -> None:
            return None

        async def begin(call: Call) -> int:
            self.begun.append(call)
            return len(self.begun)

        async def slow_down(seconds: float | None, endpoint: str) -> None:
            self.pauses.append(seconds)
            self.slowed.append(endpoint)

        async def run() -> Any:
            async with aclosing(Outgoing(AUTHORITIES)) as outgoing:
                user = PROVIDERS[kind].user
                connection = Connection(
                    integration_id=7,
                    base_url=self.base_url,
                    secret=self.key,
                    user=user,
                    outgoing=outgoing,
                    allow_private=self.allow_private,
                    enter=enter,
                    begin=begin,
                    record=self.calls.append,
                    slow_down=slow_down,
                )
                return await work(PROVIDERS[kind].make(Api(connection, 11, 2), settings))

        return asyncio.run(run())

    def send(self, order: Order, kind: str = "simplemdm", **settings: Any) -> Report:
        """Send an order."""
        report: Report = self(kind, lambda one: one.send(order), **settings)
        return report

    def look_at(self, order: Order) -> Report:
        """Look after an order."""
        [(_, report)] = self.look([order])
        return report

    def look(self, orders: list[Order]) -> list[tuple[Order, Report]]:
        """Look after several orders."""

        async def look(provider: Provider) -> list[tuple[Order, Report]]:
            return [found async for found in provider.look(orders)]

        found: list[tuple[Order, Report]] = self("simplemdm", look)
        return found

    def failure(self, order: Order) -> CallFailed:
        """Send an order that fails."""
        with pytest.raises(CallFailed) as raised:
            self.send(order)
        return raised.value


def order(device: int | str, command_type: str, **payload: Any) -> Order:
    return Order(11, 2, command_type, payload, str(device))


def sent(what: Order, report: Report) -> Order:
    at = datetime.fromisoformat(report.result["sent_at"])
    return replace(what, sent_at=at, before=report.result)
