"""SimpleMDM: a bodiless 202 or 204 says that an order is queued, the device tells the rest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pgfleet_functions.integrations.calls import Api, CallFailed, FailureKind, answered_at
from pgfleet_functions.integrations.sightings import Capabilities, Sighting
from pgfleet_functions.mdm.provider import (
    KnownProfile,
    Order,
    ProfileFile,
    Report,
    State,
    failed,
)
from pgfleet_functions.outgoing.answers import Answer

Facts = Mapping[str, Any]

BASE_URL = "https://a.simplemdm.com/api/v1"
PAGE = 100
ANSWER_SECONDS = 5.0
# Custom ones come first: they are what is pushed most. The other path takes all other kinds.
PROFILE_PATHS = ("/custom_configuration_profiles", "/profiles")
CUSTOM = "custom_configuration_profile"
PROFILE_MEDIA = "application/x-apple-aspen-config"
# Records of devices that are not in the account: they left, or have not come yet.
WITHOUT_DEVICE = ("unenrolled", "awaiting enrollment")
KEPT_ATTRIBUTES = (
    "serial_number",
    "unique_identifier",
    "model_name",
    "product_name",
    "os_version",
    "status",
    "is_supervised",
    "lost_mode_enabled",
    "passcode_present",
    "battery_level",
    "last_seen_at",
    "enrolled_at",
)


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a device, and what of a payload it takes."""

    method: str
    path: str
    fields: tuple[str, ...] = ()


ACTIONS: Mapping[str, Action] = {
    "lock": Action("POST", "lock", ("message", "phone_number", "pin")),
    "restart": Action("POST", "restart", ("rebuild_kernel_cache", "notify_user")),
    "shutdown": Action("POST", "shutdown"),
    "clear_passcode": Action("POST", "clear_passcode"),
    "lost_mode_on": Action("POST", "lost_mode", ("message", "phone_number", "footnote")),
    "lost_mode_off": Action("DELETE", "lost_mode"),
    "locate": Action("POST", "lost_mode/update_location"),
    "play_sound": Action("POST", "lost_mode/play_sound"),
    "refresh": Action("POST", "refresh"),
    "push_apps": Action("POST", "push_apps"),
    "wipe": Action("POST", "wipe", ("pin", "disable_activation_lock", "preserve_data_plan")),
    "unenroll": Action("POST", "unenroll", ("unassign_direct_profiles",)),
}


# Each has a limit of its own beside that of the account.
OWN_LIMITS = ("refresh",)


