"""The command line has no SQL of its own: it names views, functions and tables, and no more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pgfleet import database, names
from pgfleet.database import Database
from pgfleet.errors import NotFound
from pgfleet.options import Options, using
from pgfleet.statements import among, contains, holding, same, since

NOUNS = Path(names.__file__).parent / "nouns"
MODULES = [Path(names.__file__), *sorted(NOUNS.rglob("*.py"))]
# It makes a login, on a connection of its own, before there is anything to ask.
BY_ITSELF = {
    "select from pg_roles where rolname = %s",
    "select fleet.grant_worker()",
    "select fleet.set_setting('functions_url', %s)",
}
STATEMENT = re.compile(
    r"\s*(select|insert|update|delete|merge|with|call|create|alter|drop|grant|copy)\s+\S+.*"
    r"(\bfrom\b|\binto\b|\bset\b|\(|\bpublic\.|\bfleet\.)",
    re.DOTALL,
)
METHODS = {"find", "call", "stream", "row", "value", "exact", "insert", "delete"}


def texts(tree: ast.AST) -> Iterator[str]:
    """Give every string but docstrings and what is printed or asked for."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Give each thing that is asked of the database."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in METHODS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "db"
        ):
            yield node.func.attr, node


def constants(tree: ast.Module, node: ast.AST | None) -> Any:
    """Give a literal, be it where it is used or as a constant of the module."""
    if isinstance(node, ast.Name):
        (node,) = (
            line.value
            for line in tree.body
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == node.id
        )
    assert node is not None
    return eval(ast.unparse(node), {"__builtins__": {}})


def test_no_statement_is_written_in_a_noun() -> None:
    written = [
        (path.name, text)
        for path in MODULES
        for text in texts(ast.parse(path.read_text()))
        if STATEMENT.match(text) and text not in BY_ITSELF
    ]

    assert written == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select 1 from public.devices", True),
        ("\nupdate devices set tags = '{}'", True),
        ("select public.fleet_status()", True),
        ("with x as (select 1) select * from x", True),
        ("Select what to show.", False),
        ("update", False),
    ],
)
def test_a_statement_is_told_from_a_sentence(text: str, found: bool) -> None:
    assert bool(STATEMENT.match(text)) is found


def test_only_the_login_of_the_functions_has_a_connection_of_its_own() -> None:
    importing = {
        path.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and "psycopg" in ast.unparse(node)
    }

    assert importing == {"functions.py"}


FUNCTION = """
select coalesce(p.proargnames, '{}'), p.pronargs, pg_get_function_result(p.oid)
from pg_proc as p
where p.pronamespace::regnamespace || '.' || p.proname = %s
"""
COLUMNS = """
select array_agg(a.attname::text)
from pg_attribute as a
where a.attrelid = to_regclass(%s) and a.attnum > 0
"""


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: path.relative_to(NOUNS.parent).as_posix()
)
def test_what_is_asked_for_is_there(fleet: Any, path: Path) -> None:
    tree = ast.parse(path.read_text())
    with psycopg.connect(fleet.url()) as conn:
        for method, node in calls(tree):
            name = constants(tree, node.args[0])
            assert isinstance(name, str), ast.unparse(node)
            full = name if "." in name else f"public.{name}"
            if method in ("call", "stream", "row", "value", "exact"):
                rows = conn.execute(FUNCTION, (full,)).fetchall()
                assert len(rows) == 1, full
                known = set(rows[0][0][: rows[0][1]])
                given = {word.arg for word in node.keywords if word.arg is not None}
            else:
                (known,) = conn.execute(COLUMNS, (full,)).fetchone() or (None,)
                assert known, full
                given = set(columns(tree, node))
            assert given <= set(known), ast.unparse(node)


def columns(tree: ast.Module, node: ast.Call) -> Iterator[str]:
    """Name the columns of a view or table that are asked for, where the code says them."""
    for word in node.keywords:
        if word.arg in ("columns", "order") and not isinstance(word.value, ast.IfExp):
            try:
                yield from (name.lstrip("-") for name in constants(tree, word.value))
            except ValueError:
                # A parameter of the function around it, or a variable.
                continue
    for argument in node.args[1:]:
        if isinstance(argument, ast.Dict):
            yield from (key.value for key in argument.keys if isinstance(key, ast.Constant))


class Told:
    """Collects what --show-sql prints."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        monkeypatch.setattr(database.output, "show_sql", self.lines.append)

    @property
    def last(self) -> str:
        return self.lines[-1]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


@pytest.fixture
def asked(fleet: Any) -> Iterator[Database]:
    with psycopg.connect(fleet.url(), row_factory=dict_row) as conn:
        with using(Options(show_sql=True)):
            yield Database(conn)
        conn.rollback()


def test_a_view_is_read_by_plain_conditions(asked: Database, told: Told) -> None:
    where = {
        "status": "active",
        "platform": None,
        "hostname": contains("50%_\\"),
        "tags": holding(["a", "b"]),
        "id": among([1, 2]),
        "last_seen": since("2026-01-01Z"),
    }
    asked.find("device_list", where, columns=("id", "tags"), order=("hostname", "-id"), limit=3)

    assert told.last.splitlines() == [
        "select id, tags",
        "from public.device_list",
        "where status = 'active'",
        r"and hostname ilike  E'%50\\%\\_\\\\%'",
        "and tags @> '{a,b}'",
        "and id = any ('{1,2}'::int8[])",
        "and last_seen >= '2026-01-01Z'",
        "order by hostname, id desc",
        "limit 3;",
    ]


def test_without_conditions_everything_is_read(asked: Database, told: Told) -> None:
    asked.find("device_list", {"status": None, "id": among(None), "tags": holding([])})

    assert told.last == "select *\nfrom public.device_list;"


def test_a_function_is_called_by_the_names_of_its_parameters(asked: Database, told: Told) -> None:
    assert asked.call("group_devices", "id", p_group_id=1) == []
    assert told.last == "select id\nfrom public.group_devices(p_group_id => 1);"

    asked.call("simulate_fleet", p_from="2126-01-01Z", p_to=None, p_limit=5)
    assert told.last == (
        "select *\nfrom public.simulate_fleet(p_from => '2126-01-01Z', p_limit => 5);"
    )

    assert asked.value("fleet.setting", p_name="doorbell_rate") is not None
    assert told.last == "select fleet.setting(p_name => 'doorbell_rate') as answer;"

    assert asked.value("add_to_group", p_group_id=1, p_device_ids=[]) == 0


def test_a_row_is_added_and_deleted(asked: Database, told: Told) -> None:
    made = asked.insert("device_groups", {"name": "sql", "selector": None}, "id", "name")
    assert (
        told.last == "insert into public.device_groups (name)\nvalues ('sql')\nreturning id, name;"
    )

    assert asked.delete("device_groups", made["id"], "name") == [{"name": "sql"}]
    assert (
        told.last == f"delete from public.device_groups\nwhere id = {made['id']}\nreturning name;"
    )
    assert asked.delete("device_groups", made["id"], "name") == []


def test_signs_in_a_name_mean_themselves(asked: Database, told: Told) -> None:
    for name in ("a_b", "axb", "a%b"):
        asked.insert("device_groups", {"name": name}, "id")

    assert [g["name"] for g in asked.find("group_list", {"name": same("A_B")})] == ["a_b"]
    assert [g["name"] for g in asked.find("group_list", {"name": contains("%")})] == ["a%b"]


def test_one_row_is_wanted_and_there_is_none(asked: Database, told: Told) -> None:
    with pytest.raises(NotFound):
        asked.row("group_devices", p_group_id=0)
