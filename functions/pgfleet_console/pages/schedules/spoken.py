"""A schedule as SQL and as a command line, to be copied."""

from __future__ import annotations

import json
import shlex
from typing import Any

_WHEN = {
    "interval": ("every", "--every"),
    "daily": ("time", "--daily"),
    "weekly": ("days_of_week", "--weekly"),
    "monthly": ("day_of_month", "--monthly"),
    "cron": ("cron_expression", "--cron"),
}
_PLAIN = (
    ("action_type", "--action"),
    ("start_time", "--start"),
    ("end_time", "--end"),
    ("timezone", "--timezone"),
    ("priority", "--priority"),
)
_JSON = (("payload", "--payload"), ("selector", "--selector"), ("policies", "--policies"))


def as_sql(spec: dict[str, Any]) -> str:
    """Write the statement that makes such a schedule."""
    text = json.dumps(_made(spec), indent=2, ensure_ascii=False)
    return f"select create_schedule('{text.replace(chr(39), chr(39) * 2)}');"


def as_cli(spec: dict[str, Any]) -> str:
    """Write the command that makes such a schedule; what has no option comes as a file."""
    options = _options(spec)
    name = shlex.quote(str(spec.get("name", "")))
    if options is None:
        text = json.dumps(_made(spec), ensure_ascii=False)
        return f"pgfleet schedule create {name} --file - <<< {shlex.quote(text)}"
    return " \\\n  ".join((f"pgfleet schedule create {name}", *options))


def _made(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing; a copy of a schedule begins as an active one."""
    empty: tuple[Any, ...] = (None, "", [], {})
    return {
        key: value for key, value in spec.items() if value not in empty and key not in ("status",)
    }


def _options(spec: dict[str, Any]) -> list[str] | None:
    left = _made(spec)
    left.pop("name", None)
    options = []

    def say(option: str, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        options.append(f"{option} {shlex.quote(text)}")

    for key, option in _PLAIN:
        if key in left:
            say(option, left.pop(key))
    for device in left.pop("devices", []):
        say("--device", device)
    for group in left.pop("groups", []):
        say("--group", group)
    for key, option in _JSON:
        if key in left:
            say(option, left.pop(key))
    kind, config = left.pop("recurrence_type", "once"), dict(left.pop("recurrence_config", {}))
    if kind != "once":
        if kind not in _WHEN or _WHEN[kind][0] not in config:
            return None
        key, option = _WHEN[kind]
        value = config.pop(key)
        say(option, ",".join(map(str, value)) if isinstance(value, list) else str(value))
        if "time" in config:
            say("--time", config.pop("time"))
    # What no option says, such as the keys of a rarer recurrence.
    return None if left or config else options
