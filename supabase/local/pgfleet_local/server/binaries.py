"""Finding the Postgres programs that the private cluster runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pgfleet_local.settings import LocalError

NEWEST, OLDEST = 18, 15


class BinariesError(LocalError):
    """No Postgres server of a version that we support is installed."""


@dataclass(frozen=True)
class Binaries:
    """The programs of one Postgres version."""

    folder: Path
    version: int

    def program(self, name: str) -> str:
        """Give the path of one program."""
        return str(self.folder / name)

    @cached_property
    def library_folder(self) -> Path:
        """Give the folder of the modules that the server can load."""
        config = self.folder / "pg_config"
        if config.exists():
            return Path(_output([str(config), "--pkglibdir"]).strip())
        # A bundle of the server alone has no pg_config; what every server can load shows the place.
        lib = self.folder.parent / "lib"
        places = (lib / "postgresql", lib / f"postgresql{self.version}", lib)
        return next((p for p in places if any(p.glob("plpgsql.*"))), lib)

    @cached_property
    def settings(self) -> frozenset[str]:
        """Give the names of all settings that the server knows."""
        described = _output([self.program("postgres"), "--describe-config"])
        return frozenset(line.split("\t", 1)[0] for line in described.splitlines())

    def has_library(self, name: str) -> bool:
        """Tell whether a module such as pg_cron is installed for this version."""
        return any((self.library_folder / f"{name}{end}").exists() for end in (".so", ".dylib"))


def find_binaries(version: int | None = None) -> Binaries:
    """Find the newest installed Postgres that has pg_cron, or just the newest.

    A version limits the search to that one, which is what an existing data folder needs.
    PGFLEET_LOCAL_PG_BIN names the folder of its programs where they are in an unusual place.
    """
    given = os.environ.get("PGFLEET_LOCAL_PG_BIN")
    oldest, newest = (version, version) if version else (OLDEST, NEWEST)
    found, broken = [], ""
    for folder in [Path(given)] if given else _folders():
        try:
            its_version = _version(folder)
        except BinariesError as error:
            broken = f" ({error})"
            continue
        if oldest <= its_version <= newest:
            found.append(Binaries(folder, its_version))
    if not found:
        wanted = f"{oldest}" if version else f"{oldest} to {newest}"
        raise BinariesError(
            f"no Postgres server {wanted} found in {given or 'the usual folders and on the PATH'}"
            f"{broken}; install one (scripts/setup does it on Debian and Ubuntu) "
            "or name its programs' folder in PGFLEET_LOCAL_PG_BIN"
        )
    return next((candidate for candidate in found if candidate.has_library("pg_cron")), found[0])


def _folders() -> Iterator[Path]:
    for version in range(NEWEST, OLDEST - 1, -1):
        yield Path(f"/usr/lib/postgresql/{version}/bin")
        yield Path(f"/usr/pgsql-{version}/bin")
        yield Path(f"/opt/homebrew/opt/postgresql@{version}/bin")
        yield Path(f"/usr/local/opt/postgresql@{version}/bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _version(folder: Path) -> int:
    if not (folder / "initdb").exists() or not (folder / "postgres").exists():
        return 0
    match = re.search(r"\(PostgreSQL\) (\d+)", _output([str(folder / "postgres"), "--version"]))
    return int(match.group(1)) if match else 0


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        # A bundle without the libraries that it needs, or one for another machine.
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise BinariesError(f"{command[0]} does not run: {reason[-1]}") from error
