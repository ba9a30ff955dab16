"""What another system tells on its secret address, for systems that have a handler in SQL."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.http import unreadable

# Some are small on purpose; others bring the whole answer of a device along.
LARGEST_WEBHOOK = 256 * 1024

_TAKE = "select fleet.worker_take_integration_webhook(%s, %s)"


async def take_webhook(request: Request, token: str, body: Any) -> Response:
    """Answer 202 once it is stored; what is to be done about it is done later, by others."""
    state = request.app.state
    if not isinstance(body, dict):
        raise unreadable("it is not an object")
    try:
        taken = await fetch_value(state.pool, _TAKE, token, Jsonb(body))
    except FunctionError as error:
        if error.status_code == 404:
            raise state.attempt_limit.wrong(request, error) from error
        raise
    return JSONResponse(taken, status_code=202)
