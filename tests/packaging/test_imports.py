"""Who imports whom: the rules stand in pyproject.toml, and they do find what breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "pgfleet": ROOT / "cli",
    "pgfleet_functions": ROOT / "functions",
    "pgfleet_console": ROOT / "functions",
    "pgfleet_local": ROOT / "supabase" / "local",
}


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter of imports on the packages of a folder, by the rules of this project."""
    return subprocess.run(
        [
            *(sys.executable, "-c", "from importlinter.cli import *; lint_imports_command()"),
            *("--no-logo", "--no-cache", str(ROOT / "pyproject.toml")),
        ],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    for name, above in PACKAGES.items():
        shutil.copytree(
            above / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.sql")
        )
    return folder


def test_nobody_imports_from_above_or_in_a_circle(copies: Path) -> None:
    done = check(copies)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("pgfleet/errors.py", "from pgfleet.schema import sources", "command line"),
        ("pgfleet/schema/sources.py", "import pgfleet.nouns.device", "command line"),
        ("pgfleet/nouns/device.py", "import pgfleet.demo.view", "command line"),
        ("pgfleet/nouns/device.py", "import pgfleet.agent.state", "command line"),
        ("pgfleet/agent/state.py", "import pgfleet.agent.worker", "no circle"),
        ("pgfleet/nouns/schedule/spec.py", "import pgfleet.nouns.schedule.change", "no circle"),
        ("pgfleet/nouns/schedule/spec.py", "import pgfleet.nouns.device", None),
        ("pgfleet/new.py", "", "command line"),
        ("pgfleet/agent/http.py", "import psycopg", "A device needs"),
        ("pgfleet/agent/http.py", "def f():\n    from pgfleet import database", "A device needs"),
        ("pgfleet/database.py", "import pgfleet_local.settings", "The packages"),
        ("pgfleet_functions/errors.py", "import pgfleet_functions.app", "HTTP functions"),
        ("pgfleet_functions/http.py", "import pgfleet.errors", "stand alone"),
        ("pgfleet_local/settings.py", "import pgfleet_local.gateway", "local platform"),
        ("pgfleet_local/tokens.py", "import pgfleet.nouns.device", "The packages"),
    ],
)
def test_rules_find_what_breaks_them(
    copies: Path, module: str, line: str, rule: str | None
) -> None:
    path = copies / module
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        done = check(copies)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)

    broken = [words for words in done.stdout.splitlines() if "BROKEN" in words]
    if rule is None:
        assert (done.returncode, broken) == (0, [])
    else:
        assert done.returncode == 1, done.stdout + done.stderr
        assert any(rule in words for words in broken), broken


def comes_back(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """List the modules that import the folder in which they lie, where it imports anything."""
    return [
        (inside, folder)
        for folder in sorted(graph.modules)
        if graph.find_modules_directly_imported_by(folder)
        for inside in graph.find_modules_that_directly_import(folder)
        if inside.startswith(f"{folder}.")
    ]


def test_no_module_comes_back_to_the_folder_in_which_it_lies() -> None:
    """A folder that imports its modules, and is imported by one of them, is a circle, too."""
    assert comes_back(grimp.build_graph(*PACKAGES, cache_dir=None)) == []

    invented = grimp.ImportGraph()
    invented.add_import(importer="town.house.door", imported="town.house")
    assert comes_back(invented) == []
    invented.add_import(importer="town.house", imported="town.house.door")
    assert comes_back(invented) == [("town.house.door", "town.house")]
