"""The sandbox's webhooks: unsigned, small, and sometimes late or lost, as the real ones are."""

from __future__ import annotations

import asyncio
import contextlib

import httpx

from pgfleet_local.sandboxes.simplemdm.account import Account, Device, stamp

EVENTS = (
    "device.enrolled",
    "device.unenrolled",
    "device.changed_group",
    "device.lock.enabled",
    "abm.device.added",
)


async def announce(account: Account, event: str, device: Device) -> None:
    """Tell the address of the account that something happened to a device; never tried again."""
    if not account.webhook_url or account.faults.lose_webhooks:
        return
    await asyncio.sleep(account.faults.webhook_seconds)
    told = {
        "type": event,
        "at": stamp(account.now()),
        "data": {
            "device": {
                "id": device.id,
                "udid": device.attributes["unique_identifier"],
                "serial_number": device.serial,
            }
        },
    }
    # A connection that is reset at once has no socket any more, which uvloop tells by None.
    with contextlib.suppress(httpx.HTTPError, AttributeError):
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            await client.post(account.webhook_url, json=told)
