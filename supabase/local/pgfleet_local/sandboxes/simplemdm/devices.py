"""The API's paths for devices and their actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.sandboxes.simplemdm.account import Account, Device
from pgfleet_local.sandboxes.simplemdm.answers import (
    account_of,
    device_object,
    device_of,
    page,
    profile_object,
    queued,
    read_form,
)
from pgfleet_local.sandboxes.simplemdm.gate import error, too_many
from pgfleet_local.sandboxes.simplemdm.webhooks import announce

REFRESH_SECONDS = 5.0
SIMPLE_ACTIONS = ("clear_passcode", "restart", "shutdown", "push_apps", "wipe", "unenroll")


async def list_devices(request: Request) -> Response:
    """Answer a page of devices; `search` looks at name, serial number and UDID."""
    wanted = request.query_params.get("search", "").lower()
    awaiting = request.query_params.get("include_awaiting_enrollment") == "true"
    found = [
        device_object(device)
        for device in account_of(request).devices.values()
        if _matches(device, wanted)
        and (awaiting or device.attributes["status"] != "awaiting enrollment")
    ]
    return page(request, found)


async def show_device(request: Request) -> Response:
    """Answer one device, with the attributes that only the detail has."""
    shown = device_object(device_of(request))
    shown["attributes"] = shown["attributes"] | {"dep_enrolled": True, "dep_assigned": True}
    return JSONResponse({"data": shown})


async def create_device(request: Request) -> Response:
    """Make a device that waits for its enrolment."""
    form = await read_form(request)
    if not form.get("name"):
        return error(422, "name can't be blank")
    account = account_of(request)
    device = account.add_device(name=form["name"], status="awaiting enrollment", online=False)
    shown = device_object(device)
    address = f"https://a.simplemdm.com/enroll/?c={device.id}"
    shown["attributes"] = shown["attributes"] | {"enrollment_url": address}
    return JSONResponse({"data": shown}, status_code=201)


async def rename_device(request: Request) -> Response:
    """Change the name of the record."""
    device = device_of(request)
    form = await read_form(request)
    if name := form.get("name"):
        device.attributes["name"] = name
    return JSONResponse({"data": device_object(device)})


async def delete_device(request: Request) -> Response:
    """Unenrol a device and forget it."""
    device = device_of(request)
    del account_of(request).devices[device.id]
    return _told(Response(status_code=204), request, "device.unenrolled", device)


async def list_device_profiles(request: Request) -> Response:
    """Answer the profiles that are assigned to the device itself."""
    account, device = account_of(request), device_of(request)
    assigned = [account.profiles[one] for one in device.assigned if one in account.profiles]
    return page(request, map(profile_object, assigned))


async def simple_action(request: Request) -> Response:
    """Queue an action that needs no thought."""
    device, action = device_of(request), request.url.path.rsplit("/", 1)[1]
    account_of(request).enqueue(device, action, **await read_form(request))
    event = "device.unenrolled" if action == "unenroll" else None
    return _told(queued(), request, event, device)


async def lock(request: Request) -> Response:
    """Lock a screen: a Mac needs a pin of six digits, nothing else takes one."""
    device, form = device_of(request), await read_form(request)
    pin = str(form.get("pin") or "")
    if device.is_mac and not (len(pin) == 6 and pin.isdecimal()):
        return error(422, "pin must be 6 digits")
    if not device.is_mac and pin:
        return error(422, "pin is not supported for this device")
    account_of(request).enqueue(device, "lock", **form)
    return _told(queued(), request, "device.lock.enabled", device)


async def refresh(request: Request) -> Response:
    """Ask a device for news, which it is not asked for again and again."""
    account, device = account_of(request), device_of(request)
    wait = device.refreshed_at + REFRESH_SECONDS - account.now()
    if wait > 0:
        return too_many(account, wait)
    device.refreshed_at = account.now()
    account.enqueue(device, "refresh")
    return queued()


async def enable_lost_mode(request: Request) -> Response:
    """Queue Lost Mode, which has to say something or give a number."""
    device, form = device_of(request), await read_form(request)
    if not form.get("message") and not form.get("phone_number"):
        return error(400, "message or phone_number is required")
    if device.is_mac or not device.attributes["is_supervised"]:
        return error(422, "lost mode needs a supervised iOS device")
    account_of(request).enqueue(device, "enable_lost_mode", **form)
    return queued()


async def disable_lost_mode(request: Request) -> Response:
    """Queue the end of Lost Mode."""
    account_of(request).enqueue(device_of(request), "disable_lost_mode")
    return queued()


async def lost_mode_action(request: Request) -> Response:
    """Queue a sound or the question for the place; neither is judged here."""
    action = request.url.path.rsplit("/", 1)[1]
    account_of(request).enqueue(device_of(request), action)
    return queued()


def _matches(device: Device, wanted: str) -> bool:
    names: Mapping[str, Any] = device.attributes
    texts = (names["name"], names["serial_number"], names["unique_identifier"])
    return not wanted or any(wanted in str(text).lower() for text in texts)


def _told(response: Response, request: Request, event: str | None, device: Device) -> Response:
    """Send the webhook after the answer."""
    account: Account = account_of(request)
    if event and account.webhook_url:
        response.background = BackgroundTask(announce, account, event, device)
    return response


ROUTES: tuple[BaseRoute, ...] = (
    Route("/devices", list_devices),
    Route("/devices", create_device, methods=["POST"]),
    Route("/devices/{device:int}", show_device),
    Route("/devices/{device:int}", rename_device, methods=["PATCH"]),
    Route("/devices/{device:int}", delete_device, methods=["DELETE"]),
    Route("/devices/{device:int}/profiles", list_device_profiles),
    Route("/devices/{device:int}/lock", lock, methods=["POST"]),
    Route("/devices/{device:int}/refresh", refresh, methods=["POST"]),
    Route("/devices/{device:int}/lost_mode", enable_lost_mode, methods=["POST"]),
    Route("/devices/{device:int}/lost_mode", disable_lost_mode, methods=["DELETE"]),
    Route("/devices/{device:int}/lost_mode/play_sound", lost_mode_action, methods=["POST"]),
    Route("/devices/{device:int}/lost_mode/update_location", lost_mode_action, methods=["POST"]),
    *(
        Route(f"/devices/{{device:int}}/{action}", simple_action, methods=["POST"])
        for action in SIMPLE_ACTIONS
    ),
)
