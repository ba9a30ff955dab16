"""Read a request: who sends it, what it prefers, and the statement that answers it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from starlette.requests import Request
from starlette.responses import Response

from pgfleet_local.rest import statements
from pgfleet_local.rest.catalogue import Catalogue, Function, Relation
from pgfleet_local.rest.errors import RestError, bad_body, bad_query, from_token, plain
from pgfleet_local.rest.query import RESERVED, Query, Values, is_condition, quoted, read
from pgfleet_local.rest.statements import LIST_BODY, NO_BODY, OBJECT_BODY, Statement, name_of
from pgfleet_local.tokens import TokenError, TokenVerifier

JSON_TYPE = "application/json"
OBJECT_TYPE = "application/vnd.pgrst.object+json"
KEY_ROLES = ("anon", "service_role")
PREFERENCES = ("return", "count", "resolution", "missing", "handling")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the request."""

    role: str
    claims: dict[str, Any]

    @property
    def is_anonymous(self) -> bool:
        """Tell whether nobody is signed in."""
        return self.role == "anon"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the statement returned, and what it set for the answer."""

    total: int | None
    rows: int
    body: str
    headers: dict[str, str]
    status: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement, how its transaction is opened, and how its outcome is answered."""

    statement: Statement | None
    read_only: bool
    status: int
    media_type: str | None = JSON_TYPE
    singular: bool = False
    counted: bool = False
    ranged: bool = True
    offset: int | None = None
    applied: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def respond(self, outcome: Outcome) -> Response:
        """Return the answer; raised errors roll the transaction back."""
        if self.singular and outcome.rows != 1:
            raise RestError(
                406,
                "PGRST116",
                "Cannot coerce the result to a single JSON object",
                f"The result contains {outcome.rows} rows",
            )
        headers = {}
        status = self.status
        if self.ranged:
            headers["Content-Range"] = self._range(outcome)
            if self.offset is not None:
                status = self._ranged_status(outcome)
        if self.applied:
            headers["Preference-Applied"] = self.applied
        media_type = f"{self.media_type}; charset=utf-8" if self.media_type else None
        return Response(
            outcome.body if self.media_type else b"",
            status_code=outcome.status or status,
            media_type=media_type,
            headers={**headers, **outcome.headers},
        )

    def _range(self, outcome: Outcome) -> str:
        total = outcome.total
        if self.offset is None:
            total = outcome.rows if self.counted else None
        span = "*"
        if self.offset is not None and outcome.rows:
            span = f"{self.offset}-{self.offset + outcome.rows - 1}"
        return f"{span}/{'*' if total is None else total}"

    def _ranged_status(self, outcome: Outcome) -> int:
        offset, total = self.offset or 0, outcome.total
        if total is None:
            return self.status
        if offset and offset >= total:
            raise RestError(
                416,
                "PGRST103",
                "Requested range not satisfiable",
                f"An offset of {offset} was requested, but there are only {total} rows.",
                headers={"Content-Range": f"*/{total}"},
            )
        return 206 if outcome.rows < total else self.status


def authenticate(request: Request, verifier: TokenVerifier) -> Caller:
    """Check the project key, then the token; the key alone makes nobody but anon."""
    key = request.headers.get("apikey") or request.query_params.get("apikey")
    if not key:
        raise RestError(
            401,
            "PGRST302",
            "No API key found in request",
            hint="Send the anon key of the project in the header apikey.",
        )
    try:
        if verifier.verify(key)["role"] not in KEY_ROLES:
            raise TokenError("claims", "not a project key")
    except TokenError as error:
        hint = "Double check your `anon` or `service_role` API key."
        raise RestError(401, "PGRST301", "Invalid API key", error.message, hint) from error
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Caller("anon", {"role": "anon"})
    try:
        claims = verifier.verify(token.strip())
    except TokenError as error:
        raise from_token(error) from error
    return Caller(claims["role"], claims)


def plan_call(
    request: Request, catalogue: Catalogue, schema: str, body: bytes, max_rows: int
) -> Plan:
    """Plan the call of a function."""
    items = request.query_params.multi_items()
    name = request.path_params["function"]
    reading = request.method in ("GET", "HEAD")
    if reading:
        arguments = {k: v for k, v in items if k not in RESERVED and not is_condition(v)}
        items = [(k, v) for k, v in items if k not in arguments]
        names = frozenset(arguments)
    elif request.method == "POST":
        text = _text(request, body) or "{}"
        names = frozenset(_object(text))
    else:
        raise _unsupported(request, "Cannot use the {} method on RPC")
    function = catalogue.function(schema, name, names)
    if reading:
        text = _arguments(function, arguments)
    prefer, singular = _preferences(request), _is_singular(request)
    singular = singular and not function.returns_void
    values = Values()
    query = read(items, quoted("pgrst_source"), values)
    counted = prefer.get("count") == "exact" and function.returns_set
    statement = statements.call(
        function,
        query,
        values,
        names=sorted(names),
        payload=text,
        max_rows=max_rows,
        counted=counted,
        singular=singular,
    )
    return Plan(
        statement,
        read_only=reading or not function.is_volatile,
        status=204 if function.returns_void else 200,
        media_type=None if function.returns_void else _media_type(singular),
        singular=singular,
        counted=counted,
        offset=query.offset,
        ranged=not function.returns_void,
        applied=_applied(prefer, ("count",)),
        settings=function.settings,
    )


