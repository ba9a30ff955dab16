"""pgfleet db: the schema and how it gets into a database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgfleet import options, output
from pgfleet.database import database_url
from pgfleet.errors import Conflict
from pgfleet.schema import bundle as bundling
from pgfleet.schema import migrate as migrating

app = options.Noun("The schema: migrate, check, bundle.")


@app.command(changes=True)
def migrate(
    print_sql: Annotated[
        bool, typer.Option("--print", help="Print the pending SQL and change nothing.")
    ] = False,
    database_number: Annotated[
        int | None,
        typer.Option(
            min=0, max=511, help="Of several databases this one, whose ids then begin at it."
        ),
    ] = None,
) -> None:
    """Bring the database up to date; a second run finds nothing to do.

    Example: pgfleet db migrate --database-url postgresql://postgres:…@db.example.com:5432/postgres
    """
    url = database_url()
    if print_sql:
        script = migrating.pending(url).script()
        if script:
            output.show_text(script)
        else:
            output.say("Nothing is pending.")
        return
    if options.current().dry_run:
        output.show_rows(_pending_rows(migrating.pending(url)))
        return
    with output.progress("migrate") as advance:
        report = migrating.migrate(url, progress=advance, database_number=database_number)
    output.show_row(
        {
            "applied": report.applied,
            "marked": report.marked,
            "sources_applied": report.sources_applied,
            "edited": report.edited,
            "leftovers": report.leftovers,
        }
    )
    if not report.changed:
        output.say("The database is up to date.")
    _warn(report.edited, report.leftovers)


@app.command()
def status() -> None:
    """Compare the database with this version of pgfleet; ends with 1 when something is pending.

    Example: pgfleet db status --json
    """
    found = migrating.status(database_url())
    output.show_row(
        {
            "up_to_date": not found.pending,
            "applied": found.applied,
            "pending": [file.path.stem for file in found.pending.migrations],
            "sources": "changed" if found.pending.sources else "up to date",
            "sources_applied_at": found.sources_applied_at,
            "edited": found.edited,
            "leftovers": found.leftovers,
        }
    )
    _warn(found.edited, found.leftovers)
    if found.pending:
        output.say("Bring it up to date with: pgfleet db migrate")
        raise typer.Exit(1)


@app.command()
def bundle(
    check: Annotated[
        bool, typer.Option("--check", help="Only compare; ends with 1 when something differs.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Freeze what is written; for a tagged version.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--output", help="Another folder than supabase/migrations.")
    ] = None,
) -> None:
    """Write supabase/migrations for `supabase db push`; nobody edits those files.

    Example: pgfleet db bundle --check
    """
    target = folder or bundling.bundle_folder()
    if not check:
        changed = bundling.write(target, release=release)
        output.show_rows([{"file": name} for name in changed])
        output.say(f"{len(changed)} files changed in {target}.")
        return
    differences = bundling.differences(target)
    output.show_rows([{"file": d.name, "problem": d.problem} for d in differences])
    if differences:
        raise Conflict(
            f"{target} is not what pgfleet db bundle would write",
            reason="bundle_outdated",
            hint="Write it again, and commit it: pgfleet db bundle",
        )
    output.say("The bundle is up to date.")


def _pending_rows(pending: migrating.Pending) -> list[dict[str, str]]:
    rows = [{"file": f.name, "kind": "migration"} for f in pending.migrations]
    return rows + [{"file": f.name, "kind": "source"} for f in pending.sources]


def _warn(edited: list[str], leftovers: list[str]) -> None:
    if edited:
        output.say(
            "Warning: edited after being applied, and so not in this database: " + ", ".join(edited)
        )
    if leftovers:
        output.say(
            "Warning: no file defines these functions any more; drop them in a migration: "
            + ", ".join(leftovers)
        )
