"""The private Postgres cluster: who may come in, and what it survives."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgfleet_local.server.cluster import Cluster, ClusterError
from pgfleet_local.server.processes import wait_gone
from pgfleet_local.settings import StackSettings


@pytest.fixture(scope="module")
def made(fast_folder: Path, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """A cluster of its own, not running."""
    settings = StackSettings(
        # Deep enough that a socket's path would be too long in it.
        data_dir=fast_folder / ("deep" * 20),
        jwt_secret="secret" * 8,
        db_port=free_port(),
        durable=False,
    )
    made = Cluster(settings)
    made.create()
    yield made
    made.socket_dir.rmdir()


@pytest.fixture
def server(made: Cluster) -> Iterator[Cluster]:
    made.start()
    yield made
    made.stop("immediate")


def value(server: Cluster, setting: str) -> Any:
    with psycopg.connect(server.settings.admin_url) as conn:
        row = conn.execute("select current_setting(%s)", (setting,)).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("listen_addresses", "127.0.0.1"),
        ("wal_level", "logical"),
        ("statement_timeout", "2min"),
        ("max_connections", "120"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
        pytest.param("cron.use_background_workers", "off", marks=pytest.mark.pg_cron),
        pytest.param("cron.database_name", "postgres", marks=pytest.mark.pg_cron),
        ("fsync", "off"),
    ],
)
def test_it_is_set_up_as_hosted(server: Cluster, setting: str, expected: str) -> None:
    assert value(server, setting) == expected


@pytest.mark.pg_cron
def test_pg_cron_comes_in_through_the_private_socket(server: Cluster) -> None:
    assert value(server, "cron.host") == str(server.socket_dir)
    assert server.socket_dir.stat().st_mode & 0o077 == 0
    assert len(os.fsencode(server.socket_dir)) < 100


def test_it_stops_and_starts_with_its_data(server: Cluster) -> None:
    with psycopg.connect(server.settings.admin_url) as conn:
        conn.execute("create table kept ()")
    server.stop()
    assert not server.is_running()
    server.start()

    with psycopg.connect(server.settings.admin_url) as conn:
        conn.execute("drop table kept")


def test_a_killed_server_starts_again(server: Cluster) -> None:
    pid = server.running_pid()
    server.kill()
    assert pid is not None and wait_gone([pid], 10)
    server.start()

    assert value(server, "port") == str(server.settings.db_port)


def test_a_server_that_somebody_else_started_is_replaced(server: Cluster) -> None:
    before = server.running_pid()
    other = Cluster(server.settings)
    other.start()
    try:
        assert other.running_pid() not in (None, before)
        assert not server.is_running()
    finally:
        other.stop("immediate")


def test_the_password_follows_the_settings(made: Cluster) -> None:
    changed = Cluster(replace(made.settings, password_seed="another"))
    changed.start()
    try:
        assert changed.settings.admin_url != made.settings.admin_url
        assert value(changed, "port")
    finally:
        changed.stop("immediate")


def test_a_failed_start_says_why(made: Cluster) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", made.settings.db_port))
        other.listen()
        with pytest.raises(ClusterError, match="could not bind IPv4 address"):
            made.start()
    assert not made.is_running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")
def test_a_folder_that_the_servers_cannot_reach_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    cluster = Cluster(StackSettings(data_dir=private / "data", jwt_secret="secret" * 8))

    with pytest.raises(ClusterError, match="cannot reach"):
        cluster.create()
