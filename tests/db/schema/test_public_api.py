"""What people call and read keeps answering: the functions and columns of schema public.

`public_api.json` holds what there was when the list was made. It only ever grows: add what is
new by running this file with `PGFLEET_STORE_API=1`, and never take anything out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

STORED = Path(__file__).with_name("public_api.json")

FUNCTIONS = """
select p.proname, p.prokind::text, pg_get_function_result(p.oid),
  coalesce(p.proargnames, '{}'), coalesce(p.proargmodes::text[], '{}'),
  array(
    select format_type(u.type, null)
    from unnest(p.proargtypes) with ordinality as u (type, n)
    order by u.n
  ),
  p.pronargdefaults
from pg_proc as p
where p.pronamespace = 'public'::regnamespace
  and not exists (
    select from pg_depend as d
    where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  )
order by p.proname, p.oid
"""
RELATIONS = """
select c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
from pg_class as c
join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
  and not exists (
    select from pg_depend as d
    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
  )
order by c.relname, a.attnum
"""

Function = dict[str, Any]


def functions(db: Any) -> dict[str, Function]:
    """Give each function by its name: its parameters in order, and what it returns."""
    found = {}
    for name, kind, returns, names, modes, types, defaults in db.execute(FUNCTIONS):
        inputs = [
            parameter
            for parameter, mode in zip(names, modes or ["i"] * len(names), strict=True)
            if mode in ("i", "b", "v")
        ]
        required = len(types) - defaults
        found[name] = {
            "kind": {"f": "function", "p": "procedure"}[kind],
            "parameters": [
                {"name": parameter, "type": type_, "required": n < required}
                for n, (parameter, type_) in enumerate(zip(inputs, types, strict=True))
            ],
            "returns": returns,
        }
    return found


def relations(db: Any) -> dict[str, dict[str, str]]:
    """Give the columns of each table and view, with their types."""
    found: dict[str, dict[str, str]] = {}
    for name, column, type_ in db.execute(RELATIONS):
        found.setdefault(name, {})[column] = type_
    return found


def lost_calls(stored: dict[str, Function], current: dict[str, Function]) -> list[str]:
    """Say which calls that worked would not work any more, in order or by names."""
    lost = []
    for name, old in stored.items():
        new = current.get(name)
        if new is None:
            lost.append(f"{name}: is gone")
            continue
        # A table that is returned may have more columns than before.
        wider = old["returns"].startswith("TABLE(") and new["returns"].startswith(
            old["returns"].removesuffix(")") + ", "
        )
        if new["kind"] != old["kind"] or (new["returns"] != old["returns"] and not wider):
            lost.append(f"{name}: returns {new['returns']}, not {old['returns']}")
        before, after = old["parameters"], new["parameters"]
        for was, now in zip(before, after, strict=False):
            if (was["name"], was["type"]) != (now["name"], now["type"]):
                lost.append(
                    f"{name}: {was['name']} {was['type']} is now {now['name']} {now['type']}"
                )
            elif now["required"] and not was["required"]:
                lost.append(f"{name}: {now['name']} must be given")
        lost += [f"{name}: {was['name']} is gone" for was in before[len(after) :]]
        lost += [
            f"{name}: {now['name']} must be given"
            for now in after[len(before) :]
            if now["required"]
        ]
    return lost


def lost_columns(
    stored: dict[str, dict[str, str]], current: dict[str, dict[str, str]]
) -> list[str]:
    """Say which columns are gone or of another type."""
    return [
        f"{name}.{column}: {current.get(name, {}).get(column, 'is gone')}"
        for name, columns in stored.items()
        for column, type_ in columns.items()
        if current.get(name, {}).get(column) != type_
    ]


def test_every_call_and_every_column_still_answers(db: Any) -> None:
    current = {"functions": functions(db), "relations": relations(db)}
    stored = json.loads(STORED.read_text())
    assert lost_calls(stored["functions"], current["functions"]) == []
    assert lost_columns(stored["relations"], current["relations"]) == []
    if os.environ.get("PGFLEET_STORE_API"):
        STORED.write_text(json.dumps(current, indent=2) + "\n")


def call(*parameters: tuple[str, str, bool], returns: str = "jsonb") -> dict[str, Function]:
    named = [dict(zip(("name", "type", "required"), p, strict=True)) for p in parameters]
    return {"f": {"kind": "function", "parameters": named, "returns": returns}}


A, B = ("p_a", "bigint", True), ("p_b", "text", False)


@pytest.mark.parametrize(
    ("current", "said"),
    [
        (call(A, B), []),
        (call(A, B, ("p_c", "text", False)), []),
        ({}, ["f: is gone"]),
        (call(A), ["f: p_b is gone"]),
        (call(A, ("p_b", "text", True)), ["f: p_b must be given"]),
        (call(A, B, ("p_c", "text", True)), ["f: p_c must be given"]),
        (call(("p_x", "bigint", True), B), ["f: p_a bigint is now p_x bigint"]),
        (call(("p_a", "uuid", True), B), ["f: p_a bigint is now p_a uuid"]),
        (call(A, B, returns="text"), ["f: returns text, not jsonb"]),
    ],
)
def test_a_call_that_is_lost_is_told(current: dict[str, Function], said: list[str]) -> None:
    assert lost_calls(call(A, B), current) == said


@pytest.mark.parametrize(
    ("returns", "lost"), [("TABLE(a text, b text)", 0), ("TABLE(b text)", 1), ("TABLE(a text)", 0)]
)
def test_a_table_that_is_returned_may_grow(returns: str, lost: int) -> None:
    assert len(lost_calls(call(returns="TABLE(a text)"), call(returns=returns))) == lost


def test_a_column_that_is_lost_is_told() -> None:
    stored = {"v": {"id": "bigint", "name": "text"}}
    assert lost_columns(stored, {"v": {"id": "bigint", "name": "text", "more": "text"}}) == []
    assert lost_columns(stored, {"v": {"id": "uuid"}}) == ["v.id: uuid", "v.name: is gone"]
    assert lost_columns(stored, {}) == ["v.id: is gone", "v.name: is gone"]
