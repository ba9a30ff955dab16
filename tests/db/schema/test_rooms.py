"""The rooms of the house: calls go down, nothing is left over, and each has the same furniture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import rooms
from tests.helpers.rooms import Statement

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "db" / "sources"

# Functions whose strings are names of functions in fleet.
TABLES_OF_CALLS = ["fleet.tick_steps"]
# What people call where there is no pg_cron: docs/how-to/plain-postgres.md.
BY_HAND = {"fleet.tick", "fleet.after_restore"}

FUNCTIONS = """
select p.pronamespace::regnamespace || '.' || p.proname, l.lanname,
  coalesce(p.proargnames, '{}'), coalesce(p.proargmodes::text[], '{}'),
  coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)
from pg_proc as p
join pg_language as l on l.oid = p.prolang
where p.pronamespace::regnamespace::text in ('public', 'fleet')
  and not exists (
    select from pg_depend as d
    where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  )
"""
# What tables need: defaults, checks and indexes name functions.
NEEDED_BY_TABLES = """
select distinct d.refobjid::regprocedure::text
from pg_depend as d
where d.refclassid = 'pg_proc'::regclass
  and d.classid = any ('{pg_attrdef,pg_constraint,pg_class,pg_type}'::regclass[])
"""


@pytest.fixture(scope="module")
def sources() -> list[Statement]:
    return rooms.read_sources(SOURCES)


def called_by_python() -> set[str]:
    """Name everything of fleet that the programs name."""
    return {
        f"fleet.{name}"
        for folder in ("cli", "functions", "supabase/local")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".sql")
        for name in re.findall(r"\bfleet\.(\w+)", file.read_text())
    }


def test_the_sources_define_what_the_catalogue_has(db: Any, sources: list[Statement]) -> None:
    defined = [s.function for s in sources if s.function]
    assert len(defined) == len(set(defined)) > 700
    assert {row[0] for row in db.execute(FUNCTIONS)} == set(defined)


def test_no_function_calls_up(sources: list[Statement]) -> None:
    assert rooms.upward_calls(sources) == []


def test_every_function_is_reached(db: Any, sources: list[Statement]) -> None:
    public = {s.function for s in sources if s.function and s.function.startswith("public.")}
    tables = {row[0].partition("(")[0] for row in db.execute(NEEDED_BY_TABLES)}
    left = rooms.unreachable(
        sources, public | tables | called_by_python() | BY_HAND, TABLES_OF_CALLS
    )
    assert left == []


def test_every_parameter_is_used(db: Any) -> None:
    parameters, bodies = {}, {}
    for name, language, names, modes, body in db.execute(FUNCTIONS):
        if language not in ("sql", "plpgsql"):
            continue
        modes = modes or ["i"] * len(names)
        parameters[name] = [n for n, mode in zip(names, modes, strict=True) if mode in "ib"]
        bodies[name] = body
    assert rooms.unused_parameters(parameters, bodies) == []


def test_every_room_has_numbered_topics_and_the_same_furniture() -> None:
    files = [path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert rooms.foreign_furniture(files) == []
    numbers = [path.name.partition("_")[0] for path in SOURCES.iterdir()]
    assert len(numbers) == len(set(numbers)), "two rooms of one number"


# The readers themselves, on houses of a few lines.

LOW = """
-- fleet.high() in a comment is no call.
create or replace function fleet.low(p_a text, p_b text)
returns text
language sql
as $$
  select fleet.lowest(p_a) || 'ask fleet.spoken_of(1), or it''s all; fleet' -- fleet.noted()
$$;

