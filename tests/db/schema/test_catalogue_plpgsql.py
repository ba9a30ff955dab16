"""plpgsql_check over every plpgsql function: what only a call would find otherwise."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

# Tables of pg_cron, read only where it is installed; template databases are without it.
OF_PG_CRON = re.compile(r'relation "cron\.\w+" does not exist')
# A value is cast when it is assigned, as in v_span interval := '1 hour'.
HARMLESS = {"target type is different type than source type"}

CHECK = """
    select p.oid::regprocedure::text, f.lineno, f.level, f.message,
      count(*), max(coalesce(t.tables, 1))
    from pg_proc as p
    join pg_language as l on l.oid = p.prolang and l.lanname = 'plpgsql'
    left join lateral (
      -- One function may serve several triggers of a table; it is checked with all their rows.
      select t.tgrelid, count(*) over () as tables,
        max(t.tgoldtable) as tgoldtable, max(t.tgnewtable) as tgnewtable
      from pg_trigger as t
      where t.tgfoid = p.oid and not t.tgisinternal
      group by t.tgrelid
    ) as t on true
    cross join lateral plpgsql_check_function_tb(
      p.oid, coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable,
      extra_warnings => false, performance_warnings => false
    ) as f
    where p.pronamespace::regnamespace::text in ('public', 'fleet')
      and (p.prorettype <> 'trigger'::regtype or t.tgrelid is not null)
    group by 1, 2, 3, 4
"""


@pytest.fixture
def checker(own_database: Any) -> Any:
    with own_database.connect("supabase_admin") as conn:
        try:
            conn.execute("create extension plpgsql_check")
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("plpgsql_check is not installed")
        yield conn
        conn.rollback()


def test_every_plpgsql_function_passes_the_checker(checker: Any) -> None:
    found = [
        (name, line, level, message)
        for name, line, level, message, times, tables in checker.execute(CHECK).fetchall()
        if not OF_PG_CRON.fullmatch(message)
        and message not in HARMLESS
        # A function for several tables may have a branch that fits only one of them.
        and times >= tables
    ]
    assert found == []


def test_every_trigger_function_is_used(checker: Any) -> None:
    unused = checker.execute(
        "select p.oid::regprocedure::text from pg_proc as p"
        " where p.pronamespace = 'fleet'::regnamespace and p.prorettype = 'trigger'::regtype"
        " and not exists (select 1 from pg_trigger as t where t.tgfoid = p.oid)"
    ).fetchall()
    assert unused == []
