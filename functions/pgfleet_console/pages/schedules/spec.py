"""Between a schedule and the fields of a form: what is there, what was meant, what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pgfleet.errors import FleetError, InvalidInput
from pgfleet.statements import Row

KINDS = ("once", "interval", "daily", "weekly", "monthly", "cron")
# The field of the form for a key of the configuration, and the kinds that have it.
WHEN = {
    "every": ("every", ("interval",)),
    "time": ("time", ("daily", "weekly", "monthly")),
    "days_of_week": ("days", ("weekly",)),
    "day_of_month": ("day", ("monthly",)),
    "cron_expression": ("cron", ("cron",)),
}
TEXTS = ("name", "description", "action_type", "start_time", "end_time", "timezone")
OBJECTS = ("payload", "selector", "policies")
CLEARABLE = ("end_time", "selector")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PROBLEM = re.compile(r"(?:^|; )([a-z_]+(?:[.\[][\w.\[\]]*)?): ")

Fields = dict[str, str]


def fields_of(row: Row, devices: Sequence[str], groups: Sequence[str]) -> Fields:
    """Give a schedule as the fields of its form."""
    config = dict(row["recurrence_config"] or {})
    fields = {
        "name": row["name"],
        "description": row["description"] or "",
        "action_type": row["action_type"],
        "recurrence_type": row["recurrence_type"],
        "timezone": row["timezone"],
        "priority": str(row["priority"]),
        "start_time": _moment(row["start_time"], row["start_is_local"]),
        "end_time": _moment(row["end_time"], row["end_is_local"]),
        "devices": "\n".join(devices),
        "groups": "\n".join(groups),
    }
    for key, (field, kinds) in WHEN.items():
        value = config.pop(key, "") if row["recurrence_type"] in kinds else ""
        fields[field] = _listed(value, key)
    fields["more"] = _text(config)
    for name in OBJECTS:
        fields[name] = _text(row[name])
    return fields


def spec_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """Give what a form says, in the keys of create_schedule; what is no JSON is refused at once."""
    kind = fields.get("recurrence_type", "once")
    problems: list[str] = []

    def parsed(name: str) -> Any:
        text = fields.get(name, "").strip()
        if not text:
            return {} if name != "selector" else None
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            problems.append(f"{name}: is no JSON object")
        return value

    config = parsed("more")
    for key, (field, kinds) in WHEN.items():
        text = fields.get(field, "").strip()
        if kind in kinds and text:
            config = {**(config or {}), key: _meant(key, text)}
    spec: dict[str, Any] = {name: fields.get(name, "").strip() for name in TEXTS}
    spec |= {name: parsed(name) for name in OBJECTS}
    spec |= {"recurrence_type": kind, "recurrence_config": config}
    for name in ("devices", "groups"):
        if name in fields:
            spec[name] = [one.strip() for one in re.split(r"[\n,]", fields[name]) if one.strip()]
    spec["priority"] = _number(fields.get("priority", "0"), problems)
    if problems:
        raise InvalidInput(
            f"the schedule is not valid: {'; '.join(problems)}",
            reason="schedule_invalid",
            hint='An object looks like {"key": "value"}.',
        )
    return spec


def made(fields: Mapping[str, str]) -> dict[str, Any]:
    """Give what is sent to make a schedule: what was left empty is left to its default."""
    return {key: value for key, value in spec_of(fields).items() if value not in ("", None)}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    """Give what is sent to change a schedule: only what differs."""
    old, new = spec_of(before), spec_of(after)
    found = {key: value for key, value in new.items() if value != old.get(key)}
    for key in CLEARABLE:
        if found.get(key) == "":
            found[key] = None
    return {key: value for key, value in found.items() if value != ""}


def problems_of(error: FleetError) -> dict[str, str]:
    """Give what is wrong by field of the form, from the one message that names all."""
    _, _, text = error.message.partition(" is not valid: ")
    parts = _PROBLEM.split(text)[1:]
    found: dict[str, str] = {}
    for path, problem in zip(parts[::2], parts[1::2], strict=True):
        field = _field_of(path)
        found[field] = f"{found[field]}; {problem}" if field in found else problem
    return found


def _field_of(path: str) -> str:
    root, _, rest = path.partition(".")
    root = root.partition("[")[0]
    if root == "recurrence_config":
        key = re.split(r"[.\[]", rest)[0]
        return WHEN[key][0] if key in WHEN else "more"
    return {"device_ids": "devices", "group_ids": "groups"}.get(root, root)


def _moment(at: Any, is_local: bool) -> str:
    if at is None:
        return ""
    if is_local:
        return f"{at:%Y-%m-%dT%H:%M:%S}"
    return str(at.isoformat()).replace("+00:00", "Z")


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) if value else ""


def _listed(value: Any, key: str) -> str:
    items = value if isinstance(value, list) else [value]
    if key == "days_of_week":
        items = [
            _DAYS[item] if isinstance(item, int) and item in range(7) else item for item in items
        ]
    return ", ".join(str(item) for item in items)


def _meant(key: str, text: str) -> Any:
    """Read what was typed: lists where the key may have several, numbers where it is one."""
    if key in ("days_of_week", "day_of_month"):
        items = [part.strip() for part in text.split(",") if part.strip()]
        read: list[Any] = [int(one) if re.fullmatch(r"-?\d{1,4}", one) else one for one in items]
        return read if len(read) > 1 or key == "days_of_week" else read[0]
    return int(text) if key == "every" and text.isdecimal() else text


def _number(text: str, problems: list[str]) -> int:
    if re.fullmatch(r"-?\d{1,6}", text.strip() or "0"):
        return int(text.strip() or 0)
    problems.append("priority: is no whole number")
    return 0