comment on function fleet.low(text, text) is 'See fleet.told(text).';
revoke all on function fleet.low(text, text) from public;
"""
LOWEST = "create or replace function fleet.lowest(p_a text) returns text language sql return p_a;"


def house(**files: str) -> list[Statement]:
    return [s for room, sql in files.items() for s in rooms.statements(room.lstrip("_"), sql)]


def function(name: str, body: str = "select 1") -> str:
    return f"create or replace function fleet.{name}() language sql as $$ {body} $$;\n"


def test_a_statement_is_taken_apart() -> None:
    low, comment, revoke = house(_10_low=LOW)
    assert (low.function, low.room) == ("fleet.low", "10_low")
    assert low.calls == {"fleet.lowest"}
    assert low.strings == ["ask fleet.spoken_of(1), or it''s all; fleet"]
    assert (comment.function, comment.calls) == (None, set())
    assert (revoke.function, revoke.calls) == (None, set())


@pytest.mark.parametrize(
    "body",
    [
        "select fleet.b()",
        "select\n  fleet.b (1)",
        "execute 'select fleet.b()'",
        "execute format(\n    'select '\n    'fleet.b(%L)', 1)",
        "execute $query$ select fleet.b() $query$",
        "for r in select * from fleet.b() loop null; end loop;",
    ],
)
def test_a_call_is_seen(body: str) -> None:
    (a,) = house(_10_a=function("a", body))
    assert a.calls == {"fleet.b"}


@pytest.mark.parametrize(
    "body", ["select 'fleet.b()'", "-- fleet.b()\nselect 1", "select fleet.b from t", "select 1"]
)
def test_what_is_no_call_is_none(body: str) -> None:
    (a,) = house(_10_a=function("a", body))
    assert a.calls == set()


def test_an_upward_call_is_told() -> None:
    low, high = function("low", "select fleet.high()"), function("high", "select fleet.low()")
    assert rooms.upward_calls(house(_10_low=low, _20_high=high)) == [("fleet.low", "fleet.high")]
    assert rooms.upward_calls(house(_20_low=low, _10_high=high)) == [("fleet.high", "fleet.low")]
    assert rooms.upward_calls(house(_10_both=low + high)) == []


def test_an_upward_call_of_a_view_is_told() -> None:
    view = "create or replace view public.v as select fleet.high();"
    found = rooms.upward_calls(house(_10_low=view, _20_high=function("high")))
    assert found == [("10_low", "fleet.high")]


@pytest.mark.parametrize(
    ("sql", "roots", "left"),
    [
        (function("a") + function("b", "select fleet.a()"), [], ["fleet.a", "fleet.b"]),
        (function("a") + function("b", "select fleet.a()"), ["fleet.b"], []),
        (function("a") + function("b", "select fleet.a()"), ["fleet.a"], ["fleet.b"]),
        (function("a", "select fleet.b()") + function("b", "select fleet.a()"), [], ["a", "b"]),
        (function("a", "select fleet.a()"), [], ["fleet.a"]),
        (function("a") + "create trigger t execute function fleet.a();", [], []),
        (function("a") + "comment on function fleet.a() is 'x';", [], ["fleet.a"]),
        (function("a") + "grant execute on function fleet.a() to x;", [], ["fleet.a"]),
        (function("a") + function("b", "select 'call fleet.a()'"), ["fleet.b"], []),
        (function("a") + "insert into t values ('fleet.a');", [], []),
        (function("a") + "insert into t values ('see fleet.a, too');", [], ["fleet.a"]),
        (function("a") + "comment on table t is 'fleet.a()';", [], ["fleet.a"]),
        (function("a") + function("b", "select 'a'"), ["fleet.b"], ["fleet.a"]),
        (function("a") + function("steps", "values ('x', 'a')"), ["fleet.steps"], []),
    ],
)
def test_what_nothing_reaches_is_told(sql: str, roots: Iterable[str], left: list[str]) -> None:
    found = rooms.unreachable(house(_10_a=sql), roots, ["fleet.steps"])
    assert found == [name if "." in name else f"fleet.{name}" for name in left]


@pytest.mark.parametrize(
    ("body", "unused"),
    [
        ("select p_a", []),
        ("select $1", []),
        ("select p_a.id", []),
        ("select p_ab", ["f.p_a"]),
        ("select 'p_a' -- p_a", ["f.p_a"]),
        ("select 1", ["f.p_a"]),
    ],
)
def test_a_parameter_that_is_not_used_is_told(body: str, unused: list[str]) -> None:
    assert rooms.unused_parameters({"f": ["p_a"]}, {"f": body}) == unused


def test_foreign_furniture_is_told() -> None:
    own = ["10_a/10_b.sql", "10_a/views.sql", "10_a/triggers.sql", "10_a/access.sql"]
    foreign = ["10_a/b.sql", "10_a/10_b.txt", "10_a/10_b/c.sql", "a/10_b.sql", "README.md"]
    assert rooms.foreign_furniture(own) == []
    assert rooms.foreign_furniture(own + foreign) == sorted(foreign)
