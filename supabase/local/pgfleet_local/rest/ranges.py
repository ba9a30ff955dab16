"""Find out which part of the rows a request asks for."""

from __future__ import annotations

import re
from dataclasses import replace

from starlette.requests import Request

from pgfleet_local.rest.errors import RestError
from pgfleet_local.rest.query import Query

RANGE = re.compile(r"(\d{1,18})-(\d{0,18})")


def within_range(request: Request, query: Query) -> Query:
    """Narrow limit and offset to the `Range` header, which counts for GET alone; or PGRST103."""
    found = RANGE.fullmatch(request.headers.get("range", ""))
    if request.method != "GET" or found is None or query.limit == 0:
        return query
    first = int(found[1])
    last = int(found[2]) if found[2] else None
    if query.limit is not None:
        end = query.offset + query.limit - 1
        last = end if last is None else min(last, end)
    offset = max(first, query.offset)
    if last is not None and last < offset:
        raise RestError(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            "The lower boundary must be lower than or equal to the upper boundary in the Range"
            " header.",
        )
    return replace(query, offset=offset, limit=None if last is None else last - offset + 1)
