"""The page of errors lists the reasons that the code gives, all of them and no others."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "errors.md"

# Put together in the code: the word before the underscore is the kind of what was not found.
NOT_FOUND = re.compile(r"raise_not_found\((?:format\()?'([a-z ]+) %s'")
SQL_REASON = re.compile(r"detail = '([a-z_]+)'(?! \|\|)")
PROBLEMS = re.compile(r"raise_problems\(\s*'[^']+',\s*'([a-z_]+)'")
PYTHON_REASON = re.compile(r"(?:reason|details)=\"([a-z_]+)\"")


def given_by_the_code() -> set[str]:
    """Find every reason that the sources raise."""
    found: set[str] = set()
    for path in (ROOT / "db" / "sources").rglob("*.sql"):
        text = path.read_text()
        found.update(SQL_REASON.findall(text), PROBLEMS.findall(text))
        found.update(f"{kind.replace(' ', '_')}_not_found" for kind in NOT_FOUND.findall(text))
    for folder in ("cli", "functions", "supabase/local"):
        for path in (ROOT / folder).rglob("*.py"):
            found.update(PYTHON_REASON.findall(path.read_text()))
    # `reason="error"` is what became of a command, no refusal.
    return found - {"error"}


def told_by_the_page() -> set[str]:
    """Find every word with an underscore in the tables of the page."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {word for row in rows for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", row)}


def test_every_reason_is_on_the_page() -> None:
    missing = given_by_the_code() - told_by_the_page()
    assert missing == set(), f"say in docs/reference/errors.md when these are given: {missing}"


def test_the_page_makes_no_reason_up() -> None:
    # Those that are put together, `schedule_` || status, are there in two halves.
    code = "\n".join(
        path.read_text()
        for folder in ("db", "cli", "functions", "supabase/local")
        for pattern in ("*.sql", "*.py")
        for path in (ROOT / folder).rglob(pattern)
    )
    unknown = {
        word
        for word in told_by_the_page() - given_by_the_code()
        if word not in code and not all(half in code for half in word.split("_", 1))
    }
    assert unknown == set(), f"no code gives these reasons of docs/reference/errors.md: {unknown}"
