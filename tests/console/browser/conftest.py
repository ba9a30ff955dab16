"""A real browser at the console, as each of the school's people, on a desk and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.console.browser.whole_school import (
    deployment,
    group,
    listed_group,
    message,
    pages,
    places,
)
from tests.console.test_calendar import weekly
from tests.console.test_systems import mdm, measured, rollout

__all__ = [
    "deployment",
    "group",
    "listed_group",
    "mdm",
    "measured",
    "message",
    "pages",
    "places",
    "rollout",
    "weekly",
]
playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")

ROOT = Path(__file__).parents[3]
# Written anew at each run, to be looked at by a person; git does not know it.
SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = os.environ.get("PGFLEET_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE_MS = 60_000
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start the browser, once."""
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Person:
    """Somebody before a screen."""

    page: Any
    name: str
    errors: list[str]

    def open(self, path: str) -> Any:
        """Go to a page; what its scripts complain about is kept."""
        self.page.goto(path, wait_until="load")
        return self.page

    def said(self) -> str:
        """Give what the page says of what was just done."""
        return str(self.page.locator(".said").inner_text())


@pytest.fixture
def sit_down(
    console: Callable[[str], Any], a_school: Any, chromium: Any
) -> Iterator[Callable[..., Person]]:
    """Give a function that lets a person sit down before a screen."""
    opened = []

    def sit(
        name: str, *, screen: dict[str, int] = DESK, scheme: str = "light", zone: str = "Asia/Tokyo"
    ) -> Person:
        context = chromium.new_context(
            base_url=console(name).url,
            extra_http_headers={"Authorization": f"Bearer {a_school.token(name)}"},
            viewport=screen,
            color_scheme=scheme,
            timezone_id=zone,
            locale="en-GB",
            has_touch=screen is PHONE,
        )
        context.set_default_timeout(PATIENCE_MS)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        opened.append((context, errors))
        return Person(page, name, errors)

    yield sit
    for context, _ in opened:
        context.close()
    complaints = [one for _, errors in opened for one in errors]
    # What is refused on purpose is no fault of a page.
    assert [one for one in complaints if "status of 4" not in one] == []
