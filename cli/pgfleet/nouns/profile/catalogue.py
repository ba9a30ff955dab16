"""pgfleet profile upload, available, delete: which profiles the MDMs have, and what is in them."""

from __future__ import annotations

import plistlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, LiteralString
from xml.parsers.expat import ExpatError

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import Conflict, InvalidInput

app = options.Noun("What the MDMs have.", panel="What the MDMs have")

_LOOK_SECONDS = 0.5
_HINT = "Name a .mobileconfig file, as Apple Configurator or the MDM exports it"
_OPTIONS = (
    *("user_scope", "attribute_support", "escape_attributes"),
    *("reinstall_after_os_update", "declarative"),
)

_UPLOAD: LiteralString = """
select p.id
from public.upload_profile(%(name)s, %(content)s, %(integration_id)s, %(options)s) as p
"""

_PROFILES: LiteralString = """
select
  p.id, p.external_id as profile_id, p.name, p.kind, p.status, i.name as integration,
  p.error_message, p.is_managed, p.options, p.content_sha256, p.uploaded_at, p.seen_at,
  p.integration_id, p.owner_id, p.created_at
from public.profiles as p
join public.device_integrations as i on i.id = p.integration_id
where (%(id)s::bigint is null or p.id = %(id)s)
  and (%(integration_id)s::bigint is null or p.integration_id = %(integration_id)s)
  and (%(text)s::text is null or lower(p.name) = lower(%(text)s) or p.external_id = %(text)s)
order by lower(p.name), p.id
limit %(limit)s
"""

Integration = Annotated[
    str | None, typer.Option(help="Name or id of the MDM, where there are several.")
]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="The .mobileconfig file.")],
    name: Annotated[
        str | None, typer.Option(help="What you call it; else the name of the file.")
    ] = None,
    integration: Integration = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME=true or NAME=false; repeatable. One of {', '.join(_OPTIONS)}."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it until the MDM has it, or refused it.")
    ] = False,
) -> None:
    """Upload a profile to an MDM; the same name again replaces the file.

    Example: pgfleet profile upload wifi.mobileconfig --name "Office Wi-Fi" --wait
    """
    content = _read(file)
    wanted = {
        "name": name if name is not None else file.stem,
        "content": content,
        "options": json_value(_switches(option or [])),
    }
    with open_database() as db:
        wanted["integration_id"] = names.integration_id(db, integration)
        # What --show-sql prints is often kept, and the file may hold passwords.
        with options.using(replace(options.current(), show_sql=False)):
            found = int(db.row(_UPLOAD, wanted)["id"])
        db.commit()
        row = _follow(db, found) if wait else _show(db, found)
    output.show_row(row)
    if wait and row["status"] != "uploaded":
        raise typer.Exit(1)


@app.command()
def available(
    integration: Annotated[str | None, typer.Option(help="Only of this MDM.")] = None,
    limit: options.Limit = 100,
) -> None:
    """List the profiles that the MDMs have, by name.

    Example: pgfleet profile available --integration office
    """
    with open_database() as db:
        found = names.integration_id(db, integration)
        rows = db.rows(
            _PROFILES, {"id": None, "integration_id": found, "text": None, "limit": limit}
        )
    output.show_rows(
        rows, ["profile_id", "name", "kind", "status", "integration", "error_message", "seen_at"]
    )


@app.command()
def delete(
    profile: Annotated[str, typer.Argument(help="Name, or the MDM's id of the profile.")],
    integration: Integration = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Delete an uploaded profile in its MDM, and so from all devices that have it.

    Example: pgfleet profile delete "Office Wi-Fi" --yes
    """
    with open_database() as db:
        row = _only(db, profile, names.integration_id(db, integration))
        db.commit()
        where = f"{row['name']} ({row['profile_id'] or 'not uploaded'}) in {row['integration']}"
        # What was not uploaded from here is refused either way.
        if row["is_managed"]:
            if dry_run:
                output.say(f"Profile {where} would be deleted, also from its devices.")
                return
            output.confirm(f"Delete profile {where}, also from its devices?", yes=yes)
        row = db.row(
            "select p.id, p.external_id as profile_id, p.name, p.status"
            " from public.delete_profile(%(id)s) as p",
            {"id": row["id"]},
        )
    output.show_row(row)


def _read(file: Path) -> bytes:
    """Read a file that can be a profile; nothing that is said of it quotes it."""
    try:
        content = file.expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {file}: {error.strerror}", reason="file_unreadable", hint=_HINT
        ) from error
    # A signed one is opened by the MDM.
    if not content.startswith(b"\x30") and (problem := _problem(content)):
        raise InvalidInput(
            f"{file}: {problem}",
            reason="profile_invalid",
            hint=_HINT,
        )
    return content


def _problem(content: bytes) -> str | None:
    try:
        found = plistlib.loads(content)
    except ExpatError as error:
        return f"is no property list (line {error.lineno}, column {error.offset + 1})"
    except Exception:
        # Its words may quote the file.
        return "is no property list"
    if not isinstance(found, dict) or found.get("PayloadType") != "Configuration":
        return "is a property list but no profile: its PayloadType is not Configuration"
    return None


def _switches(given: list[str]) -> dict[str, bool]:
    """Read NAME=true and NAME=false; which names there are, the database knows."""
    switches = {}
    for one in given:
        name, _, value = one.partition("=")
        if value not in ("true", "false"):
            raise InvalidInput(
                f"--option: {one} is not NAME=true or NAME=false",
                reason="option_invalid",
                hint="Example: --option user_scope=false",
            )
        switches[name] = value == "true"
    return switches


def _show(db: Database, profile_id: int) -> dict[str, Any]:
    return db.row(_PROFILES, {"id": profile_id, "integration_id": None, "text": None, "limit": 1})


def _follow(db: Database, profile_id: int) -> dict[str, Any]:
    """Look again until the MDM has it or it failed for good, telling each change."""
    told = None
    while True:
        row = _show(db, profile_id)
        db.commit()
        now = (row["status"], row["error_message"])
        if now != told:
            output.say(f"profile {row['name']}: {': '.join(part for part in now if part)}")
            told = now
        if row["status"] != "pending":
            return row
        time.sleep(_LOOK_SECONDS)


def _only(db: Database, text: str, integration_id: int | None) -> dict[str, Any]:
    """Find the profile to delete: what was uploaded from here wins over what was not."""
    wanted = {"id": None, "integration_id": integration_id, "text": text, "limit": 100}
    rows = db.rows(_PROFILES, wanted)
    rows = [row for row in rows if row["is_managed"]] or rows
    if len(rows) > 1:
        where = ", ".join(f"{row['profile_id']} ({row['integration']})" for row in rows)
        raise Conflict(
            f'profile "{text}" is ambiguous: {where}',
            reason="profile_ambiguous",
            hint="Name the MDM with --integration, or the id",
        )
    return names.known_profile(rows, text)
