"""Delivering the messages that are due: claimed under a lease, and finished once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, finish, storable
from pgfleet_functions.dispatching import Claim, Dispatcher, Ended, Piece
from pgfleet_functions.notify.email import deliver_email
from pgfleet_functions.notify.messages import Delivery, Outcome
from pgfleet_functions.notify.webhook import deliver_webhook
from pgfleet_functions.outgoing.mail import MailServer
from pgfleet_functions.outgoing.transport import Outgoing
from pgfleet_functions.shares import Bounds

log = logging.getLogger(__name__)

WEBHOOKS = Bounds(total=256, owner=4, way=2)
# All through the one mail server of the operator.
EMAILS = Bounds(total=8, owner=2, way=2)

_CLAIM = """
select coalesce(jsonb_agg(to_jsonb(c)), '[]') from fleet.worker_claim_deliveries(%s, %s) as c
"""
_FINISH = "select fleet.worker_finish_delivery(%s, %s, %s, %s, %s, %s)"

Delivering = Callable[[Delivery], Awaitable[Outcome]]


def dispatchers(
    pool: Pool, outgoing: Outgoing, mail_server: MailServer | None, mail_threads: Executor
) -> Sequence[Dispatcher]:
    """Return what delivers messages, each channel by itself.

    A mail server that hangs holds up no webhook; it holds `mail_threads`, as many as e-mails may
    be under way.
    """
    ways: tuple[tuple[str, Delivering, Bounds], ...] = (
        ("webhook", partial(deliver_webhook, outgoing), WEBHOOKS),
        ("email", partial(deliver_email, mail_server, threads=mail_threads), EMAILS),
    )
    return [
        Dispatcher(f"{channel}s", partial(claim_deliveries, pool, channel, deliver), bounds)
        for channel, deliver, bounds in ways
    ]


async def claim_deliveries(
    pool: Pool, channel: str, deliver: Delivering, shares: Mapping[str, Any]
) -> Claim:
    """Claim what is due on a channel."""
    rows = await fetch_value(pool, _CLAIM, channel, Jsonb(shares))

    def piece(row: dict[str, Any]) -> Piece:
        owner, way = row.pop("owner_id"), row.pop("endpoint_id")
        return Piece(owner, way, partial(_deliver, pool, deliver, Delivery(**row)))

    return Claim([piece(row) for row in rows], wait=0 if rows else None)


async def _deliver(pool: Pool, deliver: Delivering, delivery: Delivery) -> Ended:
    """Deliver one message and write down how that went."""
    try:
        outcome = await deliver(delivery)
    except Exception as error:
        # One message that trips us up must not stop the others.
        log.exception("delivery %s failed", delivery.delivery_id)
        outcome = Outcome("retry", error=f"the function failed: {type(error).__name__}")
    answer = await finish(
        pool,
        _FINISH,
        delivery.delivery_id,
        delivery.attempt,
        outcome.kind,
        outcome.status,
        storable(outcome.error),
        outcome.retry_after,
    )
    return Ended({str(answer.get("status") or answer.get("reason")): 1}, outcome.is_slow)
