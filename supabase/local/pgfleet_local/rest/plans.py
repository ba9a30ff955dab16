"""What is to be done for a request, and the answer to what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlencode

from starlette.responses import Response

from pgfleet_local.rest.errors import RestError
from pgfleet_local.rest.statements import Statement

# Where the range of an answer begins: nowhere, at the first changed row, or at the offset.
Span = Literal["none", "changed", "read"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the statement returned, and what it set for the answer."""

    total: int | None
    rows: int
    body: str
    headers: dict[str, str]
    status: int | None
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement, how its transaction is opened, and how its outcome is answered.

    `location` names the relation whose new row the answer leads to.
    """

    statement: Statement | None
    read_only: bool
    status: int
    media_type: str | None
    singular: bool = False
    counted: bool = False
    span: Span | None = "none"
    offset: int = 0
    most_rows: int | None = None
    location: str | None = None
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
        if self.most_rows is not None and outcome.rows > self.most_rows:
            raise RestError(
                400,
                "PGRST124",
                "Query result exceeds max-affected preference constraint",
                f"The query affects {outcome.rows} rows",
            )
        headers = {}
        status = self.status
        if self.span is not None:
            headers["Content-Range"] = self._range(outcome)
            if self.span == "read":
                status = self._ranged_status(outcome)
        if self.applied:
            headers["Preference-Applied"] = self.applied
        if self.location is not None and outcome.location is not None:
            headers["Location"] = _location(self.location, outcome.location)
        media_type = f"{self.media_type}; charset=utf-8" if self.media_type else None
        return Response(
            outcome.body if self.media_type else b"",
            status_code=outcome.status or status,
            media_type=media_type,
            headers={**headers, **outcome.headers},
        )

    def _range(self, outcome: Outcome) -> str:
        total = outcome.total
        if self.span != "read":
            total = outcome.rows if self.counted else None
        span = "*"
        if self.span != "none" and outcome.rows:
            span = f"{self.offset}-{self.offset + outcome.rows - 1}"
        return f"{span}/{'*' if total is None else total}"

    def _ranged_status(self, outcome: Outcome) -> int:
        offset, total = self.offset, outcome.total
        if total is None:
            return self.status
        if offset > total:
            raise RestError(
                416,
                "PGRST103",
                "Requested range not satisfiable",
                f"An offset of {offset} was requested, but there are only {total} rows.",
                headers={"Content-Range": f"*/{total}"},
            )
        return 206 if outcome.rows < total else self.status


def _location(relation: str, key: str) -> str:
    """Write the address of one row from its primary key, a JSON object of texts."""
    conditions = {
        name: "is.null" if value is None else f"eq.{value}"
        for name, value in json.loads(key).items()
    }
    return f"/{quote(relation)}?{urlencode(conditions, quote_via=quote)}"
