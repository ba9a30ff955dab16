"""The sandbox as an ASGI app: `/v1` is the API, `/control` moves the world behind it."""

from __future__ import annotations

import asyncio
import hmac
import json
import random
import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgfleet_local.sandboxes.golioth import api
from pgfleet_local.sandboxes.golioth.api import device_object, http_error, refusal
from pgfleet_local.sandboxes.golioth.pipelines import push
from pgfleet_local.sandboxes.golioth.project import Project, SwitchError, micros_of


class Gate:
    """What a request passes before it is answered: faults and the key. It keeps a record."""

    def __init__(self, app: ASGIApp, project: Project) -> None:
        self._app = app
        self._project = project
        self._random = random.Random(7)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = {"method": scope["method"], "path": scope["path"], "status": None}
        self._project.requests.append(record | {"at": time.time()})
        record = self._project.requests[-1]
        if self._project.faults.slow_seconds:
            await asyncio.sleep(self._project.faults.slow_seconds)
        breaks_off = self._hits(self._project.faults.reset_share)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                if breaks_off:
                    # More is promised than is ever sent: the server then cuts the connection.
                    message = {**message, "headers": [(b"content-length", b"1000000")]}
            await send(message)

        refused = self._refusal(dict(scope["headers"]))
        await (refused or self._app)(scope, receive, answer)

    def _hits(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _refusal(self, headers: dict[bytes, bytes]) -> Response | None:
        faults = self._project.faults
        if faults.down:
            return refusal(503, "the service is unavailable")
        if faults.limit_burst > 0 or self._hits(faults.limit_share):
            faults.limit_burst = max(faults.limit_burst - 1, 0)
            told = {"Retry-After": "1"} if faults.retry_after else {}
            return refusal(429, "too many requests", told)
        if faults.error_burst > 0 or self._hits(faults.error_share):
            faults.error_burst = max(faults.error_burst - 1, 0)
            return refusal(500, "internal error")
        if not hmac.compare_digest(headers.get(b"x-api-key", b""), self._project.key.encode()):
            told = {"WWW-Authenticate": "Bearer"}
            return refusal(401, "request is not authenticated", told)
        return None


async def add_devices(request: Request) -> Response:
    """Make `count` devices, each with the given facts."""
    body, project = await _body(request), _project(request)
    count = int(body.pop("count", 1))
    made = [project.add_device(**body) for _ in range(count)]
    return JSONResponse({"data": [device_object(one) for one in made]}, 201)


async def change_devices(request: Request) -> Response:
    """Change `devices` {id: {name, tags, state}} as somebody at the console does, or show them."""
    project = _project(request)
    for number, changes in (await _body(request)).items():
        device = project.devices[number]
        device.name = changes.get("name", device.name)
        device.state = changes.get("state", device.state)
        if "tags" in changes:
            device.tag_ids = [project.add_tag(one) for one in changes["tags"]]
        device.updated_at = time.time()
    shown = {
        one.id: {
            "name": one.name,
            "tags": sorted(project.tags[tag] for tag in one.tag_ids),
            "state": one.state,
        }
        for one in project.devices.values()
    }
    return JSONResponse(shown)


async def report(request: Request) -> Response:
    """Let devices report `points` [[device id, time, data, path]]; with `push`, also push them."""
    body, project = await _body(request), _project(request)
    made = [
        project.add_point(device, micros_of(at), data, path)
        for device, at, data, path in body["points"]
    ]
    if body.get("push", True):
        await push(project, made)
    return JSONResponse({"points": project.points, "pushed": project.pushed}, 201)


async def settings(request: Request) -> Response:
    """Set the `webhook`: its url, headers and shape; or the `key`."""
    body, project = await _body(request), _project(request)
    project.webhook.update(body.get("webhook", {}))
    project.key = body.get("key", project.key)
    return JSONResponse({"webhook": project.webhook, "pushed": project.pushed})


async def faults(request: Request) -> Response:
    """Flip switches, or tell how they are."""
    project = _project(request)
    if request.method == "POST":
        try:
            project.faults.set(await _body(request))
        except SwitchError as raised:
            raise HTTPException(400, str(raised)) from raised
    return JSONResponse(project.faults.state())


async def requests(request: Request) -> Response:
    """Tell which requests came, and how each was answered."""
    return JSONResponse({"requests": list(_project(request).requests)})


async def reset(request: Request) -> Response:
    """Forget everything but the key."""
    _project(request).clear()
    return Response(status_code=204)


def create_sandbox(key: str) -> Starlette:
    """Return the sandbox of one project with this API key."""
    project = Project(key)
    inner = Starlette(routes=list(api.ROUTES), exception_handlers={HTTPException: http_error})
    inner.state.project = project
    control = [
        Route("/devices", add_devices, methods=["POST"]),
        Route("/change", change_devices, methods=["POST"]),
        Route("/report", report, methods=["POST"]),
        Route("/settings", settings, methods=["POST"]),
        Route("/faults", faults, methods=["GET", "POST"]),
        Route("/requests", requests),
        Route("/reset", reset, methods=["POST"]),
    ]
    sandbox = Starlette(
        routes=[Mount("/v1", app=Gate(inner, project)), Mount("/control", routes=control)],
        exception_handlers={HTTPException: http_error},
    )
    sandbox.state.project = project
    return sandbox


def _project(request: Request) -> Project:
    project: Project = request.app.state.project
    return project


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as raised:
        raise HTTPException(400, "the body is not JSON") from raised
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is not an object")
    return body
