"""Build the one statement that does what a request asks and returns its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from pgfleet_local.rest.catalogue import Argument, Column, Function, Relation
from pgfleet_local.rest.media import Shape
from pgfleet_local.rest.query import Query, Values, quoted

LIST_BODY = sql.SQL("coalesce(json_agg(_row), '[]')::text")
OBJECT_BODY = sql.SQL("coalesce((json_agg(_row) -> 0)::text, 'null')")
STRIPPED_LIST_BODY = sql.SQL("coalesce(json_agg(json_strip_nulls(row_to_json(_row))), '[]')::text")
STRIPPED_OBJECT_BODY = sql.SQL("coalesce(json_strip_nulls(json_agg(_row) -> 0)::text, 'null')")
SCALARS_BODY = sql.SQL("coalesce(json_agg(_row.pgrst_scalar), '[]')::text")
SCALAR_BODY = sql.SQL("coalesce((json_agg(_row.pgrst_scalar) -> 0)::text, 'null')")
NO_BODY = sql.SQL("''")
NO_COUNT = sql.SQL("null::bigint")
NO_LOCATION = sql.SQL("null::text")
ONE_ROW = sql.SQL("case count(*) when 1 then (json_agg(_row) -> 0)::text end")


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many rows the planner expects, asked for when the counted ones are more than `above`."""

    query: sql.Composable
    above: int | None


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with what it needs; it returns (total, rows, body, location)."""

    text: sql.Composable
    values: Values
    estimate: Estimate | None = None


def body_of(shape: Shape) -> sql.Composable:
    """Return what makes the answer's body of the rows."""
    if shape.stripped:
        return STRIPPED_OBJECT_BODY if shape.singular else STRIPPED_LIST_BODY
    return OBJECT_BODY if shape.singular else LIST_BODY


def name_of(item: Relation | Function) -> sql.Composable:
    """Return the quoted, qualified name."""
    return quoted(item.schema, item.name)


def read_rows(
    relation: Relation,
    query: Query,
    values: Values,
    *,
    max_rows: int,
    count: str | None,
    body: sql.Composable,
) -> Statement:
    """Select rows of a table or view.

    An estimated count is exact as long as it is at most `max_rows`.
    """
    source = sql.SQL("select {} from {}{}{}").format(
        query.projection(), name_of(relation), query.where(), query.tail(max_rows)
    )
    every = sql.SQL("select 1 from {}{}").format(name_of(relation), query.where())
    total: sql.Composable = NO_COUNT
    estimate = None
    if count == "exact":
        total = sql.SQL("(select count(*) from ({}) as _every)").format(every)
    elif count == "estimated":
        total = sql.SQL("(select count(*) from ({} limit {}) as _every)").format(
            every, max_rows + 1
        )
        estimate = Estimate(every, max_rows)
    elif count == "planned":
        estimate = Estimate(every, None)
    return Statement(_wrapped(source, body, total), values, estimate)


def insert_rows(
    relation: Relation,
    query: Query,
    values: Values,
    *,
    names: Sequence[str],
    payload: str,
    missing_default: bool,
    resolution: str | None,
    body: sql.Composable,
    located: bool,
) -> Statement:
    """Insert the objects of the payload, each column cast by Postgres."""
    columns = [relation.column(name) for name in names]
    if not columns:
        source = sql.SQL("insert into {} default values").format(name_of(relation))
    else:
        source = sql.SQL(
            "insert into {} ({}) select {} from json_to_recordset({}) as pgrst_body ({})"
        ).format(
            name_of(relation),
            _names(names),
            sql.SQL(", ").join(quoted("pgrst_body", name) for name in names),
            _payload(values.add(payload), columns if missing_default else ()),
            _definitions({column.name: column.type for column in columns}),
        )
    source = source + _on_conflict(relation, query, names, resolution)
    if not located or not relation.primary_key:
        source = source + _returning(query, body)
        return Statement(_wrapped(source, body, NO_COUNT), values)
    # The key is text as Postgres writes it, which is how a filter on it is written.
    keys = sql.SQL(", ").join(
        sql.SQL("{0}::text as {0}").format(quoted(name)) for name in relation.primary_key
    )
    source = source + sql.SQL(" returning {}").format(keys)
    return Statement(_wrapped(source, body, NO_COUNT, location=ONE_ROW), values)


def update_rows(
    relation: Relation,
    query: Query,
    values: Values,
    *,
    names: Sequence[str],
    payload: str,
    body: sql.Composable,
) -> Statement:
    """Update the rows that the filters match from one object."""
    types = {name: relation.column(name).type for name in names}
    assignments = (
        sql.SQL("{} = {}").format(quoted(name), quoted("pgrst_body", name)) for name in names
    )
    source = sql.SQL("update {} set {} from json_to_record({}::json) as pgrst_body ({})").format(
        name_of(relation), sql.SQL(", ").join(assignments), values.add(payload), _definitions(types)
    )
    source = source + query.where() + _returning(query, body)
    return Statement(_wrapped(source, body, NO_COUNT), values)


