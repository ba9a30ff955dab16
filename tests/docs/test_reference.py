"""The generated reference pages are what the database, the commands and the settings say today."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_up_to_date(database: Any) -> None:
    checked = subprocess.run(
        [ROOT / "scripts" / "docs-generate", "--check", "--database-url", database.url()],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_every_public_function_and_table_is_there(database: Any) -> None:
    with database.connect() as conn:
        functions = conn.execute(
            """
            select p.proname from pg_proc as p
            where p.pronamespace = 'public'::regnamespace and p.prorettype <> 'trigger'::regtype
            """
        ).fetchall()
        tables = conn.execute(
            "select c.table_name from information_schema.tables as c where table_schema = 'public'"
        ).fetchall()
    api = (ROOT / "docs" / "reference" / "sql-api.md").read_text()
    dictionary = (ROOT / "docs" / "reference" / "tables.md").read_text()
    assert {name for (name,) in functions if f"\n### {name}\n" not in api} == set()
    assert {name for (name,) in tables if f"\n### {name}\n" not in dictionary} == set()


def test_every_public_function_says_what_it_is() -> None:
    api = (ROOT / "docs" / "reference" / "sql-api.md").read_text()
    sections = api.split("\n### ")[1:]
    silent = [s.splitlines()[0] for s in sections if "```\n\nMay call it" in s]
    assert silent == []
