"""Run the benchmarks and print a table of numbers, each with a baseline of the same run.

python tests/bench/run.py              all of them
python tests/bench/run.py expansion    those whose module name holds the word
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import psycopg
from measure import free_port
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
        db_port=free_port(),
        api_port=free_port(),
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
            bench = importlib.import_module(name).run
            # Some are somebody else than the operator of the database.
            more = [settings] if "settings" in signature(bench).parameters else []
            results += bench(connection, *more)
    _print_table(results)
    print(json.dumps(results, default=str))
    missed = [found["what"] for found in results if is_missed(found)]
    for what in missed:
        print(f"by more than a third from its goal: {what}", file=sys.stderr)
    return 1 if missed else 0 if chosen else 2


def is_missed(found: dict[str, Any]) -> bool:
    """Tell whether a number is further from its goal than a third of it."""
    goal = re.match(r"(ratio )?([≤≥]) ([\d.]+)", str(found.get("goal", "")))
    number = re.match(r"[\d.]+", str(found.get("ratio" if goal and goal[1] else "value", "")))
    if goal is None or number is None:
        return False
    share = float(number[0]) / float(goal[3])
    return share > 4 / 3 if goal[2] == "≤" else share < 2 / 3


def _print_table(results: list[dict[str, Any]]) -> None:
    table = Table(title=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}")
    for column in ("what", "value", "unit", "baseline", "ratio", "goal"):
        table.add_column(column, overflow="fold")
    for row in results:
        table.add_row(*(str(row.get(column.header, "")) for column in table.columns))
    Console(file=sys.stderr, width=140).print(table)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
