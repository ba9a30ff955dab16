"""GET /health: whether the functions reach the database, and whether it ticks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError


async def health(request: Request) -> Response:
    """Answer 200 while the database ticks, else 503."""
    try:
        found = await fetch_value(request.app.state.pool, "select fleet.worker_health()")
    except FunctionError as error:
        answer = {"ok": False, "message": error.message, "details": error.details}
        return JSONResponse(answer, status_code=503)
    found = found or {"ok": False, "last_tick_at": None, "tick_age_seconds": None}
    return JSONResponse(found, status_code=200 if found["ok"] else 503)
