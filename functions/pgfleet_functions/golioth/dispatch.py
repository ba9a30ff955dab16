"""The functions of Golioth: auto-sync-cron, which the job calls, and what works behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.beside import beside
from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.dispatching import Dispatcher, Dispatchers
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.golioth.client import BASE_URL, KEY_HEADER, Golioth
from pgfleet_functions.golioth.inbox import claim_inboxes
from pgfleet_functions.golioth.pull import claim_pulls
from pgfleet_functions.integrations.connections import Connections, Kind
from pgfleet_functions.outgoing.transport import Outgoing
from pgfleet_functions.pokes import seconds_to_wait
from pgfleet_functions.shares import Bounds
from pgfleet_functions.telemetry import Telemetry

PROVIDERS: Mapping[str, Kind[Golioth]] = {
    "golioth": Kind(Golioth, base_url=BASE_URL, key_header=KEY_HEADER)
}
BOUNDS: Mapping[str, Bounds] = {
    "pull": Bounds(total=32, owner=2, way=1),
    "inbox": Bounds(total=16, owner=2, way=1),
}

# Slots are kept, however often it is asked.
CALL_SECONDS = 30.0

_CALL = "select fleet.worker_call_syncs()"


def dispatchers(
    pool: Pool, outgoing: Outgoing, telemetry: Telemetry, *, allow_private: bool
) -> dict[str, Dispatchers]:
    """Return what pulls, and what works on what was pushed."""
    connections: Connections[Golioth] = Connections(
        pool, outgoing, PROVIDERS, allow_private=allow_private, called="Golioth"
    )
    pull = partial(claim_pulls, pool, connections, telemetry)
    inbox = partial(claim_inboxes, pool, telemetry)
    return {
        "golioth-pull": Dispatchers([Dispatcher("golioth pull", pull, BOUNDS["pull"])]),
        "golioth-inbox": Dispatchers([Dispatcher("golioth inbox", inbox, BOUNDS["inbox"])]),
    }


async def call_syncs(request: Request, _: dict[str, Any]) -> Response:
    """POST /auto-sync-cron: note which pulls are due, and begin them; 202 at once."""
    verdicts = await fetch_value(request.app.state.pool, _CALL)
    pulls: Dispatchers = request.app.state.functions["golioth-pull"]
    seconds = seconds_to_wait(request)
    if seconds is None:
        pulls.wake()
    elif (counts := await pulls.work(seconds)) is not None:
        headers = {"Preference-Applied": "wait"}
        return JSONResponse({"verdicts": verdicts, "done": counts}, headers=headers)
    return JSONResponse({"accepted": True, "verdicts": verdicts}, status_code=202)


@asynccontextmanager
async def calling_syncs(pool: Pool, wake: Callable[[], None]) -> AsyncIterator[None]:
    """Come by in place of the job while the block lasts, where no database calls a function."""
    async with beside(_call_for_ever(pool, wake), "call syncs"):
        yield


async def _call_for_ever(pool: Pool, wake: Callable[[], None]) -> None:
    while True:
        with suppress(FunctionError):
            if (await fetch_value(pool, _CALL)).get("due"):
                wake()
        await asyncio.sleep(CALL_SECONDS)
