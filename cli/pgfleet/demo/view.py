"""What the demo shows while it plays: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_LINE_EVERY_SECONDS = 2.0
_LABELS = {
    "devices": "devices seen",
    "runs": "runs in the ledger",
    "commands": "commands",
    "pending": "pending",
    "running": "running",
    "completed": "completed",
    "handled": "handlers entered",
}


class View:
    """Show progress and say what happens, on stderr."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._started = time.monotonic()
        self._last_line = 0.0

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def tell(self, text: str) -> None:
        """Say that something happens now."""
        line = Text(f"{time.monotonic() - self._started:6.1f} s  ", style="dim").append(text)
        self._console.print(line)

    def point(self, link: str) -> None:
        """Print the link to the console by itself, so that it can be clicked and copied."""
        self._console.print("watch it in a browser; the link is good once:")
        self._console.print(link, soft_wrap=True, highlight=False)

    def show(self, seen: dict[str, Any]) -> None:
        """Show the counts of this moment."""
        if self._console.is_terminal:
            self._live.update(Group(_progress_table(seen)))
        elif time.monotonic() - self._last_line > _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self.tell("  ".join(f"{label}: {seen[key]}" for key, label in _LABELS.items()))

    def conclude(self, report: dict[str, Any]) -> None:
        """Print the report as a table."""
        self._live.stop()
        table = Table("", "count", "p50 ms", "p95 ms", "p99 ms", title="What happened")
        for key in ("devices", "runs", "commands", "completed", "lost", "duplicated"):
            bad = key in ("lost", "duplicated") and report[key]
            table.add_row(key, str(report[key]), style="red" if bad else None)
        for key, label in (
            ("insert_to_handler_ms", "row inserted → handler entered"),
            ("due_to_row_ms", "due → command row"),
            ("during_restart", "sent while the gateway restarted"),
            ("pressed_to_installed_ms", "install_profile() → on the iPad"),
            ("end_to_removed_ms", "end of its time → off the iPad"),
        ):
            row = report[key]
            times = (str(row["p50"]), str(row["p95"]), str(row["p99"]))
            table.add_row(label, str(row.get("commands", "")), *times)
        for name, states in report["deployments"].items():
            said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            table.add_row(name, said)
        self._console.print(table)


def _progress_table(seen: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for key, label in _LABELS.items():
        table.add_row(label, Text(str(seen[key]), style="bold"))
    return table
