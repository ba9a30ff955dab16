"""Each extra by itself runs what it is for, with nothing on its path but what it brings along."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tests.helpers.extras import EXTRAS, run_alone

from pgfleet import __version__

ROOT = Path(__file__).parents[2]
PROGRAM = "from pgfleet.main import app; app()"
CONSOLE_OF_EACH: dict[str, tuple[str, ...]] = {
    "agent": ("agent", "run", "--help"),
    "admin": ("db", "migrate", "--help"),
    "functions": ("functions", "run", "--help"),
    "local": ("stack", "up", "--help"),
    "parquet": ("telemetry", "export", "--help"),
    "bench": ("schedule", "create", "--help"),
}
IMPORTS_OF_EACH: dict[str, str] = {
    "agent": "import pgfleet.agent.agent, pgfleet.agent.simulate",
    "admin": "import pgfleet.schema.migrate, pgfleet.schema.bundle",
    "functions": "from pgfleet_functions.app import ROUTES; assert ROUTES",
    "local": "import pgfleet_local.gateway, pgfleet_local.server.stack, pgfleet.demo.cli",
    "parquet": "import pyarrow, pgfleet.schema.migrate",
    "console": "import pgfleet_console.app",
    "storage": "import storage3, httpx",
    "s3": "import boto3",
    "otel": "from opentelemetry.sdk.trace import TracerProvider",
    "bench": "import pgfleet_functions.app, pgfleet.schema.migrate",
}


def test_every_extra_is_tried() -> None:
    assert set(IMPORTS_OF_EACH) == set(EXTRAS)


def test_without_any_extra_the_program_says_what_it_is() -> None:
    said = run_alone(None, PROGRAM, "--version")
    assert (said.returncode, said.stdout.strip()) == (0, f"pgfleet {__version__}"), said.stderr


def test_without_its_extra_a_noun_says_how_to_get_it() -> None:
    said = run_alone(None, PROGRAM, "schedule", "list")
    assert said.returncode != 0
    assert "pgfleet[admin]" in said.stderr and "Traceback" not in said.stderr


@pytest.mark.parametrize("extra", sorted(IMPORTS_OF_EACH))
def test_an_extra_by_itself_imports_and_runs(extra: str) -> None:
    words = CONSOLE_OF_EACH.get(extra, ("--help",))
    said = run_alone(extra, f"{IMPORTS_OF_EACH[extra]}\n{PROGRAM}", *words)
    assert said.returncode == 0, said.stderr
    assert "Usage:" in said.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True
    )
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": source}


def installed(folder: Path, file: Path, extra: str | None) -> Path:
    """Install a built file with an extra into an empty environment, as anybody would."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    what = f"pgfleet[{extra}] @ {file.as_uri()}" if extra else f"pgfleet @ {file.as_uri()}"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", what],
        check=True,
    )
    return python


def run(words: list[str], folder: Path) -> None:
    """Run a program of the new environment, which finds nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(words, check=True, cwd=folder, env=environment)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("extra", [None, *sorted(IMPORTS_OF_EACH)])
def test_the_wheel_works_in_an_empty_environment(
    built: dict[str, Path], tmp_path: Path, extra: str | None
) -> None:
    python = installed(tmp_path / "empty", built["wheel"], extra)
    program = python.parent / "pgfleet"
    for words in (("--version",), *filter(None, [CONSOLE_OF_EACH.get(extra or "")])):
        run([str(program), *words], tmp_path)
    run([str(python), "-c", IMPORTS_OF_EACH.get(extra or "", "import pgfleet")], tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_source_distribution_works_as_the_wheel_does(
    built: dict[str, Path], tmp_path: Path
) -> None:
    python = installed(tmp_path / "empty", built["sdist"], "admin")
    code = "from pgfleet.schema.sources import *; assert migration_files(sql_folder())"
    run([str(python), "-c", code], tmp_path)