class SimpleMDM:
    """One SimpleMDM account."""

    def __init__(self, api: Api, _settings: Mapping[str, Any]) -> None:
        self._api = api

    def capabilities(self, attributes: Mapping[str, Any]) -> Capabilities:
        """Tell what a device can do by its model and whether it is supervised."""
        model = attributes.get("model_name")
        is_mac = None if model is None else "mac" in str(model).lower()
        told = attributes.get("is_supervised")
        supervised = told if isinstance(told, bool) else None
        return Capabilities(
            platform=None if is_mac is None else ("macos" if is_mac else "ios"),
            supervised=supervised,
            can_locate=None if is_mac is None else bool(supervised) and not is_mac,
            needs_pin=is_mac,
        )

    async def send(self, order: Order) -> Report:
        """Hand the order over."""
        if order.command_type in ("push_profile", "remove_profile"):
            return await self._send_profile(order)
        action = ACTIONS.get(order.action)
        if action is None:
            return failed("unsupported", f"SimpleMDM has no command {order.command_type}")
        if problem := self._problem(order):
            return problem
        form = {
            name: _text(order.payload[name])
            for name in action.fields
            if order.payload.get(name) is not None
        }
        path = f"{_device(order)}/{action.path}"
        endpoint = order.action if order.action in OWN_LIMITS else ""
        answer = await self._api.call(action.method, path, form=form or None, endpoint=endpoint)
        return _sent(answer, answered_at(answer))

    async def look(self, orders: Sequence[Order]) -> AsyncIterator[tuple[Order, Report]]:
        """Look at the devices, a page of them by one call: only what they show counts."""
        waiting: dict[int, list[Order]] = defaultdict(list)
        for order in orders:
            if order.external_id.isascii() and order.external_id.isdecimal():
                waiting[int(order.external_id)].append(order)
            else:
                yield order, failed("refused", "a device id of SimpleMDM is a number")
        while waiting:
            last, shown = await self._look_from(min(waiting), alone=len(waiting) == 1)
            for device in sorted(one for one in waiting if one <= last):
                facts = shown.get(device)
                if facts is None and (record := await self._record(str(device))):
                    facts = _facts(record)
                for order in waiting.pop(device):
                    yield order, await self._judge(order, facts)

    async def inventory(self) -> AsyncIterator[list[Sighting]]:
        """Give all devices."""
        async for page in self._pages("/devices", "devices"):
            yield [_sighting(one) for one in page]

    async def upload_profile(self, file: ProfileFile, external_id: str | None) -> str:
        """Make a custom profile, or replace its file, which goes to the devices that have it."""
        path = PROFILE_PATHS[0] + (f"/{quote(external_id, safe='')}" if external_id else "")
        answer = await self._api.call(
            "PATCH" if external_id else "POST",
            path,
            form={"name": file.name} | {name: _text(on) for name, on in file.options.items()},
            files={"mobileconfig": ("profile.mobileconfig", file.content, PROFILE_MEDIA)},
        )
        _no_conflict(answer)
        if external_id:
            return external_id
        with _reading("the id of a profile"):
            return str(answer.json()["data"]["id"])

    async def delete_profile(self, external_id: str) -> None:
        """Delete a custom profile, which takes it from all devices."""
        path = f"{PROFILE_PATHS[0]}/{quote(external_id, safe='')}"
        _no_conflict(await self._api.call("DELETE", path))

    async def profiles(self) -> AsyncIterator[list[KnownProfile]]:
        """Give all profiles; what they are is the type of the object."""
        async for page in self._pages(PROFILE_PATHS[1], "profiles"):
            with _reading("profiles"):
                found = [_known_profile(one) for one in page]
            yield found

    async def _pages(self, path: str, what: str) -> AsyncIterator[list[dict[str, Any]]]:
        """Give a list page by page, following the cursor."""
        after = 0
        while True:
            query: dict[str, str | int] = {"limit": PAGE, "starting_after": after}
            answer = await self._api.call("GET", path, query=query)
            with _reading(what):
                body = answer.json()
                page, has_more = list(body["data"]), bool(body["has_more"])
                last = page[-1]["id"] if page else after
                if has_more and last == after:
                    # It would go round for ever, and this is no end either.
                    raise ValueError("the cursor does not move")
            yield page
            if not has_more:
                return
            after = last

    async def _look_from(self, first: int, *, alone: bool) -> tuple[float, dict[int, Facts]]:
        """Give what devices from this id on show, and up to which id that is all of them."""
        if alone:
            return first, {}
        # The cursor is compared, so it need not be the id of a device.
        query: dict[str, str | int] = {
            "limit": PAGE,
            "starting_after": first - 1,
            "include_awaiting_enrollment": "true",
        }
        answer = await self._api.call("GET", "/devices", query=query)
        with _reading("devices"):
            body = answer.json()
            shown = {int(one["id"]): _facts(one) for one in body["data"] if _has_number(one)}
            return (max(shown, default=first) if body["has_more"] else math.inf), shown

    async def _record(self, external_id: str) -> Mapping[str, Any] | None:
        """Give one device as the API shows it; None for one that is not there."""
        try:
            answer = await self._api.call("GET", f"/devices/{quote(external_id, safe='')}")
        except CallFailed as failure:
            if failure.status == 404:
                return None
            raise
        with _reading("a device"):
            record = dict(answer.json()["data"])
        return record

    async def _judge(self, order: Order, facts: Facts | None) -> Report:
        if facts is None:
            return self._gone(order)
        sent_at = order.sent_at or datetime.max.replace(tzinfo=UTC)
        result = {"last_seen_at": facts.get("last_seen_at")}
        if _shows(order, facts, sent_at):
            return Report(State.ACKNOWLEDGED, result)
        if order.before.get("already"):
            # Nothing new waits for the device: unless it is asked it has no reason to come.
            with suppress(CallFailed):
                await self._api.call("POST", f"{_device(order)}/refresh", endpoint="refresh")
                if not order.before.get("asked"):
                    asked = result | {"asked": True}
                    return Report(State.DEFERRED, asked, look_after=ANSWER_SECONDS)
        return Report(State.DEFERRED, result)

    async def reread(self, external_id: str) -> Sighting | None:
        """Read one device; a record that is gone is no error."""
        record = await self._record(external_id)
        return None if record is None else _sighting(record)

    def _problem(self, order: Order) -> Report | None:
        """Tell what SimpleMDM would refuse, or worse, take and never do."""
        known = self.capabilities(order.attributes)
        pin = str(order.payload.get("pin") or "")
        match order.action:
            case "lock" if known.needs_pin and not (len(pin) == 6 and pin.isdecimal()):
                return failed("invalid_payload", "a Mac is locked with a pin of six digits")
            case "lock" if known.needs_pin is False and pin:
                return failed("invalid_payload", "only a Mac takes a pin")
            case "lost_mode_on" if not (
                order.payload.get("message") or order.payload.get("phone_number")
            ):
                return failed("invalid_payload", "lost mode needs a message or a phone_number")
            case "lost_mode_on" | "lost_mode_off" | "locate" | "play_sound" if (
                known.can_locate is False
            ):
                return failed("unsupported", "lost mode needs a supervised iPhone or iPad")
            case "wipe" | "unenroll" if order.payload.get("confirm") is not True:
                return failed("invalid_payload", 'it needs {"confirm": true}')
        return None

    async def _send_profile(self, order: Order) -> Report:
        profile = str(order.payload.get("profile_id") or "")
        if not (profile.isascii() and profile.isdecimal()):
            return failed("invalid_payload", "a profile_id of SimpleMDM is a number")
        method = "POST" if order.command_type == "push_profile" else "DELETE"
        first, second = PROFILE_PATHS
        path = f"/{profile}{_device(order)}"
        try:
            answer = await self._api.call(method, first + path)
        except CallFailed as failure:
            if failure.status != 404:
                raise
            answer = await self._api.call(method, second + path)
        sent_at = answered_at(answer)
        if answer.status != 409:
            return _sent(answer, sent_at)
        # It is so already: where an answer got lost, since that attempt at the latest.
        if order.unanswered_at:
            sent_at -= answer.asked_at - order.unanswered_at
        return _sent(answer, sent_at, already=True)

    def _gone(self, order: Order) -> Report:
        if order.action in ("wipe", "unenroll", "remove_profile"):
            return Report(State.ACKNOWLEDGED, {"device": "gone"})
        return failed("refused", "the device is no longer in SimpleMDM")


