"""What people see: 40 screens in windows of 60, 80 and 120 columns, with colours and without.

`screens/` holds them as they were looked at. After a change that is meant, write them anew with
`PGFLEET_STORE_SCREENS=1` and look at the difference.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from rich.cells import cell_len
from tests.helpers.terminal import Terminal, without_styles

from pgfleet.main import app
from pgfleet.output import times

STORED = Path(__file__).with_name("screens")
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
WIDTHS = (60, 80, 120)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRACE = re.compile(r"\b[0-9a-f]{32}\b")
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])[0-9;]*m")
WARDEN = "--action lock --group labs --daily 18:30 --timezone Europe/Berlin"
ONCE = "--action lock --device 1"
SCREENS = {
    "status": "status",
    "device-list": "device list",
    "device-list-utc": "device list --utc",
    "device-list-empty": "device list --search nobody",
    "device-show": "device show pc-0001",
    "group-delete-tried": "group delete desks --dry-run",
    "device-retire-tried": "device retire pc-0001 --dry-run",
    "device-codes": "device codes",
    "device-unknown": "device show nowhere",
    "group-list": "group list",
    "group-show": "group show labs",
    "group-devices": "group devices labs",
    "schedule-list": "schedule list",
    "schedule-show": 'schedule show "Evening round"',
    "schedule-create-tried": f"schedule create Warden --start 2036-01-01Z {WARDEN} --dry-run",
    "schedule-create-late": f"schedule create Late {ONCE} --at 2020-01-01Z --dry-run",
    "schedule-create-wrong": 'schedule create "Wrong" --action lokc --group labs --daily 25:00',
    "schedule-preview": f"schedule preview {WARDEN} --from 2036-03-28T00:00Z --count 4",
    "schedule-history": 'schedule history "Evening round"',
    "schedule-describe": 'schedule describe "Evening round"',
    "schedule-calendar": "schedule calendar --month 2036-03 --timezone Europe/Berlin",
    "schedule-pause-tried": 'schedule pause "Evening round" --reason loud --dry-run',
    "schedule-delete-tried": 'schedule delete "Evening round" --dry-run',
    "schedule-bulk-tried": "schedule bulk pause --where status=active --dry-run",
    "run-list": "run list",
    "run-show": "run show 1001",
    "command-list": "command list --run 1002",
    "command-show": "command show 2003",
    "command-types": "command types",
    "command-cancel-tried": "command cancel 2004 --dry-run",
    "location-list": "location list",
    "location-policies": "location policies",
    "owner-list": "owner list",
    "blackout-list": "blackout list",
    "geo-list": "geo list",
    "integration-list": "integration list",
    "webhook-list": "webhook list",
    "audit-show": "audit show 5001",
    "noun-unknown": "devcie list",
    "option-unknown": "device list --jsno",
}


@pytest.fixture(scope="module")
def school(database: Any) -> Iterator[Any]:
    """Make a school with a history in which all times are known."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    patch.setattr(times, "now", lambda: NOW)
    patch.setenv("PGFLEET_DATABASE_URL", database.url())
    patch.setenv("PGFLEET_PAGER", "cat")
    with psycopg.connect(database.url("supabase_admin"), autocommit=True) as conn:
        conn.execute((STORED / "history.sql").read_text().encode())
    place = 'location create "Campus, the old part of it" --at 52.52,13.405 --radius 200'
    for words in (
        place,
        "location policy lock --on enter --group labs --location 1",
        'geo create "No games at school" --group labs --app steam --between 08:00-15:00',
        "webhook create https://hooks.example.com/fleet --event run.failed --name ops",
    ):
        called(words)
    yield database
    patch.undo()
    time.tzset()


def called(words: str) -> None:
    """Run a command to its end, whatever that is."""
    with pytest.raises(SystemExit):
        typer.main.get_command(app).main(shlex.split(words), prog_name="pgfleet")


def steady(text: str) -> str:
    """Give text in which nothing is left to chance."""
    text = UUID.sub("00000000-0000-0000-0000-000000000000", text.replace("\r\n", "\n"))
    text = TRACE.sub("0" * 32, text)
    text = re.sub(r"Schedule \d+ ", "Schedule 7 ", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("name", SCREENS)
def test_screen_is_as_it_was_looked_at(
    name: str, school: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(columns: int, **environment: str) -> str:
        terminal = Terminal(monkeypatch, columns)
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        return steady(terminal.run(lambda: called(SCREENS[name])))

    found = f"$ pgfleet {SCREENS[name]}\n"
    for columns in WIDTHS:
        plain = seen(columns, NO_COLOR="1")
        assert COLOUR.search(plain) is None
        text = steady(without_styles(plain))
        assert steady(without_styles(seen(columns))) == text
        found += f"\n{f' {columns} columns ':─^{columns}}\n{text}"

    file = STORED / f"{name}.txt"
    if os.environ.get("PGFLEET_STORE_SCREENS"):
        file.write_text(found)
    assert file.read_text() == found


@pytest.mark.parametrize("name", [n for n in SCREENS if n.endswith(("-list", "-types"))])
def test_table_fits_its_window_and_keeps_to_one_line_a_row(name: str) -> None:
    parts = re.split(r"─+ (\d+) columns ─+\n", (STORED / f"{name}.txt").read_text())

    for columns, text in zip(parts[1::2], parts[2::2], strict=True):
        assert max(map(cell_len, text.splitlines())) <= int(columns)


def test_states_have_a_colour_where_colours_are_wanted(
    school: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Terminal(monkeypatch, 80).run(lambda: called("run list"))

    assert "\x1b[32m✓ completed" in seen
    assert "\x1b[31m✗ failed" in seen