def delete_rows(
    relation: Relation, query: Query, values: Values, *, body: sql.Composable
) -> Statement:
    """Delete the rows that the filters match."""
    source = sql.SQL("delete from {}").format(name_of(relation))
    source = source + query.where() + _returning(query, body)
    return Statement(_wrapped(source, body, NO_COUNT), values)


def call(
    function: Function,
    query: Query,
    values: Values,
    *,
    names: Sequence[str],
    payload: str | bytes,
    whole: bool,
    max_rows: int,
    counted: bool,
    shape: Shape,
) -> Statement:
    """Call a function with named arguments, or with its only, unnamed one; Postgres casts them.

    A payload of bytes is the unnamed one's.
    """
    given = [argument for argument in function.arguments if argument.name in names]
    invocation = sql.SQL("{}({})").format(name_of(function), _arguments(given))
    origin: sql.Composable = sql.SQL("(select 1) as pgrst_args")
    if whole:
        [only] = function.arguments
        invocation = sql.SQL("{}(pgrst_args.whole)").format(name_of(function))
        origin = sql.SQL("(select {}::{} as whole) as pgrst_args").format(
            values.add(payload), sql.SQL(only.type)
        )
    elif given:
        origin = sql.SQL("json_to_record({}::json) as pgrst_args ({})").format(
            values.add(payload), _definitions({a.name: a.type for a in given})
        )
    singular, stripped = shape.singular, shape.stripped
    if function.returns_rows:
        source = sql.SQL("select pgrst_call.* from {}, lateral {} as pgrst_call").format(
            origin, invocation
        )
        body = body_of(Shape(singular or not function.returns_set, stripped))
    else:
        source = sql.SQL("select {} as pgrst_scalar from {}").format(invocation, origin)
        if function.returns_void:
            body = NO_BODY
        else:
            body = SCALARS_BODY if function.returns_set and not singular else SCALAR_BODY
    result = sql.SQL("select {} from pgrst_source{}{}").format(
        query.projection() if function.returns_rows else sql.SQL("*"),
        query.where(),
        query.tail(max_rows) if function.returns_set else sql.SQL(""),
    )
    total = sql.SQL("(select count(*) from pgrst_source{})").format(query.where())
    return Statement(_wrapped(source, body, total if counted else NO_COUNT, result=result), values)


def _wrapped(
    source: sql.Composable,
    body: sql.Composable,
    total: sql.Composable,
    result: sql.Composable | None = None,
    location: sql.Composable = NO_LOCATION,
) -> sql.Composable:
    return sql.SQL(
        "with pgrst_source as ({}) select {} as total, count(*) as rows, {} as body,"
        " {} as location from ({}) as _row"
    ).format(source, total, body, location, result or sql.SQL("select * from pgrst_source"))


def _arguments(given: Sequence[Argument]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("variadic {} := {}" if argument.is_variadic else "{} := {}").format(
            quoted(argument.name), quoted("pgrst_args", argument.name)
        )
        for argument in given
    )


def _returning(query: Query, body: sql.Composable) -> sql.Composable:
    # Without a column in it, RETURNING needs no right to read the row.
    if body is NO_BODY:
        return sql.SQL(" returning 1")
    return sql.SQL(" returning {}").format(query.projection())


def _on_conflict(
    relation: Relation, query: Query, names: Sequence[str], resolution: str | None
) -> sql.Composable:
    target = query.on_conflict or relation.primary_key
    if resolution not in ("merge-duplicates", "ignore-duplicates") or not target:
        return sql.SQL("")
    for name in target:
        relation.column(name)
    if resolution == "ignore-duplicates" or not names:
        return sql.SQL(" on conflict ({}) do nothing").format(_names(target))
    assignments = (
        sql.SQL("{} = {}").format(quoted(name), quoted("excluded", name)) for name in names
    )
    return sql.SQL(" on conflict ({}) do update set {}").format(
        _names(target), sql.SQL(", ").join(assignments)
    )


def _payload(placeholder: sql.Placeholder, defaults: Sequence[Column]) -> sql.Composable:
    """Return the rows as JSON, with the defaults of columns put under each if asked."""
    with_default = [column for column in defaults if column.default is not None]
    if not with_default:
        return sql.SQL("{}::json").format(placeholder)
    pairs = sql.SQL(", ").join(
        sql.SQL("{}, {}").format(
            sql.Literal(_doubled(column.name)), sql.SQL(_doubled(column.default or "null"))
        )
        for column in with_default
    )
    return sql.SQL(
        "(select json_agg(jsonb_build_object({}) || e.value)"
        " from jsonb_array_elements({}::jsonb) as e (value))"
    ).format(pairs, placeholder)


def _doubled(text: str) -> str:
    return text.replace("%", "%%")


def _names(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(quoted(name) for name in names)


def _definitions(types: Mapping[str, str]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(quoted(name), sql.SQL(type_name))
        for name, type_name in types.items()
    )
