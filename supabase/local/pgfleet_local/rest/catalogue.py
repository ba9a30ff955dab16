"""Read from the catalogue what can be asked: relations, functions and role settings."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgfleet_local.rest.errors import RestError

RELATIONS = """
select n.nspname as schema, c.relname as name,
  json_agg(
    json_build_object(
      'name', a.attname,
      'type', format_type(a.atttypid, null),
      'default', pg_get_expr(d.adbin, d.adrelid)
    ) order by a.attnum
  ) as columns,
  coalesce((
    select json_agg(k.attname order by array_position(i.indkey::int2[], k.attnum))
    from pg_index as i
    join pg_attribute as k on k.attrelid = i.indrelid and k.attnum = any (i.indkey)
    where i.indrelid = c.oid and i.indisprimary
  ), '[]') as primary_key
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef as d
  on d.adrelid = c.oid and d.adnum = a.attnum and a.attgenerated = ''
where c.relkind in ('r', 'v', 'm', 'f', 'p') and n.nspname = any (%(schemas)s)
group by n.nspname, c.relname, c.oid
"""

FUNCTIONS = """
select n.nspname as schema, p.proname as name, p.provolatile = 'v' as is_volatile,
  p.proretset as returns_set,
  t.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false) as returns_rows,
  p.prorettype = 'void'::regtype as returns_void,
  p.proconfig as settings,
  p.pronargdefaults as defaults,
  coalesce((
    select json_agg(
      json_build_object(
        'name', coalesce(p.proargnames[x.n], ''),
        'type', format_type(x.type, null),
        'is_variadic', coalesce(p.proargmodes[x.n] = 'v', false)
      ) order by x.n
    )
    from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as x (type, n)
    where coalesce(p.proargmodes[x.n], 'i') in ('i', 'b', 'v')
  ), '[]') as arguments
from pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
join pg_type as t on t.oid = p.prorettype
where p.prokind = 'f' and t.typname not in ('trigger', 'event_trigger')
  and n.nspname = any (%(schemas)s)
"""

# A setting of a role is applied at login only, so each request has to bring it in.
ROLE_SETTINGS = """
select r.rolname as role, split_part(x.entry, '=', 1) as name,
  substr(x.entry, strpos(x.entry, '=') + 1) as value
from pg_roles as r
cross join lateral unnest(r.rolconfig) as x (entry)
join pg_settings as s on s.name = split_part(x.entry, '=', 1) and s.context = 'user'
where pg_has_role(current_user, r.oid, 'member') and r.rolname <> current_user
"""

# Of a function's own settings these must hold before it starts.
HOISTED = ("statement_timeout", "default_transaction_isolation")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation; `type` and `default` are SQL as the catalogue prints it."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view of an exposed schema."""

    schema: str
    name: str
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...]

    def column(self, name: str) -> Column:
        """Return a column by name, or answer PGRST204."""
        if name not in self.columns:
            raise RestError(
                400,
                "PGRST204",
                f"Could not find the '{name}' column of '{self.name}' in the schema cache",
            )
        return self.columns[name]


