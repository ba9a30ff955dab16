"""The command line as a person calls it, on a database of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

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


class KeptConnection(psycopg.Connection[dict[str, Any]]):
    """A connection that the next command finds as new, with the plans of the ones before."""

    free: ClassVar[dict[str, KeptConnection]] = {}
    key: str | None = None

    @classmethod
    def take(cls, url: str, **options: Any) -> psycopg.Connection[Any]:
        """Connect as psycopg.connect does, over a connection of before where one is free."""
        if options.get("application_name") != "pgfleet":
            return psycopg.Connection.connect(url, **options)
        kept = cls.free.pop(url, None)
        if kept is None or kept.closed:
            kept = cls.connect(url, **options)
            kept.key = url
        return kept

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End the transaction, undo every setting, and be free again."""
        try:
            (self.commit if kind is None else self.rollback)()
            self.isolation_level = None
            self.autocommit = True
            self.execute("reset all; select pg_advisory_unlock_all(); unlisten *; discard temp")
            self.autocommit = False
        except psycopg.Error:
            self.close()
            if kind is None:
                raise
        else:
            if self.free.setdefault(self.key or "", self) is not self:
                self.close()

    @classmethod
    def end(cls) -> None:
        """Close those that are free."""
        while cls.free:
            cls.free.popitem()[1].close()


@pytest.fixture(scope="module")
def kept_connections(fleet: Any) -> Iterator[type[KeptConnection]]:
    """Keep the connections of a module's commands."""
    yield KeptConnection
    KeptConnection.end()


@pytest.fixture
def pgfleet(
    bare: Pgfleet,
    fleet: Any,
    kept_connections: type[KeptConnection],
    monkeypatch: pytest.MonkeyPatch,
) -> Pgfleet:
    """Give a function that runs a command on the module's database."""
    monkeypatch.setattr(psycopg, "connect", kept_connections.take)

    def run(*words: str, stdin: str | None = None) -> Answer:
        return bare("-d", fleet.url(), *words, stdin=stdin)

    return run
