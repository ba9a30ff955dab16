"""What a migrated database tells of itself: functions, tables and views of `public`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row

Kind = TypeVar("Kind")

API_ROLES = ("anon", "authenticated", "service_role")

_FUNCTIONS: LiteralString = """
select
  p.proname as name,
  pg_catalog.pg_get_function_arguments(p.oid) as arguments,
  pg_catalog.pg_get_function_result(p.oid) as result,
  coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') as comment,
  array(
    select r.role
    from unnest(%(roles)s::text[]) with ordinality as r (role, place)
    where pg_catalog.has_function_privilege(r.role, p.oid, 'execute')
    order by r.place
  ) as roles
from pg_catalog.pg_proc as p
where p.pronamespace = 'public'::regnamespace
  and p.prorettype <> 'trigger'::regtype
  and not exists (
    select from pg_catalog.pg_depend as d
    where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  )
order by p.proname, arguments
"""

_TABLES: LiteralString = """
select
  c.relname as name,
  c.relkind in ('v', 'm') as is_view,
  coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') as comment,
  array(
    select jsonb_build_object(
      'name', a.attname,
      'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
      'is_required', a.attnotnull,
      'default', case
        when a.attidentity <> '' then 'the next number'
        else pg_catalog.pg_get_expr(d.adbin, d.adrelid)
      end,
      'references', (
        select string_agg(distinct k.confrelid::regclass::text, ', ')
        from pg_catalog.pg_constraint as k
        where k.contype = 'f' and k.conrelid = c.oid and a.attnum = any (k.conkey)
          -- A key on two columns also names the owner; the table that is meant is the other's.
          and (cardinality(k.conkey) = 1 or a.attname <> 'owner_id')
      ),
      'comment', coalesce(pg_catalog.col_description(c.oid, a.attnum), '')
    )
    from pg_catalog.pg_attribute as a
    left join pg_catalog.pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    order by a.attnum
  ) as columns,
  array(
    select jsonb_build_object(
      'role', r.role,
      'rights', array(
        select v.verb || case
          when pg_catalog.has_table_privilege(r.role, c.oid, v.verb) then ''
          else format(' (%%s)', (
            select string_agg(a.attname, ', ' order by a.attnum)
            from pg_catalog.pg_attribute as a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
              and pg_catalog.has_column_privilege(r.role, c.oid, a.attnum, v.verb)
          ))
        end
        from (values ('select', 1), ('insert', 2), ('update', 3), ('delete', 4)) as v (verb, place)
        where case
          when v.verb = 'delete' then pg_catalog.has_table_privilege(r.role, c.oid, v.verb)
          else pg_catalog.has_any_column_privilege(r.role, c.oid, v.verb)
        end
        order by v.place
      )
    )
    from unnest(%(roles)s::text[]) with ordinality as r (role, place)
    order by r.place
  ) as rights
from pg_catalog.pg_class as c
where c.relnamespace = 'public'::regnamespace
  and c.relkind in ('r', 'p', 'v', 'm')
  and not c.relispartition
  and not exists (
    select from pg_catalog.pg_depend as d
    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
  )
order by c.relname
"""

_SETTINGS: LiteralString = """
select s.name, s.value::text as default, s.description
from fleet.default_settings() as s
order by s.name
"""


@dataclass(frozen=True, slots=True)
class Function:
    """One function that people, devices or scripts may call."""

    name: str
    arguments: str
    result: str
    comment: str
    roles: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view, with its columns and what the roles of the API may do with it."""

    name: str
    is_view: bool
    comment: str
    columns: list[dict[str, Any]]
    rights: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the engine."""

    name: str
    default: str
    description: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that the pages need of a database."""

    functions: list[Function]
    tables: list[Table]
    settings: list[Setting]


def read(database_url: str) -> Catalogue:
    """Read a migrated database; nothing in it is changed."""
    with psycopg.connect(database_url) as connection:
        # Names are written out in full, except those of the schema that the pages are about.
        connection.execute("set search_path = pg_catalog, public")
        roles = {"roles": list(API_ROLES)}
        return Catalogue(
            _rows(connection, Function, _FUNCTIONS, roles),
            _rows(connection, Table, _TABLES, roles),
            _rows(connection, Setting, _SETTINGS, roles),
        )


def _rows(
    connection: psycopg.Connection[Any],
    kind: type[Kind],
    query: LiteralString,
    values: dict[str, Any],
) -> list[Kind]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, values).fetchall()
