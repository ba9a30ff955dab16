"""Walks at a real terminal of 80 columns, by somebody who has the README and nothing else.

What is typed is what the pages show. Each ends in under five minutes, and no step fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.pages import DOCS, ROOT, blocks_of, ways_through
from tests.helpers.walker import Walker

from pgfleet_local.settings import StackSettings

README = ROOT / "README.md"
_SECONDS = 300

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def desk(
    stack_settings: Callable[[], StackSettings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Start the platform as the README says, in a first terminal; give more terminals."""
    settings = stack_settings()
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        **settings.environment(),
    }
    try:
        with Walker(environment, home) as first:
            (start,) = [b for b in blocks_of(README) if b.stays]
            first.stay(start.text.strip(), "In another terminal")
            yield lambda: Walker(environment, home)
    finally:
        subprocess.run(
            [sys.executable, "-m", "pgfleet", "stack", "down"],
            env={**os.environ, **environment},
            capture_output=True,
        )


@contextmanager
def in_five_minutes() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < _SECONDS


def sit_down(walker: Walker) -> None:
    """Type what the README says to type in each new terminal."""
    walker.type(". .venv/bin/activate")
    walker.type('eval "$(pgfleet stack env)"')
    walker.type("pgfleet demo seed")


def test_first_fleet(desk: Any) -> None:
    blocks = [block for block in ways_through(README)[0] if block.language == "sh"]

    with in_five_minutes(), desk() as walker:
        said = walker.follow([block for block in blocks if not block.stays])
        assert re.search(r'Schedule \d+ "My first" made\.', said)
        assert "No warnings." in said
        assert re.search(r"✓ completed +3 +3 +0", said)
        assert "All is well" in said
        # What she may try next, from what the screens told her.
        assert "✓ completed" in walker.type("pgfleet run list --limit 3")
        assert "pc-0001" in walker.type("pgfleet device list")
        assert "It would touch 3 devices." in walker.type(
            'pgfleet schedule delete "Clean up at night" --dry-run'
        )


def test_first_team(desk: Any) -> None:
    page = DOCS / "tutorial" / "4-first-team.md"
    assert "(docs/tutorial/4-first-team.md)" in README.read_text()

    with in_five_minutes(), desk() as walker:
        sit_down(walker)
        said = walker.follow(ways_through(page)[0])
        assert "School 7" in said
        assert "Two owners." in said
        assert "That takes the permission manage." in said
        assert "School 7" not in walker.type("pgfleet owner list")


def test_first_client(desk: Any) -> None:
    page = DOCS / "how-to" / "your-own-client.md"
    assert "(docs/how-to/your-own-client.md)" in README.read_text()
    steps = ways_through(page)[0]
    (client,) = [n for n, block in enumerate(steps) if block.saved_as == "client.py"]

    with in_five_minutes(), desk() as walker:
        sit_down(walker)
        # The first blocks enrol by hand and get a token; the client does the same by itself.
        walker.follow(steps[:2])
        said = walker.follow(steps[client : client + 2])
        assert "Hello from Python" in said
        assert re.search(r"status +✓ completed", said)
        assert "in-python" in walker.type("pgfleet device list --search in-python")
        walker.type("kill %1")
