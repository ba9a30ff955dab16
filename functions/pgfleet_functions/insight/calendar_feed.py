"""GET /calendar-feed/<token>.ics: the calendar behind a secret address."""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError


async def calendar_feed(request: Request) -> Response:
    """Answer 200 with the calendar; 304 where the program has it; 404 for a revoked address."""
    state, pool = request.app.state, request.app.state.read_pool
    token = request.path_params["token"]
    try:
        owner = await fetch_value(pool, "select fleet.worker_feed_owner(%s)", token)
        async with state.feed_turns.turn(str(owner)):
            text = await fetch_value(pool, "select fleet.worker_calendar_feed(%s)", token)
    except FunctionError as error:
        if error.status_code == 404:
            raise state.attempt_limit.wrong(request, error) from error
        raise
    body = str(text).encode()
    headers = {
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Cache-Control": "private, max-age=300",
        "Content-Disposition": 'inline; filename="pgfleet.ics"',
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="text/calendar; charset=utf-8", headers=headers)
