"""What Postgres and its driver say of a refusal, in the words of a person.

The text of a database server belongs to its log; whoever typed a wrong word needs that word, and
what to write instead.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class Plain(NamedTuple):
    """A message and the next step."""

    message: str
    hint: str | None = None


# How Postgres calls a type, how people call such a value, and an example of one.
_KINDS = {
    "interval": ("a duration", "Write it like '30 minutes' or '2 hours'"),
    "timestamp": ("a time", "Write it like 2027-01-04T18:30 or 2027-01-04T17:30Z"),
    "date": ("a day", "Write it like 2027-01-04"),
    "time": ("a time of day", "Write it like 18:30"),
    "bigint": ("a whole number", "Write it in digits"),
    "integer": ("a whole number", "Write it in digits"),
    "smallint": ("a whole number", "Write it in digits"),
    "uuid": ("an id", "An id is 8-4-4-4-12 digits and letters a to f"),
    "numeric": ("a number", "Write it in digits"),
    "double": ("a number", "Write it in digits"),
    "json": ("JSON", """Example: '{"key": "value"}'"""),
    "boolean": ("true or false", "Write true or false"),
}
_SMALLER = "Write a smaller one"


def said_plainly(error: Any) -> Plain | None:
    """Say what a driver's error means; None where it is not one that people cause."""
    state = error.sqlstate
    text = error.diag.message_primary or str(error)
    if state is None:
        return _unreachable(str(error))
    if state in _BY_STATE:
        found: Plain | None = _BY_STATE[state](error, text)
        return found
    return None


def _not_of_its_type(_: Any, text: str) -> Plain | None:
    found = re.search(r'for type "?(\w+)[^:]*: "(.*)"', text, re.DOTALL)
    if found is None:
        return Plain("a value is not of the kind that is wanted")
    kind, example = _KINDS.get(found[1], ("what is wanted here", None))
    return Plain(f'"{found[2]}" is not {kind}', example)


def _out_of_range(_: Any, text: str) -> Plain:
    found = re.search(r'"([^"]*)"', text)
    if found is not None and "type" not in text:
        return Plain(f'"{found[1]}" is no date and no time that there is', _KINDS["timestamp"][1])
    return Plain(
        f'"{found[1]}" is too large a number' if found else "a number is too large", _SMALLER
    )


def _taken(error: Any, _: str) -> Plain:
    kind = _one_of(error.diag.table_name)
    found = re.match(r"Key \((.*)\)=\((.*)\) already exists", error.diag.message_detail or "")
    columns = re.sub(r"\blower\((\w+)(::\w+)?\)", r"\1", found[1]).split(", ") if found else []
    values = found[2].split(", ") if found else []
    for column, value in zip(columns, values, strict=False):
        if not column.endswith("_id"):
            named = f'there is {_with_article(kind)} with the {_words(column)} "{value}" already'
            return Plain(named, "Choose another, or change the one that is there")
    return Plain(f"there is such {_with_article(kind)} already", "Change the one that is there")


def _not_kept(error: Any, _: str) -> Plain:
    table, name = error.diag.table_name or "", error.diag.constraint_name or ""
    rule = _words(name.removeprefix(f"{table}_"))
    return Plain(f"{_words(table)}: refused, because it must hold that {rule}", "Change that value")


def _missing(error: Any, _: str) -> Plain:
    column = _words(error.diag.column_name or "a value")
    return Plain(f"{column} is missing", "Give it, and try again")


def _tied(error: Any, _: str) -> Plain:
    if "still referenced" in (error.diag.message_detail or ""):
        return Plain("it is still in use", "Delete or change first what uses it")
    return Plain("what it names does not exist", "List what there is, and name one of that")


def _no_such_text(_: Any, __: str) -> Plain:
    return Plain("text cannot hold the character U+0000", "Leave it out")


def _too_slow(_: Any, __: str) -> Plain:
    return Plain("the database took too long and gave up", "Ask for less at once, or try again")


def _no_right(error: Any, _: str) -> Plain:
    return Plain(
        "the role that you connect as may not do this",
        "Connect as postgres, or as a member of the fleet with the permission",
    )


def _no_entry(_: Any, __: str) -> Plain:
    return Plain("the database refused the user or the password", _ADDRESS)


def _no_database(_: Any, text: str) -> Plain:
    found = re.search(r'database "([^"]*)"', text)
    return Plain(f'there is no database "{found[1] if found else "?"}" on that server', _ADDRESS)


def _busy(_: Any, __: str) -> Plain:
    return Plain("the database has no connection left", "Try again in a moment")


_ADDRESS = "Look at the address: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
_BY_STATE: dict[str, Any] = {
    "22P02": _not_of_its_type,
    "22007": _not_of_its_type,
    "22008": _out_of_range,
    "22003": _out_of_range,
    "22015": _out_of_range,
    "22P05": _no_such_text,
    "22021": _no_such_text,
    "23505": _taken,
    "23514": _not_kept,
    "23502": _missing,
    "23503": _tied,
    "57014": _too_slow,
    "55P03": _too_slow,
    "42501": _no_right,
    "28P01": _no_entry,
    "28000": _no_entry,
    "3D000": _no_database,
    "53300": _busy,
}

# A connection that failed early has no state, only what libpq says.
_EARLY = (
    (
        r"could not translate host name|Name or service not known|failed to resolve",
        "there is no host of that name",
    ),
    (
        r"password authentication failed|no password supplied|role .* does not exist",
        "the database refused the user or the password",
    ),
    (r'database "([^"]*)" does not exist', "there is no database of that name on that server"),
    (
        r"too many (clients|connections)|remaining connection slots",
        "the database has no connection left",
    ),
    (r"timeout|timed out", "the database did not answer in time"),
    (
        r"refused|No such file or directory|No route to host|unreachable",
        "no database answers there",
    ),
    (r"SSL|certificate", "the database and this machine do not agree on encryption"),
    (r"closed the connection|terminat|EOF", "the database went away"),
    (
        r"missing \"=\"|invalid (URI|dsn|connection option|port)|unexpected|invalid integer value",
        "that is no address of a database",
    ),
)


def _unreachable(text: str) -> Plain | None:
    for pattern, words in _EARLY:
        if re.search(pattern, text, re.IGNORECASE):
            return Plain(words, _ADDRESS if "address" in words or "user" in words else None)
    return None


def _words(name: str) -> str:
    return name.replace("_", " ")


def _one_of(table: str | None) -> str:
    return _words((table or "thing").removesuffix("s"))


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind[:1] in "aeiou" else f"a {kind}"
