"""The sandbox's own paths: devices and profiles to begin with, faults, keys, and what happened."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.sandboxes.simplemdm.account import CUSTOM, Device
from pgfleet_local.sandboxes.simplemdm.answers import (
    account_of,
    device_object,
    device_of,
    profile_object,
    read_json,
)
from pgfleet_local.sandboxes.simplemdm.faults import SwitchError
from pgfleet_local.sandboxes.simplemdm.webhooks import announce

LONGEST_WAIT_SECONDS = 30.0


async def add_devices(request: Request) -> Response:
    """Enrol `count` devices, each with the given attributes."""
    body, account = await read_json(request), account_of(request)
    count = int(body.pop("count", 1))
    made = [account.add_device(**body) for _ in range(count)]
    told = BackgroundTask(_announce_all, request, made) if account.webhook_url else None
    return JSONResponse({"data": [device_object(one) for one in made]}, 201, background=told)


async def add_profiles(request: Request) -> Response:
    """Make profiles with the given `names`, custom ones or of another `kind`."""
    body, account = await read_json(request), account_of(request)
    kind = str(body.get("kind", CUSTOM))
    made = [account.add_profile(str(name), kind=kind) for name in body.get("names", [])]
    return JSONResponse({"data": [profile_object(one) for one in made]}, 201)


async def show(request: Request) -> Response:
    """Tell what a device really has, and what waits for it."""
    account, device = account_of(request), device_of(request)
    account.deliver()
    return JSONResponse(_device(device))


async def change(request: Request) -> Response:
    """Change attributes of a device, its `online` or its `position`."""
    account, device, body = account_of(request), device_of(request), await read_json(request)
    if "online" in body:
        account.wake(device, bool(body.pop("online")))
    device.position = body.pop("position", device.position)
    device.attributes.update(body)
    return JSONResponse(_device(device))


async def remove(request: Request) -> Response:
    """Make a device vanish from the account, without a word."""
    del account_of(request).devices[device_of(request).id]
    return Response(status_code=204)


async def wait_for_profile(request: Request) -> Response:
    """Answer as soon as a device has a profile, or, with `absent=1`, has it no more."""
    account, device = account_of(request), device_of(request)
    profile = int(request.path_params["profile"])
    wanted = request.query_params.get("absent") != "1"
    end = account.now() + LONGEST_WAIT_SECONDS
    while account.now() < end:
        account.deliver()
        if (profile in device.installed) is wanted:
            return JSONResponse(_device(device))
        await asyncio.sleep(0.01)
    raise HTTPException(408, "it did not happen in time")


async def show_history(request: Request) -> Response:
    """Tell which profile was assigned, installed, unassigned and removed, and when."""
    account = account_of(request)
    account.deliver()
    return JSONResponse({"history": account.history, "installed": list(account.installed())})


async def show_requests(request: Request) -> Response:
    """Tell which requests came, when, and how each was answered."""
    return JSONResponse({"requests": list(account_of(request).requests)})


async def faults(request: Request) -> Response:
    """Flip switches, or tell how they are."""
    account = account_of(request)
    if request.method == "POST":
        account.deliver()
        try:
            account.faults.set(await read_json(request))
        except SwitchError as raised:
            raise HTTPException(400, str(raised)) from raised
    return JSONResponse(account.faults.state())


async def settings(request: Request) -> Response:
    """Change the keys (`full`, `read_only`) or the `webhook_url`; `advance` the clock."""
    account, body = account_of(request), await read_json(request)
    account.keys.update({name: body[name] for name in ("full", "read_only") if name in body})
    account.webhook_url = body.get("webhook_url", account.webhook_url)
    account.advance(float(body.get("advance", 0)))
    return JSONResponse({"webhook_url": account.webhook_url, "now": account.now()})


async def reset(request: Request) -> Response:
    """Forget everything but the keys."""
    account_of(request).clear()
    return Response(status_code=204)


async def _announce_all(request: Request, devices: list[Device]) -> None:
    for device in devices:
        await announce(account_of(request), "device.enrolled", device)


def _device(device: Device) -> dict[str, Any]:
    return {
        "id": device.id,
        "online": device.online,
        "attributes": device.attributes,
        "assigned": {str(one): at for one, at in device.assigned.items()},
        "installed": {str(one): at for one, at in device.installed.items()},
        "waiting": [one.name for one in device.queue],
        "commands": [
            {"name": one.name, "state": one.state, "values": one.values} for one in device.done
        ],
    }


ROUTES: tuple[BaseRoute, ...] = (
    Route("/devices", add_devices, methods=["POST"]),
    Route("/devices/{device:int}", show),
    Route("/devices/{device:int}", change, methods=["PATCH"]),
    Route("/devices/{device:int}", remove, methods=["DELETE"]),
    Route("/devices/{device:int}/profiles/{profile:int}", wait_for_profile),
    Route("/profiles", add_profiles, methods=["POST"]),
    Route("/history", show_history),
    Route("/requests", show_requests),
    Route("/faults", faults, methods=["GET", "POST"]),
    Route("/settings", settings, methods=["POST"]),
    Route("/reset", reset, methods=["POST"]),
)
