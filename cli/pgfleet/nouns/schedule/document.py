"""Documents of schedules as files: YAML 1.2 or JSON, in an order that people read.

Values are those of JSON, to the last digit: what is a number, true or null there is one here,
and everything else is text (06:30, 2026-12-25, `no`, `0x1F`). What other readers of YAML might
take for something else is written in quotes.
"""

from __future__ import annotations

import io
import json
import re
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver

from pgfleet.errors import InvalidInput
from pgfleet.inputs import decimal, integer, number_text, read_json, to_json

_ORDER = (
    *("version", "groups", "blackout_calendars", "templates", "schedules"),
    *("name", "description", "status", "action_type", "payload"),
    *("recurrence_type", "recurrence_config", "start_time", "end_time", "timezone"),
    *("starts_on", "ends_on", "starts_at", "ends_at", "summary"),
    *("devices", "groups", "selector", "after", "schedule", "on", "policies", "priority"),
    *("parameters", "spec", "periods", "type", "default", "required", "choices"),
)
_RANK = {name: place for place, name in enumerate(dict.fromkeys(_ORDER))}
_HINT = "Start from: pgfleet schedule export -o schedules.yaml"

_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?"
# Text that is text for every reader: a word, or several, that no YAML has ever had a meaning for.
_PLAIN = re.compile(r"[^\W\d_](?:[\w./+@-]| (?=[\w.(/+@-]))*")
_MEANT = frozenset("null true false yes no on off y n nan inf infinity".split())


_RULES = (
    ("null", r"(null|~|)", ["n", "~", ""]),
    ("bool", r"(true|false)", ["t", "f"]),
    ("int", r"-?(0|[1-9][0-9]*)", list("-0123456789")),
    ("float", _NUMBER, list("-0123456789")),
)


_BY_SIGN = {
    sign: [
        (f"tag:yaml.org,2002:{name}", re.compile(rf"{pattern}\Z"))
        for name, pattern, signs in _RULES
        if sign in signs
    ]
    for sign in ("", *"ntf~-0123456789")
}


class _Resolver(VersionedResolver):
    """Tells numbers, truths and null from text as JSON does, whatever version a file names."""

    @property
    def versioned_resolver(self) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
        """Give the rules by the first sign of a text."""
        return _BY_SIGN


class _Constructor(SafeConstructor):
    """Keeps every digit of a number."""

    def exact(self, node: ScalarNode) -> Decimal:
        """Read a number with a point or an exponent."""
        return decimal(self.construct_scalar(node))

    def whole(self, node: ScalarNode) -> int | Decimal:
        """Read a number without."""
        return integer(self.construct_scalar(node))


_Constructor.add_constructor("tag:yaml.org,2002:float", _Constructor.exact)
_Constructor.add_constructor("tag:yaml.org,2002:int", _Constructor.whole)


class _Representer(SafeRepresenter):
    """Writes text so that it stays text, and numbers with every digit."""

    def text(self, value: str) -> ScalarNode:
        """Write text: as it is, as a block of lines, or in quotes."""
        if _PLAIN.fullmatch(value) and value.lower() not in _MEANT:
            style = None
        else:
            style = "|" if _is_block(value) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def exact(self, value: Decimal) -> ScalarNode:
        """Write a number."""
        return self.represent_scalar("tag:yaml.org,2002:float", number_text(value))

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out where it stands."""
        return True


_Representer.add_representer(str, _Representer.text)
_Representer.add_representer(Decimal, _Representer.exact)


def read_document(text: str, name: str) -> dict[str, Any]:
    """Read a document, YAML or JSON; a key that stands twice in one object is refused."""
    try:
        found = _read(text.removeprefix("\ufeff"))
    except (YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{name}: is neither YAML nor JSON: {' '.join(str(error).split())}",
            reason="document_invalid",
            hint=_HINT,
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput(
            f"{name}: must hold one object with version and schedules",
            reason="document_invalid",
            hint=_HINT,
        )
    _check(found, name, "")
    return found


def write_document(document: dict[str, Any], *, as_json: bool) -> str:
    """Write a document, names first."""
    ordered = _ordered(document)
    if as_json:
        return to_json(ordered, indent=2) + "\n"
    text = io.StringIO()
    _yaml().dump(ordered, text)
    return text.getvalue()


def _read(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return read_json(text)
        except json.JSONDecodeError:
            # Braces are YAML, too.
            return _yaml().load(text)
    return _yaml().load(text)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.Constructor = _Constructor
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 1 << 20
    return yaml


def _check(value: Any, name: str, place: str) -> None:
    """Refuse what YAML can say and JSON cannot."""
    problem = None
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                problem = f"the key {key!r} must be text: put it in quotes"
                break
            _check(item, name, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, name, f"{place}[{number}]")
    elif not isinstance(value, str | bool | int | Decimal | None):
        problem = f"a {type(value).__name__} is no value of JSON"
    if problem is not None:
        raise InvalidInput(
            f"{name}: {place or 'document'}: {problem}", reason="document_invalid", hint=_HINT
        )


def _is_block(value: str) -> bool:
    """Say whether text is best read as lines, and comes back from them as it was."""
    lines = value.split("\n")
    return (
        1 < len(lines)
        and lines[-1] != ""
        and not value[0].isspace()
        and all(line == line.rstrip() and (line == "" or line.isprintable()) for line in lines)
        and "\ufeff" not in value
    )


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (_RANK.get(key, len(_RANK)), key))
        return {key: _ordered(value[key]) for key in keys}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value
