"""The management API: devices, LightDB State, LightDB Stream, with the traps of the real one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.sandboxes.golioth.project import (
    ORGANIZATION,
    PROJECT,
    Device,
    Point,
    Project,
    micros_of,
    stamp,
)
from pgfleet_local.sandboxes.golioth.query import answer, seconds_of

LARGEST_PAGE = 100
# How HTTP says what gRPC says.
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14, 504: 4}


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Answer in the shape that every error has."""
    body = {"code": CODES.get(status, 2), "message": message, "details": []}
    return JSONResponse(body, status_code=status, headers=headers)


def http_error(_: Request, raised: Exception) -> Response:
    """Answer an exception of a handler."""
    assert isinstance(raised, HTTPException)
    return refusal(raised.status_code, raised.detail)


def project_of(request: Request) -> Project:
    """Give the project that the app serves; another one is not open to its key."""
    if request.path_params.get("project", PROJECT) != PROJECT:
        raise HTTPException(403, "permission denied")
    project: Project = request.app.state.project
    return project


def device_of(request: Request) -> Device:
    """Give the device that the path names."""
    number = request.path_params["device"]
    if not re.fullmatch(r"[0-9a-f]{24}", number):
        raise HTTPException(400, "the provided hex string is not a valid ObjectID")
    found = project_of(request).devices.get(number)
    if found is None:
        raise HTTPException(404, "device not found")
    return found


def device_object(device: Device, data: Any = None) -> dict[str, Any]:
    """Give a device as the API shows it; what is not set is null, or is not there at all."""
    ids = {"blueprintId": device.blueprint_id, "cohortId": device.cohort_id}
    return {
        "id": device.id,
        "hardwareIds": device.hardware_ids,
        "name": device.name,
        "createdAt": stamp(device.created_at),
        "updatedAt": stamp(device.updated_at),
        "tagIds": device.tag_ids,
        **{name: value for name, value in ids.items() if value is not None},
        "data": data,
        "enabled": device.enabled,
        "lastReport": stamp(device.last_report),
        "status": "-",
        "metadata": {
            "status": "-",
            "update": device.firmware,
            "lastReport": stamp(device.last_report),
            "lastSeenOnline": stamp(device.last_report),
            "lastSeenOffline": None,
            "lastSettingsStatus": None,
        },
    }


async def show_project(request: Request) -> Response:
    """GET the project."""
    project_of(request)
    found = {"id": PROJECT, "name": "Acme demo", "organizationId": ORGANIZATION, "roles": []}
    return JSONResponse({"data": found})


async def list_devices(request: Request) -> Response:
    """GET devices, page by page; all tags have to match."""
    query = request.query_params
    tags = set(query.getlist("tags"))
    found = [
        one
        for one in project_of(request).devices.values()
        if tags <= set(one.tag_ids)
        and query.get("blueprintId") in (None, one.blueprint_id)
        and query.get("cohortId") in (None, one.cohort_id)
        and query.get("deviceName") in (None, one.name)
        and (query.get("term") or "") in one.name
    ]
    path = query.get("statePath")
    listed = [device_object(one, None if path is None else _at(one.state, path)) for one in found]
    return _page(listed, query.get("page", "0"), query.get("perPage", str(LARGEST_PAGE)))


async def show_device(request: Request) -> Response:
    """GET a device."""
    return JSONResponse({"data": device_object(device_of(request))})


async def change_device(request: Request) -> Response:
    """PATCH a device."""
    device, body = device_of(request), await _json(request)
    named = [*body.get("tagIds", ()), *body.get("addTagId", ())]
    if not all(one in project_of(request).tags for one in named):
        raise HTTPException(404, "tag not found")
    others = (one for one in project_of(request).devices.values() if one is not device)
    if "name" in body and any(one.name == body["name"] for one in others):
        raise HTTPException(409, "device name already being used")
    device.name = body.get("name", device.name)
    device.enabled = body.get("enabled", device.enabled)
    device.tag_ids = body.get("tagIds", device.tag_ids)
    device.tag_ids = [one for one in device.tag_ids if one not in body.get("removeTagId", ())]
    device.tag_ids += [one for one in body.get("addTagId", ()) if one not in device.tag_ids]
    device.updated_at = time.time()
    return JSONResponse({"data": device_object(device)})


async def list_tags(request: Request) -> Response:
    """GET tags, page by page."""
    query = request.query_params
    found = [
        {"id": number, "name": name, "projectId": PROJECT}
        for number, name in project_of(request).tags.items()
    ]
    return _page(found, query.get("page", "0"), query.get("perPage", str(LARGEST_PAGE)))


