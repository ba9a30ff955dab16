"""Read what a request prefers (RFC 7240), and tell which of it was heeded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from pgfleet_local.rest.errors import RestError

CHOICES = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("representation", "minimal", "headers-only"),
    "count": ("exact", "planned", "estimated"),
    "handling": ("strict", "lenient"),
}
# Known, and never heeded: transactions are committed.
WITHOUT_EFFECT = ("tx=commit", "tx=rollback")


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences of a request; the first of several for one thing counts."""

    resolution: str | None = None
    missing: str | None = None
    representation: str | None = None
    count: str | None = None
    handling: str | None = None
    timezone: str | None = None
    max_affected: int | None = None

    @property
    def is_strict(self) -> bool:
        """Tell whether preferences are demands."""
        return self.handling == "strict"

    @property
    def wants_rows(self) -> bool:
        """Tell whether changed rows are to be returned."""
        return self.representation == "representation"

    @property
    def most_rows(self) -> int | None:
        """The number of rows that a change may affect, which only a strict request limits."""
        return self.max_affected if self.is_strict else None

    def applied(self, names: Iterable[str]) -> str:
        """Write the preferences of these names that the request has, for `Preference-Applied`."""
        given: dict[str, Any] = {
            "resolution": self.resolution,
            "missing": self.missing,
            "return": self.representation,
            "count": self.count,
            "handling": self.handling,
            "timezone": self.timezone,
            "max-affected": self.most_rows,
        }
        heeded = {*names, "handling", "timezone"}
        return ", ".join(
            f"{name}={value}"
            for name, value in given.items()
            if value is not None and name in heeded
        )


def read_preferences(request: Request, time_zones: frozenset[str]) -> Preferences:
    """Read the `Prefer` headers; a strict request with one that is unknown gets PGRST122."""
    items = [
        item.strip()
        for header in request.headers.getlist("prefer")
        for item in header.split(",")
        if item.strip()
    ]
    first: dict[str, str] = {}
    unknown = []
    for item in items:
        name, _, value = item.partition("=")
        value = value.strip('"')
        if name in CHOICES and value in CHOICES[name]:
            first.setdefault(name, value)
        elif name == "max-affected":
            if value.isdecimal() and len(value) < 19:
                first.setdefault(name, value)
        elif name == "timezone" and value in time_zones:
            first.setdefault(name, value)
        elif item not in WITHOUT_EFFECT:
            unknown.append(item)
    if unknown and first.get("handling") == "strict":
        raise RestError(
            400,
            "PGRST122",
            "Invalid preferences given with handling=strict",
            f"Invalid preferences: {', '.join(unknown)}",
        )
    most = first.get("max-affected")
    return Preferences(
        resolution=first.get("resolution"),
        missing=first.get("missing"),
        representation=first.get("return"),
        count=first.get("count"),
        handling=first.get("handling"),
        timezone=first.get("timezone"),
        max_affected=None if most is None else int(most),
    )