def _sent(answer: Answer, sent_at: datetime, **more: Any) -> Report:
    told = {"sent_at": sent_at.isoformat(), "status": answer.status}
    return Report(State.SENT, told | more)


def _no_conflict(answer: Answer) -> None:
    """Raise for a 409, which says nothing good about a profile itself."""
    if answer.status == 409:
        raise CallFailed(FailureKind.REFUSED, "the MDM answered 409: it is in conflict", status=409)


def _device(order: Order) -> str:
    return f"/devices/{quote(order.external_id, safe='')}"


def _shows(order: Order, facts: Facts, sent_at: datetime) -> bool:
    """Tell whether the attributes of a device show the effect."""
    match order.action:
        case "lost_mode_on":
            return facts.get("lost_mode_enabled") is True
        case "lost_mode_off":
            return facts.get("lost_mode_enabled") is False
        case "locate":
            return _is_later(facts.get("location_updated_at"), sent_at)
        case "wipe" | "unenroll":
            return facts.get("status") == "unenrolled"
    # No attribute tells of the rest, nor of profiles, whose list says what is assigned and not
    # what is there: that the device has fetched its queue since has to do.
    return _is_later(facts.get("last_seen_at"), sent_at)


def _is_later(text: Any, moment: datetime) -> bool:
    """Compare a time of the API, with whatever offset it has."""
    try:
        then = datetime.fromisoformat(str(text))
    except ValueError:
        return False
    return (then if then.tzinfo else then.replace(tzinfo=UTC)) >= moment


def _sighting(device: Any) -> Sighting:
    """Read a device, however odd: what cannot be, the database leaves out and tells."""
    facts = _facts(device)
    known = device.get("id") if isinstance(device, Mapping) else None
    external_id = "" if known is None else str(known)
    return Sighting(
        external_id=external_id,
        name=facts.get("name") or facts.get("device_name") or external_id,
        serial_number=facts.get("serial_number"),
        platform="macos" if "mac" in str(facts.get("model_name")).lower() else "ios",
        last_seen=facts.get("last_seen_at"),
        latitude=_number(facts.get("location_latitude")),
        longitude=_number(facts.get("location_longitude")),
        accuracy_m=_number(facts.get("location_accuracy")),
        located_at=facts.get("location_updated_at"),
        is_enrolled=str(facts.get("status")).replace("_", " ") not in WITHOUT_DEVICE,
        attributes={name: facts[name] for name in KEPT_ATTRIBUTES if facts.get(name) is not None},
    )


def _facts(device: Any) -> Facts:
    """Give the attributes of a device, as far as there are any."""
    facts = device.get("attributes") if isinstance(device, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}


def _has_number(device: Any) -> bool:
    return isinstance(device, Mapping) and str(device.get("id")).isdecimal()


def _known_profile(one: Mapping[str, Any]) -> KnownProfile:
    return KnownProfile(
        external_id=str(one["id"]),
        name=str(one["attributes"].get("name") or one["id"]),
        kind=str(one["type"]),
        is_custom=one["type"] == CUSTOM,
    )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn an answer that is not what it should be into a failure of the call."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        message = f"the MDM answered something else than {what}"
        raise CallFailed(FailureKind.SERVER, message) from error


def _number(value: Any) -> Any:
    """Read a number that may be a text; what is none is given as it is."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return value
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
