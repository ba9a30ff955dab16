"""Write `supabase/migrations`, so that `supabase db push` builds what `pgfleet db migrate` builds.

Each table migration is copied under its own version, and each room of the sources is one file
after them, a second apart. The Supabase CLI knows a file by its version alone: it never applies
one again, and refuses to go on when one that it applied has disappeared. So

- four digits of what is in it end the version of a room: one that has changed since it was
  pushed is refused, with the command that lets it be pushed again, and not silently left out;
- a release freezes all files, and what changes afterwards is written anew beside them: the
  lowest room that changed and all above it, which stand on it; after a table migration, all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pgfleet.errors import Conflict, FleetError, NotFound
from pgfleet.schema.sources import Room, migration_files, rooms, sql_folder, version_of

FROZEN = "frozen.json"

_VERSION_DIGITS = 14
_CONTENT_DIGITS = 4

_HEAD = """\
-- Generated from db/sources/{room} by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';
"""

_TAIL = """\
set check_function_bodies = on;
reset search_path;
"""

_LAST_TAIL = """\
-- Jobs, publications and time zones follow what was just defined.
set check_function_bodies = on;
select fleet.after_migrate();
reset search_path;
notify pgrst, 'reload schema';
"""


@dataclass(slots=True)
class Frozen:
    """What has been released: file names and the hash of each."""

    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Frozen:
        """Read the record of releases; a project without one has released nothing."""
        path = folder / FROZEN
        if not path.exists():
            return cls()
        return cls(json.loads(path.read_text(encoding="utf-8"))["files"])

    def text(self) -> str:
        """Give the record as it is kept."""
        return json.dumps({"files": dict(sorted(self.files.items()))}, indent=2) + "\n"

    @property
    def rooms(self) -> list[str]:
        """List the released files of rooms, oldest first."""
        return sorted(name for name in self.files if _is_of_a_room(name))


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that is not as it would be generated."""

    name: str
    problem: str


def bundle_folder() -> Path:
    """Find `supabase/migrations` of the checkout."""
    folder = sql_folder().parent / "supabase"
    if not folder.is_dir():
        raise NotFound(
            "there is no folder supabase beside db",
            reason="no_checkout",
            hint="Bundling works in a checkout; elsewhere name a folder with --output",
        )
    return folder / "migrations"


def generate(target: Path, *, source: Path | None = None) -> dict[str, bytes]:
    """Give the wanted contents of the folder by file name.

    Raises Conflict when something released was changed, or when a table migration is dated
    before what was released and so would be refused by the next push.
    """
    folder = source or sql_folder()
    frozen = Frozen.read(target)
    wanted: dict[str, bytes] = {}
    for file in migration_files(folder):
        head = f"-- Generated from db/{file.name} by pgfleet db bundle; edit that file instead.\n"
        wanted[file.path.name] = head.encode() + file.path.read_bytes()
    _check_released(frozen, wanted)
    has_new_table = any(name not in frozen.files for name in wanted)
    for name in frozen.rooms:
        wanted[name] = _released_room(target, name, frozen.files[name])

    newest = max(wanted, default="")
    latest = {_room_of(name): wanted[name] for name in frozen.rooms}
    for place, (room, body) in enumerate(_to_write(_bodies(folder), latest, has_new_table)):
        wanted[_file_name(newest, place, room, body)] = body
    if frozen.files:
        wanted[FROZEN] = frozen.text().encode()
    return wanted


def differences(target: Path, *, source: Path | None = None) -> list[Difference]:
    """Compare the folder with what would be generated."""
    wanted = generate(target, source=source)
    present = _generated_files(target)
    found = [Difference(name, "is missing") for name in wanted if name not in present]
    found += [Difference(name, "is not generated any more") for name in present - set(wanted)]
    found += [
        Difference(name, "differs")
        for name in present & set(wanted)
        if (target / name).read_bytes() != wanted[name]
    ]
    return sorted(found, key=lambda difference: difference.name)


