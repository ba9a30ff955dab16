"""Run the benchmarks and print a table of numbers, each with a baseline of the same run.

python tests/bench/run.py              all of them
python tests/bench/run.py expansion    those whose module name holds the word
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from pgfleet.schema.migrate import migrate
from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import StackSettings

HERE = Path(__file__).parent


@contextmanager
def migrated_server() -> Iterator[StackSettings]:
    """Run a private Postgres on disk, with pg_cron ticking, for one benchmark."""
    folder = Path(tempfile.mkdtemp(prefix="pgfleet-bench-"))
    folder.chmod(0o711)
    settings = StackSettings(
        data_dir=folder / "data",
        jwt_secret=secrets.token_hex(32),
        db_port=_free_port(),
        api_port=_free_port(),
    )
    server = Cluster(settings)
    try:
        server.create()
        server.start()
        prepare_cluster(settings.admin_url)
        prepare_database(settings.admin_url, default_privileges="new")
        server.set_passwords()
        migrate(settings.db_url)
        # The ticker starts with the server.
        server.stop()
        server.start()
        yield settings
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def main(words: list[str]) -> int:
    """Run the chosen benchmarks, each on a server of its own."""
    sys.path.insert(0, str(HERE))
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    chosen = [name for name in names if not words or any(word in name for word in words)]
    results: list[dict[str, Any]] = []
    for name in chosen:
        print(f"{name} …", file=sys.stderr, flush=True)
        with migrated_server() as settings, psycopg.connect(settings.db_url) as connection:
            connection.autocommit = True
            connection.execute("set statement_timeout = 0")
            results += importlib.import_module(name).run(connection)
    _print_table(results)
    print(json.dumps(results, default=str))
    return 0 if chosen else 2


def _print_table(results: list[dict[str, Any]]) -> None:
    table = Table(title=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}")
    for column in ("what", "value", "unit", "baseline", "ratio", "goal"):
        table.add_column(column, overflow="fold")
    for row in results:
        table.add_row(*(str(row.get(column.header, "")) for column in table.columns))
    Console(file=sys.stderr, width=140).print(table)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
