"""Runs and commands: found, looked at, cancelled, sent again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgfleet.errors import InvalidInput
from pgfleet_console.pages.commands import life_of
from pgfleet_console.words import age, read_words

NOW = datetime(2027, 1, 4, 12, 0, tzinfo=UTC)


def status(school: Any, command: int) -> str:
    with school.fleet() as fleet:
        return str(fleet.command(command)["status"])


def test_a_search_is_taken_apart() -> None:
    words = read_words('status:failed since:1h "lab 01" 18:30', ("status", "since"))

    assert words.fields == {"status": "failed", "since": "1h"}
    assert (words.words, words.name, words.id) == (("lab 01", "18:30"), "lab 01 18:30", None)
    assert [read_words(text, ()).id for text in ("17", "#17", "17 18", "x17")] == [
        *(17, 17, None, None)
    ]
    assert age("90m", NOW) == (NOW - timedelta(minutes=90)).isoformat()
    with pytest.raises(InvalidInput) as refused:
        age("soon", NOW)
    assert "since:30m" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("words", "found", "hidden"),
    [
        ("status:failed", "lab-02", "lab-01"),
        ("status:failed since:1h", "lab-02", "lab-01"),
        ("device:LAB-02", "lab-02", "lab-03"),
        ("ab-03", "lab-03", "lab-02"),
        ("status:expired", "No command is found", "lab-0"),
        ("50% _off", "No command is found", "lab-0"),
    ],
)
def test_commands_are_found(console: Any, words: str, found: str, hidden: str) -> None:
    text = console("viewer").http.get("/commands", params={"q": words}).text

    shown = text.split('id="live"')[1]
    assert found in shown and hidden not in shown


@pytest.mark.parametrize("words", ["color:red", "since:soon", "#99999999999999999999"])
def test_what_cannot_be_searched_for_is_said(console: Any, words: str) -> None:
    answer = console("viewer").http.get("/commands", params={"q": words})

    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert "since:" in answer.text


def test_a_command_has_a_life() -> None:
    command = {
        "created_at": NOW,
        "not_before": NOW + timedelta(minutes=2),
        "claimed_at": NOW + timedelta(minutes=3),
        "expires_at": NOW + timedelta(hours=1),
        "executed_at": None,
        "lease_expires_at": NOW + timedelta(minutes=6),
        "progress": {"percent": 40, "state": "installing"},
        "progress_at": NOW + timedelta(minutes=4),
        "status": "running",
        "reason": None,
        "channel": "agent",
        "attempt": 2,
        "max_attempts": 3,
        "failure_count": 1,
    }

    told = [(one["what"], one.get("more", "")) for one in life_of(command, NOW)]

    assert told == [
        ("made", ""),
        ("may be tried again", ""),
        ("claimed by the device, attempt 2 of 3", "1 failed before"),
        ("told how far it is", "40 % installing"),
        ("its lease ends unless it is extended", ""),
        ("is no longer started", ""),
    ]


def test_what_a_device_says_is_text(console: Any, a_school: Any) -> None:
    text = console("viewer").get(f"/commands/{a_school.failed}")

    assert "the screen &lt;did&gt; not turn off" in text


def test_a_viewer_sees_no_buttons_and_is_refused_all_the_same(console: Any, a_school: Any) -> None:
    viewer, path = console("viewer"), f"/commands/{a_school.waiting}"

    assert f"{path}/cancel" not in viewer.get(path)
    assert 'value="cancel"' not in viewer.get("/commands")
    refused = viewer.post(f"{path}/cancel", status=403)
    assert "permission" in refused.text
    assert status(a_school, a_school.waiting) == "pending"


def test_a_stranger_finds_nothing(console: Any, a_school: Any) -> None:
    stranger = console("stranger")

    for path in (f"/commands/{a_school.waiting}", f"/runs/{a_school.run}"):
        assert "was not found" in stranger.get(path, 404)
    stranger.post(f"/commands/{a_school.waiting}/cancel", status=404)
    assert status(a_school, a_school.waiting) == "pending"


def test_an_operator_cancels_and_sends_again(console: Any, a_school: Any) -> None:
    admin = console("admin")
    with a_school.fleet() as fleet:
        one = fleet.send(a_school.devices[4], "buzz")["id"]

    cancelled = admin.do(f"/commands/{one}/cancel", reason="wrong room")
    assert "Cancelled." in cancelled and "wrong room" in cancelled
    # It is said once.
    assert "Cancelled." not in admin.get(f"/commands/{one}")

    once = admin.post(f"/commands/{one}/again").headers["location"]
    assert "Sent again." in admin.get(once)
    again = admin.post(f"/commands/{one}/again").headers["location"]
    assert again == once


def test_those_that_were_ticked_are_acted_upon(console: Any, a_school: Any) -> None:
    admin = console("admin")
    with a_school.fleet() as fleet:
        sent = [fleet.send(device, "buzz")["id"] for device in a_school.devices[:3]]

    said = admin.do("/commands/chosen", id=sent, do="cancel", back=f"/runs/{a_school.run}")

    assert "3 of 3 were cancelled" in said and "Run #" in said
    assert {status(a_school, one) for one in sent} == {"cancelled"}
    assert "Tick from 1 to" in admin.post("/commands/chosen", status=422, do="again").text


def test_a_wipe_is_sent_again_only_by_its_name(console: Any, a_school: Any) -> None:
    admin = console("admin")
    with a_school.fleet() as fleet:
        one = fleet.send(a_school.devices[4], "mdm_unenroll", p_payload={"confirm": True})["id"]
    admin.post(f"/commands/{one}/cancel")

    assert 'data-must-be="lab-05"' in admin.get(f"/commands/{one}")
    assert "type the name" in admin.post(f"/commands/{one}/again", 422, confirm="lab-5").text
    many = admin.post("/commands/chosen", 422, id=[one], do="again")
    assert "is not sent again to many" in many.text
    admin.post(f"/commands/{one}/again", confirm="lab-05")


def test_a_run_is_shown_with_its_devices(console: Any, a_school: Any) -> None:
    viewer = console("viewer")

    run = viewer.get(f"/runs/{a_school.run}")
    assert "1 completed" in run and "1 failed" in run and "5 targeted" in run
    only = viewer.http.get(f"/runs/{a_school.run}", params={"q": "status:failed"}).text
    assert "lab-02</a>" in only and "lab-01</a>" not in only
    assert "Evening lock" in viewer.http.get("/runs", params={"q": "evening trigger:manual"}).text


def test_a_list_goes_on_by_the_last_id(console: Any, a_school: Any) -> None:
    with a_school.fleet() as fleet:
        for _ in range(120):
            fleet.send(a_school.devices[0], "clear_cache")
    viewer = console("viewer")

    first = viewer.http.get("/commands", params={"q": "type:clear_cache"}).text
    older = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    rest = viewer.get(older)

    assert len(_ids(first)) == 100 and len(_ids(rest)) >= 20
    assert not _ids(first) & _ids(rest)


def _ids(text: str) -> set[str]:
    return {part.split('"')[0] for part in text.split('<tr id="')[1:]}
