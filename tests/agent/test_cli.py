"""pgfleet agent on the command line: what it refuses, what it tells."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pgfleet.agent import log
from pgfleet.main import app

GOOD = ("--url", "http://127.0.0.1:9", "--anon-key", "anon")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("URL", "ANON_KEY", "ENROLLMENT_CODE", "STATE_DIR", "FUNCTIONS_URL")
    for name in (*names, "LOCATION", "LOCATION_PROGRAM", "LOCATION_SECONDS"):
        monkeypatch.delenv(f"PGFLEET_{name}", raising=False)
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.level = before


def agent(*words: str) -> Any:
    return CliRunner().invoke(app, ["agent", *words])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "url"),
        (("--url", "example.com", "--anon-key", "a"), "url"),
        (("--url", "http://x"), "anon_key"),
        ((*GOOD, "--log-level", "LOUD"), "log-level"),
        ((*GOOD, "--handlers", "/nowhere/at-all"), "handlers"),
        ((*GOOD, "--simulate", "10000", "--code", "C"), "simulate"),
        ((*GOOD, "--location", "somewhere"), "LAT,LON"),
        ((*GOOD, "--location-program", "/nowhere/at-all"), "location-program"),
        ((*GOOD, "--location", "1,2", "--location-program", "/bin/true"), "exclude each other"),
        ((*GOOD, "--location-walk", "1,2,50"), "--simulate"),
        (GOOD, "not enrolled"),
        ((*GOOD, "--simulate", "3"), "not enrolled"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = agent("run", "--state-dir", str(tmp_path / "device"), *options)
    assert done.exit_code == 1
    assert "Error:" in done.stderr
    assert says in done.stderr


def test_a_folder_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = tmp_path / "device"
    folder.mkdir(mode=0o755)
    done = agent("run", *GOOD, "--state-dir", str(folder))
    assert done.exit_code == 1
    assert f"Hint: chmod 700 {folder}" in done.stderr


def test_status_of_a_device_that_is_not_enrolled(tmp_path: Path) -> None:
    done = agent("status", "--json", "--state-dir", str(tmp_path / "none"))
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["enrolled"], found["running"], found["journal"]) == (False, False, None)


def test_enrolling_stores_the_identity_and_runs_from_it(fleet: Any, tmp_path: Path) -> None:
    where = ("--url", fleet.settings.api_url, "--anon-key", fleet.settings.anon_key)
    folder = ("--state-dir", str(tmp_path / "device"))
    name = f"cli-{tmp_path.name[-12:]}"
    done = agent("enroll", *where, *folder, "--hostname", name, "--code", fleet.code(), "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["hostname"], found["device_id"]) == (name, fleet.device_id(name))

    again = agent("enroll", *where, *folder, "--hostname", name, "--code", fleet.code())
    assert again.exit_code == 1
    assert "already" in again.stderr
    assert "--force" in again.stderr


def record(level: int, message: str, name: str = "pgfleet.agent") -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, None, None)


def test_a_log_line_tells_time_level_device_and_connection(tmp_path: Path) -> None:
    log.configure("INFO", tmp_path / "log")
    logger = logging.getLogger("pgfleet.agent.test")
    with log.line_context(log.LineContext("lab-01", "live")):
        logger.warning("paper is low")
        logger.debug("not shown")
    logging.getLogger("realtime._async.client").error("Connection attempt failed: x")
    logging.getLogger("realtime._async.client").error("Unrecognized message format b''")
    first, second = (tmp_path / "log").read_text().splitlines()
    moment, level, device, connection, *message = first.split()
    assert (level, device, connection, " ".join(message)) == (
        "WARN",
        "lab-01",
        "[live]",
        "paper is low",
    )
    assert moment.endswith("Z")
    assert "Unrecognized message format" in second


def test_a_json_log_line_holds_the_exception() -> None:
    try:
        raise RuntimeError("out of ink")
    except RuntimeError:
        made = record(logging.ERROR, "it broke")
        made.exc_info = sys.exc_info()
    entry = json.loads(log.JsonFormatter().format(made))
    assert (entry["level"], entry["message"]) == ("ERROR", "it broke")
    assert "out of ink" in entry["exception"]
