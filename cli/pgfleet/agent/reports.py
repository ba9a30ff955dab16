"""Reports of what ended: those that come together go in one call, which may claim as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pgfleet.agent.client import Answer, Command, DeviceClient, Ended
from pgfleet.agent.http import is_transient
from pgfleet.agent.tasks import end
from pgfleet.errors import FleetError

# As many as the server takes in one call.
_MOST_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Claims:
    """How a report may bring further commands along.

    `room` reserves slots, of which so many are free once the report is answered; `taken` gets
    what came, for how many had been asked for.
    """

    room: Callable[[int], int]
    taken: Callable[[list[Command], int], None]


class Reports:
    """Report for all jobs of one device; nothing waits for more than the call before it."""

    def __init__(self, client: DeviceClient, journal_id: str, claims: Claims) -> None:
        self._client = client
        self._journal_id = journal_id
        self._claims = claims
        self._waiting: list[tuple[Ended, asyncio.Future[Answer]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def finish(self, ended: Ended) -> Answer:
        """Give the server's answer to this report; raises FleetError as the client does."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ended, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def close(self) -> None:
        """Stop reporting; the journal keeps what was not answered."""
        if self._sending is not None:
            await end(self._sending)
        for _, answer in self._waiting:
            answer.cancel()

    async def _send(self) -> None:
        # Whatever ends in the same turn of the loop goes along.
        await asyncio.sleep(0)
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            batch = [(ended, answer) for ended, answer in batch if not answer.done()]
            room = self._claims.room(len(batch)) if batch else 0
            commands: list[Command] = []
            try:
                if len(batch) == 1 and room == 0:
                    await self._send_one(*batch[0])
                elif batch:
                    commands = await self._send_all(batch, room)
            except Exception as error:
                # Each job says what broke; none may wait for ever.
                for _, answer in batch:
                    _fail(answer, error)
            finally:
                if room:
                    self._claims.taken(commands, room)

    async def _send_all(
        self, batch: list[tuple[Ended, asyncio.Future[Answer]]], room: int
    ) -> list[Command]:
        try:
            answers, commands = await self._client.work(
                [ended for ended, _ in batch], room, self._journal_id
            )
        except FleetError as error:
            if is_transient(error) or len(batch) == 1:
                for _, answer in batch:
                    _fail(answer, error)
            else:
                # One of them cannot be stored: each hears for itself.
                for ended, answer in batch:
                    await self._send_one(ended, answer)
            return []
        for (_, answer), found in zip(batch, answers, strict=True):
            if not answer.done():
                answer.set_result(found)
        return commands

    async def _send_one(self, ended: Ended, answer: asyncio.Future[Answer]) -> None:
        try:
            found = await self._client.finish(ended.command_id, ended.attempt, ended.outcome)
        except FleetError as error:
            _fail(answer, error)
        else:
            if not answer.done():
                answer.set_result(found)


def _fail(answer: asyncio.Future[Answer], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
