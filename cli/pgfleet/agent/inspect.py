"""What can be known of a device from its state folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pgfleet.agent import credentials, journal, state
from pgfleet.agent.location.state import describe as describe_location


def describe(folder: Path) -> dict[str, Any]:
    """Give identity, journal, whereabouts and whether an agent runs; no secrets."""
    found = credentials.load(folder) if folder.is_dir() else None
    described: dict[str, Any] = {
        "state_dir": str(folder),
        "enrolled": found is not None,
        "running": False,
        "process_id": None,
    }
    if folder.is_dir():
        holder = state.lock_holder(folder)
        described.update(running=holder is not None, process_id=holder or None)
    if found is not None:
        described.update(found.without_secret())
    described.update(_describe_journal(folder / state.JOURNAL))
    described.update(describe_location(folder, found.device_id if found else None))
    return described


def _describe_journal(path: Path) -> dict[str, Any]:
    content = path.read_bytes() if path.is_file() else b""
    journal_id, entries = journal.read(content, path)
    finished = sorted(entry.command_id for entry in entries.values() if entry.finished)
    begun = sorted(entry.command_id for entry in entries.values() if not entry.finished)
    return {"journal": journal_id or None, "running_commands": begun, "unreported": finished}
