"""The wheel: complete, and nothing in it but what is used."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pgfleet import __version__
from pgfleet.schema.sources import digest_of, migration_files, source_files, sql_folder

ROOT = Path(__file__).parents[2]
PACKAGES = ("pgfleet", "pgfleet_functions", "pgfleet_console", "pgfleet_local")


def run(*words: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with what is installed, so without any network."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel aside; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("site")
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--disable-pip-version-check", "--target", str(folder), str(wheel)),
        cwd=folder,
    )
    return folder


def in_wheel(installed: Path, code: str) -> str:
    """Run code far from the checkout, where the wheel comes first on the path."""
    return run(sys.executable, "-c", code, cwd=installed, PYTHONPATH=str(installed))


def test_wheel_has_the_packages_the_sql_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}

    assert tops == {*PACKAGES, f"pgfleet-{__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "node_modules" in name]


def test_installed_wheel_finds_its_own_sql(installed: Path) -> None:
    code = "from pgfleet.schema.sources import *; f = sql_folder(); print(f)\n"
    code += "print(digest_of(migration_files(f) + source_files(f)))"
    folder, digest = in_wheel(installed, code).splitlines()

    assert Path(folder) == installed / "pgfleet" / "sql"
    here = sql_folder()
    assert digest == digest_of(migration_files(here) + source_files(here))
    assert (Path(folder) / "migrations" / "post-apply.py").exists()


def test_every_package_comes_from_the_wheel(installed: Path) -> None:
    code = f"import {', '.join(PACKAGES)}\n"
    code += f"print(*(m.__file__ for m in ({', '.join(PACKAGES)})), sep='\\n')"

    for file in in_wheel(installed, code).splitlines():
        assert Path(file).is_relative_to(installed)


def test_installed_program_runs(installed: Path) -> None:
    program = installed / "bin" / "pgfleet"

    said = run(str(program), "--version", cwd=installed, PYTHONPATH=str(installed))

    assert said == f"pgfleet {__version__}"


def test_local_platform_has_its_bootstrap_sql(installed: Path) -> None:
    local = installed / "pgfleet_local"
    ours = {p.name for p in (ROOT / "supabase/local/pgfleet_local").rglob("*.sql")}

    assert {p.name for p in local.rglob("*.sql")} == ours


def test_folder_of_this_repository_does_not_hide_the_supabase_client() -> None:
    code = "from supabase import create_client; print(create_client.__module__)"

    assert run(sys.executable, "-c", code, cwd=ROOT).startswith("supabase.")


def test_folders_at_the_root_are_no_packages() -> None:
    for name in ("db", "cli", "functions", "supabase", "tests"):
        assert not (ROOT / name / "__init__.py").exists()
