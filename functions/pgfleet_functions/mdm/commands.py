"""Commands that MDMs carry out: handed over, then looked after until their effect shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, finish, storable
from pgfleet_functions.dispatching import Claim, Ended, Piece
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.calls import Call, CallFailed
from pgfleet_functions.integrations.connections import Connections, Integration, WrongSettings
from pgfleet_functions.mdm.provider import Provider
from pgfleet_functions.mdm.work import (
    Outcome,
    Work,
    outcome_of_failure,
    outcome_of_no_look,
    outcome_of_report,
)

log = logging.getLogger(__name__)

# What an answer may take, with the time to write it down; a call is not begun later than that.
CALL_SECONDS = 35.0
# What one look takes at most; those that are not reached by then are due again at once.
LOOK_SECONDS = 2.0

_CLAIM = "select fleet.worker_claim_mdm(%s)"
# In one transaction: whoever sees the end of an attempt also sees its calls.
_FINISH = """
select fleet.worker_finish_mdm(
  %s, %s, %s, %s, %s, %s, make_interval(secs => %s::double precision)
)
from (select fleet.worker_log_mdm_calls(%s) offset 0) as logged
"""
_FINISH_LOOKS = """
select fleet.worker_finish_looks(%s, %s)
from (select fleet.worker_log_mdm_calls(%s) offset 0) as logged
"""


async def claim_commands(
    pool: Pool, connections: Connections[Provider], shares: Mapping[str, Any]
) -> Claim:
    """Claim commands that are to be handed over, and those whose devices are to be looked at."""
    claim = await fetch_value(pool, _CLAIM, Jsonb(shares))
    integrations = {
        int(key): Integration.from_claim(int(key), told)
        for key, told in claim["integrations"].items()
    }
    pieces = []
    for work in map(Work.from_job, claim["sends"]):
        one = integrations[work.integration_id]
        sending = partial(_send, pool, connections, one, work)
        pieces.append(Piece(one.owner_id, one.id, sending, work.subject))
    looks = sorted(map(Work.from_job, claim["looks"]), key=lambda work: work.integration_id)
    for key, works in groupby(looks, key=lambda work: work.integration_id):
        one = integrations[key]
        looking = partial(_look, pool, connections, one, list(works))
        pieces.append(Piece(one.owner_id, one.id, looking, {"integration": one.id}))
    return Claim(pieces, None if claim["wait"] is None else float(claim["wait"]))


async def _send(
    pool: Pool, connections: Connections[Provider], integration: Integration, work: Work
) -> Ended:
    """Hand one command over, and write down what came of it."""
    calls: list[Call] = []
    order = work.order
    try:
        outcome = await _hand_over(connections, integration, work, calls)
        answer = await finish(
            pool,
            _FINISH,
            order.command_id,
            order.attempt,
            outcome.kind,
            Jsonb(storable(outcome.result)) if outcome.result is not None else None,
            storable(outcome.error),
            outcome.reason,
            outcome.after,
            Jsonb([call.row() for call in calls]),
        )
    except FunctionError as error:
        # The database is away: the lease ends, and another run takes it up.
        log.warning("command %s is left to its lease: %s", order.command_id, error.message)
        return Ended({"left": 1})
    return Ended({str(answer.get("status") or answer.get("reason")): 1}, outcome.is_slow)


async def _hand_over(
    connections: Connections[Provider], integration: Integration, work: Work, calls: list[Call]
) -> Outcome:
    order = work.order
    try:
        provider = await connections.provider(
            integration,
            calls.append,
            seconds=_seconds_for_calls(work),
            prepaid=1,
            command=(order.command_id, order.attempt),
        )
        return outcome_of_report(order, await provider.send(order))
    except (CallFailed, WrongSettings) as error:
        return outcome_of_failure(await connections.failure(integration, error))
    except FunctionError:
        raise
    except Exception as error:
        # One command that trips us up must not stop the others.
        log.exception("command %s failed", order.command_id)
        return Outcome("failed", None, f"the function failed: {type(error).__name__}", "error")


async def _look(
    pool: Pool, connections: Connections[Provider], integration: Integration, works: Sequence[Work]
) -> Ended:
    """Look after commands of one integration, and write down what showed."""
    calls: list[Call] = []
    outcomes: dict[int, dict[str, Any]] = {}
    after, is_slow = None, False
    first = works[0].order
    try:
        provider = await connections.provider(
            integration,
            calls.append,
            seconds=LOOK_SECONDS,
            prepaid=1,
            is_look=True,
            # One call may be for many commands; then it is logged for none of them.
            command=(first.command_id, first.attempt) if len(works) == 1 else (None, None),
        )
        async for order, report in provider.look([work.order for work in works]):
            outcomes[order.command_id] = outcome_of_report(order, report).row(order)
    except (CallFailed, WrongSettings) as error:
        failure = await connections.failure(integration, error)
        after, is_slow = failure.retry_after, failure.is_slow
    except FunctionError as error:
        log.warning("looks are cut short: %s", error.message)
    except Exception:
        # What one device shows must not keep the others from being written down.
        log.exception("looks failed")
    for order in (work.order for work in works if work.order.command_id not in outcomes):
        outcomes[order.command_id] = outcome_of_no_look(order, after).row(order)
    try:
        ended = await finish(
            pool,
            _FINISH_LOOKS,
            integration.id,
            Jsonb(storable(list(outcomes.values()))),
            Jsonb([call.row() for call in calls]),
        )
    except FunctionError as error:
        log.warning("looks are left to their lease: %s", error.message)
        return Ended({}, is_slow)
    counts = {name: count for name, count in ended.items() if name != "accepted"}
    return Ended({"looked": len(works)} | counts, is_slow)


def _seconds_for_calls(work: Work) -> float:
    return max(work.lease_seconds - CALL_SECONDS, work.lease_seconds / 3)
