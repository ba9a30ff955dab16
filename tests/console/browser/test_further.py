"""The calendar, devices, groups and systems in a browser: drawn, fit for everybody, dragged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.console.browser.conftest import DESK, PHONE, SCREENSHOTS
from tests.console.browser.test_everybody import AXE, RULES
from tests.console.test_calendar import weekly
from tests.console.test_systems import mdm, measured, rollout

pytestmark = pytest.mark.browser
__all__ = ["mdm", "measured", "rollout", "weekly"]


@pytest.fixture(scope="module")
def group(a_school: Any) -> int:
    with a_school.fleet() as fleet:
        made = fleet.insert(
            "device_groups",
            owner_id=a_school.owner,
            name="All of them",
            selector={"platform": ["linux"]},
        )
        fleet.run("update devices set platform = 'linux' where id = %s", a_school.devices[0])
        return int(made["id"])


@pytest.fixture(scope="module")
def pages(
    a_school: Any, weekly: int, group: int, rollout: int, mdm: int, measured: int
) -> dict[str, str]:
    """Name the pages, each with its address."""
    today = datetime.now(UTC)
    with a_school.fleet() as fleet:
        calendar = fleet.insert("blackout_calendars", owner_id=a_school.owner, name="Holidays")
        fleet.insert(
            "blackout_periods",
            calendar_id=calendar["id"],
            owner_id=a_school.owner,
            starts_on=today.date() + timedelta(days=1),
            ends_on=today.date() + timedelta(days=3),
            summary="Snow days",
        )
        fleet.insert(
            "locations",
            owner_id=a_school.owner,
            name="Yard",
            kind="circle",
            latitude=52.5,
            longitude=13.4,
            radius_m=300,
        )
        fleet.run(
            "update devices set latitude = 52.501, longitude = 13.401, located_at = now()"
            " where id = any (%s)",
            a_school.devices[:2],
        )
    device = a_school.devices[0]
    at = (today + timedelta(days=1)).strftime("%Y-%m-%dT08:30:00Z")
    return {
        **{f"calendar-{view}": f"/calendar?view={view}" for view in ("month", "week", "day")},
        "calendar-agenda": "/calendar?view=agenda&zone=Asia/Tokyo",
        "calendar-move": f"/calendar/move/{weekly}?at={at}",
        "devices": "/devices",
        "device": f"/devices/{device}",
        "groups": "/groups",
        "group": f"/groups/{group}",
        "group-new": "/groups/new",
        "rollouts": "/rollouts",
        "rollout": f"/rollouts/{rollout}",
        "deployments": "/deployments",
        "integrations": "/integrations",
        "integration": f"/integrations/{mdm}",
        "profiles": "/profiles",
        "telemetry": "/telemetry",
        "map": "/map",
        "telemetry-of": f"/telemetry/{device}?span=24h",
    }


@pytest.mark.parametrize(
    ("scheme", "screen"), [("light", DESK), ("dark", PHONE)], ids=["light-desk", "dark-phone"]
)
def test_pages_are_drawn_and_axe_finds_nothing(
    sit_down: Any, pages: dict[str, str], scheme: str, screen: Any
) -> None:
    person = sit_down("admin", screen=screen, scheme=scheme)
    folder = SCREENSHOTS / f"{scheme}-{'phone' if screen is PHONE else 'desk'}"
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"runOnly": {"type": "tag", "values": list(RULES)}}
    found: dict[str, list[str]] = {}

    for name, path in pages.items():
        page = person.open(path)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > screen["width"]:
            found.setdefault(name, []).append(f"is {width} wide")
        page.evaluate(AXE.read_text())
        for one in page.evaluate("asked => axe.run(document, asked)", asked)["violations"]:
            places = ", ".join(str(node["target"]) for node in one["nodes"][:4])
            found.setdefault(name, []).append(f"{one['id']}: {one['help']} ({places})")

    assert not found, "\n".join(f"{name}: {one}" for name, all in found.items() for one in all)


def test_a_run_is_dragged_to_another_day(sit_down: Any, pages: dict[str, str], weekly: int) -> None:
    person = sit_down("admin")
    day = (datetime.now(UTC) + timedelta(days=30)).date()
    monday = day - timedelta(days=day.weekday())
    page = person.open(f"/calendar?view=week&day={monday}&zone=Europe/London")

    run = page.locator(f'td[data-day="{monday}"] li[data-move]', has_text="08:30").first
    run.drag_to(page.locator(f'td[data-day="{monday + timedelta(days=6)}"]'))
    page.wait_for_url(f"**/calendar/move/{weekly}?**")

    # Half past eight in London is half past nine where the schedule is.
    assert page.locator("input[name=clock]").input_value() == "09:30"
    assert page.locator("input[name=day]").input_value() == str(monday + timedelta(days=6))
    page.locator("#diff li.removed").first.wait_for()
    page.get_by_role("button", name="Move it").click()
    assert person.said() == "Moved."


def test_a_group_is_counted_while_it_is_written(sit_down: Any, pages: dict[str, str]) -> None:
    person = sit_down("admin")
    page = person.open("/groups/new")

    page.locator("textarea[name=selector]").fill('{"platform": ["linux"]}')
    page.locator("#found strong", has_text="1").wait_for()
    page.locator("textarea[name=selector]").fill('{"platform": ["bsd"]}')
    page.locator("#found strong", has_text="0").wait_for()
    page.locator("input[name=name]").fill("BSD")
    page.get_by_role("button", name="Make it").click()
    assert person.said() == "Made."
