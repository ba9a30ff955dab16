"""One attempt to deliver a webhook: a signed POST."""

from __future__ import annotations

import httpx

from pgfleet_functions.notify.messages import Delivery, Outcome
from pgfleet_functions.outgoing.answers import Answer
from pgfleet_functions.outgoing.errors import AddressRefused, OutgoingError, TooSlow
from pgfleet_functions.outgoing.retry_after import retry_after
from pgfleet_functions.outgoing.transport import Limits, Outgoing

# What a receiver writes is not read: it may be long, and is of no use here.
LIMITS = Limits(seconds=20.0)


async def deliver_webhook(outgoing: Outgoing, delivery: Delivery) -> Outcome:
    """Post the message and tell how it went; it never raises for what a receiver does."""
    try:
        request = httpx.Request(
            "POST",
            delivery.url or "",
            content=delivery.body.encode(),
            headers={"Content-Type": "application/json", **(delivery.headers or {})},
        )
    except httpx.InvalidURL as error:
        return Outcome("refused", error=f"the address cannot be used: {error}")
    try:
        answer = await outgoing.call(request, LIMITS, allow_private=delivery.allow_private)
    except AddressRefused as error:
        return Outcome("refused", error=error.message)
    except OutgoingError as error:
        return Outcome("retry", error=error.message, is_slow=isinstance(error, TooSlow))
    return outcome_of(answer)


def outcome_of(answer: Answer) -> Outcome:
    """Judge an answer as Standard Webhooks says: 2xx is success, 410 means stop."""
    status = answer.status
    if answer.is_success:
        return Outcome("delivered", status)
    if status == 410:
        return Outcome("gone", status, "the receiver wants no more messages (410)")
    if 300 <= status < 400:
        return Outcome("retry", status, f"answered {status}: redirects are not followed")
    return Outcome("retry", status, f"answered {status}", retry_after(answer.headers))
