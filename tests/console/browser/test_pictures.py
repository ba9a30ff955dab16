"""All pages, light and dark, on a desk and on a phone: drawn, and fit for everybody."""

from __future__ import annotations

from typing import Any

import pytest
from tests.console.browser.conftest import DESK, PHONE, SCREENSHOTS

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_pages_are_drawn(sit_down: Any, a_school: Any, scheme: str, screen: Any) -> None:
    person = sit_down("admin", screen=screen, scheme=scheme)
    kind = "phone" if screen is PHONE else "desk"
    folder = SCREENSHOTS / f"{scheme}-{kind}"
    folder.mkdir(parents=True, exist_ok=True)

    for name, path in pages(a_school).items():
        page = person.open(path)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        # Nothing hangs over the edge of a phone.
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= screen["width"], f"{name} is {width} wide"


def pages(school: Any) -> dict[str, str]:
    """Name the pages, each with its address."""
    return {
        "now": "/",
        "runs": "/runs",
        "run": f"/runs/{school.run}",
        "commands": "/commands",
        "commands-found": "/commands?q=status:failed",
        "command": f"/commands/{school.failed}",
        "refused": "/commands/999999",
        "schedules": "/schedules",
        "schedule": f"/schedules/{school.schedule}",
        "schedule-edit": f"/schedules/{school.schedule}/edit",
        "schedule-new": "/schedules/new",
        "schedule-explained": f"/schedules/{school.schedule}/explain?at=2040-01-01T12:00Z",
        "webhooks": "/webhooks",
        "audit": "/audit",
        "settings": "/settings",
        "search": "/search?q=lab",
    }
