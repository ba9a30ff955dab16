"""The API's paths for profiles and assignment groups."""

from __future__ import annotations

import hashlib
import plistlib
from typing import Any
from xml.parsers.expat import ExpatError

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.sandboxes.simplemdm.account import CUSTOM, Profile
from pgfleet_local.sandboxes.simplemdm.answers import (
    account_of,
    device_of,
    page,
    profile_object,
    profile_of,
    read_form,
)
from pgfleet_local.sandboxes.simplemdm.gate import error, too_many

SYNC_SECONDS = 30.0
UNREADABLE = "mobileconfig is not a configuration profile"
SWITCHES = {
    "user_scope": True,
    "attribute_support": False,
    "escape_attributes": False,
    "reinstall_after_os_update": False,
    "declarative": False,
}


async def list_profiles(request: Request) -> Response:
    """Answer a page of all profiles, of whatever kind."""
    wanted = request.query_params.get("search", "").lower()
    known = account_of(request).profiles.values()
    return page(request, [profile_object(one) for one in known if wanted in one.name.lower()])


async def list_custom_profiles(request: Request) -> Response:
    """Answer a page of the profiles that have a file."""
    known = account_of(request).profiles.values()
    return page(request, [profile_object(one) for one in known if one.kind == CUSTOM])


async def show_profile(request: Request) -> Response:
    """Answer one profile."""
    return JSONResponse({"data": profile_object(profile_of(request))})


async def create_profile(request: Request) -> Response:
    """Make a custom configuration profile out of a file."""
    form = await read_form(request)
    if not form.get("name") or not isinstance(form.get("mobileconfig"), bytes):
        return error(422, "name and mobileconfig are required")
    if not _is_readable(form["mobileconfig"]):
        return error(422, UNREADABLE)
    made = account_of(request).add_profile(
        form["name"], file=form["mobileconfig"], options=_switches(form, SWITCHES)
    )
    return JSONResponse({"data": profile_object(made)}, status_code=201)


async def change_profile(request: Request) -> Response:
    """Change a custom profile; a new file goes to all devices that have it."""
    account, profile = account_of(request), _custom(request)
    form = await read_form(request)
    if isinstance(form.get("mobileconfig"), bytes) and not _is_readable(form["mobileconfig"]):
        return error(422, UNREADABLE)
    profile.name = form.get("name") or profile.name
    profile.options = _switches(form, profile.options)
    if isinstance(form.get("mobileconfig"), bytes):
        profile.file = form["mobileconfig"]
        for device in account.devices.values():
            if profile.id in device.assigned:
                account.enqueue(device, "install_profile", profile_id=profile.id)
    return JSONResponse({"data": profile_object(profile)})


async def delete_profile(request: Request) -> Response:
    """Delete a custom profile, also from devices."""
    account, profile = account_of(request), _custom(request)
    for device in account.devices.values():
        if device.assigned.pop(profile.id, None) is not None:
            account.enqueue(device, "remove_profile", profile_id=profile.id)
    del account.profiles[profile.id]
    return Response(status_code=204)


async def download_profile(request: Request) -> Response:
    """Answer the file of a custom profile."""
    file = _custom(request).file
    tag = f'"{hashlib.sha256(file).hexdigest()}"'
    return Response(file, media_type="application/x-apple-aspen-config", headers={"etag": tag})


async def assign(request: Request) -> Response:
    """Assign a profile to a device and queue its installation; twice is a conflict."""
    account, profile, device = account_of(request), _assignable(request), device_of(request)
    if device.attributes["status"] != "enrolled":
        return error(422, "device is not enrolled")
    if profile.id in device.assigned:
        return error(409, "profile is already assigned to the device")
    device.assigned[profile.id] = account.now()
    account.history.append(_event("assigned", device.id, profile.id, account.now()))
    account.enqueue(device, "install_profile", profile_id=profile.id)
    return Response(status_code=204)


async def unassign(request: Request) -> Response:
    """Take a profile from a device; one that it does not have is a conflict."""
    account, profile, device = account_of(request), _assignable(request), device_of(request)
    if device.assigned.pop(profile.id, None) is None:
        return error(409, "profile is not assigned to the device")
    account.history.append(_event("unassigned", device.id, profile.id, account.now()))
    account.enqueue(device, "remove_profile", profile_id=profile.id)
    return Response(status_code=204)


async def sync_profiles(request: Request) -> Response:
    """Take a group's profiles to its devices, once in thirty seconds."""
    account, group = account_of(request), int(request.path_params["group"])
    wait = account.synced_at.get(group, 0.0) + SYNC_SECONDS - account.now()
    if wait > 0:
        return too_many(account, wait)
    account.synced_at[group] = account.now()
    return Response(status_code=204)


def _assignable(request: Request) -> Profile:
    """Give the profile of the path; the path of custom ones has no others."""
    return _custom(request) if f"/{CUSTOM}s/" in request.url.path else profile_of(request)


def _custom(request: Request) -> Profile:
    profile = profile_of(request)
    if profile.kind != CUSTOM:
        raise HTTPException(404, "object not found")
    return profile


def _is_readable(file: bytes) -> bool:
    """Tell whether a file is a property list; into a signed one nobody looks."""
    if file.startswith(b"\x30"):
        return True
    try:
        plistlib.loads(file)
    except (ValueError, ExpatError):
        return False
    return True


def _switches(form: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(form[name]).lower() in ("true", "1") if name in form else value
        for name, value in before.items()
    }


def _event(event: str, device: int, profile: int, at: float) -> dict[str, Any]:
    return {"event": event, "device_id": device, "profile_id": profile, "at": at}


def _assignment(base: str) -> tuple[Route, Route]:
    path = f"/{base}/{{profile:int}}/devices/{{device:int}}"
    return Route(path, assign, methods=["POST"]), Route(path, unassign, methods=["DELETE"])


_ONE = "/custom_configuration_profiles/{profile:int}"
ROUTES: tuple[BaseRoute, ...] = (
    Route("/profiles", list_profiles),
    Route("/profiles/{profile:int}", show_profile),
    *_assignment("profiles"),
    Route("/custom_configuration_profiles", list_custom_profiles),
    Route("/custom_configuration_profiles", create_profile, methods=["POST"]),
    Route("/custom_configuration_profiles/", create_profile, methods=["POST"]),
    Route(_ONE, change_profile, methods=["PATCH"]),
    Route(_ONE, delete_profile, methods=["DELETE"]),
    Route(f"{_ONE}/download", download_profile),
    *_assignment("custom_configuration_profiles"),
    Route("/assignment_groups/{group:int}/sync_profiles", sync_profiles, methods=["POST"]),
)