def write(target: Path, *, source: Path | None = None, release: bool = False) -> list[str]:
    """Write the folder, and with `release` freeze it; list the files that changed."""
    wanted = generate(target, source=source)
    if release:
        frozen = Frozen({n: _sha256(data) for n, data in wanted.items() if n != FROZEN})
        wanted[FROZEN] = frozen.text().encode()
    target.mkdir(parents=True, exist_ok=True)
    changed = []
    for name in _generated_files(target) - set(wanted):
        (target / name).unlink()
        changed.append(name)
    for name, data in wanted.items():
        path = target / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            changed.append(name)
    return sorted(changed)


def _bodies(folder: Path) -> list[tuple[str, bytes]]:
    """Give what the file of each room is to hold, lowest room first."""
    found = rooms(folder)
    return [(room.name, _body(room, is_last=room is found[-1])) for room in found]


def _body(room: Room, *, is_last: bool) -> bytes:
    parts = [f"-- db/{file.name}\n{file.text.rstrip()}\n" for file in room.files]
    head = _HEAD.format(room=room.name)
    return "\n".join([head, *parts, _LAST_TAIL if is_last else _TAIL]).encode()


def _to_write(
    bodies: list[tuple[str, bytes]], latest: dict[str, bytes], has_new_table: bool
) -> list[tuple[str, bytes]]:
    """Choose the rooms that are to be applied after what was released."""
    if has_new_table:
        # It may have dropped what stood on the table that it changed, in any room.
        return bodies
    changed = (i for i, (room, body) in enumerate(bodies) if latest.get(room) != body)
    return bodies[next(changed, len(bodies)) :]


def _check_released(frozen: Frozen, wanted: dict[str, bytes]) -> None:
    """Refuse what the next push would refuse, or would silently leave out."""
    for name, released in frozen.files.items():
        if _is_of_a_room(name):
            continue
        if name not in wanted:
            raise Conflict(
                f"table migration {name} was released and is gone",
                reason="released_migration_missing",
                hint="Bring it back, and undo what it does in a new migration",
            )
        if _sha256(wanted[name]) != released:
            raise Conflict(
                f"table migration {name} was changed after its release",
                reason="released_migration_changed",
                hint="Undo the edit, and change the table in a new migration",
            )
    newest = max(frozen.files, default="")
    for name in wanted:
        if name not in frozen.files and version_of(name) <= version_of(newest):
            raise Conflict(
                f"table migration {name} is older than {newest}, which was released",
                reason="migration_too_old",
                hint="Rename it to begin with the time of now",
            )


def _released_room(target: Path, name: str, released: str) -> bytes:
    path = target / name
    if not path.exists() or _sha256(path.read_bytes()) != released:
        raise Conflict(
            f"{name} was released and is missing or changed",
            reason="released_room_changed",
            hint=f"Bring it back from the release: git checkout <tag> -- {path}",
        )
    return path.read_bytes()


def _file_name(newest: str, place: int, room: str, body: bytes) -> str:
    if not newest:
        raise FleetError("there is no table migration to bundle", reason="nothing_to_bundle")
    at = datetime.strptime(version_of(newest), "%Y%m%d%H%M%S") + timedelta(seconds=place + 1)
    content = int(_sha256(body), 16) % 10**_CONTENT_DIGITS
    return f"{at:%Y%m%d%H%M%S}{content:0{_CONTENT_DIGITS}}_{room}.sql"


def _is_of_a_room(name: str) -> bool:
    """Tell a room from a table migration, whose version is a time and nothing more."""
    return name[_VERSION_DIGITS : _VERSION_DIGITS + 1].isdecimal()


def _room_of(name: str) -> str:
    return name.partition("_")[2].removesuffix(".sql")


def _generated_files(target: Path) -> set[str]:
    """Name the files of the folder that are ours: SQL, and the record of releases."""
    if not target.is_dir():
        return set()
    return {path.name for path in target.iterdir() if path.suffix == ".sql" or path.name == FROZEN}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
