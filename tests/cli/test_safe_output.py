"""What others wrote harms nobody: not on a terminal, in JSON, CSV, iCalendar or logs."""

from __future__ import annotations

import csv
import io
import json
import logging
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.terminal import Terminal, without_styles

from pgfleet.agent.log import JsonFormatter, TextFormatter
from pgfleet.output import safe
from pgfleet.output.logs import SafeFormatter

Pgfleet = Any
# A title, the clipboard, a moved cursor, another direction, something unseen, and a bell in C1.
HOSTILE = [
    "\x1b]0;root@bank\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1b[2J\x1b[1;1H",
    "a\u202eexe.txt",
    "in\u2066visible\u2069",
    "x\U000e0041y",
    "\x9b31mred",
    "over\rwritten",
    "back\x08space",
]
FORMULAS = ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "  =1", "\uff1d1"]


def harmless(text: str) -> bool:
    return all(c in "\n\t" or (c.isprintable() and not 0x80 <= ord(c) < 0xA0) for c in text)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_whatever_it_is_it_can_be_shown(text: str) -> None:
    shown = safe.visible(text)

    assert safe.visible(shown) == shown
    assert not any(c < " " and c not in "\n\t" for c in shown)
    assert not set(shown) & set("\x7f\x9b\u202e\u2066\u200f\u2028")
    shown.encode()


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_json_is_harmless_and_says_the_same(text: str) -> None:
    written = safe.json_text(json.dumps({"x": text}, ensure_ascii=False))

    assert json.loads(written) == {"x": text}
    assert not set(written) & set("\x7f\x9b\u202e\u2066\x1b")


@given(st.text(min_size=1))
@settings(max_examples=300, deadline=None)
def test_no_cell_is_a_formula(text: str) -> None:
    cell = safe.csv_cell(text)

    assert cell.lstrip()[:1] not in {"=", "@", "\uff1d", "\uff20"}
    if cell.lstrip()[:1] in {"+", "-", "\uff0b", "\uff0d"}:
        assert float(cell.replace(",", ".")) is not None


@pytest.fixture(scope="module")
def hostile(fleet: Any) -> Any:
    """Let devices and people write the worst that they can."""
    with psycopg.connect(fleet.url()) as conn:
        for number, text in enumerate([*HOSTILE, *FORMULAS]):
            conn.execute(
                "insert into devices (hostname, platform, attributes) values (%s, %s, %s)",
                (f"h{number}-{text}", text, json.dumps({"note": text})),
            )
            conn.execute(
                "select send_command(id, 'broadcast_message', %s) from devices where hostname = %s",
                (json.dumps({"message": text}), f"h{number}-{text}"),
            )
        conn.execute(
            "update device_commands set status = 'failed', error_message = payload ->> 'message'"
        )
    return fleet


@pytest.mark.parametrize(
    "words",
    [
        ("device", "list"),
        ("command", "list"),
        ("command", "show", "1"),
        ("command", "show", "6", "--json"),
        ("device", "list", "--json"),
        ("device", "list", "--csv"),
        ("device", "show", "h0-\x1b]0;nobody\x07"),
    ],
)
@pytest.mark.parametrize("on_terminal", [True, False])
def test_nothing_is_printed_that_a_terminal_obeys(
    hostile: Any,
    pgfleet: Pgfleet,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    on_terminal: bool,
) -> None:
    if on_terminal:
        monkeypatch.setenv("PGFLEET_PAGER", "cat")
        # The runner of the tests has no terminal: the command is run in one.
        import typer

        from pgfleet.main import app

        def run() -> None:
            with pytest.raises(SystemExit):
                typer.main.get_command(app).main(["-d", hostile.url(), *words])

        said = without_styles(Terminal(monkeypatch, 100).run(run))
    else:
        answer = pgfleet(*words)
        said = answer.out + answer.err

    assert [line for line in said.splitlines() if not harmless(line)] == []


def test_csv_has_text_and_no_formulas(hostile: Any, pgfleet: Pgfleet) -> None:
    rows = list(csv.DictReader(io.StringIO(pgfleet("device", "list", "--csv").out)))

    found = [row["platform"] for row in rows if row["hostname"].endswith("SUM(A1)")]
    assert found == ["'@SUM(A1)"]
    for row in rows:
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "@", "+", "\uff1d")), cell


def test_a_number_below_nought_stays_one(pgfleet: Pgfleet) -> None:
    answer = pgfleet("command", "send", "h0-" + HOSTILE[0], "lock", "--priority=-5")
    assert answer.code == 0, answer.err
    shown = pgfleet("command", "list", "--csv", "--limit", "1").out

    assert ",-5," in shown


def test_a_calendar_holds_no_line_that_somebody_else_wrote(hostile: Any, pgfleet: Pgfleet) -> None:
    with psycopg.connect(hostile.url()) as conn:
        conn.execute(
            "select create_schedule(%s)",
            (
                json.dumps(
                    {
                        "name": "x\r\nBEGIN:VALARM\r\nACTION:PROCEDURE\u2028y\x1b[2J",
                        "description": "a\nATTACH:http://evil.example\x07\x9b",
                        "action_type": "lock",
                        "device_ids": [1],
                        "recurrence_type": "daily",
                        "recurrence_config": {"time": "02:30"},
                    }
                ),
            ),
        )
    text = pgfleet("schedule", "calendar", "--ics").out

    # A line feed alone ends a line for many who read calendars.
    lines = text.replace("\r\n ", "").splitlines()
    assert not any(line.startswith(("BEGIN:VALARM", "ACTION:", "ATTACH:")) for line in lines)
    assert all(harmless(line) for line in lines if line)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_line_is_one_line_of_visible_text(text: str) -> None:
    record = logging.LogRecord(
        "pgfleet",
        logging.INFO,
        "",
        0,
        "it said %s",
        (f"{text}\n2026-01-01 INFO all is well",),
        None,
    )

    line = TextFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert harmless(line)
    other = SafeFormatter("%(message)s").format(record)
    assert len(other.splitlines()) == 1
    assert harmless(other)
    entry = JsonFormatter().format(record)
    assert json.loads(entry)["message"].startswith(f"it said {text}")
    assert harmless(entry)
