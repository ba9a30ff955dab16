"""The command line as a person calls it, on a database of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from pgfleet.main import app


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Read what was printed as JSON."""
        return json.loads(self.out)


Pgfleet = Callable[..., Answer]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Pgfleet:
    """Give a function that runs a command without any database at hand."""
    monkeypatch.delenv("PGFLEET_DATABASE_URL", raising=False)
    monkeypatch.setenv("PGFLEET_LOCAL_DATA_DIR", str(tmp_path / "no-stack"))

    def run(*words: str, stdin: str | None = None) -> Answer:
        result = CliRunner().invoke(app, list(words), input=stdin, prog_name="pgfleet")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="module")
def fleet(database: Any) -> Iterator[Any]:
    """Give a migrated database with an owner that is the default."""
    with psycopg.connect(database.url()) as conn:
        conn.execute(
            """
            select fleet.set_setting('default_owner', to_jsonb(o.id::text))
            from public.create_owner('School 7') as o
            """
        )
    yield database


@pytest.fixture
def pgfleet(bare: Pgfleet, fleet: Any) -> Pgfleet:
    """Give a function that runs a command on the module's database."""

    def run(*words: str, stdin: str | None = None) -> Answer:
        return bare("-d", fleet.url(), *words, stdin=stdin)

    return run
