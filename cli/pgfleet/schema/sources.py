"""Where the SQL of pgfleet is, and in which order it is applied.

A wheel carries it as `pgfleet/sql`; in a checkout it is the folder `db`, two levels above
this package. Nothing else is searched.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pgfleet.errors import FleetError

# What comes last in a room: views need functions, triggers and access need both.
_LAST = ("views.sql", "triggers.sql", "access.sql")
_VERSION = re.compile(r"^\d{14}_[a-z0-9_]+$")


@dataclass(frozen=True, slots=True)
class SqlFile:
    """One file of SQL: its path below the SQL folder, and its text."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        """Read the file."""
        return self.path.read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Room:
    """One folder of sources: its name, and its files in the order in which they are applied."""

    name: str
    files: list[SqlFile]


def sql_folder() -> Path:
    """Find the folder that holds migrations and sources."""
    package = Path(str(resources.files("pgfleet")))
    for folder in (package / "sql", package.parents[1] / "db"):
        if (folder / "migrations").is_dir():
            return folder
    raise FleetError(
        "the SQL of pgfleet was not found",
        reason="sql_missing",
        hint="Install pgfleet again; a wheel carries its SQL in pgfleet/sql",
    )


def migration_files(folder: Path) -> list[SqlFile]:
    """List the table migrations, oldest first."""
    found: list[SqlFile] = []
    for path in sorted((folder / "migrations").glob("*.sql")):
        if path.name.endswith(".rollback.sql") or path.name.startswith("post-apply"):
            continue
        if _VERSION.match(path.stem) is None:
            raise FleetError(
                f"migration {path.name} is not named YYYYMMDDHHMMSS_slug.sql",
                reason="migration_name",
            )
        if found and version_of(found[-1].name) == version_of(path.name):
            raise FleetError(
                f"migrations {found[-1].path.name} and {path.name} have one version",
                reason="migration_version",
                hint="Rename the newer to begin with another time",
            )
        found.append(SqlFile(f"migrations/{path.name}", path))
    return found


def version_of(name: str) -> str:
    """Give the 14 digits with which the name of a migration begins."""
    return Path(name).name[:14]


def rooms(folder: Path) -> list[Room]:
    """List the rooms of the sources, lowest first: each calls only those before it."""
    root = folder / "sources"
    stray = [path.name for path in root.glob("*.sql")]
    if stray:
        raise FleetError(
            f"sources/{min(stray)} lies in no room",
            reason="source_without_room",
            hint="Move it into a folder below db/sources",
        )
    return [
        Room(
            path.name,
            [
                SqlFile(f"sources/{path.name}/{file.name}", file)
                for file in sorted(path.glob("*.sql"), key=_place_in_room)
            ],
        )
        for path in sorted(root.iterdir())
        if path.is_dir() and any(path.glob("*.sql"))
    ]


def source_files(folder: Path) -> list[SqlFile]:
    """List every replaceable source in the order in which it is applied."""
    return [file for room in rooms(folder) for file in room.files]


def _place_in_room(path: Path) -> tuple[int, str]:
    return (_LAST.index(path.name) if path.name in _LAST else -1, path.name)


def checksum(file: SqlFile) -> str:
    """Hash the content of one file."""
    return hashlib.sha256(file.path.read_bytes()).hexdigest()


def mended_checksums(file: SqlFile) -> list[str]:
    """Name the contents that a migration says it stands for: what they made is what it makes."""
    return re.findall(r"(?m)^-- instead of ([0-9a-f]{64})$", file.text)


def digest_of(files: list[SqlFile]) -> str:
    """Hash names and contents, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(b"\0")
        digest.update(file.text.encode())
        digest.update(b"\0")
    return digest.hexdigest()
