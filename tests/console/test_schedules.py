"""Schedules: found, explained, acted upon, made and edited."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from typing import Any

import pytest
from typer.testing import CliRunner

from pgfleet.errors import InvalidInput
from pgfleet.main import app
from pgfleet_console.pages.schedules import spec, spoken


def create(school: Any, name: str, **more: Any) -> int:
    with school.fleet() as fleet:
        asked = {"device_ids": school.devices[:2], "timezone": "Europe/Berlin", **more}
        if "recurrence_type" not in more:
            asked |= {"recurrence_type": "daily", "recurrence_config": {"time": "02:30"}}
        return int(fleet.create(name=name, **asked)["id"])


def row(school: Any, schedule: int) -> Any:
    with school.fleet() as fleet:
        found = fleet.rows("select * from schedules where id = %s", schedule)
    return found[0] if found else None


def fields(text: str) -> dict[str, str]:
    """Read what a form shows in its fields."""
    form = text.split("data-fill")[1].split("</form>")[0]
    found = dict(re.findall(r'<input name="(\w+)" value="([^"]*)"', form))
    found |= dict(re.findall(r'<textarea name="(\w+)"[^>]*>(.*?)</textarea>', form, re.DOTALL))
    for name, options in re.findall(r'<select name="(\w+)".*?>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option(?: value="([^"]*)")? selected>([^<]*)', options)
        if chosen is not None:
            found[name] = chosen[1] or chosen[2]
    return {name: unescape(value) for name, value in found.items()}


def test_a_schedule_explains_itself(console: Any, a_school: Any) -> None:
    text = console("viewer").get(f"/schedules/{a_school.schedule}")

    assert "In plain English" in text and "Europe/Berlin" in text
    assert text.count("18:30") >= 10, "the coming runs are told"
    assert f'href="/runs/{a_school.run}"' in text
    assert "as usual" in text
    assert "insert" in text, "the audit log tells who made it"
    for verb in ("run", "pause", "cancel", "delete", "edit"):
        assert f"/schedules/{a_school.schedule}/{verb}" not in text
    why = console("viewer").get(f"/schedules/{a_school.schedule}/explain?at=2040-01-01T12:00Z")
    assert "not due" in why or "not yet due" in why


@pytest.mark.parametrize("verb", ["run", "pause", "resume", "cancel", "delete", "duplicate"])
def test_a_viewer_is_refused_each_verb(console: Any, a_school: Any, verb: str) -> None:
    before = row(a_school, a_school.schedule)

    console("viewer").post(f"/schedules/{a_school.schedule}/{verb}", 403, confirm="Evening lock")
    console("stranger").post(f"/schedules/{a_school.schedule}/{verb}", 404, confirm="Evening lock")

    assert row(a_school, a_school.schedule) == before


def test_an_admin_pauses_resumes_runs_and_ends_one(console: Any, a_school: Any) -> None:
    admin, number = console("admin"), create(a_school, "To be ended")
    path = f"/schedules/{number}"

    assert "Paused." in admin.do(f"{path}/pause", reason="exams")
    assert row(a_school, number)["status_reason"] == "exams"
    assert "It goes on." in admin.do(f"{path}/resume")
    once = admin.post(f"{path}/run").headers["location"]
    assert "of <a href" in admin.get(once)

    wrong = admin.post(f"{path}/cancel", 422, confirm="to be ended")
    assert "type the name exactly" in wrong.text and row(a_school, number)["status"] == "active"
    assert "Cancelled." in admin.do(f"{path}/cancel", confirm="To be ended")
    assert "is deleted" in admin.do(f"{path}/delete", confirm="To be ended")
    assert row(a_school, number) is None


def test_many_are_counted_before_anything_is_done(console: Any, a_school: Any) -> None:
    admin = console("admin")
    many = [create(a_school, f"Batch {number}") for number in range(3)]
    other = create(a_school, "Not one of them")

    asked = admin.post("/schedules/chosen", 200, verb="pause", q="batch status:active").text
    assert "Pause 3 schedules?" in asked and "It reaches 2 devices" in asked
    assert row(a_school, many[0])["status"] == "active"
    ids = ",".join(map(str, many))
    said = admin.do("/schedules/chosen/do", verb="pause", ids=ids, reason="exams")
    assert "3 of 3 schedules" in said
    assert {row(a_school, one)["status"] for one in many} == {"paused"}
    assert row(a_school, other)["status"] == "active"

    assert "Type" in admin.post("/schedules/chosen", 200, verb="delete", id=many[:2]).text
    admin.post("/schedules/chosen/do", 422, verb="delete", ids=ids, confirm="delete")
    admin.do("/schedules/chosen/do", verb="delete", ids=ids, confirm="delete 3")
    assert row(a_school, many[0]) is None
    nothing = console("viewer").post("/schedules/chosen", 200, verb="pause", id=[other]).text
    assert "Pause 0 schedules?" in nothing
    assert "by zone:" in admin.post("/schedules/chosen", 422, verb="pause", q="zone:UTC").text


def test_a_form_that_is_sent_as_it_is_changes_nothing(console: Any, a_school: Any) -> None:
    admin = console("admin")
    numbers = [
        create(a_school, "Weekly", recurrence_type="weekly",
               recurrence_config={"days_of_week": [0, 4], "time": "06:30", "every": 2}),
        create(a_school, "Monthly", recurrence_type="monthly",
               recurrence_config={"day_of_month": "last", "time": "06:30"},
               policies={"overlap": "allow", "jitter": "10 minutes"}),
        create(a_school, "Once", recurrence_type="once", recurrence_config={},
               start_time="2040-01-04T18:30", end_time="2040-02-01T00:00:00Z"),
        create(a_school, "Interval", recurrence_type="interval",
               recurrence_config={"every": "15 minutes"}, selector={"tags": ["lab"]}),
        a_school.schedule,
    ]  # fmt: skip

    for number in numbers:
        before, shown = row(a_school, number), fields(admin.get(f"/schedules/{number}/edit"))
        admin.do(f"/schedules/{number}/edit", **shown)

        after = row(a_school, number)
        kept = {name: value for name, value in after.items() if name != "updated_at"}
        assert kept == {name: value for name, value in before.items() if name != "updated_at"}


def test_an_edit_is_previewed_and_then_made(console: Any, a_school: Any) -> None:
    admin, number = console("admin"), create(a_school, "To be moved")
    shown = fields(admin.get(f"/schedules/{number}/edit"))
    assert (shown["time"], shown["devices"]) == ("02:30", "lab-01\nlab-02")

    moved = shown | {"time": "03:30", "devices": "lab-03"}
    diff = admin.post(f"/schedules/{number}/preview", 200, **moved).text
    assert 'class="added"' in diff and 'class="removed"' in diff and "<html" not in diff
    assert row(a_school, number)["recurrence_config"] == {"time": "02:30"}

    assert "Changed." in admin.do(f"/schedules/{number}/edit", **moved)
    after = row(a_school, number)
    assert after["recurrence_config"] == {"time": "03:30"}
    assert after["device_ids"] == [a_school.devices[2]]


def test_what_is_wrong_stands_at_its_field(console: Any, a_school: Any) -> None:
    admin, number = console("admin"), create(a_school, "Wrong")
    shown = fields(admin.get(f"/schedules/{number}/edit"))
    wrong = shown | {"time": "25:00", "timezone": "Mars/Base", "devices": "nobody"}

    live = admin.post(f"/schedules/{number}/preview", 200, **wrong).text
    told = set(re.findall(r'data-problem-for="(\w+)"', live))
    assert told == {"time", "timezone", "devices"}

    saved = admin.post(f"/schedules/{number}/edit", 422, **wrong).text
    for field in told:
        assert re.search(rf'id="f-{field}" class="wrong"', saved), field
    # What was typed is still there.
    assert 'value="Mars/Base"' in saved
    payload = admin.post(f"/schedules/{number}/edit", 422, **shown | {"payload": "{"}).text
    assert "is no JSON object" in payload


def test_a_schedule_is_made(console: Any, a_school: Any) -> None:
    admin = console("admin")
    shown = fields(admin.get("/schedules/new")) | {
        "name": "Made here", "action_type": "lock", "devices": "lab-01, lab-02",
        "recurrence_type": "cron", "cron": "0 6 * * mon-fri", "timezone": "Europe/Berlin",
        "owner_id": str(a_school.owner),
    }  # fmt: skip

    preview = admin.post("/schedules/new/preview", 200, **shown).text
    assert preview.count("<li>") == 10 and "2 devices" in preview
    assert "Made here" in admin.do("/schedules/new", **shown)
    refused = admin.post("/schedules/new", 422, **shown | {"cron": "0 6 * *"}).text
    assert 'id="f-cron" class="wrong"' in refused
    assert console("viewer").post("/schedules/new", 403, **shown)


def test_what_is_copied_makes_the_same_schedule(
    console: Any, a_school: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = create(
        a_school,
        "It's copied",
        recurrence_type="weekly",
        recurrence_config={"days_of_week": ["mon", "thu"], "time": "06:30"},
        payload={"message": "Don't"},
        policies={"overlap": "allow"},
    )
    text = unescape(console("admin").get(f"/schedules/{number}"))
    cli, sql = re.findall(r"<pre tabindex=\"0\"><code>((?:pgfleet|select).*?)</code>", text, re.S)
    before = row(a_school, number)
    monkeypatch.setenv("PGFLEET_DATABASE_URL", a_school.database.url())

    words = shlex.split(cli.replace("\\\n", " "))[1:]
    for way in ("sql", "cli"):
        with a_school.fleet() as fleet:
            fleet.run("delete from schedules where name = %s", before["name"])
            fleet.run(
                "select fleet.set_setting('default_owner', to_jsonb(%s::text))", a_school.owner
            )
            if way == "sql":
                fleet.conn.execute(sql.encode())
        if way == "cli":
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
        with a_school.fleet() as fleet:
            after = fleet.row("select * from schedules where name = %s", before["name"])
        same = ("payload", "recurrence_config", "timezone", "device_ids", "policies", "owner_id")
        assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_what_no_option_says_comes_as_a_file() -> None:
    told = {"name": "x", "action_type": "lock", "recurrence_config": {"except": ["2027-01-01"]}}

    assert "--file - <<< " in spoken.as_cli(told)
    assert json.loads(shlex.split(spoken.as_cli(told))[-1]) == told


def test_a_form_says_all_that_is_no_json() -> None:
    with pytest.raises(InvalidInput) as refused:
        spec.spec_of({"payload": "[1]", "policies": "x", "priority": "high"})

    assert set(spec.problems_of(refused.value)) == {"payload", "policies", "priority"}
