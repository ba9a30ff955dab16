"""Write the generated pages of docs/reference, or check that they are up to date."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from reference import catalogue
from reference.cli_page import cli
from reference.fresh import fresh_database
from reference.permissions_page import permissions
from reference.settings_page import settings
from reference.sql_pages import sql_api, tables

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"


def main() -> int:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(prog="make docs-generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if stale")
    parser.add_argument("--database-url", help="a migrated database; else one is made and removed")
    given = parser.parse_args()
    with nullcontext(given.database_url) if given.database_url else fresh_database() as url:
        pages = generate(url)
    stale = [name for name, text in pages.items() if _present(name) != text]
    if given.check:
        for name in stale:
            print(f"docs/reference/{name} is not up to date", file=sys.stderr)
        if stale:
            print("Run: make docs-generate", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(pages[name])
        print(f"wrote docs/reference/{name}")
    return 0


def generate(database_url: str) -> dict[str, str]:
    """Give every generated page by its name."""
    found = catalogue.read(database_url)
    return {
        "cli.md": cli(),
        "permissions.md": permissions(),
        "settings.md": settings(found, ROOT),
        "sql-api.md": sql_api(found, ROOT / "db" / "sources"),
        "tables.md": tables(found),
    }


def _present(name: str) -> str | None:
    path = FOLDER / name
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