def plan_table(
    request: Request, catalogue: Catalogue, schema: str, body: bytes, max_rows: int
) -> Plan:
    """Plan what is asked of a table or view."""
    relation = catalogue.relation(schema, request.path_params["relation"])
    values = Values()
    query = read(request.query_params.multi_items(), name_of(relation), values)
    if request.method not in ("GET", "HEAD"):
        return _plan_change(request, relation, query, values, body)
    prefer, singular = _preferences(request), _is_singular(request)
    counted = prefer.get("count") == "exact"
    shape = OBJECT_BODY if singular else LIST_BODY
    return Plan(
        statements.read_rows(
            relation, query, values, max_rows=max_rows, counted=counted, body=shape
        ),
        read_only=True,
        status=200,
        media_type=_media_type(singular),
        singular=singular,
        counted=counted,
        offset=query.offset,
        applied=_applied(prefer, ("count",)),
    )


def _plan_change(
    request: Request, relation: Relation, query: Query, values: Values, body: bytes
) -> Plan:
    prefer, singular = _preferences(request), _is_singular(request)
    wants_rows = prefer.get("return") == "representation"
    shape = NO_BODY if not wants_rows else OBJECT_BODY if singular else LIST_BODY
    status = 200 if wants_rows else 204
    statement: Statement | None
    if request.method == "POST":
        status = 201
        statement = _insertion(relation, query, values, _text(request, body), prefer, shape)
    elif request.method == "PATCH":
        _check_narrowed(query, "UPDATE")
        text = _text(request, body)
        names = sorted(_object(text))
        statement = None
        if names:
            statement = statements.update_rows(
                relation, query, values, names=names, payload=text, body=shape
            )
    elif request.method == "DELETE":
        _check_narrowed(query, "DELETE")
        statement = statements.delete_rows(relation, query, values, body=shape)
    else:
        raise _unsupported(request, "Unsupported HTTP method: {}")
    return Plan(
        statement,
        read_only=False,
        status=status,
        media_type=_media_type(singular) if wants_rows else None,
        singular=singular and wants_rows,
        counted=prefer.get("count") == "exact",
        applied=_applied(prefer, ("return", "count", "resolution", "missing")),
    )


def _insertion(
    relation: Relation,
    query: Query,
    values: Values,
    text: str,
    prefer: Mapping[str, str],
    shape: sql.Composable,
) -> Statement | None:
    """Return the statement that inserts the payload, none for an empty list."""
    parsed = _parsed(text)
    if parsed == []:
        return None
    return statements.insert_rows(
        relation,
        query,
        values,
        names=query.columns if query.columns is not None else _columns(parsed),
        payload=text if isinstance(parsed, list) else f"[{text}]",
        missing_default=prefer.get("missing") == "default",
        resolution=prefer.get("resolution"),
        body=shape,
    )


def _check_narrowed(query: Query, verb: str) -> None:
    if query.limit is not None or query.order or query.offset:
        raise bad_query(f"limit, offset and order cannot be used with {verb}")
    if not query.conditions:
        raise RestError(400, "21000", f"{verb} requires a WHERE clause")


def _preferences(request: Request) -> dict[str, str]:
    joined = ",".join(request.headers.getlist("prefer"))
    pairs = (item.strip().partition("=") for item in joined.split(","))
    return {name: value.strip('"') for name, _, value in pairs if name in PREFERENCES}


def _applied(prefer: Mapping[str, str], names: Iterable[str]) -> str:
    return ", ".join(f"{name}={prefer[name]}" for name in names if name in prefer)


def _is_singular(request: Request) -> bool:
    accepted = [item.split(";")[0].strip() for item in request.headers.get("accept", "").split(",")]
    if accepted[0] == OBJECT_TYPE:
        return True
    known = {"", "*/*", "application/*", JSON_TYPE, "application/vnd.pgrst.array+json"}
    if not known.intersection(accepted):
        media = ", ".join(accepted)
        raise RestError(406, "PGRST107", f"None of these media types are available: {media}")
    return False


def _media_type(singular: bool) -> str:
    return OBJECT_TYPE if singular else JSON_TYPE


def _text(request: Request, body: bytes) -> str:
    media = request.headers.get("content-type", JSON_TYPE).split(";")[0].strip()
    if body and media != JSON_TYPE:
        raise bad_body(f"Content-Type not acceptable: {media}")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_body() from error


def _parsed(text: str) -> Any:
    try:
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            # A key becomes a name in SQL, which cannot hold half a character.
            "".join(parsed).encode()
        return parsed
    except (ValueError, RecursionError) as error:
        raise bad_body() from error


def _object(text: str) -> dict[str, Any]:
    parsed = _parsed(text)
    if not isinstance(parsed, dict):
        raise bad_body()
    return parsed


def _columns(parsed: Any) -> Sequence[str]:
    """Return the keys of the payload, which must be the same in all its objects."""
    rows = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(row, dict) for row in rows):
        raise bad_body()
    if any(row.keys() != rows[0].keys() for row in rows):
        raise bad_body("All object keys must match")
    return sorted(rows[0])


def _arguments(function: Function, given: Mapping[str, str]) -> str:
    """Write the arguments of a GET as one object; Postgres reads the strings as each type."""
    types = {argument.name: argument.type for argument in function.arguments}
    values: dict[str, Any] = {}
    for name, value in given.items():
        values[name] = _parsed(value) if types[name] in ("json", "jsonb") else value
    return plain(values)


def _unsupported(request: Request, message: str) -> RestError:
    code = "PGRST101" if "RPC" in message else "PGRST117"
    return RestError(405, code, re.sub(r"\{\}", request.method, message))
