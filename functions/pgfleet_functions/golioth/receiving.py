"""Storing what is pushed, many messages by one statement, before any of them is answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError, Unavailable

MOST_AT_ONCE = 200
# Whoever calls is to be answered within a tenth of a second; what comes beyond is told to wait.
MOST_WAITING = 5_000
# Of one address, so that whoever floods his own keeps nobody else out.
MOST_OF_ONE = 1_000

_RECEIVE = "select fleet.worker_receive_webhooks(%s)"


class Receiving:
    """Collects messages while the statement before is under way, and stores them together."""

    def __init__(self, pool: Pool, stored: Callable[[], None]) -> None:
        self._pool = pool
        # Told whenever something new was stored.
        self._stored = stored
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[str]]] = []
        self._of_each: Counter[str] = Counter()
        self._some = asyncio.Event()

    async def receive(self, message: dict[str, Any]) -> str:
        """Store a message and give what came of it. Raises `FunctionError`."""
        secret = message["token"]
        if len(self._waiting) >= MOST_WAITING or self._of_each[secret] >= MOST_OF_ONE:
            raise Unavailable(
                "too many messages at once",
                details="webhook_overload",
                hint="Send it again in a moment.",
                headers={"Retry-After": "2"},
            )
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, answered))
        self._of_each[secret] += 1
        self._some.set()
        try:
            return await answered
        finally:
            self._of_each[secret] -= 1
            if not self._of_each[secret]:
                del self._of_each[secret]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Store while the block lasts."""
        storing = asyncio.create_task(self._store_for_ever(), name="receive webhooks")
        try:
            yield
        finally:
            storing.cancel()
            await asyncio.gather(storing, return_exceptions=True)
            for _, answered in self._waiting:
                answered.cancel()

    async def _store_for_ever(self) -> None:
        while True:
            await self._some.wait()
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            if not self._waiting:
                self._some.clear()
            try:
                answers = await fetch_value(self._pool, _RECEIVE, Jsonb([one for one, _ in batch]))
            except FunctionError as error:
                # One that the database cannot take must not be the end of the others.
                if len(batch) > 1 and error.status_code == 422:
                    await self._store_one_by_one(batch)
                else:
                    self._answer(batch, [error] * len(batch))
                continue
            except Exception as error:
                self._answer(batch, [error] * len(batch))
                continue
            self._answer(batch, answers)

    async def _store_one_by_one(
        self, batch: list[tuple[dict[str, Any], asyncio.Future[str]]]
    ) -> None:
        for one in batch:
            try:
                answers = await fetch_value(self._pool, _RECEIVE, Jsonb([one[0]]))
            except FunctionError as error:
                answers = [error]
            self._answer([one], answers)

    def _answer(
        self, batch: list[tuple[dict[str, Any], asyncio.Future[str]]], answers: list[Any]
    ) -> None:
        for (_, answered), answer in zip(batch, answers, strict=True):
            if answered.done():
                continue
            if isinstance(answer, Exception):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)
        if "stored" in answers:
            self._stored()
