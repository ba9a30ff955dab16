"""--dry-run: every verb that changes something can be tried, and nothing of it stays."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from tests.helpers.trials import ASKED, MOBILECONFIG, NOT_TRIED, SAID_BY, VERBS, WORLD

from pgfleet import options
from pgfleet.main import app

Pgfleet = Any
TRIED = re.compile(r"Dry run: nothing was changed\. It would touch (\d+) devices?\.")


def changing() -> set[str]:
    """Name the verbs that can be tried."""

    def walk(path: str, command: Any) -> Any:
        if hasattr(command, "list_commands"):
            context = command.make_context(path, [], resilient_parsing=True)
            for name in command.list_commands(context):
                yield from walk(f"{path} {name}".strip(), command.get_command(context, name))
        elif any("--dry-run" in parameter.opts for parameter in command.params):
            yield path

    return set(walk("", typer.main.get_command(app)))


def verb(words: str) -> str:
    """Give noun and verb of a command."""
    first = words.split()
    is_below = first[:2] in (["integration", "webhook"], ["telemetry", "rule"])
    return " ".join(first[:3] if is_below else first[:2])


@pytest.fixture(scope="module")
def school(fleet: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make what the verbs name."""
    folder = tmp_path_factory.mktemp("files")
    schedule = {
        "name": "from a file",
        "action_type": "lock",
        "recurrence_type": "daily",
        "recurrence_config": {"time": "02:30"},
    }
    files = {
        "document": json.dumps({"version": 1, "schedules": [{**schedule, "groups": ["labs"]}]}),
        "template": json.dumps({"spec": {**schedule, "group_ids": [1]}, "parameters": {}}),
        "calendar": "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\n"
        "DTSTAMP:20260101T000000Z\r\nDTSTART;VALUE=DATE:20270101\r\nSUMMARY:New\r\n"
        "END:VEVENT\r\nEND:VCALENDAR\r\n",
        "profile": MOBILECONFIG,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(WORLD)
        found = {name: str(conn.execute(query).fetchone()[0]) for name, query in ASKED.items()}
    return {name: str(folder / name) for name in files} | found


def everything(fleet: Any) -> dict[str, str]:
    """Give a fingerprint of each table."""
    with psycopg.connect(fleet.url("supabase_admin")) as conn:
        tables = conn.execute(
            """
            select format('%I.%I', n.nspname, c.relname)
            from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
            where c.relkind = 'r' and n.nspname in ('public', 'fleet', 'realtime', 'net')
            """
        ).fetchall()
        return {
            name: hashlib.md5(
                str(conn.execute(f"select t::text from {name} as t order by 1").fetchall()).encode()
            ).hexdigest()
            for (name,) in tables
        }


@pytest.mark.parametrize("words", VERBS)
def test_trying_changes_nothing_and_counts_devices(
    pgfleet: Pgfleet,
    fleet: Any,
    school: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("A_KEY", "PGFLEET_SERVICE_KEY"):
        monkeypatch.setenv(name, "a-key")
    monkeypatch.setenv("PGFLEET_URL", "http://127.0.0.1:1")
    before = everything(fleet)
    who = SAID_BY.get(verb(words))

    answer = pgfleet(
        *(() if who is None else ("--as", school[who])),
        *shlex.split(words.format(**school)),
        "--dry-run",
    )

    assert answer.code == 0, answer.err
    found = TRIED.search(answer.err)
    assert found is not None, answer.err
    assert int(found[1]) == VERBS[words]
    assert "Deleted." not in answer.err
    assert everything(fleet) == before


def test_every_verb_that_changes_something_can_be_tried() -> None:
    tried = {verb(words) for words in VERBS}

    assert tried | NOT_TRIED.keys() == changing()
    assert not tried & NOT_TRIED.keys()


def test_a_trial_is_refused_as_the_real_thing_would_be(
    pgfleet: Pgfleet, school: dict[str, str]
) -> None:
    answer = pgfleet("device", "create", "lab-01", "--dry-run")

    assert answer.code == 1
    assert "Dry run" not in answer.err


VOLATILE = """
select n.nspname || '.' || p.proname
from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('public', 'fleet') and p.provolatile = 'v'
"""
# Volatile, yet they change nothing that stays.
ASKING = {
    "fleet.keep_move_key",
    "public.export_schedules",
    "public.preview_geo_schedule",
    "public.profile_drift",
}


def verbs_of(file: Path) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """Give the verbs that a module declares, and whether each says that it changes something."""
    for node in ast.parse(file.read_text()).body:
        for mark in getattr(node, "decorator_list", []):
            if isinstance(node, ast.FunctionDef) and "app.command" in ast.unparse(mark):
                yield node, "changes=True" in ast.unparse(mark)


def test_a_verb_that_writes_can_be_tried(fleet: Any) -> None:
    with psycopg.connect(fleet.url()) as conn:
        volatile = {name for (name,) in conn.execute(VOLATILE)}
    silent = []
    for file in (Path(options.__file__).parent / "nouns").rglob("*.py"):
        for verb_node, is_marked in verbs_of(file):
            for call in ast.walk(verb_node):
                if is_marked or not isinstance(call, ast.Call) or not call.args:
                    continue
                called, first = ast.unparse(call.func), call.args[0]
                name = first.value if isinstance(first, ast.Constant) else ""
                full = name if "." in str(name) else f"public.{name}"
                writes = called in ("db.insert", "db.delete") or (
                    called in ("db.row", "db.value", "db.call") and full in volatile
                )
                if writes and full not in ASKING:
                    silent.append(f"{file.name} {verb_node.name}: {called} {name}")
    assert not silent, "; ".join(silent)
