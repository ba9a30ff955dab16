"""A day's work at the console, as an admin, as somebody who may only look, and as a stranger."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.console.browser.conftest import PHONE

pytestmark = pytest.mark.browser


@contextmanager
def ticking(school: Any) -> Iterator[None]:
    """Tick as the engine does."""
    end = threading.Event()

    def tick() -> None:
        with school.fleet() as fleet:
            while not end.wait(0.5):
                fleet.tick()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(60)


def test_an_admin_pauses_edits_runs_and_ends_a_schedule(sit_down: Any, a_school: Any) -> None:
    page = sit_down("admin").open("/schedules")
    page.get_by_role("link", name="New schedule").click()
    page.locator("[name=name]").fill("Morning call")
    page.locator("[name=action_type]").select_option("lock")
    page.locator("[name=recurrence_type]").select_option("weekly")
    expect(page.locator("[name=cron]")).to_be_hidden()
    page.locator("[name=days]").fill("mon, thu")
    page.locator("[name=time]").fill("25:00")
    page.locator("[name=devices]").fill("lab-01")
    # What is wrong stands at the field while one types.
    expect(page.locator("#f-time .problem")).to_contain_text("25:00")
    page.locator("[name=time]").fill("07:45")
    expect(page.locator("#preview li")).to_have_count(10)
    expect(page.locator("#f-time .problem")).to_have_text("")
    if page.locator("select[name=owner_id]").count():
        page.locator("select[name=owner_id]").select_option(str(a_school.owner))
    page.get_by_role("button", name="Make it").click()
    expect(page.locator(".said")).to_contain_text("Made.")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Morning call")

    page.get_by_role("link", name="Edit").click()
    page.locator("[name=time]").fill("08:15")
    expect(page.locator("#preview .added").first).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".said")).to_contain_text("Changed.")

    page.get_by_role("button", name="Pause").click()
    expect(page.locator("h1 .badge")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Run now").click()
    expect(page).to_have_url(re.compile(r"/runs/\d+$"))

    page.get_by_role("heading", level=1).get_by_role("link").click()
    page.get_by_role("button", name="Delete…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Delete")).to_be_disabled()
    dialog.get_by_role("textbox").fill("Morning call")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator(".said")).to_contain_text("Morning call is deleted")


def test_a_page_moves_by_itself_and_leaves_a_person_alone(sit_down: Any, a_school: Any) -> None:
    page = sit_down("admin").open("/commands")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with ticking(a_school), a_school.fleet() as fleet:
        expect(page.locator("[data-pulse]")).to_have_text("live")
        first = page.locator("tbody input[name=id]").first
        first.check()
        number = fleet.send(a_school.devices[0], "buzz")["id"]
        row = page.locator(f"#command-{number}")
        expect(row).to_contain_text("pending")

        with fleet.conn.transaction():
            fleet.value("select (cancel_command(%s)).id", number)
        expect(row).to_contain_text("cancelled")
    # What was ticked stays ticked, and nothing was asked for: it was told.
    expect(page.locator("tbody input[name=id]:checked")).to_have_count(1)
    assert [url for url in asked if "/live" not in url and "/static/" not in url] == []


def test_somebody_who_may_only_look_has_nothing_to_press(sit_down: Any, a_school: Any) -> None:
    person = sit_down("viewer")
    page = person.open(f"/schedules/{a_school.schedule}")
    expect(page.get_by_text("In plain English")).to_be_visible()
    for name in ("Run now", "Pause", "Delete…", "Cancel…", "Duplicate"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    person.open(f"/commands/{a_school.waiting}")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)

    # Forced, it is refused.
    page.evaluate(
        "path => { const form = document.createElement('form'); form.method = 'post';"
        " form.action = path; form.innerHTML = '<input name=csrf>';"
        " document.body.append(form); form.requestSubmit(); }",
        f"/commands/{a_school.waiting}/cancel",
    )
    expect(page.get_by_role("alert")).to_contain_text("permission")
    expect(page.locator("h1 .badge")).to_have_text("pending")


def test_a_stranger_sees_an_empty_house(sit_down: Any, a_school: Any) -> None:
    person = sit_down("stranger")
    for path in ("/schedules", "/commands", "/runs"):
        expect(person.open(path).locator(".empty")).to_be_visible()
    page = person.open(f"/runs/{a_school.run}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


def test_times_are_those_of_whoever_looks(sit_down: Any, a_school: Any) -> None:
    page = sit_down("viewer", zone="Asia/Tokyo").open(f"/commands/{a_school.failed}")

    made = page.locator(".life time").first
    at = made.get_attribute("datetime")
    shown = page.evaluate(
        "at => new Date(at).toLocaleTimeString('en-GB', {timeZone: 'Asia/Tokyo'})", at
    )
    assert shown in made.inner_text()
    assert made.get_attribute("title").endswith("UTC")


def test_the_keyboard_is_enough(sit_down: Any) -> None:
    page = sit_down("viewer").open("/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("s")
    expect(page).to_have_url(re.compile("/schedules$"))
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search this page")).to_be_focused()
    page.keyboard.type("evening")
    page.keyboard.press("Enter")
    expect(page.locator("main tbody tr")).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Evening lock")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_light_is_switched_and_stays(sit_down: Any) -> None:
    page = sit_down("viewer", scheme="light", screen=PHONE).open("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate(background)
    page.reload()

    assert light != dark == page.evaluate(background)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Who changed what")
