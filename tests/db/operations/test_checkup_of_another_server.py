"""Faults of a whole server, each made on one of its own: its version, its age, its archive."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.agent.conftest import wait_for
from tests.db.operations.test_checkup_of_server import found

from pgfleet.errors import InvalidInput
from pgfleet.schema.migrate import migrate
from pgfleet_local.server.binaries import Binaries
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.server.processes import as_account
from pgfleet_local.settings import StackSettings

# So many transactions share one file of what became of them, of so many bytes.
TRANSACTIONS_A_FILE, FILE_BYTES = 1_048_576, 262_144
PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_config", "pg_resetwal")


@dataclass
class Server:
    """A server of its own, which is stopped when it is to be changed."""

    settings: StackSettings
    binaries: Binaries
    cluster: Cluster

    def start(self, binaries: Binaries | None = None, **configuration: str) -> None:
        """Start it, by other programs or with some of its settings changed."""
        file = self.cluster.folder / "postgresql.auto.conf"
        file.write_text("".join(f"{name} = '{value}'\n" for name, value in configuration.items()))
        self.cluster = Cluster(self.settings, binaries or self.binaries)
        self.cluster.start()

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.settings.admin_url, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    def found(self, name: str) -> tuple[str, str]:
        """Give what a checkup says of one thing."""
        with psycopg.connect(self.settings.admin_url, autocommit=True) as conn:
            return found(conn, name)


@pytest.fixture
def server(prepared_settings: Callable[[], StackSettings]) -> Iterator[Server]:
    settings = prepared_settings()
    cluster = Cluster(settings)
    made = Server(settings, cluster.binaries, cluster)
    try:
        yield made
    finally:
        made.cluster.stop("immediate")


def calling_itself(binaries: Binaries, version: int, folder: Path) -> Binaries:
    """Copy the programs, of which the server tells another version than the one that it is."""
    if sys.platform != "linux":
        pytest.skip("programs of other systems are signed")
    folder.mkdir()
    folder.chmod(0o755)
    for name in PROGRAMS:
        if (there := Path(binaries.program(name))).exists():
            (folder / name).symlink_to(there)
    server = folder / "postgres"
    program = server.read_bytes()
    told = subprocess.run([server, "--version"], check=True, capture_output=True, text=True).stdout
    major, minor = re.findall(r"\(PostgreSQL\) (\d+)\.(\d+)", told)[0]
    # The setting `server_version_num` is this number by default, at least and at most.
    number = struct.pack("<i", int(major) * 10000 + int(minor)) * 3
    assert program.count(number) == 1
    server.unlink()
    server.write_bytes(program.replace(number, struct.pack("<i", version * 10000) * 3))
    server.chmod(0o755)
    return Binaries(folder, binaries.version)


@pytest.mark.parametrize("version", [14, 19])
def test_a_server_of_another_version_is_told(
    server: Server, version: int, fast_folder: Path
) -> None:
    programs = fast_folder / f"programs-{version}"
    server.start(calling_itself(server.binaries, version, programs))
    assert server.found("server_version")[0] == "warning"
    assert f"PostgreSQL {version}" in server.found("server_version")[1]


def test_nothing_is_written_to_a_server_that_is_too_old(server: Server, fast_folder: Path) -> None:
    server.start(calling_itself(server.binaries, 14, fast_folder / "programs-old"))
    server.run("create database other")
    url = server.settings.admin_url.removesuffix("/postgres") + "/other"
    with pytest.raises(InvalidInput, match="PostgreSQL 14, and pgfleet needs 15") as refused:
        migrate(url)
    assert refused.value.reason == "server_too_old"
    with psycopg.connect(url) as conn:
        made = "select count(*) from pg_namespace where nspname in ('fleet', 'yoyo', 'telemetry')"
        assert conn.execute(made).fetchone() == (0,)


def test_a_server_that_nobody_has_prepared_is_told_what_it_lacks(
    stack_settings: Callable[[], StackSettings],
) -> None:
    settings = stack_settings()
    bare = Cluster(settings)
    bare.create()
    bare.start()
    try:
        with pytest.raises(InvalidInput) as refused:
            migrate(settings.admin_url)
        assert refused.value.reason == "roles_missing"
        with psycopg.connect(settings.admin_url, autocommit=True) as conn:
            assert conn.execute("select to_regnamespace('yoyo')").fetchone() == (None,)
            for statement in str(refused.value.hint).partition(": ")[2].split("; "):
                conn.execute(statement)
        assert migrate(settings.admin_url).applied
    finally:
        bare.stop("immediate")


def grown_old(server: Server, transactions: int) -> None:
    """Let a server that is stopped have made so many transactions."""
    program = Path(server.binaries.program("pg_resetwal"))
    if not program.exists():
        pytest.skip("a bundle of the server alone has no pg_resetwal")
    folder, account = server.cluster.folder, server.cluster.account
    states = folder / "pg_xact" / f"{transactions // TRANSACTIONS_A_FILE:04X}"
    states.write_bytes(bytes(FILE_BYTES))
    if account:
        os.chown(states, account.pw_uid, account.pw_gid)
    command = [str(program), "-x", str(transactions), "-D", str(folder)]
    subprocess.run(as_account(account, command), check=True, capture_output=True, cwd="/")


def test_rows_that_nobody_freezes_are_told_until_somebody_does(server: Server) -> None:
    grown_old(server, 1_100_000_000)
    server.start(autovacuum="off", autovacuum_freeze_max_age="2000000000")
    state, words = server.found("transaction_ids")
    assert state == "broken"
    assert re.search(r"written 1\d{9} transactions ago", words)
    server.run("vacuum (freeze)")
    assert server.found("transaction_ids") == ("ok", "")


def test_an_archive_that_fails_is_told_until_it_works(server: Server) -> None:
    server.start(archive_mode="on", archive_command="false", wal_level="logical")
    server.run("create table written (n integer)", "select pg_switch_wal()")
    wait_for(lambda: server.found("backups")[0] == "broken", "the archive has failed", 60)
    assert "archiving fails since" in server.found("backups")[1]
    server.run("alter system set archive_command = 'true'", "select pg_reload_conf()")
    wait_for(lambda: server.found("backups") == ("ok", ""), "the archive works again", 90)
