"""What the database hands out, and what it is told came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgfleet_functions.integrations.calls import CallFailed, FailureKind
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
# The same where the other side cannot have heard of it: what must not happen twice is tried again.
UNHEARD: Mapping[FailureKind, str] = {
    FailureKind.NETWORK: "not_sent",
    FailureKind.RATE: "not_called",
}


@dataclass(frozen=True, slots=True)
class Work:
    """One command under a lease."""

    order: Order
    integration_id: int
    lease_seconds: float
    # What the log says of it.
    subject: Mapping[str, Any]

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Work:
        """Read what was claimed."""
        before = job.get("result") or {}
        lease = datetime.fromisoformat(job["lease_expires_at"])
        return cls(
            order=Order(
                command_id=job["command_id"],
                attempt=job["attempt"],
                command_type=job["command_type"],
                payload=job["payload"] or {},
                external_id=job["external_id"],
                attributes=job.get("attributes") or {},
                sent_at=_moment(before.get("sent_at") or job.get("accepted_at")),
                unanswered_at=_moment(job.get("unanswered_at")),
                before=before,
            ),
            integration_id=job["integration_id"],
            lease_seconds=(lease - datetime.now(UTC)).total_seconds(),
            subject={
                "integration": job["integration_id"],
                "run": job.get("run_id"),
                "device": job.get("device_id"),
                "command": job["command_id"],
                "trace": job.get("trace_id"),
            },
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt or a look ends in the database: accepted, completed or failed."""

    kind: str
    result: Mapping[str, Any] | None = None
    error: str | None = None
    reason: str | None = None
    # When it is worth it to try, or to look, again.
    after: float | None = None
    # Whether the other side let us wait until the time was over.
    is_slow: bool = False

    def row(self, order: Order) -> dict[str, Any]:
        """Give the outcome of a look as the database takes it."""
        return {
            "command_id": order.command_id,
            "attempt": order.attempt,
            "outcome": self.kind,
            "result": self.result,
            "error": self.error,
            "reason": self.reason,
            "look_after": self.after,
        }


def outcome_of_report(order: Order, report: Report) -> Outcome:
    """Say what a provider's report means: taken is not yet done."""
    result = {**order.before, **report.result, "state": str(report.state)}
    match report.state:
        case State.ACKNOWLEDGED:
            return Outcome("completed", result)
        case State.FAILED | State.EXPIRED:
            return Outcome("failed", result, report.error, report.reason or "error")
        case _:
            return Outcome("accepted", result, after=report.look_after)


def outcome_of_failure(failure: CallFailed) -> Outcome:
    """Say what a failed call means for the command that was to be sent."""
    reasons = REASONS if failure.reached else {**REASONS, **UNHEARD}
    return Outcome(
        "failed",
        None,
        failure.message,
        reasons[failure.kind],
        failure.retry_after,
        is_slow=failure.is_slow,
    )


def outcome_of_no_look(order: Order, after: float | None = None) -> Outcome:
    """Say that a look came to nothing: the command is as it was."""
    return Outcome("accepted", order.before, after=after or LOOK_AGAIN_SECONDS)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