async def create_tag(request: Request) -> Response:
    """POST a tag."""
    project, name = project_of(request), (await _json(request)).get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,63}", name):
        raise HTTPException(400, "can use only use characters a-z, A-Z, 0-9, _, . and -")
    if name in project.tags.values():
        raise HTTPException(409, "tag name already being used")
    return JSONResponse({"data": {"id": project.add_tag(name), "name": name}})


async def read_state(request: Request) -> Response:
    """GET a path of LightDB State; one that is not there is null, not an error."""
    return JSONResponse({"data": _at(device_of(request).state, _path(request))})


async def write_state(request: Request) -> Response:
    """POST, PUT or PATCH a path of LightDB State: objects are merged."""
    device, value = device_of(request), await _json(request)
    parts = [part for part in _path(request).split("/") if part]
    for part in reversed(parts):
        value = {part: value}
    if not isinstance(value, dict):
        raise HTTPException(400, "the root must be an object")
    _merge(device.state, value)
    return JSONResponse({"data": _at(device.state, "/".join(parts))})


async def delete_state(request: Request) -> Response:
    """DELETE a path of LightDB State; its parent stays, if empty."""
    *parents, leaf = [part for part in _path(request).split("/") if part] or [""]
    holder = _at(device_of(request).state, "/".join(parents))
    if isinstance(holder, dict):
        holder.pop(leaf, None)
    return JSONResponse({})


async def read_stream(request: Request) -> Response:
    """POST a query of the stream of the project, or of one device."""
    project, body = project_of(request), await _json(request)
    wanted = set(body.get("deviceId") or [])
    if "device" in request.path_params:
        device = device_of(request)
        if device.id in project.faults.broken_devices:
            return refusal(500, "internal error")
        wanted = {device.id}
    query = body.get("query") or json.loads(body.get("encodedQuery") or "{}")
    try:
        found: Sequence[Point] = project.between(*_bounds(body))
        if wanted:
            found = [one for one in found if one.device_id in wanted]
        page, size = int(body.get("page", 0)), int(body.get("perPage", LARGEST_PAGE))
        if any(one.get("agg") for one in query.get("fields") or []):
            return _page(answer(found, query), page, size)
        if query.get("filters"):
            found = [one for one in found if answer([one], query)]
        shown = answer(found[page * size : (page + 1) * size], query)
    except (ValueError, KeyError, TypeError) as error:
        raise HTTPException(400, f"invalid query: {error}") from error
    _check_page(page, size)
    return JSONResponse({"list": shown, "page": page, "perPage": size, "total": len(found)})


def _bounds(body: dict[str, Any]) -> tuple[int, int]:
    if body.get("interval"):
        now = time.time()
        return int((now - seconds_of(body["interval"])) * 1e6), int((now + 1) * 1e6)
    return micros_of(body["start"]), micros_of(body["end"])


def _page(found: list[Any], page: Any, size: Any) -> Response:
    try:
        page, size = int(page), int(size)
    except ValueError as error:
        raise HTTPException(400, "invalid page") from error
    _check_page(page, size)
    shown = found[page * size : (page + 1) * size]
    return JSONResponse({"list": shown, "page": page, "perPage": size, "total": len(found)})


def _check_page(page: int, size: int) -> None:
    if page < 0 or not 1 <= size <= LARGEST_PAGE:
        raise HTTPException(400, "perPage must be between 1 and 100")


def _path(request: Request) -> str:
    return str(request.path_params.get("path", ""))


def _at(tree: Any, path: str) -> Any:
    for part in path.split("/"):
        if part:
            tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise HTTPException(400, "invalid JSON") from error


_P = "/projects/{project}"
ROUTES: tuple[BaseRoute, ...] = (
    Route(_P, show_project),
    Route(f"{_P}/devices", list_devices),
    Route(f"{_P}/devices/{{device}}", show_device),
    Route(f"{_P}/devices/{{device}}", change_device, methods=["PATCH"]),
    Route(f"{_P}/devices/{{device}}/data", read_state),
    Route(f"{_P}/devices/{{device}}/data/{{path:path}}", read_state),
    Route(
        f"{_P}/devices/{{device}}/data/{{path:path}}",
        write_state,
        methods=["POST", "PUT", "PATCH"],
    ),
    Route(f"{_P}/devices/{{device}}/data/{{path:path}}", delete_state, methods=["DELETE"]),
    Route(f"{_P}/tags", list_tags),
    Route(f"{_P}/tags", create_tag, methods=["POST"]),
    Route(f"{_P}/devices/{{device}}/stream", read_stream, methods=["POST"]),
    Route(f"{_P}/stream", read_stream, methods=["POST"]),
)
