"""Queries of the stream: fields and aliases, filters, aggregates by buckets of time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from pgfleet_local.sandboxes.golioth.project import Point, stream_stamp

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "avg": lambda found: sum(found) / len(found),
    "count": lambda found: len(found),
    "max": max,
    "min": min,
    "sum": sum,
}


def seconds_of(duration: str) -> float:
    """Read a duration as Go writes it: 90m, 1h30m."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"time: invalid duration {duration!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def answer(points: Iterable[Point], query: dict[str, Any]) -> list[dict[str, Any]]:
    """Give what a query selects of points."""
    fields = query.get("fields") or [{"path": "time"}, {"path": "*"}]
    filters = query.get("filters") or []
    bucket = seconds_of(query["timeBucket"]) if query.get("timeBucket") else 0.0
    found = [one for one in points if all(_passes(one, test) for test in filters)]
    if not any(one.get("agg") for one in fields):
        return [
            {_key(one): _value(point, one["path"], bucket) for one in fields} for point in found
        ]
    groups: dict[tuple[Any, ...], list[Point]] = {}
    keys = [one for one in fields if not one.get("agg")]
    for point in found:
        group = tuple(str(_value(point, one["path"], bucket)) for one in keys)
        groups.setdefault(group, []).append(point)
    return [_aggregated(members, fields, bucket) for members in groups.values()]


def _aggregated(
    members: list[Point], fields: list[dict[str, Any]], bucket: float
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for one in fields:
        if not one.get("agg"):
            row[_key(one)] = _value(members[0], one["path"], bucket)
            continue
        values = [_value(point, one["path"], bucket) for point in members]
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        row[_key(one)] = _AGGREGATES[one["agg"]](numbers) if numbers else None
    return row


def _key(field: dict[str, Any]) -> str:
    # The path itself, dots and all, is the key; only the whole payload has a name of its own.
    return str(field.get("alias") or ("data" if field["path"] == "*" else field["path"]))


def _value(point: Point, path: str, bucket: float = 0.0) -> Any:
    if path == "time":
        size = int(bucket * 1e6)
        return stream_stamp(point.micros // size * size if size else point.micros)
    if path in ("deviceId", "device_id"):
        return point.device_id
    if path == "*":
        return point.data
    found = point.data
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _passes(point: Point, test: dict[str, Any]) -> bool:
    if "filters" in test:
        wanted = [_passes(point, one) for one in test["filters"]]
        return any(wanted) if test.get("op") == "or" else all(wanted)
    value, against = _value(point, test["path"]), test.get("value")
    among = against if isinstance(against, list) else [against]
    match test["op"]:
        case "=":
            return value in among
        case "<>":
            return value not in among
    if not isinstance(value, int | float) or not isinstance(against, int | float):
        return False
    return {
        "<": value < against,
        "<=": value <= against,
        ">": value > against,
        ">=": value >= against,
    }[test["op"]]
