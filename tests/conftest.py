"""Databases for the tests: one private cluster a session, cloned templates, signed-in callers."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor
from tests.helpers.kept_clusters import copy_kept
from tests.helpers.running_stack import PreparedStack, RunningStack, SharedStack

from pgfleet.schema.migrate import migrate
from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.binaries import find_binaries
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.server.processes import is_alive
from pgfleet_local.settings import HOST, StackSettings


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out, by name, what cannot be shown on a Postgres without pg_cron."""
    if item.get_closest_marker("pg_cron") and not has_library("pg_cron"):
        pytest.skip("this Postgres has no pg_cron")


@cache
def has_library(name: str) -> bool:
    """Tell whether the Postgres of the tests can load a module."""
    return find_binaries().has_library(name)


Style = Literal["new", "old"]
STYLES: tuple[Style, ...] = ("new", "old")
Template = Callable[[Style], str]


# Files that take long by themselves begin first, so that no worker is left with one at the end.
LONG_FIRST = (
    "tests/docs",
    "tests/ways",
    "tests/soak",
    "tests/agent",
    "tests/cli/test_db.py",
    "tests/cli/test_stack.py",
    "tests/db/runs",
    "tests/db/operations",
    "tests/db/recurrence",
    "tests/db/rollouts",
    "tests/db/schema",
    "tests/packaging",
    "tests/local",
    "tests/functions",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files that take long to the front, each whole and in its own order."""

    def rank(item: pytest.Item) -> int:
        return next(
            (n for n, start in enumerate(LONG_FIRST) if item.nodeid.startswith(start)),
            len(LONG_FIRST),
        )

    items.sort(key=rank)


class SignIn(Protocol):
    """The shape of the `sign_in` fixture."""

    def __call__(
        self,
        conn: psycopg.Connection[Any],
        sub: str | UUID | None,
        role: str = "authenticated",
        **claims: Any,
    ) -> None: ...


@dataclass(frozen=True)
class Database:
    """One database of the session's cluster, to be entered as any login role."""

    name: str
    settings: StackSettings

    def url(self, role: str = "postgres") -> str:
        """Give the URL for postgres, supabase_admin, authenticator or fleet_worker."""
        return self.settings.url(role, self.name)

    def connect(self, role: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """Open a connection, which the caller closes."""
        return psycopg.connect(self.url(role), **options)


class Session:
    """A connection as postgres that one test after the other finds as new."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.Connection[Any] | None = None

    def begin(self) -> psycopg.Connection[Any]:
        """Give the connection, another one where the last test broke it."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect()
        return self._connection

    def reset(self) -> None:
        """Undo what a test did, its settings and locks too; only plans stay."""
        connection = self.begin()
        connection.rollback()
        connection.autocommit = True
        connection.execute("reset all; select pg_advisory_unlock_all(); unlisten *")
        connection.autocommit = False

    def end(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


@pytest.fixture(scope="session")
def fast_folder() -> Iterator[Path]:
    """Give a folder in memory where there is one; servers of any account can reach it."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    _remove_orphans(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"pgfleet-test-{os.getpid()}-", dir=parent))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Give a function that finds a port nobody listens on, another one at each call.

    Until the session ends nobody but a server that asks for the port by its number gets it: no
    connection that goes out while that server is being started again, and no other worker.
    """
    holds: list[socket.socket] = []

    def find() -> int:
        hold = socket.socket()
        hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hold.bind((HOST, 0))
        holds.append(hold)
        port: int = hold.getsockname()[1]
        return port

    yield find
    for hold in holds:
        hold.close()


@pytest.fixture(scope="session")
def cluster(fast_folder: Path, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """Run one private Postgres, with the roles of a hosted project, for the whole session."""

    def settings(name: str) -> StackSettings:
        return StackSettings(
            data_dir=fast_folder / name,
            jwt_secret=secrets.token_hex(32),
            db_port=free_port(),
            api_port=free_port(),
            durable=False,
        )

    def make() -> Path:
        server = Cluster(settings("first-cluster"))
        server.create()
        server.start()
        try:
            prepare_cluster(server.settings.admin_url)
            server.set_passwords()
            for style in STYLES:
                _build_template(server.settings, style)
        finally:
            server.stop()
        return server.folder

    server = Cluster(settings("cluster"))
    server.settings.data_dir.mkdir()
    copy_kept("cluster", make, server.folder)
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")


@pytest.fixture(scope="session")
def template() -> Template:
    """Give a function that names, for each style, a migrated database to clone from."""
    return "template_{}".format


def _build_template(settings: StackSettings, style: Style) -> None:
    janitor = _janitor(settings, f"template_{style}")
    janitor.init()
    prepare_database(
        settings.url("supabase_admin", janitor.dbname),
        default_privileges=style,
        cron=False,
        net=True,
    )
    migrate(settings.url("postgres", janitor.dbname))


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: Template) -> Iterator[Database]:
    """Clone a database for the tests of one module: committed changes stay until its end."""
    with _clone(cluster.settings, template("new")) as cloned:
        yield cloned


@pytest.fixture(scope="module")
def old_style_database(cluster: Cluster, template: Template) -> Iterator[Database]:
    """Clone a database whose default privileges open every new object to the API roles."""
    with _clone(cluster.settings, template("old")) as cloned:
        yield cloned


@pytest.fixture
def own_database(cluster: Cluster, template: Template) -> Iterator[Database]:
    """Clone a database for one test that commits or needs several sessions."""
    with _clone(cluster.settings, template("new")) as cloned:
        yield cloned


@pytest.fixture(scope="session")
def clone(cluster: Cluster) -> Callable[[str | None], AbstractContextManager[Database]]:
    """Give a context manager that clones a database by its name, or makes an empty one."""
    return partial(_clone, cluster.settings)


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """Create a database with hosted manners and nothing of ours in it, for one test."""
    with _clone(cluster.settings, None) as made:
        prepare_database(made.url("supabase_admin"), cron=False, net=True)
        yield made


@pytest.fixture(scope="module")
def session(database: Database) -> Iterator[Session]:
    """Keep one connection for the tests of a module: what a session has planned is costly."""
    kept = Session(database)
    yield kept
    kept.end()


@pytest.fixture
def db(session: Session) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the module's database as postgres; all that the test does is rolled back."""
    yield session.begin()
    session.reset()


@pytest.fixture(scope="session")
def sign_in() -> SignIn:
    """Give a function that makes the rest of the transaction that of a signed-in caller."""

    def become(
        conn: psycopg.Connection[Any],
        sub: str | UUID | None,
        role: str = "authenticated",
        **claims: Any,
    ) -> None:
        known = {"sub": str(sub)} if sub is not None else {}
        text = json.dumps({"role": role, **known, **claims})
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', %s, true)", (text,))
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))

    return become


@pytest.fixture(scope="session")
def sign_out() -> Callable[[psycopg.Connection[Any]], None]:
    """Give a function that makes the rest of the transaction that of postgres again."""

    def leave(conn: psycopg.Connection[Any]) -> None:
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', '', true)")

    return leave


@pytest.fixture(scope="session")
def stack_settings(fast_folder: Path, free_port: Callable[[], int]) -> Callable[[], StackSettings]:
    """Give a function that makes settings for another local platform at each call."""

    def make() -> StackSettings:
        return StackSettings(
            data_dir=fast_folder / f"stack-{secrets.token_hex(4)}",
            jwt_secret=secrets.token_hex(32),
            db_port=free_port(),
            api_port=free_port(),
            durable=False,
            net_pace=False,
            max_connections=60,
        )

    return make


@pytest.fixture(scope="session")
def prepared_settings(
    stack_settings: Callable[[], StackSettings],
) -> Callable[[], StackSettings]:
    """Give a function that makes settings as `stack_settings` does, for a quicker first start."""
    return PreparedStack(stack_settings).settings


@pytest.fixture(scope="session")
def shared_stack(prepared_settings: Callable[[], StackSettings]) -> Iterator[SharedStack]:
    """Run the whole local platform, with real pg_cron and all of the API, once for each worker."""
    running = RunningStack(prepared_settings())
    try:
        running.wait_ready()
        running.wait_well()
        yield SharedStack(running)
    finally:
        running.end()


@pytest.fixture(scope="module")
def stack(shared_stack: SharedStack) -> Iterator[RunningStack]:
    """Give the platform that all modules of a worker share, as well as the first one found it.

    Rows of earlier modules are there: a module works with owners of its own. One that kills
    servers, or needs other settings, runs its own platform instead. A module that leaves it in a
    bad state is the one that fails.
    """
    yield shared_stack.running
    shared_stack.reset()
    shared_stack.running.wait_well()


def _janitor(settings: StackSettings, name: str, source: str | None = None) -> DatabaseJanitor:
    # The superuser: only it may end an autovacuum worker that is busy in the template.
    return DatabaseJanitor(
        user="supabase_admin",
        password=settings.password("supabase_admin"),
        host=HOST,
        port=settings.db_port,
        dbname=name,
        template_dbname=source,
    )


@contextmanager
def _clone(settings: StackSettings, source: str | None) -> Iterator[Database]:
    name = f"test_{secrets.token_hex(6)}"
    janitor = _janitor(settings, name, source)
    janitor.init()
    try:
        # The copy belongs to whoever made it; a project's database belongs to postgres.
        with janitor.cursor() as cursor:
            cursor.execute(
                sql.SQL("alter database {} owner to postgres").format(sql.Identifier(name))
            )
        yield Database(name, settings)
    finally:
        janitor.drop()


def _remove_orphans(parent: Path) -> None:
    """Remove the folders of test sessions that were killed."""
    for folder in parent.glob("pgfleet-test-*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
