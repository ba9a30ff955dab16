"""/schedule-api: tasks as REST, for people's own scripts; thin over the functions in SQL.

Every path is served below /schedule-api, below /schedule-api/api/schedule, and below
/api/schedule, so that a script written for that address changes nothing but the host.
"""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError, InvalidBody
from pgfleet_functions.http import read_object
from pgfleet_functions.task_api.openapi import TASK_STATUSES, document

# A schedule may name thousands of devices.
LARGEST_TASK = 1024 * 1024
LARGEST_ID = 2**63 - 1
MOST_ROWS = 1000

# The database speaks SQL; who has REST only is told what to call.
_HINTS = {
    "select * from schedule_list": "GET /tasks",
    "select * from device_list": "GET /rest/v1/device_list?select=id,hostname",
    "select * from group_list": "GET /rest/v1/group_list?select=id,name",
    "select name, description from command_types": "GET /rest/v1/command_types?select=name",
}
_NOT_REST = ("select ", "pgfleet ")


async def list_tasks(request: Request) -> Response:
    """Answer the caller's tasks."""
    args = _page(request, "status", "task_type")
    if args.get("status") not in (None, *TASK_STATUSES):
        raise InvalidBody(
            f'status: "{args["status"][:60]}" is no status of a task',
            details="query_invalid",
            hint=f"Use one of: {', '.join(TASK_STATUSES)}.",
        )
    return await _act(request, "list_tasks", args)


async def create_task(request: Request) -> Response:
    """Create a task and answer it with what is probably not meant."""
    claims = await _claims(request)
    spec = await read_object(request, LARGEST_TASK)
    return await _act(request, "create_task", {"spec": spec}, claims=claims, status_code=201)


async def get_task(request: Request) -> Response:
    """Answer one task."""
    return await _act(request, "get_task", _id(request))


async def update_task(request: Request) -> Response:
    """Change what the body names."""
    claims = await _claims(request)
    changes = await read_object(request, LARGEST_TASK)
    return await _act(request, "update_task", {**_id(request), "changes": changes}, claims=claims)


async def delete_task(request: Request) -> Response:
    """Delete a task with its history."""
    return await _act(request, "delete_task", _id(request))


async def pause_task(request: Request) -> Response:
    """Let a task rest."""
    reason = request.query_params.get("reason")
    return await _act(request, "pause_task", {**_id(request), "reason": reason})


async def resume_task(request: Request) -> Response:
    """Let a task go on."""
    return await _act(request, "resume_task", _id(request))


async def execute_task(request: Request) -> Response:
    """Run a task now; the same Idempotency-Key again gives the same execution."""
    key = request.headers.get("idempotency-key")
    return await _act(request, "execute_task", {**_id(request), "idempotency_key": key})


async def list_executions(request: Request) -> Response:
    """Answer the history of a task, the newest first."""
    return await _act(request, "list_executions", {**_id(request), **_page(request)})


async def stats(request: Request) -> Response:
    """Answer the caller's tasks and executions in numbers."""
    return await _act(request, "stats", {})


async def openapi(_: Request) -> Response:
    """Answer the description of this API."""
    return JSONResponse(document())


def schedule_api_routes() -> list[BaseRoute]:
    """Return the routes, once for each address that they are known by."""
    return [
        Route("/schedule-api/openapi.json", openapi, methods=["GET"]),
        Mount("/schedule-api/api/schedule", routes=_task_routes()),
        Mount("/schedule-api", routes=_task_routes()),
        Mount("/api/schedule", routes=_task_routes()),
    ]


def _task_routes() -> list[BaseRoute]:
    return [
        Route("/tasks", list_tasks, methods=["GET"]),
        Route("/tasks", create_task, methods=["POST"]),
        Route("/tasks/{id}", get_task, methods=["GET"]),
        Route("/tasks/{id}", update_task, methods=["PUT", "PATCH"]),
        Route("/tasks/{id}", delete_task, methods=["DELETE"]),
        Route("/tasks/{id}/pause", pause_task, methods=["POST"]),
        Route("/tasks/{id}/resume", resume_task, methods=["POST"]),
        Route("/tasks/{id}/execute", execute_task, methods=["POST"]),
        Route("/tasks/{id}/executions", list_executions, methods=["GET"]),
        Route("/tasks/{id}/history", list_executions, methods=["GET"]),
        Route("/stats", stats, methods=["GET"]),
    ]


async def _claims(request: Request) -> dict[str, Any]:
    claims: dict[str, Any] = await request.app.state.user_tokens.verify(request)
    return claims


async def _act(
    request: Request,
    call: str,
    args: dict[str, Any],
    *,
    claims: dict[str, Any] | None = None,
    status_code: int = 200,
) -> Response:
    """Do one call as the person whose token this is; the database decides what they may."""
    if claims is None:
        claims = await _claims(request)
    state = request.app.state
    try:
        answer = await fetch_value(
            state.read_pool if request.method == "GET" else state.pool,
            "select fleet.worker_as_user(%s, %s, %s)",
            Jsonb(claims),
            call,
            Jsonb(args),
        )
    except FunctionError as error:
        raise _in_words_of_tasks(error) from error
    return JSONResponse(answer, status_code=status_code, headers={"Cache-Control": "no-store"})


def _id(request: Request) -> dict[str, Any]:
    text = request.path_params["id"]
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= LARGEST_ID):
        raise FunctionError(
            f"task {text[:60]} was not found",
            details="schedule_not_found",
            hint="List your tasks with: GET /tasks",
            status_code=404,
        )
    return {"id": int(text)}


def _in_words_of_tasks(error: FunctionError) -> FunctionError:
    """Call a schedule a task, and give a next step that is one of REST."""
    if error.details == "schedule_not_found":
        error.message = error.message.replace("schedule ", "task ", 1)
    for command, call in _HINTS.items():
        error.hint = (error.hint or "").replace(command, call)
    if any(word in (error.hint or "") for word in _NOT_REST):
        error.hint = "See what there is with: GET /tasks; how each is called: GET /openapi.json"
    return error


def _page(request: Request, *filters: str) -> dict[str, Any]:
    """Read limit and offset, and the filters of this path; nothing else is understood."""
    known = ("limit", "offset", *filters)
    for name in request.query_params:
        if name not in known:
            raise InvalidBody(
                f'"{name[:60]}" is no parameter of this path',
                details="query_invalid",
                hint=f"The parameters are {', '.join(known)}.",
            )
    found: dict[str, Any] = {
        name: request.query_params[name] for name in filters if name in request.query_params
    }
    for name, least, most in (("limit", 1, MOST_ROWS), ("offset", 0, 2**31 - 1)):
        text = request.query_params.get(name)
        if text is None:
            continue
        if not (text.isascii() and text.isdecimal() and len(text) < 11):
            raise _out_of_bounds(name, least, most)
        if not least <= int(text) <= most:
            raise _out_of_bounds(name, least, most)
        found[name] = int(text)
    return found


def _out_of_bounds(name: str, least: int, most: int) -> InvalidBody:
    return InvalidBody(
        f"{name} must be a whole number from {least} to {most}",
        details="query_invalid",
        hint=f"Example: ?{name}={max(least, 10)}",
    )
