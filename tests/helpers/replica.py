"""A streaming replica of the tests' cluster: what the primary has, a moment later, read only."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pgfleet_local.server.cluster import Cluster
from pgfleet_local.server.processes import as_account, spawn
from pgfleet_local.settings import StackSettings

PATIENCE_SECONDS = 30.0


@contextmanager
def streaming_replica(primary: Cluster, folder: Path, port: int) -> Iterator[StackSettings]:
    """Copy the primary as it runs, follow it, and give the settings that lead to the copy."""
    program = primary.binaries.program
    if not Path(program("pg_basebackup")).exists():
        pytest.skip("this Postgres comes without pg_basebackup")
    folder.mkdir(mode=0o711)
    data, sockets, log = folder / "postgres", folder / "socket", folder / "postgres.log"
    for made in (data, sockets):
        made.mkdir(mode=0o700)
        if primary.account is not None:
            os.chown(made, primary.account.pw_uid, primary.account.pw_gid)
    command = [
        *(program("pg_basebackup"), "-D", str(data), "-R", "--checkpoint=fast", "--no-sync"),
        *("-d", primary.socket_admin_dsn),
    ]
    subprocess.run(as_account(primary.account, command), check=True, capture_output=True, cwd="/")
    settings = replace(primary.settings, db_port=port)
    with log.open("wb") as out:
        server = spawn(
            [
                *(program("postgres"), "-D", str(data)),
                *("-c", f"port={port}", "-c", f"unix_socket_directories={sockets}"),
            ],
            log=out,
            account=primary.account,
            death_signal="INT",
        )
    try:
        _wait_until_it_answers(settings, server, log)
        yield settings
    finally:
        server.kill()
        server.wait()


def _wait_until_it_answers(
    settings: StackSettings, server: subprocess.Popen[bytes], log: Path
) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg.connect(settings.admin_url).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
