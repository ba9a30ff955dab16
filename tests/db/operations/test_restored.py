"""What is done once after a restore, before anything ticks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.helpers.mdm import Mdm


def test_what_an_mdm_may_have_done_since_is_not_done_again(mdm: Mdm) -> None:
    fleet, device, now = mdm.fleet, mdm.device(), datetime.now(UTC)
    lock, refresh = (fleet.send(device, kind)["id"] for kind in ("mdm_lock", "mdm_refresh"))
    later = fleet.send(device, "mdm_lock", p_not_before=now + timedelta(hours=1))["id"]
    buzz = fleet.send(fleet.device(), "buzz")["id"]

    done = fleet.value("select fleet.after_restore(%s)", now + timedelta(minutes=1))

    assert done["interrupted"] == 1
    assert (fleet.command(lock)["status"], fleet.command(lock)["reason"]) == (
        "failed",
        "interrupted",
    )
    # Safe to repeat, not yet due, and what a device itself remembers.
    assert {fleet.command(one)["status"] for one in (refresh, later, buzz)} == {"pending"}
