"""How the API answers: envelopes, pages, empty bodies, and what it reads from forms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email import policy
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_local.sandboxes.simplemdm.account import Account, Device, Profile
from pgfleet_local.sandboxes.simplemdm.gate import error

DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100


def account_of(request: Request) -> Account:
    """Give the account that the app serves."""
    account: Account = request.app.state.account
    return account


def device_of(request: Request) -> Device:
    """Give the device that the path names, or answer 404."""
    device = account_of(request).devices.get(int(request.path_params["device"]))
    if device is None:
        raise HTTPException(404, "object not found")
    return device


def profile_of(request: Request) -> Profile:
    """Give the profile that the path names, or answer 404."""
    profile = account_of(request).profiles.get(int(request.path_params["profile"]))
    if profile is None:
        raise HTTPException(404, "object not found")
    return profile


def http_error(_: Request, raised: Exception) -> Response:
    """Answer an exception of a handler in the shape of the API."""
    assert isinstance(raised, HTTPException)
    return error(raised.status_code, raised.detail)


def queued() -> Response:
    """Answer 202 as the API does: nothing, said to be JSON."""
    return Response(status_code=202, media_type="application/json")


def device_object(device: Device) -> dict[str, Any]:
    """Give a device as lists and details show it."""
    return {
        "type": "device",
        "id": device.id,
        "attributes": device.attributes,
        "relationships": {
            "device_group": {"data": {"type": "device_group", "id": 12}},
            "groups": {"data": []},
            "custom_attribute_values": {"data": []},
        },
    }


def profile_object(profile: Profile) -> dict[str, Any]:
    """Give a profile as lists show it; its type is its kind."""
    return {
        "type": profile.kind,
        "id": profile.id,
        "attributes": {"name": profile.name, **profile.options},
    }


def page(request: Request, objects: Iterable[dict[str, Any]]) -> Response:
    """Cut a list by `limit`, `starting_after` and `direction`; there is no total."""
    try:
        limit = int(request.query_params.get("limit", DEFAULT_LIMIT))
        after = int(request.query_params.get("starting_after", 0))
    except ValueError:
        return error(400, "bad request")
    if not 1 <= limit <= LARGEST_LIMIT:
        return error(400, "limit must be between 1 and 100")
    backwards = request.query_params.get("direction") == "desc"
    listed = sorted(objects, key=lambda one: int(one["id"]), reverse=backwards)
    if after:
        listed = [one for one in listed if (one["id"] < after if backwards else one["id"] > after)]
    return JSONResponse({"data": listed[:limit], "has_more": len(listed) > limit})


async def read_form(request: Request) -> dict[str, Any]:
    """Read the fields of a form, urlencoded or with files; JSON is not taken."""
    media = request.headers.get("content-type", "")
    body = await request.body()
    if media.startswith("multipart/form-data"):
        return _multipart(media, body)
    if media.startswith("application/json") and body:
        # The real one fails in just this way instead of refusing it.
        raise HTTPException(500, "internal server error")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


async def read_json(request: Request) -> dict[str, Any]:
    """Read the object that a control call holds; an empty body is an empty object."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as raised:
        raise HTTPException(400, "the body is not JSON") from raised
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is not an object")
    return body


def _multipart(media: str, body: bytes) -> dict[str, Any]:
    head = f"Content-Type: {media}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = BytesParser(policy=policy.HTTP).parsebytes(head + body)
    fields: dict[str, Any] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes), "a part within a part"
        is_file = part.get_filename() is not None
        fields[str(name)] = content if is_file else content.decode("utf-8", "replace").strip()
    return fields
