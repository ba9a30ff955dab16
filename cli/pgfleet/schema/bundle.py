"""Write `supabase/migrations`, so that `supabase db push` builds what `pgfleet db migrate` builds.

Each table migration is copied under its own version. All sources together make one snapshot,
dated a second after the newest file before it. The CLI never applies a pushed file again and
refuses to go on when one has disappeared; so at a release the snapshot is frozen, and the next
change of a source opens a new one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pgfleet.errors import Conflict, FleetError, NotFound
from pgfleet.schema.sources import migration_files, source_files, sql_folder, version_of

FROZEN = "frozen.json"

_SNAPSHOT_HEAD = """\
-- Generated from db/sources by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';
"""

_SNAPSHOT_TAIL = """\
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
    def snapshots(self) -> list[str]:
        """List the released snapshots, oldest first."""
        return sorted(name for name in self.files if name.endswith("_sources.sql"))


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
    for name in frozen.snapshots:
        wanted[name] = _released_snapshot(target, name, frozen.files[name])

    body = _snapshot(folder)
    if not frozen.snapshots or wanted[frozen.snapshots[-1]] != body:
        wanted[_next_version(max(wanted, default="")) + "_sources.sql"] = body
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


def _snapshot(folder: Path) -> bytes:
    parts = [_SNAPSHOT_HEAD]
    parts += [f"-- db/{file.name}\n{file.text.rstrip()}\n" for file in source_files(folder)]
    return "\n".join([*parts, _SNAPSHOT_TAIL]).encode()


def _check_released(frozen: Frozen, wanted: dict[str, bytes]) -> None:
    """Refuse what the next push would refuse, or would silently leave out."""
    for name, released in frozen.files.items():
        if name in frozen.snapshots:
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


def _released_snapshot(target: Path, name: str, released: str) -> bytes:
    path = target / name
    if not path.exists() or _sha256(path.read_bytes()) != released:
        raise Conflict(
            f"snapshot {name} was released and is missing or changed",
            reason="released_snapshot_changed",
            hint=f"Bring it back from the release: git checkout <tag> -- {path}",
        )
    return path.read_bytes()


def _next_version(newest: str) -> str:
    if not newest:
        raise FleetError("there is no table migration to bundle", reason="nothing_to_bundle")
    at = datetime.strptime(version_of(newest), "%Y%m%d%H%M%S") + timedelta(seconds=1)
    return at.strftime("%Y%m%d%H%M%S")


def _generated_files(target: Path) -> set[str]:
    """Name the files of the folder that are ours: SQL, and the record of releases."""
    if not target.is_dir():
        return set()
    return {path.name for path in target.iterdir() if path.suffix == ".sql" or path.name == FROZEN}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
