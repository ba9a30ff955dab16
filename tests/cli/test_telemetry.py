"""pgfleet telemetry: drawn, listed, exported; its rules; and blocklists and health beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow.parquet
import pytest
from tests.helpers.terminal import Terminal, without_styles

from pgfleet.main import app

Pgfleet = Callable[..., Any]


def as_json(pgfleet: Pgfleet, *words: str) -> Any:
    return pgfleet(*words, "--json").data


@pytest.fixture(scope="module")
def sensor(fleet: Any) -> str:
    """Make a device with a day of points: one number that falls, and one that is rare."""
    with psycopg.connect(fleet.url()) as conn:
        row = conn.execute(
            "insert into devices (hostname) values ('sensor-1') returning id, owner_id"
        ).fetchone()
        assert row is not None
        batch = uuid4()
        conn.execute(
            "insert into telemetry.staging select %s, %s, '/', now() - n * interval '1 minute',"
            " gen_random_uuid(), %s, 'pull', false, null, jsonb_build_object('battery', n) ||"
            ' case when n %% 10 = 0 then \'{"gps": {"lat": 52.5}, "ok": true}\' else \'{}\''
            " end::jsonb from generate_series(1, 60) as n",
            (batch, *row),
        )
        conn.execute("select telemetry.worker_store(%s, 90)", (batch,))
    return "sensor-1"


def test_points_are_exported_as_csv(pgfleet: Pgfleet, sensor: str, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    assert pgfleet("telemetry", "export", sensor, str(file)).code == 0

    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len(rows) == 60
    assert rows[0]["data.battery"] == "1"
    assert {row["data.gps.lat"] for row in rows} == {"", "52.5"}


def test_points_are_exported_as_parquet(pgfleet: Pgfleet, sensor: str, tmp_path: Path) -> None:
    file = tmp_path / "points.parquet"
    assert pgfleet("telemetry", "export", sensor, str(file)).code == 0

    table = pyarrow.parquet.read_table(file)
    assert (table.num_rows, str(table.schema.field("data.battery").type)) == (60, "int64")
    assert str(table.schema.field("recorded_at").type).startswith("timestamp")
    columns = table.to_pydict()
    assert columns["data.battery"] == list(range(1, 61))
    assert columns["data.ok"].count(True) == 6
    assert columns["data.ok"].count(None) == 54


def test_what_devices_wrote_does_no_harm_when_it_is_drawn_or_exported(
    fleet: Any, pgfleet: Pgfleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {
        "\x1b[2Jgone": 1,
        "large": 10**400,
        "unsigned": 2**64 - 1,
        "text": "=1+cmd|' /C calc'!A0",
        "=kind": [1],
        "": None,
    }
    with psycopg.connect(fleet.url()) as conn:
        row = conn.execute(
            "insert into devices (hostname) values ('odd-1') returning id, owner_id"
        ).fetchone()
        assert row is not None
        batch = uuid4()
        conn.execute(
            "insert into telemetry.staging values (%s, %s, '/', now() - interval '1 minute',"
            " gen_random_uuid(), %s, 'pull', false, null, %s)",
            (batch, *row, json.dumps(odd)),
        )
        conn.execute("select telemetry.worker_store(%s, 90)", (batch,))

    monkeypatch.setenv("PGFLEET_DATABASE_URL", fleet.url())
    terminal = Terminal(monkeypatch, 120)
    shown = terminal.run(lambda: app(["telemetry", "show", "odd-1"], standalone_mode=False))
    assert "\\x1b[2Jgone" in shown and "\x1b[2J" not in shown and "large" not in shown
    for name in ("points.csv", "points.parquet"):
        assert pgfleet("telemetry", "export", "odd-1", str(tmp_path / name)).code == 0
    text = (tmp_path / "points.csv").read_text()
    assert "'=1+cmd" in text and "\x1b" not in text
    columns = pyarrow.parquet.read_table(tmp_path / "points.parquet").to_pydict()
    assert columns["data.unsigned"] == [str(2**64 - 1)]
    assert columns["data.large"] == [str(10**400)]


def test_another_kind_of_file_is_refused(pgfleet: Pgfleet, sensor: str) -> None:
    refused = pgfleet("telemetry", "export", sensor, "points.xlsx")
    assert refused.code == 1
    assert "neither a .csv nor a .parquet file" in refused.err


def test_on_a_terminal_a_number_is_drawn(
    fleet: Any, sensor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_DATABASE_URL", fleet.url())
    terminal = Terminal(monkeypatch, 120)

    def show(*words: str) -> str:
        run = ["telemetry", "show", sensor, *words]
        return without_styles(terminal.run(lambda: app(run, standalone_mode=False)))

    plot = show("battery")
    # The line of blocks falls, and the plot below it has its axes.
    assert "█▇" in plot
    assert "1 … 60, now 1" in plot
    assert "hours since" in plot
    assert plot.count("\n") > 15
    both = show()
    assert "gps.lat" in both
    assert "hours since" not in both


def test_a_number_that_is_not_there_is_named_with_those_that_are(
    pgfleet: Pgfleet, sensor: str
) -> None:
    refused = pgfleet("telemetry", "show", sensor, "pressure")
    assert refused.code == 1
    assert "battery, gps.lat" in refused.err


def test_a_rule_is_made_listed_paused_and_removed(pgfleet: Pgfleet, sensor: str) -> None:
    words = ("telemetry", "rule", "add", "battery < 15", "buzz", "--clear-at", "20")
    made = as_json(pgfleet, *words, "--cooldown", "6 hours", "--payload", '{"seconds": 2}')
    rule = str(made["id"])
    assert made["payload"] == {"seconds": 2}

    (listed,) = as_json(pgfleet, "telemetry", "rule", "list")
    assert (listed["condition"], listed["is_enabled"], listed["met_for"]) == (
        "battery < 15",
        True,
        0,
    )
    assert not as_json(pgfleet, "telemetry", "rule", "pause", rule)["is_enabled"]
    assert as_json(pgfleet, "telemetry", "rule", "pause", rule, "--resume")["is_enabled"]
    assert pgfleet("telemetry", "rule", "remove", rule).code == 1
    assert pgfleet("telemetry", "rule", "remove", rule, "--yes").code == 0
    assert as_json(pgfleet, "telemetry", "rule", "list") == []
    assert "telemetry_rule_not_found" in pgfleet("telemetry", "rule", "pause", rule).err

    wrong = pgfleet("telemetry", "rule", "add", "battery is low", "buzz")
    assert "is no condition" in wrong.err


def test_a_blocklist_is_read_from_a_file(pgfleet: Pgfleet, tmp_path: Path) -> None:
    file = tmp_path / "blocked.txt"
    file.write_text("# games\nGames.example.com\n\nchat.example.com  # in lessons\n")

    made = as_json(pgfleet, "blocklist", "add", "website", "a.example.com", "--file", str(file))

    assert made == {"kind": "website", "given": 3, "new": 3}
    listed = as_json(pgfleet, "blocklist", "list", "website")
    assert [row["pattern"] for row in listed] == [
        "a.example.com",
        "chat.example.com",
        "games.example.com",
    ]
    gone = as_json(pgfleet, "blocklist", "remove", str(listed[0]["id"]), "--yes")
    assert gone["pattern"] == "a.example.com"


def test_ready_made_templates_become_schedules(pgfleet: Pgfleet) -> None:
    added = as_json(pgfleet, "template", "add-ready-made")
    assert len(added) == 4
    assert as_json(pgfleet, "template", "add-ready-made") == []

    made = as_json(pgfleet, "template", "use", "collect-battery-data")
    assert made["recurrence_config"] == {"every": "25 minutes"}
    words = ("template", "use", "sync-website-blocklist")
    labs = as_json(pgfleet, *words, "--param", 'devices={"tags": ["lab"]}')
    assert labs["selector"] == {"tags": ["lab"]}


def test_health_and_requests_are_listed(pgfleet: Pgfleet, fleet: Any, sensor: str) -> None:
    health = {"battery_percent": 71, "is_charging": False, "os": "Debian", "disk_free_bytes": 5}
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(
            "update devices set reported = %s where hostname = 'sensor-1'",
            (json.dumps({"health": health}),),
        )
        conn.execute(
            "insert into device_requests (device_id, day, owner_id, looks, tokens, checkins)"
            " select id, '2026-01-05', owner_id, 3, 28, 24 from devices"
            " where hostname = 'sensor-1'"
        )

    (row,) = as_json(pgfleet, "device", "health")
    assert (row["battery_percent"], row["os"]) == (71, "Debian")
    (day,) = as_json(pgfleet, "status", "--requests")
    assert (day["requests"], day["by_polling"], day["percent_saved"]) == (55, 144, 62)
