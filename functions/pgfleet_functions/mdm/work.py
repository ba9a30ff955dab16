"""What the database hands out, and what it is told came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgfleet_functions.mdm.calls import CallFailed, FailureKind
from pgfleet_functions.mdm.provider import Order, Report, State

LOOK_AGAIN_SECONDS = 5.0
# How a failed call is called in the database, which decides whether it is tried again.
REASONS: Mapping[FailureKind, str] = {
    FailureKind.NETWORK: "network",
    FailureKind.SERVER: "unavailable",
    FailureKind.RATE: "rate_limited",
    FailureKind.KEY: "integration_paused",
    FailureKind.REFUSED: "refused",
}


@dataclass(frozen=True, slots=True)
class Work:
    """One command under a lease: to be sent, or to be looked after."""

    order: Order
    settles: bool
    integration_id: int
    integration_type: str
    settings: Mapping[str, Any]
    secret: str | None = field(repr=False)
    lease_seconds: float

    @classmethod
    def from_claim(cls, claim: Mapping[str, Any]) -> Work:
        """Read what was claimed."""
        before = claim.get("result") or {}
        sent_at = before.get("sent_at") or claim.get("accepted_at")
        lease = datetime.fromisoformat(claim["lease_expires_at"])
        return cls(
            order=Order(
                command_id=claim["command_id"],
                attempt=claim["attempt"],
                command_type=claim["command_type"],
                payload=claim["payload"] or {},
                external_id=claim["external_id"],
                attributes=claim.get("attributes") or {},
                sent_at=datetime.fromisoformat(sent_at) if sent_at else None,
                before=before,
            ),
            settles=claim["phase"] == "settle",
            integration_id=claim["integration_id"],
            integration_type=claim["integration_type"],
            settings=claim["settings"] or {},
            secret=claim["secret"],
            lease_seconds=(lease - datetime.now(UTC)).total_seconds(),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ends in the database: accepted, completed or failed."""

    kind: str
    result: Mapping[str, Any] | None = None
    error: str | None = None
    reason: str | None = None
    retry_after: float | None = None


def outcome_of_report(work: Work, report: Report) -> Outcome:
    """Say what a provider's report means: taken is not yet done."""
    result = {**work.order.before, **report.result, "state": str(report.state)}
    match report.state:
        case State.ACKNOWLEDGED:
            return Outcome("completed", result)
        case State.FAILED | State.EXPIRED:
            return Outcome("failed", result, report.error, report.reason or "error")
        case _:
            return Outcome("accepted", result, retry_after=report.look_after)


def outcome_of_failure(work: Work, failure: CallFailed) -> Outcome:
    """Say what a failed call means: a look that failed leaves the order as it was."""
    if work.settles:
        result = {**work.order.before, "state": str(State.SENT)}
        return Outcome("accepted", result, retry_after=failure.retry_after or LOOK_AGAIN_SECONDS)
    # Where the other side cannot have acted, even what must not happen twice is tried again.
    unsent = failure.kind is FailureKind.NETWORK and not failure.reached
    reason = "not_sent" if unsent else REASONS[failure.kind]
    return Outcome("failed", None, failure.message, reason, failure.retry_after)
