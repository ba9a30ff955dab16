"""Plan what is asked of a table or view."""

from __future__ import annotations

from psycopg import sql
from starlette.requests import Request

from pgfleet_local.rest import statements
from pgfleet_local.rest.bodies import columns_of, parse, parse_object, read_json
from pgfleet_local.rest.catalogue import Catalogue, Relation
from pgfleet_local.rest.errors import RestError, bad_query, not_served
from pgfleet_local.rest.media import Shape, read_shape
from pgfleet_local.rest.plans import Plan, Span
from pgfleet_local.rest.preferences import Preferences
from pgfleet_local.rest.query import Query, Values, read
from pgfleet_local.rest.ranges import within_range
from pgfleet_local.rest.statements import NO_BODY, Statement, body_of, name_of


def plan_table(
    request: Request,
    prefer: Preferences,
    catalogue: Catalogue,
    schema: str,
    body: bytes,
    max_rows: int,
) -> Plan:
    """Plan what is asked of a table or view."""
    relation = catalogue.relation(schema, request.path_params["relation"])
    values = Values()
    types = {column.name: column.type for column in relation.columns.values()}
    query = read(request.query_params.multi_items(), name_of(relation), values, types)
    shape = read_shape(request)
    if request.method not in ("GET", "HEAD"):
        return _plan_change(request, prefer, relation, query, values, shape, body)
    query = within_range(request, query)
    return Plan(
        statements.read_rows(
            relation, query, values, max_rows=max_rows, count=prefer.count, body=body_of(shape)
        ),
        read_only=True,
        status=200,
        media_type=shape.media_type,
        singular=shape.singular,
        span="read",
        offset=query.offset,
        applied=prefer.applied(("count",)),
    )


def _plan_change(
    request: Request,
    prefer: Preferences,
    relation: Relation,
    query: Query,
    values: Values,
    shape: Shape,
    body: bytes,
) -> Plan:
    wants_rows = prefer.wants_rows
    made = body_of(shape) if wants_rows else NO_BODY
    status = 200 if wants_rows else 204
    statement: Statement | None
    span: Span = "none"
    heeded = ["return", "count"]
    located = False
    if request.method == "POST":
        status = 201
        located = prefer.representation == "headers-only"
        heeded += ["resolution", "missing"]
        text = read_json(request, body)
        statement = _insertion(relation, query, values, text, prefer, made, located)
    elif request.method == "PATCH":
        _check_narrowed(query, "UPDATE")
        heeded += ["missing", "max-affected"]
        span = "changed"
        statement = _update(relation, query, values, read_json(request, body), made)
    elif request.method == "DELETE":
        _check_narrowed(query, "DELETE")
        heeded += ["max-affected"]
        statement = statements.delete_rows(relation, query, values, body=made)
    elif request.method == "PUT":
        raise not_served("PUT, which inserts or replaces one row")
    else:
        raise RestError(405, "PGRST117", f"Unsupported HTTP method: {request.method}")
    return Plan(
        statement,
        read_only=False,
        status=status,
        media_type=shape.media_type if wants_rows else None,
        singular=shape.singular and wants_rows,
        counted=prefer.count in ("exact", "estimated"),
        span=span,
        most_rows=prefer.most_rows if "max-affected" in heeded else None,
        location=relation.name if located else None,
        applied=prefer.applied(heeded),
    )


def _insertion(
    relation: Relation,
    query: Query,
    values: Values,
    text: str,
    prefer: Preferences,
    made: sql.Composable,
    located: bool,
) -> Statement | None:
    """Return the statement that inserts the payload, none for an empty list."""
    parsed = parse(text)
    if parsed == []:
        return None
    return statements.insert_rows(
        relation,
        query,
        values,
        names=query.columns if query.columns is not None else columns_of(parsed),
        payload=text if isinstance(parsed, list) else f"[{text}]",
        missing_default=prefer.missing == "default",
        resolution=prefer.resolution,
        body=made,
        located=located,
    )


def _update(
    relation: Relation, query: Query, values: Values, text: str, made: sql.Composable
) -> Statement | None:
    """Return the statement that updates from one object, none for an empty one."""
    names = sorted(parse_object(text))
    if not names:
        return None
    return statements.update_rows(relation, query, values, names=names, payload=text, body=made)


def _check_narrowed(query: Query, verb: str) -> None:
    if query.limit is not None or query.order or query.offset:
        raise bad_query(f"limit, offset and order cannot be used with {verb}")
    if not query.conditions:
        raise RestError(400, "21000", f"{verb} requires a WHERE clause")
