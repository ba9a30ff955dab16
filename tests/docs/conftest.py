"""A platform of its own for each reader, as quick as copying one that is prepared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest
from tests.helpers.pages import DOCS, ways_through
from tests.helpers.reader import Reader

from pgfleet_local.settings import StackSettings

START = DOCS / "index.md"

SitDown = Callable[..., AbstractContextManager[Reader]]
ReadPage = Callable[[Path, int], None]


@pytest.fixture(scope="module")
def at_a_fresh_desk(
    stack_settings: Callable[[], StackSettings], tmp_path_factory: pytest.TempPathFactory
) -> SitDown:
    """Give a context manager: a reader who has nothing and starts the platform herself."""

    @contextmanager
    def sit_down() -> Iterator[Reader]:
        settings = stack_settings()
        with (
            _running(settings, is_up=False),
            _reader(settings, tmp_path_factory.mktemp("reader")) as reader,
        ):
            yield reader

    return sit_down


@pytest.fixture(scope="module")
def read_page(
    prepared_settings: Callable[[], StackSettings],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ReadPage]:
    """Give a function that reads a page in one of the ways through it.

    All pages of a module are read on one platform, in their order; whoever takes the other ways
    through them has one of her own. Each page is read in a new shell, and begins with what the
    start page tells everybody to paste.
    """
    with ExitStack() as platforms:

        @cache
        def platform(way: int) -> StackSettings:
            settings = prepared_settings()
            platforms.enter_context(_running(settings))
            return settings

        def read(page: Path, way: int) -> None:
            with _reader(platform(way), tmp_path_factory.mktemp("reader")) as reader:
                for block in [*ways_through(START)[0], *ways_through(page)[way]]:
                    reader.paste(block)

        yield read


def _reader(settings: StackSettings, home: Path) -> Reader:
    return Reader(_environment(settings, home), home, settings.db_url)


@contextmanager
def _running(settings: StackSettings, *, is_up: bool = True) -> Iterator[None]:
    """Run the platform, or let somebody else do so, and see that it is down in the end."""
    try:
        if is_up:
            _stack(settings, "up", "--background", check=True)
        yield
    finally:
        _stack(settings, "down")


def _stack(settings: StackSettings, *words: str, check: bool = False) -> None:
    subprocess.run(
        [sys.executable, "-m", "pgfleet", "stack", *words],
        env={**os.environ, **settings.environment()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=check,
    )


def _environment(settings: StackSettings, home: Path) -> dict[str, str]:
    """Give what the reader's shell knows: where this platform is, and nothing of another one."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "SUPABASE_", "VIRTUAL_ENV", "PYTEST_"))
    }
    return {
        **kept,
        **settings.environment(),
        # As after `. .venv/bin/activate`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home),
        "NO_COLOR": "1",
    }