@dataclass(frozen=True, slots=True)
class Argument:
    """An input argument of a function."""

    name: str
    type: str
    is_variadic: bool
    is_required: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A function of an exposed schema."""

    schema: str
    name: str
    arguments: tuple[Argument, ...]
    is_volatile: bool
    returns_set: bool
    returns_rows: bool
    returns_void: bool
    settings: Mapping[str, str]

    def takes(self, names: frozenset[str]) -> bool:
        """Tell whether a call with exactly these argument names is possible."""
        known = {argument.name for argument in self.arguments}
        required = {argument.name for argument in self.arguments if argument.is_required}
        return required <= names <= known and "" not in known

    def takes_whole(self, types: Collection[str]) -> bool:
        """Tell whether its only argument has no name and one of these types."""
        return [one.name for one in self.arguments] == [""] and self.arguments[0].type in types

    def __str__(self) -> str:
        inner = ", ".join(f"{a.name} => {a.type}" for a in self.arguments)
        return f"{self.schema}.{self.name}({inner})"


class Catalogue:
    """All that the exposed schemas offer at one moment."""

    def __init__(
        self,
        relations: Iterable[Relation],
        functions: Iterable[Function],
        role_settings: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._relations = {(r.schema, r.name): r for r in relations}
        self._functions: dict[tuple[str, str], list[Function]] = defaultdict(list)
        for function in functions:
            self._functions[function.schema, function.name].append(function)
        self.role_settings = role_settings

    def relation(self, schema: str, name: str) -> Relation:
        """Return a table or view, or answer PGRST205."""
        found = self._relations.get((schema, name))
        if found is None:
            near = _nearest(name, (n for s, n in self._relations if s == schema))
            raise RestError(
                404,
                "PGRST205",
                f"Could not find the table '{schema}.{name}' in the schema cache",
                hint=f"Perhaps you meant the table '{schema}.{near}'" if near else None,
            )
        return found

    def function(
        self, schema: str, name: str, names: frozenset[str], whole: Collection[str] = ()
    ) -> Function:
        """Return the one overload that takes these argument names, or answer why not.

        Without one, a function whose only argument has no name and one of the types `whole` is
        called with all of the body.
        """
        overloads = self._functions.get((schema, name), [])
        candidates = [function for function in overloads if function.takes(names)] or [
            function for function in overloads if function.takes_whole(whole)
        ]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            listed = ", ".join(str(candidate) for candidate in candidates)
            raise RestError(
                300,
                "PGRST203",
                f"Could not choose the best candidate function between: {listed}",
                hint="Try renaming the parameters or the function itself in the database so "
                "function overloading can be resolved",
            )
        raise self._no_function(schema, name, names, overloads)

    def takes_whole(self, schema: str, name: str, types: Collection[str]) -> bool:
        """Tell whether a function of this name takes a body of these types whole."""
        return any(one.takes_whole(types) for one in self._functions.get((schema, name), []))

    def _no_function(
        self, schema: str, name: str, names: frozenset[str], overloads: list[Function]
    ) -> RestError:
        given = ", ".join(sorted(names))
        called = f"{schema}.{name}({given})" if names else f"{schema}.{name} without parameters"
        known = "parameters " if len(names) > 1 else "parameter "
        searched = f"{schema}.{name} " + (f"with {known}{given}" if names else "without parameters")
        near = _nearest(name, (n for s, n in self._functions if s == schema))
        hint = str(overloads[0]).replace(" => ", " ") if overloads else near and f"{schema}.{near}"
        return RestError(
            404,
            "PGRST202",
            f"Could not find the function {called} in the schema cache",
            f"Searched for the function {searched}, but no matches were found in the schema cache.",
            f"Perhaps you meant to call the function {hint}" if hint else None,
        )


async def load(connection: AsyncConnection[Any], schemas: tuple[str, ...]) -> Catalogue:
    """Read the catalogue as it is now."""
    cursor = connection.cursor(row_factory=dict_row)
    parameters = {"schemas": list(schemas)}
    relations = [
        Relation(
            row["schema"],
            row["name"],
            {column["name"]: Column(**column) for column in row["columns"]},
            tuple(row["primary_key"]),
        )
        for row in await (await cursor.execute(RELATIONS, parameters)).fetchall()
    ]
    functions = [
        _function(row) for row in await (await cursor.execute(FUNCTIONS, parameters)).fetchall()
    ]
    settings: dict[str, dict[str, str]] = defaultdict(dict)
    for row in await (await cursor.execute(ROLE_SETTINGS)).fetchall():
        settings[row["role"]][row["name"]] = row["value"]
    return Catalogue(relations, functions, settings)


def _function(row: dict[str, Any]) -> Function:
    first_default = len(row["arguments"]) - row["defaults"]
    arguments = tuple(
        Argument(**argument, is_required=number < first_default and not argument["is_variadic"])
        for number, argument in enumerate(row["arguments"])
    )
    settings = dict(entry.split("=", 1) for entry in row["settings"] or ())
    return Function(
        row["schema"],
        row["name"],
        arguments,
        row["is_volatile"],
        row["returns_set"],
        row["returns_rows"],
        row["returns_void"],
        {name: value for name, value in settings.items() if name in HOISTED},
    )


def _nearest(name: str, names: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name, set(names), n=1, cutoff=0.6)
    return found[0] if found else None
