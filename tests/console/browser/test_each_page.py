"""A day's work on each page: an admin does it, who may only look cannot, strangers see nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from pgfleet_console.table import PAGES

# Some of them open every page, which takes a busy machine long.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]


def press(page: Any, name: str, said: str) -> None:
    """Press a button, and wait for what the page says of it."""
    page.get_by_role("main").get_by_role("button", name=name, exact=True).first.click()
    expect(page.locator(".said")).to_contain_text(said)


def confirm(page: Any, name: str, typed: str, said: str) -> None:
    """Press a button that asks first, and type what it asks for."""
    page.get_by_role("button", name=f"{name}…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name=name)).to_be_disabled()
    dialog.get_by_role("textbox").fill(typed)
    dialog.get_by_role("button", name=name).click()
    expect(page.locator(".said")).to_contain_text(said)


def test_now_leads_to_what_needs_a_person(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/")
    page.locator("#needs ~ .need a", has_text="Browser").click()
    expect(page.get_by_role("button", name="Approve the next group")).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="commands with the state failed").click()
    expect(page).to_have_url(re.compile(r"/commands\?q=status:failed"))
    expect(page.locator("main tbody tr").first).to_contain_text("failed")


def test_a_run_is_dragged_to_another_day(sit_down: Any, pages: dict[str, str], weekly: int) -> None:
    day = (datetime.now(UTC) + timedelta(days=30)).date()
    monday = day - timedelta(days=day.weekday())
    page = sit_down("admin").open(f"/calendar?view=week&day={monday}&zone=Europe/London")

    run = page.locator(f'td[data-day="{monday}"] li[data-move]', has_text="08:30").first
    run.drag_to(page.locator(f'td[data-day="{monday + timedelta(days=6)}"]'))
    page.wait_for_url(f"**/calendar/move/{weekly}?**")

    # Half past eight in London is half past nine where the schedule is.
    expect(page.locator("input[name=clock]")).to_have_value("09:30")
    expect(page.locator("input[name=day]")).to_have_value(str(monday + timedelta(days=6)))
    expect(page.locator("#diff li.removed").first).to_be_visible()
    press(page, "Move it", "Moved.")


def test_many_schedules_are_paused_at_once(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/schedules?q=Browser")
    page.locator("tbody input[name=id]").first.check()
    expect(page.locator("[data-chosen]")).to_have_text("1 chosen")
    page.get_by_role("button", name="Pause…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Pause 1 schedule?")
    expect(page.get_by_text("It reaches 5 devices")).to_be_visible()
    page.get_by_role("button", name="Pause 1").click()
    expect(page.locator(".said")).to_be_visible()
    expect(page.locator("main tbody tr", has_text="Browser")).to_contain_text("paused")


def test_commands_of_a_run_are_cancelled_and_sent_again(
    sit_down: Any, a_school: Any, pages: dict[str, str]
) -> None:
    page = sit_down("admin").open(f"/runs/{a_school.run}?q=status:pending")
    first = page.locator("tbody input[name=id]").first
    number = first.get_attribute("value")
    first.check()
    press(page, "Cancel", "1 of 1 were cancelled.")
    page.goto(f"/commands/{number}")
    expect(page.locator("h1 .badge")).to_have_text("cancelled")
    press(page, "Send again", "Sent again.")
    expect(page.locator("h1 .badge")).to_have_text("pending")
    page.get_by_label("Why it is cancelled").fill("a mistake")
    press(page, "Cancel", "Cancelled.")
    expect(page.get_by_role("main")).to_contain_text("a mistake")


def test_a_device_is_told_tagged_and_retired(
    sit_down: Any, a_school: Any, pages: dict[str, str]
) -> None:
    with a_school.fleet() as fleet:
        number = fleet.device("spare-01")
    page = sit_down("admin").open("/devices?q=spare")
    page.locator("main tbody").get_by_role("link", name="spare-01").click()
    page.locator("[name=command_type]").select_option("broadcast_message")
    page.locator("[name=payload]").fill('{"message": "Hello"}')
    press(page, "Send", "It is on its way")
    page.goto(f"/devices/{number}")
    page.locator("[name=tags]").fill("shelf, old")
    press(page, "Set tags", "")
    expect(page.get_by_role("main")).to_contain_text("shelf")
    confirm(page, "Retire", "spare-01", "Retired.")


def test_a_group_is_counted_while_it_is_written(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/groups/new")
    page.locator("textarea[name=selector]").fill('{"platform": ["linux"]}')
    expect(page.locator("#found strong")).to_have_text("1")
    page.locator("textarea[name=selector]").fill('{"platform": ["bsd"]}')
    expect(page.locator("#found strong")).to_have_text("0")
    page.locator("input[name=name]").fill("BSD")
    press(page, "Make it", "Made.")


def test_members_of_a_group_are_added_and_taken_out(
    sit_down: Any, pages: dict[str, str], listed_group: int
) -> None:
    page = sit_down("admin").open(f"/groups/{listed_group}")
    page.locator("textarea[name=devices]").fill("lab-01\nlab-03")
    expect(page.locator("#effect")).to_contain_text("Adds 1, or takes out 1")
    press(page, "Add", "Added 1 of 2.")
    expect(page.get_by_role("heading", name="3 devices now")).to_be_visible()
    page.locator("textarea[name=devices]").fill("lab-77")
    expect(page.locator("#effect")).to_contain_text("there is no device lab-77")
    row = page.locator("section[aria-labelledby=members] li", has_text="lab-01")
    row.get_by_role("button", name="Take out").click()
    expect(page.locator(".said")).to_have_text("Took out 1 of 1.")
    expect(page.get_by_role("heading", name="2 devices now")).to_be_visible()


def test_the_map_tells_what_holds_at_a_time(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/map?minute=600")
    row = page.locator("section[aria-labelledby=geo] li", has_text="No chess")
    expect(row.locator(".badge")).to_have_text("holds")
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    expect(page).to_have_url(re.compile("minute=1425"))
    expect(row.locator(".badge")).to_have_text("rests")
    page.locator("section[aria-labelledby=locations]").get_by_role("link", name="Yard").click()
    expect(page.get_by_role("heading", name="Locations: 1")).to_be_visible()


def test_profiles_stay_longer_end_and_are_reconciled(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/profiles?q=device:lab-01")
    press(page, "30 minutes more", "It stays longer.")
    press(page, "End now", "It ends now.")
    press(page, "Reconcile School now", "removals.")


def test_a_rollout_is_approved_held_and_aborted(
    sit_down: Any, pages: dict[str, str], rollout: int
) -> None:
    page = sit_down("admin").open("/rollouts")
    page.get_by_role("main").get_by_role("link", name="Browser").first.click()
    page.get_by_label("A note to the approval").fill("looks good")
    press(page, "Approve the next group", "Approved.")
    press(page, "Pause", "Paused.")
    press(page, "Resume", "It goes on.")
    confirm(page, "Abort", "Browser", "Aborted.")


def test_a_deployment_is_sent_again(sit_down: Any, pages: dict[str, str], deployment: int) -> None:
    page = sit_down("admin").open("/deployments?q=kind:files")
    page.locator("main tbody a").first.click()
    expect(page).to_have_url(re.compile(f"/deployments/{deployment}$"))
    press(page, "Send again to the 1 on which it failed", "sent again to those")


def test_an_integration_is_read_and_paused(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/integrations")
    page.get_by_role("main").get_by_role("link", name="School MDM").click()
    press(page, "Read it now", "It is read soon.")
    press(page, "Pause", "")
    press(page, "Resume", "It goes on.")


def test_what_was_measured_is_drawn_and_a_rule_rests(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/telemetry")
    press(page, "Let it rest", "")
    expect(page.locator("section[aria-labelledby=rules] .badge")).to_have_text("does nothing")
    press(page, "Let it act", "The rule acts")
    page.locator("main tbody").get_by_role("link", name="lab-01").click()
    expect(page.get_by_role("img", name=re.compile("^battery: from 60"))).to_be_visible()
    page.get_by_role("link", name="7d").click()
    expect(page.get_by_role("link", name="7d")).to_have_attribute("aria-current", "true")


def test_a_message_is_sent_again(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/webhooks")
    press(page, "Test", "A test is on its way.")
    press(page, "Send it again", "It goes out again.")
    page.goto("/webhooks")
    press(page, "Tell no more", "told no more")
    press(page, "Tell again", "told again")


def test_the_audit_log_the_search_and_the_zone(sit_down: Any, pages: dict[str, str]) -> None:
    page = sit_down("admin").open("/settings")
    page.locator("section", has_text="School").get_by_label("Time zone").first.fill("Asia/Tokyo")
    page.locator("section", has_text="School").get_by_role("button", name="Set").first.click()
    expect(page.locator(".said")).to_contain_text("time zone is set")
    page.goto("/audit")
    page.get_by_role("searchbox", name="Search this page").fill("table:schedules")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("main tbody tr").first).to_contain_text("schedules")
    page.get_by_role("searchbox", name="Search the fleet").fill("lab-02")
    page.keyboard.press("Enter")
    page.get_by_role("main").get_by_role("link", name="lab-02").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("lab-02")


# What may be tried without changing anything, and pages that are forms from end to end.
FORMS = ("schedule-new", "schedule-edit", "group-new", "calendar-move")


def test_who_may_only_look_has_nothing_to_press(sit_down: Any, pages: dict[str, str]) -> None:
    person = sit_down("viewer")
    found = {}
    for name, path in pages.items():
        page = person.open(path)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        buttons = page.locator("main form[method=post] button").all_inner_texts()
        if buttons and name not in FORMS:
            found[name] = buttons
        made = page.get_by_role("main").get_by_role("link", name=re.compile("^(New|Edit|move)"))
        assert made.count() == 0, name
    assert found == {}


def test_every_act_is_refused_when_forced(
    sit_down: Any, a_school: Any, pages: dict[str, str], request: pytest.FixtureRequest
) -> None:
    numbers = _numbers(a_school, request)
    person = sit_down("viewer")
    csrf = person.open("/").locator("meta[name=csrf]").get_attribute("content")
    with a_school.fleet() as fleet:
        before = fleet.value("select max(id) from audit_log")
    taken = {}
    for act in (act for page in PAGES for act in page.acts if not act.tries):
        path = re.sub(r"\{\w+\}", numbers.get(act.path.split("/")[1], ""), act.path)
        form = {"csrf": csrf, "id": numbers["commands"], "verb": "pause", "do": "cancel"}
        form |= {"ids": numbers["schedules"], "devices": "lab-01", "command_type": "lock"}
        form |= {"confirm": numbers["schedules"], "name": "Mine", "by": "1 hour"}
        form |= {"selector": '{"platform": ["linux"]}', "timezone": "UTC", "enabled": "false"}
        answer = person.page.request.post(path, form=form, max_redirects=0)
        if answer.status not in (403, 404, 422):
            taken[act.path] = answer.status
    with a_school.fleet() as fleet:
        changes = fleet.value(
            "select count(*) from audit_log where id > %s and owner_id = %s",
            *(before, a_school.owner),
        )
    # A verb for many reaches those that one may act upon, and those are none.
    assert taken.keys() <= {"/schedules/chosen", "/schedules/chosen/do"} and changes == 0


def _numbers(school: Any, request: pytest.FixtureRequest) -> dict[str, str]:
    """Give what stands for the id in the paths of each page."""
    with school.fleet() as fleet:
        install = fleet.value("select min(install_id) from temporary_profiles")
    return {
        "schedules": str(school.schedule),
        "commands": str(school.waiting),
        "devices": str(school.devices[1]),
        "calendar": str(request.getfixturevalue("weekly")),
        "groups": str(request.getfixturevalue("listed_group")),
        "rollouts": str(request.getfixturevalue("rollout")),
        "deployments": str(request.getfixturevalue("deployment")),
        "integrations": str(request.getfixturevalue("mdm")),
        "telemetry": str(request.getfixturevalue("measured")),
        "webhooks": str(request.getfixturevalue("message")),
        "profiles": str(install),
        "settings": str(school.owner),
    }


def test_a_stranger_sees_nothing_of_it(sit_down: Any, pages: dict[str, str]) -> None:
    person = sit_down("stranger")
    theirs = ("lab-0", "Evening lock", "Morning <bell>", "Browser", "School", "Yard", "chess")
    for path in pages.values():
        page = person.open(path)
        if re.search(r"/\d+", path):
            expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
        text = page.locator("main").inner_text()
        assert not [one for one in theirs if one in text], path
