"""Look up what the change stream does not say: types, primary key, row security."""

from __future__ import annotations

from dataclasses import dataclass

from pgfleet_local.realtime.database import Connection

RELATION = """
select c.oid, n.nspname, c.relname, c.relrowsecurity
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.oid = %s::oid
"""
COLUMNS = """
select
  a.attname,
  t.typname,
  pg_catalog.format_type(a.atttypid, -1),
  coalesce(a.attnum = any (i.indkey), false)
from pg_catalog.pg_attribute as a
join pg_catalog.pg_type as t on t.oid = a.atttypid
left join pg_catalog.pg_index as i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = %s::oid and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `type_name` is what listeners are told, `sql_type` is what SQL can cast to."""

    name: str
    type_name: str
    sql_type: str
    in_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the catalogue has it now."""

    oid: int
    schema: str
    name: str
    row_security: bool
    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the primary key's columns."""
        return tuple(column.name for column in self.columns if column.in_key)

    @property
    def qualified_name(self) -> str:
        """The name for log lines."""
        return f"{self.schema}.{self.name}"

    def find(self, name: str) -> Column | None:
        """Return the column of this name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)

    def column(self, name: str) -> Column:
        """Return the column of this name, or raise `KeyError`."""
        column = self.find(name)
        if column is None:
            raise KeyError(name)
        return column


async def load_relation(connection: Connection, oid: int) -> Relation | None:
    """Read a table from the catalogue; None when it is gone."""
    found = await (await connection.execute(RELATION, (oid,))).fetchone()
    if found is None:
        return None
    rows = await (await connection.execute(COLUMNS, (oid,))).fetchall()
    columns = tuple(Column(str(r[0]), str(r[1]), str(r[2]), bool(r[3])) for r in rows)
    return Relation(oid, str(found[1]), str(found[2]), bool(found[3]), columns)
