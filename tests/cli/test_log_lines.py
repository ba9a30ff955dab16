"""Log lines of agent, functions and gateway: JSON on request, about something, without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pgfleet.agent import log
from pgfleet.errors import InvalidInput
from pgfleet.output.logs import JsonFormatter, SafeFormatter, chosen_format, uvicorn_log_config
from pgfleet.output.safe import without_secrets
from pgfleet_functions.dispatching import Claim, Dispatcher, Ended, Piece
from pgfleet_functions.shares import Bounds
from pgfleet_functions.subject import about, add_subject

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLW9m"
KEY = "k3y-0f-the-fleet"
PLANTED = {
    f"GET https://api.example.com/rest/v1/x?apikey={KEY}&limit=1": KEY,
    f"connection to postgresql://postgres:{KEY}@db.example.com:5432/postgres failed": KEY,
    f"Authorization: Bearer {KEY}": KEY,
    f"authorization: Basic {KEY}": KEY,
    f'{{"device_secret": "{KEY}", "hostname": "pc-1"}}': KEY,
    f"PGFLEET_LOCAL_JWT_SECRET={KEY}": KEY,
    f"password='{KEY}' host=db": KEY,
    f"token {JWT} has ended": JWT,
    f"signed with whsec_{'QUJD' * 8}": "QUJDQUJD",
    f"sb_secret_{KEY.replace('-', '_')}": KEY.replace("-", "_"),
    f"the secret {'0af1' * 16} is not known": "0af10af1",
}
HARMLESS = [
    "command 12 lock: attempt 1",
    "the token endpoint answers 503; trying again in 1.0 s",
    "trace 0af7651916cd43dd8448eb211c80319c",
    "claim: https://abc.supabase.co:443/rest/v1/rpc/work cannot be reached",
    "pgfleet setting set lease_seconds 60",
]


def record(text: str, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord("pgfleet", logging.WARNING, "", 0, "%s", (text,), info)


@pytest.mark.parametrize(("text", "secret"), PLANTED.items())
def test_no_line_holds_a_secret(text: str, secret: str) -> None:
    made = record(text, RuntimeError(text))
    for formatter in (JsonFormatter(), SafeFormatter("%(message)s"), log.TextFormatter()):
        line = formatter.format(made)
        assert secret not in line and "[hidden]" in line


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize("given", ["xml", "JSON", "1"])
def test_another_format_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGFLEET_LOG_FORMAT", given)
    with pytest.raises(InvalidInput, match="log-format"):
        chosen_format()


def test_the_lines_of_a_piece_of_work_say_what_it_is_about() -> None:
    stream = io.StringIO()
    config = uvicorn_log_config("json", add_subject)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(config["filters"]["subject"]["()"]())
    logger = logging.getLogger("pgfleet_functions.test_of_lines")
    logger.addHandler(handler)
    done = asyncio.Event()

    async def work() -> Ended:
        logger.warning("it is late")
        with about(command=8):
            logger.warning("that too")
        done.set()
        return Ended()

    async def claim(_: Any) -> Claim:
        pieces = [] if done.is_set() else [Piece("o-1", 1, work, {"run": 3, "command": 7})]
        return Claim(pieces, None)

    async def run() -> None:
        dispatcher = Dispatcher("test", claim, Bounds(total=2, owner=1, way=1))
        async with dispatcher.running():
            dispatcher.wake()
            await asyncio.wait_for(done.wait(), 30)

    asyncio.run(run())
    logger.removeHandler(handler)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["owner"], first["run"], first["command"]) == ("o-1", 3, 7)
    assert (second["run"], second["command"]) == (3, 8)
    assert {"at", "level", "logger", "message"} < set(first)


def test_the_lines_of_an_agent_say_device_run_and_command(tmp_path: Path) -> None:
    log.configure("INFO", tmp_path / "log", as_json=True)
    logger = logging.getLogger("pgfleet.agent.test")

    async def work() -> None:
        log.begin_work(command=7, run=3, trace=None)
        logger.info("it runs")

    async def device() -> None:
        with log.line_context(log.LineContext("lab-01", "live")):
            await asyncio.create_task(work())
            logger.info("it is idle")

    asyncio.run(device())
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert first | {"at": ""} == {
        "at": "",
        "level": "INFO",
        "device": "lab-01",
        "connection": "live",
        "run": 3,
        "command": 7,
        "logger": "pgfleet.agent.test",
        "message": "it runs",
    }
    assert "command" not in second


def test_the_functions_log_json_lines_from_the_first_to_the_last() -> None:
    environment = {
        **os.environ,
        "PGFLEET_FUNCTIONS_DATABASE_URL": f"postgresql://worker:{KEY}@127.0.0.1:1/none",
        "PGFLEET_JWT_SECRET": KEY * 3,
        "PGFLEET_LOG_FORMAT": "json",
    }
    words = [sys.executable, "-m", "pgfleet", "functions", "run", "--port", "0"]
    lines = []
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            # It tries for as long as it runs: that it fails is told soon after it is up.
            if "connect" in line:
                process.terminate()
    found = [json.loads(line) for line in lines]
    assert any("Uvicorn running" in entry["message"] for entry in found)
    assert KEY not in "".join(lines)
