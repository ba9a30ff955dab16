"""What several benchmarks need: a value, an owner, a row of the table, a plain baseline, a port."""

from __future__ import annotations

import socket
import time
from typing import Any

import psycopg


def value(connection: psycopg.Connection[Any], statement: str, *parameters: Any) -> Any:
    """Run a statement and give its one value; None where it has no row."""
    row = connection.execute(statement, parameters or None).fetchone()
    return row[0] if row else None


def make_owner(connection: psycopg.Connection[Any]) -> str:
    """Make an owner, whose everything is that says nothing else; give its id."""
    owner: str = value(connection, "insert into owners (name) values ('bench') returning id::text")
    connection.execute("select fleet.set_setting('default_owner', to_jsonb(%s::text))", (owner,))
    return owner


def bare_insert_seconds(connection: psycopg.Connection[Any]) -> float:
    """Tell how long as many rows take that nobody has to think about, with the same indexes."""
    connection.execute("drop table if exists bare")
    connection.execute(
        "create table bare (like device_commands including all excluding constraints)"
    )
    started = time.monotonic()
    connection.execute("insert into bare select * from device_commands")
    return time.monotonic() - started


def row(
    what: str, found: Any, unit: str, baseline: Any = None, goal: str | None = None, digits: int = 2
) -> dict[str, Any]:
    """Give a row of the table that `run` prints."""
    return {
        "what": what,
        "value": found,
        "unit": unit,
        "baseline": "" if baseline is None else baseline,
        "ratio": round(float(found) / float(baseline), digits) if baseline else "",
        "goal": goal or "",
    }


def free_port() -> int:
    """Give a port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
