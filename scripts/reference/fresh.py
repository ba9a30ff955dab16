"""A migrated database to read from, in a private cluster that is gone afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgfleet.schema.migrate import migrate
from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import HOST, StackSettings


@contextmanager
def fresh_database() -> Iterator[str]:
    """Give the address of a new database with all migrations and sources in it."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="pgfleet-docs-", dir=parent))
    # Root's servers run as another account, which has to pass through.
    folder.chmod(0o711)
    settings = StackSettings(
        data_dir=folder, jwt_secret=secrets.token_hex(32), db_port=_free_port(), durable=False
    )
    cluster = Cluster(settings)
    try:
        cluster.create()
        cluster.start()
        prepare_cluster(settings.admin_url)
        prepare_database(settings.admin_url, cron=False, net=True)
        cluster.set_passwords()
        migrate(settings.db_url)
        yield settings.db_url
    finally:
        cluster.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
