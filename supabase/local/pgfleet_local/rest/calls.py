"""Plan the call of a function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from pgfleet_local.rest import statements
from pgfleet_local.rest.bodies import (
    FORM_TYPE,
    JSON_TYPE,
    WHOLE_BODIES,
    media_type,
    parse,
    read_json,
    read_text,
)
from pgfleet_local.rest.catalogue import Catalogue, Function
from pgfleet_local.rest.errors import RestError, bad_body, plain
from pgfleet_local.rest.media import Shape, read_shape
from pgfleet_local.rest.plans import Plan
from pgfleet_local.rest.preferences import Preferences
from pgfleet_local.rest.query import RESERVED, Values, is_condition, quoted, read
from pgfleet_local.rest.ranges import within_range

NO_SET = "Function must return SETOF or TABLE when max-affected preference is used with"


def plan_call(
    request: Request,
    prefer: Preferences,
    catalogue: Catalogue,
    schema: str,
    body: bytes,
    max_rows: int,
) -> Plan:
    """Plan the call of a function."""
    items = request.query_params.multi_items()
    name = request.path_params["function"]
    reading = request.method in ("GET", "HEAD")
    payload: str | bytes
    whole = False
    if reading:
        arguments = {k: v for k, v in items if k not in RESERVED and not is_condition(v)}
        items = [(k, v) for k, v in items if k not in arguments]
        names = frozenset(arguments)
        function = catalogue.function(schema, name, names)
        payload = _written(function, arguments)
    elif request.method == "POST":
        payload, posted = _posted(request, body)
        whole_types = WHOLE_BODIES.get(media_type(request), ())
        if posted is None and not catalogue.takes_whole(schema, name, whole_types):
            raise bad_body()
        names = posted or frozenset()
        function = catalogue.function(schema, name, names, whole_types)
        whole = function.takes_whole(whole_types) and not function.takes(names)
        if not whole and media_type(request) not in (JSON_TYPE, FORM_TYPE) and body:
            raise bad_body(f"Content-Type not acceptable: {media_type(request)}")
    else:
        message = f"Cannot use the {request.method} method on RPC"
        raise RestError(405, "PGRST101", message)
    if prefer.most_rows is not None and not function.returns_set:
        raise RestError(400, "PGRST128", f"{NO_SET} handling=strict")
    shape = read_shape(request)
    if function.returns_void:
        shape = Shape()
    values = Values()
    query = within_range(request, read(items, quoted("pgrst_source"), values))
    counted = prefer.count in ("exact", "estimated") and function.returns_set
    statement = statements.call(
        function,
        query,
        values,
        names=sorted(names),
        payload=payload,
        whole=whole,
        max_rows=max_rows,
        counted=counted,
        shape=shape,
    )
    return Plan(
        statement,
        read_only=reading or not function.is_volatile,
        status=204 if function.returns_void else 200,
        media_type=None if function.returns_void else shape.media_type,
        singular=shape.singular,
        counted=counted,
        span=None if function.returns_void else "read",
        offset=query.offset,
        most_rows=prefer.most_rows,
        applied=prefer.applied(("count", "max-affected")),
        settings=function.settings,
    )


def _posted(request: Request, body: bytes) -> tuple[str | bytes, frozenset[str] | None]:
    """Return what was sent and the names in it, which JSON that is no object has not."""
    media = media_type(request)
    if not body or media in (JSON_TYPE, FORM_TYPE):
        text = read_json(request, body) or "{}"
        parsed = parse(text)
        return text, frozenset(parsed) if isinstance(parsed, dict) else None
    if media == "application/octet-stream":
        return body, frozenset()
    return read_text(body), frozenset()


def _written(function: Function, given: Mapping[str, str]) -> str:
    """Write the arguments of a GET as one object; Postgres reads the strings as each type."""
    types = {argument.name: argument.type for argument in function.arguments}
    values: dict[str, Any] = {}
    for name, value in given.items():
        values[name] = parse(value) if types[name] in ("json", "jsonb") else value
    return plain(values)
