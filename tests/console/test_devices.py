"""Devices and groups: found, looked at, told what to do."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from pgfleet_console.pages import plots
from pgfleet_console.pages.devices.coming import by_hour, coming_of
from pgfleet_console.pages.devices.one import by_day

NOW = datetime(2027, 1, 4, 12, 20, tzinfo=UTC)
CALENDAR = (
    "BEGIN:VCALENDAR\r\n"
    "BEGIN:VEVENT\r\nUID:schedule-7-20270104T123000000000Z@x.pgfleet\r\n"
    "DTSTART:20270104T123000Z\r\nSUMMARY:Lock\\, then\r\n  wait\r\nEND:VEVENT\r\n"
    "BEGIN:VEVENT\r\nUID:schedule-8-x\r\nDTSTART:20270104T150000\r\nSUMMARY:Bell\r\nEND:VEVENT\r\n"
    "BEGIN:VEVENT\r\nUID:schedule-9-x\r\nDTSTART;VALUE=DATE:20270105\r\n"
    "SUMMARY:Often (96 runs)\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


def test_a_calendar_is_read() -> None:
    found = coming_of(CALENDAR, "Europe/Berlin")

    told = [(one["schedule_id"], one["name"], one["at"], one["day"]) for one in found]
    assert told == [
        (7, "Lock, then wait", datetime(2027, 1, 4, 12, 30, tzinfo=UTC), "2027-01-04"),
        (8, "Bell", datetime(2027, 1, 4, 14, 0, tzinfo=UTC), "2027-01-04"),
        (9, "Often (96 runs)", None, "2027-01-05"),
    ]
    assert [count for _, count in by_hour(found, NOW)[:4]] == [1, 0, 1, 0]


def test_days_without_requests_are_shown_too() -> None:
    row = {"day": date(2027, 1, 3), "claims": 2, "looks": 1, "tokens": 0, "checkins": 0} | {
        "sockets": 1
    }

    days = by_day([row], date(2027, 1, 4))

    assert (len(days), days[-2], days[-1]) == (30, ("2027-01-03", 4), ("2027-01-04", 0))
    assert plots.bars(days)[-2]["height"] == plots.HEIGHT
    assert plots.line([(0, 1), (10, 3)]) == "0.00,30.00 100.00,0.00"
    assert plots.line([(5, 2)]) == "0.00,15.00"


def test_devices_are_found(console: Any, a_school: Any) -> None:
    viewer = console("viewer")
    with a_school.fleet() as fleet:
        fleet.value("select id from tag_device(%s, '{corner}')", a_school.devices[3])

    def found(words: str) -> int:
        text: str = viewer.http.get("/devices", params={"q": words}).text
        return text.count('<tr id="device-')

    assert found("LAB-0") == 5 and found("lab-03") == 1 and found(f"#{a_school.devices[0]}") == 1
    assert found("tag:corner") == 1 and found("zone:europe/berlin") == 5
    assert found("group:nowhere") == 0 and found("status:retired") == 0
    assert "No device is found" in console("stranger").get("/devices")


def test_a_device_tells_what_is_to_come(console: Any, a_school: Any) -> None:
    text = console("viewer").get(f"/devices/{a_school.devices[0]}")

    assert "Evening lock" in text.split("across all schedules")[1].split("</section>")[0]
    assert f"/commands/{a_school.failed}" not in text and "lab-01" in text
    assert "/send" not in text and "/retire" not in text


def test_a_command_is_sent_once(console: Any, a_school: Any) -> None:
    admin, path = console("admin"), f"/devices/{a_school.devices[2]}"
    asked = {"command_type": "broadcast_message", "payload": '{"message": "<Hello>"}'}

    assert f"{path}/send" in admin.get(path)
    made = admin.post(f"{path}/send", **asked).headers["location"]
    assert "It is on its way" in admin.get(made) and "&lt;Hello&gt;" in admin.get(made)

    wrong = admin.post(f"{path}/send", 422, command_type="lock", payload="[1]").text
    assert "no JSON object" in wrong and "[1]</textarea>" in wrong
    assert "message" in admin.post(f"{path}/send", 422, command_type="broadcast_message").text
    console("viewer").post(f"{path}/send", 403, command_type="lock")
    console("stranger").post(f"{path}/send", 404, command_type="lock")


def test_what_cannot_be_taken_back_is_sent_by_its_name(console: Any, a_school: Any) -> None:
    admin, path = console("admin"), f"/devices/{a_school.devices[1]}"

    refused = admin.post(f"{path}/send", 422, command_type="mdm_unenroll", confirm="lab-0").text
    assert "is not &#34;lab-02&#34;" in refused
    made = admin.do(f"{path}/send", command_type="mdm_unenroll", confirm="lab-02")
    assert "mdm_unenroll on" in made


def test_a_device_is_tagged_and_retired(console: Any, a_school: Any) -> None:
    admin = console("admin")
    with a_school.fleet() as fleet:
        number = fleet.device("spare-01", tags=["old"])
    path = f"/devices/{number}"

    assert "new, shelf" in admin.do(f"{path}/tags", tags="shelf, new")
    console("viewer").post(f"{path}/retire", 403, confirm="spare-01")
    admin.post(f"{path}/retire", 422, confirm="spare")
    assert "Retired." in admin.do(f"{path}/retire", confirm="spare-01")
    assert f"{path}/send" not in admin.get(path)


def test_a_group_is_made_of_whom_a_selector_finds(console: Any, a_school: Any) -> None:
    admin = console("admin")
    with a_school.fleet() as fleet:
        for device in a_school.devices[:3]:
            fleet.value("select id from tag_device(%s, '{front}')", device)
    front = {"name": "Front row", "selector": '{"tags": ["front"]}'}

    def count(selector: str) -> str:
        text: str = admin.post("/groups/new/count", 200, selector=selector).text
        return text

    assert "<strong>3</strong>" in count(front["selector"])
    assert "<strong>0</strong>" in count('{"tags": ["nowhere"]}')
    assert "is not a key of a selector" in count('{"tag": ["front"]}')
    assert "no JSON" in count('{"tags": [')

    assert "3 devices now" in admin.do("/groups/new", **front)
    again = admin.post("/groups/new", 422, **front).text
    assert "already" in again and "Front row" in again
    assert "Front row" in console("viewer").get("/groups?q=kind:dynamic")
    assert admin.get("/devices?q=group:%22Front+row%22").count('<tr id="device-') == 3
    assert "No group is found" in console("stranger").get("/groups")
    console("viewer").post("/groups/new", 403, **(front | {"name": "Mine"}))


def test_a_group_that_lists_its_members_is_edited(console: Any, a_school: Any) -> None:
    admin, viewer = console("admin"), console("viewer")
    made = admin.post("/groups/new", name="Back row", selector=" ").headers["location"]
    said = (
        "Nobody is in it" in admin.get(made)
        and "It lists its members" in admin.post("/groups/new/count", 200, selector="").text
    )
    assert said

    def count(devices: str, status: int = 200) -> str:
        text: str = admin.post(f"{made}/members/count", status, devices=devices).text
        return text

    assert "Adds 2, or takes out 0; no active schedule names" in count("LAB-04, lab-05\n")
    assert "there is no device lab-77" in count("lab-04\nlab-77")
    assert "Added 2 of 2." in admin.do(f"{made}/members/add", devices="LAB-04, lab-05")
    assert "Adds 1, or takes out 1" in count("lab-05\nlab-03")
    assert "2 devices now" in viewer.get(made)

    refused = admin.post(f"{made}/members/add", 422, devices="lab-77").text
    assert "there is no device lab-77" in refused and "2 devices now" in refused
    assert "Took out 1 of 2." in admin.do(f"{made}/members/remove", devices="lab-05\nlab-03")
    # Whoever only looks has neither form nor button, and is refused when it is forced.
    assert "/members/" not in viewer.get(made)
    assert "New group" not in viewer.get("/groups")
    for verb in ("add", "remove"):
        viewer.post(f"{made}/members/{verb}", 403, devices="lab-04")
        console("stranger").post(f"{made}/members/{verb}", 404, devices="lab-04")
    assert "1 device now" in admin.get(made)
