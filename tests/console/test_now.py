"""Now: each figure is what the tables say, and what needs a person comes first."""

from __future__ import annotations

import re
from typing import Any

FIGURES = {
    "devices": "select count(*) from devices where owner_id = %(o)s and status = 'active'",
    "seen in the last hour": "select count(*) from devices where owner_id = %(o)s"
    " and status = 'active' and last_seen > now() - interval '1 hour'",
    "active schedules": "select count(*) from schedules where owner_id = %(o)s"
    " and status = 'active'",
    "schedules due": "select count(*) from schedules where owner_id = %(o)s"
    " and status = 'active' and next_run_at <= now()",
    "commands waiting": "select count(*) from device_commands where owner_id = %(o)s"
    " and status = 'pending'",
    "commands running": "select count(*) from device_commands where owner_id = %(o)s"
    " and status = 'running'",
    "completed in a day": "select count(*) from device_commands where owner_id = %(o)s"
    " and status = 'completed' and executed_at > now() - interval '1 day'",
    "failed or expired in a day": "select count(*) from device_commands where owner_id = %(o)s"
    " and status in ('failed', 'expired') and executed_at > now() - interval '1 day'",
    "doorbells waiting": "select count(*) from fleet.doorbells where ring_at <= now()",
}


def test_every_figure_is_what_the_tables_say(console: Any, a_school: Any) -> None:
    with a_school.fleet() as fleet:
        # Something in every figure: one that runs, one that is due, and a lost one that is old.
        with fleet.conn.transaction():
            fleet.claim(a_school.devices[2])
        fleet.create(
            name="Due",
            device_ids=a_school.devices[:1],
            recurrence_type="daily",
            recurrence_config={"time": "02:30"},
        )
        fleet.run(
            "update schedules set next_run_at = now() - interval '2 minutes' where name = 'Due'"
        )
        text = console("viewer").get("/")
        wanted = {
            name: fleet.conn.execute(query.encode(), {"o": a_school.owner}).fetchone()[0]
            for name, query in FIGURES.items()
        }
    shown = re.findall(r"<strong>([\d,]+)</strong> <span>([^<]+)</span>", text)

    assert {name: int(value.replace(",", "")) for value, name in shown} == wanted
    assert wanted["commands running"] == 1 and wanted["schedules due"] == 1
    engine = re.search(r'Last tick <time datetime="([^"]+)Z"', text)
    with a_school.fleet() as fleet:
        assert engine and engine[1] == fleet.value(
            "select to_char(last_tick_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')"
            " from fleet.heartbeat"
        )


def test_what_needs_a_person_leads_to_it(console: Any) -> None:
    text = console("viewer").get("/")

    needs = text.split('id="needs"')[1].split("</section>")[0]
    assert "1 command has failed in the last day" in needs
    assert '<a href="/commands?q=status:failed">commands with the state failed</a>' in needs
    assert "1 schedule is overdue" in needs
    assert "Nothing needs you" in console("stranger").get("/") or "does not tick" in console(
        "stranger"
    ).get("/")
