"""pgfleet profile upload, available, delete: which profiles the MDMs have, and what is in them."""

from __future__ import annotations

import plistlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from xml.parsers.expat import ExpatError

import typer

from pgfleet import completion, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import Conflict, InvalidInput, NotFound
from pgfleet.statements import same

app = options.Noun("What the MDMs have.", panel="What the MDMs have")

_HINT = "Name a .mobileconfig file, as Apple Configurator or the MDM exports it"
_OPTIONS = (
    *("user_scope", "attribute_support", "escape_attributes"),
    *("reinstall_after_os_update", "declarative"),
)

Integration = Annotated[
    str | None, typer.Option(help="Name or id of the MDM, where there are several.")
]


@app.command(changes=True)
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
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Upload a profile to an MDM; the same name again replaces the file.

    Example: pgfleet profile upload wifi.mobileconfig --name "Office Wi-Fi" --wait
    """
    content = _read(file)
    with open_database() as db:
        found = names.integration_id(db, integration)
        # What --show-sql prints is often kept, and the file may hold passwords.
        with options.using(replace(options.current(), show_sql=False)):
            made = db.row(
                "upload_profile",
                "id",
                p_name=name if name is not None else file.stem,
                p_mobileconfig=content,
                p_integration_id=found,
                p_options=json_value(_switches(option or [])),
            )
        db.commit()
        wait = wait and not options.current().dry_run
        row = _follow(db, made["id"], timeout) if wait else _show(db, made["id"])
    if row["replaces"]:
        output.say(
            f"warning: {row['replaces']} has the same PayloadIdentifier"
            f" ({row['payload_identifier']}): on a device one takes the place of the other"
        )
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
        wanted = {"integration_id": found}
        rows = db.find("profile_list", wanted, order=("name", "id"), limit=limit)
    output.show_rows(
        rows,
        ["profile_id", "name", "kind", "status", "integration", "error_message", "seen_at"],
        spare=("error_message", "kind", "integration"),
    )


@app.command(changes=True)
def delete(
    profile: Annotated[
        str,
        typer.Argument(
            help="Name, or the MDM's id of the profile.", autocompletion=completion.profiles
        ),
    ],
    integration: Integration = None,
    yes: options.Yes = False,
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
            output.confirm(f"Delete profile {where}, also from its devices?", yes=yes)
        db.touches("profile", row["id"])
        row = db.row(
            "delete_profile", "id", "external_id", "name", "status", p_profile_id=row["id"]
        )
    row["profile_id"] = row.pop("external_id")
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
    return db.find("profile_list", {"id": profile_id})[0]


def _follow(db: Database, profile_id: int, timeout: float | None) -> dict[str, Any]:
    """Look again until the MDM has it or it failed for good, telling each change."""

    def look() -> tuple[dict[str, Any], str, bool]:
        row = _show(db, profile_id)
        db.commit()
        word = ": ".join(part for part in (row["status"], row["error_message"]) if part)
        return row, word, row["status"] != "pending"

    found: dict[str, Any] = output.follow(
        look,
        timeout=timeout,
        what=f"profile {_show(db, profile_id)['name']}",
        goes_on="Look again: pgfleet profile available. Take it back: pgfleet profile delete NAME",
    )
    return found


def _only(db: Database, text: str, integration_id: int | None) -> dict[str, Any]:
    """Find the profile to delete: what was uploaded from here wins over what was not."""
    meant = ({"name": same(text)}, {"profile_id": text})
    found = {
        row["id"]: row
        for wanted in meant
        for row in db.find("profile_list", {**wanted, "integration_id": integration_id}, limit=100)
    }
    rows = [row for row in found.values() if row["is_managed"]] or list(found.values())
    if len(rows) > 1:
        where = ", ".join(f"{row['profile_id']} ({row['integration']})" for row in rows)
        raise Conflict(
            f'profile "{text}" is ambiguous: {where}',
            reason="profile_ambiguous",
            hint="Name the MDM with --integration, or the id",
        )
    if not rows:
        raise NotFound(
            f'profile "{text}" was not found',
            reason="profile_not_found",
            hint="List what the MDMs have with: pgfleet profile available",
        )
    return rows[0]
