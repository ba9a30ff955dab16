"""Documents of schedules as files: YAML or JSON, in an order that people read."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from pgfleet.errors import InvalidInput

_ORDER = (
    *("version", "groups", "blackout_calendars", "templates", "schedules"),
    *("name", "description", "status", "action_type", "payload"),
    *("recurrence_type", "recurrence_config", "start_time", "end_time", "timezone"),
    *("starts_on", "ends_on", "starts_at", "ends_at", "summary"),
    *("devices", "groups", "selector", "after", "schedule", "on", "policies", "priority"),
    *("parameters", "spec", "periods", "type", "default", "required", "choices"),
)
_RANK = {name: place for place, name in enumerate(dict.fromkeys(_ORDER))}


class _Loader(yaml.SafeLoader):
    """Reads YAML as if it were JSON: 06:30 and 2026-12-25 are text, and so is `on`."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"^(null|~|)$", ["n", "~", ""]),
    ("bool", r"^(true|false)$", ["t", "f"]),
    ("int", r"^-?(0|[1-9][0-9]*)$", list("-0123456789")),
    ("float", r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read_document(text: str, name: str) -> dict[str, Any]:
    """Read a document; JSON is YAML, too."""
    try:
        # The loader is a safe one.
        found = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InvalidInput(
            f"{name}: is neither YAML nor JSON: {' '.join(str(error).split())}",
            reason="document_invalid",
            hint="Start from: pgfleet schedule export -o schedules.yaml",
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput(
            f"{name}: must hold one object with version and schedules",
            reason="document_invalid",
            hint="Start from: pgfleet schedule export -o schedules.yaml",
        )
    return found


def write_document(document: dict[str, Any], *, as_json: bool) -> str:
    """Write a document, names first."""
    ordered = _ordered(document)
    if as_json:
        return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=100)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (_RANK.get(key, len(_RANK)), key))
        return {key: _ordered(value[key]) for key in keys}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value
