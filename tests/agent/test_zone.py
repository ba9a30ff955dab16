"""The agent tells its time zone by the IANA name, also when the device has come to another one."""

from __future__ import annotations

import pytest
import tzlocal

from pgfleet.agent.enroll import facts
from pgfleet.agent.zone import zone_name


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Argentina/Ushuaia", "Europe/Kyiv"])
def test_the_zone_is_the_one_that_is_set_at_this_moment(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert zone_name() == "Europe/Berlin"
    monkeypatch.setenv("TZ", zone)
    assert zone_name() == zone
    assert facts()["timezone"] == zone


@pytest.mark.parametrize("error", [LookupError("none"), OSError("closed"), ValueError("odd")])
def test_a_system_that_does_not_tell_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(tzlocal, "reload_localzone", fail)
    monkeypatch.setattr("pgfleet.agent.zone._linked_name", lambda: None)
    assert zone_name() is None
    assert "timezone" not in facts()
